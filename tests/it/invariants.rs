//! The invariants of the code map that a test can keep.

use std::path::Path;

fn sources(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((
                    path.strip_prefix(root).unwrap().display().to_string(),
                    std::fs::read_to_string(&path).unwrap(),
                ));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has sources");
    found
}

#[test]
fn no_system_is_named_in_a_deployment() {
    let names = ["task-tracker", "task_tracker", "monolith", "gateway", "microservices"];
    for (path, text) in sources("src/deploy") {
        for name in names {
            assert!(!text.contains(name), "{path} names {name}");
        }
    }
}

#[test]
fn no_deployment_is_named_in_a_service_and_no_service_knows_the_lab() {
    for (path, text) in sources("services") {
        for name in ["scalelab::", "use scalelab", "docker", "Docker"] {
            assert!(!text.contains(name), "{path} says {name}");
        }
    }
}

#[test]
fn services_depend_on_kit_and_never_on_each_other_or_the_lab() {
    let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("services");
    let folders: Vec<_> =
        std::fs::read_dir(services).unwrap().flatten().filter(|entry| entry.path().is_dir()).collect();
    let names: Vec<_> = folders.iter().map(|folder| folder.file_name().into_string().unwrap()).collect();
    for folder in &folders {
        let own = folder.file_name().into_string().unwrap();
        let manifest = std::fs::read_to_string(folder.path().join("Cargo.toml")).unwrap();
        let forbidden =
            names.iter().map(String::as_str).filter(|name| *name != own && (*name != "kit" || own == "kit"));
        for name in forbidden.chain(["scalelab"]) {
            assert!(
                !manifest
                    .lines()
                    .any(|line| line.starts_with(&format!("{name}.")) || line.starts_with(&format!("{name} "))),
                "{own} depends on {name}"
            );
        }
    }
}

#[test]
fn only_the_archive_knows_file_names() {
    for (path, text) in sources("src").into_iter().filter(|(path, _)| !path.starts_with("src/archive")) {
        for name in ["results.jsonl", "plan.json", "all_results.json"] {
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            assert!(!code.into_iter().any(|line| line.contains(&format!("\"{name}\""))), "{path} names {name}");
        }
    }
}

#[test]
fn every_experiment_that_comes_along_asks_a_question_and_plans_trials() {
    for (name, text) in scalelab::workloads::WORKLOADS {
        assert!(text.starts_with("# ") && text.lines().next().unwrap().contains('?'), "{name}");
        let experiment = scalelab::experiment::file::parse(text, name, "x").unwrap();
        assert!(experiment.search.is_some() || !scalelab::experiment::plan(&experiment).is_empty(), "{name}");
        let again = scalelab::experiment::file::parse(&experiment.to_toml(), name, "x").unwrap();
        assert_eq!(again, experiment, "{name}: what is archived is read back the same");
    }
}

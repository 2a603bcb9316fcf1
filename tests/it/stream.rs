//! A stream as its users meet it: the same small one on every deployment, live against simulated, and the same bytes.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::lab::{Called, call, scratch, write};

/// Four tasks on two slots: two waves of 7.5 lines each.
fn small(cost: &str, duration_s: u32) -> String {
    format!(
        "# Does a small stream keep up?\nsystem = \"socket-stream\"\ntrials = 1\nseed = 3\nwarmup = \"1s\"\nduration = \"{duration_s}s\"\n\
         [load]\nmode = \"open\"\nrate = 60\n\
         [settings]\nbatch_interval = \"500ms\"\nblock_interval = \"100ms\"\ncores = 3\npartitions = 4\ncost = \"{cost}\"\n"
    )
}

struct Ran {
    called: Called,
    archive: PathBuf,
    trial: Value,
}

fn run(folder: &Path, text: &str, deployment: &str) -> Ran {
    let file = write(folder, "stream.toml", text);
    let out = folder.join(deployment);
    let flags = ["--deployment", deployment, "--out", out.to_str().unwrap()];
    let called = call(&[&["run", file.to_str().unwrap()][..], &flags].concat());
    let archive = std::fs::canonicalize(out.join("latest"))
        .unwrap_or_else(|error| panic!("{error}: {} {}", called.stdout, called.stderr));
    let results = std::fs::read_to_string(archive.join("results.jsonl")).unwrap();
    let trial = results.lines().next().map(|line| serde_json::from_str(line).unwrap());
    let trial = trial.unwrap_or_else(|| panic!("no result: {} {}", called.stdout, called.stderr));
    Ran { called, archive, trial }
}

fn runs_a_stream(deployment: &str) {
    let folder = scratch();
    let Ran { called, archive, trial } = run(folder.path(), &small("2ms", 5), deployment);
    assert_eq!(called.code, Some(0), "{}\n{}", called.stdout, called.stderr);
    assert_eq!(trial["valid"], true, "{trial}");
    let stream = &trial["stream"];
    assert_eq!(stream["state"], "stable", "{stream}");
    let rate = stream["avg_input_rate_per_s"].as_f64().unwrap();
    assert!((rate / 60.0 - 1.0).abs() < 0.06, "{rate} lines a second");
    let processing = stream["avg_processing_time_ms"].as_f64().unwrap();
    assert!((28.0..45.0).contains(&processing), "two waves of 7.5 lines of 2 ms: {processing} ms");
    assert_eq!(trial["error_rate"], 0.0, "{trial}");
    assert!((trial["throughput_rps"].as_f64().unwrap() / 60.0 - 1.0).abs() < 0.06, "records, not batches: {trial}");
    let last = called.stdout.lines().rfind(|line| !line.is_empty()).unwrap();
    assert!(last.starts_with("stable: "), "the closing line says how it went: {last}");
    let folder = archive.join("trials").join(trial["name"].as_str().unwrap());
    let told = std::fs::read_to_string(folder.join("batches.jsonl")).unwrap();
    assert!(told.lines().next().unwrap().contains("\"entry\":\"engine\""), "{told}");
    assert!(told.matches("\"completed\"").count() >= 10, "{told}");
    for name in ["report.html", "report.md", "figures.csv", "all_results.json"] {
        assert!(archive.join(name).metadata().is_ok_and(|file| file.len() > 0), "{name}");
    }
    let again = call(&["report", archive.to_str().unwrap()]);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
}

#[test]
fn a_stream_runs_in_process() {
    runs_a_stream("in-process");
}

#[test]
fn a_stream_runs_as_processes() {
    runs_a_stream("processes");
}

#[test]
fn a_stream_runs_simulated() {
    runs_a_stream("simulated");
}

#[test]
fn live_and_simulated_agree_on_processing_time_growth_and_verdict() {
    let folder = scratch();
    // 7.5 lines of 70 ms in two waves are 1,050 ms of every 500.
    let text = small("70ms", 14);
    let simulated = run(folder.path(), &text, "simulated").trial;
    let number = |trial: &Value, key: &str| match &trial["stream"][key] {
        Value::Object(interval) => interval["estimate"].as_f64(),
        plain => plain.as_f64(),
    };
    let keys = ["avg_processing_time_ms", "delay_growth_ms_per_batch"];
    // A machine that is busy with other things may stretch a live run: it has three tries.
    let differs = |_| {
        let live = run(folder.path(), &text, "processes").trial;
        assert_eq!(
            (&live["stream"]["state"], &simulated["stream"]["state"]),
            (&"falls-behind".into(), &"falls-behind".into())
        );
        let of_both = |key: &&str| Some((number(&live, key)?, number(&simulated, key)?));
        let far = |key: &&str| of_both(key).is_none_or(|(live, simulated)| (live / simulated - 1.0).abs() >= 0.05);
        keys.into_iter().find(far).map(|key| format!("{key}: {:?}", of_both(&key)))
    };
    let tries: Vec<_> = (0..3).map(differs).take_while(Option::is_some).flatten().collect();
    assert!(tries.len() < 3, "live and simulated differ: {tries:?}");
}

#[test]
fn the_same_seed_simulates_the_same_bytes() {
    let files = |seed: &str| {
        let folder = scratch();
        let text = small("2ms", 20).replace("seed = 3", seed).replace("rate = 60", "rate = 60\narrivals = \"poisson\"");
        let Ran { archive, .. } = run(folder.path(), &text, "simulated");
        let mut files = vec![archive.join("results.jsonl")];
        let trial = std::fs::read_dir(archive.join("trials")).unwrap().flatten().next().unwrap().path();
        files.extend(
            std::fs::read_dir(trial).unwrap().flatten().map(|entry| entry.path()).filter(|path| path.is_file()),
        );
        files.sort();
        files
            .iter()
            .map(|path| (path.file_name().unwrap().to_owned(), std::fs::read(path).unwrap()))
            .collect::<Vec<_>>()
    };
    let (one, same, other) = (files("seed = 3"), files("seed = 3"), files("seed = 4"));
    let names =
        |files: &[(std::ffi::OsString, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&one), names(&same));
    for (a, b) in one.iter().zip(&same) {
        assert!(a == b, "{:?} differs", a.0);
    }
    let told = |files: &[(std::ffi::OsString, Vec<u8>)]| {
        files.iter().find(|(name, _)| name == "batches.jsonl").map(|(_, bytes)| bytes.clone()).expect("batches.jsonl")
    };
    assert_ne!(told(&one), told(&other), "another seed is another run");
}

#[test]
fn an_hour_of_stream_is_simulated_in_moments() {
    let folder = scratch();
    let text = small("2ms", 3600).replace("rate = 60", "rate = 150").replace("500ms", "2s").replace("100ms", "200ms");
    let Ran { called, trial, .. } = run(folder.path(), &text, "simulated");
    assert_eq!(called.code, Some(0), "{}", called.stderr);
    assert_eq!(trial["stream"]["batches"]["completed"], 1800, "{}", trial["stream"]);
}

#[test]
fn wrong_settings_of_a_stream_are_refused_with_their_line() {
    let folder = scratch();
    for (from, to, line, message) in [
        ("batch_interval = \"500ms\"", "batch_interval = \"0s\"", 11, "batch_interval"),
        ("cost = \"2ms\"", "cost = \"-1ms\"", 15, "cost"),
        ("partitions = 4", "partitions = 4\nreduce_partitions = 0", 15, "reduce_partitions"),
        ("mode = \"open\"\nrate = 60", "users = 3", 0, "mode = \"open\""),
        ("cores = 3", "croes = 3", 13, "croes"),
    ] {
        let text = small("2ms", 5).replace(from, to);
        let file = write(folder.path(), "wrong.toml", &text);
        let called = call(&["run", file.to_str().unwrap(), "--deployment", "simulated"]);
        assert_eq!(called.code, Some(2), "{to}: {}", called.stderr);
        assert!(called.stderr.contains(message), "{to}: {}", called.stderr);
        if line > 0 {
            assert!(called.stderr.contains(&format!("wrong.toml:{line}:")), "{to}: {}", called.stderr);
        }
    }
}

#[test]
fn that_no_slot_is_left_is_said_before_the_first_trial() {
    let folder = scratch();
    let text = small("2ms", 5).replace("cores = 3", "cores = 1");
    let file = write(folder.path(), "stuck.toml", &text);
    let out = folder.path().join("runs");
    let called = call(&["run", file.to_str().unwrap(), "--deployment", "in-process", "--out", out.to_str().unwrap()]);
    let (said, ran) = (called.stderr.find("no slot"), called.stderr.find("[1/1]"));
    assert!(said.is_some() && said < ran, "{}", called.stderr);
}

#[test]
fn a_level_that_makes_no_sense_is_refused_at_its_factor_and_a_foreign_source_is_not_simulated() {
    let folder = scratch();
    let refused = |text: &str| {
        let file = write(folder.path(), "wrong.toml", text);
        let called = call(&["run", file.to_str().unwrap(), "--deployment", "simulated"]);
        assert_eq!(called.code, Some(2), "{}", called.stderr);
        called.stderr
    };
    let said = refused(&(small("2ms", 5) + "[factors]\ncores = [2, 900000]\n"));
    assert!(said.contains("wrong.toml:17: "), "{said}");
    let said = refused(&(small("2ms", 5) + "source = \"127.0.0.1:9\"\n"));
    assert!(said.contains("settings.source") && said.contains("simulated"), "{said}");
}

#[test]
fn what_is_to_be_known_of_every_cell_is_said_once_and_of_some_with_their_place() {
    let folder = scratch();
    let text = small("2ms", 5) + "initial_rate = 40.0\n[factors]\ncores = [1, 2, 3]\n";
    let file = write(folder.path(), "notes.toml", &text);
    let out = folder.path().join("runs");
    let called = call(&["run", file.to_str().unwrap(), "--deployment", "simulated", "--out", out.to_str().unwrap()]);
    // What runs before this one have left is no note of the experiment.
    let is_of_it = |line: &&str| line.starts_with("note: ") && !line.contains("earlier run");
    let notes: Vec<_> = called.stderr.lines().filter(is_of_it).collect();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(
        notes.iter().any(|note| note.starts_with("note: initial_rate limits receivers to 40 records/s")),
        "{notes:?}"
    );
    assert!(notes.iter().any(|note| note.starts_with("note: cores 1: no slot is left")), "{notes:?}");
}

//! What there is: systems, deployments, backends, experiments; and what an experiment would run.

use crate::experiment::{self, DeploymentKind, Experiment};
use crate::systems::SYSTEMS;
use crate::workloads::WORKLOADS;

/// Prints the systems with their matrix, and the experiments.
pub fn systems() -> u8 {
    let deployments = [DeploymentKind::InProcess, DeploymentKind::Processes, DeploymentKind::External];
    print!("{:<16}", "SYSTEM");
    for deployment in deployments {
        print!("{:<12}", deployment.to_string());
    }
    println!("QUESTION");
    for system in SYSTEMS {
        print!("{:<16}", system.name());
        for deployment in deployments {
            print!("{:<12}", if system.deployments().contains(&deployment) { "yes" } else { "-" });
        }
        println!("{}", system.question());
    }
    for system in SYSTEMS {
        println!("\n{}", system.name());
        let roles: Vec<_> = system.roles().iter().map(|role| role.name).collect();
        println!("  roles     {}", if roles.is_empty() { "none (external only)".to_owned() } else { roles.join(", ") });
        for factor in system.factors() {
            println!("  factor    {:<13} {}", factor.name, factor.about);
        }
        for (backend, choices) in system.backends() {
            println!("  backend   {backend:<13} {}", choices.join(" | "));
        }
    }
    println!("\nEXPERIMENTS (scalelab run NAME)");
    for (name, text) in WORKLOADS {
        let question = text.lines().next().unwrap_or_default().trim_start_matches('#').trim();
        println!("  {name:<28} {question}");
    }
    0
}

/// Prints the trials of an experiment, one a line, and how long they take at least.
pub fn plan(experiment: &Experiment) -> u8 {
    if let Some(search) = &experiment.search {
        let (low, high) = search.between;
        println!("searches {} between {low} and {high}; every level is run {} times", search.factor, experiment.trials);
        return 0;
    }
    let trials = experiment::plan(experiment);
    let mut seconds = 0;
    for trial in &trials {
        let levels: Vec<_> = trial.levels.iter().map(|(factor, level)| format!("{factor}={level}")).collect();
        let window = experiment.window(&experiment.load.at(&trial.levels));
        seconds += window.end;
        let (name, levels) = (&trial.name, levels.join(" "));
        println!("{name:<34} {levels:<52} measured {}..{} s  seed {}", window.start, window.end, trial.seed);
    }
    println!("{} trials, {seconds} s and the time to start each", trials.len());
    0
}

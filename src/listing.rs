//! What there is: systems, deployments, backends, experiments; and what an experiment would run.

use std::fmt::Write as _;
use std::time::Duration;

use crate::experiment::{self, DeploymentKind, Experiment};
use crate::faults::{self, possible};
use crate::systems::{self, SYSTEMS, System};
use crate::units;
use crate::workloads::WORKLOADS;

const DEPLOYMENTS: [DeploymentKind; 4] = DeploymentKind::ALL;

/// The systems with their matrix, and the experiments.
pub fn systems() -> String {
    let mut text = format!("{:<16}", "SYSTEM");
    for deployment in DEPLOYMENTS {
        let _ = write!(text, "{:<12}", deployment.to_string());
    }
    text.push_str("QUESTION\n");
    for system in SYSTEMS {
        let _ = write!(text, "{:<16}", system.name());
        for deployment in DEPLOYMENTS {
            let _ = write!(text, "{:<12}", if system.deployments().contains(&deployment) { "yes" } else { "-" });
        }
        let _ = writeln!(text, "{}", system.question());
    }
    for system in SYSTEMS {
        describe(*system, &mut text);
    }
    text.push_str("\nFAULTS ([[fault]] kind = KIND; scalelab doctor says which this machine can do)\n");
    for (kind, about) in possible::kinds() {
        let _ = writeln!(text, "  {kind:<13} {about}");
    }
    text.push_str("\nEXPERIMENTS (scalelab run NAME)\n");
    for (name, workload) in WORKLOADS {
        let question = workload.lines().next().unwrap_or_default().trim_start_matches('#').trim();
        let _ = writeln!(text, "  {name:<28} {question}");
    }
    text
}

fn describe(system: &dyn System, text: &mut String) {
    let roles: Vec<_> = system.roles().iter().map(|role| role.name).collect();
    let roles = if roles.is_empty() { "none (external only)".to_owned() } else { roles.join(", ") };
    let _ = writeln!(text, "\n{}\n  roles     {roles}", system.name());
    for factor in system.factors() {
        let _ = writeln!(text, "  factor    {:<13} {}", factor.name, factor.about);
    }
    for (backend, choices) in system.backends() {
        let _ = writeln!(text, "  backend   {backend:<13} {}", choices.join(" | "));
    }
}

/// The trials of an experiment, one a line with its faults below, and how long they take at least.
pub fn plan(experiment: &Experiment) -> String {
    if let Some(search) = &experiment.search {
        let (low, high) = search.between;
        let times = experiment.trials;
        let factor = &search.factor;
        let mut text = format!("searches {factor} between {low} and {high}; every level is run {times} times\n");
        for fault in &experiment.faults {
            let _ = writeln!(text, "in every trial: {fault}, {}", downtime(fault.downtime));
        }
        return text;
    }
    let mut text = String::new();
    let trials = experiment::plan(experiment);
    let mut seconds = 0;
    for trial in &trials {
        let levels: Vec<_> = trial.levels.iter().map(|(factor, level)| format!("{factor}={level}")).collect();
        let window = experiment.window(&experiment.load.at(&trial.levels));
        seconds += window.end;
        let (name, levels, seed) = (&trial.name, levels.join(" "), trial.seed);
        let _ = writeln!(text, "{name:<34} {levels:<52} measured {}..{} s  seed {seed}", window.start, window.end);
        let assembly = systems::find(&experiment.system).map(|system| system.assemble(experiment, &trial.levels));
        for injection in assembly.map(|assembly| faults::plan::plan(experiment, trial, &assembly)).unwrap_or_default() {
            let (at_s, downtime) = (injection.at.as_secs_f64(), downtime(injection.downtime));
            let _ = writeln!(text, "    at {at_s:>7.3} s  {injection}, {downtime}");
        }
    }
    let _ = writeln!(text, "{} trials, {seconds} s and the time to start each", trials.len());
    text
}

fn downtime(downtime: Duration) -> String {
    match downtime.is_zero() {
        true => "back at once".to_owned(),
        false => format!("for {}", units::format_duration(downtime)),
    }
}

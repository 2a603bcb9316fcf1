//! `arch fail`: the experiment that its flags make, what a run of it leaves, and Ctrl-C in mid-fault.

use std::path::Path;

use serde_json::Value;

use super::lab::{begin, call, children_of, is_alive, scratch, signal, until};

#[test]
fn flags_make_an_experiment_that_can_be_read() {
    for (flags, expected) in [
        (
            &[][..],
            &["kind = \"restart\"", "role = \"task-service\"", "at = \"30s\"", "users = 100", "duration = \"83s\""][..],
        ),
        (&["--target-service", "tasktracker_user_service"], &["role = \"user-service\""]),
        (&["--architecture", "monolith"], &["role = \"monolith\"", "architecture = [\"monolith\"]"]),
        (
            &["--failure-mode", "stop-start", "--downtime", "15", "--inject-at", "40"],
            &["kind = \"stop-start\"", "downtime = \"15s\"", "at = \"40s\""],
        ),
        (&["--failure-mode", "latency=200ms,jitter=20ms"], &["kind = \"latency\"", "latency = \"200ms\"", "20ms"]),
        (
            &["--failure-mode", "kill", "--failure-mode", "pause", "--replica", "random", "--replicas", "3"],
            &["kind = [\"kill\", \"pause\"]", "replica = \"random\"", "replicas = 3"],
        ),
        (&["--failure-mode", "blackhole", "--from", "gateway"], &["kind = \"blackhole\"", "from = \"gateway\""]),
        (&["--resilience", "none,breaker"], &["resilience = [\"none\", \"breaker\"]"]),
        (&["--seed", "9", "--trials", "2", "--deployment", "in-process"], &["seed = 9", "trials = 2", "in-process"]),
    ] {
        let called = call(&[&["arch", "fail", "--print-experiment"][..], flags].concat());
        assert_eq!(called.code, Some(0), "{flags:?}: {}", called.stderr);
        for part in expected {
            assert!(called.stdout.contains(part), "{flags:?}: {part:?} is not in {}", called.stdout);
        }
    }
}

#[test]
fn flags_that_make_no_sense_are_exit_2_with_the_way_out() {
    for (flags, expected) in [
        (&["--base-url", "http://localhost:8000"][..], "--deployment processes"),
        (&["--target", "database"], "gateway, user-service"),
        (&["--failure-mode", "explode"], "stop-start"),
        (&["--target", "monolith"], "no cell"),
        (&["--replica", "2", "--failure-mode", "kill"], "replica"),
        (&["--inject-at", "85", "--failure-mode", "kill"], "downtime"),
        (&["--architecture", "monolith", "--resilience", "none"], "a monolith has none"),
        (&["--resilience", "all"], "none, timeout, retry"),
        (&["--duration", "6s"], "nothing is left"),
    ] {
        let called = call(&[&["arch", "fail"][..], flags].concat());
        assert_eq!(called.code, Some(2), "{flags:?}: {}", called.stderr);
        assert!(called.stderr.contains(expected), "{flags:?}: {expected:?} is not in {}", called.stderr);
    }
}

/// What is short enough for a test, and has seconds enough before the fault to say what is usual.
const SHORT: [&str; 13] = [
    "arch",
    "fail",
    "--concurrency=10",
    "--think=50ms",
    "--duration=18s",
    "--warmup=1s",
    "--inject-at=9s",
    "--downtime=2s",
    "--trials=1",
    "--seed=3",
    "--ui=off",
    "--sample-interval=500ms",
    "--replicas=1",
];

fn run(out: &Path, flags: &[&str]) {
    let out_flag = format!("--out={}", out.display());
    let called = call(&[&SHORT[..], flags, &[out_flag.as_str()]].concat());
    assert_eq!(called.code, Some(0), "{flags:?}: {}{}", called.stdout, called.stderr);
    for answer in ["when task-service was stopped for 2 s", "no acknowledged write was lost"] {
        assert!(called.stdout.contains(answer), "{flags:?}: {answer:?} is not in {}", called.stdout);
    }
}

fn trial_file(out: &Path, name: &str) -> Value {
    let trial = std::fs::read_dir(out.join("latest/trials")).unwrap().flatten().next().expect("one trial");
    let text = std::fs::read_to_string(trial.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn a_run_says_how_long_users_suffered_and_that_nothing_was_lost() {
    for flags in [
        &["--deployment=processes", "--failure-mode=stop-start"][..],
        &["--deployment=in-process", "--failure-mode=stop-start"],
    ] {
        let out = scratch();
        run(out.path(), flags);
        let recovery = trial_file(out.path(), "recovery.json");
        for key in ["lost", "duplicated", "resurrected", "phantom"] {
            assert_eq!(recovery[key], 0, "{flags:?}: {recovery}");
        }
        let count = |key: &str| recovery[key].as_u64().unwrap_or_else(|| panic!("{flags:?}: no {key} in {recovery}"));
        assert!(count("acknowledged") > 0 && count("attempted") >= count("acknowledged") + count("unknown"));
        let [fault] = recovery["faults"].as_array().expect("faults").as_slice() else {
            panic!("one fault: {recovery}")
        };
        assert_eq!(
            (&fault["kind"], &fault["role"], &fault["replica"]),
            (&"stop-start".into(), &"task-service".into(), &1.into())
        );
        let at = |key: &str| fault[key].as_f64().unwrap_or_else(|| panic!("{flags:?}: no {key} in {fault}"));
        let instants = ["command_s", "effect_s", "repair_s", "ready_s"].map(at);
        assert!(instants.is_sorted(), "{flags:?}: {instants:?}");
        assert!((9.0..9.5).contains(&instants[0]) && instants[2] - instants[1] >= 1.9, "{flags:?}: {instants:?}");
        assert!(trial_file(out.path(), "failure_results.json").is_object(), "{flags:?}");
        for plot in [
            "error_rate_over_time",
            "latency_over_time",
            "throughput_over_time",
            "combined_failure_analysis",
            "recovery_analysis",
        ] {
            let plot = out.path().join(format!("latest/plots/{plot}.png"));
            assert!(plot.is_file(), "{flags:?}: {}", plot.display());
        }
    }
}

#[test]
fn interrupted_in_mid_fault_it_heals_first_and_leaves_no_process() {
    let out = scratch();
    let out_flag = format!("--out={}", out.path().display());
    let flags = ["--failure-mode=pause", "--downtime=6s", out_flag.as_str()];
    let short: Vec<_> = SHORT.iter().copied().filter(|flag| !flag.starts_with("--downtime")).collect();
    let mut lab = begin(&[&short[..], &flags].concat());
    let mut paused = None;
    until("a role is paused", || {
        paused = children_of(lab.id()).into_iter().find(|id| is_paused(*id));
        paused.is_some() || lab.try_wait().unwrap().is_some()
    });
    let paused = paused.expect("it was paused before the lab ended");
    let children = children_of(lab.id());
    assert!(children.contains(&paused) && children.len() >= 4, "{children:?}");
    signal(lab.id(), "INT");
    lab.wait().unwrap();
    until("no process is left", || !children.iter().any(|id| is_alive(*id)));
}

fn is_paused(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

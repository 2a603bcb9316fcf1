//! Faults injected into live trials: four instants, what the load saw, and that nothing is left; the same suite wherever
//! replicas run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kit::batch::{Entry, Status};
use scalelab::archive::Archive;
use scalelab::database::Server;
use scalelab::deploy::Deployment;
use scalelab::deploy::in_process::InProcess;
use scalelab::deploy::pinning;
use scalelab::deploy::processes::Processes;
use scalelab::deploy::trial::{self, Ended, Site};
use scalelab::experiment::{self, file};
use scalelab::faults::journal::Journal;
use scalelab::faults::{Injection, leftovers};
use scalelab::interrupt::Interrupt;
use scalelab::measure::{TrialRecord, summarize_trial};

use super::lab::{Called, begin, children_of, is_alive, scratch, signal, until, write};

/// Runs the only trial of an experiment; nothing may be left of it.
fn run(folder: &Path, text: &str, deployment: &str) -> TrialRecord {
    let text = text.replacen("system =", &format!("deployment = {deployment:?}\nsystem ="), 1);
    let experiment = file::parse(&text, "faults.toml", "faults").unwrap();
    let processes = Processes { program: PathBuf::from(env!("CARGO_BIN_EXE_scalelab")) };
    let deployment: &dyn Deployment = if deployment == "processes" { &processes } else { &InProcess };
    let journal = Arc::new(Journal::nowhere());
    let trial = &experiment::plan(&experiment)[0];
    let mut files =
        Archive::create(folder, &experiment, "20260101_000000").and_then(|archive| archive.begin_trial(trial)).unwrap();
    let site = Site {
        experiment: &experiment,
        system: scalelab::systems::find(&experiment.system).unwrap(),
        deployment,
        load_deployment: deployment,
        processes: &processes,
        databases: &Server::Sqlite,
        budget: &pinning::budget(&pinning::allowed()),
        run: "f",
        machine: None,
        journal: &journal,
        interrupt: &Interrupt::default(),
        progress: &|_, _| {},
    };
    let Ended::Done(record) = trial::run(&site, trial, &mut files).unwrap() else { panic!("nobody interrupted it") };
    assert_eq!(leftovers::check(&journal.recorded()), Vec::<String>::new());
    assert!(journal.not_undone().is_empty(), "{:?}", journal.not_undone());
    *record
}

fn task_tracker(duration_s: u32, faults: &str) -> String {
    format!(
        "# What does a dead service cost?\nsystem = \"task-tracker\"\ntrials = 1\nseed = 5\nwarmup = \"0s\"\n\
         duration = \"{duration_s}s\"\n[load]\nusers = 5\nthink = \"20ms\"\nspawn_rate = 1000\n\
         [factors]\narchitecture = [\"microservices\"]\n[settings]\nargon2 = \"minimum\"\ntasks_per_user = 3\n{faults}"
    )
}

fn fault(at: &str, kind: &str, role: &str, more: &str) -> String {
    format!("[[fault]]\nat = {at:?}\nkind = {kind:?}\nrole = {role:?}\n{more}\n")
}

/// Good and other operations of the kinds that are asked for, by second.
fn outcomes(record: &TrialRecord, kinds: &[&str]) -> Vec<(u64, u64)> {
    let mut seconds = Vec::new();
    for ops in record.ops.iter().filter(|ops| kinds.contains(&ops.kind.as_str())) {
        let second = ops.second as usize;
        seconds.resize(seconds.len().max(second + 1), (0, 0));
        seconds[second].0 += ops.ok;
        seconds[second].1 += ops.failed + ops.unknown + ops.wrong;
    }
    seconds
}

/// The four instants are there, in order, and as planned.
fn happened(injection: &Injection, at_s: f64, downtime_s: f64) {
    let Injection { command_s, effect_s, repair_s, ready_s, .. } = injection;
    assert_eq!((&injection.problem, &injection.skipped), (&None, &None), "{injection:?}");
    let [command, effect, repair, ready] =
        [command_s, effect_s, repair_s, ready_s].map(|instant| instant.unwrap_or_else(|| panic!("{injection:?}")));
    assert!(command <= effect && effect <= repair && repair < ready, "{injection:?}");
    assert!((command - at_s).abs() < 0.3, "{injection:?}");
    assert!(repair - command >= downtime_s - 0.001 && repair - command < downtime_s + 1.0, "{injection:?}");
    assert!(effect - command < 1.0 && ready - repair < 3.0, "{injection:?}");
}

fn processes_come_and_go(deployment: &str) {
    let faults = [
        fault("1s", "restart", "task-service", ""),
        fault("3s", "stop-start", "task-service", "downtime = \"1300ms\""),
        fault("6s", "kill", "task-service", "downtime = \"1300ms\""),
        fault("9s", "pause", "task-service", "downtime = \"1300ms\""),
    ];
    let folder = scratch();
    let record = run(folder.path(), &task_tracker(12, &faults.concat()), deployment);
    assert_eq!(record.failure, None);
    let planned = [("restart", 1.0, 0.0), ("stop-start", 3.0, 1.3), ("kill", 6.0, 1.3), ("pause", 9.0, 1.3)];
    assert_eq!(record.faults.len(), planned.len());
    for (injection, (kind, at_s, downtime_s)) in record.faults.iter().zip(planned) {
        assert_eq!((injection.kind.as_str(), injection.role.as_str()), (kind, "task-service"));
        happened(injection, at_s, downtime_s);
    }
    let seconds = outcomes(&record, &["list", "get"]);
    for down in [3, 6] {
        assert!(seconds[down].1 > seconds[down].0, "second {down} is in the band: {seconds:?}");
    }
    for up in [2, 5, 8, 11] {
        assert!(seconds[up].0 > 20 && seconds[up].1 * 10 < seconds[up].0, "all is well in second {up}: {seconds:?}");
    }
    assert!(seconds[9].0 < seconds[8].0 / 4, "held, it answers nothing: {seconds:?}");
    // What a replica used before it went is not taken from what it used after.
    let mut cpu = record.series.iter().filter(|sample| sample.role == "task-service" && sample.name == "cpu");
    assert!(cpu.clone().any(|sample| sample.value.is_none()), "it was down");
    assert!(cpu.all(|sample| sample.value.is_none_or(|cpu| cpu >= 0.0)));
    assert!(record.repeatable.contains("list") && !record.repeatable.is_empty());
}

#[test]
fn processes_come_and_go_in_process() {
    processes_come_and_go("in-process");
}

#[test]
fn processes_come_and_go_as_processes() {
    processes_come_and_go("processes");
}

fn a_source_comes_back(deployment: &str) {
    let text = format!(
        "# Does a stream go on?\nsystem = \"socket-stream\"\ntrials = 1\nwarmup = \"0s\"\nduration = \"7s\"\n\
         [load]\nmode = \"open\"\nrate = 60\n[settings]\nbatch_interval = \"500ms\"\nblock_interval = \"100ms\"\n\
         receiver_restart_delay = \"500ms\"\ncores = 3\npartitions = 4\ncost = \"1ms\"\n{}",
        fault("2s", "kill", "source", "downtime = \"1500ms\"")
    );
    let folder = scratch();
    let record = run(folder.path(), &text, deployment);
    assert_eq!(record.failure, None);
    happened(&record.faults[0], 2.0, 1.5);
    let records_in = |from_ms: f64, to_ms: f64| {
        let ended = record.journal.iter().filter_map(|entry| match entry {
            Entry::Batch(batch) if batch.status == Status::Completed => Some(batch),
            _ => None,
        });
        let of = ended.filter(|batch| (from_ms..to_ms).contains(&batch.time_ms));
        of.map(|batch| batch.records).sum::<u64>()
    };
    assert!(records_in(0.0, 2_000.0) > 60, "{} records", records_in(0.0, 2_000.0));
    assert_eq!(records_in(3_000.0, 3_600.0), 0, "nothing comes from a source that is gone");
    assert!(records_in(5_500.0, 7_000.0) > 40, "{} records", records_in(5_500.0, 7_000.0));
}

#[test]
fn a_source_comes_back_in_process() {
    a_source_comes_back("in-process");
}

#[test]
fn a_source_comes_back_as_a_process() {
    a_source_comes_back("processes");
}

#[test]
fn what_cannot_be_held_is_skipped_and_not_failed() {
    let text = "# Can it be held?\nsystem = \"socket-stream\"\ntrials = 1\nwarmup = \"0s\"\nduration = \"2s\"\n\
                [load]\nmode = \"open\"\nrate = 60\n[settings]\nbatch_interval = \"500ms\"\ncores = 3\ncost = \"1ms\"\n";
    let folder = scratch();
    let text = format!("{text}{}", fault("500ms", "pause", "engine", "downtime = \"500ms\""));
    let record = run(folder.path(), &text, "in-process");
    let Injection { skipped, command_s, problem, .. } = &record.faults[0];
    assert!(skipped.as_ref().is_some_and(|why| why.contains("run processes")), "{skipped:?}");
    assert_eq!((command_s, problem, &record.failure), (&None, &None, &None));
}

fn links_and_machine(deployment: &str) {
    let faults = [
        fault("1s", "latency", "task-service", "from = \"gateway\"\nlatency = \"60ms\"\ndowntime = \"2s\""),
        fault("4s", "error-rate", "task-service", "from = \"gateway\"\nstatus = 503\nshare = 1.0\ndowntime = \"2s\""),
        fault("4s", "cpu-burn", "user-service", "cpus = 0.2\ndowntime = \"1s\""),
    ];
    let folder = scratch();
    let record = run(folder.path(), &task_tracker(8, &faults.concat()), deployment);
    assert_eq!(record.failure, None);
    for (injection, (at_s, downtime_s)) in record.faults.iter().zip([(1.0, 2.0), (4.0, 2.0), (4.0, 1.0)]) {
        happened(injection, at_s, downtime_s);
    }
    let proxies: Vec<_> = record.participants.iter().filter(|participant| participant.role == "proxy").collect();
    assert_eq!((proxies.len(), proxies[0].under_test), (2, false), "one that passes bytes, one for HTTP");
    let p50 = |second: u32| {
        let seconds = summarize_trial(&record).seconds;
        seconds.iter().find(|row| row.second == second).and_then(|row| row.latency.p50).unwrap()
    };
    assert!(p50(2) > p50(0) + 50.0, "{} ms, before {} ms", p50(2), p50(0));
    assert!(p50(7) < 50.0, "lifted: {} ms", p50(7));
    let seconds = outcomes(&record, &["list", "get"]);
    assert!(seconds[5].0 * 10 < seconds[5].1, "every request is answered with an error: {seconds:?}");
    assert_eq!(seconds[7].1, 0, "{seconds:?}");
}

#[test]
fn links_and_the_machine_are_broken_and_healed_in_process() {
    links_and_machine("in-process");
}

#[test]
fn links_and_the_machine_are_broken_and_healed_as_processes() {
    links_and_machine("processes");
}

#[test]
fn a_trial_that_suffers_too_long_is_healed_and_ended() {
    let folder = scratch();
    let text = task_tracker(20, &fault("1s", "kill", "task-service", "downtime = \"15s\""))
        .replace("system =", "abort_when = \"errors > 50% for 1s\"\nsystem =");
    let record = run(folder.path(), &text, "processes");
    let failure = record.failure.as_deref().unwrap_or_default();
    assert!(failure.starts_with("aborted: "), "{failure}");
    let injection = &record.faults[0];
    assert!(injection.repair_s.is_some_and(|repair_s| repair_s < 8.0) && injection.ready_s.is_some(), "{injection:?}");
}

#[test]
fn a_replica_that_dies_by_itself_fails_the_trial_and_the_fault_says_that_it_was_not_injected() {
    let folder = scratch();
    let text = task_tracker(6, &fault("4s", "kill", "task-service", "downtime = \"1s\""));
    let file = write(folder.path(), "dies.toml", &text);
    let out = folder.path().join("runs");
    let lab = begin(&["run", file.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    let sampled = |trial: std::fs::DirEntry| std::fs::read_to_string(trial.path().join("series.csv"));
    until("it is measured", || {
        let trials = std::fs::read_dir(out.join("latest/trials")).into_iter().flatten().flatten();
        trials.filter_map(|trial| sampled(trial).ok()).any(|series| series.contains(",cpu,task-service,"))
    });
    let command = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let victim = children_of(lab.id()).into_iter().find(|pid| command(pid).contains("task-service"));
    signal(victim.unwrap(), "KILL");
    let called: Called = lab.wait_with_output().unwrap().into();
    assert_eq!(called.code, Some(3), "{}\n{}", called.stdout, called.stderr);
    assert!(called.stdout.contains("role task-service 1 ended"), "{}\n{}", called.stdout, called.stderr);
    assert!(called.stderr.contains("nothing is left"), "{}", called.stderr);
}

#[test]
fn ctrl_c_while_something_is_held_leaves_nothing() {
    let folder = scratch();
    let text = task_tracker(30, &fault("500ms", "pause", "task-service", "downtime = \"20s\""));
    let file = write(folder.path(), "held.toml", &text);
    let out = folder.path().join("runs");
    let lab = begin(&["run", file.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    let mut children = Vec::new();
    until("it is held", || {
        children = children_of(lab.id());
        children.iter().any(|child| kit::usage::is_stopped(*child))
    });
    signal(lab.id(), "INT");
    let called: Called = lab.wait_with_output().unwrap().into();
    assert_eq!(called.code, Some(3), "{}", called.stderr);
    assert!(called.stderr.contains("nothing is left"), "{}", called.stderr);
    assert!(!children.iter().any(|child| is_alive(*child)));
}

//! Trials and experiments for tests, made of a few numbers.

use std::sync::OnceLock;
use std::time::Duration;

use crate::experiment::{Experiment, Level, Levels, LoadPlan, Trial};
use crate::measure::{Participant, Sample, TrialRecord, TrialSummary, summarize_trial};
use kit::{Op, OpsRecord, Outcome};

/// The numbers of a trial that a test cares about.
pub struct Made {
    pub architecture: &'static str,
    pub users: i64,
    pub p95: f64,
    pub goodput: f64,
    pub errors: f64,
}

impl Default for Made {
    fn default() -> Self {
        Self { architecture: "monolith", users: 10, p95: 20.0, goodput: 500.0, errors: 0.0 }
    }
}

pub fn levels(architecture: &str, users: i64) -> Levels {
    Levels::from([
        ("architecture".to_owned(), Level::Text(architecture.to_owned())),
        ("users".to_owned(), Level::Int(users)),
    ])
}

/// A record of ten measured seconds after two of warm-up: `per_second` good operations, each taking `total_ms`.
pub fn record(per_second: u64, total_ms: u64) -> TrialRecord {
    let second = |second: u32| {
        let mut ops = OpsRecord { second, kind: "GET /".to_owned(), ..OpsRecord::default() };
        (0..per_second).for_each(|_| ops.record(&op(Outcome::Ok, 200, total_ms)));
        ops
    };
    TrialRecord {
        trial: Trial { index: 0, name: "000".to_owned(), levels: levels("monolith", 10), repetition: 0, seed: 1 },
        load: LoadPlan::Closed { users: 10, think: Duration::ZERO, spawn_rate: 10.0 },
        ops: (0..12).map(second).collect(),
        series: Vec::new(),
        window: 2..12,
        measured_s: None,
        participants: Vec::new(),
        failure: None,
        journal: Vec::new(),
    }
}

pub fn op(outcome: Outcome, status: u16, total_ms: u64) -> Op {
    let finished_ns = total_ms * 1_000_000;
    Op { intended_ns: 0, released_ns: 0, started_ns: 0, finished_ns, outcome, status, units: 1, bytes: 10 }
}

pub fn participant(role: &str, replica: u32, under_test: bool) -> Participant {
    Participant { role: role.to_owned(), replica, under_test, cpus: None, no_memory: None, no_cpu: None }
}

/// A gauge sampled each second from 1 to 12.
pub fn gauge(name: &str, role: &str, replica: u32, value: f64) -> Vec<Sample> {
    let sample = |t: i32| Sample {
        t_s: f64::from(t),
        name: name.to_owned(),
        role: role.to_owned(),
        replica,
        value: Some(value),
    };
    (1..=12).map(sample).collect()
}

/// A valid trial with the numbers set by hand and nothing that touches them.
pub fn trial(made: &Made) -> TrialSummary {
    static PLAIN: OnceLock<TrialSummary> = OnceLock::new();
    let mut summary = PLAIN.get_or_init(|| summarize_trial(&record(100, 10))).clone();
    summary.levels = levels(made.architecture, made.users);
    summary.users = u32::try_from(made.users).ok();
    summary.latency_p95_ms = Some(made.p95);
    summary.latency_p50_ms = Some(made.p95 / 2.0);
    summary.latency_avg_ms = Some(made.p95 / 1.8);
    summary.goodput_rps = Some(made.goodput);
    summary.throughput_rps = Some(made.goodput);
    summary.error_rate = Some(made.errors);
    summary
}

pub fn experiment(think: Duration) -> Experiment {
    let texts = |names: &[&str]| names.iter().map(|&name| Level::Text(name.to_owned())).collect();
    Experiment {
        question: "?".to_owned(),
        name: "test".to_owned(),
        system: "task-tracker".to_owned(),
        deployment: crate::experiment::DeploymentKind::InProcess,
        seed: 7,
        trials: 3,
        warmup: Duration::from_secs(2),
        duration: Duration::from_secs(10),
        slo: Vec::new(),
        factors: [
            ("architecture".to_owned(), texts(&["monolith", "microservices"])),
            ("users".to_owned(), [4, 16, 64, 128].map(Level::Int).to_vec()),
        ]
        .into(),
        exclude: Vec::new(),
        load: LoadPlan::Closed { users: 1, think, spawn_rate: 50.0 },
        load_workers: 1,
        timeout: Duration::from_secs(5),
        sample_interval: Duration::from_secs(1),
        roles: Default::default(),
        backends: Default::default(),
        settings: serde_json::Value::Null,
        external: Default::default(),
        scenario: None,
        search: None,
    }
}

//! Trials and experiments for tests, made of a few numbers.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use crate::experiment::{Experiment, Level, Levels, LoadPlan, Trial};
use crate::measure::{Participant, Sample, Spread, TrialRecord, TrialSummary, guards, stream, summarize_trial};
use kit::batch::{Batch, Engine, Entry, Status};
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
        faults: Vec::new(),
        lost: None,
        users: BTreeMap::new(),
        repeatable: Default::default(),
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
        faults: Vec::new(),
        abort_when: None,
    }
}

/// A stream of equal batches, one job at a time: 143 records a second, an interval of 2 s, and as many batches as there
/// are processing times. The numbers are those of the published set-up that falls behind.
pub struct MadeStream {
    pub interval_ms: f64,
    pub cores: u32,
    pub receivers: u32,
    pub rate: f64,
    /// Of each batch, in milliseconds.
    pub processing: Vec<f64>,
    /// The length of the measured window, from 0.
    pub seconds: u32,
}

impl Default for MadeStream {
    fn default() -> Self {
        Self { interval_ms: 2_000.0, cores: 4, receivers: 1, rate: 143.0, processing: vec![2_531.0; 56], seconds: 112 }
    }
}

impl MadeStream {
    /// One that takes the same time for each batch.
    pub fn of(processing_ms: f64) -> Self {
        Self { processing: vec![processing_ms; 56], ..Self::default() }
    }

    fn batches(&self) -> Vec<Batch> {
        let mut free_ms = 0.0_f64;
        let batch = |(number, took): (usize, &f64)| {
            let time_ms = number as f64 * self.interval_ms;
            let submitted_ms = time_ms + 1.0;
            let started_ms = free_ms.max(submitted_ms);
            free_ms = started_ms + took;
            Batch {
                batch: number as u64,
                time_ms,
                records: (self.rate * self.interval_ms / 1e3) as u64,
                blocks: 10,
                status: Status::Completed,
                submitted_ms,
                started_ms: Some(started_ms),
                ended_ms: Some(free_ms),
                output_ops: 1,
                output_ops_done: 1,
                ..Batch::default()
            }
        };
        self.processing.iter().enumerate().map(batch).collect()
    }

    /// What its engine tells: each batch when it is submitted, when it starts, and when it ends.
    pub fn journal(&self) -> Vec<Entry> {
        let engine = Engine {
            name: "made".to_owned(),
            batch_interval_ms: self.interval_ms,
            block_interval_ms: 200.0,
            cores: self.cores,
            receivers: self.receivers,
            partitions: 4,
            concurrent_jobs: 1,
            ..Engine::default()
        };
        let slots = self.cores > self.receivers;
        let told = self.batches().into_iter().flat_map(|ended| {
            let started = Batch { ended_ms: None, status: Status::Processing, ..ended.clone() };
            let queued = Batch { started_ms: None, status: Status::Queued, ..started.clone() };
            if slots { vec![queued, started, ended] } else { vec![queued] }
        });
        std::iter::once(Entry::Engine(engine)).chain(told.map(Entry::Batch)).collect()
    }

    /// The record of a trial: batches as operations, and with each a thousand records that waited a second longer.
    pub fn record(&self) -> TrialRecord {
        let mut ops: BTreeMap<(u32, &str), OpsRecord> = BTreeMap::new();
        let mut add = |kind: &'static str, second: u32, op: &Op, count: u64| {
            let of_second = ops.entry((second, kind)).or_default();
            (of_second.second, of_second.kind) = (second, kind.to_owned());
            of_second.record_many(op, count);
        };
        let due = |batch: &Batch| batch.time_ms < 1e3 * f64::from(self.seconds);
        for batch in self.batches().into_iter().filter(due) {
            let ns = |ms: f64| (ms * 1e6) as u64;
            let (started_ns, finished_ns) = (ns(batch.started_ms.unwrap_or(0.0)), ns(batch.ended_ms.unwrap_or(0.0)));
            let batch_op = Op {
                intended_ns: ns(batch.time_ms),
                released_ns: ns(batch.submitted_ms),
                started_ns,
                finished_ns,
                outcome: Outcome::Ok,
                status: 0,
                units: batch.records,
                bytes: 0,
            };
            let second = (batch.time_ms / 1e3) as u32;
            add("batch", second, &batch_op, 1);
            let early_ns = ns(batch.time_ms).saturating_sub(1_000_000_000);
            let of_record = Op { intended_ns: early_ns, released_ns: early_ns, units: 1, ..batch_op };
            add("record", 1, &of_record, 1_000);
        }
        self.record_of(ops.into_values().collect())
    }

    fn record_of(&self, ops: Vec<OpsRecord>) -> TrialRecord {
        let stage = crate::load::Stage { duration: None, from_per_s: self.rate, to_per_s: self.rate };
        TrialRecord {
            trial: Trial { index: 0, name: "000".to_owned(), levels: Levels::new(), repetition: 0, seed: 1 },
            load: LoadPlan::Open { stages: vec![stage], poisson: false, connections: 1 },
            ops: ops.into_iter().collect(),
            series: Vec::new(),
            window: 0..self.seconds,
            measured_s: None,
            participants: Vec::new(),
            failure: None,
            journal: self.journal(),
            faults: Vec::new(),
            lost: None,
            users: BTreeMap::new(),
            repeatable: Default::default(),
        }
    }

    /// The summary of a trial with these levels: what its journal says, and operations that are the same for all, because
    /// most tests are not about them.
    pub fn trial(&self, index: usize, levels: &[(&str, i64)]) -> TrialSummary {
        static PLAIN: OnceLock<TrialSummary> = OnceLock::new();
        let mut summary = PLAIN.get_or_init(|| summarize_trial(&MadeStream::of(1_000.0).record())).clone();
        let mut stream = stream::summarize(&self.journal(), 0..self.seconds);
        let total_ms = stream.avg_total_delay_ms;
        stream.record_latency = total_ms.map(|ms| Spread { p95: Some(ms + self.interval_ms), ..Spread::default() });
        summary.latency_count = stream.batches.completed;
        summary.stream = Some(stream);
        summary.levels = levels.iter().map(|(name, level)| ((*name).to_owned(), Level::Int(*level))).collect();
        (summary.index, summary.name) = (index, format!("{index:03}"));
        summary.guards = guards::of_trial(&self.record_of(Vec::new()), &summary, &guards::Calm::whole(&summary));
        summary
    }
}

/// An experiment on a stream, with one trial a cell.
pub fn stream_experiment(factors: &[(&str, &[i64])]) -> Experiment {
    let levels = |levels: &[i64]| levels.iter().copied().map(Level::Int).collect::<Vec<_>>();
    Experiment {
        question: "When does a stream fall behind?".to_owned(),
        name: "stream".to_owned(),
        system: "socket-stream".to_owned(),
        trials: 1,
        warmup: Duration::ZERO,
        duration: Duration::from_secs(112),
        factors: factors.iter().map(|(name, of)| ((*name).to_owned(), levels(of))).collect(),
        load: LoadPlan::Open { stages: Vec::new(), poisson: false, connections: 1 },
        ..experiment(Duration::ZERO)
    }
}

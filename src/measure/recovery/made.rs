//! Trials with faults for tests, made of what happens in each second.

use std::collections::BTreeMap;
use std::time::Duration;

use kit::{OpsRecord, Outcome};
use rand::RngExt as _;

use crate::experiment::LoadPlan;
use crate::faults::Injection;
use crate::load::Stage;
use crate::measure::recovery::Seconds;
use crate::measure::samples::{self, op, participant};
use crate::measure::{Sample, TrialRecord};

/// Some operations of one second that went alike.
#[derive(Clone, Copy)]
pub struct Burst {
    pub kind: &'static str,
    pub outcome: Outcome,
    pub count: u64,
    pub total_ms: f64,
}

pub fn good(count: u64, total_ms: f64) -> Burst {
    Burst { kind: "list", outcome: Outcome::Ok, count, total_ms }
}

pub fn failed(count: u64) -> Burst {
    Burst { kind: "list", outcome: Outcome::Failed, count, total_ms: 1.0 }
}

impl Burst {
    pub fn of(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }
}

/// A stop-start of the task service: command, effect, repair, ready.
pub fn injection(command_s: f64, effect_s: f64, repair_s: f64, ready_s: f64) -> Injection {
    Injection {
        kind: "stop-start".to_owned(),
        role: "task-service".to_owned(),
        replica: 1,
        command_s: Some(command_s),
        effect_s: Some(effect_s),
        repair_s: Some(repair_s),
        ready_s: Some(ready_s),
        ..Injection::default()
    }
}

/// Operations of second `second` at a rate that need not be whole.
pub fn due(rate: f64, second: u32) -> u64 {
    let until = |second: u32| (rate * f64::from(second)).floor() as u64;
    until(second + 1) - until(second)
}

/// A measured window of seconds from 0 on, in an open loop, unless changed.
pub fn record(seconds: u32, faults: Vec<Injection>, of: impl Fn(u32) -> Vec<Burst>) -> TrialRecord {
    let mut ops: BTreeMap<(u32, &str), OpsRecord> = BTreeMap::new();
    for second in 0..seconds {
        for burst in of(second).into_iter().filter(|burst| burst.count > 0) {
            let entry = ops.entry((second, burst.kind)).or_default();
            (entry.second, entry.kind) = (second, burst.kind.to_owned());
            let status = if burst.outcome == Outcome::Ok { 200 } else { 503 };
            let mut one = op(burst.outcome, status, 0);
            one.finished_ns = (burst.total_ms * 1e6) as u64;
            entry.record_many(&one, burst.count);
        }
    }
    let stage = Stage { duration: None, from_per_s: 100.0, to_per_s: 100.0 };
    TrialRecord {
        ops: ops.into_values().collect(),
        window: 0..seconds,
        load: LoadPlan::Open { stages: vec![stage], poisson: true, connections: 10 },
        participants: vec![participant("task-service", 1, true), participant("load", 1, false)],
        faults,
        ..samples::record(0, 0)
    }
}

/// The same with users who wait for their answers.
pub fn closed(record: TrialRecord) -> TrialRecord {
    TrialRecord { load: LoadPlan::Closed { users: 10, think: Duration::ZERO, spawn_rate: 10.0 }, ..record }
}

/// A gauge with a value each half second.
pub fn gauge(name: &str, role: &str, seconds: u32, value: impl Fn(f64) -> f64) -> Vec<Sample> {
    let sample = |half: u32| {
        let t_s = f64::from(half) / 2.0;
        Sample { t_s, name: name.to_owned(), role: role.to_owned(), replica: 1, value: Some(value(t_s)) }
    };
    (0..2 * seconds).map(sample).collect()
}

/// Operations that come by chance and take exponential times around 20 ms; a share of them fails.
pub fn by_chance(seconds: u32, rate: f64, fails: f64, seed: u64) -> Seconds {
    let mut rng = kit::rng(seed, "test");
    let mut made = Seconds::default();
    let mut t = 0.0;
    for second in 0..seconds {
        let (mut times, mut refused) = (Vec::new(), 0);
        while t < f64::from(second + 1) {
            let total_ms = -20.0 * (1.0 - rng.random::<f64>()).ln();
            if rng.random::<f64>() < fails {
                refused += 1
            } else {
                times.push(total_ms)
            }
            t -= (1.0 - rng.random::<f64>()).ln() / rate;
        }
        made.put(second, &times, refused);
    }
    made
}

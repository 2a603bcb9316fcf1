//! What a load of an address left behind, and the numbers that follow from it.
//!
//! The one rule: everything printed is a function of [`LoadResult`], and so is what is archived and judged.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use kit::series::Point;
use kit::{OpsRecord, op::Latencies};

use crate::experiment::{Levels, LoadPlan, Trial};
use crate::load::schedule;
use crate::measure::{OpsLog, Participant, Sample, TrialRecord};

/// What a load of an address left behind.
#[derive(Clone, Debug)]
pub struct LoadResult {
    /// What was loaded.
    pub target: String,
    /// How.
    pub plan: LoadPlan,
    /// After how many requests it was to end.
    pub requests: Option<u64>,
    /// Where its random decisions started.
    pub seed: u64,
    /// How much of the beginning is not measured.
    pub warmup: Duration,
    /// How long was measured.
    pub elapsed: Duration,
    /// All measured operations.
    pub ops: OpsRecord,
    /// Every operations record, warm-up included.
    pub records: OpsLog,
    /// The measured seconds.
    pub seconds: Vec<Second>,
    /// The generator's gauges.
    pub series: Vec<Point>,
    /// Where the schedule started, on the clock of the series.
    pub origin_ns: u64,
    /// The same, as Unix time.
    pub start_unix_s: f64,
    /// Whether it was ended by hand.
    pub interrupted: bool,
}

/// One second of the load.
#[derive(Clone, Debug, Default)]
pub struct Second {
    /// Since the start.
    pub second: u32,
    /// Operations intended in it, by outcome: ok, failed, unknown, wrong.
    pub counts: [u64; 4],
    /// Their total times at p50, p90, p95, p99 and the largest.
    pub latency: Option<[Duration; 5]>,
}

impl LoadResult {
    /// Total times of all operations, as the field counts them: those that were refused are in.
    pub fn latency(&self) -> Latencies {
        self.ops.all_times().into_owned()
    }

    /// Operations that were answered, whatever the answer.
    pub fn answered(&self) -> u64 {
        self.ops.statuses.values().sum()
    }

    /// Answered operations a second.
    pub fn rate_per_s(&self) -> f64 {
        self.answered() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Why operations were not answered, without those whose status says it.
    pub fn errors(&self) -> BTreeMap<&str, u64> {
        let errors = self.ops.errors.iter().filter(|(why, _)| !why.starts_with("HTTP "));
        errors.map(|(why, count)| (why.as_str(), *count)).collect()
    }

    /// Whether not one operation got as far as a connection.
    pub fn unreachable(&self) -> Option<String> {
        let nothing_sent = self.answered() == 0 && self.ops.failed == self.ops.count() && self.ops.failed > 0;
        nothing_sent.then(|| self.errors().into_keys().collect::<Vec<_>>().join(", "))
    }

    /// The same as the record of a trial, which is what summaries, guards, verdicts and archives are made of.
    pub fn trial_record(&self) -> TrialRecord {
        TrialRecord {
            trial: trial(self.seed),
            load: self.offered(),
            ops: self.records.clone(),
            series: self.series.iter().map(|point| self.sample(point)).collect(),
            window: self.window(),
            measured_s: Some(self.elapsed.as_secs_f64()),
            participants: vec![Participant {
                role: "load".to_owned(),
                replica: 1,
                under_test: false,
                cpus: None,
                no_memory: Some("it shares the process of the command line".to_owned()),
                no_cpu: Some("it shares the process of the command line".to_owned()),
            }],
            failure: None,
            journal: Vec::new(),
            faults: Vec::new(),
            lost: None,
            users: BTreeMap::new(),
            repeatable: Default::default(),
        }
    }

    /// Every second that holds measured operations; the last one may have been cut short.
    pub fn window(&self) -> Range<u32> {
        let begin = ceil_s(self.warmup);
        let last = self.seconds.last().map_or(0, |second| second.second + 1);
        begin..ceil_s(self.warmup + self.elapsed).max(last).max(begin + 1)
    }

    /// The plan as far as it went. What it would have offered after its end was not missed.
    fn offered(&self) -> LoadPlan {
        let mut plan = self.plan.clone();
        if let LoadPlan::Open { stages, .. } = &mut plan {
            *stages = schedule::until(stages, self.warmup + self.elapsed, self.requests);
        }
        plan
    }

    fn sample(&self, point: &Point) -> Sample {
        Sample {
            t_s: (point.at_ns as f64 - self.origin_ns as f64) / 1e9,
            name: point.name.clone(),
            role: "load".to_owned(),
            replica: 1,
            value: point.value,
        }
    }
}

/// The one trial of a load.
pub fn trial(seed: u64) -> Trial {
    Trial { seed, ..Trial::new(0, Levels::new(), 0, seed) }
}

fn ceil_s(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u32::MAX)
}

/// Collects records as they are read, and knows what has happened so far.
pub struct Collected {
    /// Records of seconds that are over: on disk, because they grow with time.
    records: OpsLog,
    /// The last sequence number read.
    pub seq: u64,
    /// Merged over all seconds that are over and measured.
    merged: OpsRecord,
    seconds: BTreeMap<u32, OpsRecord>,
    done: Vec<Second>,
}

impl Collected {
    /// Nothing yet.
    ///
    /// # Errors
    /// When there is no place for temporary files.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            records: OpsLog::new()?,
            seq: 0,
            merged: OpsRecord::default(),
            seconds: BTreeMap::new(),
            done: Vec::new(),
        })
    }

    /// Takes what a generator gave. Seconds that are still open count only when `last` says that nothing more comes.
    ///
    /// # Errors
    /// When a line is not an operations record, or the disk is full.
    pub fn take(&mut self, text: &str, warmup_s: u32, last: bool) -> anyhow::Result<()> {
        for line in text.lines() {
            let record: OpsRecord = serde_json::from_str(line)?;
            if record.open && !last {
                continue;
            }
            self.seq = self.seq.max(record.seq);
            self.records.append(record.second, line)?;
            if record.second >= warmup_s {
                self.merged.merge(&record);
                self.seconds.entry(record.second).or_default().merge(&record);
            }
        }
        self.settle(last);
        Ok(())
    }

    /// Reduces seconds to their numbers, all but the last few, to which other threads may still add.
    fn settle(&mut self, last: bool) {
        let keep = if last { 0 } else { 3 };
        while self.seconds.len() > keep {
            let Some((second, record)) = self.seconds.pop_first() else { return };
            self.done.push(Second::of(second, &record));
        }
    }

    /// Operations of seconds that are over.
    pub fn merged(&self) -> &OpsRecord {
        &self.merged
    }

    /// The last second that is over.
    pub fn last(&self) -> Option<Second> {
        self.seconds.iter().next_back().map(|(second, record)| Second::of(*second, record))
    }

    /// Everything: merged, by second, and as records.
    pub fn finish(self) -> (OpsRecord, Vec<Second>, OpsLog) {
        let mut seconds: BTreeMap<u32, Second> = BTreeMap::new();
        for second in self.done {
            let into = seconds.entry(second.second).or_default();
            into.second = second.second;
            into.latency = into.latency.max(second.latency);
            for (into, count) in into.counts.iter_mut().zip(second.counts) {
                *into += count;
            }
        }
        (self.merged, seconds.into_values().collect(), self.records)
    }
}

impl Second {
    fn of(second: u32, record: &OpsRecord) -> Self {
        let all = record.all_times();
        let latency = (all.count() > 0)
            .then(|| [0.5, 0.9, 0.95, 0.99, 1.0].map(|quantile| all.quantile(quantile).unwrap_or_default()));
        Self { second, counts: [record.ok, record.failed, record.unknown, record.wrong], latency }
    }

    /// All its operations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

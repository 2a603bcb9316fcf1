//! Operations and series → summaries. Pure: data in, data out.
//!
//! A trial is summarised alone ([`TrialSummary`]); a study is summarised over its trials ([`StudySummary`]), and every
//! interval there comes from independent trials, never from pooled requests.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::experiment::{Levels, LoadPlan, Trial};
use crate::faults::Injection;

pub mod abort;
mod answer;
pub mod crossover;
pub mod guards;
pub mod keeps_up;
pub mod knee;
pub mod lost;
pub mod ops_log;
mod recovered_words;
pub mod recovery;
#[cfg(test)]
pub(crate) mod samples;
pub mod search;
pub mod stats;
pub mod steady;
pub mod stream;
pub mod study;
mod trial;
pub mod usl;
mod words;

pub use lost::Lost;
pub use ops_log::OpsLog;
pub use recovery::{CellRecovery, RecoverySummary};
pub use stream::{StreamState, StreamSummary};
pub use study::summarize_study;
pub use trial::{summarize_second, summarize_trial};

/// A gauge of one replica at one time; one row of `series.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds since the trial's start (the start of the schedule).
    pub t_s: f64,
    /// `cpu` (CPUs used since the sample before), `rss_bytes`, `open_files`, `threads`; of the generator also `users`,
    /// `in_flight`, `thread_busy` (the busiest thread's share of one CPU since the sample before).
    pub name: String,
    /// Whose.
    pub role: String,
    /// Which replica, from 1.
    pub replica: u32,
    /// The value; none where it could not be measured.
    pub value: Option<f64>,
}

/// One replica that took part in a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Participant {
    /// Its role.
    pub role: String,
    /// Which replica, from 1.
    pub replica: u32,
    /// Whether it belongs to the system under test; the generator does not.
    pub under_test: bool,
    /// The CPUs it was pinned to.
    pub cpus: Option<String>,
    /// Why its memory cannot be measured, where that is so (it shares a process, it runs elsewhere).
    pub no_memory: Option<String>,
    /// Why its CPU time cannot be measured, where that is so.
    pub no_cpu: Option<String>,
}

/// What a trial left behind.
#[derive(Clone, Debug)]
pub struct TrialRecord {
    /// Which trial.
    pub trial: Trial,
    /// How load was offered, with the trial's levels filled in.
    pub load: LoadPlan,
    /// Operations by second and kind, the second since the start of the schedule.
    pub ops: OpsLog,
    /// Gauges.
    pub series: Vec<Sample>,
    /// The measured seconds.
    pub window: Range<u32>,
    /// How long was measured, where that is not the whole window: rates are divided by it. None is the window's length.
    pub measured_s: Option<f64>,
    /// Who took part.
    pub participants: Vec<Participant>,
    /// Why the trial is not valid, when something went wrong that its operations do not show.
    pub failure: Option<String>,
    /// What a micro-batch engine told, in the order of telling; empty for every other system.
    pub journal: Vec<kit::batch::Entry>,
    /// What was broken, and when.
    pub faults: Vec<Injection>,
    /// What became of its writes, where that was checked.
    pub lost: Option<Lost>,
    /// Good and all operations of each user in the measured window, where a history was kept.
    pub users: BTreeMap<u64, (u64, u64)>,
    /// The kinds of operation that may be sent again safely.
    pub repeatable: BTreeSet<String>,
}

/// Percentiles and mean of one kind of duration, in milliseconds; none where there was nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Median.
    pub p50: Option<f64>,
    /// 90th percentile.
    #[serde(default)]
    pub p90: Option<f64>,
    /// 95th percentile.
    pub p95: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
    /// 99.9th percentile.
    #[serde(default)]
    pub p999: Option<f64>,
    /// Mean.
    pub avg: Option<f64>,
    /// Largest.
    pub max: Option<f64>,
}

/// A circumstance that touches numbers, with what to do about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    /// `generator-limited`, `client-bound`, `not-sent`, `saturated`, `refusals-hide-latency`, `not-steady`,
    /// `no-saturation`, `replicas-unsampled`, `too-few-ops`, `one-trial`; of streams also `source-blocked`,
    /// `receiver-held`, `records-not-followed`, `batches-failed`, `backlog`; with faults also `baseline-unstable`,
    /// `fault-skipped`, `fault-unknown`.
    pub id: String,
    /// The numbers it touches: `throughput`, `goodput`, `latency`, `latency_p99`, `errors`, `cpu`, `memory`,
    /// `efficiency`, `crossover`, `capacity`; of streams also `delay`: whether they keep up, and by how much not; with
    /// faults also `recovery`, all that is measured against what was usual before, and `availability`.
    pub touches: Vec<String>,
    /// Where: a trial's name, a cell, or empty for the whole study.
    pub at: String,
    /// What was seen, with the figure.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

/// One second of a trial.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SecondSummary {
    /// Since the start of the schedule.
    pub second: u32,
    /// Whether it lies in the measured window.
    pub measured: bool,
    /// Operations intended in it, however they ended.
    pub offered: u64,
    /// Those that were answered, whatever the answer, as throughput counts them.
    #[serde(default)]
    pub answered: u64,
    /// Good ones.
    pub ok: u64,
    /// Refused or broken ones.
    pub failed: u64,
    /// Given-up ones.
    pub unknown: u64,
    /// Wrongly answered ones.
    pub wrong: u64,
    /// Total time.
    pub latency: Spread,
}

/// One kind of operation in a trial.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KindSummary {
    /// Its name.
    pub kind: String,
    /// Measured operations.
    pub requests: u64,
    /// Good ones.
    pub ok: u64,
    /// Refused or broken ones.
    pub failed: u64,
    /// Given-up ones.
    pub unknown: u64,
    /// Wrongly answered ones.
    pub wrong: u64,
    /// Total time.
    pub latency: Spread,
    /// Reasons of those that did not end well.
    pub errors: BTreeMap<String, u64>,
}

/// What one replica used while measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicaUse {
    /// Its role.
    pub role: String,
    /// Which replica.
    pub replica: u32,
    /// Whether it belongs to the system under test.
    pub under_test: bool,
    /// CPUs used, mean.
    pub cpu: Option<f64>,
    /// Resident memory in bytes, mean.
    pub mem_bytes: Option<f64>,
    /// Open files, largest.
    pub open_files: Option<f64>,
    /// How many samples of CPU are behind it.
    pub samples: usize,
}

/// A trial in numbers: one line of `results.jsonl`. Rates are a second of the measured window. Of a stream the operations
/// are its batches, and rates are in records.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TrialSummary {
    /// Its place in the order of running.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// The level of every factor.
    pub levels: Levels,
    /// Which repetition of its cell.
    pub repetition: u32,
    /// Its seed.
    pub seed: u64,
    /// Whether its numbers mean anything.
    pub valid: bool,
    /// Why not.
    pub invalid: Option<String>,
    /// Length of the measured window.
    pub measured_s: f64,
    /// Users, in a closed loop.
    pub users: Option<u32>,
    /// Operations that the system answered, whatever the answer; without those that were refused a connection or never
    /// sent.
    pub throughput_rps: Option<f64>,
    /// Good operations.
    pub goodput_rps: Option<f64>,
    /// Intended operations.
    pub offered_rps: Option<f64>,
    /// Total time.
    pub latency_p50_ms: Option<f64>,
    /// Total time.
    #[serde(default)]
    pub latency_p90_ms: Option<f64>,
    /// Total time.
    pub latency_p95_ms: Option<f64>,
    /// Total time.
    pub latency_p99_ms: Option<f64>,
    /// Total time.
    #[serde(default)]
    pub latency_p999_ms: Option<f64>,
    /// Total time.
    pub latency_avg_ms: Option<f64>,
    /// Total time.
    pub latency_max_ms: Option<f64>,
    /// Operations behind the percentiles: those that did not fail.
    #[serde(default)]
    pub latency_count: u64,
    /// Time until work began.
    pub wait: Spread,
    /// Time of work.
    pub work: Spread,
    /// Lateness of the generator.
    pub lag: Spread,
    /// Share that did not end well, in percent.
    pub error_rate: Option<f64>,
    /// Operations in the window.
    pub total_requests: u64,
    /// Those that did not end well.
    pub total_failures: u64,
    /// Refused or broken ones.
    pub failed: u64,
    /// Given-up ones.
    pub unknown: u64,
    /// Wrongly answered ones.
    pub wrong: u64,
    /// CPUs that the system used, all replicas together.
    pub total_cpu_units: Option<f64>,
    /// Memory that the system used, all replicas together, in GB (10⁹ bytes).
    pub total_mem_gb: Option<f64>,
    /// Good operations a second and CPU used.
    pub rps_per_cpu_unit: Option<f64>,
    /// Good operations a second and GB used.
    pub rps_per_gb_mem: Option<f64>,
    /// By kind.
    pub kinds: Vec<KindSummary>,
    /// By replica.
    pub replicas: Vec<ReplicaUse>,
    /// By second.
    pub seconds: Vec<SecondSummary>,
    /// What touches these numbers.
    pub guards: Vec<Guard>,
    /// Why a number above is null, by key.
    pub null_reasons: BTreeMap<String, String>,
    /// Of a stream: whether it kept up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamSummary>,
    /// Of a trial with faults: how users fared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoverySummary>,
    /// Where that was checked: what became of its writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
}

/// A mean over independent trials, with its 95 % t-interval: of a duration on the log scale, where it never reaches zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean; none where nothing was measured.
    pub mean: Option<f64>,
    /// Lower end; none with fewer than two trials.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// The value of each valid trial.
    pub values: Vec<f64>,
    /// Why there is no mean.
    pub null_reason: Option<String>,
    /// For a percentile with too few operations behind it: how many there were. Drawn hollow.
    pub thin: Option<u64>,
}

/// One cell: the trials that share all levels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CellSummary {
    /// Its level of the factor on the x axis.
    pub x: f64,
    /// All its levels.
    pub levels: Levels,
    /// Trials that count.
    pub valid: usize,
    /// Trials that do not.
    pub invalid: usize,
    /// By the key of [`TrialSummary`]: `throughput_rps`, `goodput_rps`, `latency_p95_ms`, `error_rate`,
    /// `total_cpu_units`, `total_mem_gb`, `rps_per_cpu_unit`, `rps_per_gb_mem`, `wait_p95_ms`, `work_p95_ms`, …; also
    /// `in_system`, the operations under way on average. Of streams also those of [`stream::KEYS`]. With faults also those
    /// of [`recovery::KEYS`], with a value for each injection, and with one for each trial `availability_percent`,
    /// `availability_repeatable_percent`, `amplification`, `lost`.
    pub metrics: BTreeMap<String, Estimate>,
    /// What touches these numbers.
    pub guards: Vec<Guard>,
    /// Of streams: whether they kept up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<CellStream>,
    /// With faults: how its injections went together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<CellRecovery>,
}

/// What the valid trials of a cell say of a stream together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CellStream {
    /// Where all trials agree, what they say; else unknown.
    pub state: StreamState,
    /// Why: with the means over trials where they agree, else as the first trial that cannot tell has it.
    pub why: String,
    /// Trials that keep up.
    pub stable: usize,
    /// Trials that fall behind.
    pub falls_behind: usize,
    /// Trials that cannot tell.
    pub unknown: usize,
    /// Batch interval.
    pub batch_interval_ms: f64,
    /// Slots, those of receivers included.
    pub cores: u32,
}

/// One curve: the cells that share every level but that of the x axis.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Curve {
    /// Its name in legends: `monolith`, `microservices × 3`.
    pub label: String,
    /// The levels it fixes.
    pub levels: Levels,
    /// In the order of x.
    pub cells: Vec<CellSummary>,
    /// The universal scalability law fitted to goodput, or why not.
    pub usl: Fitted<Usl>,
    /// Where the hinge bends, or why not.
    pub knee: Fitted<Knee>,
}

/// A fit, or the reason why there is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fitted<T> {
    /// The fit.
    Fit(T),
    /// Why there is none.
    None(String),
}

/// A value with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The estimate.
    pub estimate: f64,
    /// 2.5 %.
    pub low: f64,
    /// 97.5 %.
    pub high: f64,
}

/// X(N) = λN / (1 + σ(N−1) + κN(N−1)), after Gunther.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Usl {
    /// Throughput of one.
    pub lambda: Interval,
    /// Contention.
    pub sigma: Interval,
    /// Coherency; 0 where the data do not support it, and then with the upper end that they do not rule out.
    pub kappa: Interval,
    /// The level of the peak; none when κ = 0.
    pub n_max: Option<Interval>,
    /// Share of bootstrap fits with κ = 0.
    pub kappa_zero: f64,
    /// Whether κ is supported by the data (AICc).
    pub kappa_supported: bool,
    /// What N is: the factor, or operations in the system by Little's law where users also think.
    #[serde(default)]
    pub over: String,
}

/// X = min(aN, b): where a line through the origin meets a plateau.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Knee {
    /// N* = b/a.
    pub n: Interval,
    /// The plateau.
    pub capacity: Interval,
    /// Whether the plateau was reached; otherwise "no saturation observed".
    pub saturated: bool,
}

/// Where one curve overtakes another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Crossover {
    /// The metric.
    pub metric: String,
    /// The curve that is better before.
    pub a: String,
    /// The curve that is better after.
    pub b: String,
    /// Where; none when there is no crossover in the tested range.
    pub at: Option<Interval>,
    /// The probability that there is one, from the spread of the trials.
    pub probability: f64,
    /// In words, with what it rests on.
    pub statement: String,
    /// Whether guards leave it undecided.
    pub unknown: Option<String>,
    /// At each level compared, the curve that is shown to be better; none where no difference could be shown.
    #[serde(default)]
    pub shown: Vec<(f64, Option<String>)>,
    /// Levels that were not compared, with the kind of guard that touches them.
    #[serde(default)]
    pub left_out: Vec<(f64, String)>,
}

impl Crossover {
    /// How often the curve that is shown to be better changes along the x axis.
    pub fn changes(&self) -> usize {
        let leaders: Vec<&String> = self.shown.iter().filter_map(|(_, leader)| leader.as_ref()).collect();
        leaders.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }
}

/// What a search found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SearchSummary {
    /// The factor.
    pub factor: String,
    /// For each curve: the last level that passed and the first that failed.
    pub brackets: Vec<Bracket>,
}

/// The bracket of one curve.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bracket {
    /// The curve.
    pub label: String,
    /// The levels of the other factors.
    pub levels: Levels,
    /// The last level that passed; none when none did.
    pub pass: Option<i64>,
    /// The first level that failed; none when none did.
    pub fail: Option<i64>,
    /// Levels that could not be decided, with the reason.
    pub undecided: Vec<(i64, String)>,
}

/// A study in numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StudySummary {
    /// The factor on the x axis.
    pub x: Option<String>,
    /// The curves.
    pub curves: Vec<Curve>,
    /// Crossovers between curves.
    pub crossovers: Vec<Crossover>,
    /// What a search found.
    pub search: Option<SearchSummary>,
    /// What touches the study as a whole, and every guard of its cells.
    pub guards: Vec<Guard>,
    /// The question's answer in one sentence.
    pub answer: String,
}

impl StudySummary {
    /// Whether what was studied are streams.
    pub fn is_stream(&self) -> bool {
        self.curves.iter().flat_map(|curve| &curve.cells).any(|cell| cell.stream.is_some())
    }
}

//! A micro-batch stream: its journal → [`StreamSummary`], and whether it keeps up.
//!
//! One rule: everything is as it stood at the end of the measured window. What the drain finished later is not looked
//! at, so averages are over the same sets as on Spark's page: scheduling delay over the batches that had started,
//! processing time and total delay over those that had ended. Average total delay is therefore not the sum of the other
//! two.
//!
//! A batch counts when its batch time lies in the window. The first batch of a run is averaged like the others, but not
//! judged by: it is a partial one, because batch times are multiples of the interval.

use std::collections::BTreeMap;
use std::ops::Range;

use kit::batch::{Batch, Engine, Entry, Status};
use serde::{Deserialize, Serialize};

use crate::measure::{CellStream, Interval, Spread, stats};
use crate::verdict::three;

/// The kind of operation that a batch is.
pub const BATCH: &str = "batch";

/// The kind of operation that a record is, from its source's schedule to the end of its batch.
pub const RECORD: &str = "record";

/// Fewer batches than this say nothing about a stream.
const ENOUGH: usize = 5;

/// A delay that grows by less than this share of the interval a batch is level.
const LEVEL: f64 = 0.01;

/// An interval rests on at least this many blocks, where there are as many values.
const LEAST_BLOCKS: usize = 5;

/// Whether a stream keeps up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StreamState {
    /// Processing takes less than the interval, and the scheduling delay does not grow.
    Stable,
    /// Processing takes longer than the interval, or the scheduling delay grows.
    FallsBehind,
    /// Neither can be said.
    #[default]
    Unknown,
}

impl StreamState {
    /// As one says it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::FallsBehind => "falls behind",
            Self::Unknown => "unknown",
        }
    }
}

/// Where the batches of the window were at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchCounts {
    /// Ended well.
    pub completed: u64,
    /// Ended with a job that failed.
    pub failed: u64,
    /// Submitted, not started.
    pub queued: u64,
    /// Started, not ended.
    pub processing: u64,
}

impl BatchCounts {
    /// All of them.
    pub fn due(&self) -> u64 {
        self.completed + self.failed + self.queued + self.processing
    }
}

/// A stream in numbers, as they stood at the end of the measured window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamSummary {
    /// Batch interval.
    pub batch_interval_ms: f64,
    /// Slots, those of receivers included.
    pub cores: u32,
    /// Receivers, each of which holds one slot.
    pub receivers: u32,
    /// Slots that are left for tasks.
    pub slots: u32,
    /// Partitions that records are spread over; 0 where they stay in their blocks.
    pub partitions: u32,
    /// Jobs that may run at a time.
    pub concurrent_jobs: u32,
    /// Batches of the window.
    pub batches: BatchCounts,
    /// Their records.
    pub records: u64,
    /// Records of a batch by the batch interval, mean over all batches.
    pub avg_input_rate_per_s: Option<f64>,
    /// From submission to the first job's start, mean over the batches that had started.
    pub avg_scheduling_delay_ms: Option<f64>,
    /// From the first job's start to the last job's end, mean over the batches that had ended.
    pub avg_processing_time_ms: Option<f64>,
    /// From submission to the last job's end, mean over the batches that had ended.
    pub avg_total_delay_ms: Option<f64>,
    /// From batch time to submission, mean over all batches: the part that a scheduling delay does not show.
    pub avg_lateness_ms: Option<f64>,
    /// The largest scheduling delay.
    pub max_scheduling_delay_ms: Option<f64>,
    /// The scheduling delay of the last batch that had started.
    pub last_scheduling_delay_ms: Option<f64>,
    /// The most batches that waited at a time within the window, those from before it included.
    pub most_queued: u64,
    /// By how much the scheduling delay grows from one batch to the next: the mean increment, with a 95 % t-interval over
    /// the means of consecutive blocks of increments. Delays add up what every batch before took, increments do not, and
    /// blocks take care of what correlation is left.
    pub delay_growth_ms_per_batch: Option<Interval>,
    /// The processing time that the model expects.
    pub predicted_processing_ms: Option<f64>,
    /// The longest run of consecutive batches that took longer than the interval.
    pub over_interval_in_a_row: u32,
    /// From a record's intended time at its source to the end of its batch.
    pub record_latency: Option<Spread>,
    /// Whether it keeps up.
    pub state: StreamState,
    /// Why, in a sentence that begins with the state and names the figures it rests on.
    pub why: String,
    /// Why a number above is null, by key.
    pub null_reasons: BTreeMap<String, String>,
}

/// The second in which the last batch was due that was told of.
pub fn last_second(entries: &[Entry]) -> u32 {
    latest(entries).values().map(|batch| (batch.time_ms / 1e3) as u32 + 1).max().unwrap_or(0)
}

/// A stream in numbers. `window` is in seconds since the start of the schedule; a later entry of a batch replaces an
/// earlier one. Record latency is left to the caller, who has the operations.
pub fn summarize(entries: &[Entry], window: Range<u32>) -> StreamSummary {
    let engine = engine(entries).cloned().unwrap_or_default();
    let all = latest(entries);
    let (from_ms, end_ms) = (1e3 * f64::from(window.start), 1e3 * f64::from(window.end));
    let due: Vec<Batch> = all
        .values()
        .filter(|batch| (from_ms..end_ms).contains(&batch.time_ms))
        .map(|batch| as_of(batch, end_ms))
        .collect();
    let seen = Seen { engine: &engine, due: &due, end_ms };
    let mut nulls = BTreeMap::new();
    let mut keep = |key: &str, value: Option<f64>, why: &dyn Fn() -> String| {
        if value.is_none() {
            nulls.insert(key.to_owned(), why());
        }
        value
    };
    let none_due = || "no batch was due in the measured window".to_owned();
    let none_started = || if due.is_empty() { none_due() } else { format!("none of {} batches started", due.len()) };
    let none_ended = || if due.is_empty() { none_due() } else { format!("none of {} batches ended", due.len()) };
    let growth = seen.growth();
    keep("delay_growth_ms_per_batch", growth.map(|growth| growth.estimate), &|| {
        "at least three batches must have started after the first one of the run".to_owned()
    });
    let mut summary = StreamSummary {
        batch_interval_ms: engine.batch_interval_ms,
        cores: engine.cores,
        receivers: engine.receivers,
        slots: engine.cores.saturating_sub(engine.receivers),
        partitions: engine.partitions,
        concurrent_jobs: engine.concurrent_jobs.max(1),
        batches: counts(&due),
        records: due.iter().map(|batch| batch.records).sum(),
        avg_input_rate_per_s: keep("avg_input_rate_per_s", seen.mean(|batch| seen.input_rate(batch)), &none_due),
        avg_scheduling_delay_ms: keep("avg_scheduling_delay_ms", seen.mean(scheduling_delay_ms), &none_started),
        avg_processing_time_ms: keep("avg_processing_time_ms", seen.mean(processing_ms), &none_ended),
        avg_total_delay_ms: keep("avg_total_delay_ms", seen.mean(total_delay_ms), &none_ended),
        avg_lateness_ms: keep("avg_lateness_ms", seen.mean(lateness_ms), &none_due),
        max_scheduling_delay_ms: keep(
            "max_scheduling_delay_ms",
            due.iter().filter_map(scheduling_delay_ms).reduce(f64::max),
            &none_started,
        ),
        last_scheduling_delay_ms: keep(
            "last_scheduling_delay_ms",
            due.iter().rev().find_map(scheduling_delay_ms),
            &none_started,
        ),
        most_queued: most_queued(&all, from_ms, end_ms),
        delay_growth_ms_per_batch: growth,
        predicted_processing_ms: keep("predicted_processing_ms", engine.predicted_processing_ms, &|| {
            "the model knows no planned rate".to_owned()
        }),
        over_interval_in_a_row: over_in_a_row(&due, engine.batch_interval_ms),
        record_latency: None,
        state: StreamState::Unknown,
        why: String::new(),
        null_reasons: BTreeMap::new(),
    };
    summary.null_reasons = nulls;
    (summary.state, summary.why) = seen.judge(&summary);
    summary
}

/// How the engine said it is set up.
pub fn engine(entries: &[Entry]) -> Option<&Engine> {
    entries.iter().rev().find_map(|entry| match entry {
        Entry::Engine(engine) => Some(engine),
        _ => None,
    })
}

/// The last that was told of each batch, by its number.
pub fn latest(entries: &[Entry]) -> BTreeMap<u64, &Batch> {
    let batches = entries.iter().filter_map(|entry| match entry {
        Entry::Batch(batch) => Some((batch.batch, batch)),
        _ => None,
    });
    batches.collect()
}

/// Why the latency of records is not known, as a receiver says.
pub fn no_record_latency(entries: &[Entry]) -> Option<&str> {
    entries.iter().rev().find_map(|entry| match entry {
        Entry::Receiver(receiver) => receiver.no_record_latency.as_deref(),
        _ => None,
    })
}

/// Submission to the first job's start; none before it.
pub fn scheduling_delay_ms(batch: &Batch) -> Option<f64> {
    Some((batch.started_ms? - batch.submitted_ms).max(0.0))
}

/// First job's start to last job's end; none before it.
pub fn processing_ms(batch: &Batch) -> Option<f64> {
    Some((batch.ended_ms? - batch.started_ms?).max(0.0))
}

/// Submission to the last job's end: scheduling delay and processing time.
pub fn total_delay_ms(batch: &Batch) -> Option<f64> {
    Some(scheduling_delay_ms(batch)? + processing_ms(batch)?)
}

fn lateness_ms(batch: &Batch) -> Option<f64> {
    Some((batch.submitted_ms - batch.time_ms).max(0.0))
}

/// What was known of a batch at an instant.
fn as_of(batch: &Batch, at_ms: f64) -> Batch {
    let started_ms = batch.started_ms.filter(|started| *started <= at_ms);
    let ended_ms = batch.ended_ms.filter(|ended| *ended <= at_ms);
    let status = match (started_ms, ended_ms) {
        (_, Some(_)) if batch.status == Status::Failed => Status::Failed,
        (_, Some(_)) => Status::Completed,
        (Some(_), None) => Status::Processing,
        (None, None) => Status::Queued,
    };
    Batch { started_ms, ended_ms, status, ..batch.clone() }
}

fn counts(batches: &[Batch]) -> BatchCounts {
    let mut counts = BatchCounts::default();
    for batch in batches {
        *match batch.status {
            Status::Completed => &mut counts.completed,
            Status::Failed => &mut counts.failed,
            Status::Queued => &mut counts.queued,
            Status::Processing => &mut counts.processing,
        } += 1;
    }
    counts
}

/// The most that waited at a time between two instants.
fn most_queued(all: &BTreeMap<u64, &Batch>, from_ms: f64, end_ms: f64) -> u64 {
    let mut changes: Vec<(f64, i64)> = Vec::new();
    for batch in all.values() {
        changes.push((batch.submitted_ms, 1));
        changes.extend(batch.started_ms.or(batch.ended_ms).map(|left| (left, -1)));
    }
    // Of two at one instant the one that leaves goes first: a batch that starts at once never waited.
    changes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let (mut waiting, mut most) = (0_i64, 0_i64);
    for (at_ms, change) in changes.into_iter().take_while(|(at_ms, _)| *at_ms <= end_ms) {
        if at_ms >= from_ms {
            most = most.max(waiting);
        }
        waiting += change;
    }
    u64::try_from(most.max(waiting)).unwrap_or(0)
}

fn over_in_a_row(batches: &[Batch], interval_ms: f64) -> u32 {
    let (mut run, mut longest) = (0, 0);
    for batch in batches {
        run = if processing_ms(batch).is_some_and(|took| took > interval_ms) { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

/// The mean of values in the order of time, with a 95 % t-interval over the means of √n consecutive blocks, at least
/// five. None for fewer than two values.
fn block_interval(values: &[f64]) -> Option<Interval> {
    let estimate = stats::mean(values)?;
    let count = values.len();
    let blocks = ((count as f64).sqrt() as usize).max(LEAST_BLOCKS).min(count);
    let block = |place: usize| &values[place * count / blocks..(place + 1) * count / blocks];
    let means: Vec<f64> = (0..blocks).filter_map(|place| stats::mean(block(place))).collect();
    let spread = stats::t_interval(&means)?;
    let half = (spread.high - spread.low) / 2.0;
    Some(Interval { estimate, low: estimate - half, high: estimate + half })
}

/// The batches of a window as they stood at its end.
struct Seen<'a> {
    engine: &'a Engine,
    due: &'a [Batch],
    end_ms: f64,
}

impl Seen<'_> {
    fn mean(&self, of: impl Fn(&Batch) -> Option<f64>) -> Option<f64> {
        stats::mean(&self.due.iter().filter_map(of).collect::<Vec<_>>())
    }

    fn input_rate(&self, batch: &Batch) -> Option<f64> {
        let interval_ms = self.engine.batch_interval_ms;
        (interval_ms > 0.0).then(|| 1e3 * batch.records as f64 / interval_ms)
    }

    /// Those that a stream is judged by: all but the first of the run.
    fn judged(&self) -> impl Iterator<Item = &Batch> {
        self.due.iter().filter(|batch| batch.batch > 0)
    }

    fn growth(&self) -> Option<Interval> {
        let delays: Vec<(u64, f64)> =
            self.judged().filter_map(|batch| Some((batch.batch, scheduling_delay_ms(batch)?))).collect();
        let increment = |pair: &[(u64, f64)]| (pair[1].1 - pair[0].1) / (pair[1].0 - pair[0].0) as f64;
        block_interval(&delays.windows(2).map(increment).collect::<Vec<_>>())
    }

    /// Spark's rule, with the intervals it needs to be honest: stable when processing surely takes less than the interval
    /// (times the jobs that may run at a time) and the delay does not surely grow; falling behind when processing surely
    /// takes longer, or the delay surely grows by more than a hundredth of the interval a batch.
    fn judge(&self, summary: &StreamSummary) -> (StreamState, String) {
        let interval_ms = summary.batch_interval_ms;
        let limit_ms = interval_ms * f64::from(summary.concurrent_jobs);
        if let Some(early) = self.too_little(summary, limit_ms) {
            return early;
        }
        let took: Vec<f64> = self.judged().filter_map(processing_ms).collect();
        let took = block_interval(&took);
        let growth = summary.delay_growth_ms_per_batch;
        let level_ms = LEVEL * interval_ms;
        let grows = growth.is_some_and(|growth| growth.low > level_ms);
        let is_level = growth.is_some_and(|growth| growth.high < level_ms)
            || summary.max_scheduling_delay_ms.is_some_and(|most| most < interval_ms);
        let took_ms = took.map(|took| took.estimate).or(summary.avg_processing_time_ms).unwrap_or_default();
        if grows || took.is_some_and(|took| took.low > limit_ms) {
            let growth_ms = growth.map_or(0.0, |growth| growth.estimate);
            (StreamState::FallsBehind, falls_behind(summary, took_ms, growth_ms))
        } else if is_level && took.is_some_and(|took| took.high < limit_ms) {
            (StreamState::Stable, stable(summary, took_ms, summary.avg_scheduling_delay_ms.unwrap_or_default()))
        } else {
            let processing = processing_words(summary, took_ms);
            let within = |interval: Option<Interval>| {
                interval.map_or_else(
                    || "no interval".to_owned(),
                    |interval| format!("95 % interval {} to {}", span(interval.low), span(interval.high)),
                )
            };
            let why = format!(
                "unknown: {processing} ({}) and the scheduling delay grows by {} ({}), which is too close to tell; \
                 measure longer",
                within(took),
                growth_words(growth.map_or(0.0, |growth| growth.estimate)),
                within(growth)
            );
            (StreamState::Unknown, why)
        }
    }

    /// What is said where there are too few batches for an interval, though sometimes enough for an answer.
    fn too_little(&self, summary: &StreamSummary, limit_ms: f64) -> Option<(StreamState, String)> {
        let (queued, due) = (summary.batches.queued, self.due.len());
        let unknown = |why: String| Some((StreamState::Unknown, format!("unknown: {why}")));
        if limit_ms <= 0.0 {
            return unknown(NO_ENGINE.to_owned());
        }
        if due == 0 {
            return unknown("no batch was due in the measured window".to_owned());
        }
        let ended = self.judged().filter_map(processing_ms).count();
        if summary.slots == 0 && self.due.iter().all(|batch| batch.started_ms.is_none()) {
            let (receivers, hold) = count(u64::from(summary.receivers), "receiver", "holds", "hold");
            let (batches, wait) = count(queued, "batch", "waits", "wait");
            let cores = match summary.cores {
                1 => "the only core".to_owned(),
                several => format!("all {several} cores"),
            };
            let why = format!(
                "falls behind: {receivers} {hold} {cores}, so no slot is left: {batches} {wait} and none can start"
            );
            return Some((StreamState::FallsBehind, why));
        }
        if due < ENOUGH {
            return unknown(format!("{due} batches were due, and {ENOUGH} are needed; measure longer"));
        }
        if ended > 1 {
            return None;
        }
        let under_way = |batch: &Batch| Some(batch.ended_ms.unwrap_or(self.end_ms) - batch.started_ms?);
        // The first of the run counts here only while it has not ended.
        let counted = self.due.iter().filter(|batch| batch.batch > 0 || batch.ended_ms.is_none());
        let longest = counted.filter_map(under_way).fold(0.0, f64::max);
        if longest > limit_ms && queued >= 3 {
            let why = format!(
                "falls behind: a batch took {} and more of every {}, and {queued} batches wait",
                span(longest),
                span(summary.batch_interval_ms)
            );
            return Some((StreamState::FallsBehind, why));
        }
        match ended {
            0 => unknown(format!("none of {due} batches ended in the measured window; measure longer")),
            _ => unknown("only one batch ended in the measured window; measure longer".to_owned()),
        }
    }
}

/// Why nothing can be said of a journal without its engine.
pub const NO_ENGINE: &str = "the engine did not say how it is set up";

fn falls_behind(summary: &StreamSummary, took_ms: f64, growth_ms: f64) -> String {
    let growth = match growth_ms > 0.0 {
        true => format!(" and the scheduling delay grows by {}", growth_words(growth_ms)),
        false => String::new(),
    };
    format!("falls behind: {}{growth}", processing_words(summary, took_ms))
}

fn stable(summary: &StreamSummary, took_ms: f64, delay_ms: f64) -> String {
    format!("stable: {}, the scheduling delay stays at {}", processing_words(summary, took_ms), span(delay_ms))
}

fn processing_words(summary: &StreamSummary, took_ms: f64) -> String {
    let took = span(took_ms);
    let at_a_time = match summary.concurrent_jobs {
        0 | 1 => String::new(),
        jobs => format!(" with {jobs} jobs at a time"),
    };
    format!("processing takes {took} of every {}{at_a_time}", span(summary.batch_interval_ms))
}

/// A duration in the words of an answer: seconds to the millisecond from one second on, else milliseconds.
pub fn span(ms: f64) -> String {
    match ms.abs() {
        abs if abs < 0.5 => "0 ms".to_owned(),
        abs if abs < 999.5 => format!("{} ms", three(ms)),
        _ => {
            let text = format!("{:.3}", ms / 1e3);
            format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
        }
    }
}

/// `0.531 s a batch`.
fn growth_words(ms: f64) -> String {
    match ms.abs() {
        abs if abs < 0.05 => "0 ms a batch".to_owned(),
        abs if abs < 99.5 => format!("{} ms a batch", three(ms)),
        _ => format!("{} s a batch", three(ms / 1e3)),
    }
}

/// `1 receiver` with `holds`, `2 receivers` with `hold`.
fn count(number: u64, noun: &str, one: &'static str, several: &'static str) -> (String, &'static str) {
    let ending = if noun.ends_with("ch") { "es" } else { "s" };
    match number {
        1 => (format!("1 {noun}"), one),
        _ => (format!("{number} {noun}{ending}"), several),
    }
}

/// A number of a stream that cells estimate.
pub struct Key {
    /// Its key in a cell.
    pub key: &'static str,
    /// Its key in [`StreamSummary`], by which the reason of a null is found.
    pub of: &'static str,
    value: fn(&StreamSummary) -> Option<f64>,
}

/// The numbers of a stream that cells estimate.
pub const KEYS: [Key; 11] = [
    Key { key: "input_rate_per_s", of: "avg_input_rate_per_s", value: |stream| stream.avg_input_rate_per_s },
    Key {
        key: "scheduling_delay_avg_ms",
        of: "avg_scheduling_delay_ms",
        value: |stream| stream.avg_scheduling_delay_ms,
    },
    Key { key: "processing_avg_ms", of: "avg_processing_time_ms", value: |stream| stream.avg_processing_time_ms },
    Key { key: "total_delay_avg_ms", of: "avg_total_delay_ms", value: |stream| stream.avg_total_delay_ms },
    Key { key: "lateness_avg_ms", of: "avg_lateness_ms", value: |stream| stream.avg_lateness_ms },
    Key {
        key: GROWTH,
        of: "delay_growth_ms_per_batch",
        value: |stream| Some(stream.delay_growth_ms_per_batch?.estimate),
    },
    Key {
        key: "predicted_processing_ms",
        of: "predicted_processing_ms",
        value: |stream| stream.predicted_processing_ms,
    },
    Key { key: "queued_batches", of: "batches", value: |stream| Some(stream.batches.queued as f64) },
    Key { key: "record_latency_p50_ms", of: "record_latency", value: |stream| stream.record_latency.as_ref()?.p50 },
    Key { key: "record_latency_p95_ms", of: "record_latency", value: |stream| stream.record_latency.as_ref()?.p95 },
    Key { key: "record_latency_p99_ms", of: "record_latency", value: |stream| stream.record_latency.as_ref()?.p99 },
];

/// The key of the growth, which may be below zero and has an interval within one trial.
pub const GROWTH: &str = "delay_growth_ms";

/// The objective that a stream keeps up.
pub const STABLE: &str = "stable";

/// Whether only a stream has the number behind a key.
pub fn is_key(key: &str) -> bool {
    key == STABLE || KEYS.iter().any(|known| known.key == key)
}

impl StreamSummary {
    /// Every number that a cell estimates, in the order of [`KEYS`].
    pub fn values(&self) -> impl Iterator<Item = (&'static str, Option<f64>)> + '_ {
        KEYS.iter().map(|key| (key.key, (key.value)(self)))
    }

    /// Why the number with a key of a cell is null.
    pub fn null_reason(&self, key: &str) -> Option<&String> {
        self.null_reasons.get(KEYS.iter().find(|known| known.key == key)?.of)
    }
}

impl CellStream {
    /// What trials say together; none where there are none of a stream.
    pub fn of<'a>(trials: impl Iterator<Item = &'a StreamSummary> + Clone) -> Option<Self> {
        let first = trials.clone().next()?;
        let with = |state: StreamState| trials.clone().filter(move |trial| trial.state == state);
        let number = |state: StreamState| with(state).count();
        let all = trials.clone().count();
        let states = [StreamState::Stable, StreamState::FallsBehind];
        let state = states.into_iter().find(|state| number(*state) == all).unwrap_or_default();
        let told = with(state).next().unwrap_or(first);
        let why = match (state, with(StreamState::Unknown).next()) {
            (StreamState::Unknown, None) => format!(
                "unknown: {} of {all} trials fall behind and {} keep up; measure longer",
                number(StreamState::FallsBehind),
                number(StreamState::Stable)
            ),
            (StreamState::Unknown, Some(unknown)) => unknown.why.clone(),
            _ if all == 1 => told.why.clone(),
            _ => {
                let mean = |of: fn(&StreamSummary) -> Option<f64>| {
                    let each: Option<Vec<f64>> = trials.clone().map(of).collect();
                    each.and_then(|each| stats::mean(&each))
                };
                let took = mean(|trial| trial.avg_processing_time_ms);
                let delay = mean(|trial| trial.avg_scheduling_delay_ms);
                let growth = mean(|trial| Some(trial.delay_growth_ms_per_batch?.estimate));
                let why = match (state, took, delay) {
                    (StreamState::Stable, Some(took), Some(delay)) => stable(first, took, delay),
                    (_, Some(took), _) => falls_behind(first, took, growth.unwrap_or(0.0)),
                    _ => told.why.clone(),
                };
                format!("{why} (all {all} trials)")
            }
        };
        Some(Self {
            state,
            why,
            stable: number(StreamState::Stable),
            falls_behind: number(StreamState::FallsBehind),
            unknown: number(StreamState::Unknown),
            batch_interval_ms: first.batch_interval_ms,
            cores: first.cores,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::samples::MadeStream;

    fn summary(made: &MadeStream) -> StreamSummary {
        summarize(&made.journal(), 0..made.seconds)
    }

    #[test]
    fn the_published_set_up_that_falls_behind_is_told_with_its_figures() {
        let stream = summary(&MadeStream::default());
        assert_eq!(
            (stream.state, stream.why.as_str()),
            (
                StreamState::FallsBehind,
                "falls behind: processing takes 2.531 s of every 2 s and the scheduling delay grows by 0.531 s a batch"
            )
        );
        // The page said: 43 completed, 13 active; average scheduling delay 11.7 s, total delay 13.9 s.
        let BatchCounts { completed, failed, queued, processing } = stream.batches;
        assert_eq!((completed, failed, queued, processing), (44, 0, 11, 1));
        let (delay, total) = (stream.avg_scheduling_delay_ms.unwrap(), stream.avg_total_delay_ms.unwrap());
        assert!((delay - 11_688.0).abs() < 300.0 && (total - 13_946.0).abs() < 300.0, "{delay} {total}");
        // Over different sets, so they do not add up.
        assert!((total - delay - 2_531.0).abs() > 200.0);
        assert_eq!((stream.most_queued, stream.over_interval_in_a_row, stream.slots), (12, 44, 3));
        assert!((stream.last_scheduling_delay_ms.unwrap() - 44.0 * 531.0).abs() < 1.0);
    }

    #[test]
    fn one_that_keeps_up_is_told_with_its_figures() {
        let stream = summary(&MadeStream::of(1_080.0));
        assert_eq!(
            (stream.state, stream.why.as_str()),
            (StreamState::Stable, "stable: processing takes 1.08 s of every 2 s, the scheduling delay stays at 0 ms")
        );
        let growth = stream.delay_growth_ms_per_batch.unwrap();
        assert_eq!((growth.estimate, growth.low, growth.high, stream.most_queued), (0.0, 0.0, 0.0, 0));
        assert_eq!((stream.avg_input_rate_per_s, stream.records), (Some(143.0), 56 * 286));
        assert_eq!(stream.avg_lateness_ms, Some(1.0));
    }

    #[test]
    fn a_delay_as_long_as_the_interval_that_does_not_grow_is_fine() {
        let mut made = MadeStream::of(1_999.0);
        made.processing[0] = 4_500.0;
        let stream = summary(&made);
        assert!(stream.avg_scheduling_delay_ms.unwrap() > 2_000.0);
        assert_eq!(stream.state, StreamState::Stable, "{}", stream.why);
        let why = "stable: processing takes 1.999 s of every 2 s, the scheduling delay stays at 2.429 s";
        assert_eq!(stream.why, why);
    }

    #[test]
    fn what_cannot_be_told_says_why() {
        let cases: [(MadeStream, StreamState, &str); 7] = [
            (
                MadeStream { cores: 1, ..MadeStream::default() },
                StreamState::FallsBehind,
                "falls behind: 1 receiver holds the only core, so no slot is left: 56 batches wait and none can start",
            ),
            (
                MadeStream { cores: 2, receivers: 2, seconds: 6, ..MadeStream::default() },
                StreamState::FallsBehind,
                "falls behind: 2 receivers hold all 2 cores, so no slot is left: 3 batches wait and none can start",
            ),
            (
                MadeStream { seconds: 8, ..MadeStream::default() },
                StreamState::Unknown,
                "unknown: 4 batches were due, and 5 are needed; measure longer",
            ),
            (
                MadeStream { seconds: 0, ..MadeStream::default() },
                StreamState::Unknown,
                "unknown: no batch was due in the measured window",
            ),
            (
                MadeStream { seconds: 20, ..MadeStream::of(30_000.0) },
                StreamState::FallsBehind,
                "falls behind: a batch took 19.999 s and more of every 2 s, and 9 batches wait",
            ),
            (
                MadeStream {
                    processing: vec![9_000.0, 900.0, 900.0, 900.0, 900.0],
                    seconds: 10,
                    ..MadeStream::default()
                },
                StreamState::Unknown,
                "unknown: only one batch ended in the measured window",
            ),
            (
                MadeStream { processing: [1_900.0, 2_100.0].repeat(28), ..MadeStream::default() },
                StreamState::Unknown,
                "unknown: processing takes 2 s of every 2 s (95 % interval",
            ),
        ];
        for (made, state, why) in cases {
            let stream = summary(&made);
            assert!(stream.state == state && stream.why.starts_with(why), "{:?} {}", stream.state, stream.why);
        }
        assert_eq!(summarize(&[], 0..10).why, "unknown: the engine did not say how it is set up");
    }

    #[test]
    fn the_first_batch_is_averaged_and_not_judged_by() {
        // It is partial, and the others are all alike: five batches are enough.
        let mut made = MadeStream { seconds: 12, ..MadeStream::default() };
        made.processing[0] = 300.0;
        let stream = summary(&made);
        assert_eq!((stream.state, stream.batches.completed), (StreamState::FallsBehind, 4), "{}", stream.why);
        assert!(stream.avg_processing_time_ms.unwrap() < 2_000.0);
    }

    #[test]
    fn what_happened_after_the_window_is_not_looked_at() {
        let made = MadeStream { seconds: 40, ..MadeStream::default() };
        let mut cut = made.journal();
        cut.retain(|entry| match entry {
            Entry::Batch(batch) => batch.ended_ms.or(batch.started_ms).unwrap_or(batch.submitted_ms) <= 40_000.0,
            _ => true,
        });
        assert_eq!(summarize(&cut, 0..40), summary(&made));
    }

    #[test]
    fn every_missing_number_has_its_reason() {
        for made in
            [MadeStream { cores: 1, ..MadeStream::default() }, MadeStream { seconds: 0, ..MadeStream::default() }]
        {
            let stream = summary(&made);
            let json = serde_json::to_value(&stream).unwrap();
            let nulls =
                json.as_object().unwrap().iter().filter(|(key, value)| value.is_null() && *key != "record_latency");
            for (key, _) in nulls {
                assert!(stream.null_reasons.contains_key(key), "{key} has no reason");
            }
            assert_eq!(serde_json::from_value::<StreamSummary>(json).unwrap(), stream);
        }
    }

    #[test]
    fn the_interval_of_the_growth_covers_it() {
        let mut rng = kit::rng(3, "test");
        let covered = (0..200).filter(|_| {
            let took = |_: usize| 2_100.0 + 150.0 * stats::normal(&mut rng);
            let made = MadeStream { processing: (0..56).map(took).collect(), ..MadeStream::default() };
            let growth = summary(&made).delay_growth_ms_per_batch.unwrap();
            growth.low <= 100.0 && 100.0 <= growth.high
        });
        let covered = covered.count();
        assert!(covered >= 180, "{covered} of 200");
    }

    #[test]
    fn a_noisy_stream_that_keeps_up_is_hardly_ever_said_to_fall_behind() {
        let mut rng = kit::rng(4, "test");
        let mut states = BTreeMap::new();
        for _ in 0..200 {
            let took = |_: usize| 1_700.0 + 300.0 * stats::normal(&mut rng);
            let made = MadeStream { processing: (0..56).map(took).collect(), ..MadeStream::default() };
            *states.entry(summary(&made).state.words()).or_insert(0) += 1;
        }
        assert!(!states.contains_key("falls behind") && states["stable"] > 150, "{states:?}");
    }

    #[test]
    fn trials_that_differ_leave_a_cell_unknown() {
        let (stable, behind) = (summary(&MadeStream::of(1_080.0)), summary(&MadeStream::default()));
        let of = |trials: &[&StreamSummary]| CellStream::of(trials.iter().copied()).map(|cell| cell.state);
        assert_eq!(of(&[&stable, &stable]), Some(StreamState::Stable));
        assert_eq!(of(&[&behind, &behind]), Some(StreamState::FallsBehind));
        assert_eq!((of(&[&stable, &behind]), of(&[])), (Some(StreamState::Unknown), None));
        let slower = summary(&MadeStream::of(2_631.0));
        let why = "falls behind: processing takes 2.581 s of every 2 s and the scheduling delay grows by 0.581 s a batch \
                   (all 2 trials)";
        assert_eq!(CellStream::of([&behind, &slower].into_iter()).unwrap().why, why);
    }
}

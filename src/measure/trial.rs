//! One trial: operations by second and gauges → [`TrialSummary`].
//!
//! One rule: only the measured window enters a number; every second, measured or not, is kept in `seconds`.

use std::collections::BTreeMap;
use std::ops::Range;

use kit::OpsRecord;
use kit::op::Latencies;

use crate::experiment::LoadPlan;
use crate::measure::{
    KindSummary, Participant, ReplicaUse, Sample, SecondSummary, Spread, StreamSummary, TrialRecord, TrialSummary,
    guards, recovery, stream,
};

/// A trial in numbers. Rates are over the length that was measured; percentiles come from merged histograms.
///
/// Throughput counts what was answered, goodput `ok`, offered everything intended. A trial in which nothing was
/// answered, or that carries a failure, is invalid; its numbers are kept as far as they exist. Every published number
/// that is null has its reason in `null_reasons`.
///
/// Of a stream the operations are its batches, and rates are in records: throughput and goodput of the batches that
/// ended well, offered of all that were due. The latency of records stands apart, in `stream`.
pub fn summarize_trial(record: &TrialRecord) -> TrialSummary {
    let is_stream = !record.journal.is_empty();
    let Read { by_kind, seconds, by_second } = read(record);
    let ops = merge(by_kind.iter().filter(|(kind, _)| is_headline(kind, record)).map(|(_, ops)| ops));
    let stream = is_stream.then(|| {
        let stream = stream::summarize(&record.journal, record.window.clone());
        with_records(stream, by_kind.get(stream::RECORD), record)
    });
    let window_s = f64::from(record.window.end.saturating_sub(record.window.start));
    let measured_s = record.measured_s.unwrap_or(window_s);
    let replicas: Vec<ReplicaUse> = record.participants.iter().map(|who| replica_use(who, record)).collect();
    let cpu = total(&replicas, &record.participants, |used| used.cpu, |who| who.no_cpu.as_deref(), "CPU");
    let memory =
        total(&replicas, &record.participants, |used| used.mem_bytes, |who| who.no_memory.as_deref(), "memory");
    let mut nulls = Nulls::default();
    let rate = |count: u64| {
        (measured_s > 0.0).then(|| count as f64 / measured_s).ok_or_else(|| "the measured window is empty".to_owned())
    };
    let (answered, good, intended) = match &stream {
        Some(stream) => (ops.units, ops.units, stream.records),
        None => (answered(&ops), ops.ok, ops.count()),
    };
    let goodput = rate(good);
    let nothing = || stream.as_ref().map_or_else(|| nothing_completed(&ops), no_stream);
    let invalid = record.failure.clone().or_else(nothing);
    let latency = spread(&ops.total);
    let no_latency = || no_latency(&ops);
    let mut summary = TrialSummary {
        index: record.trial.index,
        name: record.trial.name.clone(),
        levels: record.trial.levels.clone(),
        repetition: record.trial.repetition,
        seed: record.trial.seed,
        valid: invalid.is_none(),
        invalid,
        measured_s,
        users: match record.load {
            LoadPlan::Closed { users, .. } => Some(users),
            LoadPlan::Open { .. } => None,
        },
        throughput_rps: nulls.keep("throughput_rps", rate(answered)),
        rps_per_cpu_unit: nulls.keep("rps_per_cpu_unit", per(&goodput, &cpu, 1e-6, "CPU")),
        rps_per_gb_mem: nulls.keep("rps_per_gb_mem", per(&goodput, &memory.clone().map(|b| b / 1e9), 1e-9, "memory")),
        goodput_rps: nulls.keep("goodput_rps", goodput),
        offered_rps: nulls.keep("offered_rps", rate(intended)),
        latency_p50_ms: nulls.keep("latency_p50_ms", latency.p50.ok_or_else(no_latency)),
        latency_p90_ms: nulls.keep("latency_p90_ms", latency.p90.ok_or_else(no_latency)),
        latency_p95_ms: nulls.keep("latency_p95_ms", latency.p95.ok_or_else(no_latency)),
        latency_p99_ms: nulls.keep("latency_p99_ms", latency.p99.ok_or_else(no_latency)),
        latency_p999_ms: nulls.keep("latency_p999_ms", latency.p999.ok_or_else(no_latency)),
        latency_avg_ms: nulls.keep("latency_avg_ms", latency.avg.ok_or_else(no_latency)),
        latency_max_ms: nulls.keep("latency_max_ms", latency.max.ok_or_else(no_latency)),
        latency_count: ops.total.count(),
        wait: spread(&ops.wait),
        work: spread(&ops.work),
        lag: spread(&ops.lag),
        error_rate: nulls.keep("error_rate", error_rate(&ops)),
        total_requests: ops.count(),
        total_failures: ops.failed + ops.unknown + ops.wrong,
        failed: ops.failed,
        unknown: ops.unknown,
        wrong: ops.wrong,
        total_cpu_units: nulls.keep("total_cpu_units", cpu),
        total_mem_gb: nulls.keep("total_mem_gb", memory.map(|bytes| bytes / 1e9)),
        kinds: by_kind.into_iter().map(kind).collect(),
        replicas,
        seconds,
        guards: Vec::new(),
        null_reasons: nulls.0,
        stream,
        recovery: by_second.as_ref().map(|seconds| recovery::analyse(record, seconds)),
        lost: record.lost.clone(),
    };
    let calm = match (&summary.recovery, &by_second) {
        (Some(recovery), Some(seconds)) => guards::Calm::of(record, recovery, seconds),
        _ => guards::Calm::whole(&summary),
    };
    summary.guards = guards::of_trial(record, &summary, &calm);
    summary
}

/// Whether an operation belongs to the numbers of the trial as a whole: of a stream only its batches do.
fn is_headline(kind: &str, record: &TrialRecord) -> bool {
    record.journal.is_empty() || kind == stream::BATCH
}

fn with_records(mut stream: StreamSummary, records: Option<&OpsRecord>, record: &TrialRecord) -> StreamSummary {
    stream.record_latency = records.filter(|records| records.total.count() > 0).map(|records| spread(&records.total));
    if stream.record_latency.is_none() {
        let why = stream::no_record_latency(&record.journal).unwrap_or("no record of the measured window was followed");
        stream.null_reasons.insert("record_latency".to_owned(), why.to_owned());
    }
    stream
}

/// Why the numbers of a stream mean nothing. One in which no batch ended is a finding, not a failure.
fn no_stream(stream: &StreamSummary) -> Option<String> {
    if stream.batch_interval_ms <= 0.0 {
        return Some(stream::NO_ENGINE.to_owned());
    }
    (stream.batches.due() == 0).then(|| "no batch was due in the measured window".to_owned())
}

/// The reasons of nulls, by key.
#[derive(Default)]
struct Nulls(BTreeMap<String, String>);

impl Nulls {
    /// The value, or none with the reason kept.
    fn keep(&mut self, key: &str, value: Result<f64, String>) -> Option<f64> {
        value.map_err(|why| self.0.insert(key.to_owned(), why)).ok()
    }
}

fn merge<'a>(records: impl Iterator<Item = &'a OpsRecord>) -> OpsRecord {
    let mut all = OpsRecord::default();
    records.for_each(|record| all.merge(record));
    all
}

/// Operations that the system answered, well or not. Where the protocol has status codes, an answer is what has one: a
/// refused connection and a request that was never sent have none, an error page has, even if it leaves open whether
/// the operation happened. Elsewhere `ok` and `wrong` ones were answered.
fn answered(ops: &OpsRecord) -> u64 {
    if ops.statuses.is_empty() { ops.ok + ops.wrong } else { ops.statuses.values().sum() }
}

/// Percentiles and mean of a histogram, in milliseconds; empty where it is empty.
pub(crate) fn spread(latencies: &Latencies) -> Spread {
    let quantile = |q: f64| latencies.quantile(q).map(|duration| duration.as_secs_f64() * 1e3);
    Spread {
        p50: quantile(0.50),
        p90: quantile(0.90),
        p95: quantile(0.95),
        p99: quantile(0.99),
        p999: quantile(0.999),
        avg: latencies.mean().map(|duration| duration.as_secs_f64() * 1e3),
        max: quantile(1.0),
    }
}

/// Why a trial in which nothing was answered means nothing; none when something was.
///
/// An operation that failed without a status code (a refused connection) was not answered.
fn nothing_completed(ops: &OpsRecord) -> Option<String> {
    let with_status: u64 = ops.statuses.values().sum();
    if ops.ok + ops.wrong + with_status > 0 {
        return None;
    }
    let reason = match (ops.count(), commonest(&ops.errors)) {
        (0, _) => "none was even intended in the measured window".to_owned(),
        (count, None) => format!("{count} were tried, without a recorded reason"),
        (count, Some((error, times))) => {
            format!("{count} were tried, and the commonest error ({times} times) is {error}")
        }
    };
    Some(format!("no operation completed: {reason}"))
}

fn commonest(errors: &BTreeMap<String, u64>) -> Option<(&String, &u64)> {
    errors.iter().max_by_key(|(_, count)| **count)
}

fn no_latency(ops: &OpsRecord) -> String {
    nothing_completed(ops)
        .unwrap_or_else(|| format!("all {} operations failed, and the time to a refusal is not a latency", ops.count()))
}

/// In percent of all operations; none where nothing was answered, which is not "0 %".
fn error_rate(ops: &OpsRecord) -> Result<f64, String> {
    match nothing_completed(ops) {
        Some(why) => Err(why),
        None => Ok(100.0 * (ops.failed + ops.unknown + ops.wrong) as f64 / ops.count() as f64),
    }
}

fn per(rate: &Result<f64, String>, of: &Result<f64, String>, least: f64, what: &str) -> Result<f64, String> {
    let (rate, of) = (rate.clone()?, of.clone()?);
    if of <= least {
        return Err(format!("the {what} used is about zero, so nothing can be divided by it"));
    }
    Ok(rate / of)
}

/// The sum over replicas under test, or the first one that lacks it: a part is never published as the whole.
fn total(
    replicas: &[ReplicaUse],
    participants: &[Participant],
    value: impl Fn(&ReplicaUse) -> Option<f64>,
    reason: impl Fn(&Participant) -> Option<&str>,
    what: &str,
) -> Result<f64, String> {
    let mut sum = 0.0;
    let mut any = false;
    for (used, who) in replicas.iter().zip(participants).filter(|(used, _)| used.under_test) {
        any = true;
        sum += value(used).ok_or_else(|| {
            let why = reason(who).unwrap_or("it has no sample in the measured window");
            format!("{what} of {} {} is unknown: {why}", used.role, used.replica)
        })?;
    }
    any.then_some(sum).ok_or_else(|| format!("no part of the system under test is known, so its {what} is not"))
}

fn replica_use(who: &Participant, record: &TrialRecord) -> ReplicaUse {
    let named = |name: &str| gauge(&record.series, who, name);
    let cpu = rates_in_window(&named("cpu"), &record.window);
    let held = |name: &str| {
        let samples = named(name);
        samples.into_iter().filter(|(t, _)| in_window(*t, &record.window)).map(|(_, value)| value).collect::<Vec<_>>()
    };
    let memory = held("rss_bytes");
    let weight: f64 = cpu.iter().map(|(length, _)| length).sum();
    let used: f64 = cpu.iter().map(|(length, value)| length * value).sum();
    ReplicaUse {
        role: who.role.clone(),
        replica: who.replica,
        under_test: who.under_test,
        cpu: (weight > 0.0 && who.no_cpu.is_none()).then(|| used / weight),
        mem_bytes: if who.no_memory.is_none() { crate::measure::stats::mean(&memory) } else { None },
        open_files: held("open_files").into_iter().reduce(f64::max),
        samples: cpu.len(),
    }
}

fn in_window(t_s: f64, window: &Range<u32>) -> bool {
    t_s > f64::from(window.start) && t_s <= f64::from(window.end) + 0.05
}

/// The measured values of one gauge of one replica, in the order of time.
pub(crate) fn gauge(series: &[Sample], who: &Participant, name: &str) -> Vec<(f64, f64)> {
    let mine = series.iter().filter(|s| s.name == name && s.role == who.role && s.replica == who.replica);
    let mut samples: Vec<(f64, f64)> = mine.filter_map(|s| Some((s.t_s, s.value?))).collect();
    samples.sort_by(|a, b| a.0.total_cmp(&b.0));
    samples
}

/// `(length, value)` of the samples whose interval, from the sample before, lies in the window; an interval may stick
/// out by a twentieth, because samplers are a little late. The first sample's interval is taken as long as the next.
pub(crate) fn rates_in_window(samples: &[(f64, f64)], window: &Range<u32>) -> Vec<(f64, f64)> {
    let (from, to) = (f64::from(window.start), f64::from(window.end));
    let first_length = samples.windows(2).next().map_or(1.0, |pair| pair[1].0 - pair[0].0);
    let mut inside = Vec::new();
    for (place, &(t, value)) in samples.iter().enumerate() {
        let start = place.checked_sub(1).map_or(t - first_length, |before| samples[before].0);
        let overlap = t.min(to) - start.max(from);
        if t > start && overlap >= 0.95 * (t - start) {
            inside.push((t - start, value));
        }
    }
    inside
}

/// What is kept of the operations.
struct Read {
    /// Those of the window.
    by_kind: BTreeMap<String, OpsRecord>,
    /// All of them.
    seconds: Vec<SecondSummary>,
    /// All of them by kind too, where faults ask for it.
    by_second: Option<recovery::Seconds>,
}

/// Reads all operations once, because decoding them is most of the work.
///
/// There is a second for each from the first with an operation to the last, and for the whole window: one in which
/// nothing was intended is a row of zeros, because nothing happening is a measurement too.
fn read(record: &TrialRecord) -> Read {
    let mut by_kind: BTreeMap<String, OpsRecord> = BTreeMap::new();
    let mut rows: BTreeMap<u32, SecondSummary> = BTreeMap::new();
    let mut by_second = (!record.faults.is_empty()).then(recovery::Seconds::default);
    let mut under_way = OpsRecord::default();
    // Of the others only the total is shown; adding up the rest would take most of the time.
    for op in record.ops.with_phases_of(|kind| is_headline(kind, record)) {
        let is_headline = is_headline(&op.kind, record);
        if record.window.contains(&op.second) {
            by_kind.entry(op.kind.clone()).or_default().merge(&op);
        }
        if !is_headline {
            continue;
        }
        if let Some(by_second) = &mut by_second {
            by_second.add_kind(&op);
        }
        // In the order of seconds: one is decoded at a time.
        if op.second != under_way.second {
            rows.insert(under_way.second, second_of(&under_way, record));
            if let Some(by_second) = &mut by_second {
                by_second.add_all(&under_way);
            }
            under_way = OpsRecord { second: op.second, ..OpsRecord::default() };
        }
        if under_way.count() == 0 { under_way = op } else { under_way.merge(&op) }
    }
    rows.insert(under_way.second, second_of(&under_way, record));
    if let Some(by_second) = &mut by_second {
        by_second.add_all(&under_way);
    }
    rows.retain(|_, row| row.offered > 0);
    let first = rows.keys().next().copied().unwrap_or(record.window.start).min(record.window.start);
    let last = rows.keys().next_back().map_or(record.window.end, |last| last + 1).max(record.window.end);
    let nothing = |second: u32| second_of(&OpsRecord { second, ..OpsRecord::default() }, record);
    let seconds = (first..last).map(|second| rows.remove(&second).unwrap_or_else(|| nothing(second))).collect();
    Read { by_kind, seconds, by_second }
}

fn kind((kind, ops): (String, OpsRecord)) -> KindSummary {
    KindSummary {
        kind,
        requests: ops.count(),
        ok: ops.ok,
        failed: ops.failed,
        unknown: ops.unknown,
        wrong: ops.wrong,
        latency: spread(&ops.total),
        errors: ops.errors,
    }
}

fn second_of(ops: &OpsRecord, record: &TrialRecord) -> SecondSummary {
    summarize_second(ops, &record.window)
}

/// One second, alone.
pub fn summarize_second(ops: &OpsRecord, window: &Range<u32>) -> SecondSummary {
    SecondSummary {
        second: ops.second,
        measured: window.contains(&ops.second),
        offered: ops.count(),
        answered: answered(ops),
        ok: ops.ok,
        failed: ops.failed,
        unknown: ops.unknown,
        wrong: ops.wrong,
        latency: spread(&ops.total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::samples::{MadeStream, gauge as samples, op, participant, record};
    use kit::Outcome;

    fn add(record: &mut TrialRecord, second: u32, times: u64, op: &kit::Op, error: Option<&str>) {
        let mut ops: Vec<_> = record.ops.iter().collect();
        let mut more = OpsRecord { second, kind: "GET /".to_owned(), ..OpsRecord::default() };
        (0..times).for_each(|_| more.record(op));
        more.errors.extend(error.map(|error| (error.to_owned(), times)));
        ops.push(more);
        record.ops = ops.into_iter().collect();
    }

    fn guard_ids(summary: &TrialSummary) -> Vec<String> {
        summary.guards.iter().map(|guard| guard.id.clone()).collect()
    }

    #[test]
    fn only_the_window_enters_a_number_and_every_second_is_kept() {
        let mut record = record(200, 20);
        add(&mut record, 0, 5_000, &op(Outcome::Ok, 200, 900), None);
        let summary = summarize_trial(&record);
        assert_eq!((summary.total_requests, summary.goodput_rps, summary.seconds.len()), (2_000, Some(200.0), 12));
        assert!((summary.latency_p95_ms.unwrap() - 20.0).abs() < 0.05, "{:?}", summary.latency_p95_ms);
        assert_eq!(summary.seconds[0].offered, 5_200);
        assert!(summary.valid && summary.guards.is_empty(), "{:?}", summary.guards);
    }

    #[test]
    fn a_trial_in_which_nothing_was_answered_is_invalid_and_has_no_error_rate() {
        let mut record = record(0, 0);
        add(&mut record, 5, 7, &op(Outcome::Failed, 0, 1), Some("connection refused"));
        let summary = summarize_trial(&record);
        let why = "no operation completed: 7 were tried, and the commonest error (7 times) is connection refused";
        assert_eq!((summary.valid, summary.invalid.as_deref(), summary.error_rate), (false, Some(why), None));
        assert_eq!(summary.null_reasons["error_rate"], why);
        assert_eq!(summary.null_reasons["latency_p95_ms"], why);
    }

    #[test]
    fn a_system_that_refuses_everything_was_measured_all_the_same() {
        let mut record = record(0, 0);
        add(&mut record, 5, 50, &op(Outcome::Failed, 503, 1), None);
        let summary = summarize_trial(&record);
        assert_eq!((summary.valid, summary.error_rate, summary.goodput_rps), (true, Some(100.0), Some(0.0)));
        assert!(summary.null_reasons["latency_p95_ms"].starts_with("all 50 operations failed"));
    }

    #[test]
    fn a_failure_makes_a_trial_invalid() {
        let record = TrialRecord { failure: Some("gateway ended".to_owned()), ..record(100, 1) };
        assert_eq!(summarize_trial(&record).invalid.as_deref(), Some("gateway ended"));
    }

    #[test]
    fn cpu_is_the_sum_over_the_replicas_under_test() {
        let mut record = record(100, 1);
        record.participants =
            vec![participant("task", 1, true), participant("task", 2, true), participant("load", 1, false)];
        record.series =
            [samples("cpu", "task", 1, 0.5), samples("cpu", "task", 2, 0.25), samples("cpu", "load", 1, 9.0)].concat();
        let summary = summarize_trial(&record);
        assert_eq!((summary.total_cpu_units, summary.rps_per_cpu_unit), (Some(0.75), Some(100.0 / 0.75)));
        assert_eq!(summary.replicas[0].samples, 10);
    }

    #[test]
    fn a_replica_without_samples_makes_the_sum_null_and_never_smaller() {
        let mut record = record(100, 1);
        record.participants = vec![participant("task", 1, true), participant("task", 2, true)];
        record.series = samples("cpu", "task", 1, 0.5);
        let summary = summarize_trial(&record);
        assert_eq!((summary.total_cpu_units, summary.rps_per_cpu_unit), (None, None));
        assert!(summary.null_reasons["total_cpu_units"].starts_with("CPU of task 2 is unknown"));
        assert_eq!(guard_ids(&summary), ["replicas-unsampled"]);
    }

    #[test]
    fn every_null_of_a_published_key_has_its_reason() {
        let summary = summarize_trial(&TrialRecord { window: 3..3, ..record(10, 1) });
        let json = serde_json::to_value(&summary).unwrap();
        let optional = ["users", "invalid"];
        for (key, value) in
            json.as_object().unwrap().iter().filter(|(key, value)| value.is_null() && !optional.contains(&key.as_str()))
        {
            assert!(summary.null_reasons.contains_key(key), "{key} is {value} without a reason");
        }
        assert!(!summary.valid);
    }

    #[test]
    fn a_busy_generator_and_a_late_one_are_told() {
        let mut record = record(100, 1);
        record.participants = vec![participant("load", 1, false)];
        record.series = samples("thread_busy", "load", 1, 0.97);
        let summary = summarize_trial(&record);
        assert_eq!(guard_ids(&summary), ["generator-limited"]);
        assert_eq!(summary.guards[0].what, "the busiest thread of load 1 used 97 % of a CPU");
    }

    #[test]
    fn an_open_schedule_that_was_not_kept_is_the_generators_limit() {
        let summary = summarize_trial(&TrialRecord { load: open(120.0), ..record(100, 1) });
        assert_eq!(guard_ids(&summary), ["generator-limited"]);
        assert_eq!(summary.guards[0].what, "83.3 % of the planned 1200 operations were started");
    }

    fn open(per_s: f64) -> LoadPlan {
        let stage = crate::load::Stage { duration: None, from_per_s: per_s, to_per_s: per_s };
        LoadPlan::Open { stages: vec![stage], poisson: false, connections: 10 }
    }

    fn leave_unsent(record: &mut TrialRecord, in_each_second: u64) {
        let refused = op(Outcome::Failed, 0, 3_000);
        (2..12).for_each(|second| add(record, second, in_each_second, &refused, Some(crate::load::driver::NOT_SENT)));
    }

    #[test]
    fn what_was_never_sent_is_offered_and_not_answered() {
        let mut record = TrialRecord { load: open(200.0), ..record(100, 1) };
        leave_unsent(&mut record, 100);
        let summary = summarize_trial(&record);
        assert_eq!((summary.offered_rps, summary.throughput_rps), (Some(200.0), Some(100.0)));
        let seen: Vec<(&str, &str)> = summary.guards.iter().map(|g| (g.id.as_str(), g.what.as_str())).collect();
        let never = "1000 of 2000 requests that were due were never sent";
        assert_eq!(seen, [("not-sent", never), ("saturated", "50 % of the offered operations were sent")]);
    }

    #[test]
    fn a_few_unsent_operations_leave_throughput_alone() {
        let mut record = TrialRecord { load: open(104.0), ..record(100, 1) };
        leave_unsent(&mut record, 4);
        assert_eq!(guard_ids(&summarize_trial(&record)), ["not-sent"]);
    }

    #[test]
    fn an_error_page_is_an_answer_and_a_refused_connection_is_none() {
        let mut record = record(100, 1);
        add(&mut record, 5, 500, &op(Outcome::Unknown, 502, 1), None);
        add(&mut record, 5, 500, &op(Outcome::Failed, 0, 1), Some("connection refused"));
        assert_eq!(summarize_trial(&record).throughput_rps, Some(150.0));
    }

    #[test]
    fn without_status_codes_what_came_back_was_answered() {
        let mut record = record(0, 0);
        add(&mut record, 5, 30, &op(Outcome::Ok, 0, 1), None);
        add(&mut record, 5, 20, &op(Outcome::Wrong, 0, 1), None);
        add(&mut record, 5, 50, &op(Outcome::Failed, 0, 1), Some("the queue is full"));
        assert_eq!(summarize_trial(&record).throughput_rps, Some(5.0));
    }

    #[test]
    fn a_second_counts_as_answered_what_throughput_counts() {
        let mut record = record(100, 1);
        add(&mut record, 5, 500, &op(Outcome::Unknown, 502, 1), None);
        add(&mut record, 5, 300, &op(Outcome::Failed, 503, 1), None);
        add(&mut record, 5, 500, &op(Outcome::Failed, 0, 1), Some("connection refused"));
        let summary = summarize_trial(&record);
        let measured = summary.seconds.iter().filter(|second| second.measured);
        assert_eq!(measured.map(|second| second.answered).sum::<u64>(), 1_800);
        assert_eq!((summary.seconds[5].answered, summary.throughput_rps), (900, Some(180.0)));
    }

    #[test]
    fn a_rate_of_answers_that_falls_is_not_steady_however_many_are_refused_a_connection() {
        let mut record = record(0, 1);
        for second in 2..12 {
            let answered = 100 - 5 * u64::from(second - 2);
            add(&mut record, second, answered, &op(Outcome::Ok, 200, 1), None);
            add(&mut record, second, 100 - answered, &op(Outcome::Failed, 0, 1), Some("connection refused"));
        }
        assert!(guard_ids(&summarize_trial(&record)).contains(&"not-steady".to_owned()));
    }

    #[test]
    fn refusals_hide_the_percentiles_above_their_share() {
        let mut record = record(100, 1);
        add(&mut record, 5, 64, &op(Outcome::Failed, 503, 1), None);
        let summary = summarize_trial(&record);
        assert_eq!(guard_ids(&summary), ["refusals-hide-latency"]);
        assert_eq!(summary.guards[0].touches, ["latency_p95", "latency_p99", "latency_p999"]);
        assert_eq!(summary.guards[0].what, "6.02 % of the operations were refused or broke");
    }

    #[test]
    fn few_operations_touch_only_the_percentiles_they_cannot_bear() {
        let summary = summarize_trial(&record(50, 1));
        assert_eq!(summary.guards.iter().map(|g| g.touches[0].as_str()).collect::<Vec<_>>(), ["latency_p99"]);
        assert_eq!(summary.guards[0].what, "500 operations stand behind the p99, which needs 1000");
    }

    #[test]
    fn the_numbers_of_a_stream_are_of_its_batches_and_its_rates_are_in_records() {
        let made = MadeStream::of(1_000.0);
        let summary = summarize_trial(&made.record());
        assert_eq!((summary.valid, summary.total_requests, summary.latency_count), (true, 56, 56));
        let rates = [summary.goodput_rps, summary.throughput_rps, summary.offered_rps];
        assert_eq!(rates, [Some(143.0); 3]);
        assert!((summary.latency_p50_ms.unwrap() - 1_001.0).abs() < 1.0, "{:?}", summary.latency_p50_ms);
        assert_eq!(summary.kinds.iter().map(|kind| kind.kind.as_str()).collect::<Vec<_>>(), ["batch", "record"]);
        let stream = summary.stream.unwrap();
        let records = stream.record_latency.unwrap();
        assert!(records.p50.unwrap() > 1_990.0, "{records:?}");
        assert_eq!(summary.seconds.iter().map(|second| second.offered).sum::<u64>(), 56);
    }

    #[test]
    fn a_stream_in_which_no_batch_ended_was_measured_all_the_same() {
        let made = MadeStream { cores: 1, ..MadeStream::default() };
        let mut record = made.record();
        record.ops = Default::default();
        let summary = summarize_trial(&record);
        assert_eq!((summary.valid, summary.goodput_rps, summary.error_rate), (true, Some(0.0), None));
        let stream = summary.stream.unwrap();
        assert_eq!(stream.null_reasons["record_latency"], "no record of the measured window was followed");
        record.journal.truncate(1);
        assert_eq!(summarize_trial(&record).invalid.as_deref(), Some("no batch was due in the measured window"));
        record.journal = made.journal()[1..].to_vec();
        assert_eq!(summarize_trial(&record).invalid.as_deref(), Some("the engine did not say how it is set up"));
    }
}

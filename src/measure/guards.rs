//! What makes a number of one trial doubtful, and what to do about it.
//!
//! One rule: a guard annotates; it never changes a number. Who rests a claim on the number looks at what it touches.

use std::collections::BTreeMap;

use crate::experiment::LoadPlan;
use crate::load::driver::NOT_SENT;
use crate::measure::recovery::{self, RecoverySummary, Seconds};
use crate::measure::trial::{gauge, rates_in_window};
use crate::measure::{
    Guard, Participant, SecondSummary, StreamState, StreamSummary, TrialRecord, TrialSummary, stats, steady, stream,
};
use crate::verdict::three;

/// The percentiles that a trial publishes, with the operations each needs: 10/(1 − p).
pub const PERCENTILES: [(&str, u64); 5] = [("p50", 20), ("p90", 100), ("p95", 200), ("p99", 1_000), ("p999", 10_000)];

/// A generator thread busier than this share of a CPU is no longer a measuring device.
const BUSY: f64 = 0.8;

/// An open loop that sends less than this share of what it offers is loaded beyond what the system does.
const KEEPS_UP: f64 = 0.95;

/// A source that was blocked for more than this share of the window did not send as it should.
const SOURCE_BLOCKED: f64 = 0.01;

/// A source that sends less than this share of what is due, without being blocked, is the limit itself.
const SENDS: f64 = 0.99;

/// A receiver that takes less than this share of what is due leaves the rest in the connection.
const RECEIVES: f64 = 0.99;

/// A receiver that could not read for more than this share of the window did not take what it should.
const RECEIVER_BLOCKED: f64 = 0.01;

/// A stream of which more than this share of the batches failed did not do what it is judged by.
const BATCHES_FAIL: f64 = 0.01;

/// What flatters when records wait outside of the engine.
const OUTSIDE: [&str; 5] = ["delay", "throughput", "goodput", "latency", "capacity"];

/// The names by which guards touch the number behind a key; percentiles also answer to their own, see [`touches`].
fn families(key: &str) -> &'static [&'static str] {
    match key {
        "in_system" => &["throughput", "latency"],
        "error_rate" | "failed_rate" | "unknown_rate" | "wrong_rate" => &["errors"],
        "throughput_rps" | "offered_rps" => &["throughput"],
        "goodput_rps" => &["throughput", "goodput"],
        // A stream's averages of delays depend on how long was measured where it falls behind, its growth does not.
        "scheduling_delay_avg_ms" | "total_delay_avg_ms" => &["delay", "latency"],
        _ if key.starts_with("record_latency") => &["delay", "latency", "records"],
        "input_rate_per_s" => &["delay"],
        "availability_percent" | "availability_repeatable_percent" => &["availability"],
        // From the instants of the fault alone.
        "time_to_effect_s" | "amplification" | "lost" => &[],
        _ if recovery::KEYS.contains(&key) => &["recovery"],
        _ if stream::is_key(key) => &["delay"],
        "total_cpu_units" => &["cpu"],
        "total_mem_gb" => &["memory"],
        "rps_per_cpu_unit" => &["efficiency", "cpu", "throughput", "goodput"],
        "rps_per_gb_mem" => &["efficiency", "memory", "throughput", "goodput"],
        _ if key.ends_with("_ms") => &["latency"],
        _ => &[],
    }
}

/// Whether a guard touches the number behind a key: the only place that knows, so that verdicts, figures and tables
/// agree.
pub fn touches(guard: &Guard, key: &str) -> bool {
    // Of a stream, too few batches say nothing of its records.
    let percentile = if stream::is_key(key) { None } else { key.strip_suffix("_ms") };
    let percentile = percentile.and_then(|key| key.rsplit('_').next());
    let own = |touched: &str| percentile.is_some_and(|name| touched.strip_prefix("latency_") == Some(name));
    guard.touches.iter().any(|touched| families(key).contains(&touched.as_str()) || own(touched))
}

/// What is judged by the seconds that no fault touches. What a fault did is no flaw of the measurement: recovery and
/// availability tell it, and a trial that was to be disturbed is not called unsteady or saturated for that. Seconds from
/// one before the command until users were served as before and the target was ready are left out; of an injection without
/// a baseline, or that was not recovered from, all that follow. Latencies are of the whole window, and so are the guards of
/// what they lack.
pub(crate) struct Calm {
    /// Whether a second counts.
    seconds: Option<Vec<u32>>,
    offered: u64,
    unsent: u64,
    /// What "as before" allows: the widest margin of goodput of a band, as a share.
    allows: f64,
}

impl Calm {
    /// All measured seconds of a trial without faults.
    pub fn whole(summary: &TrialSummary) -> Self {
        Self { seconds: None, offered: summary.total_requests, unsent: unsent(summary), allows: 0.0 }
    }

    /// Those of a trial with faults.
    pub fn of(record: &TrialRecord, recovery: &RecoverySummary, seconds: &Seconds) -> Self {
        let calm = recovery::calm(recovery, record.window.clone());
        let mut sum = recovery::Tally::default();
        calm.iter().for_each(|second| sum.add(&seconds.all(*second..second + 1)));
        let bands = recovery.injections.iter().filter_map(|injection| injection.baseline);
        let margins = bands.map(|band| 1.0 - band.least_goodput_rps / band.goodput_rps);
        let allows = margins.filter(|margin| margin.is_finite()).fold(0.0, f64::max);
        Self { seconds: Some(calm), offered: sum.offered, unsent: sum.unsent, allows }
    }

    fn holds(&self, second: u32) -> bool {
        self.seconds.as_ref().is_none_or(|calm| calm.binary_search(&second).is_ok())
    }
}

/// The guards of one trial: `generator-limited`, `not-sent`, `saturated`, `refusals-hide-latency`, `not-steady`,
/// `replicas-unsampled`, `too-few-ops`; with faults also `baseline-unstable`, `fault-skipped`, `fault-unknown`. Of a stream:
/// `generator-limited`, `source-blocked`, `receiver-held`, `backlog`, `records-not-followed`, `batches-failed`,
/// `refusals-hide-latency`, `replicas-unsampled`, `too-few-ops`, and those of faults.
pub(crate) fn of_trial(record: &TrialRecord, summary: &TrialSummary, calm: &Calm) -> Vec<Guard> {
    let mut guards = of_faults(summary);
    if let Some(stream) = &summary.stream {
        guards.extend(source(record, summary));
        if guards.iter().all(|guard| guard.id != "source-blocked") {
            guards.extend(receiver_held(record, summary));
        }
        guards.extend(backlog(stream, summary));
        guards.extend(records_not_followed(record, stream, summary));
        guards.extend(batches_failed(stream, summary).or_else(|| refusals_hide_latency(summary)));
        guards.extend(replicas_unsampled(record, summary));
        guards.extend(too_few_batches(summary));
        return guards;
    }
    guards.extend(generator_limited(record, summary));
    guards.extend(not_sent(summary));
    guards.extend(saturated(record, summary, calm));
    guards.extend(refusals_hide_latency(summary));
    guards.extend(not_steady(record, summary, calm));
    guards.extend(replicas_unsampled(record, summary));
    guards.extend(too_few_ops(summary));
    guards
}

fn guard(id: &str, touches: &[&str], at: &str, what: String, advice: &str) -> Guard {
    let touches = touches.iter().map(|&touched| touched.to_owned()).collect();
    Guard { id: id.to_owned(), touches, at: at.to_owned(), what, advice: advice.to_owned() }
}

/// The generator, not the system, may have set the numbers: it offered less than planned, let requests go late, or ran
/// out of CPU. In a closed loop nothing is planned by the clock, so only lateness and CPU are looked at.
fn generator_limited(record: &TrialRecord, summary: &TrialSummary) -> Option<Guard> {
    let seen: Vec<String> =
        [offered_less(record, summary), let_go_late(summary), busy(record)].into_iter().flatten().collect();
    if seen.is_empty() {
        return None;
    }
    let advice = "give the generator its own CPUs or more of them (--load-workers, --threads), or offer less";
    Some(guard(
        "generator-limited",
        &["throughput", "latency", "efficiency", "capacity"],
        &summary.name,
        seen.join("; "),
        advice,
    ))
}

fn offered_less(record: &TrialRecord, summary: &TrialSummary) -> Option<String> {
    let planned = planned(&record.load, f64::from(record.window.start), f64::from(record.window.end))?;
    let poisson = matches!(record.load, LoadPlan::Open { poisson: true, .. });
    // A Poisson count strays from its mean by its root; three of them, so that chance alone raises no alarm.
    let slack = if poisson { 3.0 * planned.sqrt() } else { 1.0 };
    let started = summary.total_requests as f64;
    (planned > 0.0 && started < 0.99 * planned - slack)
        .then(|| format!("{:.1} % of the planned {planned:.0} operations were started", 100.0 * started / planned))
}

/// Operations that an open schedule intends between two times in seconds; none in a closed loop.
fn planned(load: &LoadPlan, from: f64, to: f64) -> Option<f64> {
    let LoadPlan::Open { stages, .. } = load else { return None };
    let mut start = 0.0;
    let mut sum = 0.0;
    for stage in stages {
        let length = stage.duration.map_or(f64::INFINITY, |duration| duration.as_secs_f64());
        let (a, b) = (from.max(start), to.min(start + length));
        if b > a {
            let slope = if length.is_finite() { (stage.to_per_s - stage.from_per_s) / length } else { 0.0 };
            let middle = (a + b) / 2.0 - start;
            sum += (stage.from_per_s + slope * middle) * (b - a);
        }
        start += length;
    }
    Some(sum)
}

fn let_go_late(summary: &TrialSummary) -> Option<String> {
    let (lag, total) = (summary.lag.p99?, summary.latency_p99_ms?);
    let allowed = f64::max(1.0, 0.1 * total);
    (lag > allowed)
        .then(|| format!("requests left {lag:.1} ms late at the 99th percentile, allowed are {allowed:.1} ms"))
}

fn busy(record: &TrialRecord) -> Option<String> {
    let generators = record.participants.iter().filter(|who| !who.under_test && who.role == "load");
    let busiest = generators.filter_map(|who| Some((mean_busy(record, who)?, who))).max_by(|a, b| a.0.total_cmp(&b.0));
    let (share, who) = busiest?;
    (share > BUSY).then(|| format!("the busiest thread of load {} used {:.0} % of a CPU", who.replica, 100.0 * share))
}

fn mean_busy(record: &TrialRecord, who: &Participant) -> Option<f64> {
    let samples = rates_in_window(&gauge(&record.series, who, "thread_busy"), &record.window);
    stats::mean(&samples.into_iter().map(|(_, share)| share).collect::<Vec<_>>())
}

/// Faults of which nothing can be said: an objective on recovery is then unknown. One that could not be injected, or was
/// not watched to its end, leaves an availability that is not the one that was asked for.
fn of_faults<'a>(summary: &'a TrialSummary) -> Vec<Guard> {
    let Some(recovery) = &summary.recovery else { return Vec::new() };
    let total = recovery.injections.len();
    let of = |wanted: &dyn Fn(&'a str) -> Option<&'a str>| {
        let whys: Vec<&str> = recovery.injections.iter().filter_map(|r| wanted(r.unknown.as_deref()?)).collect();
        let count = whys.len();
        let which = if total > 1 { format!(" ({count} of {total} injections)") } else { String::new() };
        whys.first().map(|why| format!("{why}{which}"))
    };
    let unstable = of(&|why| why.strip_prefix("baseline: ")).map(|what| {
        let advice = "warm up longer, leave 20 s before a fault and more between faults, or offer more: what users felt \
                      is measured against what was usual";
        guard("baseline-unstable", &["recovery"], &summary.name, format!("baseline: {what}"), advice)
    });
    let skipped = of(&|why| why.strip_prefix("skipped: ")).map(|what| {
        let advice = "`scalelab doctor` lists the faults that this machine can do";
        guard("fault-skipped", &["recovery", "availability"], &summary.name, what, advice)
    });
    let known = |why: &str| ["baseline: ", "skipped: "].iter().any(|start| why.starts_with(start));
    let unknown = of(&|why| (!known(why)).then_some(why)).map(|what| {
        let advice = "look at what went wrong with the fault in the table of faults; measure long enough that it is over, \
                      and five windows more, before the end and before the next";
        guard("fault-unknown", &["recovery", "availability"], &summary.name, what, advice)
    });
    unstable.into_iter().chain(skipped).chain(unknown).collect()
}

fn unsent(summary: &TrialSummary) -> u64 {
    summary.kinds.iter().filter_map(|kind| kind.errors.get(NOT_SENT)).sum()
}

/// They waited longest of all and have no latency, so that what the others waited flatters.
fn not_sent(summary: &TrialSummary) -> Option<Guard> {
    let unsent = unsent(summary);
    let what = format!("{unsent} of {} requests that were due were never sent", summary.total_requests);
    let advice = "offer less, or give the generator more connections: \
                  the latency shown is of those that were sent";
    (unsent > 0).then(|| guard("not-sent", &["latency"], &summary.name, what, advice))
}

/// Operations count in the second they were intended for. While a backlog grows, those that the system answers in a
/// window were partly intended before it, and its rate in the window is understated.
fn saturated(record: &TrialRecord, summary: &TrialSummary, calm: &Calm) -> Option<Guard> {
    let LoadPlan::Open { .. } = record.load else { return None };
    let offered = calm.offered as f64;
    let share = (offered - calm.unsent as f64) / offered;
    let what = format!("{} % of the offered operations were sent", three(100.0 * share));
    let advice = "offer less than the system can do, or search for its capacity with a closed loop";
    (share < KEEPS_UP).then(|| guard("saturated", &["throughput", "goodput", "capacity"], &summary.name, what, advice))
}

/// A percentile is of the operations that did not fail. When more failed than lie above it, nobody knows the
/// percentile of all: the time to a refusal is not the time to an answer.
fn refusals_hide_latency(summary: &TrialSummary) -> Option<Guard> {
    if summary.latency_count == 0 {
        return None;
    }
    let offered = summary.total_requests;
    // What was never sent has its own guard.
    let refused = summary.failed.saturating_sub(unsent(summary));
    let hidden = |needed: u64| 10 * offered < refused * needed;
    let touched: Vec<String> =
        PERCENTILES.iter().filter(|(_, needed)| hidden(*needed)).map(|(name, _)| format!("latency_{name}")).collect();
    if touched.is_empty() {
        return None;
    }
    let share = 100.0 * refused as f64 / offered as f64;
    let what = format!("{} % of the operations were refused or broke", three(share));
    let advice = "look at the errors first: a latency without the refused operations is not that of all";
    let touched: Vec<&str> = touched.iter().map(String::as_str).collect();
    Some(guard("refusals-hide-latency", &touched, &summary.name, what, advice))
}

/// In a closed loop the rate tells whether the system is level. In an open loop the schedule sets the rate, and a system
/// that falls behind shows in its latency. With faults, a rate that moves by less than what is called "as before" after
/// them is level.
fn not_steady(record: &TrialRecord, summary: &TrialSummary, calm: &Calm) -> Option<Guard> {
    let measured: Vec<&SecondSummary> =
        summary.seconds.iter().filter(|second| second.measured && calm.holds(second.second)).collect();
    // Each stretch between faults alone: a step that is in band looks like a trend of all of them.
    let mut stretches = measured.chunk_by(|a, b| calm.seconds.is_none() || a.second + 1 == b.second);
    let why = match record.load {
        LoadPlan::Closed { .. } => stretches.find_map(|stretch| {
            steady::unsteady(&stretch.iter().map(|s| s.answered as f64).collect::<Vec<_>>(), calm.allows)
        }),
        LoadPlan::Open { .. } => stretches.find_map(|stretch| {
            steady::falls_behind(&stretch.iter().filter_map(|s| s.latency.avg).collect::<Vec<_>>())
        }),
    }?;
    let advice =
        "warm up longer (--warmup) and measure longer (--duration); a system that falls behind has no steady state";
    Some(guard("not-steady", &["throughput", "latency"], &summary.name, why, advice))
}

/// What the source of a stream tells of itself. Backpressure and a full memory move a backlog out of the engine, into the
/// network's buffers and then into the source: the scheduling delay looks healed while records wait to be sent. A source
/// that was not blocked and still sent less than was due was itself the limit.
fn source(record: &TrialRecord, summary: &TrialSummary) -> Option<Guard> {
    let length_s = window_s(record);
    let grown = |name: &str| growth(record, name);
    let blocked_s = grown("blocked_s").unwrap_or(0.0);
    if length_s > 0.0 && blocked_s > SOURCE_BLOCKED * length_s {
        let what = format!(
            "the source was blocked for {} s of {} s: records waited to be sent, where no scheduling delay shows them",
            three(blocked_s),
            three(length_s)
        );
        let advice = "judge by the latency of records, which counts from when each was due; \
                      offer less, or turn backpressure off and see the delay grow";
        return Some(guard("source-blocked", &OUTSIDE, &summary.name, what, advice));
    }
    let (sent, due) = (grown("sent_lines")?, grown("due_lines").filter(|due| *due > 0.0)?);
    let what = format!("the source sent {} % of the {} lines that were due", three(100.0 * sent / due), three(due));
    let advice = "give the source a CPU of its own ([roles.source] cpus), or offer less";
    let touches = ["delay", "throughput", "goodput", "latency", "efficiency", "capacity"];
    (sent < SENDS * due).then(|| guard("generator-limited", &touches, &summary.name, what, advice))
}

/// Long before a source is blocked, the network's buffers hold what a receiver leaves: under backpressure, or when its
/// memory is full, they take minutes of lines. The receiver is measured by what the source could send, so that a source
/// that is itself the limit is not blamed on the receiver.
fn receiver_held(record: &TrialRecord, summary: &TrialSummary) -> Option<Guard> {
    let length_s = window_s(record);
    if length_s <= 0.0 {
        return None;
    }
    let blocked_s = growth(record, "receiver_blocked_s").unwrap_or(0.0);
    let offered = growth(record, "due_lines").map(|due| match growth(record, "sent_lines") {
        Some(sent) if sent < SENDS * due => (sent, "sent"),
        _ => (due, "due"),
    });
    // Source and engine are not sampled at one instant, and lines may come by chance.
    let slack = |offered: f64| 3.0 * (offered / length_s).sqrt();
    let left = growth(record, "received_records")
        .zip(offered)
        .filter(|(received, (offered, _))| *received < RECEIVES * offered && offered - received > slack(*offered));
    let what = match left {
        Some((received, (offered, word))) => format!(
            "the receiver took {} % of the {} lines that were {word}: the others wait in the connection, where no \
             scheduling delay shows them",
            three(100.0 * received.max(0.0) / offered),
            three(offered)
        ),
        None if blocked_s > RECEIVER_BLOCKED * length_s => format!(
            "the receiver did not read for {} s of {} s: records waited in the connection, where no scheduling delay \
             shows them",
            three(blocked_s),
            three(length_s)
        ),
        None => return None,
    };
    let advice = "judge by the latency of records, which counts from when each was due: the backlog waits in the socket; \
                  offer less, or turn backpressure off and see the delay grow";
    Some(guard("receiver-held", &OUTSIDE, &summary.name, what, advice))
}

/// Some records are followed from when they were due, others are not: what is known of the latency is not of all.
fn records_not_followed(record: &TrialRecord, stream: &StreamSummary, summary: &TrialSummary) -> Option<Guard> {
    stream.record_latency.as_ref()?;
    let why = stream::no_record_latency(&record.journal)?;
    let what = format!("the latency of records is of some of them only: {why}");
    let advice = "look at what happened to the receiver: the records it did not follow are missing, and they may be the \
                  ones that waited longest";
    Some(guard("records-not-followed", &["records"], &summary.name, what, advice))
}

/// A batch that fails is over early, and its records are in no result: a stream of such batches only looks quick.
fn batches_failed(stream: &StreamSummary, summary: &TrialSummary) -> Option<Guard> {
    let (failed, ended) = (stream.batches.failed, stream.batches.failed + stream.batches.completed);
    let what = format!("{failed} of {ended} batches that ended had failed: how long a good one takes is not known");
    let advice = "look at why they failed first: the reasons stand in the report and in failures.csv";
    let touches = ["delay", "throughput", "goodput", "latency", "capacity"];
    (failed as f64 > BATCHES_FAIL * ended as f64)
        .then(|| guard("batches-failed", &touches, &summary.name, what, advice))
}

fn window_s(record: &TrialRecord) -> f64 {
    f64::from(record.window.end.saturating_sub(record.window.start))
}

/// By how much a cumulative gauge grew within the window, over all who tell it, whatever their role: of a simulated
/// stream one recorder tells the source's as well as the engine's. None where nobody tells it.
fn growth(record: &TrialRecord, name: &str) -> Option<f64> {
    let (from_s, to_s) = (f64::from(record.window.start), f64::from(record.window.end));
    let mut tellers: BTreeMap<(&str, u32), Vec<(f64, f64)>> = BTreeMap::new();
    for sample in record.series.iter().filter(|sample| sample.name == name) {
        let told = tellers.entry((&sample.role, sample.replica)).or_default();
        told.extend(sample.value.map(|value| (sample.t_s, value)));
    }
    let grown = tellers.into_values().filter_map(|mut told| {
        told.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Nothing was counted before the start.
        Some(at(&told, to_s)? - at(&told, from_s).unwrap_or(0.0))
    });
    stats::sum(&grown.collect::<Vec<_>>())
}

/// What a cumulative gauge stood at, in between where it was not read at that instant; its last value after the last.
pub(crate) fn at(told: &[(f64, f64)], t_s: f64) -> Option<f64> {
    let next = told.partition_point(|(t, _)| *t <= t_s);
    let before = next.checked_sub(1).map(|place| told[place]);
    match (before, told.get(next)) {
        (Some((from_s, from)), Some((to_s, to))) => Some(from + (to - from) * (t_s - from_s) / (to_s - from_s)),
        (Some((_, last)), None) => Some(last),
        // Samplers are a little late.
        (None, Some((first_s, first))) => (*first_s <= t_s + 0.05).then_some(*first),
        (None, None) => None,
    }
}

/// Batches count when their batch time lies in the window. While a backlog grows, what is measured of their total time,
/// and how many of them end, depends on how long was measured.
fn backlog(stream: &StreamSummary, summary: &TrialSummary) -> Option<Guard> {
    let waiting = match stream.batches.queued {
        0 => String::new(),
        1 => ", and 1 batch waited".to_owned(),
        queued => format!(", and {queued} batches waited"),
    };
    let what = match stream.last_scheduling_delay_ms {
        Some(delay) => format!("the scheduling delay had grown to {}{waiting}", stream::span(delay)),
        None => format!("no batch had started{waiting}"),
    };
    let advice = "total delay and throughput of a stream that falls behind depend on how long was measured; \
                  judge it by its processing time and by how much the delay grows a batch";
    let touches = ["throughput", "goodput", "latency", "efficiency", "capacity"];
    (stream.state == StreamState::FallsBehind).then(|| guard("backlog", &touches, &summary.name, what, advice))
}

/// One guard for all percentiles, because few batches are the rule: averages and growth need no more than a handful.
fn too_few_batches(summary: &TrialSummary) -> Option<Guard> {
    let count = summary.latency_count;
    let thin: Vec<(&str, u64)> = thin_percentiles(count).collect();
    let needed: Vec<String> = thin.iter().map(|(name, needed)| format!("{name} {needed}")).collect();
    let touched: Vec<String> = thin.iter().map(|(name, _)| format!("latency_{name}")).collect();
    let touched: Vec<&str> = touched.iter().map(String::as_str).collect();
    let what = format!("{count} batches stand behind the percentiles of batches, of which {}", needs(&needed));
    let advice = "averages and the growth of the delay need few batches, and so does the latency of records; \
                  measure longer for percentiles of batches";
    (!thin.is_empty()).then(|| guard("too-few-ops", &touched, &summary.name, what, advice))
}

fn needs(each: &[String]) -> String {
    let each: Vec<String> = each.iter().map(|percentile| percentile.replacen(' ', " needs ", 1)).collect();
    crate::measure::words::list(&each)
}

fn replicas_unsampled(record: &TrialRecord, summary: &TrialSummary) -> Option<Guard> {
    let under_test = summary.replicas.iter().zip(&record.participants).filter(|(used, _)| used.under_test);
    // A replica whose CPU cannot be measured by nature says so itself; this one should have been sampled and was not.
    let missing: Vec<String> = under_test
        .filter(|(used, who)| used.cpu.is_none() && who.no_cpu.is_none())
        .map(|(used, _)| format!("{} {}", used.role, used.replica))
        .collect();
    if missing.is_empty() {
        return None;
    }
    let what = format!("no CPU sample in the window for {}", missing.join(", "));
    let advice = "measure longer than a few sampling intervals, and see the role's log for why it was not sampled";
    Some(guard("replicas-unsampled", &["cpu", "memory", "efficiency"], &summary.name, what, advice))
}

/// One guard for each published percentile that too few operations stand behind; the finer ones are only thin.
fn too_few_ops(summary: &TrialSummary) -> Vec<Guard> {
    let count = summary.latency_count;
    thin_percentiles(count)
        .map(|(name, needed)| {
            let what = format!("{count} operations stand behind the {name}, which needs {needed}");
            guard(
                "too-few-ops",
                &[&format!("latency_{name}")],
                &summary.name,
                what,
                "measure longer, or quote a lower percentile",
            )
        })
        .collect()
}

fn thin_percentiles(count: u64) -> impl Iterator<Item = (&'static str, u64)> {
    PERCENTILES
        .into_iter()
        .filter(move |(name, needed)| *name != "p999" && *name != "p90" && count > 0 && count < *needed)
}

#[cfg(test)]
mod tests {
    use kit::batch::{Entry, Status};

    use super::*;
    use crate::measure::samples::{MadeStream, gauge};
    use crate::measure::{Sample, summarize_trial};

    #[test]
    fn a_guard_touches_the_numbers_of_its_families_and_its_own_percentile() {
        let of = |touched: &str| guard("some", &[touched], "", String::new(), "");
        let cases = [
            ("latency", "wait_p95_ms", true),
            ("latency_p99", "latency_p99_ms", true),
            ("latency_p99", "latency_p999_ms", false),
            ("throughput", "goodput_rps", true),
            ("goodput", "throughput_rps", false),
            ("cpu", "rps_per_cpu_unit", true),
            ("throughput", "rps_per_gb_mem", true),
            ("memory", "rps_per_cpu_unit", false),
            ("capacity", "goodput_rps", false),
        ];
        for (touched, key, expected) in cases {
            assert_eq!(touches(&of(touched), key), expected, "{touched} {key}");
        }
    }

    /// Gauges that grow evenly.
    fn of_role(role: &str, gauges: &[(&str, f64)]) -> Vec<Sample> {
        let grows = |(name, per_s): &(&str, f64)| {
            let mut samples = gauge(name, role, 1, 0.0);
            samples.iter_mut().for_each(|sample| sample.value = Some(per_s * sample.t_s));
            samples
        };
        gauges.iter().flat_map(grows).collect()
    }

    fn stream_guards(series: &[(&str, f64)], made: MadeStream) -> (Vec<(String, String)>, TrialSummary) {
        let series = of_role("source", series);
        let summary = summarize_trial(&TrialRecord { series, ..made.record() });
        (summary.guards.iter().map(|guard| (guard.id.clone(), guard.what.clone())).collect(), summary)
    }

    #[test]
    fn a_source_that_was_blocked_leaves_a_stream_that_looks_healed_undecided() {
        let made = || MadeStream { seconds: 12, ..MadeStream::of(1_000.0) };
        let (guards, mut summary) = stream_guards(&[("blocked_s", 0.25)], made());
        let what =
            "the source was blocked for 3 s of 12 s: records waited to be sent, where no scheduling delay shows them";
        assert_eq!(guards[0], ("source-blocked".to_owned(), what.to_owned()));
        let slo = crate::verdict::Slo::try_from("stable".to_owned()).unwrap();
        let cell = crate::measure::study::cell(&[&summary], 0.0, "");
        assert_eq!(
            crate::verdict::decide(&slo, &cell),
            crate::verdict::Decision::Unknown(format!("source-blocked: {what}"))
        );
        // What falls behind although its source was blocked falls behind.
        summary.stream.as_mut().unwrap().state = StreamState::FallsBehind;
        let cell = crate::measure::study::cell(&[&summary], 0.0, "");
        assert_eq!(crate::verdict::decide(&slo, &cell), crate::verdict::Decision::Fail);
        assert!(stream_guards(&[("blocked_s", 0.009)], made()).0.iter().all(|(id, _)| id == "too-few-ops"));
    }

    #[test]
    fn batches_that_fail_leave_a_stream_that_looks_quick_undecided() {
        let summary = |failed: usize, processing_ms: f64| {
            let made = MadeStream { processing: vec![processing_ms; 56], ..MadeStream::default() };
            let mut record = made.record();
            let ended = record.journal.iter_mut().filter_map(|entry| match entry {
                Entry::Batch(batch) if batch.status == Status::Completed => Some(batch),
                _ => None,
            });
            ended.take(failed).for_each(|batch| batch.status = Status::Failed);
            summarize_trial(&record)
        };
        let slo = crate::verdict::Slo::try_from("stable".to_owned()).unwrap();
        for (failed, processing_ms, expected) in [
            (0, 1_000.0, crate::verdict::Decision::Pass),
            (
                7,
                1_000.0,
                crate::verdict::Decision::Unknown(
                    "batches-failed: 7 of 56 batches that ended had failed: how long a good one takes is not known"
                        .to_owned(),
                ),
            ),
            (7, 2_531.0, crate::verdict::Decision::Fail),
        ] {
            let summary = summary(failed, processing_ms);
            let cell = crate::measure::study::cell(&[&summary], 0.0, "");
            assert_eq!(crate::verdict::decide(&slo, &cell), expected, "{failed} failed");
        }
    }

    #[test]
    fn a_receiver_that_leaves_lines_in_the_connection_leaves_a_stream_undecided() {
        let made = || MadeStream { seconds: 12, ..MadeStream::of(1_000.0) };
        let waits = "where no scheduling delay shows them";
        let left = format!(
            "the receiver took 88 % of the 1200 lines that were due: the others wait in the connection, {waits}"
        );
        let blocked = format!("the receiver did not read for 1.2 s of 12 s: records waited in the connection, {waits}");
        for (due, sent, received, blocked_s, expected) in [
            (100.0, 100.0, 88.0, 0.0, Some(&left)),
            (100.0, 100.0, 100.0, 0.1, Some(&blocked)),
            (100.0, 100.0, 99.5, 0.005, None),
            // Within what samplers are apart by.
            (100.0, 100.0, 98.0, 0.0, None),
        ] {
            let mut series = Vec::new();
            for role in ["source", "engine"] {
                series = of_role(role, &[("due_lines", due), ("sent_lines", sent)]);
                series.extend(of_role("engine", &[("received_records", received), ("receiver_blocked_s", blocked_s)]));
                let summary = summarize_trial(&TrialRecord { series: series.clone(), ..made().record() });
                let held = summary.guards.iter().find(|guard| guard.id == "receiver-held");
                assert_eq!(held.map(|guard| &guard.what), expected, "{role}");
                let cell = crate::measure::study::cell(&[&summary], 0.0, "");
                let slo = crate::verdict::Slo::try_from("stable".to_owned()).unwrap();
                let expected = match expected {
                    Some(what) => crate::verdict::Decision::Unknown(format!("receiver-held: {what}")),
                    None => crate::verdict::Decision::Pass,
                };
                assert_eq!(crate::verdict::decide(&slo, &cell), expected);
            }
            // A blocked source says it already.
            series.extend(of_role("source", &[("blocked_s", 0.5)]));
            let summary = summarize_trial(&TrialRecord { series, ..made().record() });
            assert_eq!(summary.guards[0].id, "source-blocked");
            assert!(summary.guards.iter().all(|guard| guard.id != "receiver-held"));
        }
    }

    #[test]
    fn a_cumulative_gauge_is_read_between_its_samples_and_in_the_window_only() {
        let told = [(1.5, 150.0), (2.5, 250.0), (3.5, 250.0)];
        let cases = [(1.0, None), (1.46, Some(150.0)), (2.0, Some(200.0)), (3.0, Some(250.0)), (9.0, Some(250.0))];
        for (t_s, expected) in cases {
            assert_eq!(at(&told, t_s), expected, "{t_s}");
        }
    }

    #[test]
    fn records_that_were_not_followed_are_told_where_others_were() {
        let why = "the receiver was restarted";
        let receiver = kit::batch::Receiver { no_record_latency: Some(why.to_owned()), ..Default::default() };
        let mut record = MadeStream::of(1_000.0).record();
        record.journal.push(kit::batch::Entry::Receiver(receiver));
        let summary = summarize_trial(&record);
        let guard = summary.guards.iter().find(|guard| guard.id == "records-not-followed").unwrap();
        assert_eq!(guard.what, format!("the latency of records is of some of them only: {why}"));
        assert!(touches(guard, "record_latency_p95_ms") && touches(guard, "record_latency_p50_ms"));
        assert!(
            !touches(guard, "latency_p95_ms") && !touches(guard, "stable") && !touches(guard, "total_delay_avg_ms")
        );
        record.ops = Default::default();
        assert!(summarize_trial(&record).guards.iter().all(|guard| guard.id != "records-not-followed"));
    }

    #[test]
    fn a_source_that_sends_less_than_is_due_is_the_limit_itself() {
        let made = || MadeStream { seconds: 12, ..MadeStream::of(1_000.0) };
        let (guards, _) = stream_guards(&[("due_lines", 100.0), ("sent_lines", 97.0)], made());
        let what = "the source sent 97 % of the 1200 lines that were due";
        assert_eq!(guards[0], ("generator-limited".to_owned(), what.to_owned()));
        let (guards, _) = stream_guards(&[("due_lines", 100.0), ("sent_lines", 99.5)], made());
        assert!(guards.iter().all(|(id, _)| id == "too-few-ops"), "{guards:?}");
    }

    #[test]
    fn a_handful_of_batches_is_told_once_and_bears_averages() {
        let (guards, summary) = stream_guards(&[], MadeStream::of(1_000.0));
        let what = "56 batches stand behind the percentiles of batches, of which p95 needs 200 and p99 needs 1000";
        assert_eq!(guards, [("too-few-ops".to_owned(), what.to_owned())]);
        let cell = crate::measure::study::cell(&[&summary], 0.0, "");
        assert_eq!(cell.metrics["latency_p95_ms"].thin, Some(56));
        assert_eq!(cell.metrics["record_latency_p95_ms"].thin, None);
        let (guards, _) = stream_guards(&[], MadeStream::default());
        assert_eq!(guards[0].0, "backlog");
    }
}

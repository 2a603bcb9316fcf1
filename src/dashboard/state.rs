//! What the page draws, as one JSON text: the run, its trials, one trial's stream and charts.
//!
//! The one rule: charts are data (title, unit, lines, marks), chosen here, so that the page draws what it is given and
//! knows no system.

use kit::batch::{Batch, Status};
use serde_json::{Value, json};

use super::follow::{Followed, Mark, Run};
use super::stream::{self, Stream};
use super::timeline::{Point, Timeline};
use super::words;
use crate::report::figures::SIMULATED;

/// The state of a run and of one of its trials.
pub fn state(version: u64, path: &str, run: Option<&Run>, trial: Option<&Followed>) -> Value {
    let Some(run) = run else {
        return json!({ "version": version, "path": path, "run": null });
    };
    json!({
        "version": version,
        "path": path,
        "run": about(run),
        "trials": trials(run),
        "trial": trial.map(|trial| progress(run, trial)),
        "stream": trial.and_then(|trial| Some(stream_state(run, trial, trial.stream.as_ref()?))),
        "charts": trial.map_or_else(Vec::new, charts),
        "marks": trial.map_or_else(Vec::new, |trial| marks(run, trial)),
    })
}

fn about(run: &Run) -> Value {
    let about = &run.about;
    let state = match (run.has_ended(), run.is_written) {
        (true, _) => "ended",
        (_, true) => "running",
        _ if run.begun.is_empty() => "waiting",
        _ => "interrupted",
    };
    json!({
        "id": run.stamp(),
        "question": about.question,
        "name": about.name,
        "system": about.system,
        "deployment": about.deployment,
        "simulated": run.is_simulated().then_some(SIMULATED),
        "started_at": about.started_at,
        "state": state,
        "planned": run.plan.len(),
        "final": run.plan.iter().filter(|trial| run.result(&trial.name).is_some()).count(),
        "verdict": run.verdict.as_ref().filter(|_| run.has_ended()),
        // Without an objective a pass says only that the trials are valid, which beside "falls behind" would mislead.
        "judged": run.experiment.as_ref().is_none_or(|experiment| !experiment.slo.is_empty()),
    })
}

/// Planned trials with what came of them; those that were begun and are not planned (any more) too.
fn trials(run: &Run) -> Vec<Value> {
    let planned = run.plan.iter().map(|trial| trial.name.as_str());
    let unplanned =
        run.begun.iter().map(String::as_str).filter(|name| run.plan.iter().all(|trial| trial.name != *name));
    let last = run.begun.last();
    let row = |name: &str| {
        let result = run.result(name);
        let has_begun = run.begun.iter().any(|begun| begun == name);
        let state = match result {
            Some(result) if result["valid"] == false => "invalid",
            Some(_) => "final",
            None if !has_begun => "planned",
            None if run.is_written && last.is_some_and(|last| last == name) => "running",
            None => "interrupted",
        };
        let number = |pointer: &str| result.and_then(|result| result.pointer(pointer)).and_then(Value::as_f64);
        let levels: Vec<_> = run.levels(name).iter().map(|(factor, level)| format!("{factor} {level}")).collect();
        json!({
            "name": name,
            "levels": levels.join(", "),
            "state": state,
            "begun": has_begun,
            "why": result.and_then(|result| result["invalid"].as_str()),
            "good": number("/goodput_rps"),
            "wait_p95": number("/wait/p95"),
            "work_p95": number("/work/p95"),
            "total_p95": number("/latency_p95_ms"),
            "errors": number("/error_rate"),
        })
    };
    planned.chain(unplanned).map(row).collect()
}

fn progress(run: &Run, trial: &Followed) -> Value {
    let window = run.window(&trial.name);
    json!({
        "name": trial.name,
        "sentence": match run.result(&trial.name) {
            Some(result) => words::result(result),
            None => words::load(&trial.history.gauges, window.as_ref().map_or(f64::INFINITY, |window| f64::from(window.end))),
        },
        "place": run.plan.iter().position(|planned| planned.name == trial.name).map(|place| place + 1),
        "now_s": round(trial.end_s()),
        "from_s": window.as_ref().map(|window| window.start),
        "to_s": window.as_ref().map(|window| window.end),
        "is_final": run.result(&trial.name).is_some(),
        "left": trial.left,
    })
}

fn marks(run: &Run, trial: &Followed) -> Vec<Value> {
    // What happened takes the place of what was planned: each of as many, and all once the trial is final.
    let seen = trial.seen();
    let is_final = run.result(&trial.name).is_some() && !seen.is_empty();
    let mut planned: Vec<&Mark> = run.about.planned_faults.iter().collect();
    planned.sort_by(|a, b| a.from_s.total_cmp(&b.from_s));
    let planned = planned.into_iter().skip(if is_final { usize::MAX } else { seen.len() }).map(|mark| (mark, true));
    let seen = seen.iter().map(|mark| (mark, false));
    let end_s = trial.end_s();
    let mark = |(mark, is_planned): (&Mark, bool)| {
        // What was seen and has no end lasts.
        let to = mark.to_s.or_else(|| (!is_planned).then_some(end_s.max(mark.from_s)));
        json!({ "from": mark.from_s, "to": to, "label": mark.label, "planned": is_planned })
    };
    planned.chain(seen).map(mark).collect()
}

fn stream_state(run: &Run, trial: &Followed, stream: &Stream) -> Value {
    let is_over = run.result(&trial.name).is_some() || run.has_ended() || !run.is_written;
    let held = words::held(&trial.series, stream, is_over);
    let standing = words::standing(stream, held.as_deref(), is_over);
    let averages = stream.averages();
    let engine = stream.engine.as_ref();
    let receivers = stream.receivers.values().map(|receiver| {
        json!({
            "stream": receiver.stream, "active": receiver.active, "source": receiver.source, "restarts": receiver.restarts,
            "last_error": receiver.last_error, "last_error_ms": receiver.last_error_ms,
            "no_record_latency": receiver.no_record_latency, "rate": stream.receiver_rate(receiver.stream).map(round),
        })
    });
    json!({
        "state": standing.state,
        "sentence": standing.sentence,
        "name": engine.map(|engine| &engine.name),
        "start_unix_ms": engine.map(|engine| engine.start_unix_ms).filter(|at| *at > 0.0),
        "interval_ms": stream.interval_ms(),
        "slots": engine.map(words::slots),
        "notes": engine.map_or(&[][..], |engine| &engine.notes),
        "predicted": engine.and_then(|engine| engine.predicted_processing_ms).map(words::time),
        "end_ms": round(stream.end_ms()),
        "completed": stream.total_completed,
        "active": stream.active_count(),
        "waiting": stream.waiting_count(),
        "running": stream.running_count(),
        "processed_records": stream.processed_records,
        "receivers_planned": engine.map(|engine| engine.receivers),
        "receivers": receivers.collect::<Vec<_>>(),
        "averages": {
            "rate": averages.input_rate.map(round), "scheduling": averages.scheduling_ms.map(round),
            "processing": averages.processing_ms.map(round), "total": averages.total_ms.map(round),
            "lateness": averages.lateness_ms.map(round),
        },
        "batches": batches(stream),
        "output": last_output(stream),
    })
}

/// At most this many batches that have not ended are sent: the oldest and the newest.
const ACTIVE_SENT: usize = 1_000;

/// The batches in columns, by number; a text is much shorter that way.
fn batches(stream: &Stream) -> Value {
    let active = stream.active.len();
    let hidden: Vec<u64> = if active > ACTIVE_SENT {
        stream.active.keys().copied().skip(ACTIVE_SENT / 2).take(active - ACTIVE_SENT).collect()
    } else {
        Vec::new()
    };
    let is_shown = |batch: &&Batch| hidden.binary_search(&batch.batch).is_err();
    let shown: Vec<&Batch> = stream.retained().filter(is_shown).collect();
    let column = |of: &dyn Fn(&Batch) -> Value| shown.iter().map(|batch| of(batch)).collect::<Vec<_>>();
    json!({
        "number": column(&|batch| batch.batch.into()),
        "time_ms": column(&|batch| round(batch.time_ms).into()),
        "records": column(&|batch| batch.records.into()),
        "status": column(&|batch| status(batch).into()),
        "late": column(&|batch| round(batch.submitted_ms - batch.time_ms).into()),
        "scheduling": column(&|batch| stream::scheduling_ms(batch).map(round).into()),
        "processing": column(&|batch| stream::processing_ms(batch).map(round).into()),
        "total": column(&|batch| stream::total_ms(batch).map(round).into()),
        "ops": column(&|batch| format!("{}/{}", batch.output_ops_done, batch.output_ops).into()),
        "jobs": column(&|batch| batch.jobs.into()),
        "tasks": column(&|batch| batch.tasks.into()),
        "reason": column(&|batch| batch.reason.clone().into()),
    })
}

fn status(batch: &Batch) -> &'static str {
    match batch.status {
        Status::Queued => "queued",
        Status::Processing => "processing",
        Status::Completed => "completed",
        Status::Failed if stream::is_active(batch) => "given up",
        Status::Failed => "failed",
    }
}

fn last_output(stream: &Stream) -> Value {
    let last = stream.completed.values().rev().find(|batch| !batch.output.is_empty());
    last.map_or(Value::Null, |batch| json!({ "time_ms": batch.time_ms, "lines": batch.output }))
}

/// One line of a chart: its name and its points.
type Line = (String, Vec<Point>);

const MIB: f64 = 1024.0 * 1024.0;

/// The charts of a trial, those without data left out.
fn charts(trial: &Followed) -> Vec<Value> {
    let (series, history) = (&trial.series, &trial.history.gauges);
    let is_stream = trial.stream.is_some();
    let of_history = |names: &[(&str, &str)]| lines(history, names, 1.0);
    let of_series = |names: &[(&str, &str)]| lines(series, names, 1.0);
    let mut source: Vec<Line> = [("due_lines", "due"), ("sent_lines", "sent"), ("received_records", "received")]
        .map(|(name, label)| (label.to_owned(), series.rate(name)))
        .into();
    source.extend(of_series(&[("rate_limit", "limit a receiver")]));
    let blocked = [("blocked_s", "source"), ("receiver_blocked_s", "receiver")]
        .map(|(name, label)| (label.to_owned(), percent(series.rate(name))));
    let latency = if is_stream {
        "From when the source should have sent a record until its batch has ended; batches count too."
    } else {
        "From when an operation should have been sent until it has ended: wait and work."
    };
    let (load, unit) = if is_stream { ("Records and batches", "/s") } else { ("Load", "operations/s") };
    [
        chart(
            "load",
            load,
            unit,
            "Offered is what should have been sent; good is what ended well.",
            of_history(&[("offered", "offered"), ("good", "good")]),
        ),
        chart("latency", "Latency", "ms", latency, of_history(&[("p50", "median"), ("p95", "p95"), ("p99", "p99")])),
        chart(
            "errors",
            "Errors",
            "%",
            "Operations that failed, were wrong, or were given up.",
            of_history(&[("errors", "errors")]),
        ),
        chart("source", "Lines", "/s", "Due by the schedule, sent by the source, received by the engine.", source),
        chart(
            "blocked",
            "Blocked",
            "%",
            "Time in which the source could not send, or the receiver did not read.",
            blocked.into(),
        ),
        chart(
            "queue",
            "Batches",
            "",
            "Those that wait, and those that run.",
            of_series(&[("queued_batches", "waiting"), ("running_batches", "running")]),
        ),
        chart(
            "held",
            "Received, not yet processed",
            "MiB",
            "Bytes that the engine holds in blocks.",
            lines(series, &[("held_bytes", "held")], 1.0 / MIB),
        ),
        chart(
            "users",
            "Users",
            "",
            "Users that have started, and operations under way.",
            // Roles under test tell what they have under way, too: the same operations once more.
            [("users", "users"), ("in_flight", "under way")]
                .map(|(name, label)| (label.to_owned(), scaled(series.sum(name, Some("load")), 1.0)))
                .into(),
        ),
        chart("cpu", "CPU", "CPUs", "All replicas of a role together.", by_role(series, "cpu", 1.0)),
        chart(
            "memory",
            "Memory",
            "MiB",
            "Resident, all replicas of a role together.",
            by_role(series, "rss_bytes", 1.0 / MIB),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn lines(timeline: &Timeline, names: &[(&str, &str)], factor: f64) -> Vec<Line> {
    names.iter().map(|(name, label)| ((*label).to_owned(), scaled(timeline.sum(name, None), factor))).collect()
}

fn by_role(timeline: &Timeline, name: &str, factor: f64) -> Vec<Line> {
    let roles = timeline.roles(name).into_iter();
    roles.map(|role| (role.to_owned(), scaled(timeline.sum(name, Some(role)), factor))).collect()
}

fn scaled(points: Vec<Point>, factor: f64) -> Vec<Point> {
    points.into_iter().map(|(t_s, value)| (t_s, value.map(|value| value * factor))).collect()
}

/// Seconds a second as percent; a sample that is late makes a little more of it.
fn percent(points: Vec<Point>) -> Vec<Point> {
    points.into_iter().map(|(t_s, value)| (t_s, value.map(|value| (value * 100.0).min(100.0)))).collect()
}

fn chart(id: &str, title: &str, unit: &str, caption: &str, lines: Vec<Line>) -> Option<Value> {
    let known = |line: &&Line| line.1.iter().any(|(_, value)| value.is_some());
    let lines: Vec<_> = lines.iter().filter(known).map(line).collect();
    (!lines.is_empty()).then(|| json!({ "id": id, "title": title, "unit": unit, "caption": caption, "lines": lines }))
}

fn line((label, points): &Line) -> Value {
    let times: Vec<_> = points.iter().map(|(t_s, _)| (t_s * 10.0).round() / 10.0).collect();
    let values: Vec<_> = points.iter().map(|(_, value)| value.map(round)).collect();
    let is_wanted = matches!(label.as_str(), "offered" | "due");
    json!({ "label": label, "t": times, "v": values, "wide": is_wanted })
}

/// Four significant digits, or thousandths where those are coarser: more is not seen, and would be sent each second.
fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = (3 - value.abs().log10().floor() as i32).clamp(0, 6);
    let factor = 10_f64.powi(digits);
    (value * factor).round() / factor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_each_second_has_no_needless_digits() {
        for (value, sent) in
            [(0.0, 0.0), (1.234_567, 1.235), (123_456.7, 123_457.0), (0.000_123_456, 0.000_123), (-2.0, -2.0)]
        {
            assert_eq!(round(value), sent);
        }
    }
}

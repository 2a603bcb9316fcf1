//! Numbers as CSV: Locust's three tables, and the figures in long form.
//!
//! The one rule: Locust's column names, exactly, so that whoever reads those files with a script keeps the script. Times
//! are milliseconds. A failed operation counts as a request, as it does there, with the time it took.

use std::collections::BTreeMap;
use std::ops::Range;

use kit::OpsRecord;
use kit::op::Latencies;
use serde::Deserialize;

use crate::measure::OpsLog;
use crate::report::figure::{Figure, FigureCurve, Panel, Point};

const QUANTILES: [f64; 11] = [0.5, 0.66, 0.75, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 0.9999, 1.0];

/// The columns of `stats.csv`.
pub const STATS_HEADER: &str = "Type,Name,Request Count,Failure Count,Median Response Time,Average Response Time,\
    Min Response Time,Max Response Time,Average Content Size,Requests/s,Failures/s,\
    50%,66%,75%,80%,90%,95%,98%,99%,99.9%,99.99%,100%";

/// The columns of `stats_history.csv`.
pub const HISTORY_HEADER: &str = "Timestamp,User Count,Type,Name,Requests/s,Failures/s,\
    50%,66%,75%,80%,90%,95%,98%,99%,99.9%,99.99%,100%,Total Request Count,Total Failure Count,\
    Total Median Response Time,Total Average Response Time,Total Min Response Time,Total Max Response Time,\
    Total Average Content Size";

/// The columns of `failures.csv`.
pub const FAILURES_HEADER: &str = "Method,Name,Error,Occurrences,First Seen,Last Seen";

/// `stats.csv` of the operations intended in `window`, one row a method and name and one for all of them together.
/// `methods` gives the method of a kind; `duration_s` is the length of the window, by which rates are divided.
pub fn stats_csv(ops: &OpsLog, window: Range<u32>, methods: &dyn Fn(&str) -> String, duration_s: f64) -> String {
    let mut rows: BTreeMap<(String, String), OpsRecord> = BTreeMap::new();
    let mut all = OpsRecord::default();
    for record in ops.briefs().filter(|record| window.contains(&record.second)) {
        rows.entry((methods(&record.kind), record.kind.clone())).or_default().merge(&record);
        all.merge(&record);
    }
    let mut text = format!("{STATS_HEADER}\n");
    for ((method, name), record) in &rows {
        text.push_str(&stats_row(method, name, record, duration_s));
    }
    text.push_str(&stats_row("", "Aggregated", &all, duration_s));
    text
}

fn stats_row(method: &str, name: &str, record: &OpsRecord, duration_s: f64) -> String {
    let times = record.all_times();
    let mut fields = vec![field(method), field(name), record.count().to_string(), failures(record).to_string()];
    fields.extend(totals(&times, record));
    fields.push(rate(record.count(), duration_s));
    fields.push(rate(failures(record), duration_s));
    fields.extend(percentiles(&times));
    line(&fields)
}

/// One line of `stats_history.csv`: rates and percentiles of exactly this second, totals since the beginning.
pub fn history_row(unix_s: u64, users: u32, second: &OpsRecord, running: &OpsRecord) -> String {
    let mut fields = vec![unix_s.to_string(), users.to_string(), String::new(), "Aggregated".to_owned()];
    fields.push(rate(second.count(), 1.0));
    fields.push(rate(failures(second), 1.0));
    fields.extend(percentiles(&second.all_times()));
    fields.push(running.count().to_string());
    fields.push(failures(running).to_string());
    fields.extend(totals(&running.all_times(), running));
    line(&fields)
}

/// What is read of a record for `failures.csv`.
#[derive(Deserialize)]
struct Failures {
    second: u32,
    kind: String,
    errors: BTreeMap<String, u64>,
}

/// `failures.csv`: what of the operations intended in `window` did not end well, by method, name and reason; first and
/// last seen as unix seconds.
pub fn failures_csv(ops: &OpsLog, window: Range<u32>, methods: &dyn Fn(&str) -> String, start_unix_s: u64) -> String {
    let mut rows: BTreeMap<(String, String, String), (u64, u32, u32)> = BTreeMap::new();
    for record in ops.read_as::<Failures>().filter(|record| window.contains(&record.second)) {
        for (error, count) in record.errors.iter().filter(|(_, count)| **count > 0) {
            let row = rows.entry((methods(&record.kind), record.kind.clone(), error.clone())).or_insert((
                0,
                record.second,
                record.second,
            ));
            *row = (row.0 + count, row.1.min(record.second), row.2.max(record.second));
        }
    }
    let mut text = format!("{FAILURES_HEADER}\n");
    for ((method, name, error), (count, first, last)) in rows {
        let seen = [first, last].map(|second| (start_unix_s + u64::from(second)).to_string());
        let [first, last] = seen;
        text.push_str(&line(&[field(&method), field(&name), field(&error), count.to_string(), first, last]));
    }
    text
}

/// Every point of every figure: what a script reads to draw its own.
pub fn figures_csv(figures: &[Figure]) -> String {
    let mut text = "figure,panel,curve,x,y,low,high,n,note,null_reason\n".to_owned();
    for figure in figures {
        for panel in &figure.panels {
            for curve in &panel.curves {
                curve.points.iter().for_each(|point| text.push_str(&figure_row(figure, panel, curve, point)));
            }
        }
    }
    text
}

fn figure_row(figure: &Figure, panel: &Panel, curve: &FigureCurve, point: &Point) -> String {
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let mut notes: Vec<&str> = point.hollow.iter().map(String::as_str).collect();
    notes.extend((!point.marks.is_empty()).then_some(point.marks.as_str()));
    line(&[
        field(&figure.id),
        field(&panel.y.title()),
        field(&curve.label),
        point.x.to_string(),
        number(point.y),
        number(point.low),
        number(point.high),
        point.n.to_string(),
        field(&notes.join(" ")),
        field(point.null_reason.as_deref().unwrap_or_default()),
    ])
}

fn failures(record: &OpsRecord) -> u64 {
    record.count() - record.ok
}

/// Median, mean, smallest and largest time, and mean size; zeros while there is nothing, as Locust has it.
fn totals(times: &Latencies, record: &OpsRecord) -> [String; 5] {
    let mean_ns = times.mean().map_or(0.0, |mean| mean.as_nanos() as f64);
    let bytes = if record.count() == 0 { 0.0 } else { record.bytes as f64 / record.count() as f64 };
    [
        ms(times.quantile(0.5).map_or(0.0, |time| time.as_nanos() as f64)),
        ms(mean_ns),
        ms(times.min_ns() as f64),
        ms(times.max_ns() as f64),
        decimal(bytes),
    ]
}

fn percentiles(times: &Latencies) -> Vec<String> {
    let one =
        |quantile: f64| times.quantile(quantile).map_or_else(|| "N/A".to_owned(), |time| ms(time.as_nanos() as f64));
    QUANTILES.map(one).to_vec()
}

fn ms(ns: f64) -> String {
    decimal(ns / 1e6)
}

fn rate(count: u64, duration_s: f64) -> String {
    if duration_s > 0.0 { decimal(count as f64 / duration_s) } else { "0".to_owned() }
}

fn decimal(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Quoted where RFC 4180 asks for it.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

fn line(fields: &[String]) -> String {
    fields.join(",") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use kit::{Op, Outcome};

    fn second(second: u32, kind: &str, times_ms: &[u64], refused: u64) -> OpsRecord {
        let mut record = OpsRecord { second, kind: kind.to_owned(), ..OpsRecord::default() };
        let op = |ms: u64, outcome| Op {
            intended_ns: 0,
            released_ns: 0,
            started_ns: 0,
            finished_ns: ms * 1_000_000,
            outcome,
            status: 200,
            units: 1,
            bytes: 100,
        };
        times_ms.iter().for_each(|ms| record.record(&op(*ms, Outcome::Ok)));
        (0..refused).for_each(|_| record.record(&op(1, Outcome::Failed)));
        if refused > 0 {
            record.errors.insert("status 503, \"busy\"".to_owned(), refused);
        }
        record
    }

    fn get(_: &str) -> String {
        "GET".to_owned()
    }

    #[test]
    fn stats_hold_each_name_and_all_together_within_the_window() {
        let ops = [second(0, "/tasks", &[500], 0), second(2, "/tasks", &[10, 20, 30], 1), second(3, "/stats", &[5], 0)];
        let text = stats_csv(&ops.into_iter().collect(), 2..4, &get, 2.0);
        expect![[r#"
            Type,Name,Request Count,Failure Count,Median Response Time,Average Response Time,Min Response Time,Max Response Time,Average Content Size,Requests/s,Failures/s,50%,66%,75%,80%,90%,95%,98%,99%,99.9%,99.99%,100%
            GET,/stats,1,0,5.001,4.999,4.997,5.001,100,0.5,0,5.001,5.001,5.001,5.001,5.001,5.001,5.001,5.001,5.001,5.001,5.001
            GET,/tasks,4,1,10.002,15.251,1,30.015,100,2,0.5,10.002,20.005,20.005,30.015,30.015,30.015,30.015,30.015,30.015,30.015,30.015
            ,Aggregated,5,1,10.002,13.2,1,30.015,100,2.5,0.5,10.002,20.005,20.005,20.005,30.015,30.015,30.015,30.015,30.015,30.015,30.015
        "#]].assert_eq(&text);
        assert!(text.lines().all(|line| line.split(',').count() == STATS_HEADER.split(',').count()));
    }

    #[test]
    fn history_is_of_its_second_alone_and_a_second_without_requests_has_no_percentiles() {
        let busy = second(2, "/tasks", &[10, 20, 30], 0);
        let text = history_row(1_700_000_002, 8, &busy, &busy)
            + &history_row(1_700_000_003, 8, &OpsRecord::default(), &busy)
            + &history_row(1_700_000_000, 0, &OpsRecord::default(), &OpsRecord::default());
        expect![[r#"
            1700000002,8,,Aggregated,3,0,20.005,20.005,30.015,30.015,30.015,30.015,30.015,30.015,30.015,30.015,30.015,3,0,20.005,20.001,9.994,30.015,100
            1700000003,8,,Aggregated,0,0,N/A,N/A,N/A,N/A,N/A,N/A,N/A,N/A,N/A,N/A,N/A,3,0,20.005,20.001,9.994,30.015,100
            1700000000,0,,Aggregated,0,0,N/A,N/A,N/A,N/A,N/A,N/A,N/A,N/A,N/A,N/A,N/A,0,0,0,0,0,0,0
        "#]].assert_eq(&text);
        assert!(text.lines().all(|line| line.split(',').count() == HISTORY_HEADER.split(',').count()));
    }

    #[test]
    fn failures_of_the_window_are_counted_by_reason_with_when_they_were_seen() {
        let ops = [
            second(1, "/tasks", &[], 9),
            second(2, "/tasks", &[], 1),
            second(7, "/tasks", &[10], 2),
            second(9, "/tasks", &[10], 0),
            second(12, "/tasks", &[], 9),
        ];
        expect![[r#"
            Method,Name,Error,Occurrences,First Seen,Last Seen
            GET,/tasks,"status 503, ""busy""",3,1700000002,1700000007
        "#]]
        .assert_eq(&failures_csv(&ops.into_iter().collect(), 2..12, &get, 1_700_000_000));
    }
}

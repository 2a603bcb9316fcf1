//! What faults did to a trial, as files: `recovery.json` in numbers, `failure_results.json` over time.
//!
//! The one rule: every number of the first is one of the summary; the second needs no other file to be drawn again.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

use crate::experiment::Experiment;
use crate::faults::Injection;
use crate::measure::{Lost, RecoverySummary, Sample, TrialRecord, TrialSummary};

/// `recovery.json`: what became of writes at the top, then what was injected, then how users fared.
#[derive(Serialize)]
pub(super) struct RecoveryFile<'a> {
    trial: &'a str,
    /// Null where nobody looked.
    #[serde(flatten)]
    lost: Option<&'a Lost>,
    faults: &'a [Injection],
    recovery: Option<&'a RecoverySummary>,
}

pub(super) fn recovery<'a>(record: &'a TrialRecord, summary: &'a TrialSummary) -> RecoveryFile<'a> {
    RecoveryFile {
        trial: &summary.name,
        lost: summary.lost.as_ref(),
        faults: &record.faults,
        recovery: summary.recovery.as_ref(),
    }
}

/// `failure_results.json`.
#[derive(Serialize)]
pub(super) struct ResultsFile<'a> {
    config: Value,
    summary: &'a TrialSummary,
    injections: &'a [Injection],
    time_series: Vec<Second>,
    /// Each gauge of each replica as pairs of seconds and values.
    gauges: Vec<Gauge<'a>>,
}

/// One second, by the intended times of its operations.
#[derive(Debug, PartialEq, Serialize)]
struct Second {
    t: u32,
    measured: bool,
    offered: u64,
    completed: u64,
    good: u64,
    failed: u64,
    unknown: u64,
    wrong: u64,
    /// In percent; null where nothing was offered.
    error_rate: Option<f64>,
    p50: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
    /// The last value of the second, all generators together; null where it was not told.
    users: Option<f64>,
    in_flight: Option<f64>,
}

#[derive(Serialize)]
struct Gauge<'a> {
    name: &'a str,
    role: &'a str,
    replica: u32,
    points: Vec<Point>,
}

/// Seconds since the trial's start, and the value.
type Point = (f64, Option<f64>);

/// # Errors
/// When the experiment cannot be written.
pub(super) fn results<'a>(
    experiment: &Experiment,
    record: &'a TrialRecord,
    summary: &'a TrialSummary,
) -> anyhow::Result<ResultsFile<'a>> {
    let text = super::without_secrets(experiment).to_toml();
    let mut config: Value = toml::from_str(&text).context("writing the experiment")?;
    config["trial"] = serde_json::to_value(&record.trial)?;
    Ok(ResultsFile {
        config,
        summary,
        injections: &record.faults,
        time_series: seconds(&record.series, summary),
        gauges: gauges(&record.series),
    })
}

fn seconds(series: &[Sample], summary: &TrialSummary) -> Vec<Second> {
    let (users, in_flight) = (of_load(series, "users"), of_load(series, "in_flight"));
    let of_second = summary.seconds.iter().map(|second| {
        let bad = second.failed + second.unknown + second.wrong;
        Second {
            t: second.second,
            measured: second.measured,
            offered: second.offered,
            completed: second.answered,
            good: second.ok,
            failed: second.failed,
            unknown: second.unknown,
            wrong: second.wrong,
            error_rate: (second.offered > 0).then(|| 100.0 * bad as f64 / second.offered as f64),
            p50: second.latency.p50,
            p95: second.latency.p95,
            p99: second.latency.p99,
            users: users.get(&second.second).copied(),
            in_flight: in_flight.get(&second.second).copied(),
        }
    });
    of_second.collect()
}

/// The last value of a gauge of the generators in each second, all of them together.
fn of_load(series: &[Sample], name: &str) -> BTreeMap<u32, f64> {
    let mut last: BTreeMap<(u32, u32), f64> = BTreeMap::new();
    for sample in series.iter().filter(|sample| sample.name == name && sample.role == "load") {
        if let Some(value) = sample.value {
            last.insert((sample.t_s as u32, sample.replica), value);
        }
    }
    let mut sums = BTreeMap::new();
    for ((second, _), value) in last {
        *sums.entry(second).or_default() += value;
    }
    sums
}

fn gauges(series: &[Sample]) -> Vec<Gauge<'_>> {
    let mut gauges: BTreeMap<(&str, &str, u32), Vec<Point>> = BTreeMap::new();
    for Sample { t_s, name, role, replica, value } in series {
        gauges.entry((name, role, *replica)).or_default().push((*t_s, *value));
    }
    let gauge = |((name, role, replica), points)| Gauge { name, role, replica, points };
    gauges.into_iter().map(gauge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::samples::{experiment, gauge, op, record};
    use crate::measure::summarize_trial;
    use kit::{OpsRecord, Outcome};

    fn failed_trial() -> (TrialRecord, TrialSummary) {
        let mut record = record(10, 5);
        let mut broken = OpsRecord { second: 4, kind: "GET /".to_owned(), ..OpsRecord::default() };
        (0..10).for_each(|_| broken.record(&op(Outcome::Failed, 503, 1)));
        record.ops = record.ops.iter().chain([broken]).collect();
        record.series =
            [gauge("users", "load", 1, 3.0), gauge("users", "load", 2, 2.0), gauge("cpu", "gateway", 1, 0.5)].concat();
        record.faults = vec![Injection {
            kind: "kill".to_owned(),
            role: "gateway".to_owned(),
            replica: 1,
            command_s: Some(4.0),
            ..Injection::default()
        }];
        record.lost = Some(Lost { attempted: 5, acknowledged: 4, unknown: 1, ..Lost::default() });
        let summary = summarize_trial(&record);
        (record, summary)
    }

    #[test]
    fn counts_of_writes_stand_at_the_top_of_a_recovery() {
        let (record, summary) = failed_trial();
        let file = serde_json::to_value(recovery(&record, &summary)).unwrap();
        assert_eq!(
            (&file["attempted"], &file["lost"], &file["faults"][0]["command_s"]),
            (&5.into(), &0.into(), &4.0.into())
        );
        let unchecked = TrialSummary { lost: None, ..summary };
        let file = serde_json::to_value(recovery(&record, &unchecked)).unwrap();
        assert_eq!((file.get("lost"), file["trial"].as_str()), (None, Some("000")));
    }

    #[test]
    fn everything_over_time_stands_in_one_file() {
        let (record, summary) = failed_trial();
        let file = results(&experiment(std::time::Duration::ZERO), &record, &summary).unwrap();
        assert_eq!(
            (file.config["system"].as_str(), file.config["trial"]["name"].as_str()),
            (Some("task-tracker"), Some("000"))
        );
        let second = file.time_series.iter().find(|second| second.t == 4).unwrap();
        assert_eq!((second.offered, second.completed, second.good, second.error_rate), (20, 20, 10, Some(50.0)));
        assert_eq!((second.users, second.in_flight, second.p50.map(f64::round)), (Some(5.0), None, Some(5.0)));
        let cpu = file.gauges.iter().find(|gauge| gauge.name == "cpu").unwrap();
        assert_eq!((cpu.role, cpu.points.len(), cpu.points[0]), ("gateway", 12, (1.0, Some(0.5))));
    }
}

//! What gauges say about a fault: when the system knew, how much was tried, what was under way.
//!
//! One rule: a gauge that nobody told is a reason, not a zero.

use std::collections::{BTreeMap, BTreeSet};

use crate::measure::TrialRecord;

/// Gauges by which a system says that it knows of something broken.
const KNOWS: [&str; 2] = ["breaker_open", "not_ready"];

/// The time and value of each sample, by role and replica, in the order of time.
type Told<'a> = BTreeMap<(&'a str, u32), Vec<(f64, f64)>>;

fn told<'a>(record: &'a TrialRecord, name: &str, wanted: impl Fn(&str) -> bool) -> Told<'a> {
    let mut told = Told::new();
    for sample in record.series.iter().filter(|sample| sample.name == name && wanted(&sample.role)) {
        let values: &mut Vec<_> = told.entry((&sample.role, sample.replica)).or_default();
        values.extend(sample.value.map(|value| (sample.t_s, value)));
    }
    told.values_mut().for_each(|values| values.sort_by(|a, b| a.0.total_cmp(&b.0)));
    told.retain(|_, values| !values.is_empty());
    told
}

/// From the effect until a part of the system says that it knows; the reason where none does.
pub(super) fn system_detects(record: &TrialRecord, effect_s: f64, until_s: f64) -> Result<f64, String> {
    let under_test: BTreeSet<&str> =
        record.participants.iter().filter(|who| who.under_test).map(|who| who.role.as_str()).collect();
    let all: Vec<Told<'_>> = KNOWS.iter().map(|name| told(record, name, |role| under_test.contains(role))).collect();
    if all.iter().all(BTreeMap::is_empty) {
        return Err("no part of the system tells whether a breaker is open or it is not ready".to_owned());
    }
    let rises = all.iter().flat_map(BTreeMap::values).filter_map(|values| {
        let before = values.iter().rfind(|(t, _)| *t < effect_s).map_or(0.0, |(_, value)| *value);
        values.iter().find(|(t, value)| *t >= effect_s && *t < until_s && *value > before.max(0.0)).map(|(t, _)| *t)
    });
    let first = rises.min_by(f64::total_cmp);
    first.map(|t| t - effect_s).ok_or_else(|| "no breaker opened and no part said it was not ready".to_owned())
}

/// Tries at upstreams for each operation of a client between two times.
pub(super) fn amplification(record: &TrialRecord, from_s: f64, to_s: f64, offered: u64) -> Result<f64, String> {
    let all = told(record, "tries", |_| true);
    if all.is_empty() {
        return Err("no part of the system counts its tries at upstreams".to_owned());
    }
    if offered == 0 {
        return Err("nothing was offered meanwhile".to_owned());
    }
    let tries: f64 = all.values().map(|values| increments(values, from_s, to_s)).sum();
    Ok(tries / offered as f64)
}

/// By how much a counter grew, in proportion where a sample's interval sticks out; one that falls was started anew.
fn increments(values: &[(f64, f64)], from_s: f64, to_s: f64) -> f64 {
    let grown = |pair: &[(f64, f64)]| {
        let ((t0, before), (t1, after)) = (pair[0], pair[1]);
        let inside = (t1.min(to_s) - t0.max(from_s)).max(0.0) / (t1 - t0).max(f64::MIN_POSITIVE);
        let more = if after >= before { after - before } else { after };
        more * inside.min(1.0)
    };
    values.windows(2).map(grown).sum()
}

/// The most operations under way between two times, over all generators.
pub(super) fn peak_in_flight(record: &TrialRecord, from_s: f64, to_s: f64) -> Result<f64, String> {
    let mut by_second: BTreeMap<u64, BTreeMap<u32, f64>> = BTreeMap::new();
    for ((_, replica), values) in told(record, "in_flight", |role| role == "load") {
        for (t, value) in values.into_iter().filter(|(t, _)| *t >= from_s && *t <= to_s) {
            let most = by_second.entry(t as u64).or_default().entry(replica).or_insert(value);
            *most = most.max(value);
        }
    }
    let sums = by_second.values().map(|replicas| replicas.values().sum::<f64>());
    sums.max_by(f64::total_cmp).ok_or_else(|| "no generator told its operations under way meanwhile".to_owned())
}

/// From ready until what is under way and what waits to be sent is no more than it was at most before the fault.
pub(super) fn drain(record: &TrialRecord, usual: (f64, f64), ready_s: f64, until_s: f64) -> Result<f64, String> {
    let mut last: Option<f64> = None;
    for name in ["in_flight", "backlog"] {
        for values in told(record, name, |role| role == "load").values() {
            let before = values.iter().filter(|(t, _)| *t >= usual.0 && *t <= usual.1).map(|(_, value)| *value);
            let Some(most) = before.max_by(f64::total_cmp) else { continue };
            // The last sample before ready says how it stood then.
            let place = values.partition_point(|(t, _)| *t <= ready_s).saturating_sub(1);
            let back = values[place..].iter().find(|(t, value)| *t <= until_s && *value <= most);
            let Some((t, _)) = back else {
                return Err(format!("{name} of the load was not back at its usual {most} within the time watched"));
            };
            last = Some(last.unwrap_or(0.0).max(t - ready_s));
        }
    }
    last.ok_or_else(|| "no generator told its operations under way before the fault".to_owned())
}

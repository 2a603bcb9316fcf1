//! The injections of all trials of a cell → its estimates.
//!
//! One rule: what was not recovered from while it was watched took longer than that; it is in every number, as such.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::measure::recovery::{Recovered, Recovery};
use crate::measure::{Estimate, Lost, TrialSummary, stats};
use crate::verdict::three;

/// The keys of a cell's estimates over injections.
pub const KEYS: [&str; 11] = [
    RECOVERY,
    OUTAGE,
    "after_ready_s",
    "time_to_effect_s",
    "time_to_detect_s",
    "system_detects_s",
    "drain_s",
    "bad_operations",
    "lost_work",
    "budget_burnt_percent",
    "fault_availability_percent",
];
const RECOVERY: &str = "recovery_s";
const OUTAGE: &str = "outage_s";
/// The keys that lack their end where users did not recover.
const OPEN_ENDED: [&str; 6] =
    [RECOVERY, OUTAGE, "after_ready_s", "bad_operations", "lost_work", "budget_burnt_percent"];

/// What the injections of a cell's valid trials say together. Those that struck together count once; those that were
/// skipped do not count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CellRecovery {
    /// Injections that took place.
    pub injections: usize,
    /// Trials they took place in.
    pub trials: usize,
    /// Those after which no window left the band: no second was worse than usual, though operations may have failed.
    pub absorbed: usize,
    /// Those that were not recovered from while they were watched.
    pub censored: usize,
    /// Those of which nothing can be said, most for their baseline.
    pub unknown: usize,
    /// Those that this machine could not do.
    pub skipped: usize,
    /// Those that were recovered from more than once: users were served as before, and then again not.
    #[serde(default)]
    pub relapsed: usize,
    /// Those after which the load kept the system down although the fault was gone.
    pub metastable: usize,
    /// Of those that were not recovered from, although no work was lost any more when watching ended: for each, how many
    /// seconds after the fault was gone that was.
    #[serde(default)]
    pub worse_off_s: Vec<f64>,
    /// Roles that something was injected into, and how many replicas each had; 0 where nobody counted them.
    #[serde(default)]
    pub targets: BTreeMap<String, usize>,
    /// Operations offered over the measured windows of all trials.
    #[serde(default)]
    pub offered: u64,
    /// Those of them that may be repeated safely.
    #[serde(default)]
    pub offered_repeatable: u64,
    /// The Kaplan–Meier median (1958) of the time to recover, in seconds: where all recovered, the plain one. None where
    /// half of them did not.
    pub median_s: Option<f64>,
    /// The lower end of its 95 % interval (Brookmeyer & Crowley 1982, on the log-log scale); none where it has none.
    pub median_low_s: Option<f64>,
    /// The upper end.
    pub median_high_s: Option<f64>,
    /// The shortest and the longest of those that recovered, in seconds; absorbed is 0.
    pub range_s: Option<(f64, f64)>,
    /// Of those that did not: for each, it took longer than so many seconds.
    pub longer_than_s: Vec<f64>,
    /// Of those: their outage-equivalent seconds until watching ended.
    pub outage_more_than_s: Vec<f64>,
    /// Kinds of operation that were served worse than usual, and after how many injections.
    pub blast_radius: BTreeMap<String, usize>,
    /// What all this rests on, in a sentence.
    pub statement: String,
}

/// Estimates over injections and trials, by key, with what they rest on; none where nothing was to be broken.
pub(crate) fn summarize(valid: &[&TrialSummary]) -> Option<(BTreeMap<String, Estimate>, CellRecovery)> {
    let of_trials: Vec<_> = valid.iter().filter_map(|trial| trial.recovery.as_ref()).collect();
    if of_trials.is_empty() {
        return None;
    }
    let all: Vec<&Recovery> = of_trials.iter().flat_map(|recovery| &recovery.injections).collect();
    let (skipped, struck): (Vec<&Recovery>, Vec<&Recovery>) =
        all.iter().partition(|recovery| recovery.injection.skipped.is_some());
    let units: Vec<&Recovery> = struck.into_iter().filter(|recovery| recovery.together_with.is_none()).collect();
    let trials =
        of_trials.iter().filter(|trial| trial.injections.iter().any(|r| r.injection.skipped.is_none())).count();
    let mut cell = of(&units, &skipped, trials);
    cell.targets = targets(valid);
    cell.offered = of_trials.iter().map(|trial| trial.offered).sum();
    cell.offered_repeatable = of_trials.iter().map(|trial| trial.offered_repeatable).sum();
    let mut metrics: BTreeMap<String, Estimate> =
        KEYS.iter().map(|key| ((*key).to_owned(), over_injections(key, &units, &cell))).collect();
    let by_trial = |key: &str, value: fn(&crate::measure::RecoverySummary) -> Option<f64>| {
        let reason = of_trials.iter().find_map(|trial| trial.null_reasons.get(key).cloned());
        estimate(key, &of_trials.iter().map(|trial| value(trial)).collect::<Vec<_>>(), reason)
    };
    for (key, found) in [
        ("availability_percent", by_trial("availability_percent", |trial| trial.availability_percent)),
        (
            "availability_repeatable_percent",
            by_trial("availability_repeatable_percent", |trial| trial.availability_repeatable_percent),
        ),
        ("amplification", by_trial("amplification", |trial| trial.amplification)),
    ] {
        metrics.insert(key.to_owned(), found);
    }
    metrics.insert("lost".to_owned(), lost(valid));
    Some((metrics, cell))
}

/// Acknowledged writes that were lost. What was found in spite of a check that is not whole is no mean, and is told.
fn lost(valid: &[&TrialSummary]) -> Estimate {
    let unchecked = valid.iter().find_map(|trial| trial.lost.as_ref()?.unchecked.clone());
    let told = |lost: &&Lost| lost.unchecked.is_none() || lost.lost > 0;
    let each = valid.iter().map(|trial| trial.lost.as_ref().filter(told).map(|lost| lost.lost as f64));
    let why = unchecked.clone().unwrap_or_else(|| "what was written was not read back".to_owned());
    let found = estimate("lost", &each.collect::<Vec<_>>(), Some(why));
    match unchecked {
        Some(why) => Estimate { values: found.values, null_reason: Some(why), ..Estimate::default() },
        None => found,
    }
}

/// The roles that were struck, or were to be where none was, with how many replicas a trial knows of.
fn targets(valid: &[&TrialSummary]) -> BTreeMap<String, usize> {
    let of = |is_wanted: fn(&Recovery) -> bool| {
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for trial in valid {
            for recovery in trial.recovery.iter().flat_map(|all| &all.injections).filter(|each| is_wanted(each)) {
                let role = &recovery.injection.role;
                let replicas = trial.replicas.iter().filter(|replica| replica.role == *role).count();
                let most = found.entry(role.clone()).or_default();
                *most = replicas.max(*most);
            }
        }
        found
    };
    let struck = of(|recovery| recovery.injection.skipped.is_none() && recovery.injection.command_s.is_some());
    if struck.is_empty() { of(|_| true) } else { struck }
}

fn of(units: &[&Recovery], skipped: &[&Recovery], trials: usize) -> CellRecovery {
    let count = |wanted: fn(&Recovery) -> bool| units.iter().filter(|recovery| wanted(recovery)).count();
    let known: Vec<(f64, bool)> = units
        .iter()
        .filter_map(|recovery| Some((recovery.recovered.seconds()?, recovery.recovered.is_censored())))
        .collect();
    let ended = || known.iter().filter(|(_, censored)| !censored).map(|(s, _)| *s);
    let median = kaplan_meier(&known);
    let mut cell = CellRecovery {
        injections: units.len(),
        trials,
        absorbed: count(|recovery| recovery.recovered == Recovered::Absorbed),
        censored: count(|recovery| recovery.recovered.is_censored()),
        unknown: count(|recovery| recovery.recovered == Recovered::Unknown),
        skipped: skipped.len(),
        relapsed: count(|recovery| recovery.relapsed_s.is_some()),
        metastable: count(|recovery| recovery.metastable == Some(true)),
        worse_off_s: units
            .iter()
            .filter(|recovery| recovery.recovered.is_censored() && recovery.metastable == Some(false))
            .filter_map(|recovery| Some(recovery.suffered_to_s? - recovery.injection.ready_s?))
            .collect(),
        median_s: median.estimate,
        median_low_s: median.low,
        median_high_s: median.high,
        range_s: ended().min_by(f64::total_cmp).zip(ended().max_by(f64::total_cmp)),
        longer_than_s: known.iter().filter(|(_, censored)| *censored).map(|(s, _)| *s).collect(),
        outage_more_than_s: units
            .iter()
            .filter(|recovery| recovery.recovered.is_censored())
            .filter_map(|recovery| recovery.outage_equivalent_s)
            .collect(),
        ..CellRecovery::default()
    };
    for kind in units.iter().flat_map(|recovery| &recovery.blast_radius) {
        *cell.blast_radius.entry(kind.clone()).or_default() += 1;
    }
    let why = units.iter().find_map(|recovery| recovery.unknown.as_deref());
    let cannot = skipped.iter().find_map(|recovery| recovery.injection.skipped.as_deref());
    cell.statement = statement(&cell, why, cannot);
    cell
}

fn statement(cell: &CellRecovery, why: Option<&str>, cannot: Option<&str>) -> String {
    let count = |n: usize, noun: &str| if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") };
    let mut parts = vec![format!("{} in {}", count(cell.injections, "injection"), count(cell.trials, "trial"))];
    if cell.absorbed > 0 {
        parts.push(format!("{} absorbed", cell.absorbed));
    }
    if let Some(least) = cell.longer_than_s.iter().copied().min_by(f64::total_cmp) {
        let median = match cell.median_s {
            Some(median) => format!("the Kaplan–Meier median is {} s", three(median)),
            None => "the median is longer than what was watched".to_owned(),
        };
        parts.push(format!("{} not recovered from within {} s or more: {median}", cell.censored, three(least)));
    }
    if cell.metastable > 0 {
        parts.push(format!("{} left the system down although the fault was gone", cell.metastable));
    }
    if let Some(why) = why.filter(|_| cell.unknown > 0) {
        parts.push(format!("{} unknown ({why})", cell.unknown));
    }
    if let Some(cannot) = cannot {
        parts.push(format!("{} skipped ({cannot})", cell.skipped));
    }
    parts.join("; ")
}

fn over_injections(key: &str, units: &[&Recovery], cell: &CellRecovery) -> Estimate {
    let of = |recovery: &&Recovery| match key {
        RECOVERY => recovery.recovered.seconds(),
        OUTAGE => recovery.outage_equivalent_s,
        "after_ready_s" => recovery.after_ready_s,
        "time_to_effect_s" => recovery.time_to_effect_s,
        "time_to_detect_s" => recovery.time_to_detect_s,
        "system_detects_s" => recovery.system_detects_s,
        "drain_s" => recovery.drain_s,
        "bad_operations" => recovery.bad_operations.map(|count| count as f64),
        "lost_work" => recovery.lost_work,
        "budget_burnt_percent" => recovery.budget_burnt_percent,
        _ => recovery.availability_percent,
    };
    let source = match key {
        "fault_availability_percent" => "availability_percent",
        _ => key,
    };
    if units.is_empty() {
        let why = if cell.skipped > 0 { cell.statement.clone() } else { "nothing was injected".to_owned() };
        return Estimate { null_reason: Some(why), ..Estimate::default() };
    }
    if cell.censored > 0 && OPEN_ENDED.contains(&key) {
        let values = units.iter().filter(|recovery| !recovery.recovered.is_censored()).filter_map(of).collect();
        return Estimate { values, null_reason: Some(cell.statement.clone()), ..Estimate::default() };
    }
    // Where there is no baseline there is a guard that says so, and how often; the others were still measured.
    let needs_baseline = key != "time_to_effect_s";
    let known = || units.iter().filter(|recovery| !needs_baseline || recovery.recovered != Recovered::Unknown);
    // What was never felt was never detected.
    let felt = || known().filter(|recovery| key != "time_to_detect_s" || recovery.recovered != Recovered::Absorbed);
    let each: Vec<Option<f64>> = if felt().count() > 0 { felt().map(of).collect() } else { known().map(of).collect() };
    let own = known().find_map(|recovery| recovery.null_reasons.get(source).cloned());
    let reason = own.or_else(|| units.iter().find_map(|recovery| recovery.unknown.clone()));
    estimate(key, &each, reason)
}

/// Mean and t-interval; none where one lacks the number, because the mean of the others would be of a different thing.
fn estimate(key: &str, each: &[Option<f64>], reason: Option<String>) -> Estimate {
    let values: Vec<f64> = each.iter().copied().flatten().collect();
    if values.is_empty() || values.len() < each.len() {
        let reason = reason.unwrap_or_else(|| "it was not measured".to_owned());
        return Estimate { values, null_reason: Some(reason), ..Estimate::default() };
    }
    let interval = stats::t_interval(&values);
    let most = if key.starts_with("availability") || key.starts_with("fault_availability") { 100.0 } else { f64::MAX };
    Estimate {
        mean: stats::mean(&values),
        low: interval.map(|interval| interval.low.max(0.0)),
        high: interval.map(|interval| interval.high.min(most)),
        values,
        ..Estimate::default()
    }
}

/// A median with its interval, as far as it has them.
#[derive(Debug, Default, PartialEq)]
struct Median {
    estimate: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
}

/// The median of times of which some are only known to be longer than what was watched: where the product-limit estimate
/// of the share that takes longer falls to a half, and where its pointwise 95 % interval does.
fn kaplan_meier(times: &[(f64, bool)]) -> Median {
    let mut ends: Vec<f64> = times.iter().filter(|(_, censored)| !censored).map(|(s, _)| *s).collect();
    ends.sort_by(f64::total_cmp);
    ends.dedup();
    let (mut longer, mut greenwood) = (1.0_f64, 0.0_f64);
    let mut median = Median::default();
    for end in ends {
        let at_risk = times.iter().filter(|(s, _)| *s >= end).count() as f64;
        let ended = times.iter().filter(|(s, censored)| *s == end && !censored).count() as f64;
        longer *= 1.0 - ended / at_risk;
        greenwood += if at_risk > ended { ended / (at_risk * (at_risk - ended)) } else { 0.0 };
        let half = 0.5 + 1e-12;
        if longer <= half {
            median.estimate = median.estimate.or(Some(end));
        }
        // Where nobody is left, the share is zero and has no spread.
        let (low, high) = if longer > 0.0 {
            let spread = 1.96 * greenwood.sqrt() / longer.ln();
            (longer.powf((-spread).exp()), longer.powf(spread.exp()))
        } else {
            (0.0, 1.0)
        };
        if low.min(high) <= half {
            median.low = median.low.or(Some(end));
        }
        if low.max(high) <= half {
            median.high = median.high.or(Some(end));
        }
    }
    // With one time, or with none that is known to have ended, there is no spread.
    if times.len() < 2 { Median { low: None, high: None, ..median } } else { median }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_counts_those_that_were_not_watched_to_their_end() {
        let ended = |times: &[f64]| times.iter().map(|s| (*s, false)).collect::<Vec<_>>();
        let with = |times: &[f64], longer: &[f64]| {
            ended(times).into_iter().chain(longer.iter().map(|s| (*s, true))).collect::<Vec<_>>()
        };
        let cases = [
            (ended(&[3.0, 1.0, 2.0]), Some(2.0)),
            (with(&[5.0, 6.0, 7.0], &[40.0, 40.0]), Some(7.0)),
            // Longer than 1 s says little: of the four still watched two end by 6 s.
            (with(&[5.0, 6.0, 7.0, 8.0], &[1.0]), Some(6.0)),
            (with(&[5.0, 6.0], &[40.0, 40.0, 40.0]), None),
            (with(&[], &[40.0]), None),
        ];
        for (times, expected) in cases {
            assert_eq!(kaplan_meier(&times).estimate, expected, "{times:?}");
        }
    }

    #[test]
    fn the_interval_of_a_median_is_that_of_the_tables() {
        // The share after the first of ten is 0.9 with the limits 0.473 and 0.985, after the eighth 0.2 with 0.031 and 0.475.
        let times: Vec<(f64, bool)> = (1..=10).map(|s| (f64::from(s), false)).collect();
        let median = kaplan_meier(&times);
        assert_eq!((median.estimate, median.low, median.high), (Some(5.0), Some(1.0), Some(8.0)), "{median:?}");
    }
}

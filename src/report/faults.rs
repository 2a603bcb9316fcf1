//! What a study of faults consists of: its arms, the trial of each that is drawn, and when its faults struck.
//!
//! The one rule: a fault lasts from its effect to ready. The command is an intention, and the repair another one.

use std::collections::BTreeMap;

use crate::faults::Injection;
use crate::measure::recovery::{Recovered, Recovery, RecoverySummary};
use crate::measure::{Sample, SecondSummary, TrialSummary};
use crate::report::{ReportInput, number};

/// The valid trials of one cell in which something was injected.
pub struct Arm<'a> {
    /// Its name.
    pub label: String,
    /// Its place in the palette, the same in every figure.
    pub color: usize,
    /// At least one.
    pub trials: Vec<&'a TrialSummary>,
}

/// Whether faults were planned in any of its trials.
pub fn is_fault_study(input: &ReportInput) -> bool {
    input.trials.iter().any(|trial| trial.recovery.as_ref().is_some_and(|recovery| !recovery.injections.is_empty()))
}

/// The arms, in the order of the study.
pub fn arms<'a>(input: &ReportInput<'a>) -> Vec<Arm<'a>> {
    let mut arms: Vec<Arm> = Vec::new();
    for curve in &input.study.curves {
        for cell in &curve.cells {
            let trials: Vec<&TrialSummary> = input
                .trials
                .iter()
                .filter(|trial| trial.valid && trial.levels == cell.levels && has_struck(trial))
                .collect();
            if trials.is_empty() {
                continue;
            }
            let label = match input.study.x.as_deref() {
                Some(x) if curve.cells.len() > 1 => match curve.label.as_str() {
                    "all" => format!("{x} {}", number::digits(cell.x)),
                    label => format!("{label}, {x} {}", number::digits(cell.x)),
                },
                _ => curve.label.clone(),
            };
            arms.push(Arm { label, color: arms.len(), trials });
        }
    }
    let said = said_by_all(&arms);
    arms.iter_mut().for_each(|arm| drop(arm.label.drain(..said)));
    arms
}

/// How many bytes the names of several arms have in common at their beginning, in whole parts: what all share tells none
/// from the others.
fn said_by_all(arms: &[Arm<'_>]) -> usize {
    let Some((first, others)) = arms.split_first().filter(|(_, others)| !others.is_empty()) else { return 0 };
    let ends = first.label.match_indices(", ").map(|(at, separator)| at + separator.len());
    ends.take_while(|end| others.iter().all(|arm| arm.label.starts_with(&first.label[..*end]))).last().unwrap_or(0)
}

/// What was injected into a trial, and what came of it.
pub fn injections(trial: &TrialSummary) -> &[Recovery] {
    trial.recovery.as_ref().map_or(&[], |recovery| recovery.injections.as_slice())
}

/// Those that had an effect, in the order of their effects.
pub fn effects(trial: &TrialSummary) -> impl Iterator<Item = (f64, &Recovery)> {
    injections(trial).iter().filter_map(|recovery| Some((recovery.injection.effect_s?, recovery)))
}

fn has_struck(trial: &TrialSummary) -> bool {
    effects(trial).next().is_some()
}

/// When the first effect was seen; 0 where there was none.
pub fn origin(trial: &TrialSummary) -> f64 {
    effects(trial).map(|(at, _)| at).reduce(f64::min).unwrap_or(0.0)
}

/// The outage-equivalent seconds of all injections of a trial together; none where one of them could not be judged, because
/// a part is not the whole.
pub fn outage(trial: &TrialSummary) -> Option<f64> {
    felt(trial).next()?;
    felt(trial).map(|recovery| recovery.outage_equivalent_s).sum()
}

/// Whether the outage of a trial is only the least it can have been, because watching ended before users recovered.
pub fn is_censored(trial: &TrialSummary) -> bool {
    felt(trial).any(|recovery| recovery.recovered.is_censored())
}

/// The injections of a trial that count: what struck together was felt once, what was skipped not at all.
pub fn felt(trial: &TrialSummary) -> impl Iterator<Item = &Recovery> {
    let counts = |recovery: &&Recovery| recovery.together_with.is_none() && recovery.injection.skipped.is_none();
    injections(trial).iter().filter(counts)
}

impl<'a> Arm<'a> {
    /// The trial with the median outage, the lower one of two; the first where no outage is known.
    pub fn typical(&self) -> &'a TrialSummary {
        let mut known: Vec<(f64, &TrialSummary)> =
            self.trials.iter().filter_map(|trial| Some((outage(trial)?, *trial))).collect();
        known.sort_by(|a, b| a.0.total_cmp(&b.0));
        known.get(known.len().saturating_sub(1) / 2).map_or(self.trials[0], |(_, trial)| *trial)
    }

    /// Which trial that is, in words.
    pub fn which(&self) -> String {
        let name = &self.typical().name;
        match (self.trials.len(), outage(self.typical())) {
            (1, _) => format!("trial {name}"),
            (count, Some(_)) => format!("trial {name}, the median of {count} by outage"),
            (count, None) => format!("trial {name}, the first of {count}"),
        }
    }

    /// The other trials whose faults came at the same times, counted from the first effect: those that can lie behind it.
    pub fn others(&self) -> Vec<&'a TrialSummary> {
        const APART_S: f64 = 2.0;
        let typical = self.typical();
        let times = |trial: &TrialSummary| effects(trial).map(|(at, _)| at - origin(trial)).collect::<Vec<f64>>();
        let wanted = times(typical);
        let fits = |trial: &&TrialSummary| {
            let own = times(trial);
            own.len() == wanted.len() && own.iter().zip(&wanted).all(|(a, b)| (a - b).abs() <= APART_S)
        };
        self.trials.iter().copied().filter(|trial| trial.name != typical.name).filter(fits).collect()
    }
}

/// The injection of a trial that cost most: the largest outage, the first of equals.
pub fn costliest(trial: &TrialSummary) -> Option<&Recovery> {
    let cost = |recovery: &Recovery| recovery.outage_equivalent_s.unwrap_or(0.0);
    effects(trial).map(|(_, recovery)| recovery).reduce(|a, b| if cost(b) > cost(a) { b } else { a })
}

/// `task-service 1`, of a link `gateway → task-service 1`.
pub fn target(injection: &Injection) -> String {
    let to = format!("{} {}", injection.role, injection.replica);
    match injection.from.as_deref() {
        Some("load") => format!("load generator → {to}"),
        Some(from) => format!("{from} → {to}"),
        None => to,
    }
}

/// When users were served as before, for good, in seconds since the trial's start; none where it was not, or never left the
/// band, or where another injection stands for this one.
pub fn recovered_s(recovery: &Recovery) -> Option<f64> {
    match (recovery.injection.effect_s, recovery.recovered) {
        _ if recovery.together_with.is_some() => None,
        (Some(effect), Recovered::After(s)) => Some(effect + s),
        _ => None,
    }
}

/// Until when an injection was watched or lasted, whatever is known and latest.
pub fn end_s(recovery: &Recovery) -> Option<f64> {
    let effect = recovery.injection.effect_s?;
    let watched = match recovery.recovered {
        Recovered::After(s) | Recovered::NotWithin(s) => effect + s,
        Recovered::Absorbed | Recovered::Unknown => effect,
    };
    Some(recovery.injection.ready_s.unwrap_or(effect).max(watched))
}

/// `absorbed`, `6.1 s`, `> 30 s`; none where it cannot be said.
pub fn recovered(recovered: Recovered) -> Option<String> {
    match recovered {
        Recovered::Unknown => None,
        Recovered::Absorbed => Some("absorbed".to_owned()),
        Recovered::After(s) => Some(number::seconds(s)),
        Recovered::NotWithin(s) => Some(format!("> {}", number::seconds(s))),
    }
}

/// Share of a second's operations that did not end well, in percent; none where none were due.
pub fn bad_percent(second: &SecondSummary) -> Option<f64> {
    let bad = second.offered.saturating_sub(second.ok) as f64;
    (second.offered > 0).then(|| 100.0 * bad / second.offered as f64)
}

/// One number of each trial of an arm that has it.
pub fn each(arm: &Arm, pick: impl Fn(&RecoverySummary) -> Option<f64>) -> Vec<f64> {
    arm.trials.iter().filter_map(|trial| pick(trial.recovery.as_ref()?)).collect()
}

/// Tries at upstreams for each operation that was due, by second: `tries` are sums that only grow, of each replica its own.
/// A second in which nothing was due, or a replica began anew, has none.
pub fn tries(samples: &[Sample], trial: &TrialSummary) -> BTreeMap<u32, f64> {
    let mut by_replica: BTreeMap<(&str, u32), Vec<(f64, f64)>> = BTreeMap::new();
    for sample in samples {
        let Some(value) = sample.value else { continue };
        by_replica.entry((&sample.role, sample.replica)).or_default().push((sample.t_s, value));
    }
    let mut rates: BTreeMap<u32, f64> = BTreeMap::new();
    for readings in by_replica.values() {
        for pair in readings.windows(2) {
            let [(from, before), (to, after)] = [pair[0], pair[1]];
            // Readings come once a second; a longer gap says nothing of the seconds within it. What is told counts for the
            // second of the telling: at most a second late, and never before its cause.
            if (0.5..=1.5).contains(&(to - from)) && after >= before && from >= 0.0 {
                *rates.entry(to as u32).or_default() += (after - before) / (to - from);
            }
        }
    }
    let ratio = |second: &SecondSummary| {
        let rate = rates.get(&second.second).filter(|_| second.offered > 0)?;
        Some((second.second, rate / second.offered as f64))
    };
    trial.seconds.iter().filter_map(ratio).collect()
}

/// The seconds of a trial until the end of its measured window: what comes after is the rest of the schedule, not what the
/// system does.
pub fn watched(trial: &TrialSummary) -> &[SecondSummary] {
    let end = trial.seconds.iter().rposition(|second| second.measured).map_or(trial.seconds.len(), |last| last + 1);
    &trial.seconds[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_arms_share_is_left_out_of_their_names() {
        for (labels, expected) in [
            (&["microservices, none", "microservices, retry"][..], &["none", "retry"][..]),
            (&["microservices, 3, none", "microservices, 3, retry"], &["none", "retry"]),
            (&["monolith", "microservices"], &["monolith", "microservices"]),
            (&["microservices", "microservices, retry"], &["microservices", "microservices, retry"]),
            (&["microservices, none"], &["microservices, none"]),
        ] {
            let arm = |label: &&str| Arm { label: (*label).to_owned(), color: 0, trials: Vec::new() };
            let arms: Vec<Arm> = labels.iter().map(arm).collect();
            let said = said_by_all(&arms);
            let short: Vec<&str> = arms.iter().map(|arm| &arm.label[said..]).collect();
            assert_eq!(short, expected);
        }
    }
}

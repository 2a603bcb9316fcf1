//! What faults did to users, in words.
//!
//! One rule: how long they suffered is never said without what the others suffered that were not watched to the end.

use std::collections::BTreeSet;

use crate::experiment::{Experiment, Level};
use crate::faults::{Fault, FaultKind, Which};
use crate::measure::words::{self, capital};
use crate::measure::{CellRecovery, CellSummary, Estimate, StudySummary, stats};
use crate::verdict::three;

/// Below this probability of chance alone a difference between arms is shown.
const SHOWN: f64 = 0.05;

/// The answer of a study with faults; none of one without.
pub fn answer(study: &StudySummary, experiment: &Experiment) -> Option<String> {
    let cells: Vec<(&CellSummary, &CellRecovery)> = study
        .curves
        .iter()
        .flat_map(|curve| &curve.cells)
        .filter(|cell| cell.valid > 0)
        .filter_map(|cell| Some((cell, cell.recovery.as_ref()?)))
        .collect();
    let (first, first_recovery) = *cells.first()?;
    if cells.len() == 1 {
        let (cell, recovery) = cells[0];
        let when = when(experiment, recovery);
        return Some(capital(&format!(
            "{}{}",
            suffered(cell, recovery, &format!(" when {when}")),
            rest(cell, recovery)
        )));
    }
    let names = cells.iter().flat_map(|(cell, _)| cell.levels.keys());
    let differs = |name: &&String| cells.iter().any(|(cell, _)| cell.levels.get(*name) != first.levels.get(*name));
    let varying: BTreeSet<&String> = names.filter(differs).collect();
    let arms = cells.iter().enumerate().map(|(place, (cell, recovery))| {
        // The first says what was done, and the others too where it was not the same.
        let when = when(experiment, recovery);
        let is_told = place > 0 && when == self::when(experiment, first_recovery);
        let when = if is_told { String::new() } else { format!(" when {when}") };
        format!("With {} {}{}", arm(cell, &varying), suffered(cell, recovery, &when), rest(cell, recovery))
    });
    let text = arms.collect::<Vec<_>>().join(". ");
    Some(match compared(&cells, &varying) {
        Some(compared) => format!("{text}. {compared}"),
        None => text,
    })
}

/// `resilience none`, `3 replicas`, `microservices and 3 replicas`.
fn arm(cell: &CellSummary, varying: &BTreeSet<&String>) -> String {
    let told = |(name, level): (&String, &Level)| match (name.as_str(), level.as_f64()) {
        ("architecture", _) => level.to_string(),
        (_, Some(number)) => words::levels(&[number], name),
        _ => format!("{name} {level}"),
    };
    words::list(&cell.levels.iter().filter(|(name, _)| varying.contains(name)).map(told).collect::<Vec<_>>())
}

/// `users suffered 6.1 s (5.8–6.4) when …`.
fn suffered(cell: &CellSummary, recovery: &CellRecovery, when: &str) -> String {
    let judged = recovery.injections - recovery.unknown;
    let of_them = if recovery.unknown > 0 {
        format!(" (in {judged} of {} injections; the others could not be judged)", recovery.injections)
    } else {
        String::new()
    };
    let found = cell.metrics.get("recovery_s");
    match found.and_then(|found| Some((found, found.mean?))) {
        _ if judged == 0 => {
            let why = found.and_then(|found| found.null_reason.as_deref()).unwrap_or(&recovery.statement);
            format!("what users suffered{when} cannot be told: {why}")
        }
        _ if recovery.censored > 0 => {
            let least = recovery.longer_than_s.iter().copied().fold(f64::INFINITY, f64::min);
            let longer = format!(
                "in {} of {judged} injections users had not recovered after {} s",
                recovery.censored,
                three(least)
            );
            match recovery.median_s {
                Some(median) => {
                    format!("users suffered {} s in the median{when}, and {longer}{of_them}", three(median))
                }
                None => format!("{longer}{when}{of_them}"),
            }
        }
        _ if recovery.absorbed == judged => {
            let bad = cell.metrics.get("bad_operations").and_then(|bad| bad.mean);
            let nothing = if bad == Some(0.0) { "users noticed nothing" } else { "no second was worse than usual" };
            format!("{nothing}{when}{of_them}")
        }
        Some((found, mean)) => {
            format!("users suffered {} s{}{when}{of_them}", three(mean), within(found.low, found.high))
        }
        None => format!("what users suffered{when} cannot be told: {}", recovery.statement),
    }
}

fn within(low: Option<f64>, high: Option<f64>) -> String {
    match (low, high) {
        (Some(low), Some(high)) => format!(" ({}–{})", three(low), three(high)),
        _ => String::new(),
    }
}

/// What else is known: whether it came back at all, and stayed; operations that failed, what was served, what was lost.
fn rest(cell: &CellSummary, recovery: &CellRecovery) -> String {
    let mean = |key: &str| cell.metrics.get(key).and_then(|found| found.mean);
    let on_average = if recovery.injections > 1 { " an injection" } else { "" };
    let bad = mean("bad_operations").map(|bad| match bad {
        0.0 => "no operation failed".to_owned(),
        1.0 => format!("1 operation failed{on_average}"),
        bad => format!("{} operations failed{on_average}", three(bad)),
    });
    let repeatable = mean("availability_repeatable_percent");
    let repeatable = repeatable.map(|percent| format!("{} % of repeatable operations were served", share(percent)));
    let held = (recovery.metastable > 0).then(|| {
        format!(
            "after {} of {} the load kept the system down although the fault was gone (metastable)",
            recovery.metastable, recovery.injections
        )
    });
    let worse_off = recovery.worse_off_s.iter().copied().min_by(f64::total_cmp).map(|least| {
        format!(
            "after {} of {} users were still worse off than usual {} s after the fault was gone, under the same load",
            recovery.worse_off_s.len(),
            recovery.injections,
            three(least)
        )
    });
    let judged = recovery.injections - recovery.unknown;
    let again =
        (recovery.relapsed > 0).then(|| format!("in {} of {judged} injections it came again", recovery.relapsed));
    let lost = cell.metrics.get("lost").map(lost);
    [held, worse_off, again, bad, repeatable, lost].into_iter().flatten().map(|part| format!("; {part}")).collect()
}

/// Where not all was checked, what was found is the least that was lost.
fn lost(lost: &Estimate) -> String {
    let why = lost.null_reason.as_deref().unwrap_or("nobody said why");
    let least = if lost.mean.is_some() { String::new() } else { "at least ".to_owned() };
    let not_all = if lost.mean.is_some() { String::new() } else { format!(" (not all was checked: {why})") };
    match (lost.mean, lost.values.iter().sum::<f64>()) {
        (Some(_), 0.0) => "no acknowledged write was lost".to_owned(),
        (_, 1.0) => format!("{least}1 acknowledged write was lost{not_all}"),
        (_, lost) if lost > 0.0 => format!("{least}{lost} acknowledged writes were lost{not_all}"),
        _ => format!("whether an acknowledged write was lost is not known: {why}"),
    }
}

/// A percentage near 100, of which the first nines say little.
fn share(percent: f64) -> String {
    let text = format!("{percent:.3}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Which arm spares users most, where that is shown; that it is not, where two were compared in vain.
fn compared(cells: &[(&CellSummary, &CellRecovery)], varying: &BTreeSet<&String>) -> Option<String> {
    let mut ranked: Vec<(&CellSummary, &Vec<f64>)> = Vec::new();
    for (cell, recovery) in cells {
        // What was not watched to its end has no place in a comparison of means.
        if recovery.censored > 0 || recovery.unknown > 0 {
            return None;
        }
        let found = cell.metrics.get("recovery_s").filter(|found| found.mean.is_some() && found.values.len() > 1)?;
        ranked.push((cell, &found.values));
    }
    ranked.sort_by(|a, b| stats::mean(a.1).unwrap_or(0.0).total_cmp(&stats::mean(b.1).unwrap_or(0.0)));
    let (best, others) = ranked.split_first()?;
    let is_shown = |other: &Vec<f64>| stats::welch_p(best.1, other).is_some_and(|p| p < SHOWN / others.len() as f64);
    if others.iter().all(|(_, other)| is_shown(other)) {
        return Some(format!("Users suffered least with {}", arm(best.0, varying)));
    }
    (others.len() == 1).then(|| "No difference between the two in what users suffered could be shown".to_owned())
}

/// `task-service was stopped for 10 s`: the faults of the experiment that this cell has.
fn when(experiment: &Experiment, recovery: &CellRecovery) -> String {
    let replicas = |fault: &Fault| recovery.targets.get(&fault.role).copied();
    let is_here = |fault: &&Fault| recovery.targets.is_empty() || replicas(fault).is_some();
    let told = experiment.faults.iter().filter(is_here).map(|fault| phrase(fault, replicas(fault).unwrap_or(0)));
    match told.collect::<Vec<_>>().as_slice() {
        [] => "a fault was injected".to_owned(),
        several => words::list(several),
    }
}

fn phrase(fault: &Fault, replicas: usize) -> String {
    const NUMBERS: [&str; 8] = ["two", "three", "four", "five", "six", "seven", "eight", "nine"];
    let role = &fault.role;
    let number = || replicas.checked_sub(2).and_then(|place| NUMBERS.get(place));
    let whom = match (fault.replica, replicas) {
        (_, 1) => role.clone(),
        (Which::All, _) => format!("every {role}"),
        (_, 0) => role.clone(),
        _ => format!("one of {} {role}s", number().map_or_else(|| replicas.to_string(), |word| (*word).to_owned())),
    };
    let held = format!("{} s", three(fault.downtime.as_secs_f64()));
    match fault.kinds.as_slice() {
        [FaultKind::Restart] => format!("{whom} was restarted"),
        [FaultKind::StopStart] => format!("{whom} was stopped for {held}"),
        [FaultKind::Kill] => format!("{whom} was killed and started again after {held}"),
        [FaultKind::Pause] => format!("{whom} was paused for {held}"),
        [FaultKind::CpuBurn { .. }] => format!("{whom} shared its CPUs with other work for {held}"),
        [FaultKind::MemoryHog { .. }] => format!("other work beside {whom} took memory for {held}"),
        [kind @ FaultKind::Link(_)] => {
            let from = fault.from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
            format!("the link{from} to {whom} had the fault {} for {held}", kind.name())
        }
        several => {
            let names: Vec<&str> = several.iter().map(FaultKind::name).collect();
            format!("{whom} had a fault for {held}, drawn from {}", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::When;
    use crate::measure::recovery::made::{self, failed, good, injection};
    use crate::measure::samples::{experiment, participant};
    use crate::measure::{Lost, TrialSummary, summarize_study, summarize_trial};
    use crate::verdict::{Decision, Slo, decide};
    use std::time::Duration;

    /// A stop from 30 s on, of which users suffer for so long in a trial of 90 s; 100 operations a second.
    fn trial(index: usize, replicas: i64, suffers: u32) -> TrialSummary {
        let fault = injection(30.0, 30.0, 40.0, 40.0);
        let mut record = made::record(90, vec![fault], |second| {
            vec![if (30..30 + suffers).contains(&second) { failed(100) } else { good(100, 20.0) }]
        });
        (record.trial.index, record.trial.name) = (index, format!("{index:03}"));
        record.trial.levels = [("replicas".to_owned(), Level::Int(replicas))].into();
        record.participants = (1..=replicas).map(|one| participant("task-service", one as u32, true)).collect();
        record.repeatable = ["list".to_owned()].into();
        record.lost = Some(Lost::default());
        summarize_trial(&record)
    }

    fn of(replicas: &[i64], kinds: Vec<FaultKind>) -> Experiment {
        let mut experiment = experiment(Duration::ZERO);
        experiment.factors = [("replicas".to_owned(), replicas.iter().copied().map(Level::Int).collect())].into();
        experiment.faults = vec![Fault {
            at: When::At(Duration::from_secs(30)),
            kinds,
            role: "task-service".to_owned(),
            replica: Which::One(1),
            from: None,
            downtime: Duration::from_secs(10),
            every: Duration::from_secs(20),
            times: 1,
        }];
        experiment
    }

    fn said(experiment: &Experiment, trials: &[TrialSummary]) -> String {
        summarize_study(experiment, trials).answer
    }

    fn trials(replicas: i64, suffers: &[u32]) -> Vec<TrialSummary> {
        suffers.iter().enumerate().map(|(index, suffers)| trial(index, replicas, *suffers)).collect()
    }

    #[test]
    fn a_stranger_is_told_how_long_how_many_and_what_was_lost() {
        let one = of(&[1], vec![FaultKind::StopStart]);
        assert_eq!(
            said(&one, &trials(1, &[10, 10, 11, 12, 12])),
            "Users suffered 11 s (9.76–12.2) when task-service was stopped for 10 s; 1100 operations failed an injection; \
             87.778 % of repeatable operations were served; no acknowledged write was lost."
        );
        assert_eq!(
            said(&one, &trials(1, &[0])),
            "Users noticed nothing when task-service was stopped for 10 s; no operation failed; \
             100 % of repeatable operations were served; no acknowledged write was lost."
        );
        let mut lossy = trials(1, &[10, 10]);
        lossy[1].lost = Some(Lost { lost: 3, ..Lost::default() });
        assert!(said(&one, &lossy).ends_with("; 3 acknowledged writes were lost."));
        let why = "it did not answer".to_owned();
        lossy[1].lost = Some(Lost { lost: 3, unchecked: Some(why), ..Lost::default() });
        let least = "; at least 3 acknowledged writes were lost (not all was checked: it did not answer).";
        assert!(said(&one, &lossy).ends_with(least), "{}", said(&one, &lossy));
        lossy[1].lost = None;
        let unknown = "; whether an acknowledged write was lost is not known: what was written was not read back.";
        assert!(said(&one, &lossy).ends_with(unknown));
    }

    #[test]
    fn what_was_not_recovered_from_is_never_left_out() {
        let one = of(&[1], vec![FaultKind::Kill]);
        let when = "when task-service was killed and started again after 10 s";
        let held = "after 1 of 3 the load kept the system down although the fault was gone (metastable)";
        let answer = said(&one, &trials(1, &[10, 12, 60]));
        let expected = format!(
            "Users suffered 12 s in the median {when}, and in 1 of 3 injections users had not recovered after 60 s; {held}"
        );
        assert!(answer.starts_with(&expected), "{answer}");
        let answer = said(&one, &trials(1, &[10, 60, 60]));
        assert!(
            answer.starts_with(&format!("In 2 of 3 injections users had not recovered after 60 s {when}; ")),
            "{answer}"
        );
    }

    /// The same trial with other seconds.
    fn of_seconds(ready_s: f64, of: impl Fn(u32) -> Vec<made::Burst>) -> TrialSummary {
        let mut record = made::record(90, vec![injection(30.0, 30.0, ready_s, ready_s)], of);
        record.trial.levels = [("replicas".to_owned(), Level::Int(1))].into();
        record.lost = Some(Lost::default());
        summarize_trial(&record)
    }

    #[test]
    fn what_came_again_what_was_too_little_to_see_and_what_stays_slow_are_told() {
        let one = of(&[1], vec![FaultKind::StopStart]);
        let few = |second: u32| vec![good(199, 20.0), failed(u64::from((30..40).contains(&second)))];
        let again = |second: u32| match second {
            30..32 | 41..43 => vec![failed(100)],
            _ => vec![good(100, 20.0)],
        };
        let slow = |second: u32| vec![good(100, if second < 30 { 20.0 } else { 60.0 })];
        let when = "when task-service was stopped for 10 s";
        for (trial, expected) in [
            (of_seconds(40.0, few), format!("No second was worse than usual {when}; 10 operations failed; ")),
            (
                of_seconds(41.0, again),
                format!("Users suffered 13 s {when}; in 1 of 1 injections it came again; 400 operations failed; "),
            ),
            (
                of_seconds(40.0, slow),
                format!(
                    "In 1 of 1 injections users had not recovered after 60 s {when}; after 1 of 1 users were still worse \
                     off than usual 50 s after the fault was gone, under the same load; "
                ),
            ),
        ] {
            let answer = said(&one, &[trial]);
            assert!(answer.starts_with(&expected), "{answer}");
        }
    }

    #[test]
    fn only_what_a_cell_has_is_said_to_have_been_broken() {
        let mut two = of(&[1, 3], vec![FaultKind::Kill]);
        two.faults.push(Fault { role: "gateway".to_owned(), ..two.faults[0].clone() });
        let mut gateway = trial(1, 3, 10);
        gateway.recovery.as_mut().unwrap().injections[0].injection.role = "gateway".to_owned();
        gateway.replicas[0].role = "gateway".to_owned();
        let answer = said(&two, &[trial(0, 1, 10), gateway]);
        let killed = |whom: &str| format!("users suffered 10 s when {whom} was killed and started again after 10 s; ");
        for (arm, whom) in [("With 1 replica", "task-service"), ("With 3 replicas", "gateway")] {
            assert!(answer.contains(&format!("{arm} {}", killed(whom))), "{answer}");
        }
    }

    #[test]
    fn an_availability_that_too_few_operations_show_is_unknown() {
        let decided = |text: &str| {
            let trial = trial(0, 1, 0);
            let cell = crate::measure::study::cell(&[&trial], 0.0, "");
            decide(&Slo::try_from(text.to_owned()).unwrap(), &cell)
        };
        // 9000 operations.
        let why = "too-few-ops: none of 9000 operations ended badly, which shows an availability of 99.967 % at most";
        for (text, expected) in [
            ("availability >= 99.9%", Decision::Pass),
            ("availability >= 99.99%", Decision::Unknown(why.to_owned())),
            ("availability_repeatable > 99.99%", Decision::Unknown(why.to_owned())),
            ("availability <= 99.99%", Decision::Fail),
        ] {
            assert_eq!(decided(text), expected, "{text}");
        }
    }

    #[test]
    fn arms_are_compared_where_a_difference_is_shown() {
        let two = of(&[1, 3], vec![FaultKind::StopStart]);
        let both = |one: &[u32], three: &[u32]| said(&two, &[trials(1, one), trials(3, three)].concat());
        let answer = both(&[10, 10, 11], &[2, 2, 1]);
        assert!(
            answer.starts_with(
                "With 1 replica users suffered 10.3 s (8.9–11.8) when task-service was stopped for 10 s; "
            ),
            "{answer}"
        );
        assert!(
            answer.contains(". With 3 replicas users suffered 1.67 s (0.232–3.1) when one of three task-services was "),
            "{answer}"
        );
        assert!(answer.ends_with("no acknowledged write was lost. Users suffered least with 3 replicas."), "{answer}");
        let answer = both(&[10, 10, 11], &[10, 11, 11]);
        assert!(answer.ends_with("No difference between the two in what users suffered could be shown."), "{answer}");
    }

    #[test]
    fn an_objective_on_recovery_fails_where_it_took_longer_than_was_watched() {
        let decided = |text: &str, suffers: &[u32]| {
            let trials = trials(1, suffers);
            let cell = crate::measure::study::cell(&trials.iter().collect::<Vec<_>>(), 0.0, "");
            decide(&Slo::try_from(text.to_owned()).unwrap(), &cell)
        };
        let known: [u32; 5] = [10, 10, 11, 12, 12];
        assert_eq!(decided("recovery <= 15s", &known), Decision::Pass);
        assert_eq!(decided("recovery <= 5s", &known), Decision::Fail);
        assert!(
            matches!(decided("recovery <= 11s", &known), Decision::Unknown(why) if why.contains("9.76–12.2 s spans 11 s"))
        );
        assert_eq!(decided("outage <= 15s", &known), Decision::Pass);
        assert_eq!(decided("availability >= 80%", &known), Decision::Pass);
        assert_eq!(decided("availability_repeatable >= 99.9%", &known), Decision::Fail);
        let censored: [u32; 5] = [10, 10, 11, 12, 60];
        assert_eq!(decided("recovery <= 15s", &censored), Decision::Fail);
        assert_eq!(decided("outage <= 30s", &censored), Decision::Fail);
        let why = "5 injections in 5 trials; 1 not recovered from within 60 s or more: the Kaplan–Meier median is 11 s; \
                   1 left the system down although the fault was gone";
        assert_eq!(decided("recovery <= 90s", &censored), Decision::Unknown(why.to_owned()));
    }

    #[test]
    fn without_a_steady_baseline_an_objective_on_recovery_is_unknown() {
        let early = made::record(90, vec![injection(5.0, 5.0, 9.0, 9.0)], |_| vec![good(100, 20.0)]);
        let well = trial(1, 1, 10);
        let early = TrialSummary { levels: well.levels.clone(), ..summarize_trial(&early) };
        let decided = |text: &str, trials: &[&TrialSummary]| {
            let cell = crate::measure::study::cell(trials, 0.0, "");
            decide(&Slo::try_from(text.to_owned()).unwrap(), &cell)
        };
        let unknown =
            |decision: Decision, start: &str| matches!(&decision, Decision::Unknown(why) if why.starts_with(start));
        assert!(unknown(decided("recovery <= 15s", &[&early]), "baseline: 3 steady seconds"));
        assert!(unknown(decided("recovery <= 15s", &[&early, &well]), "baseline-unstable: baseline: 3 steady seconds"));
        assert_eq!(decided("availability >= 10%", &[&early, &well]), Decision::Pass);
        let study = summarize_study(&of(&[1], vec![FaultKind::Pause]), &[early, well]);
        let expected = "Users suffered 10 s when task-service was paused for 10 s (in 1 of 2 injections; the others could \
                        not be judged); ";
        assert!(study.answer.starts_with(expected), "{}", study.answer);
    }
}

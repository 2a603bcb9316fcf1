//! The tables of a study of faults: each injection, what became of the writes, and availability by operation and user.
//!
//! The one rule of tables holds here too: a cell is text, and what nobody saw is `–`.

use std::collections::BTreeSet;

use crate::measure::recovery::{Baseline, Recovered, Recovery, RecoverySummary};
use crate::measure::{Estimate, Lost, TrialSummary, stats};
use crate::report::faults::{self, Arm};
use crate::report::tables::Table;
use crate::report::{ReportInput, number};

/// All of them; without rows where nothing of the kind was measured.
pub fn all(input: &ReportInput) -> Vec<Table> {
    vec![injections(input), availability(input), writes(input), named(input), usual(input)]
}

fn seconds(value: Option<f64>) -> String {
    value.map_or_else(|| number::NONE.to_owned(), number::seconds)
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| number::NONE.to_owned(), |value| number::with_unit(value, "%"))
}

/// One row an injection.
pub fn injections(input: &ReportInput) -> Table {
    const HEAD: [&str; 16] = [
        "trial",
        "fault",
        "target",
        "command",
        "effect",
        "repair",
        "ready",
        "time to effect",
        "noticed after",
        "recovered",
        "after ready",
        "outage-equivalent",
        "availability meanwhile",
        "bad operations",
        "budget burnt",
        "stays down",
    ];
    let rows = input.trials.iter().flat_map(|trial| faults::injections(trial).iter().map(move |each| row(trial, each)));
    Table::new(
        "Every fault: instants in seconds since the trial's start, the rest counted from the effect",
        &HEAD,
        rows.collect(),
    )
}

fn row(trial: &TrialSummary, recovery: &Recovery) -> Vec<String> {
    let injection = &recovery.injection;
    let recovered = match (&injection.skipped, faults::recovered(recovery.recovered)) {
        (Some(why), _) => format!("skipped: {why}"),
        // What users felt is one event.
        (None, _) if recovery.together_with.is_some() => "with the one before".to_owned(),
        (None, Some(text)) => match &injection.problem {
            Some(problem) => format!("{text} ({problem})"),
            None => text,
        },
        (None, None) => {
            let (unknown, problem) = (recovery.unknown.as_deref(), injection.problem.as_deref());
            let other = problem.filter(|problem| unknown.is_none_or(|unknown| !unknown.contains(problem)));
            let whys: Vec<&str> = unknown.into_iter().chain(other).collect();
            if whys.is_empty() { number::NONE.to_owned() } else { format!("unknown: {}", whys.join("; ")) }
        }
    };
    let noticed = match recovery.recovered {
        Recovered::Absorbed => "never".to_owned(),
        _ => seconds(recovery.time_to_detect_s),
    };
    let stays_down = match recovery.metastable {
        Some(true) => "yes",
        Some(false) => "no",
        None => number::NONE,
    };
    vec![
        trial.name.clone(),
        injection.kind.clone(),
        faults::target(injection),
        seconds(injection.command_s),
        seconds(injection.effect_s),
        seconds(injection.repair_s),
        seconds(injection.ready_s),
        seconds(recovery.time_to_effect_s),
        noticed,
        recovered,
        seconds(recovery.after_ready_s),
        seconds(recovery.outage_equivalent_s),
        percent(recovery.availability_percent),
        recovery.bad_operations.map_or_else(|| number::NONE.to_owned(), number::count),
        percent(recovery.budget_burnt_percent),
        stays_down.to_owned(),
    ]
}

/// What was usual before each injection, and what a window needs to be in band.
pub fn usual(input: &ReportInput) -> Table {
    const HEAD: [&str; 11] = [
        "trial",
        "fault",
        "target",
        "windows",
        "from",
        "to",
        "usual goodput",
        "usual p95",
        "goodput from",
        "errors up to",
        "p95 up to",
    ];
    let row = |trial: &TrialSummary, recovery: &Recovery| {
        let Baseline { from_s, to_s, window_s, windows, goodput_rps, p95_ms, .. } = recovery.baseline?;
        let Baseline { least_goodput_rps, most_error_percent, most_p95_ms, .. } = recovery.baseline?;
        let ms = |value: Option<f64>| value.map_or_else(|| number::NONE.to_owned(), number::milliseconds);
        Some(vec![
            trial.name.clone(),
            recovery.injection.kind.clone(),
            faults::target(&recovery.injection),
            format!("{windows} × {}", number::seconds(window_s)),
            number::seconds(from_s),
            number::seconds(to_s),
            number::with_unit(goodput_rps, "rps"),
            ms(p95_ms),
            number::with_unit(least_goodput_rps, "rps"),
            number::with_unit(most_error_percent, "%"),
            ms(most_p95_ms),
        ])
    };
    let rows = input.trials.iter().flat_map(|trial| faults::injections(trial).iter().map(move |each| (trial, each)));
    Table::new(
        "What was usual before, and what a window needs to be in band",
        &HEAD,
        rows.filter_map(|(trial, each)| row(trial, each)).collect(),
    )
}

/// Availability of each configuration: of all operations, by kind, and by user.
pub fn availability(input: &ReportInput) -> Table {
    let arms = faults::arms(input);
    let kinds: BTreeSet<&String> = arms
        .iter()
        .flat_map(|arm| &arm.trials)
        .filter_map(|trial| trial.recovery.as_ref())
        .flat_map(|recovery| recovery.by_kind.keys())
        .collect();
    type Pick<'p> = Box<dyn Fn(&RecoverySummary) -> Option<f64> + 'p>;
    let mut picks: Vec<(String, Pick)> = vec![
        ("all operations".to_owned(), Box::new(|recovery| recovery.availability_percent)),
        (
            "those that may be sent again safely".to_owned(),
            Box::new(|recovery| recovery.availability_repeatable_percent),
        ),
    ];
    for kind in kinds {
        picks.push((kind.clone(), Box::new(move |recovery| recovery.by_kind.get(kind).copied())));
    }
    picks.push(("the worst user".to_owned(), Box::new(|recovery| Some(recovery.by_user?.worst))));
    picks.push(("the median user".to_owned(), Box::new(|recovery| Some(recovery.by_user?.median))));
    picks.push(("the mean user".to_owned(), Box::new(|recovery| Some(recovery.by_user?.mean))));
    let cell = |arm: &Arm, pick: &Pick| {
        let values = faults::each(arm, pick);
        let interval = stats::t_interval(&values);
        let estimate = Estimate {
            mean: stats::mean(&values),
            low: interval.map(|interval| interval.low.max(0.0)),
            high: interval.map(|interval| interval.high.min(100.0)),
            ..Estimate::default()
        };
        number::estimate(Some(&estimate), "%")
    };
    let mut rows: Vec<Vec<String>> = picks
        .iter()
        .map(|(name, pick)| std::iter::once(name.clone()).chain(arms.iter().map(|arm| cell(arm, pick))).collect())
        .collect();
    rows.retain(|row| row[1..].iter().any(|cell| cell != number::NONE));
    let head: Vec<&str> = std::iter::once("availability of").chain(arms.iter().map(|arm| arm.label.as_str())).collect();
    Table::new(
        "Availability over the measured window: good of those offered, mean over trials with its 95 % interval",
        &head,
        rows,
    )
}

/// One row a trial whose writes were checked.
pub fn writes(input: &ReportInput) -> Table {
    const HEAD: [&str; 12] = [
        "trial",
        "attempted",
        "acknowledged",
        "unknown (found)",
        "lost",
        "duplicated",
        "resurrected",
        "phantom",
        "stale reads",
        "wrong totals",
        "no order explains (of checked)",
        "not checked",
    ];
    let row = |(trial, lost): (&TrialSummary, &Lost)| {
        vec![
            trial.name.clone(),
            number::count(lost.attempted),
            number::count(lost.acknowledged),
            format!("{} ({})", number::count(lost.unknown), number::count(lost.unknown_found)),
            number::count(lost.lost),
            number::count(lost.duplicated),
            number::count(lost.resurrected),
            number::count(lost.phantom),
            number::count(lost.stale),
            number::count(lost.wrong_totals),
            not_linearizable(lost),
            lost.unchecked.clone().unwrap_or_else(|| number::NONE.to_owned()),
        ]
    };
    let checked = input.trials.iter().filter_map(|trial| Some((trial, trial.lost.as_ref()?)));
    Table::new("What became of the writes, read back after everything was healed", &HEAD, checked.map(row).collect())
}

/// `0 (400)`, with how many could not be decided.
fn not_linearizable(lost: &Lost) -> String {
    let undecided = match lost.linearizable_undecided {
        0 => String::new(),
        count => format!(", {} undecided", number::count(count)),
    };
    format!("{} ({}{undecided})", number::count(lost.not_linearizable), number::count(lost.linearizable_checked))
}

/// The operations behind the counts that should be zero.
pub fn named(input: &ReportInput) -> Table {
    let checked = input.trials.iter().filter_map(|trial| Some((trial, trial.lost.as_ref()?)));
    let rows = checked.flat_map(|(trial, lost)| {
        let named = lost.named.iter().filter(|(_, operations)| !operations.is_empty());
        named.map(|(what, operations)| vec![trial.name.clone(), what.replace('_', " "), operations.join(", ")])
    });
    Table::new("The operations behind these counts", &["trial", "what", "operations"], rows.collect())
}

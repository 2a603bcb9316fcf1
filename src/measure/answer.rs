//! The answer to the question, in words.
//!
//! One rule: it says no more than the intervals do, and says what cannot be concluded.

use crate::measure::crossover::figure;
use crate::measure::study::mean;
use crate::measure::{CellSummary, Curve, Fitted, SearchSummary, StudySummary};
use crate::verdict::three;

/// A sentence or two that a stranger understands.
pub fn answer(study: &StudySummary, find: Option<crate::experiment::Find>) -> String {
    let x = study.x.as_deref().unwrap_or("");
    let valid = |curve: &&Curve| curve.cells.iter().any(|cell| cell.valid > 0);
    let measured: Vec<&Curve> = study.curves.iter().filter(valid).collect();
    let text = match (&study.search, measured.as_slice()) {
        (_, []) => "Nothing can be concluded: no trial is valid".to_owned(),
        (Some(search), _) => searched(search, find),
        (None, [one]) => alone(one, x),
        (None, [_, _]) if !study.crossovers.is_empty() => pair(study),
        (None, several) => ranking(several, x),
    };
    let notes = [errors(&measured, x), invalid(study)].into_iter().flatten();
    notes.fold(format!("{text}."), |text, note| format!("{text} {note}."))
}

/// Latencies leave refusals out, so an answer about them must say where many operations did not end well.
fn errors(curves: &[&Curve], x: &str) -> Option<String> {
    let rate = |cell: &CellSummary| mean(cell, "error_rate").filter(|percent| *percent >= 1.0);
    let worst = |curve: &&Curve| {
        let cells = curve.cells.iter().filter_map(|cell| Some((rate(cell)?, cell)));
        let (percent, cell) = cells.max_by(|a, b| a.0.total_cmp(&b.0))?;
        let place = if x.is_empty() { String::new() } else { format!(" at {} {x}", cell.x) };
        Some(format!("{} % of {}{place}", three(percent), curve.label))
    };
    let told: Vec<String> = curves.iter().filter_map(worst).collect();
    (!told.is_empty()).then(|| format!("Operations that did not end well: {}", told.join(", ")))
}

fn invalid(study: &StudySummary) -> Option<String> {
    let cells = || study.curves.iter().flat_map(|curve| &curve.cells);
    let (valid, invalid) = cells().fold((0, 0), |(valid, invalid), cell| (valid + cell.valid, invalid + cell.invalid));
    (valid > 0 && invalid > 0).then(|| format!("{invalid} of {} trials are invalid and left out", valid + invalid))
}

fn searched(search: &SearchSummary, find: Option<crate::experiment::Find>) -> String {
    let factor = &search.factor;
    let demand = find == Some(crate::experiment::Find::Demand);
    let sentences = search.brackets.iter().map(|bracket| {
        let who = &bracket.label;
        let doubt = match bracket.undecided.first() {
            Some((level, why)) => format!(" ({level} {factor} could not be decided: {why})"),
            None => String::new(),
        };
        match (bracket.pass, bracket.fail, demand) {
            (Some(pass), Some(fail), false) => {
                format!("{who} meets the objectives up to {pass} {factor} and fails at {fail}{doubt}")
            }
            (Some(pass), None, false) => {
                format!("{who} meets the objectives up to {pass} {factor}, and no tested level fails{doubt}")
            }
            (Some(pass), Some(fail), true) => {
                format!("{who} needs {pass} {factor} to meet the objectives; {fail} are too few{doubt}")
            }
            (Some(pass), None, true) => {
                format!("{who} meets the objectives with {pass} {factor}, and no tested level is too few{doubt}")
            }
            (None, ..) => format!("{who} meets the objectives at no tested level of {factor}{doubt}"),
        }
    });
    sentences.collect::<Vec<_>>().join("; ")
}

fn alone(curve: &Curve, x: &str) -> String {
    let Some(last) = curve.cells.iter().rfind(|cell| cell.valid > 0) else { return String::new() };
    let figures = format!(
        "goodput {}, p95 {}, errors {}",
        figure(last, "goodput_rps"),
        figure(last, "latency_p95_ms"),
        figure(last, "error_rate")
    );
    if curve.cells.len() < 2 {
        return figures.replacen('g', "G", 1);
    }
    match &curve.knee {
        Fitted::Fit(knee) if knee.saturated => format!(
            "Goodput stops growing at about {} {x} (95 % interval {}–{}), at {}/s ({}–{}); at {} {x}: {figures}",
            three(knee.n.estimate),
            three(knee.n.low),
            three(knee.n.high),
            three(knee.capacity.estimate),
            three(knee.capacity.low),
            three(knee.capacity.high),
            last.x
        ),
        Fitted::Fit(_) => format!("Up to {} {x} no saturation was observed: {figures}", last.x),
        Fitted::None(_) => format!("At {} {x}: {figures}", last.x),
    }
}

fn pair(study: &StudySummary) -> String {
    let of = |metric: &str| study.crossovers.iter().find(|crossover| crossover.metric == metric);
    let mut text = of("latency_p95_ms").map(|crossover| crossover.statement.clone()).unwrap_or_default();
    if let Some(goodput) = of("goodput_rps") {
        let and = if text.is_empty() { "" } else { ". " };
        text += &format!("{and}{}", capital(&goodput.statement));
    }
    capital(&text)
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Several curves: their latencies at the largest level that all share. Nothing is claimed about their order beyond
/// the intervals shown.
fn ranking(curves: &[&Curve], x: &str) -> String {
    let has = |curve: &Curve, at: f64| curve.cells.iter().any(|cell| cell.x == at && cell.valid > 0);
    let shared = curves[0].cells.iter().map(|cell| cell.x).rfind(|at| curves.iter().all(|curve| has(curve, *at)));
    let Some(at) = shared else {
        return "The curves share no level with valid trials, so nothing can be compared".to_owned();
    };
    let shown = curves.iter().filter_map(|curve| {
        let cell = curve.cells.iter().find(|cell| cell.x == at)?;
        let (p95, goodput) = (figure(cell, "latency_p95_ms"), figure(cell, "goodput_rps"));
        Some(format!("{}: p95 {p95}, goodput {goodput}", curve.label))
    });
    let place = if x.is_empty() { String::new() } else { format!("At {at} {x}, ") };
    capital(&format!("{place}{}", shown.collect::<Vec<_>>().join("; ")))
}

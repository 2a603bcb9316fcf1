//! The answer to the question, in words.
//!
//! One rule: it says no more than the intervals do, and says what cannot be concluded.

use crate::experiment::Experiment;
use crate::measure::crossover::{about, figure};
use crate::measure::study::{falls_behind, mean};
use crate::measure::words::{self, Subject, capital};
use crate::measure::{CellSummary, Crossover, Curve, Fitted, SearchSummary, StudySummary};
use crate::measure::{keeps_up, recovered_words};
use crate::verdict::three;

/// A sentence or two that a stranger understands.
pub fn answer(study: &StudySummary, experiment: &Experiment) -> String {
    let find = experiment.search.as_ref().map(|search| search.find);
    let x = study.x.as_deref().unwrap_or("");
    let valid = |curve: &&Curve| curve.cells.iter().any(|cell| cell.valid > 0);
    let measured: Vec<&Curve> = study.curves.iter().filter(valid).collect();
    if let Some(text) = recovered_words::answer(study, experiment) {
        return invalid(study).map_or(format!("{text}."), |note| format!("{text}. {note}."));
    }
    let text = match (&study.search, measured.as_slice()) {
        (_, []) => "Nothing can be concluded: no trial is valid".to_owned(),
        (_, several) if study.is_stream() => keeps_up::answer(study, several, experiment),
        (Some(search), _) => searched(search, find),
        (None, [one]) => alone(one, x),
        (None, [_, _]) if !study.crossovers.is_empty() => pair(study),
        (None, several) => among_several(study, several, x),
    };
    let notes = [errors(&measured, x, study.is_stream()), invalid(study)].into_iter().flatten();
    notes.fold(format!("{text}."), |text, note| format!("{text} {note}."))
}

/// Latencies leave refusals out, so an answer about them must say where many operations did not end well.
fn errors(curves: &[&Curve], x: &str, is_stream: bool) -> Option<String> {
    let (operations, levels): (_, fn(&[f64], &str) -> String) = match is_stream {
        true => ("Batches that failed, or were given up when the run ended", words::stream_levels),
        false => ("Operations that did not end well", words::levels),
    };
    let rate = |cell: &CellSummary| mean(cell, "error_rate").filter(|percent| *percent >= 1.0);
    let worst = |curve: &&Curve| {
        let cells = curve.cells.iter().filter_map(|cell| Some((rate(cell)?, cell)));
        let (percent, cell) = cells.max_by(|a, b| a.0.total_cmp(&b.0))?;
        let place = if x.is_empty() { String::new() } else { format!(" at {}", levels(&[cell.x], x)) };
        // The one curve of a stream needs no name.
        let of = if is_stream && curves.len() == 1 {
            String::new()
        } else {
            format!(" of {}", Subject::of(&curve.label).name)
        };
        Some(format!("{} %{of}{place}", three(percent)))
    };
    let told: Vec<String> = curves.iter().filter_map(worst).collect();
    (!told.is_empty()).then(|| format!("{operations}: {}", told.join(", ")))
}

fn invalid(study: &StudySummary) -> Option<String> {
    let cells = || study.curves.iter().flat_map(|curve| &curve.cells);
    let (valid, invalid) = cells().fold((0, 0), |(valid, invalid), cell| (valid + cell.valid, invalid + cell.invalid));
    (valid > 0 && invalid > 0).then(|| format!("{invalid} of {} trials are invalid and left out", valid + invalid))
}

fn searched(search: &SearchSummary, find: Option<crate::experiment::Find>) -> String {
    let factor = &search.factor;
    let demand = find == Some(crate::experiment::Find::Demand);
    let level = |level: i64| words::levels(&[level as f64], factor);
    let sentences = search.brackets.iter().map(|bracket| {
        let subject = Subject::of(&bracket.label);
        let meets = format!("{} {} the objectives", subject.name, subject.verb("meets", "meet"));
        let doubt = match bracket.undecided.first() {
            Some((at, why)) => format!(" ({} could not be decided: {why})", level(*at)),
            None => String::new(),
        };
        let found = match (bracket.pass, bracket.fail, demand) {
            (Some(pass), Some(fail), false) => {
                format!("{meets} up to {} and {} at {fail}", level(pass), subject.verb("fails", "fail"))
            }
            (Some(pass), None, false) => format!("{meets} up to {}, and no tested level fails", level(pass)),
            (Some(pass), Some(fail), true) => {
                format!("{meets} from {} on, and {} at {fail}", level(pass), subject.verb("fails", "fail"))
            }
            (Some(pass), None, true) => format!("{meets} from {} on, and no tested level is too few", level(pass)),
            (None, ..) => format!("{meets} at no tested level of {factor}"),
        };
        found + &doubt
    });
    capital(&sentences.collect::<Vec<_>>().join("; "))
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
    let level = |level: f64| words::levels(&[level], x);
    match &curve.knee {
        Fitted::Fit(knee) if knee.saturated => format!(
            "Goodput stops growing at {} (95 % interval {}–{}), at {}/s ({}–{}); at {}: {figures}",
            about(knee.n.estimate, x),
            three(knee.n.low),
            three(knee.n.high),
            three(knee.capacity.estimate),
            three(knee.capacity.low),
            three(knee.capacity.high),
            level(last.x)
        ),
        _ if falls_behind(curve).is_some() => format!(
            "From {} on, more is offered than can be sent; at {}: {figures}",
            level(falls_behind(curve).unwrap_or(last.x)),
            level(last.x)
        ),
        Fitted::Fit(_) => format!("Up to {} no saturation was observed: {figures}", level(last.x)),
        Fitted::None(_) => format!("At {}: {figures}", level(last.x)),
    }
}

fn pair(study: &StudySummary) -> String {
    let of = |metric: &str| study.crossovers.iter().find(|crossover| crossover.metric == metric);
    let mut text = of("latency_p95_ms").map(|crossover| crossover.statement.clone()).unwrap_or_default();
    if let Some(goodput) = of("goodput_rps") {
        let and = if text.is_empty() { "" } else { ". " };
        text += &format!("{and}{}", goodput.statement);
    }
    capital(&text)
}

/// Three curves or more: who is best at the highest level where all were compared, who overtakes whom, and what cannot
/// be concluded, all of it from the comparisons of each two.
fn among_several(study: &StudySummary, curves: &[&Curve], x: &str) -> String {
    let of = |metric: &str| study.crossovers.iter().filter(|found| found.metric == metric).collect::<Vec<_>>();
    let (p95, goodput) = (of("latency_p95_ms"), of("goodput_rps"));
    let latency = ranked("latency_p95_ms", &p95, curves, x);
    let sentences = [
        Some(latency.unwrap_or_else(|| side_by_side(curves, x))),
        overtaking(&p95, x),
        doubts("latency_p95_ms", &p95, x),
        ranked("goodput_rps", &goodput, curves, x),
        doubts("goodput_rps", &goodput, x),
    ];
    sentences.into_iter().flatten().collect::<Vec<_>>().join(". ")
}

/// `At 128 users the monolith answers fastest: p95 1.5 ms (…) against 5 ms (…) of … and 13 ms (…) of …`; none where no
/// level was compared between all of them.
fn ranked(metric: &str, pairs: &[&Crossover], curves: &[&Curve], x: &str) -> Option<String> {
    let at = pairs
        .first()?
        .shown
        .iter()
        .map(|(level, _)| *level)
        .rfind(|level| pairs.iter().all(|pair| pair.shown.iter().any(|(other, _)| other == level)))?;
    let value = |curve: &Curve| mean(curve.cells.iter().find(|cell| cell.x == at)?, metric);
    let less_is_better = metric.ends_with("_ms");
    let mut ordered: Vec<(&Curve, f64)> = curves.iter().filter_map(|curve| Some((*curve, value(curve)?))).collect();
    ordered.sort_by(|a, b| if less_is_better { a.1.total_cmp(&b.1) } else { b.1.total_cmp(&a.1) });
    let told = |curve: &Curve| {
        let cell = curve.cells.iter().find(|cell| cell.x == at)?;
        Some(format!("{} of {}", figure(cell, metric), Subject::of(&curve.label).name))
    };
    let (best, rest) = ordered.split_first()?;
    let first = curves.iter().find(|curve| curve.label == best.0.label)?;
    let equals: Vec<String> = rest
        .iter()
        .filter(|(other, _)| !beats(pairs, &first.label, &other.label, at))
        .map(|(other, _)| Subject::of(&other.label).name)
        .collect();
    let own = figure(first.cells.iter().find(|cell| cell.x == at)?, metric);
    let others = words::list(&rest.iter().filter_map(|(curve, _)| told(curve)).collect::<Vec<_>>());
    let subject = Subject::of(&first.label);
    let (place, name) = (words::levels(&[at], x), words::name(metric));
    Some(match (equals.as_slice(), less_is_better) {
        ([], true) => format!(
            "At {place} {} {} fastest: {name} {own} against {others}",
            subject.name,
            subject.verb("answers", "answer")
        ),
        ([], false) => {
            format!("At {place} {} {} most: {name} {own} against {others}", subject.name, subject.verb("does", "do"))
        }
        (equals, _) => format!(
            "At {place} {name} is {own} of {} against {others}; between {} and {} no difference could be shown",
            subject.name,
            subject.name,
            words::list(equals)
        ),
    })
}

/// Whether one curve is shown to be better than another at a level.
fn beats(pairs: &[&Crossover], one: &str, other: &str, at: f64) -> bool {
    let of_both = |pair: &&&Crossover| (pair.a == one && pair.b == other) || (pair.a == other && pair.b == one);
    let shown = pairs.iter().find(of_both).and_then(|pair| pair.shown.iter().find(|(level, _)| *level == at));
    shown.is_some_and(|(_, leader)| leader.as_deref() == Some(one))
}

/// Who overtakes whom; none where nothing could be compared.
fn overtaking(pairs: &[&Crossover], x: &str) -> Option<String> {
    let compared: Vec<&&Crossover> = pairs.iter().filter(|pair| pair.unknown.is_none()).collect();
    let told = |pair: &&&Crossover| {
        let (one, other) = (Subject::of(&pair.a), Subject::of(&pair.b));
        match (pair.at, pair.changes()) {
            (Some(at), _) => Some(format!(
                "{} {} {} at {} (95 % interval {}–{})",
                other.name,
                other.verb("overtakes", "overtake"),
                one.name,
                about(at.estimate, x),
                three(at.low),
                three(at.high)
            )),
            (None, 2..) => Some(format!("{} and {} change places more than once", one.name, other.name)),
            (None, _) if pair.probability >= 0.5 && pair.shown.iter().any(|(_, leader)| leader.is_some()) => {
                Some(format!("whether {} overtakes {} is too close to tell", other.name, one.name))
            }
            (None, _) => None,
        }
    };
    let changes: Vec<String> = compared.iter().filter_map(told).collect();
    match (compared.is_empty(), changes.as_slice()) {
        (true, _) => None,
        (false, []) => Some("None overtakes another in the tested range".to_owned()),
        (false, changes) => Some(capital(&changes.join("; "))),
    }
}

/// What leaves a metric undecided, once for all pairs.
fn doubts(metric: &str, pairs: &[&Crossover], x: &str) -> Option<String> {
    let mut left_out: Vec<(f64, String)> = pairs.iter().flat_map(|pair| pair.left_out.clone()).collect();
    left_out.sort_by(|a, b| a.0.total_cmp(&b.0));
    let why = match left_out.is_empty() {
        false => words::doubts(&left_out, x),
        true => pairs.iter().find_map(|pair| pair.unknown.clone())?,
    };
    let some = pairs.iter().any(|pair| pair.unknown.is_none());
    let what = capital(words::name(metric));
    Some(format!("{what} cannot {}be compared: {why}", if some { "everywhere " } else { "" }))
}

/// The latencies at the largest level that all share, without a claim about their order.
fn side_by_side(curves: &[&Curve], x: &str) -> String {
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
    let place = if x.is_empty() { String::new() } else { format!("At {}, ", words::levels(&[at], x)) };
    capital(&format!("{place}{}", shown.collect::<Vec<_>>().join("; ")))
}

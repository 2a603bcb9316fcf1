//! Whether, and from where on, a stream keeps up: the answer in words, and the line that a run closes with.
//!
//! One rule: every sentence begins with what the trials showed; a level that could not be decided is named as such.

use crate::experiment::{Experiment, Find};
use crate::measure::study::mean;
use crate::measure::words::{self, capital};
use crate::measure::{Bracket, CellStream, Curve, SearchSummary, StreamState, StudySummary, stream};

/// The answer, without its full stop; `curves` are those with a valid trial.
pub fn answer(study: &StudySummary, curves: &[&Curve], experiment: &Experiment) -> String {
    let x = study.x.as_deref().unwrap_or("");
    let sentences: Vec<String> = match (&study.search, &experiment.search) {
        (Some(found), Some(search)) => {
            let only_stable = experiment.slo.iter().all(|slo| slo.key == stream::STABLE);
            let asked = |bracket: &Bracket| bracketed(bracket, study, found, search.find, only_stable);
            found.brackets.iter().map(asked).collect()
        }
        _ if x.is_empty() => curves.iter().filter_map(|curve| alone(curve)).collect(),
        _ => curves.iter().map(|curve| over(curve, x)).collect(),
    };
    capital(&sentences.join(". "))
}

/// The last line of a run on the screen: `falls behind: …`, `stable: …` or `unknown: …`; none of a study that is not of
/// streams.
pub fn closing(study: &StudySummary) -> Option<String> {
    if !study.is_stream() {
        return None;
    }
    let cells: Vec<&CellStream> =
        study.curves.iter().flat_map(|curve| &curve.cells).filter_map(|cell| cell.stream.as_ref()).collect();
    if let [only] = cells.as_slice() {
        return Some(only.why.clone());
    }
    let of = |state: StreamState| cells.iter().filter(|cell| cell.state == state).count();
    let (all, behind, stable) = (cells.len(), of(StreamState::FallsBehind), of(StreamState::Stable));
    let answer = study.answer.trim_end_matches('.');
    Some(match (behind, stable) {
        (0, stable) if stable == all => format!("stable: in all {all} cells. {answer}"),
        (0, _) => format!("unknown: {} of {all} cells could not be decided. {answer}", all - stable),
        (behind, _) => format!("falls behind: in {behind} of {all} cells. {answer}"),
    })
}

/// One cell: its state with the figures, and what waits.
fn alone(curve: &Curve) -> Option<String> {
    let cell = curve.cells.iter().rfind(|cell| cell.valid > 0)?;
    let stream = cell.stream.as_ref()?;
    let subject =
        if curve.label == "all" { "the stream".to_owned() } else { format!("with {} the stream", curve.label) };
    let why = stream.why.split_once(": ").map_or(stream.why.as_str(), |(_, why)| why);
    Some(match stream.state {
        StreamState::Stable => format!("{subject} is stable: {why}"),
        StreamState::Unknown => format!("whether {subject} keeps up cannot be told: {why}"),
        StreamState::FallsBehind => {
            let queued = mean(cell, "queued_batches").unwrap_or(0.0).round();
            let waiting = match queued {
                _ if why.contains(" wait") || queued < 1.0 => String::new(),
                1.0 => "; at the end 1 batch waits".to_owned(),
                queued => format!("; at the end {queued} batches wait"),
            };
            format!("{subject} falls behind: {why}{waiting}")
        }
    })
}

/// `with 4 cores the stream`, `the stream`.
fn subject(label: &str, curves: &[Curve], x: &str) -> String {
    let mut cores =
        curves.iter().flat_map(|curve| &curve.cells).filter_map(|cell| cell.stream.as_ref()).map(|s| s.cores);
    let first = cores.next();
    let same = first.filter(|first| x != "cores" && !label.contains(" core") && cores.all(|cores| cores == *first));
    let same = same.and_then(|cores| words::of_stream("cores", f64::from(cores)));
    let label = (label != "all").then(|| label.to_owned());
    let with: Vec<String> = same.into_iter().chain(label).collect();
    if with.is_empty() { "the stream".to_owned() } else { format!("with {} the stream", words::list(&with)) }
}

/// From where on it keeps up, over the levels of one factor.
fn over(curve: &Curve, x: &str) -> String {
    let states: Vec<(f64, StreamState)> =
        curve.cells.iter().filter_map(|cell| Some((cell.x, cell.stream.as_ref()?.state))).collect();
    let at = |wanted: StreamState| -> Vec<f64> {
        states.iter().filter(|(_, state)| *state == wanted).map(|(level, _)| *level).collect()
    };
    let (stable, behind, unknown) = (at(StreamState::Stable), at(StreamState::FallsBehind), at(StreamState::Unknown));
    let (all, one) = (|levels: &[f64]| words::stream_levels(levels, x), |level: f64| words::stream_level(level, x));
    let subject = subject(&curve.label, std::slice::from_ref(curve), x);
    let found = match (stable.as_slice(), behind.as_slice()) {
        ([], []) => format!("whether {subject} keeps up cannot be told"),
        (stable, []) => format!("{subject} keeps up at {}", all(stable)),
        ([], behind) => format!("{subject} falls behind at {}", all(behind)),
        ([.., last], [first, ..]) if last < first => {
            format!("{subject} holds up to {}; at {} it falls behind", all(&[*last]), one(*first))
        }
        ([first, ..], [.., last]) if last < first => {
            format!("{subject} falls behind up to {}; from {} on it holds", all(&[*last]), one(*first))
        }
        (stable, behind) => format!("{subject} holds at {} and falls behind at {}", all(stable), all(behind)),
    };
    let doubt = match unknown.as_slice() {
        [] => String::new(),
        unknown => format!("; at {} it is too close to tell", all(unknown)),
    };
    found + &doubt
}

/// What a search found: `with 4 cores the stream holds up to 118 lines/s and falls behind at 121`.
fn bracketed(bracket: &Bracket, study: &StudySummary, found: &SearchSummary, find: Find, only_stable: bool) -> String {
    let x = &found.factor;
    let subject = subject(&bracket.label, &study.curves, x);
    let (holds, fails) = if only_stable { ("holds", "falls behind") } else { ("meets the objectives", "fails") };
    let all = |level: i64| words::stream_levels(&[level as f64], x);
    let one = |level: i64| words::stream_level(level as f64, x);
    let doubt = match bracket.undecided.first() {
        Some((at, why)) => format!(" ({} could not be decided: {why})", all(*at)),
        None => String::new(),
    };
    let found = match (bracket.pass, bracket.fail, find) {
        (Some(pass), Some(fail), Find::Capacity) => {
            format!("{subject} {holds} up to {} and {fails} at {}", all(pass), one(fail))
        }
        (Some(pass), None, Find::Capacity) => {
            format!("{subject} {holds} up to {}, and no tested level fails", all(pass))
        }
        (Some(pass), Some(fail), Find::Demand) => {
            format!("{subject} {holds} from {} on, and {fails} at {}", all(pass), one(fail))
        }
        (Some(pass), None, Find::Demand) => {
            format!("{subject} {holds} from {} on, and no tested level is too small", all(pass))
        }
        (None, Some(fail), _) => format!("{subject} {holds} at no tested level, and {fails} at {}", all(fail)),
        (None, None, _) => format!("{subject} {holds} at no tested level"),
    };
    found + &doubt
}

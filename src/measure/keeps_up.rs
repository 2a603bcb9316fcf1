//! Whether, and from where on, a stream keeps up: the answer in words, and the line that a run closes with.
//!
//! One rule: every sentence begins with what the trials showed; a level that could not be decided is named as such, and so
//! is one that may only look stable, because something touches that (see `standing`).

use crate::experiment::{Experiment, Find};
use crate::measure::study::mean;
use crate::measure::words::{self, capital};
use crate::measure::{
    Bracket, CellSummary, Curve, Guard, SearchSummary, StreamState, StudySummary, guards, search, stream,
};

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
    sentences.iter().map(|sentence| capital(sentence)).collect::<Vec<_>>().join(". ")
}

/// The last line of a run on the screen: `falls behind: …`, `stable: …` or `unknown: …`, of a search `found: …`,
/// `not found: …` or `unknown: …`; none of a study that is not of streams.
pub fn closing(study: &StudySummary, experiment: &Experiment) -> Option<String> {
    if !study.is_stream() {
        return None;
    }
    let answer = study.answer.trim_end_matches('.');
    if let (Some(found), Some(search)) = (&study.search, &experiment.search) {
        // A search looks for streams that fall behind as well, so how many did says nothing.
        let unsettled = found.brackets.iter().find_map(|bracket| search::unsettled(search, bracket));
        let all_found = found.brackets.iter().all(|bracket| bracket.pass.is_some());
        return Some(match unsettled {
            Some(why) => format!("unknown: {why}. {answer}"),
            None if all_found => format!("found: {answer}"),
            None => format!("not found: {answer}"),
        });
    }
    let cells: Vec<(StreamState, &str)> =
        study.curves.iter().flat_map(|curve| &curve.cells).filter_map(standing).collect();
    if let [(state, why)] = cells.as_slice() {
        return Some(format!("{}: {why}", state.words()));
    }
    let of = |state: StreamState| cells.iter().filter(|(of_cell, _)| *of_cell == state).count();
    let (all, behind, stable) = (cells.len(), of(StreamState::FallsBehind), of(StreamState::Stable));
    Some(match (behind, stable) {
        (0, stable) if stable == all => format!("stable: in all {all} cells. {answer}"),
        (0, _) => format!("unknown: {} of {all} cells could not be decided. {answer}", all - stable),
        (behind, _) => format!("falls behind: in {behind} of {all} cells. {answer}"),
    })
}

/// How a cell stands, and why, without the state in front. It is unknown where something touches that, as the verdict has
/// it; one that falls behind does so whatever touches it.
fn standing(cell: &CellSummary) -> Option<(StreamState, &str)> {
    let stream = cell.stream.as_ref()?;
    if let Some(guard) = doubt(cell) {
        return Some((StreamState::Unknown, &guard.what));
    }
    let why = stream.why.strip_prefix(stream.state.words()).and_then(|why| why.strip_prefix(": "));
    Some((stream.state, why.unwrap_or(&stream.why)))
}

/// What leaves open whether a cell keeps up, although its figures may say so.
pub(crate) fn doubt(cell: &CellSummary) -> Option<&Guard> {
    doubt_of(cell.stream.as_ref()?.state, &cell.guards)
}

/// The same of one trial.
pub(crate) fn doubt_of(state: StreamState, guards: &[Guard]) -> Option<&Guard> {
    guards.iter().find(|guard| state != StreamState::FallsBehind && guards::touches(guard, stream::STABLE))
}

/// One cell: its state with the figures, and what waits.
fn alone(curve: &Curve) -> Option<String> {
    let cell = curve.cells.iter().rfind(|cell| cell.valid > 0)?;
    let (state, why) = standing(cell)?;
    let subject =
        if curve.label == "all" { "the stream".to_owned() } else { format!("with {} the stream", curve.label) };
    Some(match state {
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
    let cells = || curve.cells.iter().filter_map(|cell| Some((cell, standing(cell)?)));
    let at = |wanted: StreamState| -> Vec<f64> {
        cells().filter(|(_, (state, _))| *state == wanted).map(|(cell, _)| cell.x).collect()
    };
    let (stable, behind) = (at(StreamState::Stable), at(StreamState::FallsBehind));
    let unknown = |is_touched: bool| {
        let of = cells()
            .filter(move |(cell, (state, _))| *state == StreamState::Unknown && doubt(cell).is_some() == is_touched);
        of.map(|(cell, (_, why))| (cell.x, why)).unzip::<f64, &str, Vec<_>, Vec<_>>()
    };
    let (all, one) = (|levels: &[f64]| words::stream_levels(levels, x), |level: f64| words::stream_level(level, x));
    let subject = subject(&curve.label, std::slice::from_ref(curve), x);
    let found = match (stable.as_slice(), behind.as_slice()) {
        ([], []) => format!("whether {subject} keeps up cannot be told"),
        (stable, []) => format!("{subject} keeps up at {}", words::stream_range(stable, x)),
        ([], behind) => format!("{subject} falls behind at {}", words::stream_range(behind, x)),
        ([.., last], [first, ..]) if last < first => {
            format!("{subject} holds up to {}; at {} it falls behind", all(&[*last]), one(*first))
        }
        ([first, ..], [.., last]) if last < first => {
            format!("{subject} falls behind up to {}; from {} on it holds", all(&[*last]), one(*first))
        }
        (stable, behind) => format!("{subject} holds at {} and falls behind at {}", all(stable), all(behind)),
    };
    let close = match unknown(false).0.as_slice() {
        [] => String::new(),
        close => format!("; at {} it is too close to tell", all(close)),
    };
    let touched = match unknown(true) {
        (levels, whys) if !levels.is_empty() => format!("; at {} it cannot be told: {}", all(&levels), whys[0]),
        _ => String::new(),
    };
    found + &close + &touched
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Search;
    use crate::measure::TrialSummary;
    use crate::measure::samples::{MadeStream, stream_experiment};
    use crate::measure::summarize_study;
    use crate::verdict::{Slo, Word, judge};

    /// 15 ms a record on three slots in two waves, as the published set-up has it, on as many cores.
    fn at(index: usize, rate: i64, cores: i64) -> TrialSummary {
        let processing = 384.0 + 15.0 * (rate as f64 * 2.0) / (cores as f64 - 1.0);
        let short = MadeStream { seconds: 24, ..MadeStream::of(processing) };
        let made = MadeStream { rate: rate as f64, cores: cores as u32, ..short };
        made.trial(index, &[("rate", rate), ("cores", cores)])
    }

    fn slo(text: &str) -> Vec<Slo> {
        vec![Slo::try_from(text.to_owned()).unwrap()]
    }

    #[test]
    fn a_single_stream_is_answered_by_its_figures_and_closes_with_them() {
        let of = |made: MadeStream| {
            let experiment = stream_experiment(&[]);
            let study = summarize_study(&experiment, &[made.trial(0, &[])]);
            (study.answer.clone(), closing(&study, &experiment).unwrap())
        };
        let figures = "processing takes 2.531 s of every 2 s and the scheduling delay grows by 0.531 s a batch";
        let (answer, closing) = of(MadeStream::default());
        assert_eq!(answer, format!("The stream falls behind: {figures}; at the end 11 batches wait."));
        assert_eq!(closing, format!("falls behind: {figures}"));
        let figures = "processing takes 1.08 s of every 2 s, the scheduling delay stays at 0 ms";
        let (answer, closing) = of(MadeStream::of(1_080.0));
        assert_eq!((answer, closing), (format!("The stream is stable: {figures}."), format!("stable: {figures}")));
        let (answer, _) = of(MadeStream { cores: 1, ..MadeStream::default() });
        let why = "1 receiver holds the only core, so no slot is left: 56 batches wait and none can start";
        assert_eq!(answer, format!("The stream falls behind: {why}."));
    }

    #[test]
    fn a_stream_that_only_looks_stable_is_not_said_to_be() {
        let what = "the receiver took 88 % of the 1200 lines that were due";
        let held = |mut trial: TrialSummary| {
            trial.guards.push(crate::measure::Guard {
                id: "receiver-held".to_owned(),
                touches: vec!["delay".to_owned()],
                at: String::new(),
                what: what.to_owned(),
                advice: String::new(),
            });
            trial
        };
        let of = |factors: &[(&str, &[i64])], trials: &[TrialSummary]| {
            let experiment = stream_experiment(factors);
            let study = summarize_study(&experiment, trials);
            (study.answer.clone(), closing(&study, &experiment).unwrap())
        };
        let (answer, closing) = of(&[], &[held(MadeStream::of(1_080.0).trial(0, &[]))]);
        assert_eq!(answer, format!("Whether the stream keeps up cannot be told: {what}."));
        assert_eq!(closing, format!("unknown: {what}"));
        // What falls behind does so all the same.
        let (answer, closing) = of(&[], &[held(MadeStream::default().trial(0, &[]))]);
        assert!(answer.starts_with("The stream falls behind: processing"), "{answer}");
        assert!(closing.starts_with("falls behind: processing"), "{closing}");
        let rate = |index, rate| MadeStream::of(1_080.0).trial(index, &[("rate", rate)]);
        let (answer, closing) =
            of(&[("rate", &[100, 120, 140])], &[rate(0, 100), held(rate(1, 120)), held(rate(2, 140))]);
        let expected = format!(
            "With 4 cores the stream keeps up at 100 lines/s; at 120 and 140 lines/s it cannot be told: {what}."
        );
        assert_eq!(answer, expected);
        assert!(closing.starts_with("unknown: 2 of 3 cells could not be decided. With 4 cores"), "{closing}");
    }

    #[test]
    fn a_sweep_says_from_where_on() {
        let one = |levels: &[(i64, i64)]| -> String {
            let trials: Vec<_> =
                levels.iter().enumerate().map(|(index, (rate, cores))| at(index, *rate, *cores)).collect();
            let rates: Vec<i64> = levels.iter().map(|(rate, _)| *rate).collect();
            let cores: Vec<i64> = levels.iter().map(|(_, cores)| *cores).collect();
            let different = |of: &[i64]| of.iter().any(|level| *level != of[0]);
            let mut factors: Vec<(&str, &[i64])> = Vec::new();
            factors.extend(different(&rates).then_some(("rate", rates.as_slice())));
            factors.extend(different(&cores).then_some(("cores", cores.as_slice())));
            summarize_study(&stream_experiment(&factors), &trials).answer
        };
        // 3 slots: 384 + 10 ms × rate is below 2000 up to 161 records/s.
        assert_eq!(
            one(&[(100, 4), (160, 4), (170, 4), (200, 4)]),
            "With 4 cores the stream holds up to 160 lines/s; at 170 it falls behind."
        );
        assert_eq!(one(&[(100, 4), (120, 4)]), "With 4 cores the stream keeps up at 100 and 120 lines/s.");
        assert_eq!(one(&[(200, 4), (300, 4)]), "With 4 cores the stream falls behind at 200 and 300 lines/s.");
        assert_eq!(
            one(&[(143, 2), (143, 3), (143, 4), (143, 8)]),
            "The stream falls behind up to 3 cores; from 4 on it holds."
        );
        assert_eq!(
            one(&[(100, 4), (200, 4), (100, 2), (200, 2)]),
            "With 4 cores the stream holds up to 100 lines/s; at 200 it falls behind. \
             With 2 cores the stream falls behind at 100 and 200 lines/s."
        );
    }

    #[test]
    fn a_search_says_its_bracket_and_passes_when_it_is_narrow_enough() {
        let mut experiment = stream_experiment(&[]);
        experiment.slo = slo("stable");
        let search = |factor: &str, find, between| Search { factor: factor.to_owned(), find, between, within: 0.05 };
        experiment.search = Some(search("rate", Find::Capacity, (10, 300)));
        for (rates, cores, word, closes) in [
            (
                &[10, 300, 158, 165][..],
                4,
                Word::Pass,
                "found: With 4 cores the stream holds up to 158 lines/s and falls",
            ),
            (&[10, 300], 8, Word::Pass, "found: With 8 cores the stream holds up to 300 lines/s, and no tested level"),
            (&[10, 300], 1, Word::Fail, "not found: With 1 core the stream holds at no tested level"),
            (
                &[10, 300, 158],
                4,
                Word::Unknown,
                "unknown: the limit lies between 158 and 300, wider than asked for. With",
            ),
        ] {
            let trials: Vec<_> = rates.iter().map(|rate| at(0, *rate, cores)).collect();
            let study = summarize_study(&experiment, &trials);
            let line = closing(&study, &experiment).unwrap();
            assert!(line.starts_with(closes) && line.ends_with(study.answer.trim_end_matches('.')), "{line}");
            assert_eq!(judge(&experiment, &study, 0).verdict, word, "{line}");
        }
        experiment.search = Some(search("batch_interval_ms", Find::Demand, (500, 4_000)));
        let demand: Vec<_> = [500_i64, 2_531, 2_600, 4_000]
            .map(|interval| {
                let made = MadeStream { interval_ms: interval as f64, ..MadeStream::of(2_550.0) };
                made.trial(0, &[("batch_interval_ms", interval)])
            })
            .to_vec();
        let study = summarize_study(&experiment, &demand);
        let found = "With 4 cores the stream holds from an interval of 2.6 s on, and falls behind at 2.531 s.";
        assert_eq!(study.answer, found);
        assert_eq!(closing(&study, &experiment).unwrap(), format!("found: {}", found.trim_end_matches('.')));
    }

    #[test]
    fn the_next_level_of_a_search_follows_from_whether_streams_keep_up() {
        let mut experiment = stream_experiment(&[("cores", &[4])]);
        experiment.slo = slo("stable");
        experiment.search =
            Some(Search { factor: "rate".into(), find: Find::Capacity, between: (10, 300), within: 0.05 });
        let (mut planned, mut results) = (Vec::new(), Vec::new());
        while let Some(trial) = crate::schedule::next(&experiment, &mut planned, &results) {
            let rate = trial.levels["rate"].as_f64().unwrap() as i64;
            let mut result = at(trial.index, rate, 4);
            result.name = trial.name.clone();
            results.push(result);
            assert!(results.len() < 20);
        }
        let study = summarize_study(&experiment, &results);
        let bracket = &study.search.as_ref().unwrap().brackets[0];
        let (pass, fail) = (bracket.pass.unwrap(), bracket.fail.unwrap());
        assert!(pass <= 161 && fail > 161 && fail - pass <= 8, "{bracket:?}");
    }

    #[test]
    fn the_growth_is_decided_within_a_trial_where_there_is_one() {
        let mut experiment = stream_experiment(&[]);
        let word = |experiment: &Experiment, made: MadeStream| {
            judge(experiment, &summarize_study(experiment, &[made.trial(0, &[])]), 0).verdict
        };
        experiment.slo = slo("delay_growth <= 10ms");
        assert_eq!(word(&experiment, MadeStream::default()), Word::Fail);
        assert_eq!(word(&experiment, MadeStream::of(1_000.0)), Word::Pass);
        let noisy = || MadeStream { processing: [1_500.0, 2_520.0].repeat(28), ..MadeStream::default() };
        assert_eq!(word(&experiment, noisy()), Word::Unknown);
        experiment.slo = slo("processing <= 2s");
        assert_eq!(word(&experiment, MadeStream::of(1_000.0)), Word::Pass);
        experiment.slo = slo("stable");
        assert_eq!(word(&experiment, MadeStream::default()), Word::Fail);
        assert_eq!(word(&experiment, MadeStream { seconds: 6, ..MadeStream::default() }), Word::Unknown);
    }
}

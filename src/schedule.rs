//! Which trial is next: a fixed order for a sweep, a bisection for a search. Pure, so a resumed run goes the same way.

use crate::experiment::{Experiment, Level, Trial, cells, plan};
use crate::measure::{TrialSummary, search::SearchState, study};
use crate::verdict;

/// The trials known before anything has run: all of a sweep, none of a search; `before` is an earlier plan.
pub fn initial(experiment: &Experiment, before: &[Trial]) -> Vec<Trial> {
    match (&experiment.search, before) {
        (None, []) => plan(experiment),
        (_, before) => before.to_vec(),
    }
}

/// The next trial without a result. A search adds it to the plan when it decides on it.
pub fn next(experiment: &Experiment, planned: &mut Vec<Trial>, results: &[TrialSummary]) -> Option<Trial> {
    let open = planned.iter().find(|trial| !results.iter().any(|result| result.name == trial.name));
    if open.is_some() || experiment.search.is_none() {
        return open.cloned();
    }
    let trial = next_of_search(experiment, planned.len(), results)?;
    planned.push(trial.clone());
    Some(trial)
}

/// Every curve is searched to its end, one after another; every level is run `trials` times.
fn next_of_search(experiment: &Experiment, index: usize, results: &[TrialSummary]) -> Option<Trial> {
    let search = experiment.search.as_ref()?;
    for curve in cells(experiment) {
        let mut state = SearchState::new(search.clone());
        while let Some(level) = state.next_level() {
            let mut levels = curve.clone();
            levels.insert(search.factor.clone(), Level::Int(level));
            let done: Vec<_> = results.iter().filter(|result| result.levels == levels).collect();
            if done.len() < experiment.trials as usize {
                let repetition = u32::try_from(done.len()).unwrap_or(u32::MAX);
                return Some(Trial::new(index, levels, repetition, experiment.seed));
            }
            state.record(level, verdict::decide_level(&experiment.slo, &study::cell(&done, level as f64, "")));
        }
    }
    None
}

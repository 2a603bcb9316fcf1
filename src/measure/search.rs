//! A search for the largest load that meets the objectives (capacity), or the smallest resources that do (demand).
//!
//! One rule: this is a policy driven by results. It starts nothing and measures nothing; it says which level is next.

use std::collections::BTreeMap;

use crate::experiment::{Find, Levels, Search};
use crate::measure::{Bracket, Curve, SearchSummary};
use crate::verdict::{self, Decision, Slo};

/// Where a search stands: the levels tried, and how each was decided.
///
/// Both ends are tried first, the easy one before the other; then the middle of the bracket, geometric while its ends
/// are a factor of two apart and arithmetic after that, until the bracket is at most `within` of its lower end or its
/// ends are neighbours. A level that could not be decided counts as not passed for the direction, and is reported.
#[derive(Clone, Debug)]
pub struct SearchState {
    search: Search,
    tried: BTreeMap<i64, Decision>,
}

impl SearchState {
    /// A search with nothing tried.
    pub fn new(search: Search) -> Self {
        Self { search, tried: BTreeMap::new() }
    }

    /// Takes the decision on a level; a later one replaces an earlier one.
    pub fn record(&mut self, level: i64, decision: Decision) {
        self.tried.insert(level, decision);
    }

    /// The level to try next; none when the search is over.
    pub fn next_level(&self) -> Option<i64> {
        let (low, high) = self.search.between;
        let (easy, hard) = match self.search.find {
            Find::Capacity => (low, high),
            Find::Demand => (high, low),
        };
        if !self.tried.contains_key(&easy) {
            return Some(easy);
        }
        let pass = self.passed()?;
        if !self.tried.contains_key(&hard) {
            return Some(hard);
        }
        let bad = self.edge()?;
        (!is_narrow(&self.search, pass, bad)).then(|| middle(pass.min(bad), pass.max(bad)))
    }

    /// The bracket so far.
    pub fn bracket(&self, label: &str, levels: &Levels) -> Bracket {
        let pass = self.passed();
        let failed = self.tried.iter().filter(|(_, decision)| **decision == Decision::Fail).map(|(level, _)| *level);
        let fail = match self.search.find {
            Find::Capacity => failed.filter(|level| pass.is_none_or(|pass| *level > pass)).min(),
            Find::Demand => failed.filter(|level| pass.is_none_or(|pass| *level < pass)).max(),
        };
        Bracket { label: label.to_owned(), levels: levels.clone(), pass, fail, undecided: self.undecided() }
    }

    /// The level nearest to the easy end that did not pass.
    fn edge(&self) -> Option<i64> {
        let not_passed =
            self.tried.iter().filter(|(_, decision)| **decision != Decision::Pass).map(|(level, _)| *level);
        match self.search.find {
            Find::Capacity => not_passed.min(),
            Find::Demand => not_passed.max(),
        }
    }

    /// The furthest level that passed before any that did not.
    fn passed(&self) -> Option<i64> {
        let edge = self.edge();
        let passed = self.tried.iter().filter(|(_, decision)| **decision == Decision::Pass).map(|(level, _)| *level);
        match self.search.find {
            Find::Capacity => passed.filter(|level| edge.is_none_or(|edge| *level < edge)).max(),
            Find::Demand => passed.filter(|level| edge.is_none_or(|edge| *level > edge)).min(),
        }
    }

    fn undecided(&self) -> Vec<(i64, String)> {
        let edge = self.edge();
        let beyond = |level: i64| match self.search.find {
            Find::Capacity => edge.is_some_and(|edge| level > edge),
            Find::Demand => edge.is_some_and(|edge| level < edge),
        };
        let reason = |level: i64, decision: &Decision| match decision {
            Decision::Unknown(why) => Some(why.clone()),
            Decision::Pass if beyond(level) => {
                Some(format!("it passed although the easier level {} did not", edge.unwrap_or_default()))
            }
            Decision::Pass | Decision::Fail => None,
        };
        self.tried.iter().filter_map(|(level, decision)| Some((*level, reason(*level, decision)?))).collect()
    }
}

/// Whether two levels are as near to each other as the search wants them, or neighbours.
fn is_narrow(search: &Search, one: i64, other: i64) -> bool {
    let (low, high) = (one.min(other), one.max(other));
    (high - low) as f64 <= (search.within * low as f64).max(1.0)
}

/// Why a bracket does not answer what was searched for; none when it does, which is when the level that passed lies at
/// the far end of the search, or as near to one that failed as the search wants. Levels between those two that could not
/// be decided take nothing from it: wherever among them the limit lies, it lies within the bracket.
pub fn unsettled(search: &Search, bracket: &Bracket) -> Option<String> {
    let (low, high) = search.between;
    let far = match search.find {
        Find::Capacity => high,
        Find::Demand => low,
    };
    match (bracket.pass, bracket.fail) {
        (Some(pass), _) if pass == far => None,
        (Some(pass), Some(fail)) if is_narrow(search, pass, fail) => None,
        (None, Some(fail)) if bracket.undecided.is_empty() && fail == low + high - far => None,
        (pass, fail) => Some(match (bracket.undecided.first(), pass, fail) {
            (Some((level, why)), Some(pass), Some(fail)) => {
                format!(
                    "the limit lies between {pass} and {fail}, wider than asked for: level {level} could not be decided: {why}"
                )
            }
            (Some((level, why)), ..) => format!("level {level} could not be decided: {why}"),
            (None, Some(pass), Some(fail)) => format!("the limit lies between {pass} and {fail}, wider than asked for"),
            (None, Some(pass), None) => format!("{pass} passed, and no level was tried that fails"),
            (None, None, _) => "the easiest level was not tried".to_owned(),
        }),
    }
}

fn middle(low: i64, high: i64) -> i64 {
    let between = if low >= 1 && high / low >= 2 {
        (low as f64 * high as f64).sqrt().round() as i64
    } else {
        low + (high - low) / 2
    };
    between.clamp(low + 1, high - 1)
}

/// The brackets of a search that was run, one a curve, from its trials.
pub fn summarize(search: &Search, slos: &[Slo], curves: &[Curve]) -> SearchSummary {
    let bracket = |curve: &Curve| {
        let mut state = SearchState::new(search.clone());
        for cell in &curve.cells {
            state.record(cell.x.round() as i64, verdict::decide_level(slos, cell));
        }
        state.bracket(&curve.label, &curve.levels)
    };
    SearchSummary { factor: search.factor.clone(), brackets: curves.iter().map(bracket).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(find: Find, between: (i64, i64), within: f64, decide: impl Fn(i64) -> Decision) -> (Vec<i64>, Bracket) {
        let mut state = SearchState::new(Search { factor: "users".to_owned(), find, between, within });
        let mut levels = Vec::new();
        while let Some(level) = state.next_level() {
            assert!(levels.len() < 64, "the search does not end: {levels:?}");
            levels.push(level);
            state.record(level, decide(level));
        }
        (levels, state.bracket("all", &Levels::new()))
    }

    fn up_to(limit: i64) -> impl Fn(i64) -> Decision {
        move |level| if level <= limit { Decision::Pass } else { Decision::Fail }
    }

    #[test]
    fn a_capacity_is_bracketed_to_within_its_share() {
        let (levels, bracket) = run(Find::Capacity, (1, 512), 0.05, up_to(100));
        assert_eq!(levels[..3], [1, 512, 23]);
        let (pass, fail) = (bracket.pass.unwrap(), bracket.fail.unwrap());
        assert!(pass <= 100 && fail > 100 && (fail - pass) as f64 <= 0.05 * pass as f64, "{bracket:?}");
    }

    #[test]
    fn a_demand_is_the_smallest_level_that_passes() {
        let (levels, bracket) =
            run(Find::Demand, (1, 8), 0.0, |level| if level >= 3 { Decision::Pass } else { Decision::Fail });
        assert_eq!((levels[0], bracket.pass, bracket.fail), (8, Some(3), Some(2)));
    }

    #[test]
    fn ends_that_settle_the_question_end_the_search() {
        let (levels, bracket) = run(Find::Capacity, (1, 64), 0.05, up_to(64));
        assert_eq!((levels, bracket.pass, bracket.fail), (vec![1, 64], Some(64), None));
        let (levels, bracket) = run(Find::Capacity, (1, 64), 0.05, up_to(0));
        assert_eq!((levels, bracket.pass, bracket.fail), (vec![1], None, Some(1)));
    }

    #[test]
    fn an_undecided_level_is_reported_and_never_passed() {
        let (_, bracket) = run(Find::Capacity, (1, 16), 0.0, |level| match level {
            ..=8 => Decision::Pass,
            9..=10 => Decision::Unknown("interval 240–262 ms spans 250 ms".to_owned()),
            _ => Decision::Fail,
        });
        assert_eq!((bracket.pass, bracket.undecided.is_empty()), (Some(8), false));
        assert!(bracket.fail.unwrap() > 10);
    }

    #[test]
    fn a_bracket_settles_a_search_when_it_is_as_narrow_as_asked_for() {
        let of = |find: Find, pass: Option<i64>, fail: Option<i64>| {
            let search = Search { factor: "users".to_owned(), find, between: (1, 64), within: 0.05 };
            let bracket = Bracket { label: String::new(), levels: Levels::new(), pass, fail, undecided: Vec::new() };
            unsettled(&search, &bracket)
        };
        let settled = [(Some(40), Some(42)), (Some(3), Some(4)), (Some(64), None), (None, Some(1))];
        for (pass, fail) in settled {
            assert_eq!(of(Find::Capacity, pass, fail), None, "{pass:?} {fail:?}");
        }
        for (pass, fail, why) in [
            (Some(8), Some(64), "the limit lies between 8 and 64, wider than asked for"),
            (Some(8), None, "8 passed, and no level was tried that fails"),
            (None, None, "the easiest level was not tried"),
        ] {
            assert_eq!(of(Find::Capacity, pass, fail).as_deref(), Some(why));
        }
        assert_eq!((of(Find::Demand, Some(1), None), of(Find::Demand, None, Some(64))), (None, None));
    }

    #[test]
    fn an_undecided_level_inside_a_bracket_that_is_narrow_enough_leaves_it_standing() {
        let of = |find: Find, within: f64, (pass, undecided, fail): (i64, i64, i64)| {
            let between = (500, 10_000);
            let mut state = SearchState::new(Search { factor: "rate".to_owned(), find, between, within });
            for (level, decision) in [
                (pass, Decision::Pass),
                (undecided, Decision::Unknown("too close to tell".to_owned())),
                (fail, Decision::Fail),
            ] {
                state.record(level, decision);
            }
            let bracket = state.bracket("all", &Levels::new());
            assert_eq!((bracket.pass, bracket.fail, bracket.undecided[0].0), (Some(pass), Some(fail), undecided));
            unsettled(&state.search, &bracket)
        };
        let wide = "the limit lies between 4128 and 3990, wider than asked for: level 4082 could not be decided: too close to tell";
        assert_eq!(of(Find::Demand, 0.02, (4_128, 4_082, 3_990)).as_deref(), Some(wide));
        assert_eq!(of(Find::Demand, 0.05, (4_128, 4_082, 3_990)), None);
        assert_eq!(of(Find::Capacity, 0.05, (3_990, 4_082, 4_128)), None);
        assert!(of(Find::Capacity, 0.05, (3_990, 4_082, 4_300)).is_some());
    }

    #[test]
    fn results_that_go_back_and_forth_are_reported() {
        let mut state =
            SearchState::new(Search { factor: "users".into(), find: Find::Capacity, between: (1, 8), within: 0.0 });
        for (level, passes) in [(1, true), (2, false), (4, true), (8, false)] {
            state.record(level, if passes { Decision::Pass } else { Decision::Fail });
        }
        let bracket = state.bracket("all", &Levels::new());
        assert_eq!((bracket.pass, bracket.fail), (Some(1), Some(2)));
        assert_eq!(bracket.undecided, [(4, "it passed although the easier level 2 did not".to_owned())]);
    }
}

//! What became of writes, in the verdict.
//!
//! The one rule: an acknowledged write that is lost is a failure whatever the objectives say, and one that nobody could
//! look for is unknown where something was broken.

use super::{Verdict, Word};
use crate::measure::{Lost, TrialSummary};

impl Verdict {
    /// With what became of the writes of trials. `broken` says whether faults were injected.
    #[must_use]
    pub fn with_writes(mut self, trials: &[TrialSummary], broken: bool) -> Self {
        let checked = || trials.iter().filter_map(|trial| Some((trial, trial.lost.as_ref()?)));
        let wrong: Vec<(&TrialSummary, &Lost)> = checked().filter(|(_, lost)| lost.is_broken()).collect();
        let Some(all) = Lost::of_all(checked().map(|(_, lost)| lost)) else { return self };
        if !wrong.is_empty() {
            let named =
                |(trial, lost): &(&TrialSummary, &Lost)| format!("{} in trial {}", lost.statement(), trial.name);
            let why = wrong.iter().map(named).collect::<Vec<_>>().join("; ");
            self.why = if self.verdict == Word::Fail { format!("{why}; {}", self.why) } else { why };
            if self.verdict != Word::Fail {
                self.which.clear();
            }
            let keys = wrong.iter().flat_map(|(trial, lost)| {
                lost.findings().into_iter().map(|(key, _)| format!("writes: {key} in {}", trial.name))
            });
            self.which.splice(0..0, keys);
            self.verdict = Word::Fail;
            return self;
        }
        self.why = format!("{}; {}", self.why, all.statement());
        if all.unchecked.is_some() && broken && self.verdict == Word::Pass {
            self.verdict = Word::Unknown;
            self.which.push("writes".to_owned());
        }
        self
    }
}

/// The exit code of a study that did not come to its end, by its finished trials: 3, or 1 where a write went wrong.
pub fn exit_code_so_far(trials: &[TrialSummary]) -> u8 {
    if trials.iter().filter_map(|trial| trial.lost.as_ref()).any(Lost::is_broken) { 1 } else { 3 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::samples::{Made, trial};
    use crate::verdict::{Slo, exit_code, judge_one};

    fn lost(change: impl FnOnce(&mut Lost)) -> Option<Lost> {
        let mut lost = Lost { attempted: 1_240, acknowledged: 1_234, unknown: 5, unknown_found: 2, ..Lost::default() };
        change(&mut lost);
        Some(lost)
    }

    #[test]
    fn a_lost_write_fails_whatever_the_objectives_say_and_one_not_looked_for_is_unknown() {
        type Row = (Option<Lost>, &'static str, bool, Word, u8, &'static str);
        let finding = |count: fn(&mut Lost) -> &mut u64, key: &str| {
            lost(|lost| {
                *count(lost) = 1;
                lost.named.insert(key.to_owned(), vec!["create 3-17 of 5 at 12.3 s".to_owned()]);
            })
        };
        let missed = "goodput >= 9999/s";
        let rows: [Row; 10] = [
            (None, "p95 <= 50ms", true, Word::Pass, 0, "every objective is met"),
            (
                lost(|_| {}),
                "p95 <= 50ms",
                true,
                Word::Pass,
                0,
                "every objective is met; no acknowledged write was lost (1,234 acknowledged, 5 unknown of which 2 were found)",
            ),
            (
                finding(|lost| &mut lost.lost, "lost"),
                "p95 <= 50ms",
                true,
                Word::Fail,
                1,
                "writes went wrong: 1 acknowledged and not there (create 3-17 of 5 at 12.3 s)",
            ),
            (
                finding(|lost| &mut lost.duplicated, "duplicated"),
                "p95 <= 50ms",
                false,
                Word::Fail,
                1,
                "1 there more than once (create 3-17",
            ),
            (
                finding(|lost| &mut lost.resurrected, "resurrected"),
                missed,
                true,
                Word::Fail,
                1,
                "not met: goodput >= 9999/s",
            ),
            (finding(|lost| &mut lost.phantom, "phantom"), missed, true, Word::Fail, 1, "(create 3-17 of 5 at 12.3 s)"),
            (
                finding(|lost| &mut lost.not_linearizable, "not_linearizable"),
                "p95 <= 50ms",
                true,
                Word::Fail,
                1,
                "no order explains",
            ),
            (finding(|lost| &mut lost.stale, "stale"), "p95 <= 50ms", true, Word::Fail, 1, "reads that missed"),
            (
                lost(|lost| lost.unchecked = Some("it did not answer".to_owned())),
                "p95 <= 50ms",
                true,
                Word::Unknown,
                3,
                "unknown: it did not answer",
            ),
            (
                lost(|lost| lost.unchecked = Some("it did not answer".to_owned())),
                "p95 <= 50ms",
                false,
                Word::Pass,
                0,
                "unknown: it did not answer",
            ),
        ];
        for (lost, slo, broken, word, code, why) in rows {
            let run = TrialSummary { lost, ..trial(&Made::default()) };
            let slo = Slo::try_from(slo.to_owned()).unwrap();
            let verdict = judge_one(&[slo], &run).with_writes(&[run], broken);
            assert_eq!((verdict.verdict, exit_code(&verdict, false)), (word, code), "{verdict:?}");
            assert!(verdict.why.contains(why), "{why}: {}", verdict.why);
        }
    }

    #[test]
    fn a_study_that_was_interrupted_is_3_unless_a_finished_trial_lost_a_write() {
        let (well, unchecked) = (lost(|_| {}), lost(|lost| lost.unchecked = Some("it did not answer".to_owned())));
        let gone = lost(|lost| lost.lost = 1);
        for (each, code) in [
            (vec![], 3),
            (vec![None], 3),
            (vec![well.clone(), unchecked], 3),
            (vec![gone.clone()], 1),
            (vec![well.clone(), gone, None, well], 1),
        ] {
            let trials: Vec<TrialSummary> =
                each.into_iter().map(|lost| TrialSummary { lost, ..trial(&Made::default()) }).collect();
            assert_eq!(
                exit_code_so_far(&trials),
                code,
                "{:?}",
                trials.iter().map(|trial| &trial.lost).collect::<Vec<_>>()
            );
        }
    }
}

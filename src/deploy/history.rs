//! The history of a trial: read of the generators each second, kept on disk whole and in memory as the check needs it.
//!
//! The one rule: a line that is missing is noticed by its number, and then nothing is said to be well. From then on
//! nothing is kept in memory either, only counted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use kit::Outcome;
use kit::journal::Line;

use super::AdminClient;
use super::running::Running;
use super::start::external_url;
use super::trial::Site;
use crate::archive::TrialFiles;
use crate::experiment::{DeploymentKind, Trial};
use crate::load::Does;
use crate::load::track::Entry;
use crate::measure::lost::{self, Fate, Lost, Words};
use crate::systems::ReadBack;

/// The most operations that are kept for the check: of a longer trial it cannot be made. One takes about 450 bytes, so
/// that all of them take half a gigabyte at most: 140 itself, 30 for its name, 110 for what its answer showed, 70 for a
/// text of its own such as a title, up to twice the first while the list grows, and 30 for the order that the check looks
/// at them in.
const MOST: usize = 1_000_000;

/// What the generators of a trial told of each operation.
pub struct History {
    words: Words,
    kept: lost::History,
    /// Users whose creates may have been done.
    writers: BTreeSet<u64>,
    /// Good and all operations of each user in the measured window.
    pub users: BTreeMap<u64, (u64, u64)>,
    window_ns: Range<i64>,
    most: usize,
}

impl History {
    /// Of a trial whose users' steps are tracked; none otherwise.
    pub fn of(site: &Site<'_>, trial: &Trial) -> Option<Self> {
        let window = site.experiment.window(&site.experiment.load.at(&trial.levels));
        let is_tracked = site.system.scenario(site.experiment, &trial.levels).is_tracked();
        is_tracked.then(|| Self::new(&window))
    }

    fn new(window: &Range<u32>) -> Self {
        let ns = |second: u32| i64::from(second) * 1_000_000_000;
        Self {
            words: Words::default(),
            kept: lost::History::default(),
            writers: BTreeSet::new(),
            users: BTreeMap::new(),
            window_ns: ns(window.start)..ns(window.end),
            most: MOST,
        }
    }

    /// Takes what a generator told after line `last`, and moves that on.
    ///
    /// # Errors
    /// When it cannot be read, or not be kept.
    pub fn read(&mut self, admin: &AdminClient, last: &mut u64, files: &mut TrialFiles) -> anyhow::Result<()> {
        let told = admin.history(*last)?;
        self.take(&told, last)?;
        files.operations(&told)
    }

    fn take(&mut self, told: &str, last: &mut u64) -> anyhow::Result<()> {
        for line in told.lines() {
            let Line { seq, entry } = serde_json::from_str::<Line<Entry>>(line)?;
            let missing = seq.saturating_sub(*last + 1);
            if missing > 0 {
                self.is_incomplete(format!(
                    "{missing} lines of the history are missing, because more waited than a generator keeps; offer less, \
                     or spread the load over workers"
                ));
            }
            *last = seq;
            self.keep(entry);
        }
        Ok(())
    }

    /// No check can be made any more: what it would have needed is given back, but for the counts.
    fn is_incomplete(&mut self, why: String) {
        if self.kept.incomplete.is_none() {
            self.kept.incomplete = Some(why);
            self.words = Words::default();
            for operation in std::mem::take(&mut self.kept.operations) {
                self.kept.creates.count(operation.does, operation.fate);
            }
        }
    }

    fn keep(&mut self, entry: Entry) {
        if entry.intended_ns.is_some_and(|at_ns| self.window_ns.contains(&at_ns)) {
            let (good, all) = self.users.entry(entry.user).or_default();
            *good += u64::from(entry.outcome == Outcome::Ok);
            *all += 1;
        }
        let Some(does) = entry.does else { return };
        if does == Does::Create {
            self.writers.insert(entry.user);
        }
        if self.kept.operations.len() >= self.most {
            let most = self.most;
            self.is_incomplete(format!(
                "the history is longer than the {most} operations that can be checked; measure shorter, or offer less"
            ));
        }
        match &self.kept.incomplete {
            None => self.kept.operations.extend(self.words.operation(entry)),
            Some(_) => self.kept.creates.count(does, Fate::of(entry.outcome, entry.status)),
        }
    }

    /// Looks what became of what was written, once everything is healed and nothing more is sent; none where the system
    /// cannot be asked.
    pub fn check(
        &mut self,
        site: &Site<'_>,
        trial: &Trial,
        running: &Running<'_>,
        entry: Option<&str>,
        failure: Option<&str>,
    ) -> Option<Lost> {
        if let Some(failure) = failure {
            self.is_incomplete(format!("the trial did not end as it should: {failure}"));
        }
        let found =
            if self.kept.incomplete.is_some() { Vec::new() } else { self.read_back(site, trial, running, entry)? };
        Some(lost::check(&self.kept, &found, trial.seed))
    }

    fn read_back(
        &mut self,
        site: &Site<'_>,
        trial: &Trial,
        running: &Running<'_>,
        entry: Option<&str>,
    ) -> Option<Vec<lost::Found>> {
        (site.progress)("reading back", 1.0);
        let external = || external_url(site.experiment, trial).unwrap_or_default();
        let base_url = match site.experiment.deployment {
            DeploymentKind::External => external().trim_end_matches('/').to_owned(),
            _ => entry
                .and_then(|entry| running.addresses(entry).into_iter().next())
                .map(|addr| format!("http://{addr}"))?,
        };
        let wanted = ReadBack {
            base_url,
            experiment: site.experiment,
            levels: &trial.levels,
            run: &format!("{}-{}", site.run, trial.index),
            users: self.writers.iter().copied().collect(),
            interrupt: site.interrupt,
        };
        match site.system.read_back(&wanted) {
            Ok(found) => found,
            Err(error) => {
                self.is_incomplete(format!("what was written could not be read back: {error:#}"));
                Some(Vec::new())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seq: u64, user: u64, second: i64, outcome: &str) -> String {
        let at_ns = second * 1_000_000_000;
        format!(
            r#"{{"seq":{seq},"user":{user},"op":"{user}-{seq}","kind":"create","does":"create","intended_ns":{at_ns},"invoke_ns":{at_ns},"return_ns":null,"outcome":"{outcome}","status":0,"arg":null}}"#
        ) + "\n"
    }

    #[test]
    fn users_are_counted_in_the_measured_window_and_a_missing_line_is_noticed() {
        let mut history = History::new(&(2..10));
        let mut last = 0;
        let told =
            [line(1, 4, 1, "ok"), line(2, 4, 2, "ok"), line(3, 4, 9, "unknown"), line(4, 5, 10, "failed")].concat();
        history.take(&told, &mut last).unwrap();
        assert_eq!((last, &history.kept.incomplete), (4, &None));
        assert_eq!(history.users, BTreeMap::from([(4, (1, 2))]));
        assert_eq!(history.writers, BTreeSet::from([4, 5]));
        history.take(&line(7, 5, 3, "ok"), &mut last).unwrap();
        let why = history.kept.incomplete.as_deref().unwrap_or_default();
        assert!(why.starts_with("2 lines of the history are missing"), "{why}");
        let lost = lost::check(&history.kept, &[], 1);
        assert_eq!(lost.unchecked.as_deref(), Some(why));
        assert_eq!((lost.attempted, lost.acknowledged, lost.unknown), (5, 3, 1), "all are counted still");
        assert_eq!(history.kept.operations, []);
    }

    #[test]
    fn of_a_history_that_is_too_long_nothing_is_kept_and_that_is_said() {
        for (lines, kept, why) in [
            (3, 3, None),
            (4, 0, Some("the history is longer than the 3 operations that can be checked; measure shorter")),
            (9, 0, Some("the history is longer than the 3 operations that can be checked; measure shorter")),
        ] {
            let mut history = History { most: 3, ..History::new(&(2..10)) };
            let told: String = (1..=lines).map(|seq| line(seq, 4, 2, "ok")).collect();
            history.take(&told, &mut 0).unwrap();
            let lost = lost::check(&history.kept, &[], 1);
            assert_eq!((history.kept.operations.len(), lost.acknowledged), (kept, lines), "{lines} lines");
            let unchecked = lost.unchecked.unwrap_or_default();
            assert!(unchecked.starts_with(why.unwrap_or("what 1 of 1 users wrote")), "{lines} lines: {unchecked}");
        }
    }
}

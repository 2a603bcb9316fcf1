//! Operations by second and kind, small enough to keep for a whole trial, and windows made of them.
//!
//! One rule: an operation belongs to the second it was intended for, and a window is a whole number of them.

use std::collections::BTreeMap;
use std::ops::Range;

use kit::OpsRecord;
use kit::op::Latencies;

use crate::load::driver::NOT_SENT;

/// So many durations stand for those of one second: its 95th percentile is kept to half a percent of rank, and what a
/// long trial holds stays small.
const KEPT: u64 = 200;

/// Operations counted, with the times of those that did not fail.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Intended, however they ended.
    pub offered: u64,
    /// Ended well.
    pub ok: u64,
    /// Due, and never sent.
    pub unsent: u64,
    /// Answered wrongly.
    pub wrong: u64,
    times: Latencies,
}

impl Tally {
    fn of(ops: &OpsRecord) -> Self {
        Self {
            offered: ops.count(),
            ok: ops.ok,
            unsent: ops.errors.get(NOT_SENT).copied().unwrap_or(0),
            wrong: ops.wrong,
            times: thinned(&ops.total),
        }
    }

    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.ok += other.ok;
        self.unsent += other.unsent;
        self.wrong += other.wrong;
        self.times.add(&other.times);
    }

    /// Those that did not end well.
    pub fn bad(&self) -> u64 {
        self.offered - self.ok
    }

    /// Their share, from 0 to 1; none where nothing was offered.
    pub fn bad_share(&self) -> Option<f64> {
        (self.offered > 0).then(|| self.bad() as f64 / self.offered as f64)
    }

    /// How many durations are behind a quantile.
    pub fn answered(&self) -> u64 {
        self.times.count()
    }

    /// The time below which a share of those that did not fail lies, in milliseconds.
    pub fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        self.times.quantile(quantile).map(|time| time.as_secs_f64() * 1e3)
    }
}

/// As many durations with the same quantiles, in at most [`KEPT`] different ones.
fn thinned(times: &Latencies) -> Latencies {
    let count = times.count();
    if count <= KEPT {
        return times.clone();
    }
    let mut few = Latencies::new();
    for place in 0..KEPT {
        let value = times.quantile((place as f64 + 0.5) / KEPT as f64).unwrap_or_default();
        few.record_many(value.as_nanos() as u64, count * (place + 1) / KEPT - count * place / KEPT);
    }
    few
}

/// One second.
#[derive(Clone, Debug, Default)]
struct Second {
    all: Tally,
    kinds: BTreeMap<String, Tally>,
}

/// The seconds of a trial.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seconds(BTreeMap<u32, Second>);

impl Seconds {
    /// Adds operations of one kind in one second.
    pub fn add_kind(&mut self, ops: &OpsRecord) {
        let kinds = &mut self.0.entry(ops.second).or_default().kinds;
        kinds.entry(ops.kind.clone()).or_default().add(&Tally::of(ops));
    }

    /// Adds all operations of one second, whatever their kind.
    pub fn add_all(&mut self, ops: &OpsRecord) {
        self.0.entry(ops.second).or_default().all.add(&Tally::of(ops));
    }

    /// Good operations with their times in milliseconds, and some that were refused.
    #[cfg(test)]
    pub fn put(&mut self, second: u32, times_ms: &[f64], refused: u64) {
        let ok = times_ms.len() as u64;
        let all = &mut self.0.entry(second).or_default().all;
        times_ms.iter().for_each(|ms| all.times.record((ms * 1e6) as u64));
        (all.offered, all.ok) = (all.offered + ok + refused, all.ok + ok);
    }

    /// All operations of some seconds.
    pub fn all(&self, within: Range<u32>) -> Tally {
        let mut sum = Tally::default();
        self.range(within).for_each(|second| sum.add(&second.all));
        sum
    }

    /// The same by kind.
    pub fn kinds(&self, within: Range<u32>) -> BTreeMap<String, Tally> {
        let mut sums: BTreeMap<String, Tally> = BTreeMap::new();
        for (kind, tally) in self.range(within).flat_map(|second| &second.kinds) {
            sums.entry(kind.clone()).or_default().add(tally);
        }
        sums
    }

    /// Whole windows of so many seconds, one after another from the first second on.
    pub fn windows(&self, within: Range<u32>, length: u32) -> Vec<Window> {
        let starts = (0..).map(|place| within.start + place * length).take_while(|start| start + length <= within.end);
        starts.map(|start| Window { start, length, tally: self.all(start..start + length) }).collect()
    }

    fn range(&self, within: Range<u32>) -> impl Iterator<Item = &Second> {
        // An empty range that is turned around would panic.
        let end = within.end.max(within.start);
        self.0.range(within.start..end).map(|(_, second)| second)
    }
}

/// Some seconds together.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// Its first second.
    pub start: u32,
    /// How many.
    pub length: u32,
    /// What was intended in it.
    pub tally: Tally,
}

impl Window {
    /// The second after its last.
    pub fn end(&self) -> u32 {
        self.start + self.length
    }

    /// A count in it as a rate.
    pub fn per_s(&self, count: u64) -> f64 {
        count as f64 / f64::from(self.length)
    }
}

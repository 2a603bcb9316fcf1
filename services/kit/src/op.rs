//! An operation, the unit everything is measured in, and what a second of them looks like on the wire.
//!
//! ```text
//! intended ── lag ──► released ── queue ──► started ── work ──► finished      wait = lag + queue, total = wait + work
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::latencies::Latencies;

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It did what it should.
    Ok,
    /// It was refused or broke, and did not happen.
    Failed,
    /// It was given up (a time-out, a lost connection after sending): it may have happened.
    Unknown,
    /// It was answered, and a check says that the answer is wrong.
    Wrong,
}

impl Outcome {
    /// All outcomes, in the order in which counts are kept.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Failed, Self::Unknown, Self::Wrong];
}

/// One unit of useful work: four instants on one monotonic clock, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// When the schedule wanted it.
    pub intended_ns: u64,
    /// When the schedule let it go.
    pub released_ns: u64,
    /// When work on it began.
    pub started_ns: u64,
    /// When it was done, or given up.
    pub finished_ns: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// A status code of its protocol, 0 where there is none.
    pub status: u16,
    /// How much it was, in the system's own unit (requests, records, pages, bytes).
    pub units: u64,
    /// Bytes received.
    pub bytes: u64,
}

/// The operations of one kind that were intended in one second.
///
/// The four durations hold every operation that was answered or given up (`ok`, `unknown`, `wrong`); the totals of
/// those that failed stand apart, because a refusal is fast and would flatter. A given-up operation counts with the
/// time until it was given up.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct OpsRecord {
    /// Its place in the sender's stream, from 1; 0 while the second is open.
    pub seq: u64,
    /// The second since the start of the schedule in which the operations were intended.
    pub second: u32,
    /// What the operations were.
    pub kind: String,
    /// Whether operations of this second may still end. Then there are counts, but no durations yet.
    pub open: bool,
    /// How many ended well.
    pub ok: u64,
    /// How many were refused or broke.
    pub failed: u64,
    /// How many were given up.
    pub unknown: u64,
    /// How many were answered wrongly.
    pub wrong: u64,
    /// Sum of the units of the good ones.
    pub units: u64,
    /// Bytes received.
    pub bytes: u64,
    /// How many ended with each status code.
    pub statuses: BTreeMap<u16, u64>,
    /// How many did not end well, by reason.
    pub errors: BTreeMap<String, u64>,
    /// released − intended.
    pub lag: Latencies,
    /// started − intended.
    pub wait: Latencies,
    /// finished − started.
    pub work: Latencies,
    /// finished − intended.
    pub total: Latencies,
    /// finished − intended of the failed ones.
    pub failed_total: Option<Latencies>,
}

impl OpsRecord {
    /// All operations, however they ended.
    pub fn count(&self) -> u64 {
        self.ok + self.failed + self.unknown + self.wrong
    }

    /// Total times of all operations, those that failed too: a refusal is fast, so this is no latency to judge by.
    pub fn all_times(&self) -> Cow<'_, Latencies> {
        let mut all = Cow::Borrowed(&self.total);
        if let Some(failed) = &self.failed_total {
            all.to_mut().add(failed);
        }
        all
    }

    /// The count of one outcome.
    pub fn outcome_mut(&mut self, outcome: Outcome) -> &mut u64 {
        match outcome {
            Outcome::Ok => &mut self.ok,
            Outcome::Failed => &mut self.failed,
            Outcome::Unknown => &mut self.unknown,
            Outcome::Wrong => &mut self.wrong,
        }
    }

    /// Adds one ended operation.
    #[inline]
    pub fn record(&mut self, op: &Op) {
        self.record_many(op, 1);
    }

    /// Adds `count` operations that went alike.
    #[inline]
    pub fn record_many(&mut self, op: &Op, count: u64) {
        *self.outcome_mut(op.outcome) += count;
        self.bytes += op.bytes * count;
        if op.status != 0 {
            *self.statuses.entry(op.status).or_default() += count;
        }
        let total = op.finished_ns.saturating_sub(op.intended_ns);
        if op.outcome == Outcome::Failed {
            self.failed_total.get_or_insert_with(Latencies::new).record_many(total, count);
            return;
        }
        if op.outcome == Outcome::Ok {
            self.units += op.units * count;
        }
        self.lag.record_many(op.released_ns.saturating_sub(op.intended_ns), count);
        self.wait.record_many(op.started_ns.saturating_sub(op.intended_ns), count);
        self.work.record_many(op.finished_ns.saturating_sub(op.started_ns), count);
        self.total.record_many(total, count);
    }

    /// The counts of a second that is not over; encoding its durations at each look would cost what the load needs.
    pub fn counts_so_far(&self) -> Self {
        Self {
            second: self.second,
            kind: self.kind.clone(),
            open: true,
            ok: self.ok,
            failed: self.failed,
            unknown: self.unknown,
            wrong: self.wrong,
            units: self.units,
            bytes: self.bytes,
            statuses: self.statuses.clone(),
            errors: self.errors.clone(),
            ..Self::default()
        }
    }

    /// Adds the counts and durations of another record; keeps its own second and kind.
    pub fn merge(&mut self, other: &Self) {
        self.ok += other.ok;
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.wrong += other.wrong;
        self.units += other.units;
        self.bytes += other.bytes;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (error, count) in &other.errors {
            *self.errors.entry(error.clone()).or_default() += count;
        }
        self.lag.add(&other.lag);
        self.wait.add(&other.wait);
        self.work.add(&other.work);
        self.total.add(&other.total);
        if let Some(failed) = &other.failed_total {
            self.failed_total.get_or_insert_with(Latencies::new).add(failed);
        }
    }
}

//! Collects operations by the second of their intended instant and by kind, in memory that does not grow with time.
//!
//! Each thread that records holds a [`Shard`]. An operation is announced with [`Shard::begin`] when its intended time
//! is decided, so a second is known to be complete as soon as it is over and nothing announced in it is still under
//! way: then it is encoded, leaves the shard, and waits in the outbox until its reader has acknowledged it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::op::{Op, OpsRecord, Outcome};

/// The collecting end. Cheap to clone.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Where second 0 starts, in ns of the role's clock. Set once, before the first operation.
    origin_ns: AtomicU64,
    shards: Mutex<Vec<Arc<Mutex<State>>>>,
    outbox: Mutex<Outbox>,
    /// Operations by outcome since the start, for the metrics.
    totals: [AtomicU64; 4],
}

#[derive(Default)]
struct Outbox {
    last: u64,
    lines: VecDeque<(u64, String)>,
}

/// The recording end, one a thread.
pub struct Shard {
    recorder: Recorder,
    /// Shared with the collector only, so the lock is all but always free.
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    kinds: Vec<String>,
    /// The second of the front entry.
    first: u32,
    seconds: VecDeque<Second>,
    /// Emptied records, used again: their histograms have the size they need.
    spare: Vec<OpsRecord>,
}

#[derive(Default)]
struct Second {
    under_way: u32,
    /// By kind; none until the first operation of that kind.
    kinds: Vec<Option<Box<OpsRecord>>>,
}

/// An operation that was announced and must be ended or withdrawn.
#[must_use = "a second stays open until everything announced in it has ended"]
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    /// When the schedule wants it.
    pub intended_ns: u64,
}

impl Recorder {
    /// How many encoded records wait for a reader before the oldest are given up.
    pub const OUTBOX: usize = 50_000;

    /// Says where second 0 starts.
    pub fn set_origin(&self, origin_ns: u64) {
        self.0.origin_ns.store(origin_ns, Ordering::Release);
    }

    /// A shard for one thread, which will record operations of these kinds and name them by index.
    pub fn shard(&self, kinds: &[String]) -> Shard {
        let state = Arc::new(Mutex::new(State { kinds: kinds.to_vec(), ..State::default() }));
        lock(&self.0.shards).push(state.clone());
        Shard { recorder: self.clone(), state }
    }

    /// Moves every complete second to the outbox. Called each second by the host, and before each read.
    pub fn collect(&self, now_ns: u64) {
        let now = second_of(now_ns, self.0.origin_ns.load(Ordering::Acquire));
        let shards: Vec<_> = lock(&self.0.shards).clone();
        for shard in shards {
            loop {
                // The lock is held only to take the second out, not to encode it.
                let Some(records) = lock(&shard).take_complete(now) else { break };
                for record in records {
                    self.push(record, &shard);
                }
            }
        }
    }

    fn push(&self, mut record: OpsRecord, shard: &Mutex<State>) {
        let mut outbox = lock(&self.0.outbox);
        outbox.last += 1;
        record.seq = outbox.last;
        // Cannot fail: every field is a number, a string or a histogram within its bounds.
        let line = serde_json::to_string(&record).expect("an ops record can be written");
        outbox.lines.push_back((record.seq, line));
        if outbox.lines.len() > Self::OUTBOX {
            outbox.lines.pop_front();
        }
        drop(outbox);
        lock(shard).recycle(record);
    }

    /// The records after `seq`, a JSON object a line, and after them those of the open seconds; records up to `seq`
    /// are forgotten.
    pub fn after(&self, seq: u64, now_ns: u64) -> String {
        self.collect(now_ns);
        let mut text = String::new();
        {
            let mut outbox = lock(&self.0.outbox);
            while outbox.lines.front().is_some_and(|(line, _)| *line <= seq) {
                outbox.lines.pop_front();
            }
            for (_, line) in &outbox.lines {
                text.push_str(line);
                text.push('\n');
            }
        }
        let shards: Vec<_> = lock(&self.0.shards).clone();
        for shard in shards {
            let open = lock(&shard).open();
            for record in open {
                text.push_str(&serde_json::to_string(&record).expect("an ops record can be written"));
                text.push('\n');
            }
        }
        text
    }

    /// Operations since the start, by outcome in the order of [`Outcome::ALL`].
    pub fn totals(&self) -> [u64; 4] {
        std::array::from_fn(|outcome| self.0.totals[outcome].load(Ordering::Relaxed))
    }
}

impl Shard {
    /// Announces an operation, as soon as its intended time is known.
    pub fn begin(&self, intended_ns: u64) -> Begun {
        let origin = self.recorder.0.origin_ns.load(Ordering::Acquire);
        lock(&self.state).second(second_of(intended_ns, origin)).under_way += 1;
        Begun { intended_ns }
    }

    /// Ends an announced operation. `error` says why it did not end well.
    pub fn end(&self, begun: Begun, kind: usize, op: &Op, error: Option<&str>) {
        let origin = self.recorder.0.origin_ns.load(Ordering::Acquire);
        self.recorder.0.totals[op.outcome as usize].fetch_add(1, Ordering::Relaxed);
        let mut state = lock(&self.state);
        let second = second_of(begun.intended_ns, origin);
        let record = state.record(second, kind);
        record.record(op);
        if op.outcome != Outcome::Ok {
            count_error(record, error.unwrap_or("no reason given"));
        }
        let second = state.second(second);
        second.under_way = second.under_way.saturating_sub(1);
    }

    /// Adds `count` operations that went alike, in a second that something announced and not ended keeps open: what a
    /// batch is made of, where announcing each would cost more than doing it.
    pub fn add(&self, kind: usize, op: &Op, count: u64) {
        let origin = self.recorder.0.origin_ns.load(Ordering::Acquire);
        self.recorder.0.totals[op.outcome as usize].fetch_add(count, Ordering::Relaxed);
        let mut state = lock(&self.state);
        state.record(second_of(op.intended_ns, origin), kind).record_many(op, count);
    }

    /// Withdraws an announced operation that was never sent.
    pub fn withdraw(&self, begun: Begun) {
        let origin = self.recorder.0.origin_ns.load(Ordering::Acquire);
        let mut state = lock(&self.state);
        let second = state.second(second_of(begun.intended_ns, origin));
        second.under_way = second.under_way.saturating_sub(1);
    }
}

/// Distinct reasons kept a second and kind; more of them are counted together.
const REASONS: usize = 32;

fn count_error(record: &mut OpsRecord, reason: &str) {
    if let Some(count) = record.errors.get_mut(reason) {
        *count += 1;
    } else {
        let reason = if record.errors.len() < REASONS { reason } else { "other reasons" };
        *record.errors.entry(reason.to_owned()).or_default() += 1;
    }
}

impl State {
    fn second(&mut self, second: u32) -> &mut Second {
        if self.seconds.is_empty() {
            self.first = second;
        }
        // Before the front only if the caller announced nothing there while it was open: counted with the front.
        let index = second.saturating_sub(self.first) as usize;
        while self.seconds.len() <= index {
            self.seconds.push_back(Second::default());
        }
        &mut self.seconds[index]
    }

    fn record(&mut self, second: u32, kind: usize) -> &mut OpsRecord {
        let kinds = self.kinds.len();
        let slot = self.second(second);
        if slot.kinds.is_empty() {
            slot.kinds.resize_with(kinds, || None);
        }
        if slot.kinds[kind].is_none() {
            let mut record = self.spare.pop().unwrap_or_default();
            record.kind.clone_from(&self.kinds[kind]);
            record.second = second;
            self.second(second).kinds[kind] = Some(Box::new(record));
        }
        self.second(second).kinds[kind].as_mut().expect("filled above")
    }

    fn take_complete(&mut self, now: u32) -> Option<Vec<OpsRecord>> {
        if self.first >= now || self.seconds.front()?.under_way > 0 {
            return None;
        }
        let second = self.seconds.pop_front()?;
        self.first += 1;
        Some(second.kinds.into_iter().flatten().map(|record| *record).collect())
    }

    fn open(&self) -> Vec<OpsRecord> {
        let mut records = Vec::new();
        for (index, second) in self.seconds.iter().enumerate() {
            let before = records.len();
            records.extend(second.kinds.iter().flatten().map(|record| record.counts_so_far()));
            if records.len() == before && second.under_way > 0 {
                // Nothing has ended yet: a record without a kind says that the second is open.
                let second = self.first + u32::try_from(index).unwrap_or(u32::MAX);
                records.push(OpsRecord { second, open: true, ..OpsRecord::default() });
            }
        }
        records
    }

    fn recycle(&mut self, mut record: OpsRecord) {
        for latencies in [&mut record.lag, &mut record.wait, &mut record.work, &mut record.total] {
            latencies.reset();
        }
        // A few seconds' worth: what a stall needed beyond that is given back.
        if self.spare.len() < 3 * self.kinds.len() {
            let OpsRecord { lag, wait, work, total, .. } = record;
            self.spare.push(OpsRecord { lag, wait, work, total, ..OpsRecord::default() });
        }
    }
}

fn second_of(at_ns: u64, origin_ns: u64) -> u32 {
    u32::try_from(at_ns.saturating_sub(origin_ns) / 1_000_000_000).unwrap_or(u32::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn op(intended_ns: u64, total_ns: u64, outcome: Outcome) -> Op {
        Op {
            intended_ns,
            released_ns: intended_ns,
            started_ns: intended_ns,
            finished_ns: intended_ns + total_ns,
            outcome,
            status: 200,
            units: 1,
            bytes: 10,
        }
    }

    fn records(text: &str) -> Vec<OpsRecord> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_second_stays_open_while_something_announced_in_it_is_under_way() {
        let recorder = Recorder::default();
        recorder.set_origin(100 * S);
        let shard = recorder.shard(&["list".into()]);
        let (quick, slow) = (shard.begin(100 * S), shard.begin(100 * S + 5));
        shard.end(quick, 0, &op(100 * S, 1_000, Outcome::Ok), None);

        let open = records(&recorder.after(0, 103 * S));
        assert_eq!((open.len(), open[0].open, open[0].seq, open[0].ok), (1, true, 0, 1));

        shard.end(slow, 0, &op(100 * S + 5, 3 * S, Outcome::Unknown), Some("timed out"));
        let closed = records(&recorder.after(0, 104 * S));
        assert_eq!((closed.len(), closed[0].open, closed[0].seq, closed[0].second), (1, false, 1, 0));
        assert_eq!((closed[0].ok, closed[0].unknown, closed[0].errors["timed out"]), (1, 1, 1));
        assert_eq!(closed[0].total.count(), 2);
    }

    #[test]
    fn a_record_stays_until_the_next_read_acknowledges_it() {
        let recorder = Recorder::default();
        let shard = recorder.shard(&["list".into()]);
        for second in 0..3 {
            let begun = shard.begin(second * S);
            shard.end(begun, 0, &op(second * S, 1_000, Outcome::Ok), None);
        }
        assert_eq!(records(&recorder.after(0, 10 * S)).len(), 3);
        assert_eq!(records(&recorder.after(0, 10 * S)).len(), 3, "a failed read loses nothing");
        let rest = records(&recorder.after(2, 10 * S));
        assert_eq!(rest.iter().map(|record| record.seq).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn a_failed_operation_counts_but_does_not_flatter_the_latency() {
        let recorder = Recorder::default();
        let shard = recorder.shard(&["list".into()]);
        let begun = shard.begin(0);
        shard.end(begun, 0, &op(0, 10, Outcome::Failed), Some("refused"));
        let record = &records(&recorder.after(0, 2 * S))[0];
        assert_eq!((record.failed, record.total.count(), record.failed_total.as_ref().unwrap().count()), (1, 0, 1));
    }

    #[test]
    fn closed_seconds_leave_memory() {
        let recorder = Recorder::default();
        let shard = recorder.shard(&["a".into(), "b".into()]);
        let mut seen = 0;
        for second in 0..1_000 {
            for kind in 0..2 {
                let begun = shard.begin(second * S);
                shard.end(begun, kind, &op(second * S, 1_000_000, Outcome::Ok), None);
            }
            seen = records(&recorder.after(seen, second * S)).iter().map(|r| r.seq).max().unwrap_or(0).max(seen);
            let state = lock(&shard.state);
            assert!(state.seconds.len() <= 2 && state.spare.len() <= 4);
        }
    }
}

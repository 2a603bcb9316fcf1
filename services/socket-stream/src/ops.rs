//! What is measured of a stream: its batches and its records, as operations.
//!
//! The one rule: a record's time begins when its line was due at the source, whatever held it up since. Line n of a stream
//! is due at the n-th instant of the stream's schedule, so nothing is added to the text: it is enough to count lines.
//!
//! Records are recorded when their batch has ended and all batches before it have, in slices of the schedule of at most
//! about a millisecond (one line where lines are sparser): at a million lines a second each of them cannot be an operation
//! of its own.

use std::collections::BTreeMap;

use kit::recorder::Begun;
use kit::{Op, Outcome, Recorder, Schedule, Shard};

use crate::policy::{Ended, Submitted};
use crate::settings::Settings;
use crate::words;

/// The kinds of operations of an engine.
pub const KINDS: [&str; 2] = ["batch", "record"];
const BATCH: usize = 0;
const RECORD: usize = 1;

const SECOND_NS: u64 = 1_000_000_000;
const SLICE_NS: u64 = 1_000_000;

/// Records the operations of one engine.
pub struct Ops {
    shard: Shard,
    origin_ns: u64,
    /// Lines of each stream that are not recorded; none where it is not known when they are due.
    streams: Vec<Option<Intended>>,
    /// Batch time of the next batch; none after the last.
    next_time_ns: Option<u64>,
    /// Batch times of those that have not ended.
    batches: BTreeMap<u64, u64>,
    /// Batches that have ended while one before them had not.
    ended: BTreeMap<u64, Ended>,
    /// The first batch whose records are not recorded.
    next_batch: u64,
    /// Keeps open the second of the earliest operation that is not recorded, and with it all seconds after it.
    held: Option<Begun>,
}

impl Ops {
    /// For streams that start at `origin_ns`, with the first batch at `first_batch_ns`. With a foreign source nothing is
    /// known of when a line was due, and only batches are recorded.
    pub fn new(recorder: &Recorder, settings: &Settings, seed: u64, origin_ns: u64, first_batch_ns: u64) -> Self {
        let intended = |stream| {
            settings.source.is_none().then(|| Intended::new(words::schedule(settings, seed, stream), settings.poisson))
        };
        let mut ops = Self {
            shard: recorder.shard(&KINDS.map(str::to_owned)),
            origin_ns,
            streams: (0..settings.receivers).map(intended).collect(),
            next_time_ns: Some(first_batch_ns),
            batches: BTreeMap::new(),
            ended: BTreeMap::new(),
            next_batch: 0,
            held: None,
        };
        ops.hold();
        ops
    }

    /// A batch has been submitted.
    pub fn submitted(&mut self, submitted: &Submitted) {
        self.batches.insert(submitted.batch, submitted.time_ns);
        self.next_time_ns = submitted.next_time_ns;
        self.hold();
    }

    /// A batch has ended.
    pub fn ended(&mut self, ended: &Ended) {
        if self.batches.remove(&ended.batch).is_some() {
            let op = Op {
                intended_ns: ended.time_ns,
                released_ns: ended.submitted_ns,
                started_ns: ended.started_ns.unwrap_or(ended.ended_ns),
                finished_ns: ended.ended_ns,
                outcome: ended.outcome,
                status: 0,
                units: ended.records,
                bytes: ended.blocks.iter().map(|block| block.bytes).sum(),
            };
            let begun = self.shard.begin(ended.time_ns);
            self.shard.end(begun, BATCH, &op, ended.reason.as_deref());
        }
        self.ended.insert(ended.batch, ended.clone());
        while let Some(ended) = self.ended.remove(&self.next_batch) {
            self.next_batch += 1;
            self.records(&ended);
        }
        self.hold();
    }

    /// From this line on it is not known which line of the schedule a line of this stream is. Those before it are recorded
    /// as their batches end, however long they have waited by then.
    pub fn forget_from(&mut self, stream: u32, line: u64) {
        if let Some(Some(intended)) = self.streams.get_mut(stream as usize) {
            intended.end_before(line);
        }
        self.hold();
    }

    /// Ends the recording. Lines due before `cut_ns` that are in no batch that ended are not known to have happened; none
    /// when everything that was sent was received.
    pub fn finish(&mut self, now_ns: u64, cut_ns: Option<u64>) {
        if let Some(cut_ns) = cut_ns {
            let unknown = Op { outcome: Outcome::Unknown, ..record_op(now_ns, now_ns) };
            for stream in 0..self.streams.len() {
                self.take(stream, Until::Instant(cut_ns.saturating_sub(self.origin_ns)), &unknown);
            }
        }
        self.streams.clear();
        self.batches.clear();
        self.next_time_ns = None;
        self.hold();
    }

    /// Moves the hold to the earliest operation that is not recorded. The recorder gives seconds away in order, so one
    /// hold is enough for all that follow, however far behind the stream is.
    fn hold(&mut self) {
        let lines =
            self.streams.iter().flatten().filter_map(|intended| intended.next_ns).map(|at_ns| self.origin_ns + at_ns);
        // Batches end out of order, but the first of those that have not is the earliest of them.
        let batches = self.batches.first_key_value().map(|(_, time_ns)| *time_ns).or(self.next_time_ns);
        let earliest_ns = lines.chain(batches).min();
        let second = |at_ns: u64| at_ns.saturating_sub(self.origin_ns) / SECOND_NS;
        if earliest_ns.map(second) == self.held.map(|held| second(held.intended_ns)) {
            return;
        }
        let next = earliest_ns.map(|at_ns| self.shard.begin(at_ns));
        if let Some(held) = std::mem::replace(&mut self.held, next) {
            self.shard.withdraw(held);
        }
    }

    /// The records of a batch, stream by stream and line by line.
    fn records(&mut self, ended: &Ended) {
        let op = Op { outcome: ended.outcome, ..record_op(ended.started_ns.unwrap_or(ended.ended_ns), ended.ended_ns) };
        for block in &ended.blocks {
            let stream = block.id.stream as usize;
            match block.first_line {
                Some(first) => self.take(stream, Until::Line(first + block.records), &op),
                None => self.take_last(stream, &op),
            }
        }
    }

    /// Adds what is left of a stream whose lines are not known any more: blocks come in the order of their lines, so what
    /// is known and in none before is in the first one that also has lines that are not known.
    fn take_last(&mut self, stream: usize, op: &Op) {
        if let Some(Some(Intended { end: Some(end), .. })) = self.streams.get(stream) {
            self.take(stream, Until::Line(*end), op);
        }
        if let Some(intended) = self.streams.get_mut(stream) {
            *intended = None;
        }
    }

    /// Adds the lines of a stream up to a place, all of which went as `op` did.
    fn take(&mut self, stream: usize, until: Until, op: &Op) {
        let Some(Some(intended)) = self.streams.get_mut(stream) else { return };
        while let Some((at_ns, lines)) = intended.next_slice(until) {
            let intended_ns = self.origin_ns + at_ns;
            self.shard.add(RECORD, &Op { intended_ns, released_ns: intended_ns, ..*op }, lines);
        }
    }
}

fn record_op(started_ns: u64, finished_ns: u64) -> Op {
    Op { intended_ns: 0, released_ns: 0, started_ns, finished_ns, outcome: Outcome::Ok, status: 0, units: 1, bytes: 0 }
}

/// Where to stop taking lines: before the line of this number, or before this instant of the schedule.
#[derive(Clone, Copy)]
enum Until {
    Line(u64),
    Instant(u64),
}

/// When the lines of a stream are due, in slices.
struct Intended {
    schedule: Schedule,
    poisson: bool,
    /// The first line of which it is not known; none as long as there is no such line.
    end: Option<u64>,
    /// The next line, and when it is due; none when there is none.
    line: u64,
    next_ns: Option<u64>,
    /// How far apart lines were last.
    gap_ns: f64,
}

impl Intended {
    fn new(mut schedule: Schedule, poisson: bool) -> Self {
        let next_ns = schedule.next();
        Self { schedule, poisson, end: None, line: 0, next_ns, gap_ns: f64::INFINITY }
    }

    /// It is not known of this line nor of those after it; the first such line holds.
    fn end_before(&mut self, line: u64) {
        let end = *self.end.get_or_insert(line);
        if self.line >= end {
            self.next_ns = None;
        }
    }

    /// The next lines that are due at about the same time: when, and how many.
    fn next_slice(&mut self, until: Until) -> Option<(u64, u64)> {
        let first_ns = self.next_ns?;
        let end_ns = (first_ns / SLICE_NS + 1) * SLICE_NS;
        let most = match until {
            Until::Line(line) => line.saturating_sub(self.line),
            // One at a time, because what comes after is not known.
            Until::Instant(at_ns) => u64::from(first_ns < at_ns),
        };
        let most = self.end.map_or(most, |end| most.min(end.saturating_sub(self.line)));
        if most == 0 {
            return None;
        }
        let (lines, last_ns) =
            if self.poisson { self.one_by_one(first_ns, end_ns, most) } else { self.at_once(first_ns, end_ns, most) };
        self.line += lines;
        if self.end.is_some_and(|end| self.line >= end) {
            self.next_ns = None;
        }
        Some((first_ns.midpoint(last_ns), lines))
    }

    fn one_by_one(&mut self, first_ns: u64, end_ns: u64, most: u64) -> (u64, u64) {
        let (mut lines, mut last_ns) = (1, first_ns);
        loop {
            self.next_ns = self.schedule.next();
            match self.next_ns {
                Some(next_ns) if next_ns < end_ns && lines < most => (lines, last_ns) = (lines + 1, next_ns),
                _ => return (lines, last_ns),
            }
        }
    }

    /// Evenly spaced lines need not be visited: as many as fit into the slice, if they are as dense as the last ones were.
    fn at_once(&mut self, first_ns: u64, end_ns: u64, most: u64) -> (u64, u64) {
        let fit = ((end_ns - first_ns) as f64 / self.gap_ns) as u64;
        let lines = fit.clamp(1, most);
        self.next_ns = self.schedule.nth((lines - 1) as usize);
        let Some(next_ns) = self.next_ns else { return (lines, first_ns) };
        self.gap_ns = ((next_ns - first_ns) as f64 / lines as f64).max(1.0);
        (lines, first_ns + ((lines - 1) as f64 * self.gap_ns) as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kit::{OpsRecord, Stage};

    use super::*;
    use crate::policy::{Block, BlockId};

    const S: u64 = SECOND_NS;
    const MS: u64 = 1_000_000;

    fn settings(per_s: f64, poisson: bool) -> Settings {
        let stage = Stage { duration: Some(Duration::from_secs(10)), from_per_s: per_s, to_per_s: per_s };
        Settings { stages: vec![stage], poisson, ..Settings::default() }
    }

    fn slices(settings: &Settings, until: Until) -> Vec<(u64, u64)> {
        let mut intended = Intended::new(words::schedule(settings, 7, 0), settings.poisson);
        std::iter::from_fn(|| intended.next_slice(until)).collect()
    }

    fn records(recorder: &Recorder, now_ns: u64) -> Vec<OpsRecord> {
        recorder.after(0, now_ns).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn batch(batch: u64, time_ns: u64, lines: std::ops::Range<u64>, ended_ns: u64) -> Ended {
        let id = BlockId { stream: 0, number: batch };
        let records = lines.end - lines.start;
        Ended {
            batch,
            time_ns,
            submitted_ns: time_ns,
            started_ns: Some(time_ns),
            ended_ns,
            records,
            blocks: vec![Block { id, records, bytes: 10 * records, first_line: Some(lines.start), closed_ns: time_ns }],
            outcome: Outcome::Ok,
            reason: None,
        }
    }

    fn submitted(batch: u64, time_ns: u64, next_time_ns: u64) -> Submitted {
        Submitted { batch, time_ns, next_time_ns: Some(next_time_ns) }
    }

    #[test]
    fn sparse_lines_are_slices_of_their_own_at_their_own_instant() {
        assert_eq!(slices(&settings(4.0, false), Until::Line(4)), [(0, 1), (S / 4, 1), (S / 2, 1), (3 * S / 4, 1)]);
        assert_eq!(slices(&settings(4.0, false), Until::Instant(S / 2)), [(0, 1), (S / 4, 1)]);
    }

    #[test]
    fn dense_lines_are_slices_of_about_a_millisecond_and_none_is_lost() {
        for poisson in [false, true] {
            let settings = settings(100_000.0, poisson);
            let slices = slices(&settings, Until::Line(200_000));
            assert_eq!(slices.iter().map(|(_, lines)| lines).sum::<u64>(), 200_000);
            assert!(slices.len() < 2_100, "{} slices of 2 s", slices.len());
            assert!(slices.windows(2).all(|pair| pair[0].0 < pair[1].0));
            // Each slice stands for lines that are at most a millisecond away.
            let mut due = words::schedule(&settings, 7, 0);
            for (at_ns, lines) in slices {
                for line_ns in due.by_ref().take(lines as usize) {
                    assert!(line_ns.abs_diff(at_ns) <= MS, "{line_ns} in the slice of {at_ns}");
                }
            }
        }
    }

    #[test]
    fn the_latency_of_a_record_begins_when_its_line_was_due() {
        let recorder = Recorder::default();
        recorder.set_origin(5 * S);
        let mut ops = Ops::new(&recorder, &settings(2.0, false), 7, 5 * S, 6 * S);
        ops.submitted(&submitted(0, 6 * S, 7 * S));
        ops.ended(&batch(0, 6 * S, 0..2, 6 * S + S / 2));
        let records = records(&recorder, 6 * S + S / 2);
        let closed: Vec<_> = records.iter().filter(|record| !record.open).collect();
        assert_eq!(closed.len(), 1, "second 1 is open");
        assert_eq!((closed[0].kind.as_str(), closed[0].second, closed[0].ok), ("record", 0, 2));
        // 0 s and 0.5 s to 1.5 s: waited until the batch started at 1 s, worked on for 0.5 s.
        let near = |found: Option<Duration>, ms: f64| (found.unwrap().as_secs_f64() * 1e3 / ms - 1.0).abs() < 0.002;
        assert!(near(closed[0].total.mean(), 1_250.0) && near(closed[0].wait.mean(), 750.0));
        assert!(near(closed[0].work.mean(), 500.0));
    }

    #[test]
    fn a_second_stays_open_until_its_last_line_is_done_though_batches_end_out_of_order() {
        let recorder = Recorder::default();
        let mut ops = Ops::new(&recorder, &settings(2.0, false), 7, 0, S);
        ops.submitted(&submitted(0, S, 2 * S));
        ops.submitted(&submitted(1, 2 * S, 3 * S));
        ops.ended(&batch(1, 2 * S, 2..4, 3 * S));
        let open = records(&recorder, 5 * S);
        assert!(open.iter().all(|record| record.open));

        ops.ended(&batch(0, S, 0..2, 4 * S));
        let closed: Vec<_> = records(&recorder, 5 * S).into_iter().filter(|record| !record.open).collect();
        let found: Vec<_> = closed.iter().map(|record| (record.second, record.kind.as_str(), record.ok)).collect();
        assert_eq!(found, [(0, "record", 2), (1, "batch", 1), (1, "record", 2)]);
        assert_eq!(closed[1].units, 2);
    }

    #[test]
    fn seconds_without_a_line_are_over_with_the_line_before_them() {
        let recorder = Recorder::default();
        // A line every 4 s: at 0, 4 and 8 s.
        let mut ops = Ops::new(&recorder, &settings(0.25, false), 7, 0, 60 * S);
        ops.submitted(&Submitted { batch: 0, time_ns: 3 * S, next_time_ns: None });
        ops.ended(&batch(0, 3 * S, 0..1, 3 * S));
        let found: Vec<_> = records(&recorder, 7 * S).into_iter().map(|record| (record.second, record.open)).collect();
        assert_eq!(found, [(0, false), (3, false), (4, true)]);
    }

    #[test]
    fn what_was_cut_off_is_unknown_and_nothing_stays_open() {
        let recorder = Recorder::default();
        let mut ops = Ops::new(&recorder, &settings(2.0, false), 7, 0, S);
        ops.submitted(&submitted(0, S, 2 * S));
        ops.ended(&batch(0, S, 0..2, 2 * S));
        ops.finish(4 * S, Some(3 * S));
        let all = records(&recorder, 6 * S);
        assert!(all.iter().all(|record| !record.open));
        let of = |second: u32| all.iter().find(|record| record.second == second && record.kind == "record");
        assert_eq!(of(0).map(|record| (record.ok, record.unknown)), Some((2, 0)));
        assert_eq!(of(2).map(|record| (record.ok, record.unknown)), Some((0, 2)));
        assert!(of(3).is_none(), "not due before the cut");
    }

    #[test]
    fn a_stream_whose_lines_are_not_known_has_batches_alone() {
        let foreign = Settings { source: Some("elsewhere:9999".into()), ..settings(2.0, false) };
        for settings in [foreign, settings(2.0, false)] {
            let recorder = Recorder::default();
            let mut ops = Ops::new(&recorder, &settings, 7, 0, S);
            ops.forget_from(0, 0);
            ops.submitted(&submitted(0, S, 2 * S));
            ops.ended(&batch(0, S, 0..2, 2 * S));
            ops.finish(2 * S, Some(2 * S));
            let kinds: Vec<_> = records(&recorder, 9 * S).into_iter().map(|record| record.kind).collect();
            assert_eq!(kinds, ["batch"]);
        }
    }

    #[test]
    fn lines_received_before_a_restart_are_recorded_though_their_batches_end_after_it() {
        for poisson in [false, true] {
            let recorder = Recorder::default();
            let mut ops = Ops::new(&recorder, &settings(2.0, poisson), 7, 0, S);
            ops.submitted(&submitted(0, S, 2 * S));
            // Lines 0 to 4 were received, the last of them in the block that the restart fell into.
            ops.forget_from(0, 5);
            ops.submitted(&submitted(1, 2 * S, 3 * S));
            ops.submitted(&Submitted { batch: 2, time_ns: 3 * S, next_time_ns: None });
            ops.ended(&batch(0, S, 0..2, 8 * S));
            ops.ended(&batch(1, 2 * S, 2..4, 9 * S));
            let mut mixed = batch(2, 3 * S, 4..8, 9 * S);
            mixed.blocks[0].first_line = None;
            ops.ended(&mixed);
            ops.finish(10 * S, Some(10 * S));
            let all = records(&recorder, 12 * S);
            let of_records = || all.iter().filter(|record| record.kind == "record");
            assert_eq!(of_records().map(|record| record.ok).sum::<u64>(), 5, "poisson: {poisson}");
            assert_eq!(of_records().map(|record| record.unknown).sum::<u64>(), 0);
            assert!(of_records().all(|record| record.total.mean().unwrap() > Duration::from_secs(5)));
            assert!(all.iter().all(|record| !record.open));
        }
    }

    #[test]
    fn lines_before_a_restart_that_are_in_no_batch_at_the_cut_are_unknown() {
        let recorder = Recorder::default();
        let mut ops = Ops::new(&recorder, &settings(2.0, false), 7, 0, S);
        ops.forget_from(0, 3);
        ops.forget_from(0, 9);
        ops.finish(9 * S, Some(8 * S));
        let unknown: u64 = records(&recorder, 9 * S).iter().map(|record| record.unknown).sum();
        assert_eq!(unknown, 3, "not those of the first restart and after it");
    }
}

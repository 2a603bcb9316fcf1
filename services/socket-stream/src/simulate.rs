//! The same policy on a virtual clock: an hour of stream in a moment.
//!
//! The one rule: same settings, same seed, same bytes. Events happen in the order of (instant, number), nothing is drawn
//! but what the source draws, and no clock is read: time begins at 0, on the wall as well.
//!
//! What is modelled and what is not:
//! - Lines reach the receiver at the instant they are due, unless a rate limit or the memory bound holds them up; then up
//!   to [`SOCKET_BYTES`] wait in the connection before the source counts itself blocked.
//! - A task that maps takes its records' cost and nothing else; dealing out and reducing take no time. `burn` is modelled as
//!   `sleep`: as if every slot had a CPU of its own, which live it has only while there are as many CPUs as slots.
//! - Which keys a partition has is found in the very lines that the source sends, as far as printing needs to know; the
//!   counts themselves are not made, so nothing is printed, and what a window or the stream so far would hold never reaches
//!   `state_bytes`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use kit::journal::Journal;
use kit::series::Series;
use kit::{Recorder, Schedule};

use crate::ops::Ops;
use crate::policy::{
    Action, Block, BlockGenerator, Done, Driver, MemoryBound, Plan, RateLimiter, Receiving, Start, Task, TaskId,
    TaskWork, ns, partition_of,
};
use crate::settings::{Settings, Work};
use crate::words::{self, Lines};

/// What a connection holds between a source that sends and a receiver that does not read: about what the buffers of a
/// loopback connection grow to.
pub const SOCKET_BYTES: u64 = 4 << 20;

const SECOND_NS: u64 = 1_000_000_000;

/// Runs source and engine on a virtual clock: lines are due until `until`, and then what was received is finished, as after
/// a stop. `each_second` is called at each second of virtual time, and once more when all has ended, with the instant: that
/// is when to read what was recorded.
///
/// # Errors
/// The first one of `each_second`.
pub fn simulate(
    settings: &Settings,
    seed: u64,
    until: Duration,
    recorder: &Recorder,
    series: &Series,
    journal: &Journal,
    each_second: &mut dyn FnMut(u64) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    recorder.set_origin(0);
    let mut simulation = Simulation::new(settings, seed, ns(until), recorder, journal);
    simulation.carry_out(0);
    let mut next_second_ns = SECOND_NS;
    while let Some(at_ns) = simulation.next_ns() {
        if next_second_ns <= at_ns {
            simulation.second(next_second_ns, series);
            each_second(next_second_ns)?;
            next_second_ns += SECOND_NS;
        } else {
            simulation.step(at_ns);
        }
    }
    let end_ns = simulation.finish();
    let last_ns = (end_ns / SECOND_NS + 1) * SECOND_NS;
    simulation.second(last_ns, series);
    each_second(last_ns)
}

struct Simulation<'a> {
    settings: &'a Settings,
    until_ns: u64,
    journal: &'a Journal,
    driver: Driver,
    ops: Ops,
    memory: MemoryBound,
    streams: Vec<Stream>,
    /// Tasks that run, by when they end; the number keeps the order of those that end together.
    tasks: BinaryHeap<Reverse<(u64, u64, TaskId, u32)>>,
    started_tasks: u64,
    /// Blocks that are in no batch yet, and those of each batch.
    unallocated: Vec<Block>,
    batches: BTreeMap<u64, Vec<Block>>,
    /// Keys of the whole vocabulary in each reduce partition.
    vocabulary_keys: Vec<u32>,
    stop: Stop,
    /// The last instant at which something happened.
    now_ns: u64,
}

/// How far the end has come.
#[derive(Clone, Copy, PartialEq)]
enum Stop {
    /// Lines are due yet.
    Not,
    /// All lines were due, not all were received.
    Asked,
    /// All were received.
    Received,
}

impl<'a> Simulation<'a> {
    fn new(settings: &'a Settings, seed: u64, until_ns: u64, recorder: &Recorder, journal: &'a Journal) -> Self {
        let notes = match settings.work {
            Work::Sleep => Vec::new(),
            Work::Burn => vec!["simulated: work burns as if each slot had a CPU of its own".to_owned()],
        };
        let driver = Driver::new(settings, Plan::of(settings), &Start { notes, ..Start::default() });
        let first_batch_ns = driver.next_batch_tick_ns().unwrap_or(0);
        let stream = |stream| Stream::new(settings, seed, stream, until_ns);
        let mut vocabulary_keys = vec![0; settings.reduce_partitions() as usize];
        for word in 0..settings.vocabulary {
            let partition = partition_of(format!("word{word}").as_bytes(), settings.reduce_partitions());
            vocabulary_keys[partition as usize] += 1;
        }
        let mut simulation = Self {
            settings,
            until_ns,
            journal,
            driver,
            ops: Ops::new(recorder, settings, seed, 0, first_batch_ns),
            memory: MemoryBound::new(settings.memory_bytes),
            streams: (0..settings.receivers).map(stream).collect(),
            tasks: BinaryHeap::new(),
            started_tasks: 0,
            unallocated: Vec::new(),
            batches: BTreeMap::new(),
            vocabulary_keys,
            stop: Stop::Not,
            now_ns: 0,
        };
        (settings.running_receivers()..settings.receivers).for_each(|stream| simulation.ops.forget_from(stream, 0));
        simulation
    }

    /// When something happens next; none when all has ended.
    fn next_ns(&self) -> Option<u64> {
        let task = self.tasks.peek().map(|Reverse((at_ns, ..))| *at_ns);
        let stop = (self.stop == Stop::Not).then_some(self.until_ns);
        let next_ns = [task, stop, self.driver.next_wake()].into_iter().flatten().min();
        next_ns.filter(|_| !self.driver.is_drained())
    }

    /// Does the one thing that is next at `now_ns`: a task that ends, then the end of the schedule, then a tick.
    fn step(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        if let Some(Reverse((at_ns, ..))) = self.tasks.peek()
            && *at_ns == now_ns
        {
            let Some(Reverse((_, _, id, rows))) = self.tasks.pop() else { return };
            self.driver.task_done(now_ns, id, Ok(Done { rows, output: Vec::new() }));
        } else if self.stop == Stop::Not && self.until_ns == now_ns {
            self.stop = Stop::Asked;
            self.driver.stop(now_ns);
            self.receive(now_ns);
            self.stop_when_received(now_ns);
        } else {
            self.driver.wake(now_ns);
        }
        self.carry_out(now_ns);
    }

    fn carry_out(&mut self, now_ns: u64) {
        while let Some(action) = self.driver.next_action() {
            match action {
                Action::Tell(entry) => {
                    let is_engine = matches!(*entry, kit::batch::Entry::Engine(_));
                    self.journal.push(&*entry);
                    if is_engine {
                        self.streams.iter_mut().for_each(|stream| stream.tell_start(self.journal));
                    }
                }
                Action::CloseBlocks { tick_ns } => {
                    self.receive(now_ns);
                    self.close_blocks(now_ns, tick_ns);
                    self.stop_when_received(now_ns);
                }
                Action::Submitted(submitted) => {
                    self.batches.insert(submitted.batch, std::mem::take(&mut self.unallocated));
                    self.ops.submitted(&submitted);
                }
                Action::StartTask(task) => self.start(now_ns, &task),
                Action::Ended(ended) => {
                    self.batches.remove(&ended.batch);
                    self.ops.ended(&ended);
                    let bytes = ended.blocks.iter().map(|block| block.bytes).sum();
                    // First what came until now, which the memory had no room for.
                    self.receive(now_ns);
                    self.memory.release(bytes);
                    self.streams.iter_mut().for_each(|stream| stream.unblock(now_ns));
                }
                Action::Rate { stream, per_s } => {
                    self.receive(now_ns);
                    self.streams[stream as usize].limiter.set_rate(now_ns, per_s as f64);
                }
                Action::Drained => {}
            }
        }
    }

    fn start(&mut self, now_ns: u64, task: &Task) {
        let cost_ns = ns(self.settings.cost_per_line());
        let (takes_ns, rows) = match task.work {
            TaskWork::Spread { .. } => (0, 0),
            TaskWork::MapPartition { records, .. } | TaskWork::MapBlock { records, .. } => {
                (records.saturating_mul(cost_ns), 0)
            }
            TaskWork::Reduce { partition } => (0, self.keys(task, partition)),
        };
        self.started_tasks += 1;
        self.tasks.push(Reverse((now_ns.saturating_add(takes_ns), self.started_tasks, task.id, rows)));
    }

    /// The keys of a partition in the batch of a task, as far as the task is asked for them. Looked up in the lines one by
    /// one, until there are enough or no other key can be in the partition: that is soon.
    fn keys(&self, task: &Task, partition: u32) -> u32 {
        let Some((_, wanted)) = task.gives.filter(|(_, rows)| *rows < u32::MAX) else { return 0 };
        let most = wanted.min(self.vocabulary_keys[partition as usize]) as usize;
        let blocks = self.batches.get(&task.id.batch).into_iter().flatten();
        let lines = blocks.flat_map(|block| {
            let first = block.first_line.unwrap_or(0);
            let lines = &self.streams[block.id.stream as usize].lines;
            (first..first + block.records).map(|line| lines.line(line))
        });
        let mut found: Vec<&str> = Vec::new();
        let mut words = lines.flat_map(|line| line.split(' '));
        while found.len() < most {
            let Some(word) = words.next() else { break };
            if !found.contains(&word) && partition_of(word.as_bytes(), self.vocabulary_keys.len() as u32) == partition {
                found.push(word);
            }
        }
        found.len() as u32
    }

    /// Receives what comes before `now_ns`.
    fn receive(&mut self, now_ns: u64) {
        for stream in &mut self.streams {
            stream.receive(now_ns, &mut self.memory);
        }
    }

    fn close_blocks(&mut self, now_ns: u64, tick_ns: u64) {
        for stream in &mut self.streams {
            if let Some(block) = stream.generator.close(tick_ns) {
                self.unallocated.push(block.clone());
                self.driver.block(now_ns, block);
            }
        }
    }

    fn stop_when_received(&mut self, now_ns: u64) {
        if self.stop == Stop::Asked && self.streams.iter().all(Stream::has_all) {
            self.stop = Stop::Received;
            self.close_blocks(now_ns, now_ns);
            self.driver.received_all(now_ns);
        }
    }

    /// What is told each second.
    fn second(&mut self, now_ns: u64, series: &Series) {
        self.receive(now_ns);
        self.streams.iter_mut().for_each(|stream| stream.send(now_ns));
        let sum = |of: fn(&Stream) -> u64| self.streams.iter().map(of).sum::<u64>() as f64;
        let seconds = |of: fn(&Stream) -> u64| sum(of) / SECOND_NS as f64;
        let limits: Option<Vec<f64>> = self.streams.iter().map(|stream| stream.limiter.rate()).collect();
        for (name, value) in [
            ("queued_batches", Some(self.driver.queued_batches() as f64)),
            ("running_batches", Some(self.driver.running_batches() as f64)),
            ("held_bytes", Some(self.memory.held_bytes() as f64)),
            ("receiver_blocked_s", Some(seconds(|stream| stream.receiver_blocked_ns(stream.now_ns)))),
            ("rate_limit", limits.map(|limits| limits.iter().sum())),
            ("received_records", Some(sum(|stream| stream.generator.total_records()))),
            ("sent_lines", Some(sum(|stream| stream.sent))),
            ("due_lines", Some(sum(|stream| stream.due.line))),
            ("blocked_s", Some(seconds(|stream| stream.source_blocked_ns))),
            ("clients", Some(sum(|stream| u64::from(stream.runs)))),
        ] {
            series.push(now_ns, name, value);
        }
    }

    /// Ends the recording, and says when it was.
    fn finish(&mut self) -> u64 {
        let all = self.streams.iter().all(Stream::has_all);
        self.ops.finish(self.now_ns, (!all).then_some(self.until_ns));
        for stream in &mut self.streams {
            self.journal.push(&stream.receiving.ended(self.now_ns));
        }
        self.now_ns
    }
}

/// The lines of a stream by number, and when they are due.
struct Cursor {
    schedule: Schedule,
    line: u64,
    next_ns: Option<u64>,
}

impl Cursor {
    fn new(mut schedule: Schedule, until_ns: u64) -> Self {
        let next_ns = schedule.next().filter(|at_ns| *at_ns < until_ns);
        Self { schedule, line: 0, next_ns }
    }

    fn pass(&mut self, until_ns: u64) {
        self.line += 1;
        self.next_ns = self.schedule.next().filter(|at_ns| *at_ns < until_ns);
    }
}

/// One connection: the source's end and the receiver's.
struct Stream {
    until_ns: u64,
    /// Whether its receiver has a slot. Without one it never connects.
    runs: bool,
    lines: Lines,
    receiving: Receiving,
    generator: BlockGenerator,
    limiter: RateLimiter,
    /// The next line to be received.
    received: Cursor,
    /// No line is received before this.
    not_before_ns: u64,
    /// Since when the memory bound holds the receiver up.
    blocked_since_ns: Option<u64>,
    blocked_ns: u64,
    /// The next line to be due.
    due: Cursor,
    /// Lines sent, and the bytes of them that were not received.
    sent: u64,
    in_socket_bytes: u64,
    source_blocked_ns: u64,
    /// Until when the source's end is told.
    now_ns: u64,
}

impl Stream {
    fn new(settings: &Settings, seed: u64, stream: u32, until_ns: u64) -> Self {
        let cursor = || Cursor::new(words::schedule(settings, seed, stream), until_ns);
        Self {
            until_ns,
            runs: stream < settings.running_receivers(),
            lines: Lines::new(settings, seed, stream),
            receiving: Receiving::new(stream, "simulated", ns(settings.receiver_restart_delay), 0),
            generator: BlockGenerator::new(stream),
            limiter: RateLimiter::of(settings),
            received: cursor(),
            not_before_ns: 0,
            blocked_since_ns: None,
            blocked_ns: 0,
            due: cursor(),
            sent: 0,
            in_socket_bytes: 0,
            source_blocked_ns: 0,
            now_ns: 0,
        }
    }

    fn tell_start(&mut self, journal: &Journal) {
        let entry = if self.runs {
            self.receiving.connected(0)
        } else {
            self.receiving.no_record_latency("no core is left for this receiver: it never connects");
            self.receiving.tell(0)
        };
        journal.push(&entry);
    }

    /// Whether every line that is ever due was received, or never will be.
    fn has_all(&self) -> bool {
        self.received.next_ns.is_none() || !self.runs
    }

    /// Receives the lines that come before `now_ns`, unless something holds them up.
    fn receive(&mut self, now_ns: u64, memory: &mut MemoryBound) {
        if !self.runs || self.blocked_since_ns.is_some() {
            return;
        }
        while let Some(due_ns) = self.received.next_ns {
            let at_ns = due_ns.max(self.not_before_ns).max(self.limiter.next_ns());
            if at_ns >= now_ns {
                break;
            }
            let bytes = self.line_bytes(self.received.line);
            if !memory.hold(bytes) {
                self.blocked_since_ns = Some(at_ns);
                break;
            }
            self.limiter.grant(at_ns, 1);
            self.generator.add(1, bytes, Some(self.received.line));
            self.received.pass(self.until_ns);
            self.not_before_ns = at_ns;
            // Either it waited in the connection, or it was on its way for no time at all.
            if self.received.line <= self.sent {
                self.in_socket_bytes = self.in_socket_bytes.saturating_sub(bytes);
            } else {
                self.sent = self.received.line;
            }
        }
    }

    /// There is room in memory again.
    fn unblock(&mut self, now_ns: u64) {
        if let Some(since_ns) = self.blocked_since_ns.take() {
            self.blocked_ns += now_ns - since_ns;
            self.not_before_ns = now_ns;
        }
    }

    fn receiver_blocked_ns(&self, now_ns: u64) -> u64 {
        self.blocked_ns + self.blocked_since_ns.map_or(0, |since_ns| now_ns.saturating_sub(since_ns))
    }

    /// The source's end: what is due is sent as far as the connection holds it.
    fn send(&mut self, now_ns: u64) {
        while self.due.next_ns.is_some_and(|due_ns| due_ns < now_ns) {
            self.due.pass(self.until_ns);
        }
        while self.runs && self.sent < self.due.line {
            let bytes = self.line_bytes(self.sent);
            if self.in_socket_bytes + bytes > SOCKET_BYTES {
                self.source_blocked_ns += now_ns - self.now_ns;
                break;
            }
            self.in_socket_bytes += bytes;
            self.sent += 1;
        }
        self.now_ns = now_ns;
    }

    /// Bytes of a line, its end included.
    fn line_bytes(&self, line: u64) -> u64 {
        self.lines.line(line).len() as u64 + 1
    }
}

#[cfg(test)]
mod tests;

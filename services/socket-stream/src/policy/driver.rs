//! Ties the parts together: what happened goes in, what is to be done comes out.
//!
//! The one rule: it decides, and does nothing. Whoever drives it, live or simulated, calls [`Driver::wake`] when
//! [`Driver::next_wake`] says so, tells it of blocks and of tasks that ended, and carries out [`Driver::next_action`] until
//! there is none, after every call.
//!
//! A batch goes through its outputs one after another, each of them one job or more; a job goes through stages, a stage is
//! tasks. Before the tasks of a stage may start the driver spends their overhead, and with the first stage of a job that of
//! the job. So processing time = sum over stages of (overhead + makespan on the slots that receivers leave).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use kit::Outcome;
use kit::batch::{Batch, Engine, Entry, Status};

use super::blocks::{Allocator, Block, BlockId};
use super::partition::{round_robin, start_of};
use super::plan::{Output, Plan};
use super::rate::PidRateEstimator;
use super::receiver::ms_since;
use super::scheduler::JobScheduler;
use super::slots::Slots;
use super::take::Take;
use super::ticks::Ticks;
use crate::model;
use crate::settings::Settings;

/// Where a driver's time begins.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// Now. The first ticks are after it.
    pub now_ns: u64,
    /// The start of the schedule, from which the journal counts.
    pub origin_ns: u64,
    /// What to add to an instant to have the wall clock's; 0 when simulated.
    pub wall_minus_now_ns: i64,
    /// What the reader should know beside what the settings say already.
    pub notes: Vec<String>,
}

/// What is to be done, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Tell the journal.
    Tell(Box<Entry>),
    /// Close the block of every receiver, now, and hand each to [`Driver::block`] before anything else.
    CloseBlocks {
        /// The block tick.
        tick_ns: u64,
    },
    /// A batch has been submitted.
    Submitted(Submitted),
    /// Start a task on its slot, which is free.
    StartTask(Task),
    /// A batch has ended. What is kept for its blocks can go.
    Ended(Ended),
    /// A receiver may get at most so many records/s from now on ([`super::RateLimiter::set_rate`]).
    Rate {
        /// Its stream.
        stream: u32,
        /// Whole records/s, above 0.
        per_s: u64,
    },
    /// All that was received has ended, or was given up. Nothing comes after this.
    Drained,
}

/// A batch that has been submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// Its number.
    pub batch: u64,
    /// Batch time.
    pub time_ns: u64,
    /// Batch time of the next one; none when this is the last.
    pub next_time_ns: Option<u64>,
}

/// A batch that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// Its number.
    pub batch: u64,
    /// Batch time.
    pub time_ns: u64,
    /// When its jobs were handed over.
    pub submitted_ns: u64,
    /// When its first job started; none when it was given up before.
    pub started_ns: Option<u64>,
    /// When its last job ended, or when it was given up.
    pub ended_ns: u64,
    /// Its records.
    pub records: u64,
    /// Its blocks.
    pub blocks: Vec<Block>,
    /// How it ended: `Unknown` when it was given up.
    pub outcome: Outcome,
    /// Why it did not end well.
    pub reason: Option<String>,
}

/// A task by name. Tasks run in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// Its batch.
    pub batch: u64,
    /// Its stage: the number of the stage in the batch, over all jobs, from 0.
    pub stage: u32,
    /// Its place in the stage: its block's place in the batch, or its partition.
    pub index: u32,
}

/// A task that starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Which it is.
    pub id: TaskId,
    /// Where it runs, from 0.
    pub slot: u32,
    /// What it does.
    pub work: TaskWork,
    /// For a task of the last stage: which output operation it works for, by its place in [`Plan::outputs`], and how many
    /// rows it is to give at most (`u32::MAX`: all). None: it gives none.
    pub gives: Option<(u32, u32)>,
}

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskWork {
    /// Deals the records of a block out: the i-th goes to partition `(start + i) mod partitions`.
    Spread {
        /// The block.
        block: BlockId,
        /// The partition of its first record.
        start: u32,
    },
    /// Maps and combines what was dealt to a partition.
    MapPartition {
        /// The partition.
        partition: u32,
        /// Its records.
        records: u64,
    },
    /// Maps and combines the records of a block, where there is no spread.
    MapBlock {
        /// The block.
        block: BlockId,
        /// Its records.
        records: u64,
    },
    /// Reduces one partition of the keys.
    Reduce {
        /// The partition.
        partition: u32,
    },
}

/// How a task ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Rows it gave; 0 where it gives none.
    pub rows: u32,
    /// Those rows as text, as far as they may be printed.
    pub output: Vec<String>,
}

/// The engine's decisions.
pub struct Driver {
    plan: Plan,
    job_overhead_ns: u64,
    task_overhead_ns: u64,
    stop_timeout_ns: u64,
    batch_interval_ns: u64,
    print: u32,
    backpressure: bool,
    origin_ns: u64,
    /// Batch ticks and block ticks; none when everything was received.
    ticks: Option<(Ticks, Ticks)>,
    allocator: Allocator,
    scheduler: JobScheduler,
    no_slot: bool,
    slots: Slots<TaskId>,
    /// The slot of each task that runs, those of batches that have failed since included.
    running: BTreeMap<TaskId, u32>,
    /// Every batch that has not ended.
    batches: BTreeMap<u64, Run>,
    /// When the overhead of a stage is over, and of which batch.
    prepared: BTreeSet<(u64, u64)>,
    next_batch: u64,
    estimators: Vec<PidRateEstimator>,
    /// When everything left is given up, once a stop was asked for.
    deadline_ns: Option<u64>,
    /// Whether the blocks that were open at that time have been asked for.
    closing: bool,
    drained: bool,
    actions: VecDeque<Action>,
}

/// A batch that has not ended.
struct Run {
    told: Batch,
    time_ns: u64,
    submitted_ns: u64,
    started_ns: Option<u64>,
    blocks: Vec<Block>,
    /// Records of each partition, once they are needed.
    partition_records: Vec<u64>,
    /// The output operation that is worked for.
    output: usize,
    /// How its partitions are scanned; none where all are.
    take: Option<Take>,
    /// Stages of this batch so far.
    stages: u32,
    /// Stages of the running job that come after the running one, in reverse.
    next_stages: Vec<Stage>,
    stage: Option<RunningStage>,
}

#[derive(Clone, Debug)]
struct Stage {
    kind: Kind,
    tasks: Range<u32>,
    /// What a task of the last stage is asked for.
    gives: Option<(u32, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Spread,
    Map,
    Reduce,
}

struct RunningStage {
    stage: Stage,
    /// Tasks that have not ended.
    left: usize,
    rows: u32,
    /// What tasks gave to print, by task.
    output: BTreeMap<u32, Vec<String>>,
}

/// Printed lines that a batch keeps for the journal, however many are printed.
const LINES_KEPT: usize = 100;

impl Driver {
    /// One for these settings, which are taken to be checked.
    pub fn new(settings: &Settings, plan: Plan, start: &Start) -> Self {
        let interval_ns = super::ns(settings.batch_interval);
        let interval_ms = interval_ns as f64 / 1e6;
        let ticks = |period_ns| Ticks::new(period_ns, start.now_ns, start.wall_minus_now_ns);
        let weights = [settings.pid_proportional, settings.pid_integral, settings.pid_derived];
        let estimator = PidRateEstimator::new(interval_ms, weights, settings.pid_min_rate);
        let engine = engine_entry(settings, start);
        Self {
            job_overhead_ns: super::ns(settings.job_overhead()),
            task_overhead_ns: super::ns(settings.task_overhead()),
            stop_timeout_ns: super::ns(settings.graceful_stop_timeout()),
            batch_interval_ns: interval_ns,
            print: settings.print,
            backpressure: settings.backpressure,
            origin_ns: start.origin_ns,
            ticks: Some((ticks(interval_ns), ticks(super::ns(settings.block_interval)))),
            allocator: Allocator::default(),
            scheduler: JobScheduler::new(settings.concurrent_jobs),
            no_slot: settings.slots() == 0,
            slots: Slots::new(settings.slots()),
            running: BTreeMap::new(),
            batches: BTreeMap::new(),
            prepared: BTreeSet::new(),
            next_batch: 0,
            estimators: vec![estimator; settings.receivers as usize],
            deadline_ns: None,
            closing: false,
            drained: false,
            actions: VecDeque::from([Action::Tell(Box::new(Entry::Engine(engine)))]),
            plan,
        }
    }

    /// The next thing to do, in order.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Driver::wake`] is to be called next; none when everything has ended.
    pub fn next_wake(&self) -> Option<u64> {
        self.next_due().map(|(at_ns, _)| at_ns)
    }

    /// Does the one earliest thing that is due, and says whether there was one. Batch ticks come before block ticks of the
    /// same instant, so what arrived in the last block of an interval lands in the next batch.
    pub fn wake(&mut self, now_ns: u64) -> bool {
        let Some((due_ns, due)) = self.next_due().filter(|(at_ns, _)| *at_ns <= now_ns) else { return false };
        match due {
            Due::BatchTick => {
                let next = self.ticks.as_mut().map(|(batch, _)| {
                    batch.tick();
                    batch.next_ns()
                });
                self.submit(now_ns, due_ns, next);
            }
            Due::BlockTick => {
                if let Some((_, block)) = &mut self.ticks {
                    block.tick();
                }
                self.actions.push_back(Action::CloseBlocks { tick_ns: due_ns });
            }
            Due::Prepared => {
                if let Some((_, batch)) = self.prepared.pop_first() {
                    self.release_stage(now_ns, batch);
                }
            }
            // Twice: what is in open blocks is given up too, not forgotten.
            Due::Deadline if self.ticks.is_some() && !self.closing => {
                self.closing = true;
                self.actions.push_back(Action::CloseBlocks { tick_ns: due_ns });
            }
            Due::Deadline => self.give_up(now_ns),
        }
        self.settle(now_ns);
        true
    }

    /// A receiver has closed a block.
    pub fn block(&mut self, _now_ns: u64, block: Block) {
        self.allocator.add(block);
    }

    /// A task has ended; with a reason when it failed, and then its batch has failed.
    pub fn task_done(&mut self, now_ns: u64, id: TaskId, result: Result<Done, String>) {
        let Some(slot) = self.running.remove(&id) else { return };
        self.slots.release(slot);
        match result {
            Ok(done) => self.task_succeeded(now_ns, id, done),
            Err(reason) => self.end_batch(now_ns, id.batch, Outcome::Failed, Some(reason)),
        }
        self.settle(now_ns);
    }

    /// The run ends: what was received is finished as far as the time for it lasts. Receivers go on until they have what
    /// was sent, and ticks with them, until [`Driver::received_all`].
    pub fn stop(&mut self, now_ns: u64) {
        // Without a slot nothing will be finished, however long one waits.
        let most_ns =
            if self.no_slot { self.batch_interval_ns.min(self.stop_timeout_ns) } else { self.stop_timeout_ns };
        self.deadline_ns.get_or_insert(now_ns.saturating_add(most_ns));
    }

    /// Every receiver has ended and its last block was handed in: what is in no batch yet is the last one, at once.
    pub fn received_all(&mut self, now_ns: u64) {
        if self.ticks.take().is_none() {
            return;
        }
        self.stop(now_ns);
        if !self.allocator.is_empty() {
            self.submit(now_ns, now_ns, None);
        }
        self.settle(now_ns);
        if self.no_slot {
            self.give_up(now_ns);
        }
    }

    /// When the next batch tick is due; none when everything was received.
    pub fn next_batch_tick_ns(&self) -> Option<u64> {
        self.ticks.as_ref().map(|(batch, _)| batch.next_ns())
    }

    /// Batches submitted and not started.
    pub fn queued_batches(&self) -> usize {
        self.scheduler.queued()
    }

    /// Batches started and not ended.
    pub fn running_batches(&self) -> usize {
        self.scheduler.running()
    }

    /// Whether all has ended.
    pub fn is_drained(&self) -> bool {
        self.drained
    }

    fn next_due(&self) -> Option<(u64, Due)> {
        if self.drained {
            return None;
        }
        let batch = self.ticks.as_ref().map(|(batch, _)| (batch.next_ns(), Due::BatchTick));
        let block = self.ticks.as_ref().map(|(_, block)| (block.next_ns(), Due::BlockTick));
        let prepared = self.prepared.first().map(|(at_ns, _)| (*at_ns, Due::Prepared));
        let deadline = self.deadline_ns.map(|at_ns| (at_ns, Due::Deadline));
        [batch, block, prepared, deadline].into_iter().flatten().min()
    }

    fn submit(&mut self, now_ns: u64, time_ns: u64, next_time_ns: Option<u64>) {
        let batch = self.next_batch;
        self.next_batch += 1;
        let blocks = self.allocator.take_all();
        let told = Batch {
            batch,
            time_ms: ms_since(self.origin_ns, time_ns),
            records: blocks.iter().map(|block| block.records).sum(),
            records_by_stream: by_stream(&blocks, self.estimators.len()),
            blocks: blocks.len() as u32,
            submitted_ms: ms_since(self.origin_ns, now_ns),
            output_ops: self.plan.outputs.len() as u32,
            ..Batch::default()
        };
        let run = Run {
            told,
            time_ns,
            submitted_ns: now_ns,
            started_ns: None,
            blocks,
            partition_records: Vec::new(),
            output: 0,
            take: None,
            stages: 0,
            next_stages: Vec::new(),
            stage: None,
        };
        self.actions.push_back(Action::Submitted(Submitted { batch, time_ns, next_time_ns }));
        tell(&mut self.actions, &run.told);
        self.batches.insert(batch, run);
        self.scheduler.submit(batch);
    }

    /// Starts what may start, and says when nothing is left.
    fn settle(&mut self, now_ns: u64) {
        loop {
            if let Some(batch) = self.scheduler.start_next() {
                self.start_batch(now_ns, batch);
            } else if let Some((slot, id)) = self.slots.start_next() {
                self.start_task(slot, id);
            } else {
                break;
            }
        }
        if self.ticks.is_none() && self.batches.is_empty() && !self.drained {
            self.drained = true;
            self.actions.push_back(Action::Drained);
        }
    }

    fn start_batch(&mut self, now_ns: u64, batch: u64) {
        let Some(run) = self.batches.get_mut(&batch) else { return };
        run.started_ns = Some(now_ns);
        run.told.started_ms = Some(ms_since(self.origin_ns, now_ns));
        run.told.status = Status::Processing;
        tell(&mut self.actions, &run.told);
        self.start_output(now_ns, batch);
    }

    /// Starts the first job of the output that is next, or ends the batch.
    fn start_output(&mut self, now_ns: u64, batch: u64) {
        let Some(run) = self.batches.get_mut(&batch) else { return };
        let Some(output) = self.plan.outputs.get(run.output) else {
            return self.end_batch(now_ns, batch, Outcome::Ok, None);
        };
        let partitions = self.plan.last_partitions(run.blocks.len() as u32);
        let scan = match output {
            Output::Take(rows) => {
                let take = Take::new(*rows, partitions);
                let scan = take.next_scan();
                run.take = Some(take);
                scan
            }
            Output::All => {
                run.take = None;
                (partitions > 0).then_some(0..partitions)
            }
        };
        self.start_job(now_ns, batch, scan);
    }

    /// Starts a job that looks at these partitions of the last stage; without any, the output is done.
    fn start_job(&mut self, now_ns: u64, batch: u64, scan: Option<Range<u32>>) {
        let Some(run) = self.batches.get_mut(&batch) else { return };
        let Some(scan) = scan else {
            run.told.output_ops_done += 1;
            run.output += 1;
            return self.start_output(now_ns, batch);
        };
        let rows = run.take.as_ref().map_or(u32::MAX, Take::missing);
        // What stages before the last one made is kept: only the first job of the batch makes it.
        run.next_stages =
            if run.stages == 0 { self.plan.stages_before_last(run.blocks.len() as u32) } else { Vec::new() };
        let last = Stage { kind: self.plan.last_kind(), tasks: scan, gives: Some((run.output as u32, rows)) };
        run.next_stages.insert(0, last);
        run.told.jobs += 1;
        self.start_stage(now_ns, batch, self.job_overhead_ns);
    }

    /// Starts the next stage of the job by spending its overhead.
    fn start_stage(&mut self, now_ns: u64, batch: u64, job_overhead_ns: u64) {
        let Some(run) = self.batches.get_mut(&batch) else { return };
        let Some(stage) = run.next_stages.pop() else { return self.end_job(now_ns, batch) };
        let tasks = stage.tasks.len();
        run.told.tasks += tasks as u32;
        run.stages += 1;
        run.stage = Some(RunningStage { stage, left: tasks, rows: 0, output: BTreeMap::new() });
        let overhead_ns = job_overhead_ns.saturating_add(self.task_overhead_ns.saturating_mul(tasks as u64));
        if overhead_ns == 0 {
            self.release_stage(now_ns, batch);
        } else {
            self.prepared.insert((now_ns.saturating_add(overhead_ns), batch));
        }
    }

    /// Lets the tasks of the stage that was prepared wait for slots.
    fn release_stage(&mut self, now_ns: u64, batch: u64) {
        let Some(run) = self.batches.get_mut(&batch) else { return };
        let Some(running) = &run.stage else { return };
        if running.left == 0 {
            return self.end_stage(now_ns, batch);
        }
        let stage = run.stages - 1;
        if running.stage.kind == Kind::Map && run.partition_records.is_empty() {
            run.partition_records = deal(&run.blocks, self.plan.partitions);
        }
        for index in running.stage.tasks.clone() {
            self.slots.add(TaskId { batch, stage, index });
        }
    }

    fn start_task(&mut self, slot: u32, id: TaskId) {
        let Some((run, running)) = self.batches.get(&id.batch).and_then(|run| Some((run, run.stage.as_ref()?))) else {
            // Of a batch that has failed: never started.
            return self.slots.release(slot);
        };
        let index = id.index as usize;
        let work = match running.stage.kind {
            Kind::Spread => {
                TaskWork::Spread { block: run.blocks[index].id, start: start_of(id.index, self.plan.partitions) }
            }
            Kind::Map if self.plan.partitions == 0 => {
                TaskWork::MapBlock { block: run.blocks[index].id, records: run.blocks[index].records }
            }
            Kind::Map => TaskWork::MapPartition { partition: id.index, records: run.partition_records[index] },
            Kind::Reduce => TaskWork::Reduce { partition: id.index },
        };
        self.running.insert(id, slot);
        self.actions.push_back(Action::StartTask(Task { id, slot, work, gives: running.stage.gives }));
    }

    fn task_succeeded(&mut self, now_ns: u64, id: TaskId, done: Done) {
        let Some(running) = self.batches.get_mut(&id.batch).and_then(|run| run.stage.as_mut()) else { return };
        running.rows = running.rows.saturating_add(done.rows);
        if !done.output.is_empty() {
            running.output.insert(id.index, done.output);
        }
        running.left -= 1;
        if running.left == 0 {
            self.end_stage(now_ns, id.batch);
        }
    }

    fn end_stage(&mut self, now_ns: u64, batch: u64) {
        let Some(run) = self.batches.get_mut(&batch) else { return };
        if run.next_stages.is_empty() { self.end_job(now_ns, batch) } else { self.start_stage(now_ns, batch, 0) }
    }

    /// The last stage of a job has ended: another job if more rows are wanted.
    fn end_job(&mut self, now_ns: u64, batch: u64) {
        let Some(run) = self.batches.get_mut(&batch) else { return };
        let Some(ended) = run.stage.take() else { return };
        let most = match self.plan.outputs.get(run.output) {
            Some(Output::Take(rows)) => rows.saturating_sub(1),
            _ => self.print,
        };
        let most = LINES_KEPT.min(most as usize);
        for line in ended.output.into_values().flatten() {
            match run.told.output.len() {
                kept if kept < most => run.told.output.push(line),
                kept if kept == most => run.told.output.push("...".to_owned()),
                _ => break,
            }
        }
        let scan = run.take.as_mut().and_then(|take| {
            take.scanned(&ended.stage.tasks, ended.rows);
            take.next_scan()
        });
        self.start_job(now_ns, batch, scan);
    }

    fn end_batch(&mut self, now_ns: u64, batch: u64, outcome: Outcome, reason: Option<String>) {
        let Some(mut run) = self.batches.remove(&batch) else { return };
        self.scheduler.end(batch);
        self.slots.retain(|id| id.batch != batch);
        self.prepared.retain(|(_, of)| *of != batch);
        run.told.status = if outcome == Outcome::Ok { Status::Completed } else { Status::Failed };
        // One that was given up before it started has no end either: it has no processing time.
        run.told.ended_ms =
            run.started_ns.filter(|_| outcome != Outcome::Unknown).map(|_| ms_since(self.origin_ns, now_ns));
        run.told.reason.clone_from(&reason);
        tell(&mut self.actions, &run.told);
        if self.backpressure && outcome == Outcome::Ok {
            self.estimate(now_ns, &run);
        }
        self.actions.push_back(Action::Ended(Ended {
            batch,
            time_ns: run.time_ns,
            submitted_ns: run.submitted_ns,
            started_ns: run.started_ns,
            ended_ns: now_ns,
            records: run.told.records,
            blocks: run.blocks,
            outcome,
            reason,
        }));
    }

    /// Asks for another rate of each stream, after a batch has shown what can be done.
    fn estimate(&mut self, now_ns: u64, run: &Run) {
        let Some(started_ns) = run.started_ns else { return };
        let processing_ms = ms_since(started_ns, now_ns);
        let scheduling_ms = ms_since(run.submitted_ns, started_ns);
        for (stream, estimator) in (0..).zip(&mut self.estimators) {
            let of_stream = run.blocks.iter().filter(|block| block.id.stream == stream);
            let records = of_stream.map(|block| block.records).sum();
            let rate = estimator.compute(ms_since(self.origin_ns, now_ns), records, processing_ms, scheduling_ms);
            // Published as a whole number, and 0 asks for nothing.
            if let Some(per_s) = rate.map(|rate| rate as u64).filter(|per_s| *per_s > 0) {
                self.actions.push_back(Action::Rate { stream, per_s });
            }
        }
    }

    /// The time to finish is over: what is left is not known to have happened.
    fn give_up(&mut self, now_ns: u64) {
        self.ticks = None;
        if !self.allocator.is_empty() {
            self.submit(now_ns, now_ns, None);
        }
        for batch in self.scheduler.give_up() {
            let started = self.batches.get(&batch).is_some_and(|run| run.started_ns.is_some());
            let doing = if started { "running" } else { "queued" };
            self.end_batch(now_ns, batch, Outcome::Unknown, Some(format!("still {doing} when the run ended")));
        }
        self.settle(now_ns);
    }
}

/// What may be due, in the order in which it is done at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    BatchTick,
    BlockTick,
    Prepared,
    Deadline,
}

impl Plan {
    fn last_kind(&self) -> Kind {
        if self.reduce_partitions > 0 { Kind::Reduce } else { Kind::Map }
    }

    /// Tasks the last stage has when all of it is looked at.
    fn last_partitions(&self, blocks: u32) -> u32 {
        match (self.reduce_partitions, self.partitions) {
            (0, 0) => blocks,
            (0, partitions) => partitions,
            (reduce, _) => reduce,
        }
    }

    /// The stages before the last one, the first of them last.
    fn stages_before_last(&self, blocks: u32) -> Vec<Stage> {
        let maps = if self.partitions > 0 { self.partitions } else { blocks };
        let map = Stage { kind: Kind::Map, tasks: 0..maps, gives: None };
        let spread = Stage { kind: Kind::Spread, tasks: 0..blocks, gives: None };
        let (is_mapped, is_spread) = (self.reduce_partitions > 0, self.partitions > 0);
        [is_mapped.then_some(map), is_spread.then_some(spread)].into_iter().flatten().collect()
    }
}

/// Records of each of so many streams, where there are two or more.
fn by_stream(blocks: &[Block], streams: usize) -> Vec<u64> {
    let mut records = if streams > 1 { vec![0; streams] } else { Vec::new() };
    for block in blocks {
        if let Some(sum) = records.get_mut(block.id.stream as usize) {
            *sum += block.records;
        }
    }
    records
}

/// Records of each partition, when those of each block are dealt out in turn.
fn deal(blocks: &[Block], partitions: u32) -> Vec<u64> {
    let mut records = vec![0; partitions as usize];
    for (input, block) in (0..).zip(blocks) {
        if partitions > 0 {
            let dealt = round_robin(start_of(input, partitions), block.records, partitions);
            records.iter_mut().zip(dealt).for_each(|(sum, dealt)| *sum += dealt);
        }
    }
    records
}

fn tell(actions: &mut VecDeque<Action>, batch: &Batch) {
    actions.push_back(Action::Tell(Box::new(Entry::Batch(batch.clone()))));
}

fn engine_entry(settings: &Settings, start: &Start) -> Engine {
    let records = settings
        .planned_rate_per_s()
        .map(|per_s| per_s * f64::from(settings.running_receivers()) * settings.batch_interval.as_secs_f64());
    let predicted = records.and_then(|records| model::processing_time(settings, records));
    let wall_ns = i128::from(start.origin_ns) + i128::from(start.wall_minus_now_ns);
    Engine {
        name: "socket-stream".to_owned(),
        // By whole microseconds: as many nanoseconds as that are not exact in a float.
        start_unix_ms: (wall_ns / 1_000) as f64 / 1e3,
        batch_interval_ms: settings.batch_interval.as_secs_f64() * 1e3,
        block_interval_ms: settings.block_interval.as_secs_f64() * 1e3,
        cores: settings.cores,
        receivers: settings.receivers,
        partitions: settings.partitions,
        concurrent_jobs: settings.concurrent_jobs,
        predicted_processing_ms: predicted.map(|time| time.as_secs_f64() * 1e3),
        notes: settings.notes().into_iter().chain(start.notes.iter().cloned()).collect(),
    }
}

#[cfg(test)]
mod tests;

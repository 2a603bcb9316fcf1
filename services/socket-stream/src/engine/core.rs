//! The driver behind one lock: threads tell it what happened, and carry out what it says.
//!
//! The one rule: nothing slow under the lock. Entries, operations and what is to be freed go to the ledger; text is moved,
//! never copied.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use kit::Outcome;

use super::Engine;
use super::ledger::Note;
use crate::policy::{Action, BlockId, Done, Driver, Task, TaskId};
use crate::stream::{Job, Running, Text};

/// What an engine is after its start.
pub(super) struct Core {
    job: Job,
    state: Mutex<State>,
    /// A task waits for a slot, or everything has ended.
    task: Condvar,
    /// Something is due earlier than the timer thinks, or everything has ended.
    due: Condvar,
}

struct State {
    driver: Driver,
    /// Blocks that are in no batch.
    waiting: BTreeMap<BlockId, Text>,
    /// Batches that have not ended, and their blocks.
    batches: BTreeMap<u64, (Arc<dyn Running>, Vec<Text>)>,
    /// Tasks whose slot is about to take them.
    tasks: VecDeque<Task>,
    /// Receivers that have not ended.
    receivers: usize,
    /// Whether one of them was cut off before its source had ended.
    cut: bool,
    /// What the timer waits for.
    timer_ns: u64,
    ended: bool,
}

impl Core {
    pub(super) fn new(driver: Driver, job: Job, receivers: usize) -> Self {
        let state = State {
            driver,
            waiting: BTreeMap::new(),
            batches: BTreeMap::new(),
            tasks: VecDeque::new(),
            receivers,
            cut: false,
            timer_ns: 0,
            ended: false,
        };
        Self { job, state: Mutex::new(state), task: Condvar::new(), due: Condvar::new() }
    }

    /// Does what is to be done before anything has happened.
    pub(super) fn begin(&self, engine: &Engine) {
        self.turn(engine, &mut self.lock(), |_, _| ());
    }

    /// The run ends.
    pub(super) fn stop(&self, engine: &Engine) {
        self.turn(engine, &mut self.lock(), |state, now_ns| state.driver.stop(now_ns));
    }

    /// A receiver has ended; its lines are in its inbox. `cut` says that its source had not.
    pub(super) fn receiver_ended(&self, engine: &Engine, cut: bool) {
        self.turn(engine, &mut self.lock(), |state, now_ns| {
            state.cut |= cut;
            state.receivers -= 1;
            if state.receivers == 0 {
                state.close_blocks(engine, now_ns, now_ns);
                state.driver.received_all(now_ns);
            }
        });
    }

    /// The role ends: whoever waits here is woken.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.task.notify_all();
        self.due.notify_all();
    }

    /// The next task, when there is one, and the batch it works on, unless that has failed meanwhile; none when
    /// everything has ended.
    pub(super) fn next_task(&self) -> Option<(Task, Option<Arc<dyn Running>>)> {
        let mut state = self.lock();
        loop {
            if state.ended {
                return None;
            }
            if let Some(task) = state.tasks.pop_front() {
                let batch = state.batches.get(&task.id.batch).map(|(batch, _)| batch.clone());
                return Some((task, batch));
            }
            state = self.task.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    /// A task has ended.
    pub(super) fn task_done(&self, engine: &Engine, id: TaskId, result: Result<Done, String>) {
        self.turn(engine, &mut self.lock(), |state, now_ns| state.driver.task_done(now_ns, id, result));
    }

    /// Batches submitted and not started, and batches started and not ended.
    pub(super) fn batches(&self) -> (usize, usize) {
        let state = self.lock();
        (state.driver.queued_batches(), state.driver.running_batches())
    }

    /// Tells the driver something, and does what it says, and what is due.
    fn turn(&self, engine: &Engine, state: &mut State, event: impl FnOnce(&mut State, u64)) {
        let now_ns = engine.clock.now_ns();
        event(state, now_ns);
        self.carry_out(engine, state, now_ns);
        while state.driver.wake(now_ns) {
            self.carry_out(engine, state, now_ns);
        }
        for _ in 0..state.tasks.len() {
            self.task.notify_one();
        }
        if state.driver.next_wake().is_some_and(|at_ns| at_ns < state.timer_ns) {
            self.due.notify_one();
        }
    }

    fn carry_out(&self, engine: &Engine, state: &mut State, now_ns: u64) {
        while let Some(action) = state.driver.next_action() {
            match action {
                Action::Tell(entry) => engine.note(Note::Tell(entry)),
                Action::CloseBlocks { tick_ns } => state.close_blocks(engine, now_ns, tick_ns),
                Action::Submitted(submitted) => {
                    // In the order of their names, as the driver has them.
                    let blocks: Vec<_> = std::mem::take(&mut state.waiting).into_values().collect();
                    let program = self.job.program.clone();
                    let batch = program.begin(submitted.batch, blocks.clone(), engine.settings.state_bytes);
                    state.batches.insert(submitted.batch, (batch, blocks));
                    engine.note(Note::Submitted(submitted));
                }
                Action::StartTask(task) => state.tasks.push_back(task),
                Action::Ended(ended) => {
                    engine.memory.release(ended.blocks.iter().map(|block| block.bytes).sum());
                    let freed = state.batches.remove(&ended.batch);
                    if let (Some((batch, _)), Outcome::Ok) = (&freed, ended.outcome) {
                        batch.ended_well();
                    }
                    engine.note(Note::Ended { ended, freed });
                }
                Action::Rate { stream, per_s } => {
                    if let Some(inbox) = engine.inboxes.get(stream as usize) {
                        inbox.set_rate(now_ns, per_s as f64);
                    }
                }
                Action::Drained => {
                    state.ended = true;
                    self.task.notify_all();
                    self.due.notify_all();
                    engine.note(Note::Drained { cut: state.cut || state.receivers > 0 });
                    engine.signal.tell(|told| told.end = true);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn close_blocks(&mut self, engine: &Engine, now_ns: u64, tick_ns: u64) {
        for (block, text) in engine.inboxes.iter().filter_map(|inbox| inbox.close(tick_ns, &engine.spare)) {
            self.waiting.insert(block.id, text);
            self.driver.block(now_ns, block);
        }
    }
}

/// Wakes the driver whenever something is due: the body of the timer's thread.
pub(super) fn keep_time(engine: &Engine) {
    let Some(core) = engine.core.get() else { return };
    super::slot::be_punctual();
    let mut state = core.lock();
    while !state.ended {
        core.turn(engine, &mut state, |_, _| ());
        let Some(at_ns) = state.driver.next_wake() else { break };
        state.timer_ns = at_ns;
        let left_ns = at_ns.saturating_sub(engine.clock.now_ns());
        if left_ns > 0 && !state.ended {
            let waited = core.due.wait_timeout(state, Duration::from_nanos(left_ns));
            state = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }
}

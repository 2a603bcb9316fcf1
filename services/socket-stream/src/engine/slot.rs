//! A slot: a thread that runs tasks, one at a time.
//!
//! The one rule: a cost is an instant, not a length. A task that costs `k` times something holds its slot until its start
//! plus that much, so what a timer overshoots does not add up; or until its thread has used that much CPU time.

use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::time::ClockId;

use super::Engine;
use super::signal::Signal;
use crate::policy::{Done, Task, TaskWork};
use crate::stream::{Charge, Running};

/// Runs tasks until everything has ended: the body of a slot's thread.
pub(super) fn work(engine: &Engine) {
    let Some(core) = engine.core.get() else { return };
    be_punctual();
    while let Some((task, batch)) = core.next_task() {
        let Some(batch) = batch else {
            core.task_done(engine, task.id, Ok(Done::default()));
            continue;
        };
        let started = Started { at_ns: engine.clock.now_ns(), cpu_ns: cpu_ns() };
        let result = catch_unwind(AssertUnwindSafe(|| perform(&task, &*batch)));
        // Before the batch can end, so that its memory is freed elsewhere.
        drop(batch);
        let result = match result {
            Ok(Ok((charge, done))) => {
                started.hold(charge, &engine.signal);
                Ok(done)
            }
            Ok(Err(reason)) => Err(reason),
            Err(panic) => Err(format!("a task panicked: {}", words_of(&*panic))),
        };
        if engine.signal.told().end {
            // Cut off: it is not known how long it would have taken.
            return;
        }
        core.task_done(engine, task.id, result);
    }
}

/// Timers of this thread are not put off to save wake-ups: a stage waits for the last of its tasks.
pub(super) fn be_punctual() {
    // Where it is refused, tasks take some 50 us longer.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

/// An error says why the batch fails.
fn perform(task: &Task, batch: &dyn Running) -> Result<(Charge, Done), String> {
    let index = task.id.index as usize;
    Ok(match task.work {
        TaskWork::Spread { start, .. } => {
            batch.spread(index, start);
            (Charge::default(), Done::default())
        }
        TaskWork::MapPartition { partition, .. } => (batch.map_partition(partition as usize), Done::default()),
        TaskWork::MapBlock { .. } => (batch.map_block(index), Done::default()),
        TaskWork::Reduce { partition } => {
            let rows = task.gives.map(|(_, rows)| rows).filter(|rows| *rows < u32::MAX);
            let rows = batch.reduce(partition as usize, rows)?;
            (Charge::default(), Done { rows: rows.count, output: rows.output })
        }
    })
}

/// When a task started, by both clocks.
struct Started {
    at_ns: u64,
    cpu_ns: u64,
}

impl Started {
    /// CPU time between two looks at whether everything ends.
    const BURST_NS: u64 = 5_000_000;

    fn hold(&self, charge: Charge, signal: &Signal) {
        if charge.sleep_ns > 0 {
            signal.wait_until(self.at_ns.saturating_add(charge.sleep_ns), |told| told.end);
        }
        if charge.burn_ns == 0 {
            return;
        }
        let target_ns = self.cpu_ns.saturating_add(charge.burn_ns);
        let mut used_ns = cpu_ns();
        while used_ns < target_ns && !signal.told().end {
            let burst_ns = target_ns.min(used_ns + Self::BURST_NS);
            while used_ns < burst_ns {
                std::hint::spin_loop();
                used_ns = cpu_ns();
            }
        }
    }
}

/// CPU time of this thread.
fn cpu_ns() -> u64 {
    let used = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    used.tv_sec as u64 * 1_000_000_000 + used.tv_nsec as u64
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("for a reason that is no text")
}

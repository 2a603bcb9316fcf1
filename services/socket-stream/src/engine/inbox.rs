//! Where a receiver puts its lines, and the engine takes them as a block.
//!
//! The one rule: a line is in the inbox or it is not read. What may not be held is left with the source; what was read
//! is never dropped.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use kit::Clock;

use crate::policy::{Block, BlockGenerator, MemoryBound, RateLimiter};
use crate::stream::Text;

/// Of one receiver.
pub(super) struct Inbox {
    open: Mutex<Open>,
    limiter: Mutex<RateLimiter>,
}

/// The block that is being filled.
struct Open {
    text: String,
    block: BlockGenerator,
}

impl Inbox {
    /// Lines are found by 32 bits.
    const MOST_BYTES: usize = u32::MAX as usize;

    pub(super) fn new(stream: u32, limiter: RateLimiter) -> Self {
        let open = Open { text: String::new(), block: BlockGenerator::new(stream) };
        Self { open: Mutex::new(open), limiter: Mutex::new(limiter) }
    }

    /// Adds whole lines, so many, the first of which is line `first_line` of its stream where that is known.
    pub(super) fn add(&self, text: &str, lines: u64, first_line: Option<u64>) {
        let mut open = lock(&self.open);
        open.text.push_str(text);
        if !text.ends_with('\n') {
            open.text.push('\n');
        }
        open.block.add(lines, text.len() as u64, first_line);
    }

    /// Whether so many bytes more can be in the block.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        lock(&self.open).text.len() + bytes < Self::MOST_BYTES
    }

    /// Takes what there is.
    pub(super) fn close(&self, tick_ns: u64, spare: &Spare) -> Option<(Block, Text)> {
        let mut open = lock(&self.open);
        let block = open.block.close(tick_ns)?;
        // The next block is likely to be as large.
        let next = spare.take().unwrap_or_else(|| String::with_capacity(open.text.len()));
        Some((block, Arc::new(std::mem::replace(&mut open.text, next))))
    }

    /// Lines added since the beginning.
    pub(super) fn total_records(&self) -> u64 {
        lock(&self.open).block.total_records()
    }

    /// How many of `wanted` lines may pass now; when it is none, the next may at the instant given.
    pub(super) fn grant(&self, now_ns: u64, wanted: u64) -> (u64, u64) {
        let mut limiter = lock(&self.limiter);
        (limiter.grant(now_ns, wanted), limiter.next_ns())
    }

    /// Lets so many lines pass whatever the limit; those after them pay for it.
    pub(super) fn pass(&self, now_ns: u64, lines: u64) {
        lock(&self.limiter).pass(now_ns, lines);
    }

    /// From when on the next line may pass.
    pub(super) fn next_ns(&self) -> u64 {
        lock(&self.limiter).next_ns()
    }

    /// Back-pressure asks for another rate.
    pub(super) fn set_rate(&self, now_ns: u64, per_s: f64) {
        lock(&self.limiter).set_rate(now_ns, per_s);
    }

    /// The rate in force.
    pub(super) fn rate(&self) -> Option<f64> {
        lock(&self.limiter).rate()
    }
}

/// Texts that are empty again. At millions of lines a second, memory that is new each time costs more than what is
/// written to it.
#[derive(Default)]
pub(super) struct Spare(Mutex<Vec<String>>);

impl Spare {
    /// Those of a few seconds.
    const MOST: usize = 16;
    /// Smaller ones cost nothing to make.
    const SMALLEST: usize = 1 << 20;

    pub(super) fn give(&self, mut text: String) {
        let mut spare = lock(&self.0);
        // One that was needed only once, for a burst, goes.
        let outsized = text.capacity() > 2 * text.len();
        if text.capacity() >= Self::SMALLEST && !outsized && spare.len() < Self::MOST {
            text.clear();
            spare.push(text);
        }
    }

    fn take(&self) -> Option<String> {
        lock(&self.0).pop()
    }
}

/// What all receivers may hold together.
pub(super) struct Memory {
    clock: Clock,
    bound: Mutex<MemoryBound>,
    freed: Condvar,
    blocked_ns: AtomicU64,
}

impl Memory {
    pub(super) fn new(clock: Clock, limit_bytes: u64) -> Self {
        let bound = Mutex::new(MemoryBound::new(limit_bytes));
        Self { clock, bound, freed: Condvar::new(), blocked_ns: AtomicU64::new(0) }
    }

    /// Holds at most `most` bytes more; waits for them, at most so long, and counts that time. 0 when it was in vain.
    pub(super) fn hold(&self, most: usize, at_most: Duration) -> usize {
        let mut bound = lock(&self.bound);
        if bound.free_bytes() == 0 {
            let before_ns = self.clock.now_ns();
            let waited = self.freed.wait_timeout_while(bound, at_most, |bound| bound.free_bytes() == 0);
            bound = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
            self.blocked_ns.fetch_add(self.clock.now_ns() - before_ns, Relaxed);
        }
        let bytes = most.min(usize::try_from(bound.free_bytes()).unwrap_or(usize::MAX));
        // Refused only if it were more than is free.
        if bound.hold(bytes as u64) { bytes } else { 0 }
    }

    /// Counts time in which a receiver could not read for want of room elsewhere.
    pub(super) fn blocked(&self, ns: u64) {
        self.blocked_ns.fetch_add(ns, Relaxed);
    }

    /// Gives bytes back.
    pub(super) fn release(&self, bytes: u64) {
        if bytes > 0 {
            lock(&self.bound).release(bytes);
            self.freed.notify_all();
        }
    }

    /// Bytes held.
    pub(super) fn held_bytes(&self) -> u64 {
        lock(&self.bound).held_bytes()
    }

    /// How long receivers could not read, all together.
    pub(super) fn blocked_s(&self) -> f64 {
        self.blocked_ns.load(Relaxed) as f64 / 1e9
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

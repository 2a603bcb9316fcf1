//! What every thread of the engine is told: start, stop, end.
//!
//! The one rule: whoever waits can be woken. A thread that holds a slot for seconds ends at once when the role does.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use kit::Clock;

/// The signals of one engine.
pub(super) struct Signal {
    clock: Clock,
    told: Mutex<Told>,
    changed: Condvar,
}

/// What was told so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    /// When the schedule starts.
    pub start_ns: Option<u64>,
    /// When it was asked to begin nothing new.
    pub stop_ns: Option<u64>,
    /// Receivers that have tried to connect.
    pub tried: u32,
    /// Whether everything ends now.
    pub end: bool,
}

impl Signal {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, told: Mutex::default(), changed: Condvar::new() }
    }

    /// What was told so far.
    pub(super) fn told(&self) -> Told {
        *self.lock()
    }

    /// Tells something.
    pub(super) fn tell(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until an instant, or until what was told is as asked for; gives what was told.
    pub(super) fn wait_until(&self, at_ns: u64, woken: impl Fn(&Told) -> bool) -> Told {
        let mut told = self.lock();
        loop {
            let left_ns = at_ns.saturating_sub(self.clock.now_ns());
            if left_ns == 0 || woken(&told) {
                return *told;
            }
            let waited = self.changed.wait_timeout(told, Duration::from_nanos(left_ns));
            told = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

//! Time, handed in.
//!
//! Everything that needs to know or wait for a time holds a [`Clock`]. The real one reads the machine's monotonic
//! clock, the manual one moves only when a test says so. This module is the one place where time is taken.
#![expect(clippy::disallowed_methods, reason = "the one place where time is taken")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

/// A monotonic clock in nanoseconds and a wall clock. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    Real,
    Manual(Arc<Manual>),
}

/// A clock that stands still until it is told to move; its wall clock starts at the Unix epoch.
pub struct Manual {
    now: watch::Sender<u64>,
    moving: Mutex<()>,
}

impl Clock {
    /// The machine's clocks. The monotonic one is the same for every process of a boot.
    pub fn real() -> Self {
        Self(Source::Real)
    }

    /// A clock for tests, with the handle that moves it.
    pub fn manual() -> (Self, Arc<Manual>) {
        let manual = Arc::new(Manual { now: watch::Sender::new(0), moving: Mutex::new(()) });
        (Self(Source::Manual(manual.clone())), manual)
    }

    /// Monotonic time in nanoseconds.
    #[inline]
    pub fn now_ns(&self) -> u64 {
        match &self.0 {
            Source::Real => {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
                now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
            }
            Source::Manual(manual) => *manual.now.borrow(),
        }
    }

    /// Wall time in nanoseconds since the Unix epoch.
    pub fn wall_ns(&self) -> u64 {
        match &self.0 {
            Source::Real => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64),
            Source::Manual(manual) => *manual.now.borrow(),
        }
    }

    /// Waits until [`Clock::now_ns`] has reached `at_ns`. On the real clock this is accurate to about a millisecond:
    /// good for housekeeping, not for pacing load.
    pub async fn sleep_until(&self, at_ns: u64) {
        match &self.0 {
            Source::Real => {
                let wait = at_ns.saturating_sub(self.now_ns());
                if wait > 0 {
                    tokio::time::sleep(Duration::from_nanos(wait)).await;
                }
            }
            Source::Manual(manual) => {
                let mut now = manual.now.subscribe();
                // The sender lives as long as `manual`, which this call holds.
                let _ = now.wait_for(|now| *now >= at_ns).await;
            }
        }
    }

    /// Waits for `duration`, as [`Clock::sleep_until`].
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now_ns().saturating_add(duration.as_nanos() as u64)).await;
    }
}

impl Manual {
    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let _one_at_a_time = self.moving.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.now.send_modify(|now| *now += by.as_nanos() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_a_sleeper_only_when_it_is_moved_far_enough() {
        let (clock, hand) = Clock::manual();
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep_until(10_000_000).await }
        });
        hand.advance(Duration::from_millis(9));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        hand.advance(Duration::from_millis(1));
        sleeper.await.unwrap();
        assert_eq!(clock.now_ns(), 10_000_000);
    }
}

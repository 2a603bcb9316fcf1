//! How many replicas a role knows to be in trouble.
//!
//! The one rule: a change is told at once, at the instant it is known, and in the order in which it came: when a system
//! noticed what was wrong is read from here.

use std::sync::{Arc, Mutex, MutexGuard};

use kit::series::Series;
use kit::{Clock, Env};

/// Replicas of all upstreams of a role whose breaker is not closed, and those thought not ready. Cheap to clone.
#[derive(Clone)]
pub struct Levels(Arc<Inner>);

struct Inner {
    series: Series,
    clock: Clock,
    now: Mutex<Now>,
}

/// Them at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Replicas whose breaker is open or half open.
    pub breaker_open: usize,
    /// Replicas thought not ready.
    pub not_ready: usize,
}

/// The gauge of replicas whose breaker is open or half open.
pub const BREAKER_OPEN: &str = "breaker_open";

/// The gauge of replicas thought not ready.
pub const NOT_READY: &str = "not_ready";

impl Levels {
    /// Those of a role without upstreams yet.
    pub fn new(env: &Env) -> Self {
        Self(Arc::new(Inner { series: env.series.clone(), clock: env.clock.clone(), now: Mutex::default() }))
    }

    /// Some more replicas, of which nothing is known yet.
    pub fn add(&self, replicas: usize) {
        self.lock().not_ready += replicas;
    }

    /// A replica's breaker opened, or closed.
    pub fn breaker(&self, opened: bool) {
        let mut now = self.lock();
        now.breaker_open = changed(now.breaker_open, opened);
        self.tell(BREAKER_OPEN, now.breaker_open);
    }

    /// A replica is thought ready, or not any more.
    pub fn readiness(&self, ready: bool) {
        let mut now = self.lock();
        now.not_ready = changed(now.not_ready, !ready);
        self.tell(NOT_READY, now.not_ready);
    }

    /// How many there are now.
    pub fn now(&self) -> Now {
        *self.lock()
    }

    fn tell(&self, name: &str, count: usize) {
        self.0.series.push(self.0.clock.now_ns(), name, Some(count as f64));
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.0.now.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn changed(count: usize, more: bool) -> usize {
    if more { count + 1 } else { count.saturating_sub(1) }
}

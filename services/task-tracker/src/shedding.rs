//! Limits what is under way; what comes on top is refused at once.
//!
//! The one rule: nothing waits here. A queue in front of a busy service only adds its length to every latency.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what is under way, up to a limit. Cheap to clone.
#[derive(Clone)]
pub struct InFlight {
    count: Arc<AtomicUsize>,
    limit: usize,
}

/// One piece of work under way; dropped, it has ended.
#[must_use]
pub struct UnderWay(Arc<AtomicUsize>);

impl InFlight {
    /// At most `limit` at once; 0 is no limit.
    pub fn new(limit: usize) -> Self {
        Self { count: Arc::default(), limit }
    }

    /// Begins a piece of work; none when there is no room.
    pub fn enter(&self) -> Option<UnderWay> {
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        let under_way = UnderWay(self.count.clone());
        (self.limit == 0 || before < self.limit).then_some(under_way)
    }

    /// How much is under way.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_the_limit_is_refused_and_leaves_no_trace() {
        let in_flight = InFlight::new(2);
        let (first, second) = (in_flight.enter(), in_flight.enter());
        assert!(first.is_some() && second.is_some() && in_flight.enter().is_none());
        assert_eq!(in_flight.count(), 2);
        drop(first);
        assert!(in_flight.enter().is_some());
    }

    #[test]
    fn zero_is_no_limit() {
        let in_flight = InFlight::new(0);
        let all: Vec<_> = (0..1000).map(|_| in_flight.enter()).collect();
        assert!(all.iter().all(Option::is_some));
    }
}

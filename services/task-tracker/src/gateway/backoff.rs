//! How long to wait before a retry.
//!
//! The one rule: clients that failed together do not come back together, so the wait is drawn from all of 0 to its
//! bound ("full jitter"; Brooker, Exponential Backoff And Jitter, 2015).

use std::time::Duration;

use rand::RngExt as _;

use crate::settings::RetrySettings;

/// The wait before retry number `retry`, from 0.
pub fn wait(settings: &RetrySettings, retry: u32, rng: &mut kit::Rng) -> Duration {
    let doubled = settings.backoff_base_ms.saturating_mul(1_u64.checked_shl(retry).unwrap_or(u64::MAX));
    let bound_ns = doubled.min(settings.backoff_max_ms).saturating_mul(1_000_000);
    Duration::from_nanos(if settings.jitter { rng.random_range(0..=bound_ns) } else { bound_ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_its_maximum() {
        let settings = RetrySettings { jitter: false, backoff_base_ms: 10, backoff_max_ms: 50, ..Default::default() };
        let waits = [0, 1, 2, 3, 70].map(|retry| wait(&settings, retry, &mut kit::rng(1, "test")).as_millis());
        assert_eq!(waits, [10, 20, 40, 50, 50]);
    }

    #[test]
    fn with_jitter_waits_spread_over_the_whole_range() {
        let settings = RetrySettings { backoff_base_ms: 100, backoff_max_ms: 100, ..Default::default() };
        let mut rng = kit::rng(1, "test");
        let waits: Vec<_> = (0..1_000).map(|_| wait(&settings, 0, &mut rng).as_millis()).collect();
        assert!(waits.iter().any(|wait| *wait < 5) && waits.iter().any(|wait| *wait > 95));
    }
}

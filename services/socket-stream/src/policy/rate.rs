//! Back-pressure: how fast a receiver may be.
//!
//! The one rule: a rate is asked for only after a batch has shown what can be done. The estimator is a PID controller on
//! the rate of the last batch; the limiter lets records pass evenly, and what was saved in one idle second as a burst.
//!
//! Back-pressure cures the scheduling delay that is seen, not the delay there is: what is not received waits at the
//! source. So latency is measured from the instant a record was intended, and a source counts the time it was blocked.

use crate::settings::Settings;

/// Turns what a batch achieved into the rate to ask for next, for one stream.
#[derive(Clone, Debug)]
pub struct PidRateEstimator {
    batch_interval_ms: f64,
    proportional: f64,
    integral: f64,
    derived: f64,
    min_rate: f64,
    /// Nothing until the first batch.
    latest: Option<Latest>,
}

#[derive(Clone, Copy, Debug)]
struct Latest {
    time_ms: f64,
    rate: f64,
    error: f64,
}

impl PidRateEstimator {
    /// One with these weights, for batches of this interval.
    pub fn new(batch_interval_ms: f64, [proportional, integral, derived]: [f64; 3], min_rate: f64) -> Self {
        Self { batch_interval_ms, proportional, integral, derived, min_rate, latest: None }
    }

    /// The rate in records/s to ask for, after a batch of `records` of this stream ended at `time_ms`; none after the
    /// first batch, which only says what is possible, and after one that says nothing.
    ///
    /// The delays keep their fractions of a millisecond, where the reference has whole ones: here batches may take less.
    pub fn compute(&mut self, time_ms: f64, records: u64, processing_ms: f64, scheduling_ms: f64) -> Option<f64> {
        let after_latest = self.latest.is_none_or(|latest| time_ms > latest.time_ms);
        if !after_latest || records == 0 || processing_ms <= 0.0 {
            return None;
        }
        let processing_rate = records as f64 / processing_ms * 1_000.0;
        let Some(latest) = self.latest else {
            self.latest = Some(Latest { time_ms, rate: processing_rate, error: 0.0 });
            return None;
        };
        let delay_since_update_s = (time_ms - latest.time_ms) / 1_000.0;
        let error = latest.rate - processing_rate;
        // What has piled up, as if it were to be worked off within one interval.
        let historical_error = scheduling_ms * processing_rate / self.batch_interval_ms;
        let change = (error - latest.error) / delay_since_update_s;
        let rate = latest.rate - self.proportional * error - self.integral * historical_error - self.derived * change;
        let rate = rate.max(self.min_rate);
        self.latest = Some(Latest { time_ms, rate, error });
        Some(rate)
    }
}

/// Lets records pass at a rate, as Guava's `RateLimiter` does: one may pass as soon as the one before it has paid, and
/// what was not used is kept for up to a second.
#[derive(Clone, Debug)]
pub struct RateLimiter {
    max_rate: Option<f64>,
    rate: Option<f64>,
    /// Permits saved up, at most one second's worth.
    stored: f64,
    /// When the next record may pass.
    next_ns: f64,
}

impl RateLimiter {
    /// One that lets `max_rate` records/s pass, or all.
    pub fn new(max_rate: Option<f64>) -> Self {
        Self { max_rate, rate: max_rate, stored: 0.0, next_ns: 0.0 }
    }

    /// One for a receiver of these settings: at its initial rate until another is asked for, at most at its highest.
    pub fn of(settings: &Settings) -> Self {
        let rate = settings.initial_rate.into_iter().chain(settings.max_rate).reduce(f64::min);
        Self { rate, ..Self::new(settings.max_rate) }
    }

    /// The rate in force; none where there is no limit.
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Another rate from now on, but never above the highest one. A rate of 0 is none: it changes nothing.
    pub fn set_rate(&mut self, now_ns: u64, per_s: f64) {
        if per_s <= 0.0 {
            return;
        }
        let per_s = self.max_rate.map_or(per_s, |most| most.min(per_s));
        match self.rate {
            // What was saved up under the old rate is worth as much time under the new one.
            Some(old) => {
                self.save_up(now_ns, old);
                self.stored *= per_s / old;
            }
            None => self.next_ns = now_ns as f64,
        }
        self.rate = Some(per_s);
    }

    /// How many of `wanted` records may pass now. When it is fewer, the next may at [`RateLimiter::next_ns`].
    pub fn grant(&mut self, now_ns: u64, wanted: u64) -> u64 {
        let Some(rate) = self.rate else { return wanted };
        self.save_up(now_ns, rate);
        if self.next_ns > now_ns as f64 || wanted == 0 {
            return 0;
        }
        let saved = self.stored.floor() as u64;
        if wanted <= saved {
            self.stored -= wanted as f64;
            return wanted;
        }
        // One more than is saved passes at once, and those after it wait until it has paid.
        let passed = saved + 1;
        self.next_ns += (passed as f64 - self.stored) * 1e9 / rate;
        self.stored = 0.0;
        passed
    }

    /// Lets records pass whatever the limit, which those after them pay for: when a run ends, what was read is not dropped.
    pub fn pass(&mut self, now_ns: u64, records: u64) {
        let Some(rate) = self.rate else { return };
        self.save_up(now_ns, rate);
        let unsaved = records as f64 - self.stored;
        self.stored = (-unsaved).max(0.0);
        self.next_ns += unsaved.max(0.0) * 1e9 / rate;
    }

    /// From when on the next record may pass.
    pub fn next_ns(&self) -> u64 {
        if self.rate.is_none() { 0 } else { self.next_ns.ceil() as u64 }
    }

    fn save_up(&mut self, now_ns: u64, rate: f64) {
        let idle_ns = now_ns as f64 - self.next_ns;
        if idle_ns > 0.0 {
            self.stored = (self.stored + idle_ns * rate / 1e9).min(rate);
            self.next_ns = now_ns as f64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn estimator(weights: [f64; 3], min_rate: f64) -> PidRateEstimator {
        PidRateEstimator::new(1_000.0, weights, min_rate)
    }

    #[test]
    fn vectors_worked_by_hand() {
        // Batches as (end ms, records, processing ms, scheduling ms), and the rate asked for after each.
        for (weights, min_rate, batches, rates) in [
            // The first one only says what is possible: 1000 records in 2 s are 500/s. Then 1000 in 1 s: the error is
            // 500 - 1000 = -500, and the rate 500 + 500 = 1000.
            ([1.0, 0.0, 0.0], 1.0, vec![(1e3, 1_000, 2e3, 0.0), (2e3, 1_000, 1e3, 0.0)], vec![None, Some(1_000.0)]),
            // With 0.5 s of delay: 0.2 x 500 ms x 1000/s / 1000 ms = 100 less.
            ([1.0, 0.2, 0.0], 1.0, vec![(1e3, 1_000, 2e3, 0.0), (2e3, 1_000, 1e3, 500.0)], vec![None, Some(900.0)]),
            // All three: 500 + 500 - 0.2 x 500 - 0.1 x (-500 / 1 s) = 950. Then the error is 950 - 600 = 350, its change
            // (350 + 500) / 2 s = 425, and the rate 950 - 350 - 0.1 x 425 = 557.5.
            (
                [1.0, 0.2, 0.1],
                1.0,
                vec![(1e3, 1_000, 2e3, 0.0), (2e3, 1_000, 1e3, 500.0), (4e3, 600, 1e3, 0.0)],
                vec![None, Some(950.0), Some(557.5)],
            ),
            // Never below the least rate.
            ([1.0, 0.2, 0.0], 100.0, vec![(1e3, 10, 1e3, 0.0), (2e3, 10, 1e3, 9e4)], vec![None, Some(100.0)]),
            // A batch that says nothing changes nothing: empty, instant, or older than the last.
            (
                [1.0, 0.0, 0.0],
                1.0,
                vec![
                    (1e3, 0, 5.0, 0.0),
                    (2e3, 5, 0.0, 0.0),
                    (3e3, 10, 1e3, 0.0),
                    (3e3, 20, 1e3, 0.0),
                    (4e3, 20, 1e3, 0.0),
                ],
                vec![None, None, None, None, Some(20.0)],
            ),
        ] {
            let mut estimator = estimator(weights, min_rate);
            let asked: Vec<_> = batches.iter().map(|(t, n, p, s)| estimator.compute(*t, *n, *p, *s)).collect();
            assert_eq!(asked, rates, "weights {weights:?}, batches {batches:?}");
        }
    }

    /// When each of so many records passes, all of them waiting at 0.
    fn passes(limiter: &mut RateLimiter, records: usize) -> Vec<u64> {
        let mut now_ns = 0;
        (0..records)
            .map(|_| {
                while limiter.grant(now_ns, 1) == 0 {
                    now_ns = limiter.next_ns();
                }
                now_ns
            })
            .collect()
    }

    #[test]
    fn records_pass_evenly() {
        assert_eq!(passes(&mut RateLimiter::new(Some(4.0)), 5), [0, S / 4, S / 2, 3 * S / 4, S]);
        assert_eq!(passes(&mut RateLimiter::new(None), 3), [0, 0, 0]);
    }

    #[test]
    fn an_idle_second_is_saved_and_no_more() {
        let mut limiter = RateLimiter::new(Some(10.0));
        assert_eq!(limiter.grant(0, 1), 1);
        // Ten saved, and one that pays afterwards.
        assert_eq!(limiter.grant(60 * S, 100), 11);
        assert_eq!(limiter.grant(60 * S, 100), 0);
        assert_eq!(limiter.next_ns(), 60 * S + S / 10);
        assert_eq!(limiter.grant(60 * S + S / 10, 100), 1);
    }

    #[test]
    fn fewer_than_were_saved_cost_no_wait() {
        let mut limiter = RateLimiter::new(Some(10.0));
        assert_eq!((limiter.grant(S, 4), limiter.grant(S, 4), limiter.grant(S, 4)), (4, 4, 3));
        assert_eq!(limiter.next_ns(), S + S / 10);
    }

    #[test]
    fn a_new_rate_is_never_above_the_highest_and_0_is_none() {
        let mut limiter = RateLimiter::new(Some(10.0));
        limiter.set_rate(0, 20.0);
        assert_eq!(limiter.rate(), Some(10.0));
        limiter.set_rate(0, 2.0);
        limiter.set_rate(0, 0.0);
        assert_eq!(limiter.rate(), Some(2.0));
        assert_eq!(passes(&mut limiter, 3), [0, S / 2, S]);
    }

    #[test]
    fn the_initial_rate_holds_until_another_is_asked_for_and_is_never_above_the_highest() {
        for (initial_rate, max_rate, first, then) in [
            (None, None, None, Some(20.0)),
            (None, Some(5.0), Some(5.0), Some(5.0)),
            (Some(2.0), None, Some(2.0), Some(20.0)),
            (Some(2.0), Some(5.0), Some(2.0), Some(5.0)),
            (Some(9.0), Some(5.0), Some(5.0), Some(5.0)),
        ] {
            let mut limiter = RateLimiter::of(&Settings { initial_rate, max_rate, ..Settings::default() });
            assert_eq!(limiter.rate(), first, "{initial_rate:?}, {max_rate:?}");
            limiter.set_rate(0, 20.0);
            assert_eq!(limiter.rate(), then, "{initial_rate:?}, {max_rate:?}");
        }
    }

    #[test]
    fn a_first_limit_starts_when_it_is_set() {
        let mut limiter = RateLimiter::new(None);
        assert_eq!(limiter.grant(5 * S, 1_000_000), 1_000_000);
        limiter.set_rate(5 * S, 100.0);
        assert_eq!((limiter.grant(5 * S, 50), limiter.next_ns()), (1, 5 * S + S / 100));
    }

    #[test]
    fn those_that_passed_whatever_the_limit_are_paid_for_by_those_after_them() {
        let mut limiter = RateLimiter::new(Some(10.0));
        limiter.pass(S, 4);
        assert_eq!((limiter.grant(S, 6), limiter.grant(S, 1)), (6, 1), "the first four had been saved");
        limiter.pass(S, 5);
        assert_eq!((limiter.grant(S, 1), limiter.next_ns()), (0, S + 6 * S / 10));
        let mut unlimited = RateLimiter::new(None);
        unlimited.pass(S, 5);
        assert_eq!((unlimited.grant(S, 7), unlimited.next_ns()), (7, 0));
    }

    #[test]
    fn in_the_long_run_the_rate_holds() {
        let mut limiter = RateLimiter::new(Some(137.0));
        let passed: u64 = (1..=10_000).map(|tenth| limiter.grant(tenth * S / 10, 1_000)).sum();
        assert!((passed as f64 - 137_000.0).abs() <= 138.0, "{passed} in 1000 s");
    }
}

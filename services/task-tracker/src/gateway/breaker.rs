//! A circuit breaker for one replica.
//!
//! The one rule: it is a function of the instants and outcomes it is told. It holds no clock.
//!
//! Closed, it counts calls over a sliding window of ten buckets. When enough of enough calls failed it opens, and
//! refuses all. After a while it is half open: a few probes may pass; all must succeed for it to close.

use crate::settings::BreakerSettings;

const BUCKETS: usize = 10;

/// The breaker of one replica.
pub struct Breaker {
    settings: BreakerSettings,
    state: State,
    /// Grows with each change of state, so that a call tells of the state that it began in and of no later one.
    epoch: u64,
    buckets: [Bucket; BUCKETS],
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Closed,
    Open { until_ns: u64 },
    HalfOpen { under_way: u32, succeeded: u32 },
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    /// Which bucket of time it counts; another one is stale.
    number: u64,
    calls: u32,
    failures: u32,
}

/// How a call went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// The replica did its work.
    Success,
    /// It did not.
    Failure,
    /// Nobody waited for the end.
    Unknown,
}

impl Breaker {
    /// A closed one.
    pub fn new(settings: BreakerSettings) -> Self {
        Self { settings, state: State::Closed, epoch: 0, buckets: [Bucket::default(); BUCKETS] }
    }

    /// Whether a call may go through now.
    pub fn admits(&self, now_ns: u64) -> bool {
        match self.state {
            _ if !self.settings.on => true,
            State::Closed => true,
            State::Open { until_ns } => now_ns >= until_ns,
            State::HalfOpen { under_way, succeeded } => under_way + succeeded < self.settings.probes.max(1),
        }
    }

    /// Whether it lets everything through.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// A call that was admitted begins. Gives back what its end is to be told with.
    #[must_use]
    pub fn begin(&mut self, now_ns: u64) -> u64 {
        if let State::Open { until_ns } = self.state
            && now_ns >= until_ns
        {
            self.change_to(State::HalfOpen { under_way: 0, succeeded: 0 });
        }
        if let State::HalfOpen { under_way, .. } = &mut self.state {
            *under_way += 1;
        }
        self.epoch
    }

    /// A call that began in `epoch` ended. Says whether this opened the breaker.
    pub fn end(&mut self, now_ns: u64, epoch: u64, outcome: CallOutcome) -> bool {
        match self.state {
            _ if !self.settings.on => false,
            // It began before the state changed, and tells nothing of this one: it is no probe, for example.
            _ if epoch != self.epoch => false,
            State::Open { .. } => false,
            State::Closed => self.count(now_ns, outcome),
            State::HalfOpen { under_way, succeeded } => {
                self.end_probe(now_ns, outcome, under_way.saturating_sub(1), succeeded)
            }
        }
    }

    fn change_to(&mut self, state: State) {
        self.state = state;
        self.epoch += 1;
        self.buckets = [Bucket::default(); BUCKETS];
    }

    fn end_probe(&mut self, now_ns: u64, outcome: CallOutcome, under_way: u32, succeeded: u32) -> bool {
        match outcome {
            CallOutcome::Failure => {
                self.open(now_ns);
                return true;
            }
            CallOutcome::Success if succeeded + 1 >= self.settings.probes.max(1) => self.change_to(State::Closed),
            CallOutcome::Success => self.state = State::HalfOpen { under_way, succeeded: succeeded + 1 },
            CallOutcome::Unknown => self.state = State::HalfOpen { under_way, succeeded },
        }
        false
    }

    fn count(&mut self, now_ns: u64, outcome: CallOutcome) -> bool {
        if outcome == CallOutcome::Unknown {
            return false;
        }
        let number = now_ns / self.bucket_ns();
        let bucket = &mut self.buckets[(number % BUCKETS as u64) as usize];
        if bucket.number != number {
            *bucket = Bucket { number, ..Bucket::default() };
        }
        bucket.calls += 1;
        bucket.failures += u32::from(outcome == CallOutcome::Failure);
        let opens = outcome == CallOutcome::Failure && self.has_failed_too_often(number);
        if opens {
            self.open(now_ns);
        }
        opens
    }

    fn has_failed_too_often(&self, number: u64) -> bool {
        let recent = self.buckets.iter().filter(|bucket| bucket.number + BUCKETS as u64 > number);
        let (calls, failures) = recent.fold((0, 0), |sum, bucket| (sum.0 + bucket.calls, sum.1 + bucket.failures));
        calls >= self.settings.min_calls
            && f64::from(failures) * 100.0 >= f64::from(calls) * self.settings.failure_percent
    }

    fn open(&mut self, now_ns: u64) {
        self.change_to(State::Open { until_ns: now_ns + self.settings.open_ms * 1_000_000 });
    }

    fn bucket_ns(&self) -> u64 {
        (self.settings.window_ms * 1_000_000 / BUCKETS as u64).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::CallOutcome::{Failure, Success, Unknown};
    use super::*;

    const MS: u64 = 1_000_000;

    fn breaker() -> Breaker {
        Breaker::new(BreakerSettings { min_calls: 4, window_ms: 1_000, open_ms: 500, probes: 2, ..Default::default() })
    }

    fn call(breaker: &mut Breaker, at_ms: u64, outcome: CallOutcome) -> bool {
        assert!(breaker.admits(at_ms * MS), "not admitted at {at_ms} ms");
        let epoch = breaker.begin(at_ms * MS);
        breaker.end(at_ms * MS, epoch, outcome)
    }

    fn opened_at_0() -> Breaker {
        let mut breaker = breaker();
        assert_eq!([Success, Success, Failure, Failure].map(|o| call(&mut breaker, 0, o)), [false, false, false, true]);
        breaker
    }

    #[test]
    fn it_opens_when_half_of_enough_calls_failed_and_admits_nothing_until_its_time() {
        let breaker = opened_at_0();
        assert!(!breaker.admits(0) && !breaker.admits(499 * MS) && breaker.admits(500 * MS));
    }

    #[test]
    fn too_few_calls_and_abandoned_ones_decide_nothing() {
        let mut breaker = breaker();
        assert!(![Failure, Failure, Failure].map(|o| call(&mut breaker, 0, o)).contains(&true));
        assert!(!(0..9).any(|_| call(&mut breaker, 0, Unknown)));
    }

    #[test]
    fn failures_older_than_the_window_are_forgotten() {
        let mut breaker = breaker();
        for at_ms in [0, 0, 0] {
            call(&mut breaker, at_ms, Failure);
        }
        assert!(!call(&mut breaker, 1_100, Failure), "the first three are out of the window");
    }

    #[test]
    fn half_open_lets_a_few_probes_through_and_closes_when_all_succeed() {
        let mut breaker = opened_at_0();
        let probes = [breaker.begin(500 * MS), breaker.begin(500 * MS)];
        assert!(!breaker.admits(500 * MS), "two probes are under way");
        breaker.end(501 * MS, probes[0], Success);
        assert!(!breaker.admits(501 * MS), "the second probe has not ended");
        breaker.end(502 * MS, probes[1], Success);
        assert!(breaker.admits(502 * MS));
        assert!(!call(&mut breaker, 502, Failure), "it starts counting afresh");
    }

    #[test]
    fn a_call_that_began_before_it_opened_is_no_probe_whenever_it_ends() {
        let mut breaker = breaker();
        let early = [breaker.begin(0), breaker.begin(0), breaker.begin(0)];
        assert_eq!((0..4).filter(|_| call(&mut breaker, 0, Failure)).count(), 1, "it opens once");
        let probe = breaker.begin(500 * MS);
        assert!(!breaker.end(501 * MS, early[0], Failure), "it does not open for what was before");
        assert!(!breaker.end(501 * MS, early[1], Success));
        let other = breaker.begin(501 * MS);
        assert!(!breaker.admits(501 * MS), "both places are taken by probes");
        breaker.end(502 * MS, probe, Success);
        assert!(!breaker.admits(502 * MS), "one probe has succeeded, and one is under way");
        breaker.end(503 * MS, other, Success);
        assert!(breaker.admits(503 * MS));
        assert!(!breaker.end(504 * MS, early[2], Failure));
    }

    #[test]
    fn a_probe_that_fails_opens_it_again() {
        let mut breaker = opened_at_0();
        assert!(call(&mut breaker, 500, Failure));
        assert!(!breaker.admits(999 * MS) && breaker.admits(1_000 * MS));
    }

    #[test]
    fn a_probe_nobody_waited_for_gives_its_place_back() {
        let mut breaker = opened_at_0();
        for _ in 0..5 {
            call(&mut breaker, 500, Unknown);
        }
        assert!(breaker.admits(500 * MS));
    }

    #[test]
    fn switched_off_it_admits_everything() {
        let mut breaker = Breaker::new(BreakerSettings { on: false, min_calls: 1, ..Default::default() });
        for _ in 0..50 {
            assert!(!call(&mut breaker, 0, Failure));
        }
    }
}

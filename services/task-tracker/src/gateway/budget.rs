//! A budget for retries: a share of the requests, and a few a second whatever the share.
//!
//! The one rule: when everything fails, retries add no more than their share to the load. It holds no clock.

use crate::settings::RetrySettings;

/// How much unused budget is kept, in seconds of the floor and in requests of the share.
const KEPT_S: f64 = 10.0;
const KEPT_REQUESTS: f64 = 1_000.0;

/// The budget of one upstream.
pub struct Budget {
    on: bool,
    share: f64,
    floor_per_s: f64,
    /// Retries that requests have paid for.
    earned: f64,
    /// Retries that time has given.
    given: f64,
    at_ns: u64,
}

impl Budget {
    /// A new one, at an instant, with one second of its floor to begin with.
    pub fn new(settings: &RetrySettings, now_ns: u64) -> Self {
        Self {
            on: settings.budget,
            share: settings.budget_percent / 100.0,
            floor_per_s: settings.budget_floor_per_s,
            earned: 0.0,
            given: settings.budget_floor_per_s,
            at_ns: now_ns,
        }
    }

    /// A request comes in.
    pub fn deposit(&mut self) {
        self.earned = (self.earned + self.share).min(KEPT_REQUESTS * self.share);
    }

    /// Takes one retry out; says whether there was one.
    pub fn withdraw(&mut self, now_ns: u64) -> bool {
        if !self.on {
            return true;
        }
        let passed_s = now_ns.saturating_sub(self.at_ns) as f64 / 1e9;
        self.at_ns = self.at_ns.max(now_ns);
        self.given = (self.given + passed_s * self.floor_per_s).min(KEPT_S * self.floor_per_s);
        let account = if self.earned >= 1.0 { &mut self.earned } else { &mut self.given };
        // A hundred fifths are twenty, also in floating point.
        let enough = *account >= 1.0 - 1e-9;
        if enough {
            *account -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn budget(percent: f64, floor: f64) -> Budget {
        let settings = RetrySettings { budget_percent: percent, budget_floor_per_s: floor, ..Default::default() };
        Budget::new(&settings, 0)
    }

    fn withdrawn(budget: &mut Budget, now_ns: u64) -> usize {
        (0..1_000).take_while(|_| budget.withdraw(now_ns)).count()
    }

    #[test]
    fn requests_earn_their_share_of_retries() {
        let mut budget = budget(20.0, 0.0);
        for _ in 0..100 {
            budget.deposit();
        }
        assert!((19..=20).contains(&withdrawn(&mut budget, 0)));
        assert!(!budget.withdraw(100 * S), "time alone earns nothing without a floor");
    }

    #[test]
    fn the_floor_gives_a_few_a_second_and_does_not_pile_up_for_ever() {
        let mut budget = budget(0.0, 3.0);
        assert_eq!(withdrawn(&mut budget, 0), 3);
        assert_eq!(withdrawn(&mut budget, S), 3);
        assert_eq!(withdrawn(&mut budget, 1_000 * S), 30);
    }

    #[test]
    fn switched_off_every_retry_is_allowed() {
        let mut budget = Budget::new(&RetrySettings { budget: false, ..Default::default() }, 0);
        assert_eq!(withdrawn(&mut budget, 0), 1_000);
    }
}

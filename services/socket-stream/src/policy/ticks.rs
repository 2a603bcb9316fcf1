//! When a period ends, again and again.
//!
//! The one rule: a tick is due at a multiple of its period on the wall clock, however late the last one was noticed. So
//! the first interval is a partial one, and blocks and batches tick together.

/// The ticks of one period, given as instants of the monotonic clock.
#[derive(Clone, Debug)]
pub struct Ticks {
    period_ns: u64,
    next_ns: u64,
}

impl Ticks {
    /// The ticks after `now_ns`. `wall_minus_now_ns` is what to add to an instant to have the wall clock's.
    ///
    /// # Panics
    /// When the period is 0.
    pub fn new(period_ns: u64, now_ns: u64, wall_minus_now_ns: i64) -> Self {
        assert!(period_ns > 0, "a period of 0 never ends");
        let wall_ns = i128::from(now_ns) + i128::from(wall_minus_now_ns);
        let since_tick_ns = wall_ns.rem_euclid(i128::from(period_ns)) as u64;
        Self { period_ns, next_ns: now_ns + (period_ns - since_tick_ns) }
    }

    /// When the next one is due.
    pub fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// The next one has happened; says when it was due.
    pub fn tick(&mut self) -> u64 {
        let due_ns = self.next_ns;
        self.next_ns += self.period_ns;
        due_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_at_the_next_multiple_of_its_period_on_the_wall_clock() {
        for (period, now, wall_minus_now, first) in [
            (2_000, 0, 0, 2_000),
            (2_000, 1, 0, 2_000),
            (2_000, 2_000, 0, 4_000),
            (2_000, 100, 1_700_000_000_500, 1_500),
            (200, 100, 1_700_000_000_500, 300),
            (2_000, 5_000, -1_000, 7_000),
            (2_000, 500, -1_000, 1_000),
        ] {
            let ticks = Ticks::new(period, now, wall_minus_now);
            assert_eq!(ticks.next_ns(), first, "period {period}, now {now}, wall {wall_minus_now} later");
        }
    }

    #[test]
    fn a_late_look_moves_no_tick() {
        let mut ticks = Ticks::new(200, 50, 0);
        assert_eq!([ticks.tick(), ticks.tick(), ticks.tick()], [200, 400, 600]);
        assert_eq!(ticks.next_ns(), 800);
    }
}

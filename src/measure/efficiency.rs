//! Scaling efficiency, E(N) = C(N) / (N · C(1)).
//!
//! One rule: C is a capacity. A throughput at a fixed offered load says nothing about efficiency.

use crate::measure::{Interval, stats};

/// The efficiency of `n` times the resources, from the capacity of each trial with one and with `n`.
///
/// The interval is Welch's (1947) on the logarithm of the ratio of means, Var[ln C̄] = cv²/T by the delta method. None
/// with fewer than two trials on a side, or a capacity that is not above zero.
pub fn efficiency(one: &[f64], many: &[f64], n: f64) -> Option<Interval> {
    let ratio = stats::welch_log_ratio(one, many)?;
    let share = |log: f64| log.exp() / n;
    Some(Interval { estimate: share(ratio.log), low: share(ratio.low()), high: share(ratio.high()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_the_work_of_one_on_four_is_a_half() {
        let found = efficiency(&[99.0, 100.0, 101.0], &[198.0, 200.0, 202.0], 4.0).unwrap();
        assert!((found.estimate - 0.5).abs() < 1e-12 && found.low < 0.5 && 0.5 < found.high, "{found:?}");
        assert!(found.high - found.low < 0.03, "{found:?}");
    }

    #[test]
    fn one_trial_has_no_efficiency() {
        assert_eq!(efficiency(&[100.0], &[200.0, 201.0], 2.0), None);
    }
}

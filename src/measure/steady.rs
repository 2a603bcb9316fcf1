//! Steadiness: whether what follows a warm-up stays level.
//!
//! One rule: "not steady" is a claim, and needs evidence; a short or noisy window is never called unsteady.

use crate::measure::stats;

/// Fewer seconds than this say nothing about a trend.
const LEAST_SECONDS: usize = 8;

/// Why a rate by second is not steady; none when it is, or when fewer than 8 seconds leave it open.
///
/// Two checks, both with standard errors that allow for autocorrelation (Newey & West 1987): the fitted line moves by
/// 3 % of the mean or more over the window, significantly (1 %, because many trials are looked at); or the means of the second and last third differ by more
/// than 5 %, with the whole 90 % interval of the difference outside of that margin (the reverse of an equivalence
/// test by two one-sided tests, Schuirmann 1987). A share that is allowed takes the place of smaller margins.
pub fn unsteady(rates: &[f64], allowed: f64) -> Option<String> {
    let mean = stats::mean(rates)?;
    if rates.len() < LEAST_SECONDS || mean <= 0.0 {
        return None;
    }
    drift(rates, mean, allowed.max(0.03)).or_else(|| late_change(rates, mean, allowed.max(0.05)))
}

/// Why a latency by second has no level: it grows over the window by as much as its mean, significantly. None when it
/// has, or when fewer than 8 seconds leave it open. The margin is wide because latencies vary much more than rates.
pub fn falls_behind(latencies: &[f64]) -> Option<String> {
    let mean = stats::mean(latencies)?;
    let length = latencies.len() as f64;
    let line = stats::newey_west_slope(latencies).filter(|_| latencies.len() >= LEAST_SECONDS)?;
    let grows = line.slope * length >= mean && line.slope > stats::t_quantile(0.995, length - 2.0) * line.se;
    grows.then(|| format!("mean latency grows by {:.0} ms a second: the system falls behind", line.slope))
}

fn drift(rates: &[f64], mean: f64, least: f64) -> Option<String> {
    let line = stats::newey_west_slope(rates)?;
    let length = rates.len() as f64;
    let significant = line.slope.abs() > stats::t_quantile(0.995, length - 2.0) * line.se;
    let share = line.slope * length / mean;
    (share.abs() >= least && significant).then(|| {
        format!(
            "throughput {} by {:.0} % over the window",
            if share > 0.0 { "rises" } else { "falls" },
            100.0 * share.abs()
        )
    })
}

fn late_change(rates: &[f64], mean: f64, least: f64) -> Option<String> {
    let third = rates.len() / 3;
    let (middle, last) = (&rates[third..2 * third], &rates[2 * third..]);
    let difference = stats::mean(last)? - stats::mean(middle)?;
    let variance =
        stats::long_run_variance(middle) / middle.len() as f64 + stats::long_run_variance(last) / last.len() as f64;
    let df = (middle.len() + last.len()).saturating_sub(2) as f64;
    let surely = difference.abs() - stats::t_quantile(0.95, df) * variance.sqrt();
    (surely > least * mean).then(|| {
        format!(
            "throughput changes by {:.0} % from the second third of the window to the last",
            100.0 * difference.abs() / mean
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noisy(level: impl Fn(usize) -> f64, cv: f64, seed: u64) -> Vec<f64> {
        let mut rng = kit::rng(seed, "test");
        (0..20).map(|second| level(second) * (1.0 + cv * stats::normal(&mut rng))).collect()
    }

    #[test]
    fn a_level_rate_is_seldom_called_unsteady() {
        let called = (0..200).filter(|seed| unsteady(&noisy(|_| 100.0, 0.10, *seed), 0.0).is_some()).count();
        assert!(called <= 14, "{called} of 200");
    }

    #[test]
    fn a_falling_rate_is_not_steady() {
        let falls = noisy(|second| 100.0 - second as f64, 0.01, 1);
        let why = unsteady(&falls, 0.0);
        assert!(why.as_ref().is_some_and(|why| why.starts_with("throughput falls by 2")), "{why:?}");
        assert_eq!(unsteady(&falls, 0.25), None);
    }

    #[test]
    fn a_rate_that_breaks_in_is_not_steady() {
        assert!(unsteady(&noisy(|second| if second < 14 { 100.0 } else { 50.0 }, 0.01, 1), 0.0).is_some());
    }

    #[test]
    fn a_latency_that_only_grows_means_falling_behind() {
        let why = falls_behind(&noisy(|second| 10.0 + 100.0 * second as f64, 0.05, 1));
        assert!(why.as_ref().is_some_and(|why| why.starts_with("mean latency grows by ")), "{why:?}");
        let level = (0..200).filter(|seed| falls_behind(&noisy(|_| 10.0, 0.3, *seed)).is_some()).count();
        assert!(level <= 4, "{level} of 200");
    }

    #[test]
    fn seven_seconds_claim_nothing() {
        assert_eq!(unsteady(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 0.0), None);
    }
}

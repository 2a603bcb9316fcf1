//! Steadiness: where a warm-up ends, and whether what follows stays level.
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
/// test by two one-sided tests, Schuirmann 1987).
pub fn unsteady(rates: &[f64]) -> Option<String> {
    let mean = stats::mean(rates)?;
    if rates.len() < LEAST_SECONDS || mean <= 0.0 {
        return None;
    }
    drift(rates, mean).or_else(|| late_change(rates, mean))
}

fn drift(rates: &[f64], mean: f64) -> Option<String> {
    let line = stats::newey_west_slope(rates)?;
    let length = rates.len() as f64;
    let significant = line.slope.abs() > stats::t_quantile(0.995, length - 2.0) * line.se;
    let share = line.slope * length / mean;
    (share.abs() >= 0.03 && significant).then(|| {
        format!(
            "throughput {} by {:.0} % over the window",
            if share > 0.0 { "rises" } else { "falls" },
            100.0 * share.abs()
        )
    })
}

fn late_change(rates: &[f64], mean: f64) -> Option<String> {
    let third = rates.len() / 3;
    let (middle, last) = (&rates[third..2 * third], &rates[2 * third..]);
    let difference = stats::mean(last)? - stats::mean(middle)?;
    let variance =
        stats::long_run_variance(middle) / middle.len() as f64 + stats::long_run_variance(last) / last.len() as f64;
    let df = (middle.len() + last.len()).saturating_sub(2) as f64;
    let surely = difference.abs() - stats::t_quantile(0.95, df) * variance.sqrt();
    (surely > 0.05 * mean).then(|| {
        format!(
            "throughput changes by {:.0} % from the second third of the window to the last",
            100.0 * difference.abs() / mean
        )
    })
}

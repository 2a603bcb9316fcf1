//! The few pieces of classical statistics that everything else stands on.
//!
//! One rule: a spread is always over independent trials. Nothing here is fed single requests.

use rand::RngExt as _;
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::measure::Interval;

/// Arithmetic mean; none for an empty slice.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Sum; none for an empty slice, because what nobody measured is not zero.
pub fn sum(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum())
}

/// Unbiased sample variance (divisor n − 1); none for fewer than two values.
pub fn variance(values: &[f64]) -> Option<f64> {
    let centre = mean(values)?;
    (values.len() > 1)
        .then(|| values.iter().map(|value| (value - centre).powi(2)).sum::<f64>() / (values.len() - 1) as f64)
}

/// The quantile `p` (0 to 1) of Student's t with `df` degrees of freedom (any positive number); NaN outside of that.
pub fn t_quantile(p: f64, df: f64) -> f64 {
    StudentsT::new(0.0, 1.0, df).map_or(f64::NAN, |t| t.inverse_cdf(p))
}

/// Two-sided p-value of a t statistic with `df` degrees of freedom.
pub fn t_two_sided(t: f64, df: f64) -> f64 {
    StudentsT::new(0.0, 1.0, df).map_or(f64::NAN, |distribution| 2.0 * distribution.cdf(-t.abs()))
}

/// The 95 % t-interval of the mean, `mean ± t₀.₉₇₅,ₙ₋₁ · s/√n` (Student 1908); none for fewer than two values.
pub fn t_interval(values: &[f64]) -> Option<Interval> {
    let estimate = mean(values)?;
    let variance = variance(values)?;
    let n = values.len() as f64;
    let half = if variance > 0.0 { t_quantile(0.975, n - 1.0) * (variance / n).sqrt() } else { 0.0 };
    Some(Interval { estimate, low: estimate - half, high: estimate + half })
}

/// The 95 % t-interval of durations, whose spread grows with their size: the t-interval of their logarithms, taken back.
/// Both ends are above zero. The estimate is the arithmetic mean; the interval is that of the geometric mean, widened
/// to hold the estimate where a few trials lie far apart. None for fewer than two values, or one that is not above zero.
pub fn log_t_interval(values: &[f64]) -> Option<Interval> {
    let logs: Vec<f64> = values.iter().map(|value| value.ln()).collect();
    let estimate = mean(values)?;
    let interval = t_interval(&logs).filter(|_| logs.iter().all(|log| log.is_finite()))?;
    Some(Interval { estimate, low: interval.low.exp().min(estimate), high: interval.high.exp().max(estimate) })
}

/// One coefficient of variation for groups of different means, with its degrees of freedom; none when no group has two
/// values.
pub fn pooled_cv<'a>(groups: impl Iterator<Item = &'a [f64]>) -> Option<(f64, usize)> {
    let part = |values: &[f64]| Some((variance(values)? / mean(values)?.powi(2), values.len() - 1));
    let parts: Vec<(f64, usize)> = groups.filter_map(part).collect();
    let df: usize = parts.iter().map(|(_, df)| df).sum();
    let squares: f64 = parts.iter().map(|(relative, df)| relative * *df as f64).sum();
    (df > 0).then(|| ((squares / df as f64).sqrt(), df))
}

/// The 2.5 % and 97.5 % quantiles of draws, which may be infinite but not NaN; none when there are none.
pub fn percentile_interval(estimate: f64, draws: &mut [f64]) -> Option<Interval> {
    draws.sort_by(f64::total_cmp);
    let pick = |p: f64| -> f64 {
        let place = (p * (draws.len() as f64 - 1.0)).round() as usize;
        draws[place.min(draws.len() - 1)]
    };
    (!draws.is_empty()).then(|| Interval { estimate, low: pick(0.025).min(estimate), high: pick(0.975).max(estimate) })
}

/// A standard normal draw (Box & Muller 1958, the cosine half).
pub fn normal(rng: &mut kit::Rng) -> f64 {
    let u: f64 = 1.0 - rng.random::<f64>();
    let v: f64 = rng.random();
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// A draw of Student's t with a whole number of degrees of freedom: a normal over the root of a mean χ².
pub fn student_t(rng: &mut kit::Rng, df: usize) -> f64 {
    let numerator = normal(rng);
    let chi_squared: f64 = (0..df).map(|_| normal(rng).powi(2)).sum();
    numerator / (chi_squared / df as f64).sqrt()
}

/// A fitted slope per step, with its standard error.
#[derive(Clone, Copy, Debug)]
pub struct Slope {
    /// Change per step.
    pub slope: f64,
    /// Its standard error.
    pub se: f64,
}

/// Least-squares slope over equally spaced values, with the standard error of Newey & West (1987): Bartlett weights over
/// a tenth of the series, at least one lag, and the correction n/(n − 2) for small samples. None below four values.
pub fn newey_west_slope(values: &[f64]) -> Option<Slope> {
    let n = values.len();
    if n < 4 {
        return None;
    }
    let centre = mean(values)?;
    let x = |place: usize| place as f64 - (n as f64 - 1.0) / 2.0;
    let sxx: f64 = (0..n).map(|place| x(place).powi(2)).sum();
    let slope = (0..n).map(|place| x(place) * (values[place] - centre)).sum::<f64>() / sxx;
    let moment: Vec<f64> = (0..n).map(|place| x(place) * (values[place] - centre - slope * x(place))).collect();
    let middle = bartlett_sum(&moment, lags(n));
    let variance = middle * n as f64 / (n as f64 - 2.0) / sxx.powi(2);
    Some(Slope { slope, se: variance.max(0.0).sqrt() })
}

/// Variance of a mean times n for autocorrelated values, by the same weights; never below the plain variance, because
/// chance negative correlation must not make a series look surer than it is.
pub fn long_run_variance(values: &[f64]) -> f64 {
    let (Some(centre), Some(plain)) = (mean(values), variance(values)) else { return 0.0 };
    let moment: Vec<f64> = values.iter().map(|value| value - centre).collect();
    (bartlett_sum(&moment, lags(values.len())) / (values.len() as f64 - 1.0)).max(plain)
}

fn lags(n: usize) -> usize {
    (n / 10).max(1)
}

/// Σ u² + 2 Σ_l (1 − l/(L+1)) Σ u_t u_{t−l}.
fn bartlett_sum(moment: &[f64], lags: usize) -> f64 {
    let product = |lag: usize| -> f64 { moment.iter().skip(lag).zip(moment).map(|(a, b)| a * b).sum() };
    let weight = |lag: usize| 1.0 - lag as f64 / (lags as f64 + 1.0);
    product(0) + 2.0 * (1..=lags.min(moment.len().saturating_sub(1))).map(|lag| weight(lag) * product(lag)).sum::<f64>()
}

/// The logarithm of a ratio of means, with its standard error and degrees of freedom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogRatio {
    /// ln(mean of the second / mean of the first).
    pub log: f64,
    /// Its standard error.
    pub se: f64,
    /// Degrees of freedom after Welch and Satterthwaite.
    pub df: f64,
}

impl LogRatio {
    /// Lower end of the 95 % interval.
    pub fn low(&self) -> f64 {
        self.log - self.half()
    }

    /// Upper end of the 95 % interval.
    pub fn high(&self) -> f64 {
        self.log + self.half()
    }

    /// Two-sided p-value of "the means are equal".
    pub fn p_value(&self) -> f64 {
        match (self.se > 0.0, self.log == 0.0) {
            (true, _) => t_two_sided(self.log / self.se, self.df),
            (false, true) => 1.0,
            (false, false) => 0.0,
        }
    }

    fn half(&self) -> f64 {
        if self.se > 0.0 { t_quantile(0.975, self.df) * self.se } else { 0.0 }
    }
}

/// ln(mean b / mean a), after Welch (1947) with Var[ln mean] = s²/(n·mean²) by the delta method. None with fewer than two
/// values on a side or a mean that is not above zero.
pub fn welch_log_ratio(a: &[f64], b: &[f64]) -> Option<LogRatio> {
    let part = |values: &[f64]| {
        let centre = mean(values).filter(|centre| *centre > 0.0)?;
        let n = values.len() as f64;
        Some((centre.ln(), variance(values)? / (n * centre.powi(2)), n - 1.0))
    };
    let (log_a, var_a, df_a) = part(a)?;
    let (log_b, var_b, df_b) = part(b)?;
    let sum = var_a + var_b;
    let df = if sum > 0.0 { sum.powi(2) / (var_a.powi(2) / df_a + var_b.powi(2) / df_b) } else { df_a + df_b };
    Some(LogRatio { log: log_b - log_a, se: sum.sqrt(), df })
}

/// Two-sided p-value of "the means are equal" (Welch 1947), for values of which a mean may be zero. None with fewer than
/// two values on a side, or when all values are the same and there is nothing to test.
pub fn welch_p(a: &[f64], b: &[f64]) -> Option<f64> {
    let part =
        |values: &[f64]| Some((mean(values)?, variance(values)? / values.len() as f64, values.len() as f64 - 1.0));
    let (mean_a, var_a, df_a) = part(a)?;
    let (mean_b, var_b, df_b) = part(b)?;
    let (difference, sum) = (mean_b - mean_a, var_a + var_b);
    if sum > 0.0 {
        let df = sum.powi(2) / (var_a.powi(2) / df_a + var_b.powi(2) / df_b);
        return Some(t_two_sided(difference / sum.sqrt(), df));
    }
    (difference != 0.0).then_some(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles_of_t_are_those_of_the_tables() {
        for (p, df, expected) in [(0.975, 2.0, 4.302_653), (0.975, 4.0, 2.776_445), (0.95, 10.0, 1.812_461)] {
            assert!((t_quantile(p, df) - expected).abs() < 1e-5, "t({p}, {df}) = {}", t_quantile(p, df));
        }
        assert!((t_two_sided(2.776_445, 4.0) - 0.05).abs() < 1e-6);
    }

    #[test]
    fn the_interval_of_three_values_is_the_one_by_hand() {
        // s = 1, so the half is 4.302653/√3.
        let interval = t_interval(&[1.0, 2.0, 3.0]).unwrap();
        assert!((interval.high - (2.0 + 4.302_653 / 3_f64.sqrt())).abs() < 1e-5, "{interval:?}");
        assert_eq!(t_interval(&[1.0]), None);
    }

    #[test]
    fn the_p_of_a_difference_is_the_one_by_hand() {
        // t = 11 · √3 with two degrees of freedom, because one side does not vary.
        let p = welch_p(&[0.0; 3], &[10.0, 11.0, 12.0]).unwrap();
        assert!((p - t_two_sided(11.0 * 3_f64.sqrt(), 2.0)).abs() < 1e-12, "{p}");
        assert_eq!((welch_p(&[0.0; 3], &[0.0; 3]), welch_p(&[0.0; 3], &[1.0; 3])), (None, Some(0.0)));
    }

    #[test]
    fn a_straight_line_has_its_slope_and_no_error() {
        let line = newey_west_slope(&[1.0, 3.0, 5.0, 7.0, 9.0]).unwrap();
        assert!((line.slope - 2.0).abs() < 1e-12 && line.se < 1e-9, "{line:?}");
    }

    #[test]
    fn autocorrelation_widens_the_spread_of_a_mean() {
        let runs: Vec<f64> = (0..40).map(|t| if t / 10 % 2 == 0 { 1.0 } else { -1.0 }).collect();
        assert!(long_run_variance(&runs) > 3.0 * variance(&runs).unwrap());
    }

    #[test]
    fn draws_have_the_spread_of_their_distribution() {
        let mut rng = kit::rng(1, "test");
        let mut draws: Vec<f64> = (0..20_000).map(|_| student_t(&mut rng, 4)).collect();
        draws.sort_by(f64::total_cmp);
        let high = draws[draws.len() * 975 / 1_000];
        assert!((high - 2.776).abs() < 0.15, "{high}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn an_interval_holds_its_mean_and_scales_with_its_values(values in proptest::collection::vec(0.1..1e6_f64, 2..9)) {
            let interval = t_interval(&values).unwrap();
            prop_assert!(interval.low <= interval.estimate && interval.estimate <= interval.high);
            let doubled = t_interval(&values.iter().map(|value| 2.0 * value).collect::<Vec<_>>()).unwrap();
            prop_assert!((doubled.high - 2.0 * interval.high).abs() <= 1e-9 * interval.high.abs().max(1.0));
        }

        #[test]
        fn an_interval_of_durations_holds_its_mean_and_stays_above_zero(values in proptest::collection::vec(1e-3..1e5_f64, 2..9)) {
            let interval = log_t_interval(&values).unwrap();
            prop_assert!(interval.low > 0.0, "{interval:?}");
            prop_assert!(interval.low <= interval.estimate && interval.estimate <= interval.high, "{interval:?}");
        }

        #[test]
        fn a_log_ratio_turns_its_sign_with_its_sides(a in proptest::collection::vec(1.0..100.0_f64, 2..6), b in proptest::collection::vec(1.0..100.0_f64, 2..6)) {
            let (one, other) = (welch_log_ratio(&a, &b).unwrap(), welch_log_ratio(&b, &a).unwrap());
            prop_assert!((one.log + other.log).abs() < 1e-12 && (one.se - other.se).abs() < 1e-12);
            prop_assert!((one.low() + other.high()).abs() < 1e-6);
        }
    }
}

//! The knee of a throughput curve: X = min(aN, b), a line through the origin that meets a plateau (the asymptotic bounds
//! of operational analysis, Denning & Buzen 1978).
//!
//! One rule: a curve that still rises at its last level has no knee; then "no saturation observed" is the answer.

use crate::measure::usl::Level;
use crate::measure::{Knee, stats};

/// Refits behind an interval.
pub const DRAWS: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Hinge {
    slope: f64,
    plateau: f64,
}

impl Hinge {
    fn n(&self) -> f64 {
        self.plateau / self.slope
    }
}

/// Least squares of relative residuals, over every split of the levels (ordered by N) into line and plateau.
fn fit(points: &[(f64, f64)]) -> Option<Hinge> {
    let mut best: Option<(f64, Hinge)> = None;
    for split in 1..points.len() {
        let (line, flat) = points.split_at(split);
        // Residuals relative to X: the slope minimises Σ (1 − aN/X)², the plateau Σ (1 − b/X)².
        let ratio = |sum: (f64, f64), share: f64| (sum.0 + share, sum.1 + share * share);
        let a = line.iter().map(|(n, x)| n / x).fold((0.0, 0.0), ratio);
        let b = flat.iter().map(|(_, x)| 1.0 / x).fold((0.0, 0.0), ratio);
        let hinge = Hinge { slope: a.0 / a.1, plateau: b.0 / b.1 };
        let residual = |(n, x): &(f64, f64)| (1.0 - (hinge.slope * n).min(hinge.plateau) / x).powi(2);
        let sum: f64 = points.iter().map(residual).sum();
        if sum.is_finite() && best.is_none_or(|(least, _)| sum < least) {
            best = Some((sum, hinge));
        }
    }
    best.map(|(_, hinge)| hinge)
}

/// Where a curve bends, from at least three levels with repeated trials, N > 0 and in order.
///
/// The plateau counts as reached when the whole 95 % interval of the slope between the last two levels lies below a
/// fifth of the line's slope. Intervals are percentiles of a parametric bootstrap with one pooled coefficient of
/// variation. Errors: why there is no fit.
pub fn summarize(levels: &[Level], seed: u64, draws: usize) -> Result<Knee, String> {
    let usable: Vec<&Level> = levels
        .iter()
        .filter(|level| level.n > 0.0 && stats::mean(&level.values).is_some_and(|mean| mean > 0.0))
        .collect();
    if usable.len() < 3 {
        return Err(format!("it needs three levels with valid trials, and there are {}", usable.len()));
    }
    let (cv, df) = stats::pooled_cv(usable.iter().map(|level| level.values.as_slice()))
        .ok_or("each level was tried once, so nothing is known of the spread")?;
    let points: Vec<(f64, f64)> =
        usable.iter().filter_map(|level| Some((level.n, stats::mean(&level.values)?))).collect();
    let hinge = fit(&points).ok_or("no hinge fits")?;
    let mut rng = kit::rng(seed, "knee");
    let mut moved = |place: usize, x: f64| {
        let se = cv / (usable[place].values.len() as f64).sqrt();
        x * (1.0 + se * stats::student_t(&mut rng, df)).max(1e-3)
    };
    let (mut places, mut plateaus) = (Vec::with_capacity(draws), Vec::with_capacity(draws));
    for _ in 0..draws {
        let drawn: Vec<(f64, f64)> = points.iter().enumerate().map(|(place, &(n, x))| (n, moved(place, x))).collect();
        if let Some(refit) = fit(&drawn) {
            places.push(refit.n());
            plateaus.push(refit.plateau);
        }
    }
    let none = || "no refit converged".to_owned();
    Ok(Knee {
        n: stats::percentile_interval(hinge.n(), &mut places).ok_or_else(none)?,
        capacity: stats::percentile_interval(hinge.plateau, &mut plateaus).ok_or_else(none)?,
        saturated: last_slope_high(&usable, &points, cv, df) < 0.2 * hinge.slope,
    })
}

/// Upper end of the interval of the slope between the last two levels.
fn last_slope_high(levels: &[&Level], points: &[(f64, f64)], cv: f64, df: usize) -> f64 {
    let last = points.len() - 1;
    let error = |place: usize| (cv * points[place].1).powi(2) / levels[place].values.len() as f64;
    let half = stats::t_quantile(0.975, df as f64) * (error(last) + error(last - 1)).sqrt();
    (points[last].1 - points[last - 1].1 + half) / (points[last].0 - points[last - 1].0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(levels: &[f64], capacity: f64, cv: f64) -> Vec<Level> {
        let mut rng = kit::rng(3, "test");
        let value = |n: f64, rng: &mut kit::Rng| (10.0 * n).min(capacity) * (1.0 + cv * stats::normal(rng));
        levels.iter().map(|&n| Level { n, values: (0..3).map(|_| value(n, &mut rng)).collect() }).collect()
    }

    #[test]
    fn a_hinge_is_found_where_it_is() {
        let knee = summarize(&curve(&[10.0, 20.0, 50.0, 100.0, 150.0, 200.0], 1_000.0, 0.01), 1, 300).unwrap();
        assert!(knee.saturated && knee.n.low <= 100.0 && 100.0 <= knee.n.high, "{knee:?}");
        assert!((knee.n.estimate - 100.0).abs() < 3.0 && (knee.capacity.estimate - 1_000.0).abs() < 20.0, "{knee:?}");
    }

    #[test]
    fn a_curve_that_still_rises_is_not_saturated() {
        let knee = summarize(&curve(&[10.0, 20.0, 50.0, 80.0], 1_000.0, 0.01), 1, 100).unwrap();
        assert!(!knee.saturated, "{knee:?}");
    }

    #[test]
    fn one_trial_a_level_has_no_knee() {
        let levels: Vec<Level> = [1.0, 2.0, 4.0].map(|n| Level { n, values: vec![n] }).to_vec();
        assert_eq!(
            summarize(&levels, 1, 10).unwrap_err(),
            "each level was tried once, so nothing is known of the spread"
        );
    }
}

//! Where one curve overtakes another, with the interval of the place.
//!
//! One rule: a crossover is claimed only when a difference is shown on both sides of it; "none in the tested range" and
//! "no difference could be shown" are answers.

use crate::measure::study::mean;
use crate::measure::words::{self, Subject, capital, name};
use crate::measure::{CellSummary, Crossover, Curve, Interval, guards, stats};
use crate::verdict::three;

/// Draws behind an interval; fewer in debug tests.
const DRAWS: usize = if cfg!(test) { 1_000 } else { 4_000 };

/// The values of both curves at one level, one a trial, all above zero.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The level on the x axis.
    pub x: f64,
    /// Of the first curve.
    pub a: Vec<f64>,
    /// Of the second curve.
    pub b: Vec<f64>,
}

/// The difference of two curves, d = ln(mean a) − ln(mean b), level by level.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The levels.
    pub x: Vec<f64>,
    /// d at each.
    pub d: Vec<f64>,
    /// Its standard error at each, from one spread pooled over all cells.
    pub se: Vec<f64>,
    /// Degrees of freedom of the pooled spread.
    pub df: usize,
}

impl Difference {
    /// From the trials of each level; none with fewer than two levels, an empty cell, or no repetition at all.
    pub fn of(pairs: &[Pair]) -> Option<Self> {
        let logs = |values: &[f64]| values.iter().map(|value| value.ln()).collect::<Vec<_>>();
        let cells: Vec<Vec<f64>> = pairs.iter().flat_map(|pair| [logs(&pair.a), logs(&pair.b)]).collect();
        let df = cells.iter().map(|cell| cell.len().saturating_sub(1)).sum::<usize>();
        if pairs.len() < 2 || df == 0 || cells.iter().flatten().any(|log| !log.is_finite()) {
            return None;
        }
        let squares: f64 = cells.iter().filter_map(|cell| Some(stats::variance(cell)? * (cell.len() - 1) as f64)).sum();
        let spread = (squares / df as f64).sqrt();
        let mut difference = Self { x: Vec::new(), d: Vec::new(), se: Vec::new(), df };
        for pair in pairs {
            difference.x.push(pair.x);
            difference.d.push(stats::mean(&pair.a)?.ln() - stats::mean(&pair.b)?.ln());
            difference.se.push(spread * (1.0 / pair.a.len() as f64 + 1.0 / pair.b.len() as f64).sqrt());
        }
        Some(difference)
    }

    /// At each level −1, 0 or 1: which sign of d is shown, at 5 % over all levels together (Bonferroni).
    pub fn shown(&self) -> Vec<i8> {
        let t = stats::t_quantile(1.0 - 0.025 / self.d.len() as f64, self.df as f64);
        let sign = |(d, se): (&f64, &f64)| if d.abs() > t * se { d.signum() as i8 } else { 0 };
        self.d.iter().zip(&self.se).map(sign).collect()
    }

    /// Where d changes from the sign `from` to the other, and how probable any change of sign is.
    ///
    /// d is drawn around its means with Student's t of the pooled degrees of freedom, all levels sharing one spread;
    /// between levels it is linear in ln x. Coverage was checked by simulation (see the tests).
    pub fn crossing(&self, from: f64, rng: &mut kit::Rng) -> (Option<Interval>, f64) {
        let mut places = Vec::new();
        let mut changed = 0_usize;
        for _ in 0..DRAWS {
            let chi_squared: f64 = (0..self.df).map(|_| stats::normal(rng).powi(2)).sum();
            let stretch = (self.df as f64 / chi_squared.max(f64::MIN_POSITIVE)).sqrt();
            let drawn: Vec<f64> =
                self.d.iter().zip(&self.se).map(|(d, se)| d + se * stretch * stats::normal(rng)).collect();
            changed += usize::from(drawn.windows(2).any(|pair| pair[0] * pair[1] < 0.0));
            places.extend(first_crossing(&self.x, &drawn, from));
        }
        let probability = changed as f64 / DRAWS as f64;
        let at = first_crossing(&self.x, &self.d, from).and_then(|at| stats::percentile_interval(at, &mut places));
        (at, probability)
    }
}

/// The first place where d goes from the sign `from` to the other, linear in ln x between levels (in x where a level is 0).
fn first_crossing(x: &[f64], d: &[f64], from: f64) -> Option<f64> {
    let step = |place: usize| {
        let (before, after) = (d[place] * from, d[place + 1] * from);
        let share = before / (before - after);
        let (left, right) = (x[place], x[place + 1]);
        (before > 0.0 && after <= 0.0).then(|| {
            if left > 0.0 {
                (left.ln() + share * (right.ln() - left.ln())).exp()
            } else {
                left + share * (right - left)
            }
        })
    };
    (0..d.len().saturating_sub(1)).find_map(step)
}

/// Compares two curves in one metric of their cells, over the levels that both have and no guard touches; the levels
/// left out are named. `x` names the x axis.
pub fn crossover(metric: &str, a: &Curve, b: &Curve, x: &str, seed: u64) -> Crossover {
    let cells: Vec<(&CellSummary, &CellSummary)> =
        a.cells.iter().filter_map(|cell| Some((cell, b.cells.iter().find(|other| other.x == cell.x)?))).collect();
    let touched = |(a, b): &(&CellSummary, &CellSummary)| {
        let guard = a.guards.iter().chain(&b.guards).find(|guard| guards::touches(guard, metric))?;
        Some((a.x, guard.id.clone()))
    };
    let left_out: Vec<(f64, String)> = cells.iter().filter_map(touched).collect();
    let whole = |cell: &CellSummary| {
        let estimate = cell.metrics.get(metric)?;
        estimate.mean.map(|_| estimate.values.clone())
    };
    let clear = cells.iter().filter(|pair| touched(pair).is_none());
    let pairs: Vec<Pair> = clear.filter_map(|(a, b)| Some(Pair { x: a.x, a: whole(a)?, b: whole(b)? })).collect();
    let found = match Difference::of(&pairs) {
        Some(difference) => {
            let (one, other) = (a.label.as_str().min(&b.label), a.label.as_str().max(&b.label));
            let mut rng = kit::rng(seed, &format!("crossover {metric} {one} {other}"));
            decided(metric, (a, b), x, &difference, &mut rng)
        }
        None => undecided(metric, a, b, x, why_not(&pairs, &left_out, x)),
    };
    let without = match (&found.unknown, left_out.as_slice()) {
        (Some(_), _) | (None, []) => String::new(),
        (None, left_out) => format!(". Not compared: {}", words::doubts(left_out, x)),
    };
    Crossover { statement: found.statement + &without, left_out, ..found }
}

fn why_not(pairs: &[Pair], left_out: &[(f64, String)], x: &str) -> String {
    match (left_out, pairs.len()) {
        ([_, ..], _) => words::doubts(left_out, x),
        ([], 0 | 1) => "the curves share fewer than two levels with this number".to_owned(),
        ([], _) => "each cell was tried once, so there is no spread to judge a difference by".to_owned(),
    }
}

fn undecided(metric: &str, a: &Curve, b: &Curve, x: &str, why: String) -> Crossover {
    Crossover {
        metric: metric.to_owned(),
        a: a.label.clone(),
        b: b.label.clone(),
        at: None,
        probability: 0.0,
        statement: inconclusive(metric, a, b, x, &why),
        unknown: Some(why),
        shown: Vec::new(),
        left_out: Vec::new(),
    }
}

fn decided(metric: &str, (a, b): (&Curve, &Curve), x: &str, difference: &Difference, rng: &mut kit::Rng) -> Crossover {
    // The sign of d with which the first curve is better.
    let a_better: i8 = if metric.ends_with("_ms") || metric == "error_rate" { -1 } else { 1 };
    let shown = difference.shown();
    let leads = shown.iter().copied().find(|sign| *sign != 0).unwrap_or(0);
    let start = if leads != 0 { f64::from(leads) } else { difference.d[0].signum() };
    let (first, second) = if start * f64::from(a_better) >= 0.0 { (a, b) } else { (b, a) };
    let (place, probability) = difference.crossing(start, rng);
    let leader = |sign: &i8| (*sign != 0).then(|| if *sign == a_better { a.label.clone() } else { b.label.clone() });
    let found = Crossover {
        metric: metric.to_owned(),
        a: first.label.clone(),
        b: second.label.clone(),
        at: None,
        probability,
        statement: String::new(),
        unknown: None,
        shown: difference.x.iter().copied().zip(shown.iter().map(leader)).collect(),
        left_out: Vec::new(),
    };
    // More than one change has no single place, and "beyond" would be wrong.
    let at = place.filter(|_| found.changes() == 1 && probability >= 0.5);
    let statement = match (at, leads, found.changes()) {
        (Some(at), ..) => overtakes(metric, first, second, x, at),
        (None, 0, _) => no_difference(metric, first, second, x, difference),
        (None, _, 0) => leader_of_all(&found, (first, second), x),
        (None, ..) => ranges(&found, (first, second), x),
    };
    Crossover { at, statement, ..found }
}

/// What was measured at the last level both curves have is said all the same, without a claim.
fn inconclusive(metric: &str, a: &Curve, b: &Curve, x: &str, why: &str) -> String {
    let shared = a.cells.iter().rfind(|cell| b.cells.iter().any(|other| other.x == cell.x));
    let figures = shared.and_then(|cell| against(metric, a, b, x, cell.x));
    let measured = figures.map(|figures| format!(". Measured: {figures}")).unwrap_or_default();
    let (one, other) = (Subject::of(&a.label), Subject::of(&b.label));
    format!("{} of {} and {} cannot be compared: {why}{measured}", capital(name(metric)), one.name, other.name)
}

/// `12 ms (11–13)`, or without an interval where there is none.
pub(crate) fn figure(cell: &CellSummary, metric: &str) -> String {
    let Some(estimate) = cell.metrics.get(metric) else { return "not measured".to_owned() };
    let unit = match metric {
        _ if metric.ends_with("_ms") => " ms",
        _ if metric.ends_with("_rate") => " %",
        _ => "/s",
    };
    match (estimate.mean, estimate.low, estimate.high) {
        (Some(mean), Some(low), Some(high)) => format!("{}{unit} ({}–{})", three(mean), three(low), three(high)),
        (Some(mean), ..) => format!("{}{unit}", three(mean)),
        _ => "not measured".to_owned(),
    }
}

/// `p95 12 ms (11–13) against 31 ms (30–32) at 128 users`.
fn against(metric: &str, first: &Curve, second: &Curve, x: &str, at: f64) -> Option<String> {
    let at_x = |curve: &Curve| curve.cells.iter().find(|cell| cell.x == at).cloned();
    let (one, other) = (at_x(first)?, at_x(second)?);
    mean(&one, metric).and(mean(&other, metric))?;
    let (one, other) = (figure(&one, metric), figure(&other, metric));
    Some(format!("{} {one} against {other} at {}", name(metric), words::levels(&[at], x)))
}

/// The same with how many times one is the other; for differences that were shown.
fn by_factor(metric: &str, first: &Curve, second: &Curve, x: &str, at: f64) -> String {
    let value = |curve: &Curve| mean(curve.cells.iter().find(|cell| cell.x == at)?, metric);
    let ratio = value(first).zip(value(second)).map_or(f64::NAN, |(one, other)| one.max(other) / one.min(other));
    let factor = if ratio.is_finite() { format!(", a factor of {}", three(ratio)) } else { String::new() };
    against(metric, first, second, x, at).unwrap_or_default() + &factor
}

fn overtakes(metric: &str, first: &Curve, second: &Curve, x: &str, at: Interval) -> String {
    let range = format!("{} (95 % interval {}–{})", about(at.estimate, x), three(at.low), three(at.high));
    let levels = || first.cells.iter().map(|cell| cell.x);
    let far = levels().rfind(|x| *x > at.high).or_else(|| levels().next_back()).unwrap_or(at.high);
    let figures = by_factor(metric, second, first, x, far);
    let (one, other) = (Subject::of(&first.label), Subject::of(&second.label));
    format!("{} up to {range}, {} beyond: {figures}", capital(&one.is_better(metric)), other.name)
}

/// `about 20 users`.
pub(crate) fn about(estimate: f64, x: &str) -> String {
    match x {
        "rate" => format!("about {} operations/s", three(estimate)),
        _ => format!("about {} {x}", three(estimate)),
    }
}

/// The levels at which a curve is shown to be better.
fn led_by(found: &Crossover, label: &str) -> Vec<f64> {
    found.shown.iter().filter(|(_, leader)| leader.as_deref() == Some(label)).map(|(x, _)| *x).collect()
}

fn leader_of_all(found: &Crossover, (first, second): (&Curve, &Curve), x: &str) -> String {
    let led = led_by(found, &first.label);
    let last = led.last().copied().unwrap_or_default();
    let everywhere = led.len() == found.shown.len();
    let place = match (everywhere, led.first()) {
        (true, Some(from)) => format!("From {from} to {}", words::levels(&[last], x)),
        _ => format!("At {}", words::levels(&led, x)),
    };
    let other = Subject::of(&second.label);
    let never = format!("{} {} not overtake it in the tested range", other.name, other.verb("does", "do"));
    let end = match (everywhere, found.probability < 0.5) {
        (true, true) => never,
        (false, true) => format!("at the other levels no difference could be shown, and {never}"),
        (_, false) => format!(
            "at the other levels the two are too close to tell whether {} {} it (probability {})",
            other.name,
            other.verb("overtakes", "overtake"),
            three(found.probability)
        ),
    };
    let figures = by_factor(&found.metric, first, second, x, last);
    format!("{place} {}: {figures}; {end}", Subject::of(&first.label).is_better(&found.metric))
}

/// Each curve with the levels at which it is better.
fn ranges(found: &Crossover, (first, second): (&Curve, &Curve), x: &str) -> String {
    let (one, other) = (Subject::of(&first.label), Subject::of(&second.label));
    let of = |curve: &Curve| words::levels(&led_by(found, &curve.label), x);
    let open: Vec<f64> = found.shown.iter().filter(|(_, leader)| leader.is_none()).map(|(level, _)| *level).collect();
    let rest = match open.as_slice() {
        [] => String::new(),
        open => format!("; at {} no difference could be shown", words::levels(open, x)),
    };
    format!(
        "{} at {}; {} at {}{rest}",
        capital(&one.is_better(&found.metric)),
        of(first),
        other.is_better(&found.metric),
        of(second)
    )
}

fn no_difference(metric: &str, first: &Curve, second: &Curve, x: &str, d: &Difference) -> String {
    let (from, to) = (d.x[0], d.x[d.x.len() - 1]);
    let figures = against(metric, first, second, x, to).unwrap_or_default();
    format!(
        "From {from} to {} no difference in {} between {} and {} could be shown: {figures}",
        words::levels(&[to], x),
        name(metric),
        Subject::of(&first.label).name,
        Subject::of(&second.label).name
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(a: &[f64], b: &[f64], cv: f64, trials: usize, rng: &mut kit::Rng) -> Vec<Pair> {
        let mut draw = |mean: f64| (0..trials).map(|_| mean * (cv * stats::normal(rng)).exp()).collect::<Vec<_>>();
        let x = [4.0, 16.0, 64.0, 128.0];
        x.iter().zip(a.iter().zip(b)).map(|(&x, (&a, &b))| Pair { x, a: draw(a), b: draw(b) }).collect()
    }

    #[test]
    fn the_interval_of_a_crossover_covers_it() {
        // d = ln a − ln b is −1, −0.5, 0.25, 0.5: zero lies two thirds of the way from ln 16 to ln 64.
        let (a, b) = ([1.0, 1.0, 1.0, 1.0], [1.0_f64, 0.5, -0.25, -0.5].map(f64::exp));
        let truth = (16_f64.ln() + (64_f64 / 16.0).ln() * 2.0 / 3.0).exp();
        let mut rng = kit::rng(1, "test");
        let covered = (0..60).filter(|_| {
            let difference = Difference::of(&pairs(&a, &b, 0.05, 3, &mut rng)).unwrap();
            difference.crossing(-1.0, &mut rng).0.is_some_and(|at| at.low <= truth && truth <= at.high)
        });
        let covered = covered.count();
        // 95 % of 60 is 57; 51 or fewer would be rarer than one in a hundred.
        assert!(covered >= 52, "{covered} of 60 intervals cover {truth}");
    }

    fn curve(label: &str, p95: [f64; 4]) -> Curve {
        use crate::experiment::Levels;
        use crate::measure::Fitted;
        use crate::measure::samples::{Made, trial};
        let cell = |(x, p95): (f64, f64)| {
            let trials = [0.98, 1.0, 1.02].map(|shake| trial(&Made { p95: p95 * shake, ..Made::default() }));
            crate::measure::study::cell(&trials.iter().collect::<Vec<_>>(), x, "")
        };
        Curve {
            label: label.to_owned(),
            levels: Levels::new(),
            cells: [4.0, 16.0, 64.0, 128.0].into_iter().zip(p95).map(cell).collect(),
            usl: Fitted::None(String::new()),
            knee: Fitted::None(String::new()),
        }
    }

    #[test]
    fn curves_that_change_places_twice_are_told_by_their_ranges() {
        let (a, b) = (curve("monolith", [10.0, 10.0, 10.0, 10.0]), curve("microservices", [20.0, 5.0, 5.0, 20.0]));
        let found = crossover("latency_p95_ms", &a, &b, "users", 1);
        assert_eq!((found.at, found.changes()), (None, 2));
        assert_eq!(
            found.statement,
            "The monolith answers faster at 4 and 128 users; microservices answer faster at 16 and 64 users"
        );
    }

    #[test]
    fn curves_that_change_places_once_are_told_by_the_place() {
        let (a, b) = (curve("monolith", [5.0, 10.0, 20.0, 40.0]), curve("microservices", [14.0; 4]));
        let found = crossover("latency_p95_ms", &a, &b, "users", 1);
        assert_eq!(found.changes(), 1);
        assert!(found.at.is_some_and(|at| at.low > 16.0 && at.high < 64.0), "{found:?}");
        assert!(found.statement.contains(", microservices beyond: p95 14 ms"), "{}", found.statement);
    }

    #[test]
    fn equal_curves_show_no_difference() {
        let mut rng = kit::rng(2, "test");
        let claims = (0..200).filter(|_| {
            let difference = Difference::of(&pairs(&[10.0; 4], &[10.0; 4], 0.05, 3, &mut rng)).unwrap();
            difference.shown().iter().any(|sign| *sign != 0)
        });
        let claims = claims.count();
        assert!(claims <= 20, "{claims} of 200 pairs of equal curves are told apart");
    }

    #[test]
    fn one_trial_a_cell_has_no_spread() {
        assert!(Difference::of(&pairs(&[1.0; 4], &[2.0; 4], 0.1, 1, &mut kit::rng(1, "test"))).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn exchanging_the_curves_changes_only_the_sign(seed in 0..1000_u64) {
            let pairs = pairs(&[1.0, 1.0, 1.0, 1.0], &[2.0, 1.5, 0.8, 0.5], 0.05, 3, &mut kit::rng(seed, "test"));
            let swapped: Vec<Pair> = pairs.iter().map(|p| Pair { x: p.x, a: p.b.clone(), b: p.a.clone() }).collect();
            let (one, other) = (Difference::of(&pairs).unwrap(), Difference::of(&swapped).unwrap());
            prop_assert!(one.d.iter().zip(&other.d).all(|(a, b)| (a + b).abs() < 1e-12));
            prop_assert_eq!(one.shown(), other.shown().iter().map(|sign| -sign).collect::<Vec<_>>());
            let place = |d: &Difference, from| first_crossing(&d.x, &d.d, from).unwrap_or(0.0);
            prop_assert!((place(&one, -1.0) - place(&other, 1.0)).abs() < 1e-9);
        }
    }
}

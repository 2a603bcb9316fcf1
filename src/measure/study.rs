//! Trials → cells → curves → [`StudySummary`].
//!
//! One rule: an estimate of a cell is the mean of one value a trial, and its interval comes from their spread.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::experiment::{DeploymentKind, Experiment, Level, Levels, LoadPlan};
use crate::load::Scenario;
use crate::measure::guards::PERCENTILES;
use crate::measure::{
    CellStream, CellSummary, Crossover, Curve, Estimate, Fitted, Guard, Spread, StudySummary, TrialSummary, answer,
    crossover, guards, knee, recovery, search, stats, stream, usl, words,
};

/// What the trials of an experiment say together.
///
/// The x axis is the searched factor, else `users`, else `rate`, else the first other numeric factor with at least two
/// levels. Trials that share all other levels make a curve. All numbers are in the units of [`TrialSummary`].
pub fn summarize_study(experiment: &Experiment, trials: &[TrialSummary]) -> StudySummary {
    let x = x_factor(experiment);
    let think_s = think(experiment);
    let mut curves = curves(experiment, trials, x.as_deref());
    let is_stream = trials.iter().any(|trial| trial.stream.is_some());
    for curve in &mut curves {
        client_bound(curve, think_s);
        match &x {
            Some(_) if is_stream => {
                let why = "a stream is asked whether it keeps up, not how much it could do";
                (curve.usl, curve.knee) = (Fitted::None(why.to_owned()), Fitted::None(why.to_owned()));
            }
            Some(x) => fits(curve, x, think_s, experiment.seed),
            None => {}
        }
    }
    let mut guards = study_guards(&curves, x.is_some(), experiment);
    guards.extend(curves.iter().flat_map(|curve| curve.cells.iter().flat_map(|cell| cell.guards.clone())));
    let search = experiment.search.as_ref().map(|search| search::summarize(search, &experiment.slo, &curves));
    let crossovers = match (&x, &search) {
        (Some(x), None) if !is_stream => crossovers(&curves, x, experiment.seed),
        _ => Vec::new(),
    };
    let mut study = StudySummary { x, curves, crossovers, search, guards, answer: String::new() };
    study.answer = answer::answer(&study, experiment);
    study
}

/// Fits the scalability law and the hinge to goodput, over cells that no broken generator or unsteady trial touches.
fn fits(curve: &mut Curve, x: &str, think_s: f64, seed: u64) {
    let sound = |cell: &&CellSummary| {
        !cell.guards.iter().any(|guard| guard.id != "client-bound" && guards::touches(guard, "goodput_rps"))
    };
    let goodput =
        |cell: &CellSummary| cell.metrics.get("goodput_rps").filter(|e| e.mean.is_some()).map(|e| e.values.clone());
    let thinking = x == "users" && think_s > 0.0;
    let level = |cell: &CellSummary, n: Option<f64>| Some(usl::Level { n: n?, values: goodput(cell)? });
    let by_x: Vec<usl::Level> = curve.cells.iter().filter(sound).filter_map(|cell| level(cell, Some(cell.x))).collect();
    let by_n: Vec<usl::Level> = match thinking {
        // Users who think are not in the system.
        true => curve.cells.iter().filter(sound).filter_map(|cell| level(cell, mean(cell, "in_system"))).collect(),
        false => by_x.clone(),
    };
    let over = if thinking { "operations in the system (throughput × response time)" } else { x };
    curve.usl = match x {
        "rate" => Fitted::None("the law is over users or workers, not over an offered rate".to_owned()),
        _ => usl::summarize(&by_n, over, seed, draws(usl::DRAWS)).map_or_else(Fitted::None, Fitted::Fit),
    };
    curve.knee = knee::summarize(&by_x, seed, draws(knee::DRAWS)).map_or_else(Fitted::None, Fitted::Fit);
}

/// Fewer in tests of this module, which are not about the intervals.
fn draws(full: usize) -> usize {
    if cfg!(test) { full / 10 } else { full }
}

/// Each pair of curves, in what users feel and in what the system does.
fn crossovers(curves: &[Curve], x: &str, seed: u64) -> Vec<Crossover> {
    let pairs = curves.iter().enumerate().flat_map(|(place, a)| curves[place + 1..].iter().map(move |b| (a, b)));
    let metrics = ["latency_p95_ms", "latency_avg_ms", "goodput_rps"];
    pairs.flat_map(|(a, b)| metrics.map(|metric| crossover::crossover(metric, a, b, x, seed))).collect()
}

/// The factor on the x axis; none when no numeric factor has two levels.
pub fn x_factor(experiment: &Experiment) -> Option<String> {
    if let Some(search) = &experiment.search {
        return Some(search.factor.clone());
    }
    let numeric = |levels: &Vec<Level>| levels.len() > 1 && levels.iter().all(|level| level.as_f64().is_some());
    let preferred = ["users", "rate"].into_iter().find(|name| experiment.factors.get(*name).is_some_and(numeric));
    let other = || experiment.factors.iter().find(|(_, levels)| numeric(levels)).map(|(name, _)| name.clone());
    preferred.map(str::to_owned).or_else(other)
}

/// The mean think time in seconds: of the steps by weight where they have their own, else of the load; 0 in an open loop.
pub fn think(experiment: &Experiment) -> f64 {
    let LoadPlan::Closed { think, .. } = experiment.load else { return 0.0 };
    let of_steps = |scenario: &Scenario| {
        let weight: f64 = scenario.steps.iter().map(|step| f64::from(step.weight)).sum();
        let own = |own: Option<Duration>| own.unwrap_or(think).as_secs_f64();
        let sum: f64 = scenario.steps.iter().map(|step| f64::from(step.weight) * own(step.think)).sum();
        (weight > 0.0).then(|| sum / weight)
    };
    experiment.scenario.as_ref().and_then(of_steps).unwrap_or(think.as_secs_f64())
}

fn curves(experiment: &Experiment, trials: &[TrialSummary], x: Option<&str>) -> Vec<Curve> {
    let mut by_levels: Vec<(Levels, Vec<&TrialSummary>)> = Vec::new();
    for trial in trials {
        let mut fixed = trial.levels.clone();
        if let Some(x) = x {
            fixed.remove(x);
        }
        match by_levels.iter_mut().find(|(levels, _)| *levels == fixed) {
            Some((_, group)) => group.push(trial),
            None => by_levels.push((fixed, vec![trial])),
        }
    }
    // In the order in which the experiment names them, not in the seeded order of running.
    by_levels.sort_by_key(|(levels, _)| {
        let place = |(name, level): (&String, &Level)| {
            experiment.factors.get(name).and_then(|all| all.iter().position(|known| known == level))
        };
        levels.iter().map(place).collect::<Vec<_>>()
    });
    let varying = varying(&by_levels);
    let curve = |(levels, group): (Levels, Vec<&TrialSummary>)| {
        let label = label(&levels, &varying);
        let no_axis = || "no numeric factor has two levels".to_owned();
        Curve {
            cells: cells(&group, x, &label),
            label,
            levels,
            usl: Fitted::None(no_axis()),
            knee: Fitted::None(no_axis()),
        }
    };
    by_levels.into_iter().map(curve).collect()
}

/// The factors that tell curves apart.
fn varying(groups: &[(Levels, Vec<&TrialSummary>)]) -> Vec<String> {
    let mut seen: BTreeMap<&String, Vec<Option<&Level>>> = BTreeMap::new();
    for name in groups.iter().flat_map(|(levels, _)| levels.keys()) {
        seen.entry(name).or_insert_with(|| groups.iter().map(|(levels, _)| levels.get(name)).collect());
    }
    let differs = |levels: &Vec<Option<&Level>>| levels.windows(2).any(|pair| pair[0] != pair[1]);
    seen.into_iter().filter(|(_, levels)| differs(levels)).map(|(name, _)| name.clone()).collect()
}

/// `microservices × 3`, `monolith, batch=64`, `4 cores`: names first, then numbers; `all` where nothing tells curves apart.
fn label(levels: &Levels, varying: &[String]) -> String {
    let shown = || levels.iter().filter(|(name, _)| *name == "architecture" || varying.contains(name));
    let texts = shown().filter(|(_, level)| level.as_f64().is_none()).map(|(_, level)| level.to_string());
    let mut text = texts.collect::<Vec<_>>().join(", ");
    for (name, level) in shown().filter(|(_, level)| level.as_f64().is_some()) {
        if let Some(words) = words::of_stream(name, level.as_f64().unwrap_or_default()) {
            text += &if text.is_empty() { words } else { format!(", {words}") };
            continue;
        }
        text += &match (name == "replicas", text.is_empty()) {
            (true, true) => format!("× {level}"),
            (true, false) => format!(" × {level}"),
            (false, true) => format!("{name}={level}"),
            (false, false) => format!(", {name}={level}"),
        };
    }
    if text.is_empty() { "all".to_owned() } else { text }
}

fn cells(trials: &[&TrialSummary], x: Option<&str>, label: &str) -> Vec<CellSummary> {
    let at = |trial: &TrialSummary| x.and_then(|x| trial.levels.get(x)).and_then(Level::as_f64).unwrap_or(0.0);
    let mut by_x: Vec<(f64, Vec<&TrialSummary>)> = Vec::new();
    for trial in trials {
        match by_x.iter_mut().find(|(place, _)| *place == at(trial)) {
            Some((_, group)) => group.push(trial),
            None => by_x.push((at(trial), vec![trial])),
        }
    }
    by_x.sort_by(|a, b| a.0.total_cmp(&b.0));
    let name = |place: f64| x.map_or_else(|| label.to_owned(), |x| format!("{label}, {x} {place}"));
    by_x.into_iter().map(|(place, group)| cell(&group, place, &name(place))).collect()
}

/// Trials of one cell → its estimates, by key; `at` names the cell in guards.
pub fn cell(trials: &[&TrialSummary], x: f64, at: &str) -> CellSummary {
    let valid: Vec<&TrialSummary> = trials.iter().copied().filter(|trial| trial.valid).collect();
    let invalid: Vec<&TrialSummary> = trials.iter().copied().filter(|trial| !trial.valid).collect();
    let nothing = || match invalid.first() {
        Some(trial) => format!("no trial is valid: {}", trial.invalid.as_deref().unwrap_or("no reason given")),
        None => "no trial was run".to_owned(),
    };
    let mut metrics: BTreeMap<String, Estimate> = BTreeMap::new();
    for (key, _) in values(&empty_like(trials)) {
        let each: Vec<Option<f64>> = valid.iter().map(|trial| value(trial, &key)).collect();
        let reason = valid.iter().find_map(|trial| null_reason(trial, &key).cloned());
        let mut estimate = estimate(&key, &each, reason.unwrap_or_else(nothing));
        if let (stream::GROWTH, [only]) = (key.as_str(), valid.as_slice()) {
            let within = only.stream.as_ref().and_then(|stream| stream.delay_growth_ms_per_batch);
            (estimate.low, estimate.high) = (within.map(|within| within.low), within.map(|within| within.high));
        }
        estimate.thin = thin(&key, &valid);
        metrics.insert(key, estimate);
    }
    let levels = trials.first().map(|trial| trial.levels.clone()).unwrap_or_default();
    let guards = merged_guards(&valid, at);
    let stream = CellStream::of(valid.iter().filter_map(|trial| trial.stream.as_ref()));
    let recovery = recovery::summarize_cell(&valid).map(|(of_faults, recovery)| {
        metrics.extend(of_faults);
        recovery
    });
    CellSummary { x, levels, valid: valid.len(), invalid: invalid.len(), metrics, guards, stream, recovery }
}

fn null_reason<'a>(trial: &'a TrialSummary, key: &str) -> Option<&'a String> {
    let of_stream = trial.stream.as_ref().and_then(|stream| stream.null_reason(key));
    of_stream.or_else(|| trial.null_reasons.get(source(key)))
}

/// The number of a trial whose reason of a null is also that of the number with this key.
fn source(key: &str) -> &str {
    match key {
        "in_system" => "latency_avg_ms",
        "failed_rate" | "unknown_rate" | "wrong_rate" => "error_rate",
        _ => key,
    }
}

/// The trial whose keys the cell has. One of a stream may have ended before it told anything of itself.
fn empty_like<'a>(trials: &[&'a TrialSummary]) -> Option<&'a TrialSummary> {
    trials.iter().find(|trial| trial.stream.is_some()).or(trials.first()).copied()
}

fn value(trial: &TrialSummary, key: &str) -> Option<f64> {
    values(&Some(trial)).into_iter().find(|(name, _)| name == key).and_then(|(_, value)| value)
}

/// Every number of a trial that a cell estimates, by key.
fn values(trial: &Option<&TrialSummary>) -> Vec<(String, Option<f64>)> {
    let Some(trial) = trial else { return Vec::new() };
    let share = |count: u64| trial.error_rate.map(|_| 100.0 * count as f64 / trial.total_requests.max(1) as f64);
    let mut all: Vec<(String, Option<f64>)> = [
        ("throughput_rps", trial.throughput_rps),
        ("goodput_rps", trial.goodput_rps),
        ("offered_rps", trial.offered_rps),
        ("latency_p50_ms", trial.latency_p50_ms),
        ("latency_p90_ms", trial.latency_p90_ms),
        ("latency_p95_ms", trial.latency_p95_ms),
        ("latency_p99_ms", trial.latency_p99_ms),
        ("latency_p999_ms", trial.latency_p999_ms),
        ("latency_avg_ms", trial.latency_avg_ms),
        ("latency_max_ms", trial.latency_max_ms),
        ("in_system", in_system(trial)),
        ("error_rate", trial.error_rate),
        ("failed_rate", share(trial.failed)),
        ("unknown_rate", share(trial.unknown)),
        ("wrong_rate", share(trial.wrong)),
        ("total_cpu_units", trial.total_cpu_units),
        ("total_mem_gb", trial.total_mem_gb),
        ("rps_per_cpu_unit", trial.rps_per_cpu_unit),
        ("rps_per_gb_mem", trial.rps_per_gb_mem),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    for (part, spread) in [("wait", &trial.wait), ("work", &trial.work), ("lag", &trial.lag)] {
        all.extend(spread_values(spread).map(|(name, value)| (format!("{part}_{name}_ms"), value)));
    }
    let of_stream = trial.stream.iter().flat_map(|stream| stream.values());
    all.extend(of_stream.map(|(key, value)| (key.to_owned(), value)));
    all
}

/// Operations in the system on average, by Little's law (1961): rate times mean time, both of the same operations.
fn in_system(trial: &TrialSummary) -> Option<f64> {
    let rate = (trial.measured_s > 0.0).then(|| trial.latency_count as f64 / trial.measured_s)?;
    Some(rate * trial.latency_avg_ms? / 1e3)
}

fn spread_values(spread: &Spread) -> impl Iterator<Item = (&'static str, Option<f64>)> {
    [
        ("p50", spread.p50),
        ("p90", spread.p90),
        ("p95", spread.p95),
        ("p99", spread.p99),
        ("p999", spread.p999),
        ("avg", spread.avg),
        ("max", spread.max),
    ]
    .into_iter()
}

/// From this many trials on, intervals of durations are taken on the logarithmic scale: with two, Student's t (12.7) is so
/// wide that taking it back from logarithms says nothing any more.
const ENOUGH_FOR_LOGS: usize = 3;

/// Mean and t-interval of the values of valid trials. One trial without the number takes it from the cell, because the
/// mean of the others would be of a different thing. The interval of a duration comes from the logarithms, so that it
/// never reaches zero; where a duration is zero, and for everything else, it is the plain one, cut at zero. A growth may
/// be below zero.
fn estimate(key: &str, each: &[Option<f64>], reason: String) -> Estimate {
    let values: Vec<f64> = each.iter().copied().flatten().collect();
    if values.is_empty() || values.len() < each.len() {
        return Estimate { values, null_reason: Some(reason), ..Estimate::default() };
    }
    let may_fall = key == stream::GROWTH;
    let of_duration = if key.ends_with("_ms") && !may_fall && values.len() >= ENOUGH_FOR_LOGS {
        stats::log_t_interval(&values)
    } else {
        None
    };
    let interval = of_duration.or_else(|| stats::t_interval(&values));
    Estimate {
        mean: stats::mean(&values),
        low: interval.map(|interval| if may_fall { interval.low } else { interval.low.max(0.0) }),
        high: interval.map(|interval| interval.high),
        values,
        ..Estimate::default()
    }
}

/// For a percentile: how many operations the thinnest trial has, where that is too few.
fn thin(key: &str, valid: &[&TrialSummary]) -> Option<u64> {
    if stream::is_key(key) {
        // Those of records rest on records, of which there are many.
        return None;
    }
    let needed = PERCENTILES.iter().find(|(name, _)| key.ends_with(&format!("_{name}_ms")))?.1;
    valid.iter().map(|trial| trial.latency_count).min().filter(|count| *count < needed)
}

/// One guard an id and set of touched numbers, at the cell, saying in how many trials it was seen.
fn merged_guards(valid: &[&TrialSummary], at: &str) -> Vec<Guard> {
    let mut merged: Vec<(Guard, usize)> = Vec::new();
    for guard in valid.iter().flat_map(|trial| &trial.guards) {
        match merged.iter_mut().find(|(seen, _)| seen.id == guard.id && seen.touches == guard.touches) {
            Some((_, times)) => *times += 1,
            None => merged.push((guard.clone(), 1)),
        }
    }
    let total = valid.len();
    let told = |(guard, times): (Guard, usize)| {
        let what = if total > 1 { format!("{} ({times} of {total} trials)", guard.what) } else { guard.what };
        Guard { at: at.to_owned(), what, ..guard }
    };
    merged.into_iter().map(told).collect()
}

/// In a closed loop with think time Z, N users cannot ask for more than N/(R₁ + Z), with R₁ the response time at the
/// curve's smallest level that has one (the asymptotic bound of operational analysis, Denning & Buzen 1978). Throughput
/// within 5 % of it tells how many users there were, not what the system can do. The smallest level itself is not looked
/// at; where something makes its latency doubtful, the bound is doubtful too, and nothing is said.
fn client_bound(curve: &mut Curve, think_s: f64) {
    let alone = curve.cells.iter().enumerate().find_map(|(place, cell)| Some((place, mean(cell, "latency_avg_ms")?)));
    let Some((smallest, alone_ms)) = alone.filter(|_| think_s > 0.0) else { return };
    if curve.cells[smallest].guards.iter().any(|guard| guards::touches(guard, "latency_avg_ms")) {
        return;
    }
    let label = curve.label.clone();
    for cell in curve.cells.iter_mut().skip(smallest + 1) {
        let bound = bound(cell, &label, alone_ms / 1e3, think_s);
        cell.guards.extend(bound);
    }
}

fn bound(cell: &CellSummary, label: &str, alone_s: f64, think_s: f64) -> Option<Guard> {
    let users = cell.levels.get("users").and_then(Level::as_f64)?;
    let throughput = mean(cell, "throughput_rps")?;
    let bound = users / (alone_s + think_s);
    (throughput > 0.95 * bound).then(|| Guard {
        id: "client-bound".to_owned(),
        touches: ["throughput", "efficiency", "crossover"].map(str::to_owned).to_vec(),
        at: format!("{label}, users {users}"),
        what: format!(
            "{throughput:.0}/s is {:.0} % of the {bound:.0}/s that {users} users with {:.0} ms of think time can ask for",
            100.0 * throughput / bound,
            1e3 * think_s
        ),
        advice: "the users set this rate, not the system: add users, or think less, to learn its limit".to_owned(),
    })
}

pub(crate) fn mean(cell: &CellSummary, key: &str) -> Option<f64> {
    cell.metrics.get(key).and_then(|estimate| estimate.mean)
}

/// The smallest level at which an open loop could not send what it offered.
pub(crate) fn falls_behind(curve: &Curve) -> Option<f64> {
    curve.cells.iter().find(|cell| cell.guards.iter().any(|guard| guard.id == "saturated")).map(|cell| cell.x)
}

fn no_saturation(curve: &Curve) -> Option<Guard> {
    let last = curve.cells.last()?;
    let Fitted::Fit(knee) = &curve.knee else { return None };
    (!knee.saturated && falls_behind(curve).is_none()).then(|| Guard {
        id: "no-saturation".to_owned(),
        touches: vec!["capacity".to_owned()],
        at: curve.label.clone(),
        what: format!("goodput still rises at the last level, {}", last.x),
        advice: "raise the levels until goodput stops growing, to learn the capacity".to_owned(),
    })
}

fn study_guards(curves: &[Curve], has_x: bool, experiment: &Experiment) -> Vec<Guard> {
    let cells = || curves.iter().flat_map(|curve| &curve.cells);
    let most = cells().map(|cell| cell.valid + cell.invalid).max().unwrap_or(0);
    let mut guards: Vec<Guard> = curves.iter().filter_map(no_saturation).collect();
    let is_stream = cells().any(|cell| cell.stream.is_some());
    if is_stream && most == 1 && has_x {
        let (what, advice) = one_trial_of_streams(experiment);
        guards.push(Guard {
            id: "one-trial".to_owned(),
            touches: vec!["capacity".to_owned()],
            at: String::new(),
            what: what.to_owned(),
            advice: advice.to_owned(),
        });
    }
    if most == 1 && !is_stream {
        guards.push(Guard {
            id: "one-trial".to_owned(),
            touches: ["crossover", "efficiency", "capacity"].map(str::to_owned).to_vec(),
            at: String::new(),
            what: "each cell was tried once, so no number has an interval".to_owned(),
            advice: "repeat each cell (--trials 3 or more; 5 for narrow intervals)".to_owned(),
        });
    }
    guards
}

/// What is not known of streams that were tried once, and what would tell. A machine that is not there makes no difference.
fn one_trial_of_streams(experiment: &Experiment) -> (&'static str, &'static str) {
    let poisson = matches!(experiment.load, LoadPlan::Open { poisson: true, .. });
    match (experiment.deployment == DeploymentKind::Simulated, poisson) {
        (false, _) => (
            "each cell was tried once: the growth of the delay has an interval, from within the trial, and nothing else has",
            "repeat each cell (--trials 3 or more) where the machine may make a difference",
        ),
        (true, true) => (
            "each cell was simulated once, which is exact for its seed: another seed has lines arrive at other instants, \
             with other words",
            "repeat each cell (--trials 3 or more): each repetition has a seed of its own, so they spread as arrivals do",
        ),
        (true, false) => (
            "each cell was simulated once, which is exact for its seed: another seed has other words arrive at the same \
             instants",
            "a repetition differs only by its words, and so by the jobs that printing them takes; repeat (--trials 3) where \
             a result is close",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::samples::{Made, MadeStream, experiment, stream_experiment, trial};
    use crate::verdict::{Decision, Slo, Word, decide, exit_code, judge};

    /// Three trials a cell, 2 % apart, of both architectures; p95 and goodput by users.
    fn study(think_ms: u64, of: impl Fn(&str, i64) -> (f64, f64)) -> (Experiment, StudySummary) {
        let mut trials = Vec::new();
        for architecture in ["monolith", "microservices"] {
            for users in [4, 16, 64, 128] {
                let (p95, goodput) = of(architecture, users);
                for shake in [0.98, 1.0, 1.02] {
                    let made = Made { architecture, users, p95: p95 * shake, goodput: goodput * shake, errors: 0.0 };
                    trials.push(trial(&made));
                }
            }
        }
        let experiment = experiment(Duration::from_millis(think_ms));
        let summary = summarize_study(&experiment, &trials);
        (experiment, summary)
    }

    fn monolith_ahead(architecture: &str, users: i64) -> (f64, f64) {
        let slower = if architecture == "monolith" { 1.0 } else { 2.6 };
        (slower * (8.0 + users as f64 / 32.0), 50.0 * users as f64 / slower)
    }

    #[test]
    fn an_architecture_that_is_always_ahead_is_never_overtaken() {
        let (_, study) = study(0, monolith_ahead);
        assert_eq!(study.x.as_deref(), Some("users"));
        assert!(
            study.answer.starts_with(
                "From 4 to 128 users the monolith answers faster: p95 12 ms (11.4–12.6) against 31.2 ms (29.7–32.8) at 128 users, \
                 a factor of 2.6; microservices do not overtake it in the tested range."
            ),
            "{}",
            study.answer
        );
    }

    #[test]
    fn a_crossover_is_told_with_its_interval() {
        let (_, study) = study(0, |architecture, users| match architecture {
            "monolith" => (users as f64, 100.0),
            _ => (20.0, 100.0),
        });
        let found = study.crossovers.iter().find(|crossover| crossover.metric == "latency_p95_ms").unwrap();
        let at = found.at.unwrap();
        assert!(at.low < 20.0 && 20.0 < at.high && found.probability > 0.99, "{found:?}");
        assert_eq!((found.a.as_str(), found.b.as_str()), ("monolith", "microservices"));
        assert!(
            study.answer.starts_with("The monolith answers faster up to about 20 users (95 % interval 1"),
            "{}",
            study.answer
        );
    }

    #[test]
    fn equal_architectures_show_no_difference() {
        let (_, study) = study(0, |_, users| (users as f64, 100.0));
        assert!(study.answer.starts_with("From 4 to 128 users no difference in p95"), "{}", study.answer);
    }

    #[test]
    fn users_that_set_the_rate_leave_throughput_undecided_and_latency_not() {
        // 1 s of think time and answers in milliseconds: every user does about one operation a second.
        let (_, study) =
            study(1_000, |architecture, users| (monolith_ahead(architecture, users).0, users as f64 * 0.99));
        let of = |metric: &str| study.crossovers.iter().find(|crossover| crossover.metric == metric).unwrap();
        assert!(of("goodput_rps").unknown.as_ref().is_some_and(|why| why.ends_with("(client-bound)")));
        let plain = "Goodput of the monolith and microservices cannot be compared: \
                     at 16, 64 and 128 users the users' think time sets it (client-bound). Measured: goodput ";
        assert!(study.answer.contains(plain), "{}", study.answer);
        assert_eq!(of("latency_p95_ms").unknown, None);
        let bound = study.curves.iter().flat_map(|curve| &curve.cells).filter(|cell| !cell.guards.is_empty());
        assert_eq!(bound.count(), 6, "the smallest level of each curve is not looked at");
    }

    #[test]
    fn one_trial_a_cell_gives_no_interval_and_says_so() {
        let experiment = experiment(Duration::ZERO);
        let trials: Vec<TrialSummary> = [4, 16].map(|users| trial(&Made { users, ..Made::default() })).to_vec();
        let study = summarize_study(&experiment, &trials);
        assert_eq!(study.curves[0].cells[0].metrics["goodput_rps"].low, None);
        assert!(study.guards.iter().any(|guard| guard.id == "one-trial"));
    }

    #[test]
    fn one_trial_of_a_stream_says_what_another_would_tell() {
        for (deployment, poisson, expected) in [
            (DeploymentKind::Processes, true, "each cell was tried once: the growth"),
            (DeploymentKind::Simulated, true, "exact for its seed: another seed has lines arrive at other instants"),
            (DeploymentKind::Simulated, false, "exact for its seed: another seed has other words arrive at the same"),
        ] {
            let load = LoadPlan::Open { stages: Vec::new(), poisson, connections: 1 };
            let experiment = Experiment { deployment, load, ..stream_experiment(&[("rate", &[100, 120])]) };
            let trials: Vec<_> =
                [100, 120].map(|rate| MadeStream::of(1_080.0).trial(0, &[("rate", rate)])).into_iter().collect();
            let study = summarize_study(&experiment, &trials);
            let guard = study.guards.iter().find(|guard| guard.id == "one-trial").unwrap();
            assert!(guard.what.contains(expected), "{}", guard.what);
        }
    }

    #[test]
    fn an_answer_says_where_operations_did_not_end_well_and_what_was_left_out() {
        let mut trials: Vec<TrialSummary> =
            [4, 16].map(|users| trial(&Made { users, errors: users as f64 / 8.0, ..Made::default() })).to_vec();
        trials.push(TrialSummary { valid: false, invalid: Some("it ended".to_owned()), ..trials[0].clone() });
        let answer = summarize_study(&experiment(Duration::ZERO), &trials).answer;
        let end = "Operations that did not end well: 2 % of the monolith at 16 users. 1 of 3 trials are invalid and left out.";
        assert!(answer.ends_with(end), "{answer}");
    }

    #[test]
    fn a_rate_that_cannot_be_kept_is_no_growth() {
        let mut experiment = experiment(Duration::ZERO);
        experiment.factors = [("rate".to_owned(), [100, 200, 400].map(Level::Int).to_vec())].into();
        let behind = Guard {
            id: "saturated".to_owned(),
            touches: ["throughput", "goodput", "capacity"].map(str::to_owned).to_vec(),
            at: String::new(),
            what: "60 % of the offered operations were sent".to_owned(),
            advice: String::new(),
        };
        let at = |rate: i64| {
            let mut made = trial(&Made { goodput: rate.min(240) as f64, ..Made::default() });
            made.levels = Levels::from([("rate".to_owned(), Level::Int(rate))]);
            made.guards.extend((rate == 400).then(|| behind.clone()));
            made
        };
        let study = summarize_study(&experiment, &[100, 200, 400].map(at));
        let start = "From 400 operations/s on, more is offered than can be sent; at 400 operations/s: goodput 240/s";
        assert!(study.answer.starts_with(start), "{}", study.answer);
        assert!(study.guards.iter().all(|guard| guard.id != "no-saturation"));
    }

    #[test]
    fn three_curves_are_answered_in_a_few_sentences() {
        let mut trials = Vec::new();
        for (replicas, slower) in [(1, 1.0), (2, 2.0), (3, 1.6)] {
            for users in [4, 16, 64] {
                for shake in [0.98, 1.0, 1.02] {
                    let p95 = shake * if replicas == 3 { 18.0 } else { slower * users as f64 };
                    let goodput = shake * users as f64 * 0.99;
                    let mut made = trial(&Made { users, p95, goodput, ..Made::default() });
                    let architecture = if replicas == 1 { "monolith" } else { "microservices" };
                    made.levels.insert("architecture".to_owned(), Level::Text(architecture.to_owned()));
                    made.levels.insert("replicas".to_owned(), Level::Int(replicas));
                    trials.push(made);
                }
            }
        }
        let answer = summarize_study(&experiment(Duration::from_secs(1)), &trials).answer;
        let start = "At 64 users microservices × 3 answer fastest: p95 18 ms (17.1–18.9) against 64 ms (60.9–67.3) of \
                     the monolith × 1 and 128 ms (122–135) of microservices × 2. ";
        assert!(answer.starts_with(start), "{answer}");
        let overtaken = "icroservices × 3 overtake the monolith × 1 at about 1";
        assert!(answer.contains(overtaken), "{answer}");
        let end = "Goodput cannot be compared: at 16 and 64 users the users' think time sets it (client-bound).";
        assert!(answer.ends_with(end), "{answer}");
    }

    #[test]
    fn a_curve_is_named_by_what_tells_it_apart() {
        let with = |replicas: i64| {
            let mut levels = crate::measure::samples::levels("microservices", 1);
            levels.remove("users");
            levels.insert("replicas".to_owned(), Level::Int(replicas));
            levels.insert("batch".to_owned(), Level::Int(64));
            levels
        };
        assert_eq!(label(&with(3), &["replicas".to_owned()]), "microservices × 3");
        assert_eq!(label(&with(3), &["batch".to_owned()]), "microservices, batch=64");
        assert_eq!(label(&Levels::new(), &[]), "all");
    }

    #[test]
    fn an_objective_is_decided_by_the_whole_interval() {
        let (_, study) = study(0, |_, _| (250.0, 100.0));
        let cell = &study.curves[0].cells[0];
        let check = |text: &str| decide(&Slo::try_from(text.to_owned()).unwrap(), cell);
        assert_eq!(check("p95 <= 300ms"), Decision::Pass);
        assert_eq!(check("p95 <= 0.2s"), Decision::Fail);
        assert_eq!(check("p95 <= 255ms"), Decision::Unknown("the interval 238–263 ms spans 255 ms".to_owned()));
        assert_eq!(check("errors <= 1%"), Decision::Pass);
        assert_eq!(
            check("p99.9 <= 1s"),
            Decision::Unknown("too-few-ops: only 1000 operations stand behind it".to_owned())
        );
        assert_eq!(check("goodput >= 50/s"), Decision::Pass);
    }

    #[test]
    fn a_study_fails_where_a_cell_fails_and_an_invalid_trial_leaves_it_unknown() {
        let (mut experiment, passing) = study(0, monolith_ahead);
        let word = |experiment: &Experiment, study: &StudySummary| {
            let verdict = judge(experiment, study, 0);
            (verdict.verdict, exit_code(&verdict, false))
        };
        assert_eq!(word(&experiment, &passing), (Word::Pass, 0));
        experiment.slo = vec![Slo::try_from("p95 <= 20ms".to_owned()).unwrap()];
        assert_eq!(word(&experiment, &passing), (Word::Fail, 1));
        assert_eq!(judge(&experiment, &passing, 0).which[0], "p95 <= 20ms at microservices, users 4");
        experiment.slo.clear();
        let mut broken = passing;
        broken.curves[0].cells[0].invalid = 1;
        assert_eq!(word(&experiment, &broken), (Word::Unknown, 3));
    }

    #[test]
    fn missing_trials_leave_a_study_unknown_unless_it_failed_already() {
        let (mut experiment, passing) = study(0, monolith_ahead);
        let verdict = judge(&experiment, &passing, 6);
        assert_eq!((verdict.verdict, verdict.why.as_str()), (Word::Unknown, "6 of 30 planned trials are missing"));
        experiment.slo = vec![Slo::try_from("p95 <= 20ms".to_owned()).unwrap()];
        assert_eq!(judge(&experiment, &passing, 6).verdict, Word::Fail);
    }

    #[test]
    fn operations_in_the_system_are_those_that_the_mean_is_over() {
        // Half of what was asked for was refused at once: those never were in the system.
        let one = TrialSummary {
            throughput_rps: Some(200.0),
            latency_count: 1_000,
            latency_avg_ms: Some(50.0),
            ..trial(&Made::default())
        };
        assert_eq!(cell(&[&one], 1.0, "").metrics["in_system"].mean, Some(5.0));
    }

    #[test]
    fn the_interval_of_a_latency_never_reaches_zero() {
        let spread = [1.0, 1.5, 9.0].map(|p95| trial(&Made { p95, ..Made::default() }));
        let cell = cell(&spread.iter().collect::<Vec<_>>(), 1.0, "");
        let p95 = &cell.metrics["latency_p95_ms"];
        let (low, mean, high) = (p95.low.unwrap(), p95.mean.unwrap(), p95.high.unwrap());
        assert!(0.0 < low && low < mean && mean < high, "{p95:?}");
    }

    #[test]
    fn the_users_bound_is_known_from_the_smallest_level_that_was_measured_well() {
        let with = |change: &dyn Fn(&mut TrialSummary)| {
            let mut trials: Vec<TrialSummary> = [4, 16, 64]
                .map(|users| trial(&Made { users, goodput: users as f64 * 0.99, ..Made::default() }))
                .to_vec();
            change(&mut trials[0]);
            let study = summarize_study(&experiment(Duration::from_secs(1)), &trials);
            let bound = |cell: &&CellSummary| cell.guards.iter().any(|guard| guard.id == "client-bound");
            study.curves[0].cells.iter().filter(bound).map(|cell| cell.x).collect::<Vec<_>>()
        };
        assert_eq!(with(&|_| {}), [16.0, 64.0]);
        assert_eq!(with(&|first| first.latency_avg_ms = None), [64.0]);
        let late = Guard {
            id: "generator-limited".to_owned(),
            touches: vec!["latency".to_owned()],
            at: String::new(),
            what: "late".to_owned(),
            advice: String::new(),
        };
        assert!(with(&|first| first.guards.push(late.clone())).is_empty());
    }

    #[test]
    fn a_summary_survives_json() {
        let (_, study) = study(20, monolith_ahead);
        let text = serde_json::to_string(&study).unwrap();
        let back: StudySummary = serde_json::from_str(&text).unwrap();
        assert_eq!((back.answer, back.guards), (study.answer, study.guards));
        assert_eq!(back.curves[1].cells[2].levels, study.curves[1].cells[2].levels);
    }

    #[test]
    fn a_search_is_summarised_by_its_bracket() {
        let mut experiment = experiment(Duration::ZERO);
        experiment.slo = vec![Slo::try_from("p95 <= 100ms".to_owned()).unwrap()];
        let find = crate::experiment::Find::Capacity;
        experiment.search =
            Some(crate::experiment::Search { factor: "users".into(), find, between: (1, 64), within: 0.05 });
        let trials: Vec<TrialSummary> =
            [1, 8, 64].map(|users| trial(&Made { users, p95: 10.0 * users as f64, ..Made::default() })).to_vec();
        let study = summarize_study(&experiment, &trials);
        assert_eq!(study.answer, "The monolith meets the objectives up to 8 users and fails at 64.");
        let verdict = judge(&experiment, &study, 0);
        assert_eq!(
            (verdict.verdict, verdict.why.as_str()),
            (Word::Unknown, "could not be decided: monolith: the limit lies between 8 and 64, wider than asked for")
        );
        let near: Vec<TrialSummary> =
            [9, 10, 11].map(|users| trial(&Made { users, p95: 10.0 * users as f64, ..Made::default() })).to_vec();
        let near = summarize_study(&experiment, &[trials, near].concat());
        assert_eq!(judge(&experiment, &near, 0).verdict, Word::Pass);
    }
}

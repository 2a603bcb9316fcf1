//! Which figures a study has: one row of a table a figure over x, the crossover, and time series where there is no x.
//!
//! The one rule: a number appears with what touches it. A guard leaves its mark at the point, a missing value its
//! reason in the notes, a thin percentile a hollow marker with its count.

use std::collections::BTreeSet;

use crate::measure::{CellSummary, Curve, Estimate, Fitted, TrialSummary, guards};
use crate::report::ReportInput;
use crate::report::figure::{Along, Axis, Band, Figure, FigureCurve, Line, Panel, Point, Scale, Style};
use crate::report::{fault_figures, faults, number, stream_figures};

/// One metric over x.
pub(super) struct Metric {
    pub key: &'static str,
    pub label: &'static str,
    pub unit: &'static str,
}

const P50: Metric = Metric { key: "latency_p50_ms", label: "Latency p50", unit: "ms" };
const P95: Metric = Metric { key: "latency_p95_ms", label: "Latency p95", unit: "ms" };
const P99: Metric = Metric { key: "latency_p99_ms", label: "Latency p99", unit: "ms" };
const THROUGHPUT: Metric = Metric { key: "throughput_rps", label: "Throughput", unit: "requests/s" };
const GOODPUT: Metric = Metric { key: "goodput_rps", label: "Goodput", unit: "good requests/s" };
const ERRORS: Metric = Metric { key: "error_rate", label: "Error rate", unit: "%" };
pub(super) const CPU: Metric = Metric { key: "total_cpu_units", label: "CPU used", unit: "CPUs" };
pub(super) const MEMORY: Metric = Metric { key: "total_mem_gb", label: "Memory", unit: "GB" };
const PER_CPU: Metric = Metric { key: "rps_per_cpu_unit", label: "Good requests/s per CPU used", unit: "" };
const PER_GB: Metric = Metric { key: "rps_per_gb_mem", label: "Good requests/s per GB used", unit: "" };

/// One figure over x: id, title, metrics (one panel each), what to look at.
const OVER_X: &[(&str, &str, &[Metric], &str)] = &[
    (
        "latency_p50_vs_concurrency",
        "Latency p50",
        &[P50],
        "Half of the requests were answered within this time; look where it begins to rise.",
    ),
    (
        "latency_p95_vs_concurrency",
        "Latency p95",
        &[P95],
        "One request in twenty took longer than this; look where a curve bends upwards.",
    ),
    (
        "latency_p99_vs_concurrency",
        "Latency p99",
        &[P99],
        "One request in a hundred took longer than this; the tail shows queues before the median does.",
    ),
    (
        "throughput_vs_concurrency",
        "Throughput",
        &[THROUGHPUT],
        "Requests answered a second; where a curve turns flat, more load only waits.",
    ),
    (
        "error_rate_vs_concurrency",
        "Error rate",
        &[ERRORS],
        "Share of requests that failed, were given up or were answered wrongly; a fast system that refuses work is not fast.",
    ),
    (
        "cpu_vs_concurrency",
        "CPU used",
        &[CPU],
        "CPUs that the whole system kept busy, the load generator left out; a flat line at its budget is a limit.",
    ),
    ("memory_vs_concurrency", "Memory", &[MEMORY], "Resident memory of all replicas of the system together."),
    (
        "efficiency_vs_concurrency",
        "Efficiency",
        &[PER_CPU, PER_GB],
        "Good requests a second for each CPU and each GB used: what the same hardware buys.",
    ),
];

/// All figures of a study.
pub fn figures(input: &ReportInput) -> Vec<Figure> {
    if input.study.is_stream() {
        return stream_figures::figures(input);
    }
    let of_faults = fault_figures::figures(input);
    if !of_faults.is_empty() && input.study.x.is_none() {
        return of_faults;
    }
    if !has_x(input) {
        return over_time(input);
    }
    let mut figures = of_faults;
    figures.push(crossover_analysis(input));
    figures.extend(OVER_X.iter().map(|(id, title, metrics, caption)| {
        let panels = metrics.iter().map(|metric| panel(input, metric)).collect();
        finish(input, id, &format!("{title} {}", against(input)), caption, panels, metrics)
    }));
    figures
}

/// Whether there is anything to compare: a single cell is shown over time instead.
pub(super) fn has_x(input: &ReportInput) -> bool {
    input.study.x.is_some() || input.study.curves.iter().map(|curve| curve.cells.len()).sum::<usize>() > 1
}

/// The figure that the report leads with.
pub fn lead(input: &ReportInput) -> &'static str {
    match has_x(input) {
        _ if input.study.is_stream() => stream_figures::lead(input),
        _ if !faults::arms(input).is_empty() => fault_figures::LEAD,
        true => "crossover_analysis",
        false => "latency_over_time",
    }
}

pub(super) fn against(input: &ReportInput) -> String {
    match input.study.x.as_deref() {
        Some(factor) if input.study.is_stream() => format!("against {}", stream_figures::factor(factor).0),
        Some("users") => "against concurrent users".to_owned(),
        Some("rate") => "against the offered rate".to_owned(),
        Some(factor) => format!("against {factor}"),
        None => String::new(),
    }
}

fn crossover_analysis(input: &ReportInput) -> Figure {
    let mut panels = vec![panel(input, &P95), panel(input, &GOODPUT)];
    for (panel, metric) in panels.iter_mut().zip(["latency_p95_ms", "goodput_rps"]) {
        let of_metric = input.study.crossovers.iter().filter(|crossover| same_metric(&crossover.metric, metric));
        for crossover in of_metric.clone() {
            let Some(at) = &crossover.at else { continue };
            let interval = Some((at.low, at.high));
            let level = number::digits(at.estimate);
            let label = match (&crossover.unknown, input.study.curves.len()) {
                (None, 0..=2) => format!("{} from {level} on", crossover.b),
                (None, _) => format!("{} over {} from {level} on", crossover.b, crossover.a),
                (Some(_), _) => format!("undecided, near {level}"),
            };
            panel.lines.push(Line { along: Along::X, at: at.estimate, interval, label, color: None });
        }
        let unknown = of_metric.clone().any(|crossover| crossover.unknown.is_some());
        let judged = of_metric.clone().next().is_some();
        if judged && of_metric.clone().all(|crossover| crossover.at.is_none()) && panel.words.is_none() {
            let several = of_metric.clone().any(|crossover| crossover.changes() > 1);
            let none = if several { "they change places more than once" } else { "no crossover in the tested range" };
            // The reason is long, and stands in the notes below.
            let words = if unknown { "crossover undecided, see below" } else { none };
            panel.words = Some(words.to_owned());
        }
    }
    let caption = match input.study.curves.len() {
        0 | 1 => input.study.answer.clone(),
        _ => "Which is better, and from where on? Left, lower is better; right, higher is better. Where two curves cross, the better choice changes; \
              the shaded stretch is the 95 % interval of the place."
            .to_owned(),
    };
    let title = format!("Latency and goodput {}", against(input));
    let mut figure = finish(input, "crossover_analysis", &title, &caption, panels, &[P95, GOODPUT]);
    // Those of the two panels; all are in the summary.
    let drawn = |metric: &str| ["latency_p95_ms", "goodput_rps"].iter().any(|key| same_metric(metric, key));
    let crossovers = input.study.crossovers.iter().filter(|crossover| drawn(&crossover.metric));
    let statements = crossovers.map(|crossover| crossover.statement.clone());
    let mut notes: Vec<String> = Vec::new();
    statements.for_each(|statement| {
        if !notes.contains(&statement) && !statement.is_empty() {
            notes.push(statement);
        }
    });
    notes.append(&mut figure.notes);
    figure.notes = notes;
    figure
}

fn same_metric(named: &str, key: &str) -> bool {
    named == key || key.starts_with(named)
}

pub(super) fn finish(
    input: &ReportInput,
    id: &str,
    title: &str,
    caption: &str,
    panels: Vec<Panel>,
    metrics: &[Metric],
) -> Figure {
    let mut notes = Vec::new();
    if is_simulated(input) {
        notes.push(SIMULATED.to_owned());
    }
    notes.extend(interval_note(input, metrics));
    notes.extend(hollow_note(&panels));
    notes.extend(guard_notes(input, metrics));
    notes.extend(metrics.iter().zip(&panels).filter_map(|(metric, panel)| far_limit(input, metric, panel)));
    notes.extend(null_notes(&panels));
    let title = if is_simulated(input) { format!("[simulated] {}", title.trim()) } else { title.trim().to_owned() };
    Figure { id: id.to_owned(), title, caption: caption.to_owned(), panels, stacked: false, notes }
}

/// What every figure of a simulated archive says.
pub const SIMULATED: &str = "Simulated: a model on a virtual clock, not a measurement.";

/// Whether nothing here was measured on a real system.
pub fn is_simulated(input: &ReportInput) -> bool {
    let deployment = serde_json::to_value(input.experiment.deployment);
    let said = |key: &str| {
        let value = input.environment.get(key);
        value.is_some_and(|value| value.as_bool() == Some(true) || value.as_str() == Some("simulated"))
    };
    said("simulated") || said("deployment") || deployment.is_ok_and(|kind| kind == "simulated")
}

fn interval_note(input: &ReportInput, metrics: &[Metric]) -> Option<String> {
    let cells = input.study.curves.iter().flat_map(|curve| &curve.cells);
    let (fewest, most) = cells.map(|cell| cell.valid).fold((usize::MAX, 0), |(a, b), n| (a.min(n), b.max(n)));
    match most {
        0 => None,
        1 if input.study.is_stream() => None,
        1 => Some("One trial a level: no interval can be given.".to_owned()),
        _ => {
            let trials = if fewest == most { most.to_string() } else { format!("{fewest} to {most}") };
            let has_durations = metrics.iter().any(|metric| metric.unit == "ms");
            let scale = match most >= 3 && has_durations {
                true => "; those of durations, with three trials or more, are on the log scale",
                false => "",
            };
            Some(format!("Bars: 95 % t-intervals of the mean over {trials} trials a level{scale}."))
        }
    }
}

fn hollow_note(panels: &[Panel]) -> Option<String> {
    let hollow = points(panels).any(|(_, point)| point.hollow.is_some());
    hollow.then(|| "Hollow: too few requests behind the percentile (their count stands beside it).".to_owned())
}

fn points(panels: &[Panel]) -> impl Iterator<Item = (&str, &Point)> {
    let curves = panels.iter().flat_map(|panel| &panel.curves);
    curves.flat_map(|curve| curve.points.iter().map(|point| (curve.label.as_str(), point)))
}

/// Gaps with the same reason in one sentence.
fn null_notes(panels: &[Panel]) -> Vec<String> {
    let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
    for (label, point) in points(panels) {
        let Some(reason) = &point.null_reason else { continue };
        let at = format!("{label} at {}", number::digits(point.x));
        match reasons.iter_mut().find(|(known, _)| known == reason) {
            Some((_, places)) if places.contains(&at) => {}
            Some((_, places)) => places.push(at),
            None => reasons.push((reason.clone(), vec![at])),
        }
    }
    reasons.into_iter().map(|(reason, places)| format!("Not measured: {} ({reason}).", places.join(", "))).collect()
}

/// The footnote mark of each kind of guard, the same in all figures of a report.
pub fn marks(input: &ReportInput) -> Vec<(String, &'static str)> {
    const MARKS: [&str; 8] = ["†", "‡", "§", "¶", "††", "‡‡", "§§", "¶¶"];
    let cells = input.study.curves.iter().flat_map(|curve| &curve.cells);
    let ids: BTreeSet<&str> = cells.flat_map(|cell| &cell.guards).map(|guard| guard.id.as_str()).collect();
    // A thin percentile has its own sign, the hollow marker; one trial has no bars.
    let ids = ids.into_iter().filter(|id| !matches!(*id, "too-few-ops" | "one-trial"));
    ids.zip(MARKS).map(|(id, mark)| (id.to_owned(), mark)).collect()
}

fn guard_notes(input: &ReportInput, metrics: &[Metric]) -> Vec<String> {
    let cells: Vec<&CellSummary> = input.study.curves.iter().flat_map(|curve| &curve.cells).collect();
    let of_mark = |(id, mark): (String, &'static str)| {
        let mut touching = cells
            .iter()
            .flat_map(|cell| &cell.guards)
            .filter(|guard| guard.id == id && metrics.iter().any(|metric| guards::touches(guard, metric.key)));
        let first = touching.next()?;
        Some(format!("{mark} {id}: {}", first.advice))
    };
    marks(input).into_iter().filter_map(of_mark).collect()
}

pub(super) fn panel(input: &ReportInput, metric: &Metric) -> Panel {
    let curves: Vec<FigureCurve> =
        input.study.curves.iter().enumerate().map(|(color, curve)| figure_curve(input, curve, color, metric)).collect();
    let words = no_data(&curves);
    Panel {
        x: x_axis(input),
        y: y_axis(metric, &curves),
        lines: lines(input, metric, &curves),
        curves,
        bands: Vec::new(),
        words,
    }
}

fn no_data(curves: &[FigureCurve]) -> Option<String> {
    let mut all = curves.iter().flat_map(|curve| &curve.points);
    let reason = all.clone().find_map(|point| point.null_reason.clone());
    (!all.any(|point| point.y.is_some()))
        .then(|| format!("not measured: {}", reason.unwrap_or_else(|| "no valid trial".to_owned())))
}

fn figure_curve(input: &ReportInput, curve: &Curve, color: usize, metric: &Metric) -> FigureCurve {
    let points = curve.cells.iter().map(|cell| point(input, cell, metric)).collect();
    FigureCurve { label: curve.label.clone(), color, points, style: Style::Marked }
}

fn point(input: &ReportInput, cell: &CellSummary, metric: &Metric) -> Point {
    let nothing = Estimate { null_reason: Some(absent(cell)), ..Estimate::default() };
    let estimate = cell.metrics.get(metric.key).unwrap_or(&nothing);
    let mean = estimate.mean.filter(|mean| mean.is_finite());
    let touching: BTreeSet<&str> =
        cell.guards.iter().filter(|guard| guards::touches(guard, metric.key)).map(|guard| guard.id.as_str()).collect();
    let marks = marks(input).into_iter().filter(|(id, _)| touching.contains(id.as_str()));
    Point {
        x: cell.x,
        y: mean,
        low: estimate.low.filter(|_| mean.is_some()),
        high: estimate.high.filter(|_| mean.is_some()),
        n: estimate.values.len(),
        hollow: estimate.thin.map(|count| format!("n={count}")),
        marks: marks.map(|(_, mark)| mark).collect::<Vec<_>>().join(" "),
        null_reason: mean.is_none().then(|| estimate.null_reason.clone().unwrap_or_else(|| absent(cell))),
    }
}

fn absent(cell: &CellSummary) -> String {
    if cell.valid == 0 { "no valid trial".to_owned() } else { "not recorded".to_owned() }
}

pub(super) fn x_axis(input: &ReportInput) -> Axis {
    let mut ticks: Vec<f64> =
        input.study.curves.iter().flat_map(|curve| &curve.cells).map(|cell| cell.x).filter(|x| x.is_finite()).collect();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    let (label, unit) = match input.study.x.as_deref() {
        Some(factor) if input.study.is_stream() => stream_figures::axis(factor),
        Some("users") => ("Concurrent users", ""),
        Some("rate") => ("Offered rate", "requests/s"),
        Some(factor) => (factor, ""),
        None => ("Level", ""),
    };
    let scale = x_scale(&ticks);
    Axis { label: label.to_owned(), unit: unit.to_owned(), scale, ticks, names: Vec::new(), from_zero: false }
}

fn x_scale(levels: &[f64]) -> Scale {
    match (levels.first(), levels.last()) {
        (Some(first), Some(last)) if *first > 0.0 && last / first >= 4.0 => Scale::Log,
        _ => Scale::Linear,
    }
}

fn y_axis(metric: &Metric, curves: &[FigureCurve]) -> Axis {
    let values = curves.iter().flat_map(|curve| &curve.points).filter_map(|point| point.y);
    let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), y| (low.min(y), high.max(y)));
    let wide = metric.unit == "ms" && low > 0.0 && high / low > 50.0;
    let scale = if wide { Scale::Log } else { Scale::Linear };
    Axis { scale, ..Axis::linear(metric.label, metric.unit) }
}

/// Objectives on this metric, where the axis need not be stretched far for them, and knees within the tested levels.
fn lines(input: &ReportInput, metric: &Metric, curves: &[FigureCurve]) -> Vec<Line> {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let highest = points().filter_map(|point| point.y).fold(0.0, f64::max);
    let is_near = |at: f64| at <= 4.0 * highest || metric.unit == "%";
    let limits = input.experiment.slo.iter().filter(|slo| slo.key == metric.key && is_near(slo.limit));
    let mut lines: Vec<Line> = limits
        .map(|slo| Line {
            along: Along::Y,
            at: slo.limit,
            interval: None,
            label: format!("objective: {slo}"),
            color: None,
        })
        .collect();
    if metric.key == THROUGHPUT.key {
        let (first, last) = points().fold((f64::INFINITY, 0.0_f64), |(a, b), point| (a.min(point.x), b.max(point.x)));
        let knees = input.study.curves.iter().enumerate().filter_map(knee_line);
        lines.extend(knees.filter(|line| (first..=last).contains(&line.at)));
    }
    lines
}

/// An objective that is too far above the data to be drawn is told.
fn far_limit(input: &ReportInput, metric: &Metric, panel: &Panel) -> Option<String> {
    let stated = input.experiment.slo.iter().find(|slo| slo.key == metric.key)?;
    let drawn = panel.lines.iter().any(|line| line.along == Along::Y);
    (!drawn).then(|| format!("Objective {}: far above what is drawn.", stated.text))
}

fn knee_line((color, curve): (usize, &Curve)) -> Option<Line> {
    let Fitted::Fit(knee) = &curve.knee else { return None };
    knee.saturated.then(|| Line {
        along: Along::X,
        at: knee.n.estimate,
        interval: Some((knee.n.low, knee.n.high)),
        label: format!("knee at {}", number::digits(knee.n.estimate)),
        color: Some(color),
    })
}

/// Throughput and latency by second, a curve a trial.
fn over_time(input: &ReportInput) -> Vec<Figure> {
    let trials: Vec<&TrialSummary> = input.trials.iter().filter(|trial| !trial.seconds.is_empty()).collect();
    if trials.is_empty() {
        return Vec::new();
    }
    let axis = || Axis { from_zero: true, ..Axis::linear("Time since the start of the schedule", "s") };
    let measured = trials.first().and_then(|trial| window(trial));
    let bands: Vec<Band> = measured.into_iter().collect();
    let series = |pick: &dyn Fn(&crate::measure::SecondSummary) -> Option<f64>| -> Vec<FigureCurve> {
        trials.iter().enumerate().map(|(color, trial)| time_curve(trial, color, pick)).collect()
    };
    // Archives written before this count was kept have those that are surely answered.
    let rate = series(&|second| Some(second.answered.max(second.ok + second.wrong) as f64));
    let latency = series(&|second| second.latency.p95);
    let figure = |id: &str, title: &str, caption: &str, label: &str, unit: &str, curves: Vec<FigureCurve>| {
        let words = no_data(&curves);
        let panel =
            Panel { x: axis(), y: Axis::linear(label, unit), curves, lines: vec![], bands: bands.clone(), words };
        Figure {
            id: id.to_owned(),
            title: if is_simulated(input) { format!("[simulated] {title}") } else { title.to_owned() },
            caption: caption.to_owned(),
            panels: vec![panel],
            stacked: false,
            notes: if is_simulated(input) { vec![SIMULATED.to_owned()] } else { vec![] },
        }
    };
    vec![
        figure(
            "latency_over_time",
            "Latency over time",
            "95th percentile of each second; a line that keeps rising is a queue that keeps growing.",
            "Latency p95",
            "ms",
            latency,
        ),
        figure(
            "throughput_over_time",
            "Throughput over time",
            "Requests answered in each second; within the measured stretch it should be level.",
            "Throughput",
            "requests/s",
            rate,
        ),
    ]
}

pub(super) fn window(trial: &TrialSummary) -> Option<Band> {
    let mut measured = trial.seconds.iter().filter(|second| second.measured).map(|second| second.second);
    let from = measured.next()?;
    let to = measured.next_back().unwrap_or(from);
    Some(Band { from: f64::from(from), to: f64::from(to + 1), label: "measured".to_owned(), color: None })
}

fn time_curve(
    trial: &TrialSummary,
    color: usize,
    pick: &dyn Fn(&crate::measure::SecondSummary) -> Option<f64>,
) -> FigureCurve {
    let points = trial.seconds.iter().map(|second| {
        let y = pick(second);
        let null_reason = y.is_none().then(|| "no request in this second".to_owned());
        Point { x: f64::from(second.second), y, n: 1, null_reason, ..Point::default() }
    });
    let label = if trial.valid { format!("trial {}", trial.index) } else { format!("trial {} (invalid)", trial.index) };
    FigureCurve { label, color, points: points.collect(), style: Style::Plain }
}

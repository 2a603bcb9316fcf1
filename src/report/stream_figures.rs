//! The figures of a stream: over time where there is one cell, over the factor where there are several, and the map of
//! what keeps up over two factors.
//!
//! The one rule: they speak of batches, records and cores, and the batch interval is drawn wherever a processing time is.

use std::collections::BTreeMap;

use kit::batch::Batch;

use crate::experiment::{Level, Levels};
use crate::measure::keeps_up;
use crate::measure::stream::{self, processing_ms, scheduling_delay_ms, span, total_delay_ms};
use crate::measure::{CellStream, CellSummary, StreamState, TrialSummary};
use crate::report::ReportInput;
use crate::report::figure::{Along, Axis, Band, Figure, FigureCurve, Line, Panel, Point, Scale, Style};
use crate::report::figures::{
    CPU, MEMORY, Metric, SIMULATED, against, finish, has_x, is_simulated, panel, window, x_axis,
};

const PROCESSING: Metric = Metric { key: "processing_avg_ms", label: "Processing time", unit: "ms" };
const GROWTH: Metric = Metric { key: stream::GROWTH, label: "Growth of the scheduling delay a batch", unit: "ms" };
const TOTAL: Metric = Metric { key: "total_delay_avg_ms", label: "Total delay", unit: "ms" };
const RECORD: Metric = Metric { key: "record_latency_p95_ms", label: "Latency of records p95", unit: "ms" };

/// One figure over x: id, title, metric, what to look at.
const OVER_X: [(&str, &str, Metric, &str); 6] = [
    (
        "processing_time",
        "Processing time",
        PROCESSING,
        "Mean time that a batch's jobs take. Below the batch interval a stream keeps up; above it every batch waits longer \
         than the one before.",
    ),
    (
        "delay_growth",
        "Growth of the scheduling delay",
        GROWTH,
        "By how much longer each batch waits than the one before: 0 where the stream keeps up, processing time less \
         interval where it falls behind.",
    ),
    (
        "total_delay",
        "Total delay",
        TOTAL,
        "From a batch's submission to the end of its last job, mean; where a stream falls behind it depends on how long was \
         measured.",
    ),
    (
        "record_latency",
        "Latency of records",
        RECORD,
        "From when a record was due at its source to the end of its batch: one in twenty waited longer than this.",
    ),
    ("cpu_used", "CPU used", CPU, "CPUs that the whole system kept busy, its source included."),
    ("memory_used", "Memory", MEMORY, "Resident memory of all replicas of the system together."),
];

/// Most batches that are drawn over time; of more, every n-th is.
const MOST_BATCHES: usize = 1_500;

/// All figures of a study of streams.
pub fn figures(input: &ReportInput) -> Vec<Figure> {
    if !has_x(input) {
        return over_time(input).into_iter().collect();
    }
    let mut figures: Vec<Figure> = stability_map(input).into_iter().collect();
    figures.extend(OVER_X.iter().filter_map(|row| over_x(input, row)));
    figures
}

/// The figure that the report leads with.
pub fn lead(input: &ReportInput) -> &'static str {
    match (has_x(input), two_factors(input)) {
        (false, _) => "batches_over_time",
        (true, Some(_)) => "stability_map",
        (true, None) => "processing_time",
    }
}

/// A factor in titles, and as label and unit of an axis.
pub fn factor(name: &str) -> (&str, &'static str, &'static str) {
    match name {
        "rate" => ("the offered rate", "Offered rate", "records/s"),
        "batch_interval_ms" => ("the batch interval", "Batch interval", "ms"),
        "cost_ms" => ("the cost of a record", "Cost of a record", "ms"),
        "cores" => ("cores", "Cores", ""),
        "partitions" => ("partitions", "Partitions", ""),
        _ => (name, "", ""),
    }
}

/// Label and unit of the axis of a factor.
pub fn axis(name: &str) -> (&str, &'static str) {
    match factor(name) {
        (name, "", unit) => (name, unit),
        (_, label, unit) => (label, unit),
    }
}

/// None where nobody measured it, such as the CPU time of a simulation.
fn over_x(input: &ReportInput, (id, title, metric, caption): &(&str, &str, Metric, &str)) -> Option<Figure> {
    let mut panel = panel(input, metric);
    if panel.curves.iter().flat_map(|curve| &curve.points).all(|point| point.y.is_none()) && *id != OVER_X[0].0 {
        return None;
    }
    match metric.key {
        "processing_avg_ms" => add_interval(input, &mut panel),
        stream::GROWTH => {
            // Around zero, where a logarithm has nothing to show.
            panel.y.scale = Scale::Linear;
            let label = "no growth".to_owned();
            panel.lines.push(Line { along: Along::Y, at: 0.0, interval: None, label, color: None });
        }
        _ => {}
    }
    let metric = Metric { ..*metric };
    let mut figure = finish(input, id, &format!("{title} {}", against(input)), caption, vec![panel], &[metric]);
    let within =
        figure.panels[0].curves.iter().flat_map(|curve| &curve.points).any(|point| point.n == 1 && point.low.is_some());
    if within {
        figure.notes.insert(0, "Bars: 95 % within the one trial, from the means of blocks of batches.".to_owned());
    }
    Some(figure)
}

/// The batch interval beside processing times: a line where all cells have the same, a curve where it is the factor.
fn add_interval(input: &ReportInput, panel: &mut Panel) {
    let mut cells: Vec<(f64, f64)> = streams(input).map(|(cell, stream)| (cell.x, stream.batch_interval_ms)).collect();
    cells.sort_by(|a, b| a.0.total_cmp(&b.0));
    cells.dedup();
    let Some((_, first)) = cells.first().copied() else { return };
    if cells.iter().all(|(_, interval)| *interval == first) {
        panel.lines.push(interval_line(first, 1.0));
        return;
    }
    if input.study.x.as_deref() == Some("batch_interval_ms") {
        let point = |(x, interval): (f64, f64)| Point { x, y: Some(interval), ..Point::default() };
        panel.curves.push(FigureCurve {
            label: "batch interval".to_owned(),
            color: GREY,
            points: cells.into_iter().map(point).collect(),
            style: Style::Plain,
        });
        // By factors the straight line would be bent.
        panel.x.scale = Scale::Linear;
    }
}

/// The last of the palette.
const GREY: usize = 6;

fn interval_line(interval_ms: f64, ms: f64) -> Line {
    let label = format!("batch interval {}", span(interval_ms));
    Line { along: Along::Y, at: interval_ms / ms, interval: None, label, color: None }
}

fn streams<'a>(input: &'a ReportInput) -> impl Iterator<Item = (&'a CellSummary, &'a CellStream)> {
    let cells = input.study.curves.iter().flat_map(|curve| &curve.cells);
    cells.filter_map(|cell| Some((cell, cell.stream.as_ref()?)))
}

/// The batches of every trial by batch time: input rate, scheduling delay, processing time, total delay.
fn over_time(input: &ReportInput) -> Option<Figure> {
    let trials: Vec<(&TrialSummary, Told)> =
        input.trials.iter().filter_map(|trial| Some((trial, Told::of(input, trial)?))).collect();
    let (first, told) = trials.first()?;
    let interval_ms = told.interval_ms;
    let longest = trials.iter().flat_map(|(_, told)| &told.batches).filter_map(total_delay_ms).fold(0.0, f64::max);
    let (ms, unit) = if longest.max(interval_ms) >= 1_000.0 { (1e3, "s") } else { (1.0, "ms") };
    let scaled = |of: fn(&Batch) -> Option<f64>| move |batch: &Batch| of(batch).map(|value| value / ms);
    let rate = |batch: &Batch| (interval_ms > 0.0).then(|| 1e3 * batch.records as f64 / interval_ms);
    // Where everything was measured, there is nothing to set apart.
    let times = || trials.iter().flat_map(|(_, told)| &told.batches).map(|batch| batch.time_ms / 1e3);
    let bands: Vec<Band> =
        window(first).into_iter().filter(|band| times().any(|at| at < band.from || at >= band.to)).collect();
    let panel = |label: &str, unit: &str, lines: Vec<Line>, of: &dyn Fn(&Batch) -> Option<f64>, absent: &str| {
        let curves: Vec<FigureCurve> =
            trials.iter().map(|(trial, told)| curve(trial, told, trials.len(), of, absent)).collect();
        let nothing = curves.iter().flat_map(|curve| &curve.points).all(|point| point.y.is_none());
        Panel {
            x: Axis::linear("Batch time, since the start of the schedule", "s"),
            y: Axis::linear(label, unit),
            curves,
            lines,
            bands: bands.clone(),
            words: nothing.then(|| format!("no batch {absent}")),
        }
    };
    let panels = vec![
        panel("Input rate", "records/s", vec![], &rate, "was due"),
        panel("Scheduling delay", unit, vec![], &scaled(scheduling_delay_ms), "started"),
        panel("Processing time", unit, vec![interval_line(interval_ms, ms)], &scaled(processing_ms), "ended"),
        panel("Total delay", unit, vec![], &scaled(total_delay_ms), "ended"),
    ];
    let title = "Batches over time";
    let mut notes: Vec<String> = is_simulated(input).then(|| SIMULATED.to_owned()).into_iter().collect();
    notes.extend(trials.iter().filter_map(|(trial, told)| told.note(trial)));
    let caption = "Where processing takes longer than the batch interval, every batch waits for the one before: the \
                   scheduling delay climbs, and the total delay with it. A gap is a batch that had not started or ended.";
    Some(Figure {
        id: "batches_over_time".to_owned(),
        title: if is_simulated(input) { format!("[simulated] {title}") } else { title.to_owned() },
        caption: caption.to_owned(),
        panels,
        stacked: false,
        notes,
    })
}

/// What a trial's engine told, ready to draw.
struct Told {
    interval_ms: f64,
    batches: Vec<Batch>,
    /// Every how many-th batch is there.
    every: usize,
}

impl Told {
    fn of(input: &ReportInput, trial: &TrialSummary) -> Option<Self> {
        let entries = input.journals.get(&trial.name)?;
        let interval_ms = stream::engine(entries)?.batch_interval_ms;
        let latest = stream::latest(entries);
        let every = latest.len().div_ceil(MOST_BATCHES).max(1);
        let batches: Vec<Batch> = latest.into_values().step_by(every).cloned().collect();
        (!batches.is_empty()).then_some(Self { interval_ms, batches, every })
    }

    fn note(&self, trial: &TrialSummary) -> Option<String> {
        (self.every > 1).then(|| format!("Of trial {} one batch in {} is drawn.", trial.index, self.every))
    }
}

/// `absent` is what a batch without a value had not: `started`, `ended`.
fn curve(
    trial: &TrialSummary,
    told: &Told,
    trials: usize,
    of: &dyn Fn(&Batch) -> Option<f64>,
    absent: &str,
) -> FigureCurve {
    let points = told.batches.iter().map(|batch| {
        let y = of(batch);
        let null_reason = y.is_none().then(|| format!("it had not {absent}"));
        Point { x: batch.time_ms / 1e3, y, n: 1, null_reason, ..Point::default() }
    });
    let invalid = if trial.valid { "" } else { " (invalid)" };
    let label = if trials == 1 { format!("batches{invalid}") } else { format!("trial {}{invalid}", trial.index) };
    let style = if told.batches.len() <= 24 && trials == 1 { Style::Marked } else { Style::Plain };
    FigureCurve { label, color: trial.index, points: points.collect(), style }
}

/// The two numeric factors of a study that varies no other: what stands on the x axis, and on the y axis. The rate is a
/// height, because the question is up to which rate.
fn two_factors(input: &ReportInput) -> Option<(String, String)> {
    let mut levels: BTreeMap<&str, Vec<&Level>> = BTreeMap::new();
    for (name, level) in input.study.curves.iter().flat_map(|curve| &curve.cells).flat_map(|cell| &cell.levels) {
        let known = levels.entry(name).or_default();
        if !known.contains(&level) {
            known.push(level);
        }
    }
    let varied: Vec<(&str, Vec<&Level>)> = levels.into_iter().filter(|(_, levels)| levels.len() > 1).collect();
    let [(one, _), (other, _)] = varied.as_slice() else { return None };
    if varied.iter().flat_map(|(_, levels)| levels).any(|level| level.as_f64().is_none()) {
        return None;
    }
    let x_is_one = *other == "rate" || (*one != "rate" && input.study.x.as_deref() == Some(*one));
    let (x, y) = if x_is_one { (one, other) } else { (other, one) };
    Some(((*x).to_owned(), (*y).to_owned()))
}

/// Each cell of two factors: filled where it keeps up, hollow where it falls behind, and the line that the model expects.
fn stability_map(input: &ReportInput) -> Option<Figure> {
    let (x, y) = two_factors(input)?;
    let place = |cell: &CellSummary| Some((cell.levels.get(&x)?.as_f64()?, cell.levels.get(&y)?.as_f64()?));
    let in_state = |wanted: StreamState| -> Vec<Point> {
        let state = |cell: &CellSummary, stream: &CellStream| match keeps_up::doubt(cell) {
            Some(_) => StreamState::Unknown,
            None => stream.state,
        };
        let cells = streams(input).filter(|(cell, stream)| state(cell, stream) == wanted);
        let point = |(cell, _): (&CellSummary, &CellStream)| {
            let (x, y) = place(cell)?;
            let hollow = (wanted == StreamState::FallsBehind).then(String::new);
            Some(Point { x, y: Some(y), n: cell.valid, hollow, ..Point::default() })
        };
        let mut points: Vec<Point> = cells.filter_map(point).collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        points
    };
    let dots = |label: &str, color: usize, state: StreamState| {
        let points = in_state(state);
        (!points.is_empty()).then(|| FigureCurve { label: label.to_owned(), color, points, style: Style::Dots })
    };
    let mut curves: Vec<FigureCurve> = [
        dots("stable", 0, StreamState::Stable),
        dots("falls behind", 1, StreamState::FallsBehind),
        dots("cannot be told", 3, StreamState::Unknown),
    ]
    .into_iter()
    .flatten()
    .collect();
    let expected = expected(input, &x, &y);
    let has_line = expected.is_some();
    curves.extend(expected);
    let mut ticks: Vec<f64> = streams(input).filter_map(|(cell, _)| place(cell)).map(|(x, _)| x).collect();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    let of_x = Axis { ticks, ..x_axis(input) };
    let ((label_x, unit_x), (label_y, unit_y)) = (axis(&x), axis(&y));
    let panel = Panel {
        x: Axis { label: label_x.to_owned(), unit: unit_x.to_owned(), scale: Scale::Linear, from_zero: false, ..of_x },
        y: Axis::linear(label_y, unit_y),
        curves,
        lines: Vec::new(),
        bands: Vec::new(),
        words: None,
    };
    let line = if has_line { " Below the line the model expects a stream to keep up." } else { "" };
    let caption = format!(
        "Filled: processing takes less than the interval, and the delay does not grow. Hollow: it falls behind.{line}"
    );
    let title = format!("What keeps up: {} and {}", lower(label_y), lower(label_x));
    let mut figure = finish(input, "stability_map", &title, &caption, vec![panel], &[GROWTH]);
    figure.notes.retain(|note| !note.starts_with("Hollow:") && !note.starts_with("Bars:"));
    Some(figure)
}

/// The highest rate that the model expects to be held, over the levels of the other factor. None where no factor is the
/// rate, or the model has no answer.
fn expected(input: &ReportInput, x: &str, y: &str) -> Option<FigureCurve> {
    let model = input.highest_stable_rate.filter(|_| y == "rate")?;
    let mut cells: Vec<(f64, Levels)> =
        streams(input).filter_map(|(cell, _)| Some((cell.levels.get(x)?.as_f64()?, cell.levels.clone()))).collect();
    cells.sort_by(|a, b| a.0.total_cmp(&b.0));
    cells.dedup_by(|a, b| a.0 == b.0);
    let rates = streams(input).filter_map(|(cell, _)| cell.levels.get(y)?.as_f64());
    let highest = rates.fold(0.0, f64::max);
    let point = |(x, levels): (f64, Levels)| {
        // Far above what was tried, the line would press everything else against the axis.
        let y = model(&levels).filter(|rate| rate.is_finite() && *rate <= 1.5 * highest);
        let null_reason =
            y.is_none().then(|| "the model expects it far above what was tried, or not at all".to_owned());
        Point { x, y, null_reason, ..Point::default() }
    };
    let points: Vec<Point> = cells.into_iter().map(point).collect();
    let label = "model: highest rate that is held".to_owned();
    points.iter().any(|point| point.y.is_some()).then_some(FigureCurve {
        label,
        color: GREY,
        points,
        style: Style::Plain,
    })
}

fn lower(label: &str) -> String {
    let mut letters = label.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

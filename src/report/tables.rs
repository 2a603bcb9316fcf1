//! The tables of a report as data, so that every format shows the same rows.
//!
//! The one rule: a cell of a table is text, already rounded and with its marks; formats only lay it out and escape it.

use std::collections::BTreeMap;

use crate::measure::keeps_up;
use crate::measure::stream::{self, span};
use crate::measure::{
    CellSummary, Curve, Estimate, Fitted, Guard, Interval, Knee, StreamSummary, TrialSummary, Usl, guards,
};
use crate::report::figures::marks;
use crate::report::{ReportInput, number};

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// Names of its columns.
    pub head: Vec<String>,
    /// Its rows.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// A table of texts.
    pub(super) fn new(caption: &str, head: &[&str], rows: Vec<Vec<String>>) -> Self {
        Self { caption: caption.to_owned(), head: head.iter().map(|name| (*name).to_owned()).collect(), rows }
    }
}

/// The columns of the table of cells: heading, key of the metric, unit.
const CELL_COLUMNS: &[(&str, &str, &str)] = &[
    ("throughput", "throughput_rps", "rps"),
    ("p50", "latency_p50_ms", "ms"),
    ("p95", "latency_p95_ms", "ms"),
    ("p99", "latency_p99_ms", "ms"),
    ("wait p95", "wait_p95_ms", "ms"),
    ("work p95", "work_p95_ms", "ms"),
    ("errors", "error_rate", "%"),
    ("CPU", "total_cpu_units", "CPUs"),
    ("memory", "total_mem_gb", "GB"),
];

/// The columns of a stream.
const STREAM_COLUMNS: &[(&str, &str, &str)] = &[
    ("input", "input_rate_per_s", "records/s"),
    ("processing", "processing_avg_ms", "ms"),
    ("delay", "scheduling_delay_avg_ms", "ms"),
    ("total", "total_delay_avg_ms", "ms"),
    ("growth a batch", stream::GROWTH, "ms"),
    ("record p95", "record_latency_p95_ms", "ms"),
    ("CPU", "total_cpu_units", "CPUs"),
];

/// The columns that the study has: wait and work stand beside the total only where a study keeps them apart.
fn cell_columns(input: &ReportInput) -> Vec<&'static (&'static str, &'static str, &'static str)> {
    let cells = || input.study.curves.iter().flat_map(|curve| &curve.cells);
    if input.study.is_stream() {
        let measured = |key: &str| cells().any(|cell| cell.metrics.get(key).is_some_and(|e| e.mean.is_some()));
        let optional = |key: &str| matches!(key, "record_latency_p95_ms" | "total_cpu_units");
        return STREAM_COLUMNS.iter().filter(|(_, key, ..)| !optional(key) || measured(key)).collect();
    }
    let has =
        |key: &str| !matches!(key, "wait_p95_ms" | "work_p95_ms") || cells().any(|cell| cell.metrics.contains_key(key));
    CELL_COLUMNS.iter().filter(|(_, key, ..)| has(key)).collect()
}

/// Every cell with its intervals, hollow counts and guard marks.
pub fn cells(input: &ReportInput, intervals: bool) -> Table {
    let marks = marks(input);
    let columns = cell_columns(input);
    let (is_stream, has_x) = (input.study.is_stream(), input.study.x.is_some());
    let mut rows = Vec::new();
    for curve in &input.study.curves {
        for cell in &curve.cells {
            let trials = match cell.invalid {
                0 => cell.valid.to_string(),
                invalid => format!("{} ({invalid} invalid)", cell.valid),
            };
            let mut row = vec![curve.label.clone()];
            // Where there is no axis, there is no level to show; a stream always has an interval.
            row.extend(has_x.then(|| number::digits(cell.x)));
            row.push(trials);
            row.extend(is_stream.then(|| interval_of(cell)));
            for (_, key, unit) in &columns {
                let estimate = cell.metrics.get(*key);
                let in_seconds = estimate.filter(|_| is_stream && *unit == "ms").and_then(seconds);
                let (shown, unit) = match &in_seconds {
                    Some(seconds) => (Some(seconds), "s"),
                    None => (estimate, *unit),
                };
                let mut text = match (intervals, shown.and_then(|shown| shown.mean)) {
                    (false, Some(mean)) => number::interval(mean, None, None, unit),
                    _ => number::estimate(shown, unit),
                };
                if let Some(count) = estimate.and_then(|estimate| estimate.thin) {
                    text.push_str(&format!(" ○ n={count}"));
                }
                for (id, mark) in &marks {
                    let touched = |guard: &Guard| guard.id == *id && guards::touches(guard, key);
                    if estimate.is_some_and(|estimate| estimate.mean.is_some()) && cell.guards.iter().any(touched) {
                        text.push_str(&format!(" {mark}"));
                    }
                }
                row.push(text);
            }
            row.extend(is_stream.then(|| state_of(cell)));
            rows.push(row);
        }
    }
    let x = input.study.x.clone().unwrap_or_default();
    let mut head = vec!["curve"];
    head.extend(has_x.then_some(x.as_str()));
    head.push("trials");
    head.extend(is_stream.then_some("interval"));
    head.extend(columns.iter().map(|(name, ..)| *name));
    head.extend(is_stream.then_some("state"));
    Table::new("Every level: mean over trials, with its 95 % interval", &head, rows)
}

/// Of a stream a second and more is in seconds, as its interval is.
fn seconds(estimate: &Estimate) -> Option<Estimate> {
    let scaled = |value: Option<f64>| value.map(|value| value / 1e3);
    estimate.mean.filter(|mean| mean.abs() >= 1e3)?;
    Some(Estimate {
        mean: scaled(estimate.mean),
        low: scaled(estimate.low),
        high: scaled(estimate.high),
        ..Estimate::default()
    })
}

fn interval_of(cell: &CellSummary) -> String {
    cell.stream.as_ref().map_or_else(|| number::NONE.to_owned(), |stream| span(stream.batch_interval_ms))
}

/// `stable`, or `unknown (2 stable, 1 falls behind)` where trials differ; with the mark of a guard that leaves it open.
fn state_of(cell: &CellSummary) -> String {
    let Some(stream) = &cell.stream else { return number::NONE.to_owned() };
    let counts = [(stream.stable, "stable"), (stream.falls_behind, "falls behind"), (stream.unknown, "unknown")];
    let differ: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, state)| format!("{count} {state}")).collect();
    let differ = if differ.len() > 1 { format!(" ({})", differ.join(", ")) } else { String::new() };
    let doubt = keeps_up::doubt(cell);
    let word = if differ.is_empty() && doubt.is_none() { stream.state.words() } else { "unknown" };
    let doubt = doubt.map_or_else(String::new, |guard| format!(" ({})", guard.id));
    format!("{word}{differ}{doubt}")
}

/// Each trial of a stream in one column; without rows where there are none, or too many to stand side by side.
pub fn stream(input: &ReportInput) -> Table {
    const MOST: usize = 6;
    let trials: Vec<(&str, &StreamSummary)> =
        input.trials.iter().filter_map(|trial| Some((trial.name.as_str(), trial.stream.as_ref()?))).collect();
    if trials.is_empty() || trials.len() > MOST {
        return Table::new("Each stream", &[], Vec::new());
    }
    type Cell = fn(&StreamSummary) -> String;
    fn ms(value: Option<f64>) -> String {
        value.map_or_else(|| number::NONE.to_owned(), span)
    }
    let rows: [(&str, Cell); 14] = [
        ("state", |s| s.state.words().to_owned()),
        ("batch interval", |s| span(s.batch_interval_ms)),
        ("cores (receivers hold, slots left)", |s| format!("{} ({}, {})", s.cores, s.receivers, s.slots)),
        ("partitions", |s| s.partitions.to_string()),
        ("batches completed, failed, processing, queued", |s| {
            let batches = s.batches;
            format!("{}, {}, {}, {}", batches.completed, batches.failed, batches.processing, batches.queued)
        }),
        ("records", |s| number::count(s.records)),
        ("input rate, mean", |s| {
            s.avg_input_rate_per_s.map_or_else(|| number::NONE.to_owned(), |rate| number::with_unit(rate, "records/s"))
        }),
        ("scheduling delay, mean / largest / last", |s| {
            let each = [s.avg_scheduling_delay_ms, s.max_scheduling_delay_ms, s.last_scheduling_delay_ms];
            each.map(ms).join(" / ")
        }),
        ("processing time, mean (model)", |s| {
            format!("{} ({})", ms(s.avg_processing_time_ms), ms(s.predicted_processing_ms))
        }),
        ("total delay, mean", |s| ms(s.avg_total_delay_ms)),
        ("lateness of submission, mean", |s| ms(s.avg_lateness_ms)),
        ("growth of the delay a batch (95 % interval)", |s| {
            s.delay_growth_ms_per_batch.map_or_else(
                || number::NONE.to_owned(),
                |growth| number::interval(growth.estimate, Some(growth.low), Some(growth.high), "ms"),
            )
        }),
        ("most batches waiting at a time", |s| s.most_queued.to_string()),
        ("batches over the interval in a row", |s| s.over_interval_in_a_row.to_string()),
    ];
    let row = |(name, cell): &(&str, Cell)| {
        let cells = trials.iter().map(|(_, stream)| cell(stream));
        std::iter::once((*name).to_owned()).chain(cells).collect()
    };
    let head: Vec<&str> = std::iter::once("what").chain(trials.iter().map(|(name, _)| *name)).collect();
    Table::new("Each stream, as it stood at the end of the measured window", &head, rows.iter().map(row).collect())
}

/// Every trial, valid or not.
pub fn trials(input: &ReportInput) -> Table {
    let row = |trial: &TrialSummary| {
        vec![
            trial.name.clone(),
            trial.invalid.clone().map_or_else(
                || if trial.valid { "valid".to_owned() } else { "invalid".to_owned() },
                |why| format!("invalid: {why}"),
            ),
            trial.seed.to_string(),
            number::count(trial.total_requests),
            number::count(trial.failed),
            number::count(trial.unknown),
            number::count(trial.wrong),
        ]
    };
    let operations = if input.study.is_stream() { "batches" } else { "requests" };
    let head = ["trial", "counts?", "seed", operations, "failed", "unknown", "wrong"];
    Table::new("Every trial, in the order of running", &head, input.trials.iter().map(row).collect())
}

/// Per-operation numbers of each curve at its highest level, from its first valid trial there.
pub fn kinds(input: &ReportInput) -> Table {
    let mut rows = Vec::new();
    for curve in &input.study.curves {
        let Some(trial) = highest(input, curve) else { continue };
        for kind in &trial.kinds {
            let ms = |value: Option<f64>| value.map_or_else(|| number::NONE.to_owned(), number::milliseconds);
            let errors: Vec<String> = kind.errors.iter().map(|(reason, count)| format!("{count} × {reason}")).collect();
            rows.push(vec![
                curve.label.clone(),
                trial.name.clone(),
                kind.kind.clone(),
                number::count(kind.requests),
                number::count(kind.failed + kind.unknown + kind.wrong),
                ms(kind.latency.p50),
                ms(kind.latency.p95),
                ms(kind.latency.p99),
                if errors.is_empty() { number::NONE.to_owned() } else { errors.join("; ") },
            ]);
        }
    }
    let count = if input.study.is_stream() { "count" } else { "requests" };
    let head = ["curve", "trial", "operation", count, "not good", "p50", "p95", "p99", "reasons"];
    Table::new("Every operation, one trial of each curve at its highest level", &head, rows)
}

fn highest<'a>(input: &ReportInput<'a>, curve: &Curve) -> Option<&'a TrialSummary> {
    let of_cell =
        |levels: &crate::experiment::Levels| input.trials.iter().find(|trial| trial.valid && trial.levels == *levels);
    curve.cells.iter().rev().find_map(|cell| of_cell(&cell.levels))
}

/// What a search found of each curve; without rows where there was none.
pub fn search(input: &ReportInput) -> Table {
    let Some(search) = &input.study.search else { return Table::new("Search", &[], Vec::new()) };
    let level = |level: Option<i64>| level.map_or_else(|| number::NONE.to_owned(), |level| level.to_string());
    let undecided = |undecided: &[(i64, String)]| {
        let each: Vec<String> = undecided.iter().map(|(level, why)| format!("{level}: {why}")).collect();
        if each.is_empty() { number::NONE.to_owned() } else { each.join("; ") }
    };
    let rows = search.brackets.iter().map(|bracket| {
        vec![bracket.label.clone(), level(bracket.pass), level(bracket.fail), undecided(&bracket.undecided)]
    });
    let caption = format!("What the search over {} found", search.factor);
    Table::new(&caption, &["curve", "last that passed", "first that failed", "undecided"], rows.collect())
}

/// What the fits say of each curve, in words; without rows for streams, which have no fits.
pub fn scaling(input: &ReportInput) -> Table {
    if input.study.is_stream() {
        return Table::new("How each curve scales", &[], Vec::new());
    }
    let rows = input.study.curves.iter().map(|curve| vec![curve.label.clone(), knee(&curve.knee), usl(&curve.usl)]);
    Table::new(
        "How each curve scales",
        &["curve", "capacity", "universal scalability law (describes, does not extrapolate)"],
        rows.collect(),
    )
}

fn range(interval: &Interval) -> String {
    let Interval { estimate, low, high } = interval;
    number::interval(*estimate, Some(*low), Some(*high), "")
}

fn knee(knee: &Fitted<Knee>) -> String {
    match knee {
        Fitted::Fit(knee) if knee.saturated => {
            format!("≈ {} rps, reached at N* = {}", range(&knee.capacity), range(&knee.n))
        }
        Fitted::Fit(_) => "no saturation observed: the capacity lies above what was tested".to_owned(),
        Fitted::None(why) => format!("not fitted: {why}"),
    }
}

fn usl(usl: &Fitted<Usl>) -> String {
    let usl = match usl {
        Fitted::Fit(usl) => usl,
        Fitted::None(why) => return format!("not fitted: {why}"),
    };
    let peak = match (&usl.n_max, usl.kappa_supported) {
        (Some(n_max), true) => format!("peak at N = {}", range(n_max)),
        _ => "no peak supported by the data".to_owned(),
    };
    format!(
        "λ = {} rps, σ = {} (contention), κ = {} (coherency); {peak}",
        range(&usl.lambda),
        range(&usl.sigma),
        range(&usl.kappa)
    )
}

/// A kind of guard with every place where it was raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardGroup {
    /// Its kind.
    pub id: String,
    /// Its footnote mark; empty where figures show it in another way.
    pub mark: String,
    /// What to do about it.
    pub advice: String,
    /// The numbers it touches.
    pub touches: Vec<String>,
    /// Where and what: `000_monolith_u10_r0: …`.
    pub seen: Vec<String>,
}

/// Guards of the study, its cells and its trials, those of one kind and advice together.
pub fn guards(input: &ReportInput) -> Vec<GuardGroup> {
    let marks: BTreeMap<String, &str> = marks(input).into_iter().collect();
    let cells = input.study.curves.iter().flat_map(|curve| &curve.cells).flat_map(|cell| &cell.guards);
    let trials = input.trials.iter().flat_map(|trial| &trial.guards);
    let mut groups: Vec<GuardGroup> = Vec::new();
    for guard in input.study.guards.iter().chain(cells).chain(trials) {
        let known = groups.iter_mut().find(|group| group.id == guard.id && group.advice == guard.advice);
        let group = match known {
            Some(group) => group,
            None => {
                groups.push(GuardGroup {
                    id: guard.id.clone(),
                    mark: marks.get(&guard.id).copied().unwrap_or_default().to_owned(),
                    advice: guard.advice.clone(),
                    touches: Vec::new(),
                    seen: Vec::new(),
                });
                let last = groups.len() - 1;
                &mut groups[last]
            }
        };
        for touched in &guard.touches {
            if !group.touches.contains(touched) {
                group.touches.push(touched.clone());
            }
        }
        let seen = if guard.at.is_empty() { guard.what.clone() } else { format!("{}: {}", guard.at, guard.what) };
        if !group.seen.contains(&seen) {
            group.seen.push(seen);
        }
    }
    groups
}

/// Machine, version and command line, one row a key.
pub fn environment(input: &ReportInput) -> Table {
    let shown = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let entries = input.environment.as_object().into_iter().flatten();
    let rows = entries.map(|(key, value)| vec![key.replace('_', " "), shown(value)]);
    Table::new("Where and how this was measured", &["what", "value"], rows.collect())
}

/// The verdict: its word and its reason.
pub fn verdict(input: &ReportInput) -> (String, String) {
    let text = |key: &str| {
        input.verdict.get(key).and_then(|value| match value {
            serde_json::Value::String(text) => Some(text.clone()),
            serde_json::Value::Array(items) => {
                let items: Vec<String> =
                    items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect();
                (!items.is_empty()).then(|| items.join("; "))
            }
            _ => None,
        })
    };
    let word = text("verdict").unwrap_or_else(|| "unknown".to_owned());
    let (which, why) = (text("which"), text("why"));
    // A reason that names the objectives need not be led by them.
    let which = which.filter(|which| !why.as_ref().is_some_and(|why| why.contains(which.as_str())));
    let reasons: Vec<String> = [which, why].into_iter().flatten().filter(|part| !part.is_empty()).collect();
    (word, reasons.join(": "))
}

/// A sentence when trials are missing.
pub fn incomplete(input: &ReportInput) -> Option<String> {
    (input.trials.len() < input.planned).then(|| {
        format!(
            "Incomplete: {} of {} planned trials are final. Go on with `scalelab run --resume DIR`.",
            input.trials.len(),
            input.planned
        )
    })
}

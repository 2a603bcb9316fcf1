//! Two archives, cell by cell: what changed, by how much, and how sure that is. Pure.
//!
//! One rule: a change is called only when its p-value, corrected for the number of cells looked at, says so; anything
//! else is inconclusive, with the smallest change that would have been seen. Whether the second archive as a whole is
//! worse is asked of all cells and metrics together, so that chance alone says so in at most one of twenty comparisons.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::experiment::Levels;
use crate::measure::{CellSummary, Interval, TrialSummary, guards, stats, stream, study};
use crate::verdict::three;

/// A change below this share is not worth a word.
pub const LEAST_EFFECT: f64 = 0.01;

/// The metrics compared: key, name in tables, and whether more is better. What is used says nothing without the work that
/// was done with it, so it is shown, and the work for each of it is judged.
const METRICS: [(&str, &str, Option<bool>); 10] = [
    ("goodput_rps", "goodput /s", Some(true)),
    ("latency_p50_ms", "p50 ms", Some(false)),
    ("latency_p95_ms", "p95 ms", Some(false)),
    ("latency_p99_ms", "p99 ms", Some(false)),
    ("latency_avg_ms", "mean ms", Some(false)),
    ("error_rate", "errors %", Some(false)),
    ("rps_per_cpu_unit", "goodput /s and CPU", Some(true)),
    ("rps_per_gb_mem", "goodput /s and GB", Some(true)),
    ("total_cpu_units", "CPUs", None),
    ("total_mem_gb", "memory GB", None),
];

/// The same for streams.
const OF_STREAMS: [(&str, &str, Option<bool>); 7] = [
    ("processing_avg_ms", "processing ms", Some(false)),
    (stream::GROWTH, "growth ms/batch", Some(false)),
    ("scheduling_delay_avg_ms", "delay ms", Some(false)),
    ("total_delay_avg_ms", "total delay ms", Some(false)),
    ("record_latency_p95_ms", "record p95 ms", Some(false)),
    ("total_cpu_units", "CPUs", None),
    ("total_mem_gb", "memory GB", None),
];

/// What became of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It is better, surely.
    Improved,
    /// It is worse, surely.
    Regressed,
    /// Neither can be said.
    Inconclusive,
    /// Neither is asked: more of it is neither better nor worse by itself.
    NotJudged,
}

/// One number of one cell in both archives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The cell: its levels in words.
    pub cell: String,
    /// The cell's levels.
    pub levels: Levels,
    /// The key of the number.
    pub metric: String,
    /// Mean over the trials of the first archive.
    pub a: Option<f64>,
    /// Mean over the trials of the second archive.
    pub b: Option<f64>,
    /// b/a with its 95 % interval.
    pub ratio: Option<Interval>,
    /// Two-sided p-value, corrected over the cells of this metric (Holm 1979).
    pub p: Option<f64>,
    /// The same, corrected over all cells and metrics that could be tested.
    #[serde(default)]
    pub p_of_all: Option<f64>,
    /// What became of it.
    pub change: Change,
    /// The smallest relative change that these trials would have shown four times in five (two-sided, 5 %).
    pub detectable: Option<f64>,
    /// Why nothing can be said, where it is not the noise.
    pub why: Option<String>,
}

/// Two archives compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The smallest relative change that counts.
    pub least_effect: f64,
    /// By cell and metric.
    pub rows: Vec<Row>,
    /// Cells of the first archive alone.
    pub only_a: Vec<String>,
    /// Cells of the second archive alone.
    pub only_b: Vec<String>,
}

/// Compares with the default least effect of 1 %.
pub fn compare(a: &[TrialSummary], b: &[TrialSummary]) -> Comparison {
    compare_with(a, b, LEAST_EFFECT)
}

/// Compares the cells that both have. Ratios of means with Welch's interval on the log scale; a change counts when its
/// corrected p-value is below 5 %, its interval leaves out 1, and it is at least `least_effect` (a share).
pub fn compare_with(a: &[TrialSummary], b: &[TrialSummary], least_effect: f64) -> Comparison {
    let (cells_a, cells_b) = (cells(a), cells(b));
    let missing = |from: &[CellSummary], other: &[CellSummary]| -> Vec<String> {
        let alone = |cell: &&CellSummary| other.iter().all(|there| there.levels != cell.levels);
        from.iter().filter(alone).map(|cell| words(&cell.levels)).collect()
    };
    let both = || cells_a.iter().filter_map(|a| Some((a, cells_b.iter().find(|b| b.levels == a.levels)?)));
    let mut rows = Vec::new();
    let is_stream = cells_a.iter().chain(&cells_b).any(|cell| cell.stream.is_some());
    let metrics: &[(&str, &str, Option<bool>)] = if is_stream { &OF_STREAMS } else { &METRICS };
    for &(key, _, more_is_better) in metrics {
        let mut of_metric: Vec<Row> = both().map(|(a, b)| row(key, a, b)).collect();
        let Some(more_is_better) = more_is_better else {
            rows.extend(of_metric.into_iter().map(|row| Row { change: Change::NotJudged, p: None, ..row }));
            continue;
        };
        let corrected = holm(&of_metric.iter().map(|row| row.p).collect::<Vec<_>>());
        for ((row, corrected), (cell, _)) in of_metric.iter_mut().zip(corrected).zip(both()) {
            // The one by itself, until all rows are there.
            row.p_of_all = row.p;
            row.p = corrected;
            judge(row, more_is_better, least_effect, scale(key, cell));
        }
        rows.extend(of_metric);
    }
    let of_all = holm(&rows.iter().map(|row| row.p_of_all).collect::<Vec<_>>());
    rows.iter_mut().zip(of_all).for_each(|(row, corrected)| row.p_of_all = corrected);
    Comparison { least_effect, rows, only_a: missing(&cells_a, &cells_b), only_b: missing(&cells_b, &cells_a) }
}

fn cells(trials: &[TrialSummary]) -> Vec<CellSummary> {
    let mut groups: Vec<Vec<&TrialSummary>> = Vec::new();
    for trial in trials {
        match groups.iter_mut().find(|group| group[0].levels == trial.levels) {
            Some(group) => group.push(trial),
            None => groups.push(vec![trial]),
        }
    }
    groups.sort_by(|a, b| a[0].levels.partial_cmp(&b[0].levels).unwrap_or(std::cmp::Ordering::Equal));
    groups.iter().map(|group| study::cell(group, 0.0, &words(&group[0].levels))).collect()
}

fn words(levels: &Levels) -> String {
    let each: Vec<String> = levels.iter().map(|(name, level)| format!("{name}={level}")).collect();
    if each.is_empty() { "all".to_owned() } else { each.join(" ") }
}

fn row(key: &str, a: &CellSummary, b: &CellSummary) -> Row {
    let side = |cell: &CellSummary| cell.metrics.get(key).cloned().unwrap_or_default();
    let (one, other) = (side(a), side(b));
    let enough = one.mean.is_some() && other.mean.is_some();
    // A growth around zero has no ratio that means anything.
    let log = if enough && key != stream::GROWTH { stats::welch_log_ratio(&one.values, &other.values) } else { None };
    let ratio = log.map(|log| Interval { estimate: log.log.exp(), low: log.low().exp(), high: log.high().exp() });
    let touched = a.guards.iter().chain(&b.guards).find(|guard| guards::touches(guard, key));
    let few = one.values.len().min(other.values.len()) < 2;
    let why = match (enough, few, touched) {
        (false, ..) => {
            one.null_reason.clone().or_else(|| other.null_reason.clone()).or(Some("not measured".to_owned()))
        }
        (_, true, _) => Some("it needs two valid trials on each side".to_owned()),
        (.., Some(guard)) => Some(guard.id.clone()),
        _ => None,
    };
    let detectable =
        log.map(|log| (log.se * (stats::t_quantile(0.975, log.df) + stats::t_quantile(0.80, log.df))).exp() - 1.0);
    // A rate that is zero on one side has no ratio; then the difference is tested. What cannot be called is no test.
    let p = || log.map_or_else(|| stats::welch_p(&one.values, &other.values), |log| Some(log.p_value()));
    let p = if why.is_none() { p() } else { None };
    Row {
        cell: words(&a.levels),
        levels: a.levels.clone(),
        metric: key.to_owned(),
        a: one.mean,
        b: other.mean,
        ratio,
        p,
        p_of_all: None,
        change: Change::Inconclusive,
        detectable,
        why,
    }
}

/// Holm's step-down correction of the p-values that are there.
fn holm(values: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut order: Vec<(usize, f64)> =
        values.iter().enumerate().filter_map(|(place, p)| Some((place, (*p)?))).collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut corrected = vec![None; values.len()];
    let mut floor = 0.0;
    let count = order.len();
    for (rank, (place, p)) in order.into_iter().enumerate() {
        floor = f64::max(floor, p * (count - rank) as f64).min(1.0);
        corrected[place] = Some(floor);
    }
    corrected
}

/// What a difference without a ratio is a share of, where there is such a thing: a growth is one of the batch interval.
fn scale(key: &str, cell: &CellSummary) -> Option<f64> {
    let interval_ms = || cell.stream.as_ref().map(|stream| stream.batch_interval_ms);
    if key == stream::GROWTH { interval_ms() } else { None }
}

fn judge(row: &mut Row, more_is_better: bool, least_effect: f64, scale: Option<f64>) {
    let (Some(a), Some(b), Some(p), None) = (row.a, row.b, row.p, &row.why) else { return };
    let apart = row.ratio.is_none_or(|ratio| ratio.low > 1.0 || ratio.high < 1.0);
    let large = match (row.ratio, scale) {
        (Some(ratio), _) => (ratio.estimate - 1.0).abs() >= least_effect,
        (None, Some(scale)) => (b - a).abs() >= least_effect * scale,
        (None, None) => true,
    };
    if p < SURE && apart && large {
        row.change = if (b > a) == more_is_better { Change::Improved } else { Change::Regressed };
    }
}

/// A p-value below this is sure.
const SURE: f64 = 0.05;

impl Comparison {
    /// Whether any number is surely worse, at 5 % over all cells and metrics together: a gate that looks at many numbers
    /// must not fall shut by the chance of one.
    pub fn regressed(&self) -> bool {
        self.rows.iter().any(|row| row.change == Change::Regressed && among_all(row))
    }

    /// A table in plain text, and below it what only one archive has.
    pub fn table(&self) -> String {
        let head = ["cell", "metric", "A", "B", "B/A", "95 % interval", "change"].map(str::to_owned);
        let mut lines = vec![head];
        lines.extend(self.rows.iter().map(line));
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..7).map(width).collect();
        let mut text = String::new();
        for line in &lines {
            let padded = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            let _ = writeln!(text, "{}", padded.collect::<Vec<_>>().join("  ").trim_end());
        }
        for (which, cells) in [("A", &self.only_a), ("B", &self.only_b)] {
            cells.iter().for_each(|cell| {
                let _ = writeln!(text, "only in {which}: {cell}");
            });
        }
        text
    }
}

/// What is said of a change that the gate does not count.
const ONE_OF_MANY: &str = " (not sure among so many numbers)";

/// Whether a change is sure even among all numbers that were compared.
fn among_all(row: &Row) -> bool {
    row.p_of_all.is_some_and(|p| p < SURE)
}

fn line(row: &Row) -> [String; 7] {
    let shown = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), three);
    let metric = METRICS
        .iter()
        .chain(&OF_STREAMS)
        .find(|(key, ..)| *key == row.metric)
        .map_or(row.metric.as_str(), |(_, name, _)| name);
    let change = match (row.change, &row.why, row.detectable) {
        (Change::Improved, ..) => format!("improved{}", if among_all(row) { "" } else { ONE_OF_MANY }),
        (Change::Regressed, ..) => format!("regressed{}", if among_all(row) { "" } else { ONE_OF_MANY }),
        (Change::NotJudged, ..) => "–".to_owned(),
        (Change::Inconclusive, Some(why), _) => format!("inconclusive: {why}"),
        (Change::Inconclusive, None, Some(share)) => format!("inconclusive (would show {} %)", three(100.0 * share)),
        (Change::Inconclusive, None, None) => "inconclusive".to_owned(),
    };
    let interval = row.ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{:.3}–{:.3}", ratio.low, ratio.high));
    [
        row.cell.clone(),
        metric.to_owned(),
        shown(row.a),
        shown(row.b),
        row.ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{:.3}", ratio.estimate)),
        interval,
        change,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::samples::{Made, trial};

    fn trials(users: i64, p95: [f64; 3]) -> Vec<TrialSummary> {
        p95.iter().map(|&p95| trial(&Made { users, p95, ..Made::default() })).collect()
    }

    fn of<'a>(comparison: &'a Comparison, metric: &str) -> &'a Row {
        comparison.rows.iter().find(|row| row.metric == metric).unwrap()
    }

    #[test]
    fn a_slower_archive_has_regressed_and_a_faster_one_improved() {
        let (fast, slow) = (trials(10, [20.0, 20.2, 19.8]), trials(10, [24.0, 24.3, 23.9]));
        assert_eq!(of(&compare(&fast, &slow), "latency_p95_ms").change, Change::Regressed);
        assert_eq!(of(&compare(&slow, &fast), "latency_p95_ms").change, Change::Improved);
        assert!(compare(&fast, &slow).regressed());
    }

    #[test]
    fn an_archive_that_does_more_with_more_cpu_has_not_regressed() {
        let archive = |goodput: f64, cpus: f64, shake: [f64; 3]| -> Vec<TrialSummary> {
            let one = |shake: f64| {
                let mut made = trial(&Made { goodput: goodput * shake, ..Made::default() });
                (made.total_cpu_units, made.rps_per_cpu_unit) = (Some(cpus * shake), Some(goodput * shake / cpus));
                made
            };
            shake.map(one).to_vec()
        };
        let shake = [0.999, 1.0, 1.001];
        let comparison = compare(&archive(500.0, 0.25, shake), &archive(900.0, 0.375, shake));
        let cpus = of(&comparison, "total_cpu_units");
        assert_eq!((cpus.change, cpus.a, cpus.p), (Change::NotJudged, Some(0.25), None));
        assert_eq!(of(&comparison, "rps_per_cpu_unit").change, Change::Improved);
        assert!(!comparison.regressed() && comparison.table().contains("CPUs"), "{}", comparison.table());
        let wasteful = compare(&archive(500.0, 0.25, shake), &archive(500.0, 0.375, shake));
        assert_eq!(of(&wasteful, "rps_per_cpu_unit").change, Change::Regressed);
    }

    #[test]
    fn noise_is_inconclusive_and_says_what_it_would_have_shown() {
        let row =
            of(&compare(&trials(10, [20.0, 26.0, 16.0]), &trials(10, [21.0, 27.0, 17.0])), "latency_p95_ms").clone();
        assert_eq!((row.change, row.why), (Change::Inconclusive, None));
        assert!(row.detectable.unwrap() > 0.3);
    }

    #[test]
    fn one_trial_decides_nothing() {
        let row = of(&compare(&trials(10, [20.0; 3])[..1], &trials(10, [90.0; 3])[..1]), "latency_p95_ms").clone();
        assert_eq!(row.why.as_deref(), Some("it needs two valid trials on each side"));
    }

    #[test]
    fn a_change_below_the_least_effect_is_no_change() {
        let (a, b) = (trials(10, [20.0, 20.001, 19.999]), trials(10, [20.1, 20.101, 20.099]));
        assert_eq!(of(&compare(&a, &b), "latency_p95_ms").change, Change::Inconclusive);
        assert_eq!(of(&compare_with(&a, &b, 0.001), "latency_p95_ms").change, Change::Regressed);
    }

    #[test]
    fn errors_that_appear_have_regressed_although_zero_has_no_ratio() {
        let broken: Vec<TrialSummary> =
            [10.0, 11.0, 12.0].iter().map(|&errors| trial(&Made { errors, ..Made::default() })).collect();
        let sound: Vec<TrialSummary> = (0..3).map(|_| trial(&Made::default())).collect();
        let comparison = compare(&sound, &broken);
        let row = of(&comparison, "error_rate");
        assert_eq!((row.change, row.ratio), (Change::Regressed, None));
    }

    #[test]
    fn the_gate_is_rarely_shut_by_chance_alone() {
        let mut rng = kit::rng(9, "test");
        let mut archive = || -> Vec<TrialSummary> {
            let cells = [10, 20, 40, 80].into_iter().flat_map(|users| [users; 3]);
            cells
                .map(|users| {
                    let mut shake = |centre: f64| centre * (1.0 + 0.05 * stats::normal(&mut rng));
                    let mut made = trial(&Made { users, p95: shake(20.0), goodput: shake(500.0), ..Made::default() });
                    made.latency_p50_ms = Some(shake(10.0));
                    made.latency_p99_ms = Some(shake(30.0));
                    made
                })
                .collect()
        };
        let shut = (0..100).filter(|_| compare(&archive(), &archive()).regressed()).count();
        // Half of the false changes would be improvements; 7 or more of 100 would be rarer than one in a hundred.
        assert!(shut <= 6, "{shut} of 100");
    }

    #[test]
    fn a_change_that_many_numbers_leave_unsure_is_told_and_does_not_shut_the_gate() {
        let cells = |slower: f64| -> Vec<TrialSummary> {
            let one = |users: i64, factor: f64| trials(users, [20.0, 20.8, 19.2].map(|p95| p95 * factor));
            [one(10, slower), one(20, 1.0)].concat()
        };
        let comparison = compare(&cells(1.0), &cells(1.15));
        assert_eq!(of(&comparison, "latency_p95_ms").change, Change::Regressed);
        assert!(!comparison.regressed() && comparison.table().contains("regressed (not sure among so many numbers)"));
    }

    #[test]
    fn cells_of_one_archive_are_listed() {
        let comparison = compare(&trials(10, [20.0; 3]), &trials(20, [20.0; 3]));
        assert_eq!(comparison.only_a, ["architecture=monolith users=10"]);
        assert!(
            comparison.rows.is_empty() && comparison.table().ends_with("only in B: architecture=monolith users=20\n")
        );
    }

    #[test]
    fn streams_are_compared_by_processing_time_and_growth() {
        use crate::measure::samples::MadeStream;
        let archive = |processing: [f64; 3]| -> Vec<TrialSummary> {
            processing.iter().map(|took| MadeStream::of(*took).trial(0, &[("cores", 4)])).collect()
        };
        let (before, after) = (archive([2_531.0, 2_540.0, 2_520.0]), archive([1_080.0, 1_085.0, 1_075.0]));
        let comparison = compare(&before, &after);
        assert_eq!(of(&comparison, "processing_avg_ms").change, Change::Improved);
        let growth = of(&comparison, "delay_growth_ms");
        assert_eq!((growth.change, growth.ratio, growth.b), (Change::Improved, None, Some(0.0)));
        assert!(!comparison.regressed() && compare(&after, &before).regressed());
        assert!(comparison.table().contains("growth ms/batch"));
        assert!(comparison.rows.iter().all(|row| row.metric != "error_rate"));
        // Growths that are surely different, and by far less than a hundredth of the interval.
        let close = compare(&archive([2_531.0; 3]), &archive([2_532.0, 2_532.1, 2_531.9]));
        assert_eq!(of(&close, "delay_growth_ms").change, Change::Inconclusive);
    }
}

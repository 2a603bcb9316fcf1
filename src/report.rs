//! An archive → figures, pages and tables. Pure: data in, bytes out; the archive module writes them.
//!
//! The one rule: a report shows only what its input holds, and a number is shown with the guards that touch it.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::experiment::{Experiment, Levels};
use crate::measure::{Sample, StudySummary, TrialSummary};

pub mod csv;
pub mod draw;
mod fault_figures;
#[cfg(test)]
mod fault_fixture;
mod fault_tables;
#[cfg(test)]
mod fault_tests;
mod fault_words;
mod faults;
pub mod figure;
pub mod figures;
#[cfg(test)]
mod fixture;
pub mod flags;
pub mod hlog;
pub mod html;
pub mod markdown;
pub mod number;
pub mod png;
pub mod stream_figures;
pub mod tables;
pub mod text;

pub use figure::Figure;
pub use figures::figures;
pub use text::text_summary;

/// What a report is made of.
pub struct ReportInput<'a> {
    /// The resolved experiment.
    pub experiment: &'a Experiment,
    /// The study in numbers.
    pub study: &'a StudySummary,
    /// Every trial that is final.
    pub trials: &'a [TrialSummary],
    /// `{verdict, which, why, guards}`.
    pub verdict: &'a serde_json::Value,
    /// The machine, the version, the command line: flat keys.
    pub environment: &'a serde_json::Value,
    /// How many trials were planned; with fewer in `trials` the run is incomplete, and the report says so.
    pub planned: usize,
    /// Statements that belong to the whole report: an equal budget, a cost that was lowered.
    pub notes: &'a [String],
    /// Of a stream that is shown over time: what its engine told, by the name of the trial.
    pub journals: &'a Journals,
    /// Of trials with faults: the gauge of tries at upstreams, by the name of the trial; nothing where nobody tells it.
    pub tries: &'a Gauges,
    /// The highest rate (records/s) at which the model of a stream expects these levels to keep up; the level of the rate
    /// itself plays no part. None where the system has no model, or the model has no answer.
    pub highest_stable_rate: Option<Model<'a>>,
}

/// What the engines of trials told, by the name of the trial.
pub type Journals = BTreeMap<String, Vec<kit::batch::Entry>>;

/// Readings of one gauge, by the name of the trial.
pub type Gauges = BTreeMap<String, Vec<Sample>>;

/// From the levels of a cell to a number.
pub type Model<'a> = &'a dyn Fn(&Levels) -> Option<f64>;

/// One file of a report.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// Its path within the archive: `plots/latency_p95_vs_concurrency.png`, `report.html`.
    pub path: String,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// Every file of the report: figures as PNG and SVG, `report.html`, `report.md` and `figures.csv`.
pub fn render(input: &ReportInput) -> Result<Vec<Rendered>> {
    let figures = figures(input);
    let bitmap = |figure: &Figure| Ok(Rendered { path: format!("plots/{}.png", figure.id), bytes: png::png(figure)? });
    let mut files: Vec<Rendered> = figures.iter().map(bitmap).collect::<Result<_>>()?;
    files.extend(pages(input, &figures)?);
    Ok(files)
}

/// All of it that is text.
fn pages(input: &ReportInput, figures: &[Figure]) -> Result<Vec<Rendered>> {
    let pictures: Vec<String> = figures.iter().map(png::svg).collect::<Result<_>>()?;
    let file = |path: &str, text: String| Rendered { path: path.to_owned(), bytes: text.into_bytes() };
    let mut files = vec![
        file("report.html", html::page(input, figures, &pictures)?),
        file("report.md", markdown::page(input, figures)),
        file("figures.csv", csv::figures_csv(figures)),
    ];
    let svgs = figures.iter().zip(pictures).map(|(figure, svg)| file(&format!("plots/{}.svg", figure.id), svg));
    files.extend(svgs);
    Ok(files)
}

#[cfg(test)]
mod tests;

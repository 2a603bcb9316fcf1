//! What a run says while it runs: a bar on a terminal, plain lines elsewhere; always on standard error.

use std::cell::{Cell, RefCell};
use std::io::IsTerminal;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use crate::experiment::Trial;
use crate::measure::{TrialSummary, keeps_up};

/// The progress of a run.
pub struct Progress {
    bar: Option<ProgressBar>,
    planned: Cell<usize>,
    ended: Cell<usize>,
    current: RefCell<String>,
}

/// Steps of the bar for one trial.
const STEPS: u64 = 100;

impl Progress {
    /// Begins, with what is planned and what an earlier run has left. The folder is said, unless it is of no use.
    pub fn new(folder: Option<&Path>, planned: usize, ended: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(planned as u64 * STEPS));
        if let Some(bar) = &bar {
            let template = "{bar:30} {percent:>3}%  {elapsed_precise}  {msg}";
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        }
        let progress =
            Self { bar, planned: Cell::new(planned), ended: Cell::new(ended), current: RefCell::new(String::new()) };
        if let Some(folder) = folder {
            progress.say(&format!("archive: {}", folder.display()));
        }
        progress
    }

    /// A trial begins; a search may have planned more by now.
    pub fn begin(&self, trial: &Trial, planned: usize) {
        self.planned.set(planned);
        self.current.replace(trial.name.clone());
        if let Some(bar) = &self.bar {
            bar.set_length(planned as u64 * STEPS);
        }
    }

    /// What the trial is doing, and how far it is.
    pub fn tell(&self, what: &str, share: f64) {
        if let Some(bar) = &self.bar {
            bar.set_position(self.ended.get() as u64 * STEPS + (share * STEPS as f64) as u64);
            let place = format!("{}/{}", self.ended.get() + 1, self.planned.get());
            bar.set_message(format!("{place} {}: {what}", self.current.borrow()));
        }
    }

    /// A trial has ended.
    pub fn end(&self, summary: &TrialSummary) {
        self.ended.set(self.ended.get() + 1);
        let figure = |value: Option<f64>, unit: &str| {
            value.map_or_else(|| format!("unknown {unit}"), |value| format!("{value:.4} {unit}"))
        };
        let text = match (&summary.invalid, &summary.stream) {
            (Some(reason), _) => format!("invalid: {reason}"),
            (None, Some(stream)) => match keeps_up::doubt_of(stream.state, &summary.guards) {
                Some(guard) => format!("unknown: {}", guard.what),
                None => stream.why.clone(),
            },
            (None, None) => format!(
                "{:.0} good/s, p95 {}, errors {}",
                summary.goodput_rps.unwrap_or(f64::NAN),
                summary.latency_p95_ms.map_or_else(|| "unknown".to_owned(), |ms| format!("{ms:.2} ms")),
                figure(summary.error_rate, "%"),
            ),
        };
        self.say(&format!("[{}/{}] {}  {text}", self.ended.get(), self.planned.get(), summary.name));
    }

    /// The run is over.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }
}

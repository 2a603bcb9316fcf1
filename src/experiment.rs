//! An experiment: a TOML file or the flags of a verb, checked, and the trials it plans. Pure: nothing here runs.
//!
//! A file is read by [`file`], which knows lines; [`Experiment::check`] knows what makes sense together. Both name the
//! way out. What is archived is written by [`Experiment::to_toml`] and read back the same.

mod check;
mod fault_file;
pub mod file;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::faults::Fault;
use crate::load::{Scenario, Stage};
use crate::measure::abort::Abort;
use crate::verdict::Slo;

/// Where a system runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeploymentKind {
    /// On threads of the lab's own process.
    InProcess,
    /// As child processes.
    Processes,
    /// Nowhere: the system's model on a virtual clock.
    Simulated,
    /// Somewhere else, already.
    External,
}

impl DeploymentKind {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::InProcess, Self::Processes, Self::Simulated, Self::External];
}

/// One level of a factor.
#[derive(Clone, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Level {
    /// A count: users, replicas.
    Int(i64),
    /// A quantity: a rate.
    Float(f64),
    /// A name: an architecture.
    Text(String),
}

impl Level {
    /// The level as a number, where it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            Self::Text(_) => None,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// The levels of one trial, by factor.
pub type Levels = BTreeMap<String, Level>;

/// How load is offered. The level of the factor `users` or `rate` of a trial takes the place of the count here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "kebab-case")]
pub enum LoadPlan {
    /// A fixed number of users, each waiting for its answer and then for the think time.
    Closed {
        /// How many.
        users: u32,
        /// The mean think time.
        think: Duration,
        /// How many users start a second.
        spawn_rate: f64,
    },
    /// Requests at times that do not depend on answers.
    Open {
        /// Rates over time, one after another; a single one without end is a constant rate.
        stages: Vec<Stage>,
        /// Whether arrivals are Poisson; evenly spaced otherwise.
        poisson: bool,
        /// The most requests under way at a time; further ones wait, and the wait is measured.
        connections: u32,
    },
}

/// A search over one factor, instead of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Search {
    /// The factor.
    pub factor: String,
    /// What is looked for.
    pub find: Find,
    /// The smallest and the largest level.
    pub between: (i64, i64),
    /// The bracket is narrow enough when it is at most this share of its lower end.
    pub within: f64,
}

/// What a search looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Find {
    /// The largest load that meets the SLO on given resources.
    Capacity,
    /// The smallest resources that meet the SLO under a given load.
    Demand,
}

/// An experiment, resolved: every default is filled in. What the archive holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    /// The question it answers, from its first line.
    pub question: String,
    /// Its name, which names the archive's folder.
    pub name: String,
    /// The system under test.
    pub system: String,
    /// Where it runs.
    pub deployment: DeploymentKind,
    /// Where every random decision starts.
    pub seed: u64,
    /// Repetitions of each cell.
    pub trials: u32,
    /// Discarded at the start of each trial, after the last user has started.
    pub warmup: Duration,
    /// Measured.
    pub duration: Duration,
    /// What must hold.
    pub slo: Vec<Slo>,
    /// Levels to combine, by factor.
    pub factors: BTreeMap<String, Vec<Level>>,
    /// Combinations to leave out: a cell that has all levels of one of these.
    pub exclude: Vec<Levels>,
    /// How load is offered.
    pub load: LoadPlan,
    /// Replicas of the load generator.
    pub load_workers: u32,
    /// An operation without an answer for this long is given up, and unknown.
    pub timeout: Duration,
    /// Between two samples of CPU and memory.
    pub sample_interval: Duration,
    /// By role: replicas, CPU set, memory.
    pub roles: BTreeMap<String, RoleLimits>,
    /// `database = "sqlite"` and the like.
    pub backends: BTreeMap<String, String>,
    /// The system's own settings.
    pub settings: serde_json::Value,
    /// Where systems that already run are, by architecture or `default`.
    pub external: BTreeMap<String, String>,
    /// What users do, where the experiment says so itself.
    pub scenario: Option<Scenario>,
    /// A search instead of a sweep.
    pub search: Option<Search>,
    /// What is broken while it is measured.
    pub faults: Vec<Fault>,
    /// When to heal and end a trial early, such as `errors > 50% for 30s`.
    pub abort_when: Option<Abort>,
}

/// What one role may have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleLimits {
    /// How many copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// A CPU set, such as `0` or `0-1,3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<String>,
    /// Memory; no deployment of this version can limit it, so it is refused with the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
}

/// One cell of the plan, one repetition of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Its place in the order of running, from 0.
    pub index: usize,
    /// `000_monolith_u10_r0`: index, levels, repetition.
    pub name: String,
    /// The level of every factor.
    pub levels: Levels,
    /// Which repetition of its cell, from 0.
    pub repetition: u32,
    /// Where its random decisions start.
    pub seed: u64,
}

impl Trial {
    /// A trial, named after its place and levels. Its seed depends on the numbers among the levels and on the
    /// repetition, not on the names: the arms of a comparison see the same users.
    pub fn new(index: usize, levels: Levels, repetition: u32, seed: u64) -> Self {
        let mut name = format!("{index:03}");
        for level in levels.values() {
            if let Level::Text(text) = level {
                name.push('_');
                name.extend(text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }));
            }
        }
        let mut purpose = String::from("trial");
        for (factor, level) in levels.iter().filter(|(_, level)| !matches!(level, Level::Text(_))) {
            let short = match factor.as_str() {
                "users" => "u",
                "rate" => "q",
                "replicas" => "x",
                "batch_interval_ms" => "bi",
                "cost_ms" => "cost",
                "cores" => "c",
                "partitions" => "p",
                other => other,
            };
            name.push_str(&format!("_{short}{level}"));
            if factor != "replicas" {
                purpose.push_str(&format!("/{factor}={level}"));
            }
        }
        name.push_str(&format!("_r{repetition}"));
        // 53 bits: a seed that every JSON reader keeps exact.
        let seed: u64 = rand::RngExt::random(&mut kit::rng(seed, &format!("{purpose}/r{repetition}")));
        let seed = seed >> 11;
        Self { index, name, levels, repetition, seed }
    }
}

/// All cells: every combination of levels that is not excluded, in the order of the factors' names.
pub fn cells(experiment: &Experiment) -> Vec<Levels> {
    let mut cells = vec![Levels::new()];
    for (factor, levels) in &experiment.factors {
        cells = cells
            .into_iter()
            .flat_map(|cell| {
                levels.iter().map(move |level| {
                    let mut cell = cell.clone();
                    cell.insert(factor.clone(), level.clone());
                    cell
                })
            })
            .collect();
    }
    let excluded = |cell: &Levels| {
        experiment.exclude.iter().any(|rule| rule.iter().all(|(factor, level)| cell.get(factor) == Some(level)))
    };
    cells.retain(|cell| !excluded(cell));
    cells
}

/// The trials of a sweep, in the order of running: every cell once in each repetition, shuffled within it by the seed,
/// so that a drift of the machine touches all cells alike.
pub fn plan(experiment: &Experiment) -> Vec<Trial> {
    use rand::seq::SliceRandom;
    let mut trials = Vec::new();
    for repetition in 0..experiment.trials {
        let mut order = cells(experiment);
        order.shuffle(&mut kit::rng(experiment.seed, &format!("order/{repetition}")));
        for levels in order {
            trials.push(Trial::new(trials.len(), levels, repetition, experiment.seed));
        }
    }
    trials
}

impl LoadPlan {
    /// The plan of one trial: its level of `users` or `rate` takes the place of the count.
    pub fn at(&self, levels: &Levels) -> Self {
        let mut plan = self.clone();
        match &mut plan {
            Self::Closed { users, .. } => {
                if let Some(Level::Int(level)) = levels.get("users") {
                    *users = u32::try_from(*level).unwrap_or(u32::MAX);
                }
            }
            Self::Open { stages, .. } => {
                if let Some(rate) = levels.get("rate").and_then(Level::as_f64) {
                    *stages = vec![Stage { duration: None, from_per_s: rate, to_per_s: rate }];
                }
            }
        }
        plan
    }

    /// How long it takes until everybody has started.
    pub fn ramp(&self) -> Duration {
        match self {
            Self::Closed { users, spawn_rate, .. } => {
                Duration::from_secs_f64(f64::from(users.saturating_sub(1)) / spawn_rate)
            }
            Self::Open { .. } => Duration::ZERO,
        }
    }
}

impl Experiment {
    /// An experiment with all defaults, no factors, and no system yet.
    pub fn empty() -> Self {
        Self {
            question: String::new(),
            name: String::new(),
            system: String::new(),
            deployment: DeploymentKind::Processes,
            seed: file::default::SEED,
            trials: file::default::TRIALS,
            warmup: file::default::WARMUP,
            duration: file::default::DURATION,
            slo: Vec::new(),
            factors: BTreeMap::new(),
            exclude: Vec::new(),
            load: LoadPlan::Closed { users: 0, think: Duration::ZERO, spawn_rate: file::default::SPAWN_RATE },
            load_workers: 1,
            timeout: file::default::TIMEOUT,
            sample_interval: file::default::SAMPLE_INTERVAL,
            roles: BTreeMap::new(),
            backends: BTreeMap::new(),
            settings: serde_json::json!({}),
            external: BTreeMap::new(),
            scenario: None,
            search: None,
            faults: Vec::new(),
            abort_when: None,
        }
    }

    /// The measured seconds of a trial, since the start of its schedule: whole seconds after the last user has started
    /// and the warm-up has passed.
    pub fn window(&self, plan: &LoadPlan) -> std::ops::Range<u32> {
        let begin = (plan.ramp() + self.warmup).as_secs_f64().ceil() as u32;
        begin..begin + self.duration.as_secs_f64().round().max(1.0) as u32
    }

    /// The cells of a sweep, and those at both ends of a search.
    pub fn cells_to_check(&self) -> Vec<Levels> {
        let cells = cells(self);
        let Some(search) = &self.search else { return cells };
        let at = |cell: &Levels, level| {
            let mut cell = cell.clone();
            cell.insert(search.factor.clone(), Level::Int(level));
            cell
        };
        let (low, high) = search.between;
        cells.iter().flat_map(|cell| [at(cell, low), at(cell, high)]).collect()
    }
}

/// What is wrong with an experiment, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// A path into the file, such as `factors.users.0`.
    pub at: String,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl Problem {
    /// A problem at a place.
    pub fn new(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self { at: at.into(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

impl fmt::Display for DeploymentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InProcess => "in-process",
            Self::Processes => "processes",
            Self::Simulated => "simulated",
            Self::External => "external",
        })
    }
}

impl std::str::FromStr for DeploymentKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.to_string() == text).ok_or_else(|| {
            let names = Self::ALL.map(|kind| kind.to_string()).join(", ");
            format!("unknown deployment {text:?}; there are {names}")
        })
    }
}

//! An experiment: a TOML file or the flags of a verb, checked, and the trials it plans. Pure: nothing here runs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::load::{Scenario, Stage};
use crate::verdict::Slo;

/// Where a system runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeploymentKind {
    /// On threads of the lab's own process.
    InProcess,
    /// As child processes.
    Processes,
    /// Somewhere else, already.
    External,
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
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// Where systems that already run are, by name (architecture for the task tracker).
    pub external: BTreeMap<String, String>,
    /// What users do, where the experiment says so itself.
    pub scenario: Option<Scenario>,
    /// A search instead of a sweep.
    pub search: Option<Search>,
}

/// What one role may have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleLimits {
    /// How many copies.
    #[serde(default)]
    pub replicas: Option<u32>,
    /// A CPU set, such as `0` or `0-1,3`.
    #[serde(default)]
    pub cpus: Option<String>,
    /// Memory in bytes.
    #[serde(default)]
    pub memory: Option<u64>,
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

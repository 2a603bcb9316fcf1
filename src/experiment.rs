//! An experiment: a TOML file or the flags of a verb, checked, and the trials it plans. Pure: nothing here runs.
//!
//! A file is read by [`file`], which knows lines; [`Experiment::check`] knows what makes sense together. Both name the
//! way out. What is archived is written by [`Experiment::to_toml`] and read back the same.

mod fault_file;
pub mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::faults::{self, Fault};
use crate::load::{Scenario, Stage};
use crate::measure::abort::Abort;
use crate::measure::stream;
use crate::systems::{self, FactorKind, System};
use crate::units;
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

    /// Roles that at least one cell has.
    fn roles_in_use(&self, system: &dyn System) -> BTreeSet<&'static str> {
        let mut roles = BTreeSet::new();
        for levels in self.cells_to_check() {
            let assembly = system.assemble(self, &levels);
            roles.extend(assembly.entry.map(|_| "load"));
            roles.extend(assembly.parts.iter().map(|part| part.role));
        }
        roles
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

    /// Whether everything makes sense together.
    ///
    /// # Errors
    /// The place in the file (`factors.users`), and what is wrong with it and what is allowed.
    pub fn check(&self) -> Result<(), Problem> {
        let Some(system) = systems::find(&self.system) else {
            return Err(Problem::new(
                "system",
                format!("unknown system {:?}; there are {}", self.system, systems::names()),
            ));
        };
        if !system.deployments().contains(&self.deployment) {
            let allowed: Vec<_> = system.deployments().iter().map(ToString::to_string).collect();
            return Err(Problem::new(
                "deployment",
                format!("{} does not run {}; it runs {}", self.system, self.deployment, allowed.join(", ")),
            ));
        }
        self.check_numbers()?;
        self.check_slo(system)?;
        self.check_factors(system)?;
        self.check_load()?;
        self.check_search(system)?;
        self.check_backends(system)?;
        system.check(self)?;
        self.check_roles(system)?;
        faults::check::check(self, system)?;
        if self.search.is_none() && cells(self).is_empty() {
            return Err(Problem::new("exclude", "every combination of levels is excluded; nothing is left to run"));
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), Problem> {
        let at_least_one_second = |name: &str, value: Duration| {
            if value < Duration::from_secs(1) || value.subsec_nanos() != 0 {
                let text = units::format_duration(value);
                return Err(Problem::new(
                    name,
                    format!("{name} is {text}; it is counted in whole seconds, at least 1s"),
                ));
            }
            Ok(())
        };
        at_least_one_second("duration", self.duration)?;
        let positive = |name: &str, value: u64| match value {
            0 => Err(Problem::new(name, format!("{name} is 0; at least 1 is needed"))),
            _ => Ok(()),
        };
        positive("trials", u64::from(self.trials))?;
        positive("load.workers", u64::from(self.load_workers))?;
        positive("timeout", self.timeout.as_nanos() as u64)?;
        if self.sample_interval < Duration::from_millis(100) {
            return Err(Problem::new("sample_interval", "sample_interval is below 100ms: sampling would be the load"));
        }
        Ok(())
    }

    /// Some objectives only a stream can meet.
    fn check_slo(&self, system: &dyn System) -> Result<(), Problem> {
        let of_streams = self.slo.iter().position(|slo| stream::is_key(&slo.key));
        match of_streams.filter(|_| !system.is_stream()) {
            Some(index) => Err(Problem::new(
                format!("slo.{index}"),
                format!(
                    "{:?} is asked of streams, and {} is none; write p95 <= 250ms, errors <= 1% or goodput >= 500/s",
                    self.slo[index].text, self.system
                ),
            )),
            None => Ok(()),
        }
    }

    fn check_factors(&self, system: &dyn System) -> Result<(), Problem> {
        for (name, levels) in &self.factors {
            let at = format!("factors.{name}");
            let factor = find_factor(system, name, &at)?;
            if levels.is_empty() {
                return Err(Problem::new(at, format!("factor {name} has no level")));
            }
            for (index, level) in levels.iter().enumerate() {
                let at = format!("{at}.{index}");
                factor.kind.check(name, level).map_err(|message| Problem::new(at.clone(), message))?;
                if levels[..index].contains(level) {
                    return Err(Problem::new(at, format!("level {level} of {name} is there twice")));
                }
            }
        }
        for (index, rule) in self.exclude.iter().enumerate() {
            for (factor, level) in rule {
                if !self.factors.get(factor).is_some_and(|levels| levels.contains(level)) {
                    let message = format!("exclude names {factor} = {level}, which no cell has");
                    return Err(Problem::new(format!("exclude.{index}"), message));
                }
            }
        }
        Ok(())
    }

    fn check_load(&self) -> Result<(), Problem> {
        let searched = self.search.as_ref().map(|search| search.factor.as_str());
        let has = |factor: &str| self.factors.contains_key(factor) || searched == Some(factor);
        match &self.load {
            LoadPlan::Closed { users, spawn_rate, .. } => {
                if has("rate") {
                    return Err(Problem::new(
                        "factors.rate",
                        "rate is a factor of open load; write mode = \"open\" under [load], or use users",
                    ));
                }
                if *users == 0 && !has("users") {
                    return Err(Problem::new(
                        "load.users",
                        "zero users; write users under [load] or as a factor, at least 1",
                    ));
                }
                if !(*spawn_rate > 0.0 && spawn_rate.is_finite()) {
                    return Err(Problem::new(
                        "load.spawn_rate",
                        format!("spawn_rate is {spawn_rate}; it must be above 0"),
                    ));
                }
            }
            LoadPlan::Open { stages, connections, .. } => {
                if has("users") {
                    return Err(Problem::new(
                        "factors.users",
                        "users is a factor of closed load; write mode = \"closed\" under [load], or use rate",
                    ));
                }
                if stages.is_empty() && !has("rate") {
                    return Err(Problem::new(
                        "load.rate",
                        "no rate; write rate or stages under [load], or rate as a factor",
                    ));
                }
                let wrong = |rate: f64| !(rate >= 0.0 && rate.is_finite());
                if stages.iter().any(|stage| wrong(stage.from_per_s) || wrong(stage.to_per_s)) {
                    return Err(Problem::new("load.rate", "a rate must be a number, 0 or above"));
                }
                let planned = stages.iter().map(|stage| stage.duration).sum::<Option<Duration>>();
                let needed = self.warmup + self.duration;
                if let Some(planned) = planned.filter(|planned| !stages.is_empty() && *planned < needed) {
                    let (planned, needed) = (units::format_duration(planned), units::format_duration(needed));
                    let message = format!(
                        "the stages last {planned}, warmup and duration {needed}; make the stages as long, or measure less"
                    );
                    return Err(Problem::new("load.stages", message));
                }
                if *connections == 0 {
                    return Err(Problem::new("load.connections", "connections is 0; at least 1 is needed"));
                }
            }
        }
        Ok(())
    }

    fn check_search(&self, system: &dyn System) -> Result<(), Problem> {
        let Some(search) = &self.search else { return Ok(()) };
        let factor = find_factor(system, &search.factor, "search.factor")?;
        if matches!(factor.kind, FactorKind::OneOf(_)) {
            return Err(Problem::new("search.factor", format!("{} has names, not numbers, as levels", search.factor)));
        }
        if self.factors.contains_key(&search.factor) {
            let message = format!("{} is searched; take it out of [factors]", search.factor);
            return Err(Problem::new(format!("factors.{}", search.factor), message));
        }
        if self.slo.is_empty() {
            let example = if system.is_stream() { "stable" } else { "p95 <= 250ms" };
            let message = format!("a search needs an SLO to decide by; write slo = [\"{example}\"]");
            return Err(Problem::new("search", message));
        }
        let (low, high) = search.between;
        if low < 1 || high <= low {
            return Err(Problem::new(
                "search.between",
                format!("between [{low}, {high}]: the first must be at least 1 and below the second"),
            ));
        }
        if !(search.within > 0.0 && search.within < 1.0) {
            return Err(Problem::new("search.within", "within must be above 0% and below 100%"));
        }
        Ok(())
    }

    fn check_backends(&self, system: &dyn System) -> Result<(), Problem> {
        for (name, value) in &self.backends {
            let at = format!("backends.{name}");
            let Some((_, allowed)) = system.backends().iter().find(|(backend, _)| backend == name) else {
                let names: Vec<_> = system.backends().iter().map(|(backend, _)| *backend).collect();
                let message = format!("{} has no backend {name:?}; it has {}", self.system, list(&names));
                return Err(Problem::new(at, message));
            };
            if !allowed.contains(&value.as_str()) {
                return Err(Problem::new(at, format!("unknown {name} {value:?}; there are {}", list(allowed))));
            }
        }
        Ok(())
    }

    fn check_roles(&self, system: &dyn System) -> Result<(), Problem> {
        let in_use = self.roles_in_use(system);
        for (role, limits) in &self.roles {
            let at = format!("roles.{role}");
            let known: Vec<_> = system.roles().iter().map(|role| role.name).chain(["load"]).collect();
            if !known.contains(&role.as_str()) {
                return Err(Problem::new(at, format!("unknown role {role:?}; {} has {}", self.system, list(&known))));
            }
            if !in_use.contains(role.as_str()) {
                return Err(Problem::new(
                    at,
                    format!("no cell of the plan has the role {role}; take it out, or add the cell"),
                ));
            }
            if limits.replicas == Some(0) {
                return Err(Problem::new(at, format!("role {role} has 0 replicas; at least 1 is needed")));
            }
            if limits.memory.is_some() {
                let kind = self.deployment;
                return Err(Problem::new(
                    at,
                    format!("the deployment {kind} cannot limit the memory of a role; take memory out"),
                ));
            }
            if let Some(cpus) = &limits.cpus {
                units::parse_cpus(cpus).map_err(|message| Problem::new(at, message))?;
            }
        }
        Ok(())
    }
}

fn find_factor<'a>(system: &'a dyn System, name: &str, at: &str) -> Result<&'a systems::Factor, Problem> {
    system.factors().iter().find(|factor| factor.name == name).ok_or_else(|| {
        let names: Vec<_> = system.factors().iter().map(|factor| factor.name).collect();
        Problem::new(at, format!("unknown factor {name:?}; {} has {}", system.name(), list(&names)))
    })
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
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

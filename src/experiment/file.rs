//! The TOML schema of an experiment. Every message names file, line, and what is allowed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::{DeploymentKind, Experiment, Find, Level, Levels, LoadPlan, Problem, RoleLimits, Search, fault_file};
use crate::error::input;
use crate::load::{Scenario, Stage, Step};
use crate::units;
use crate::verdict::Slo;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    system: String,
    name: Option<String>,
    deployment: Option<String>,
    seed: Option<u64>,
    trials: Option<u32>,
    warmup: Option<DurationText>,
    duration: Option<DurationText>,
    timeout: Option<DurationText>,
    sample_interval: Option<DurationText>,
    #[serde(default)]
    slo: Vec<String>,
    #[serde(default)]
    factors: BTreeMap<String, Vec<Level>>,
    #[serde(default)]
    exclude: Vec<Levels>,
    #[serde(default)]
    load: LoadFile,
    #[serde(default)]
    roles: BTreeMap<String, RoleLimits>,
    #[serde(default)]
    backends: BTreeMap<String, String>,
    #[serde(default)]
    settings: toml::Table,
    #[serde(default)]
    external: BTreeMap<String, String>,
    search: Option<SearchFile>,
    #[serde(default)]
    setup: Vec<Step>,
    #[serde(default)]
    step: Vec<Step>,
    #[serde(default)]
    steps_in_turn: bool,
    abort_when: Option<String>,
    #[serde(default)]
    fault: Vec<toml::Table>,
}

struct DurationText(Duration);

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        units::duration::deserialize(deserializer).map(Self)
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadFile {
    mode: Option<String>,
    users: Option<u32>,
    think: Option<DurationText>,
    spawn_rate: Option<f64>,
    rate: Option<f64>,
    stages: Option<String>,
    arrivals: Option<String>,
    connections: Option<u32>,
    workers: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SearchFile {
    factor: String,
    find: Find,
    between: (i64, i64),
    within: Option<String>,
}

/// What an experiment has where its file is silent.
pub mod default {
    use std::time::Duration;

    /// Repetitions: enough for an interval.
    pub const TRIALS: u32 = 3;
    /// Discarded.
    pub const WARMUP: Duration = Duration::from_secs(2);
    /// Measured.
    pub const DURATION: Duration = Duration::from_secs(10);
    /// Until an operation is given up.
    pub const TIMEOUT: Duration = Duration::from_secs(10);
    /// Between samples.
    pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
    /// Users a second.
    pub const SPAWN_RATE: f64 = 100.0;
    /// Connections of open load.
    pub const CONNECTIONS: u32 = 256;
    /// The seed.
    pub const SEED: u64 = 1;
}

/// Reads an experiment from a file.
///
/// # Errors
/// What is wrong, with file and line, as input.
pub fn read(path: &Path) -> anyhow::Result<Experiment> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| input(format!("{shown}: {error}; `scalelab list` names the experiments that come along")))?;
    let name = path.file_stem().map_or_else(|| "experiment".to_owned(), |stem| stem.to_string_lossy().into_owned());
    parse(&text, &shown.to_string(), &name)
}

/// Reads an experiment from a text; `from` names it in messages, `name` is its name unless it gives one.
///
/// # Errors
/// What is wrong, with `from` and line, as input.
pub fn parse(text: &str, from: &str, name: &str) -> anyhow::Result<Experiment> {
    let file: File = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        input(format!("{from}:{line}: {}", in_words(error.message())))
    })?;
    let resolved = resolve(file, text, name).and_then(|experiment| experiment.check().map(|()| experiment));
    resolved.map_err(|problem| input(format!("{from}:{}: {}", line_of_path(text, &problem.at), problem.message)))
}

/// The parser's message, with the names of Rust's types put in words.
fn in_words(message: &str) -> String {
    let mut text = message.replace('\n', "; ");
    for (name, words) in
        [("u32", "a whole number"), ("u64", "a whole number"), ("i64", "a whole number"), ("f64", "a number")]
    {
        text = text.replace(&format!("expected {name}"), &format!("expected {words}"));
    }
    text
}

fn resolve(file: File, text: &str, name: &str) -> Result<Experiment, Problem> {
    let question = text.lines().next().and_then(|line| line.strip_prefix('#')).map(|line| line.trim().to_owned());
    let deployment = match &file.deployment {
        Some(kind) => kind.parse().map_err(|message: String| Problem::new("deployment", message))?,
        None => DeploymentKind::Processes,
    };
    let slo = file.slo.iter().enumerate().map(|(index, text)| {
        Slo::try_from(text.clone()).map_err(|message| Problem::new(format!("slo.{index}"), message))
    });
    let slo = slo.collect::<Result<Vec<_>, _>>()?;
    let settings = serde_json::to_value(&file.settings).map_err(|error| Problem::new("settings", error.to_string()))?;
    let has_steps = !file.step.is_empty() || !file.setup.is_empty();
    let or = |given: &Option<DurationText>, default: Duration| given.as_ref().map_or(default, |text| text.0);
    let load = load_plan(&file.load)?;
    let warmup = or(&file.warmup, default::WARMUP);
    let faults = file.fault.iter().enumerate().map(|(index, fault)| fault_file::read(fault, index));
    let faults = faults.collect::<Result<Vec<_>, _>>()?;
    let abort_when = file.abort_when.as_deref().map(str::parse).transpose();
    let abort_when = abort_when.map_err(|message: String| Problem::new("abort_when", message))?;
    Ok(Experiment {
        question: question.unwrap_or_else(|| format!("How does {} behave?", file.system)),
        name: file.name.clone().unwrap_or_else(|| name.to_owned()),
        deployment,
        seed: file.seed.unwrap_or(default::SEED),
        trials: file.trials.unwrap_or(default::TRIALS),
        warmup,
        duration: or(&file.duration, rest_of_stages(&load, warmup)),
        timeout: or(&file.timeout, default::TIMEOUT),
        sample_interval: or(&file.sample_interval, default::SAMPLE_INTERVAL),
        slo,
        factors: file.factors,
        exclude: file.exclude,
        load_workers: file.load.workers.unwrap_or(1),
        load,
        system: file.system,
        roles: file.roles,
        backends: file.backends,
        settings,
        external: file.external,
        scenario: has_steps.then_some(Scenario { setup: file.setup, steps: file.step, in_turn: file.steps_in_turn }),
        search: file.search.map(search).transpose()?,
        faults,
        abort_when,
    })
}

fn load_plan(load: &LoadFile) -> Result<LoadPlan, Problem> {
    let refuse = |given: bool, key: &str, mode: &str| match given {
        true => Err(Problem::new(format!("load.{key}"), format!("{key} belongs to mode = \"{mode}\""))),
        false => Ok(()),
    };
    match load.mode.as_deref().unwrap_or("closed") {
        "closed" => {
            refuse(load.rate.is_some(), "rate", "open")?;
            refuse(load.stages.is_some(), "stages", "open")?;
            refuse(load.arrivals.is_some(), "arrivals", "open")?;
            refuse(load.connections.is_some(), "connections", "open")?;
            Ok(LoadPlan::Closed {
                users: load.users.unwrap_or(0),
                think: load.think.as_ref().map_or(Duration::ZERO, |think| think.0),
                spawn_rate: load.spawn_rate.unwrap_or(default::SPAWN_RATE),
            })
        }
        "open" => {
            refuse(load.users.is_some(), "users", "closed")?;
            refuse(load.think.is_some(), "think", "closed")?;
            refuse(load.spawn_rate.is_some(), "spawn_rate", "closed")?;
            let connections = load.connections.unwrap_or(default::CONNECTIONS);
            Ok(LoadPlan::Open { stages: stages(load)?, poisson: poisson(load)?, connections })
        }
        other => Err(Problem::new("load.mode", format!("unknown mode {other:?}; there are closed, open"))),
    }
}

/// Stages say how long a trial is, unless the file does; whole seconds of it are measured.
fn rest_of_stages(load: &LoadPlan, warmup: Duration) -> Duration {
    let LoadPlan::Open { stages, .. } = load else { return default::DURATION };
    match crate::load::schedule::total_duration(stages) {
        Some(total) if !stages.is_empty() => Duration::from_secs(total.saturating_sub(warmup).as_secs().max(1)),
        _ => default::DURATION,
    }
}

fn stages(load: &LoadFile) -> Result<Vec<Stage>, Problem> {
    match (&load.stages, load.rate) {
        (Some(_), Some(_)) => Err(Problem::new("load.stages", "both rate and stages are given; write one of them")),
        (Some(text), None) => {
            crate::load::schedule::parse_stages(text).map_err(|message| Problem::new("load.stages", message))
        }
        (None, Some(rate)) => Ok(vec![Stage { duration: None, from_per_s: rate, to_per_s: rate }]),
        (None, None) => Ok(Vec::new()),
    }
}

fn poisson(load: &LoadFile) -> Result<bool, Problem> {
    match load.arrivals.as_deref().unwrap_or("constant") {
        "constant" => Ok(false),
        "poisson" => Ok(true),
        other => Err(Problem::new("load.arrivals", format!("unknown arrivals {other:?}; there are constant, poisson"))),
    }
}

fn search(file: SearchFile) -> Result<Search, Problem> {
    let within = file.within.as_deref().unwrap_or("5%");
    let percent: f64 = within
        .strip_suffix('%')
        .and_then(|percent| percent.trim().parse().ok())
        .ok_or_else(|| Problem::new("search.within", format!("{within:?} is not a share; write 5%")))?;
    Ok(Search { factor: file.factor, find: file.find, between: file.between, within: percent / 100.0 })
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The line of a path such as `factors.users.0`, or of its nearest ancestor that is in the file.
pub(crate) fn line_of_path(text: &str, path: &str) -> usize {
    let Ok(document) = toml::de::DeTable::parse(text) else { return 1 };
    let mut line = 1;
    let mut at: Option<(Option<&toml::de::DeTable<'_>>, Option<&toml::de::DeArray<'_>>)> =
        Some((Some(document.get_ref()), None));
    for part in path.split('.') {
        let found: Option<(usize, &Spanned<toml::de::DeValue<'_>>)> = match at {
            Some((Some(table), _)) => {
                table.iter().find(|(key, _)| key.get_ref() == part).map(|(key, value)| (key.span().start, value))
            }
            Some((None, Some(array))) => {
                part.parse().ok().and_then(|index: usize| array.get(index)).map(|value| (value.span().start, value))
            }
            _ => None,
        };
        let Some((start, value)) = found else { break };
        line = line_of(text, start);
        at = Some((value.get_ref().as_table(), value.get_ref().as_array()));
    }
    line
}

impl Experiment {
    /// The experiment as a file that [`parse`] reads back the same.
    pub fn to_toml(&self) -> String {
        let mut table = toml::Table::new();
        put(&mut table, "system", &self.system);
        put(&mut table, "name", &self.name);
        put(&mut table, "deployment", &self.deployment.to_string());
        // A seed above i64 cannot be written in TOML; flags and files cannot give one either.
        put(&mut table, "seed", &i64::try_from(self.seed).unwrap_or(i64::MAX));
        put(&mut table, "trials", &self.trials);
        put(&mut table, "warmup", &units::format_duration(self.warmup));
        put(&mut table, "duration", &units::format_duration(self.duration));
        put(&mut table, "timeout", &units::format_duration(self.timeout));
        put(&mut table, "sample_interval", &units::format_duration(self.sample_interval));
        put(&mut table, "slo", &self.slo);
        put(&mut table, "factors", &self.factors);
        put(&mut table, "exclude", &self.exclude);
        table.insert("load".into(), toml::Value::Table(self.load_table()));
        put(&mut table, "roles", &self.roles);
        put(&mut table, "backends", &self.backends);
        put(&mut table, "settings", &self.settings);
        put(&mut table, "external", &self.external);
        if let Some(search) = &self.search {
            table.insert("search".into(), toml::Value::Table(search_table(search)));
        }
        if let Some(scenario) = &self.scenario {
            if scenario.in_turn {
                put(&mut table, "steps_in_turn", &true);
            }
            put(&mut table, "setup", &scenario.setup);
            put(&mut table, "step", &scenario.steps);
        }
        if let Some(abort) = &self.abort_when {
            put(&mut table, "abort_when", &abort.to_string());
        }
        put(&mut table, "fault", &self.faults.iter().map(fault_file::table).collect::<Vec<_>>());
        let body = toml::to_string(&table).unwrap_or_else(|error| format!("# could not be written: {error}\n"));
        format!("# {}\n{body}", self.question)
    }

    fn load_table(&self) -> toml::Table {
        let mut table = toml::Table::new();
        match &self.load {
            LoadPlan::Closed { users, think, spawn_rate } => {
                put(&mut table, "mode", &"closed");
                if *users > 0 {
                    put(&mut table, "users", users);
                }
                put(&mut table, "think", &units::format_duration(*think));
                put(&mut table, "spawn_rate", spawn_rate);
            }
            LoadPlan::Open { stages, poisson, connections } => {
                put(&mut table, "mode", &"open");
                match stages.as_slice() {
                    [] => {}
                    [Stage { duration: None, from_per_s, .. }] => put(&mut table, "rate", from_per_s),
                    stages => put(&mut table, "stages", &format_stages(stages)),
                }
                put(&mut table, "arrivals", &if *poisson { "poisson" } else { "constant" });
                put(&mut table, "connections", connections);
            }
        }
        put(&mut table, "workers", &self.load_workers);
        table
    }
}

/// As [`crate::load::schedule::parse_stages`] reads it.
fn format_stages(stages: &[Stage]) -> String {
    let one = |stage: &Stage| {
        let ramp = if stage.from_per_s == stage.to_per_s { "" } else { "~" };
        format!("{}:{ramp}{}", units::format_duration(stage.duration.unwrap_or_default()), stage.to_per_s)
    };
    stages.iter().map(one).collect::<Vec<_>>().join(",")
}

fn search_table(search: &Search) -> toml::Table {
    let mut table = toml::Table::new();
    put(&mut table, "factor", &search.factor);
    put(&mut table, "find", &search.find);
    put(&mut table, "between", &[search.between.0, search.between.1]);
    put(&mut table, "within", &format!("{}%", search.within * 100.0));
    table
}

/// Puts a value that is not empty.
fn put(table: &mut toml::Table, key: &str, value: &impl serde::Serialize) {
    let Ok(value) = toml::Value::try_from(value) else { return };
    let empty = match &value {
        toml::Value::Table(table) => table.is_empty(),
        toml::Value::Array(array) => array.is_empty(),
        _ => false,
    };
    if !empty {
        table.insert(key.to_owned(), value);
    }
}

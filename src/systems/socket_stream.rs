//! A socket source and a micro-batch engine: a stream that keeps up, or falls behind.
//!
//! The one rule: the load of a stream is its source. `[load]` says how many lines each client of the source gets, the
//! generator of the lab takes no part.

use std::collections::BTreeMap;
use std::time::Duration;

use kit::Role;
use serde_json::{Map, Value, json};

use super::{Assembly, Factor, FactorKind, Part, Simulation, System};
use crate::experiment::{DeploymentKind, Experiment, Level, Levels, LoadPlan, Problem, Trial};
use crate::load::Scenario;

/// The adapter.
pub struct SocketStream;

/// What draining may take beyond the engine's own limit.
const DRAIN_BEYOND: Duration = Duration::from_secs(5);

impl System for SocketStream {
    fn name(&self) -> &'static str {
        "socket-stream"
    }

    fn question(&self) -> &'static str {
        "when does a micro-batch stream fall behind?"
    }

    fn roles(&self) -> &'static [Role] {
        socket_stream::ROLES
    }

    fn deployments(&self) -> &'static [DeploymentKind] {
        &[DeploymentKind::InProcess, DeploymentKind::Processes, DeploymentKind::Simulated]
    }

    fn factors(&self) -> &'static [Factor] {
        &[
            Factor {
                name: "rate",
                kind: FactorKind::Quantity,
                about: "lines a second that the source sends each client",
            },
            Factor { name: "batch_interval_ms", kind: FactorKind::Count, about: "batch interval in milliseconds" },
            Factor { name: "cores", kind: FactorKind::Count, about: "slots; each receiver holds one of them" },
            Factor {
                name: "partitions",
                kind: FactorKind::CountOrNone,
                about: "partitions that records are spread over",
            },
            Factor {
                name: "cost_ms",
                kind: FactorKind::QuantityOrNone,
                about: "cost of a record (or word) in milliseconds",
            },
        ]
    }

    fn backends(&self) -> &'static [(&'static str, &'static [&'static str])] {
        &[]
    }

    fn check(&self, experiment: &Experiment) -> Result<(), Problem> {
        if experiment.scenario.is_some() {
            return Err(Problem::new("step", "socket-stream has no users: take [[setup]] and [[step]] out"));
        }
        if !matches!(experiment.load, LoadPlan::Open { .. }) {
            let message = "a stream's load is open: write mode = \"open\" and rate or stages under [load]";
            return Err(Problem::new("load.mode", message));
        }
        if experiment.load_workers != 1 {
            let message = "a stream's load is its source: take workers out, and write receivers = N under [settings]";
            return Err(Problem::new("load.workers", message));
        }
        for (key, way_out) in
            [("stages", "write rate or stages under [load]"), ("poisson", "write arrivals under [load]")]
        {
            if experiment.settings.get(key).is_some() {
                return Err(Problem::new(format!("settings.{key}"), format!("{key} is no setting; {way_out}")));
            }
        }
        if experiment.deployment == DeploymentKind::Simulated && has_foreign_source(experiment) {
            let message =
                "a source of somebody else cannot be simulated: run in-process or processes, or take source out";
            return Err(Problem::new("settings.source", message));
        }
        for (role, limits) in &experiment.roles {
            if limits.replicas.is_some_and(|replicas| replicas != 1) {
                let message = format!("{role} has one replica; for more streams write receivers = N under [settings]");
                return Err(Problem::new(format!("roles.{role}"), message));
            }
        }
        for levels in experiment.cells_to_check() {
            settings(experiment, &levels)?;
        }
        Ok(())
    }

    fn assemble(&self, experiment: &Experiment, _: &Levels) -> Assembly {
        let source = Part {
            role: "source",
            replicas: 1,
            peers: &[],
            database: None,
            port: 9999,
            under_test: false,
            measures: true,
        };
        let engine = Part { role: "engine", peers: &["source"], port: 0, under_test: true, ..source };
        let parts =
            if has_foreign_source(experiment) { vec![Part { peers: &[], ..engine }] } else { vec![source, engine] };
        Assembly { parts, entry: None }
    }

    fn scenario(&self, _: &Experiment, _: &Levels) -> Scenario {
        Scenario::default()
    }

    fn role_settings(&self, experiment: &Experiment, levels: &Levels) -> Value {
        merged(experiment, levels)
    }

    fn is_stream(&self) -> bool {
        true
    }

    fn highest_stable_rate(&self, experiment: &Experiment, levels: &Levels) -> Option<f64> {
        socket_stream::model::highest_stable_rate(&settings(experiment, levels).ok()?)
    }

    fn counted_kind(&self) -> Option<&'static str> {
        Some("record")
    }

    fn warnings(&self, experiment: &Experiment) -> Vec<String> {
        let cells = experiment.cells_to_check();
        let mut of_notes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for levels in &cells {
            let of_cell: Vec<_> = levels.iter().map(|(factor, level)| format!("{factor} {level}")).collect();
            for note in settings(experiment, levels).map(|settings| settings.notes()).unwrap_or_default() {
                of_notes.entry(note).or_default().push(of_cell.join(", "));
            }
        }
        let with_place = |(note, places): (String, Vec<String>)| match places.len() == cells.len() {
            true => vec![note],
            false => places.into_iter().map(|place| format!("{place}: {note}")).collect(),
        };
        of_notes.into_iter().flat_map(with_place).collect()
    }

    fn drain_within(&self, experiment: &Experiment, levels: &Levels) -> Option<Duration> {
        let settings = settings(experiment, levels).ok()?;
        Some(settings.graceful_stop_timeout() + DRAIN_BEYOND)
    }

    fn simulate(&self, experiment: &Experiment, trial: &Trial, simulation: Simulation<'_>) -> anyhow::Result<()> {
        let settings =
            settings(experiment, &trial.levels).map_err(|problem| crate::error::input(problem.to_string()))?;
        let Simulation { until, recorder, series, journal, each_second } = simulation;
        socket_stream::simulate(&settings, trial.seed, until, recorder, series, journal, each_second)
    }

    fn notes(&self, experiment: &Experiment) -> Vec<String> {
        let Ok(settings) = settings(experiment, &Levels::new()) else { return Vec::new() };
        let mut notes = vec![
            "Times of a batch: lateness is from batch time to submission, scheduling delay from there to the start of \
             its first job, processing time from there to the end of its last. Total delay leaves lateness out."
                .to_owned(),
        ];
        let (job, task) = (settings.job_overhead(), settings.task_overhead());
        if !job.is_zero() || !task.is_zero() {
            notes.push(format!(
                "Overhead is added on purpose: {:.1} ms a job and {:.1} ms a task, as measured of another engine; this \
                 engine's own is a few milliseconds a batch.",
                job.as_secs_f64() * 1e3,
                task.as_secs_f64() * 1e3
            ));
        }
        notes
    }
}

/// The settings that a factor takes the place of.
const FACTOR_OF_SETTING: [(&str, &str); 4] =
    [("batch_interval", "batch_interval_ms"), ("cost", "cost_ms"), ("cores", "cores"), ("partitions", "partitions")];

fn has_foreign_source(experiment: &Experiment) -> bool {
    experiment.settings.get("source").is_some_and(|source| !source.is_null())
}

/// The settings of the roles in a cell: those of the experiment, with the cell's levels and the load in their places.
fn merged(experiment: &Experiment, levels: &Levels) -> Value {
    let mut settings: Map<String, Value> = experiment.settings.as_object().cloned().unwrap_or_default();
    let number = |factor: &str| levels.get(factor).and_then(Level::as_f64);
    let duration = |ms: f64| Value::from(format!("{}us", (ms * 1e3).round()));
    let given = [
        ("batch_interval", number("batch_interval_ms").map(duration)),
        ("cost", number("cost_ms").map(duration)),
        ("cores", number("cores").map(|count| Value::from(count as u64))),
        ("partitions", number("partitions").map(|count| Value::from(count as u64))),
    ];
    settings.extend(given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    if let LoadPlan::Open { stages, poisson, .. } = experiment.load.at(levels) {
        settings.insert("stages".to_owned(), json!(stages));
        settings.insert("poisson".to_owned(), Value::from(poisson));
    }
    Value::Object(settings)
}

fn settings(experiment: &Experiment, levels: &Levels) -> Result<socket_stream::Settings, Problem> {
    let merged = merged(experiment, levels);
    // One by one first, so that the place of a value that cannot be read is known.
    for (key, value) in merged.as_object().into_iter().flatten() {
        serde_json::from_value::<socket_stream::Settings>(json!({ key: value })).map_err(|error| {
            Problem::new(format!("settings.{key}"), format!("{key}, a setting of socket-stream: {error}"))
        })?;
    }
    let settings: socket_stream::Settings = serde_json::from_value(merged)
        .map_err(|error| Problem::new("settings", format!("settings of socket-stream: {error}")))?;
    let place = |key: &str| match FACTOR_OF_SETTING.iter().find(|(setting, _)| *setting == key) {
        Some((_, factor)) if levels.contains_key(*factor) => format!("factors.{factor}"),
        _ => format!("settings.{key}"),
    };
    settings.check().map_err(|(key, message)| Problem::new(place(&key), message))?;
    Ok(settings)
}

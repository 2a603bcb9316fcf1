//! The systems that can be studied: one row each. A system says what it is made of; where it runs is not its business.

use std::time::Duration;

use kit::Role;

use crate::experiment::{DeploymentKind, Experiment, Level, Levels, Problem, Trial};
use crate::interrupt::Interrupt;
use crate::load::Scenario;
use crate::measure::lost::Found;

pub mod http;
pub mod socket_stream;
pub mod task_tracker;

/// A system under test, as the lab sees it.
pub trait System: Sync {
    /// Its name in experiments and on the command line.
    fn name(&self) -> &'static str;
    /// The question it answers.
    fn question(&self) -> &'static str;
    /// Its roles; none for a system that is only ever external.
    fn roles(&self) -> &'static [Role];
    /// Where it can run.
    fn deployments(&self) -> &'static [DeploymentKind];
    /// What can be varied.
    fn factors(&self) -> &'static [Factor];
    /// What can stand behind it: the kind of backend and its choices, the first of which is the default.
    fn backends(&self) -> &'static [(&'static str, &'static [&'static str])];
    /// What only this system knows about an experiment.
    ///
    /// # Errors
    /// The place, what is wrong, and what is allowed.
    fn check(&self, experiment: &Experiment) -> Result<(), Problem>;
    /// The roles of one cell, in the order of starting: a role after the peers it talks to.
    fn assemble(&self, experiment: &Experiment, levels: &Levels) -> Assembly;
    /// What users do in one cell.
    fn scenario(&self, experiment: &Experiment, levels: &Levels) -> Scenario;
    /// The settings that its roles are given in one cell.
    fn role_settings(&self, experiment: &Experiment, levels: &Levels) -> serde_json::Value;
    /// How long what was begun may take to end once the load has stopped, where that is not a matter of time-outs.
    fn drain_within(&self, _: &Experiment, _: &Levels) -> Option<Duration> {
        None
    }
    /// Runs its model on a virtual clock, for a system that has the deployment `simulated`.
    ///
    /// # Errors
    /// When what was measured cannot be kept.
    fn simulate(&self, experiment: &Experiment, _: &Trial, _: Simulation<'_>) -> anyhow::Result<()> {
        anyhow::bail!("{} has no simulation", experiment.system)
    }
    /// Everything that users have, read as they would, for the check of a history; none of a system or an experiment
    /// that cannot be asked.
    ///
    /// # Errors
    /// When nothing at all can be read. What cannot be read of one user is said in its place.
    fn read_back(&self, _: &ReadBack<'_>) -> anyhow::Result<Option<Vec<Found>>> {
        Ok(None)
    }
    /// Whether it is a stream, whose batches keep up or do not: then `stable` can be asked of it.
    fn is_stream(&self) -> bool {
        false
    }
    /// The kind whose operations the history of a trial counts, where they are of several that do not add up.
    fn counted_kind(&self) -> Option<&'static str> {
        None
    }
    /// What somebody should know before the first trial.
    fn warnings(&self, _: &Experiment) -> Vec<String> {
        Vec::new()
    }
    /// The largest rate that a cell of a stream bears by its model, in the unit of the factor `rate`; none where the
    /// model sets no limit, or there is no model.
    fn highest_stable_rate(&self, _: &Experiment, _: &Levels) -> Option<f64> {
        None
    }
    /// What the report should say of the settings.
    fn notes(&self, experiment: &Experiment) -> Vec<String>;
}

/// What is to be read back after a trial.
pub struct ReadBack<'a> {
    /// Where the system is, without a slash at the end.
    pub base_url: String,
    /// The experiment.
    pub experiment: &'a Experiment,
    /// The levels of the trial.
    pub levels: &'a Levels,
    /// What the generators knew as `{{run}}`.
    pub run: &'a str,
    /// The numbers of the users that wrote something.
    pub users: Vec<u64>,
    /// Ctrl-C.
    pub interrupt: &'a Interrupt,
}

/// What a simulation is given, and where its measurements go, as a role's would.
pub struct Simulation<'a> {
    /// The length of the schedule; then what was begun is finished.
    pub until: Duration,
    /// Its operations.
    pub recorder: &'a kit::Recorder,
    /// Its gauges.
    pub series: &'a kit::series::Series,
    /// What it tells beside numbers.
    pub journal: &'a kit::Journal,
    /// To be called when a second of virtual time has passed, with the time in ns: what was measured is taken out.
    pub each_second: &'a mut dyn FnMut(u64) -> anyhow::Result<()>,
}

/// The systems.
pub const SYSTEMS: &[&dyn System] = &[&task_tracker::TaskTracker, &socket_stream::SocketStream, &http::Http];

/// Something that can be varied.
pub struct Factor {
    /// Its name.
    pub name: &'static str,
    /// Its levels.
    pub kind: FactorKind,
    /// What it is.
    pub about: &'static str,
}

/// What a level may be.
pub enum FactorKind {
    /// A whole number of at least one.
    Count,
    /// A whole number; none of it is a level too.
    CountOrNone,
    /// A number above zero.
    Quantity,
    /// A number; none of it is a level too.
    QuantityOrNone,
    /// One of these names.
    OneOf(&'static [&'static str]),
}

impl FactorKind {
    /// # Errors
    /// What is wrong with the level, and what is allowed.
    pub fn check(&self, name: &str, level: &Level) -> Result<(), String> {
        match (self, level) {
            (Self::Count, Level::Int(count)) if (1..=1_000_000).contains(count) => Ok(()),
            (Self::Count, _) => Err(format!("{name} = {level}: a whole number from 1 to 1000000 is needed")),
            (Self::Quantity, level)
                if level.as_f64().is_some_and(|quantity| quantity > 0.0 && quantity.is_finite()) =>
            {
                Ok(())
            }
            (Self::CountOrNone, Level::Int(count)) if (0..=1_000_000).contains(count) => Ok(()),
            (Self::CountOrNone, _) => Err(format!("{name} = {level}: a whole number from 0 to 1000000 is needed")),
            (Self::QuantityOrNone, level)
                if level.as_f64().is_some_and(|quantity| quantity >= 0.0 && quantity.is_finite()) =>
            {
                Ok(())
            }
            (Self::QuantityOrNone, _) => Err(format!("{name} = {level}: a number of at least 0 is needed")),
            (Self::Quantity, _) => Err(format!("{name} = {level}: a number above 0 is needed")),
            (Self::OneOf(names), Level::Text(text)) if names.contains(&text.as_str()) => Ok(()),
            (Self::OneOf(names), _) => Err(format!("unknown {name} {level:?}; there are {}", names.join(", "))
                .replace("Text(", "")
                .replace(')', "")),
        }
    }
}

/// The roles of a cell.
pub struct Assembly {
    /// In the order of starting.
    pub parts: Vec<Part>,
    /// The role that the lab's generator talks to; none where a role of the system's own makes the load.
    pub entry: Option<&'static str>,
}

/// A role of a cell.
pub struct Part {
    /// Its name.
    pub role: &'static str,
    /// How many replicas.
    pub replicas: u32,
    /// The roles it talks to.
    pub peers: &'static [&'static str],
    /// The name of the database that its replicas share.
    pub database: Option<&'static str>,
    /// Where the first replica is served when the system is started by hand.
    pub port: u16,
    /// Whether it is studied; a role that makes the load is not.
    pub under_test: bool,
    /// Whether it is told start and stop, and measures operations itself.
    pub measures: bool,
}

/// A system by name.
pub fn find(name: &str) -> Option<&'static dyn System> {
    SYSTEMS.iter().copied().find(|system| system.name() == name)
}

/// All names, for messages.
pub fn names() -> String {
    SYSTEMS.iter().map(|system| system.name()).collect::<Vec<_>>().join(", ")
}

/// A role by system and name; `lab` is the lab itself.
///
/// # Errors
/// What there is instead.
pub fn find_role(system: &str, role: &str) -> anyhow::Result<Role> {
    let roles = match (system, find(system)) {
        ("lab", _) => crate::lab_roles::ROLES,
        (_, Some(system)) => system.roles(),
        (_, None) => return Err(crate::error::input(format!("unknown system {system:?}; there are {}, lab", names()))),
    };
    roles.iter().find(|candidate| candidate.name == role).copied().ok_or_else(|| {
        let names: Vec<_> = roles.iter().map(|role| role.name).collect();
        crate::error::input(format!("unknown role {role:?}; {system} has {}", names.join(", ")))
    })
}

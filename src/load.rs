//! Load: what users do, when, and the role that does it.
//!
//! [`schedule`] says when, [`scenario`] says what; both are pure. [`driver`] does it, a thread and a runtime for each
//! CPU, over [`client`] connections whose answers [`wire`] reads, woken by the [`pacer`]. The one rule: nothing that the
//! system under test does, or fails to do, moves an intended time.

pub mod client;
pub mod driver;
pub mod pacer;
pub mod probe;
pub mod scenario;
pub mod schedule;
pub mod track;
pub mod wire;

mod role;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use kit::schedule::Stage;
pub use role::{needed_files, raise_file_limit};
pub use track::{Does, Track};

/// The roles of this module.
pub const ROLES: &[kit::Role] =
    &[kit::Role { name: "load", about: "sends requests as users would, and measures them", run: role::run }];

/// What each user does: `setup` once, in order, before measuring; then one of `steps` at a time, drawn by weight.
///
/// Texts hold placeholders: `{{user}}` the user's number, unique in the run; `{{run}}` the run; `{{n}}` a number that
/// grows with each request of the user; `{{op}}` the request's own name, unique in the run; `{{uuid}}`; `{{random:1-100}}`; `{{name}}` a value extracted before;
/// `{{pick:name}}` any value of a collected list; `{{take:name}}` the same, removed from the list. A step whose list is
/// empty is not drawn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Done once a user before measuring; a step that fails its check ends the trial.
    #[serde(default)]
    pub setup: Vec<Step>,
    /// Drawn by weight while measuring.
    pub steps: Vec<Step>,
    /// One step after another instead.
    #[serde(default)]
    pub in_turn: bool,
}

/// What stands in an archive where something secret was left out.
pub const LEFT_OUT: &str = "***";

impl Scenario {
    /// Whether a history of it can be checked.
    pub fn is_tracked(&self) -> bool {
        self.setup.iter().chain(&self.steps).any(|step| step.track.is_some())
    }

    /// As an archive keeps it: without the values of headers whose name says that they are secret. A value with a
    /// placeholder is the scenario's own, such as a token that a step before extracts, and stays.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        let mut kept = self.clone();
        for step in kept.setup.iter_mut().chain(&mut kept.steps) {
            let secret = |(name, value): &(&String, &mut String)| kit::is_secret(name) && !value.contains("{{");
            step.headers.iter_mut().filter(secret).for_each(|(_, value)| LEFT_OUT.clone_into(value));
        }
        kept
    }

    /// What an archive has left out of it, in words: it cannot be sent as it is.
    pub fn left_out(&self) -> Option<String> {
        self.setup.iter().chain(&self.steps).find_map(|step| {
            let named = || step.name.clone().unwrap_or_else(|| format!("{} {}", step.method, step.path));
            let header = step.headers.iter().find(|(name, value)| kit::is_secret(name) && *value == LEFT_OUT);
            let what = match header {
                Some((name, _)) => format!("the header {name}"),
                None if step.body.as_deref() == Some(LEFT_OUT) => "the body".to_owned(),
                None if step.path.contains("=***") => "a parameter".to_owned(),
                None => return None,
            };
            Some(format!("{what} of step {:?} is {LEFT_OUT}", named()))
        })
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The kind of operation, in tables and figures; `METHOD path` when not given.
    #[serde(default)]
    pub name: Option<String>,
    /// GET, POST, …
    #[serde(default = "get")]
    pub method: String,
    /// The path and query, or a whole URL.
    pub path: String,
    /// Header lines.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body.
    #[serde(default)]
    pub body: Option<String>,
    /// How often it is drawn, relative to the others.
    #[serde(default = "one")]
    pub weight: u32,
    /// How often it is done, in setup.
    #[serde(default = "one")]
    pub repeat: u32,
    /// The mean think time after it, instead of the load's.
    #[serde(default, with = "crate::units::optional_duration", skip_serializing_if = "Option::is_none")]
    pub think: Option<Duration>,
    /// Values to keep from the answer.
    #[serde(default)]
    pub extract: BTreeMap<String, Extract>,
    /// What the answer must be.
    #[serde(default)]
    pub check: Check,
    /// What it does to which thing, for a history that can be checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track: Option<Track>,
}

impl Step {
    /// Whether sending it twice does no more than sending it once: by its method, or because it carries a key.
    pub fn is_repeatable(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE")
            || self.headers.keys().any(|name| name.eq_ignore_ascii_case("idempotency-key"))
    }
}

/// A value to keep from an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extract {
    /// A JSON pointer into the body.
    #[serde(default)]
    pub json: Option<String>,
    /// A header's name.
    #[serde(default)]
    pub header: Option<String>,
    /// Add it to a list, instead of replacing the value.
    #[serde(default)]
    pub collect: bool,
}

/// What an answer must be. A status that is not allowed is a failed operation; a body that is not is a wrong one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Allowed status codes; empty allows 200 to 399.
    #[serde(default)]
    pub status: Vec<u16>,
    /// JSON pointers that must be there, each with the type it must have (`string`, `number`, `integer`, `boolean`,
    /// `array`, `object`, `null`, `any`; `string?` allows null) or `=value` for one value.
    #[serde(default)]
    pub json: BTreeMap<String, String>,
}

fn get() -> String {
    "GET".to_owned()
}

fn one() -> u32 {
    1
}

/// The settings of the role `load`. It finds its target under the peer name `target` (`host:port`, several are taken in
/// turn) or in `base_url`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadSettings {
    /// `http://host:port` or `https://…`, instead of the peer `target`.
    #[serde(default)]
    pub base_url: Option<String>,
    /// What users do.
    pub scenario: Scenario,
    /// How load is offered, all replicas together.
    pub plan: crate::experiment::LoadPlan,
    /// How many replicas of the generator there are; this one takes its share (`replica` of the role's configuration).
    pub workers: u32,
    /// An operation without an answer for this long is given up.
    pub timeout: Duration,
    /// A new connection for every request.
    #[serde(default)]
    pub disable_keepalive: bool,
    /// End after this many requests, all replicas together.
    #[serde(default)]
    pub requests: Option<u64>,
    /// End this long after the start; the lab's stop signal ends it too.
    #[serde(default)]
    pub duration: Option<Duration>,
    /// Threads; none is one a CPU.
    #[serde(default)]
    pub threads: Option<usize>,
    /// Accept any certificate.
    #[serde(default)]
    pub insecure: bool,
    /// Tell each operation, a line each, beside the counts of a second.
    #[serde(default)]
    pub history: bool,
}

impl LoadSettings {
    /// Keep-alive load of a target, by default one that answers `/`, until the lab says stop.
    pub fn new(base_url: Option<String>) -> Self {
        Self {
            base_url,
            scenario: Scenario::default(),
            plan: crate::experiment::LoadPlan::Closed { users: 1, think: Duration::ZERO, spawn_rate: 1.0 },
            workers: 1,
            timeout: Duration::from_secs(10),
            disable_keepalive: false,
            requests: None,
            duration: None,
            threads: None,
            insecure: false,
            history: false,
        }
    }
}

#[cfg(test)]
mod tests;

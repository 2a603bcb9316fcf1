//! What an experiment may set, for every role of this system in one table.
//!
//! The one rule: each mechanism that changes how the system behaves under load has an off switch here, and its default
//! is what a careful operator would run.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// The `[settings]` of an experiment with this system; every role is given the same.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What hashing a password costs.
    pub argon2: Argon2Cost,
    /// Origins that may call from a browser; `"*"` is any. None: any origin on loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors_origins: Option<Vec<String>>,
    /// Connections each role opens to its database for reading. None: as many as suit the database and the CPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database_connections: Option<u32>,
    /// Requests a service works on at once; above it, it sheds. None: [`Settings::MAX_IN_FLIGHT`]. 0: it never sheds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<usize>,
    /// Whether a service drops a request once its caller has gone or has no time left. None: it does. Off: it finishes
    /// what it has begun, as most servers do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_expired: Option<bool>,
    /// What a request for tasks costs beside its own work. None: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// How long a token is good for, in minutes. None: [`Settings::TOKEN_MINUTES`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_minutes: Option<NonZeroU32>,
    /// How the gateway treats its upstreams.
    pub gateway: GatewaySettings,
}

impl Settings {
    /// How long a token is good for unless told otherwise, in minutes.
    pub const TOKEN_MINUTES: u32 = 30;
    /// How many requests a service works on at once unless told otherwise.
    pub const MAX_IN_FLIGHT: usize = 1024;
}

/// The cost of argon2id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Argon2Cost {
    /// The least the algorithm allows: for load tests that are not about logging in.
    Minimum,
    /// What the algorithm's authors recommend: 19 MiB, 2 iterations, 1 lane.
    #[default]
    Default,
    /// Anything else.
    #[serde(untagged)]
    Custom(Argon2Parameters),
}

/// The parameters of argon2id.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Argon2Parameters {
    /// Memory in KiB, at least 8 a lane.
    pub memory_kib: u32,
    /// Passes over the memory, at least 1.
    pub iterations: u32,
    /// Lanes, at least 1.
    pub lanes: u32,
}

/// A resource that each request for tasks holds for a while, as it would a connection of a small pool or a place at a slow
/// neighbour. It sleeps and uses no CPU, so that a replica's capacity, `slots` in each `ms`, is the same on any machine.
/// Who finds no slot waits for one, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// How long a slot is held.
    pub ms: NonZeroU32,
    /// How many there are in each replica.
    pub slots: NonZeroU32,
}

/// How the gateway treats its upstreams.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySettings {
    /// The time a request may take in all, tries and waits included. 0: no deadline.
    pub deadline_ms: u64,
    /// The time one try may take, within the deadline. 0: none of its own.
    pub try_timeout_ms: u64,
    /// The time connecting may take. 0: as long as it takes.
    pub connect_timeout_ms: u64,
    /// Requests the gateway has under way at once; above it, it sheds. 0: it never sheds.
    pub max_in_flight: usize,
    /// Whether connections to upstreams are kept for the next request. Off: one connection a request.
    pub pooled: bool,
    /// How a replica is chosen.
    pub balance: Balance,
    /// How often each replica is asked whether it is ready.
    pub readiness_interval_ms: u64,
    /// When a failed try is repeated.
    pub retries: RetrySettings,
    /// When a replica is left alone for a while.
    pub breaker: BreakerSettings,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            deadline_ms: 3_000,
            try_timeout_ms: 1_000,
            connect_timeout_ms: 250,
            max_in_flight: 512,
            pooled: true,
            balance: Balance::Ready,
            readiness_interval_ms: 250,
            retries: RetrySettings::default(),
            breaker: BreakerSettings::default(),
        }
    }
}

/// How a replica is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// Of two replicas drawn from those that are ready, the one with less under way.
    #[default]
    Ready,
    /// Of two replicas drawn from all, the one with less under way.
    LeastInFlight,
    /// Each in turn, ready or not.
    RoundRobin,
}

/// When a failed try is repeated: idempotent or keyed requests only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySettings {
    /// Whether there are retries at all.
    pub on: bool,
    /// Tries a request may have in all, the first included.
    pub max_tries: u32,
    /// Whether retries are limited to a share of the requests.
    pub budget: bool,
    /// That share.
    pub budget_percent: f64,
    /// Retries a second that are allowed whatever the share, so that a quiet gateway may retry too.
    pub budget_floor_per_s: f64,
    /// Whether the wait before a retry is drawn from 0 to its bound. Off: it is the bound.
    pub jitter: bool,
    /// The bound of the first wait; it doubles with each try.
    pub backoff_base_ms: u64,
    /// The largest bound.
    pub backoff_max_ms: u64,
    /// Whether a try that took too long is repeated too. The replica may still be at it: then there is more to do just
    /// when too much is to be done. A PUT is not repeated even so: the replica that was given up on may carry it out
    /// after the repeated one was answered, and after another change that came then, which it would overwrite. A GET
    /// changes nothing, a second DELETE finds nothing, and a keyed POST is done once.
    pub after_timeout: bool,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            on: true,
            max_tries: 2,
            budget: true,
            budget_percent: 20.0,
            budget_floor_per_s: 3.0,
            jitter: true,
            backoff_base_ms: 10,
            backoff_max_ms: 250,
            after_timeout: false,
        }
    }
}

/// When a replica is left alone for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerSettings {
    /// Whether there is a breaker at all.
    pub on: bool,
    /// The share of failures, in percent, that opens it.
    pub failure_percent: f64,
    /// Calls in the window below which it stays closed.
    pub min_calls: u32,
    /// The window over which calls are counted.
    pub window_ms: u64,
    /// How long it stays open before it lets probes through.
    pub open_ms: u64,
    /// Probes let through while half open; when all succeed it closes, when one fails it opens again.
    pub probes: u32,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { on: true, failure_percent: 50.0, min_calls: 20, window_ms: 10_000, open_ms: 1_000, probes: 3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_set_is_the_default_and_survives_a_round_trip() {
        let settings = read("{}").unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!(read(&serde_json::to_string(&settings).unwrap()).unwrap(), settings);
    }

    #[test]
    fn the_cost_of_argon2_is_a_word_or_three_numbers() {
        let cost = |text: &str| read(&format!(r#"{{"argon2": {text}}}"#)).map(|settings| settings.argon2);
        assert_eq!(cost(r#""minimum""#), Ok(Argon2Cost::Minimum));
        assert_eq!(cost(r#""default""#), Ok(Argon2Cost::Default));
        let parameters = Argon2Parameters { memory_kib: 64, iterations: 3, lanes: 1 };
        assert_eq!(cost(r#"{"memory_kib": 64, "iterations": 3, "lanes": 1}"#), Ok(Argon2Cost::Custom(parameters)));
        assert!(cost(r#""cheap""#).is_err());
        assert!(cost(r#"{"memory_kib": 64}"#).is_err());
    }

    #[test]
    fn an_unknown_key_is_refused_in_every_table() {
        for text in [
            r#"{"speed": 1}"#,
            r#"{"gateway": {"speed": 1}}"#,
            r#"{"gateway": {"retries": {"speed": 1}}}"#,
            r#"{"gateway": {"breaker": {"speed": 1}}}"#,
            r#"{"cost": {"ms": 1, "slots": 1, "speed": 1}}"#,
        ] {
            assert!(read(text).unwrap_err().contains("unknown field `speed`"), "{text}");
        }
    }
}

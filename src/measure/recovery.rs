//! Recovery: how long users suffered from a fault, and how much work was lost. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::faults::Injection;

/// What faults did to one trial. Seconds are since the trial's start where they are instants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecoverySummary {
    /// Each injection, in the order of commands.
    pub injections: Vec<Recovery>,
    /// Good operations of those offered over the measured window, in percent.
    pub availability_percent: Option<f64>,
    /// The same of operations that may be repeated safely: keyed and idempotent ones.
    pub availability_repeatable_percent: Option<f64>,
    /// The same by kind of operation.
    pub by_kind: BTreeMap<String, f64>,
    /// The same by user: that of the worst, the median and the mean user; none without a history.
    pub by_user: Option<ByUser>,
    /// Tries at upstreams for each operation of a client, over the measured window.
    pub amplification: Option<f64>,
    /// Why a number above or in an injection is null, by key.
    pub null_reasons: BTreeMap<String, String>,
}

/// Availability by user, in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ByUser {
    /// How many users sent something.
    pub users: u64,
    /// The worst.
    pub worst: f64,
    /// The median.
    pub median: f64,
    /// The mean.
    pub mean: f64,
}

/// What one injection did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// What was injected, and its four instants.
    pub injection: Injection,
    /// What was usual before; none with the reason in `unknown`.
    pub baseline: Option<Baseline>,
    /// Why nothing can be concluded: the baseline was not steady, too short, or the fault was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    /// From command to effect.
    pub time_to_effect_s: Option<f64>,
    /// From effect to the start of the first window out of band; none where it never left the band.
    pub time_to_detect_s: Option<f64>,
    /// From effect to the first sign that the system itself knows: a breaker that opens, a replica that is not ready.
    pub system_detects_s: Option<f64>,
    /// From effect to the first of five consecutive windows in band.
    pub recovered: Recovered,
    /// The same from `ready`; negative is 0.
    pub after_ready_s: Option<f64>,
    /// From ready until the backlog (operations under way) is at its usual size again.
    pub drain_s: Option<f64>,
    /// Σ w·(1 − min(1, good/offered)) over the windows from effect to recovery: as long as a full outage with the same loss.
    pub outage_equivalent_s: Option<f64>,
    /// Good operations of those offered from effect to recovery, in percent.
    pub availability_percent: Option<f64>,
    /// Operations that were offered from effect to recovery and did not end well.
    pub bad_operations: Option<u64>,
    /// ∫ (usual goodput − goodput) dt from effect to recovery, in operations.
    pub lost_work: Option<f64>,
    /// Share of the error budget of 30 days that it burnt, in percent, at the availability of the objective (99.9 % where none is stated).
    pub budget_burnt_percent: Option<f64>,
    /// Tries at upstreams for each operation of a client, from effect to recovery.
    pub amplification: Option<f64>,
    /// Most operations under way from effect to recovery.
    pub peak_in_flight: Option<f64>,
    /// Kinds of operation out of band.
    pub blast_radius: Vec<String>,
    /// Whether the load that it bore before keeps it down although the fault is gone; none where it was not watched long enough.
    pub metastable: Option<bool>,
}

/// What was usual in the windows before a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// The first second.
    pub from_s: f64,
    /// The second after the last.
    pub to_s: f64,
    /// Length of a window.
    pub window_s: f64,
    /// How many windows.
    pub windows: usize,
    /// Median of good operations a second.
    pub goodput_rps: f64,
    /// Their median absolute deviation.
    pub goodput_mad: f64,
    /// Share of operations that did not end well, in percent.
    pub error_percent: f64,
    /// 95th percentile of the total time.
    pub p95_ms: Option<f64>,
    /// A window is in band with at least this goodput,
    pub least_goodput_rps: f64,
    /// at most this share of operations that did not end well, in percent,
    pub most_error_percent: f64,
    /// at most this 95th percentile,
    pub most_p95_ms: Option<f64>,
    /// and no wrong answer.
    pub wrong: u64,
}

/// Whether and when users were served as before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "s")]
pub enum Recovered {
    /// It cannot be said.
    #[default]
    Unknown,
    /// It never left the band.
    Absorbed,
    /// So many seconds after the effect.
    After(f64),
    /// Not within the time that was watched: more than so many seconds.
    NotWithin(f64),
}

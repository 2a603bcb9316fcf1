//! Recovery: how long users suffered from a fault, and how much work was lost. Pure.
//!
//! One rule: a fault that was not recovered from within the time watched is *longer than* that, and never left out.
//!
//! Windows are one second, tumbling, of operations by the second they were intended for; where fewer than 50 operations
//! are usual in one, 2, 5, 10, 20, 30 or 60 seconds. The *baseline* are the 18 windows that end 2 s before the command,
//! or as many as the measured window and the end of the injection before leave, at least 5. It is *steady* when goodput
//! has no trend and a coefficient of variation of at most max(5 %, 2/√(operations of a window)).
//!
//! A window is *in band* when its goodput is at most 5 % of the median, or 3 · 1.4826 · MAD where that is more, below the
//! median; when at most 1 % of its operations did not end well, or the usual share and three binomial standard deviations
//! where that is more; when its p95 is at most 1.25 times the usual, or as many deviations above; and when no answer is
//! wrong. The 3 is Student's t at the same probability, because a deviation of few windows is uncertain: 3.5 with 18. In a closed loop goodput is as it was, because users who wait do not send; in an open loop it is read at the
//! usual rate of offering, so that the chance of arrivals is none of the system's. A band that only the loss of more than half would leave is none.
//!
//! Users are *down* from the first window out of band, at or after the effect, that is followed by another or lies twice
//! as far from the usual as the band is wide (six times of p95, whose tail is long): one in some hundred windows is just
//! out by chance. What begins later than five windows after ready is not the fault's doing; that a fault was *absorbed* is
//! only said where they were watched until then. They have *recovered* with the first of five consecutive windows in band
//! after which the fault does not take them out of it again. Every instant is known to one window.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::faults::Injection;

mod analyse;
mod band;
mod cell;
mod gauges;
#[cfg(test)]
pub(crate) mod made;
mod seconds;
#[cfg(test)]
mod tests;

pub(crate) use analyse::{analyse, calm};
pub(crate) use cell::summarize as summarize_cell;
pub use cell::{CellRecovery, KEYS};
pub(crate) use seconds::{Seconds, Tally};

/// Seconds of a full outage that the error budget of 30 days allows at an availability of 99.9 %.
pub const BUDGET_S: f64 = 0.001 * 30.0 * 86_400.0;

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
    /// Operations offered over the measured window: what availability rests on.
    #[serde(default)]
    pub offered: u64,
    /// Those of them that may be repeated safely.
    #[serde(default)]
    pub offered_repeatable: u64,
    /// Tries at upstreams for each operation of a client, over the measured window.
    pub amplification: Option<f64>,
    /// Why a number above is null, by key.
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

/// What one injection did. `s` of a duration are seconds, of an instant seconds since the trial's start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// What was injected, and its four instants.
    pub injection: Injection,
    /// The place of the injection that struck at the same time (within a second) and stands for this one too: what users
    /// felt is one event. Every number here is its.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub together_with: Option<usize>,
    /// What was usual before; none with the reason in `unknown`.
    pub baseline: Option<Baseline>,
    /// Why nothing can be concluded: `baseline: …` (not steady, too short), `skipped: …`, or else: it was not injected, or
    /// not watched until after it was over. Then nothing below that compares with the baseline is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    /// What else must be known to read the numbers, such as a baseline that is short.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// From command to effect.
    pub time_to_effect_s: Option<f64>,
    /// From effect to the start of the first window out of band; none where it never left the band.
    pub time_to_detect_s: Option<f64>,
    /// From effect to the first sign that the system itself knows: a gauge `breaker_open` or `not_ready` that rises.
    pub system_detects_s: Option<f64>,
    /// From effect to the first of five consecutive windows in band; of several such, after a relapse, the last.
    pub recovered: Recovered,
    /// The same from `ready`; negative is 0.
    pub after_ready_s: Option<f64>,
    /// From effect to when they left the band again after five windows in it, where they did by the fault's doing, and
    /// recovered from that too.
    #[serde(default)]
    pub relapsed_s: Option<f64>,
    /// The instant at which users began to suffer: the start of the first window out of band; none where none was.
    #[serde(default)]
    pub suffered_from_s: Option<f64>,
    /// The instant at which they were served as before, for good; where they were not, the end of what was watched.
    #[serde(default)]
    pub suffered_to_s: Option<f64>,
    /// From ready until operations under way and those that wait to be sent (the load's gauges `in_flight` and `backlog`)
    /// are no more than they were at most in the baseline.
    pub drain_s: Option<f64>,
    /// Σ w·(1 − min(1, good/offered)) over the windows from effect to recovery: as long as a full outage with the same
    /// loss. A window of a closed loop in which nothing was offered, because every user waited, counts in full. Like all
    /// sums below it goes on to the end of a relapse; where users never left the band, until ready; where they did not
    /// recover, as long as they were watched.
    pub outage_equivalent_s: Option<f64>,
    /// Good operations of those offered meanwhile, in percent.
    pub availability_percent: Option<f64>,
    /// Operations that were offered meanwhile and did not end well.
    pub bad_operations: Option<u64>,
    /// ∫ (usual goodput − goodput) dt meanwhile, in operations.
    pub lost_work: Option<f64>,
    /// Share of the error budget of 30 days at an availability of 99.9 % (43.2 minutes) that it burnt, in percent:
    /// [`Recovery::outage_equivalent_s`] over [`BUDGET_S`].
    pub budget_burnt_percent: Option<f64>,
    /// Tries at upstreams for each operation of a client meanwhile: growth of the gauge `tries` over operations offered.
    pub amplification: Option<f64>,
    /// Most operations under way meanwhile: the load's gauge `in_flight`.
    pub peak_in_flight: Option<f64>,
    /// Kinds of operation that were served worse than usual meanwhile, each by its own usual.
    pub blast_radius: Vec<String>,
    /// Whether the load that it bore before keeps it down although the fault is gone: not recovered within three times the
    /// length of the fault, and ten windows, after ready, and the goodput of the last five windows out of band. None where
    /// it was not watched that long.
    pub metastable: Option<bool>,
    /// Why a number above is null, by key.
    #[serde(default)]
    pub null_reasons: BTreeMap<String, String>,
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
    /// Median of operations offered a second.
    #[serde(default)]
    pub offered_rps: f64,
    /// Median of good operations a second; in an open loop at the usual rate of offering.
    pub goodput_rps: f64,
    /// Their median absolute deviation.
    pub goodput_mad: f64,
    /// Share of operations that did not end well, in percent.
    pub error_percent: f64,
    /// Median of the windows' 95th percentiles of the total time.
    pub p95_ms: Option<f64>,
    /// A window is in band with at least this goodput,
    pub least_goodput_rps: f64,
    /// at most this share of operations that did not end well, in percent,
    pub most_error_percent: f64,
    /// at most this 95th percentile, and no wrong answer.
    pub most_p95_ms: Option<f64>,
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
    /// So many seconds after the effect, for good.
    After(f64),
    /// Not within the time that was watched, which ends with the measured window or the next injection: more than so many
    /// seconds.
    NotWithin(f64),
}

impl Recovered {
    /// Seconds until users were served as before, or the seconds that it took longer than; none where it is not known.
    pub fn seconds(self) -> Option<f64> {
        match self {
            Self::Unknown => None,
            Self::Absorbed => Some(0.0),
            Self::After(s) | Self::NotWithin(s) => Some(s),
        }
    }

    /// Whether they were not, within the time watched.
    pub fn is_censored(self) -> bool {
        matches!(self, Self::NotWithin(_))
    }
}

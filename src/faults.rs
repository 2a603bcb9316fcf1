//! Faults: what is broken, when, for how long, and what came of it.
//!
//! [`Fault`] is what an experiment declares; [`Planned`] is one injection of it in one trial, with every choice made;
//! [`Injection`] is what happened, in four instants.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::proxy::LinkFault;

pub mod inject;
mod machine;
mod network;
mod plan;
mod process;

pub use plan::plan;

/// A fault, as an experiment declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// When.
    pub at: When,
    /// What; of several, one is drawn for each injection.
    pub kinds: Vec<FaultKind>,
    /// Whom.
    pub role: String,
    /// Which copy.
    pub replica: Which,
    /// Of a fault of a link: who talks to the role (`load` is the generator); none is everybody who does.
    pub from: Option<String>,
    /// How long until the repair; a restart needs none.
    pub downtime: Duration,
    /// From one injection to the next, where there are several.
    pub every: Duration,
    /// How many injections.
    pub times: u32,
}

/// When a fault begins, since the trial's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Then.
    At(Duration),
    /// Drawn from the trial's seed.
    Between(Duration, Duration),
}

/// Which replica of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// This one, from 1.
    One(u32),
    /// One drawn from the trial's seed.
    Random,
    /// All of them, each an injection of its own at the same time.
    All,
}

/// What is broken.
#[derive(Clone, Debug, PartialEq)]
pub enum FaultKind {
    /// Asked to stop, and started again at once.
    Restart,
    /// Asked to stop, and started again after the downtime.
    StopStart,
    /// Killed, and started again after the downtime.
    Kill,
    /// Held, and let go on after the downtime.
    Pause,
    /// Something done to a link, lifted after the downtime.
    Link(LinkFault),
    /// So many CPUs' worth of work beside the role, on its CPUs.
    CpuBurn {
        /// How many CPUs.
        cpus: f64,
    },
    /// So much memory taken beside the role.
    MemoryHog {
        /// How much.
        bytes: u64,
    },
}

impl FaultKind {
    /// Its name in files, on the command line, and in results.
    pub fn name(&self) -> &'static str {
        use crate::proxy::LinkKind;
        match self {
            Self::Restart => "restart",
            Self::StopStart => "stop-start",
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::CpuBurn { .. } => "cpu-burn",
            Self::MemoryHog { .. } => "memory-hog",
            Self::Link(link) => match link.kind {
                LinkKind::Latency { .. } => "latency",
                LinkKind::Bandwidth { .. } => "bandwidth",
                LinkKind::Blackhole => "blackhole",
                LinkKind::Reset { .. } => "reset",
                LinkKind::SlowClose { .. } => "slow-close",
                LinkKind::LimitData { .. } => "limit-data",
                LinkKind::FailFirst { .. } => "fail-first",
                LinkKind::ErrorRate { .. } => "error-rate",
                LinkKind::Slow { .. } => "slow",
            },
        }
    }
}

/// One injection of one trial, with every choice made.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// When it is commanded, since the trial's start.
    pub at: Duration,
    /// What.
    pub kind: FaultKind,
    /// Whom.
    pub role: String,
    /// Which copy, from 1.
    pub replica: u32,
    /// Of a link: who talks to the role; none is everybody who does.
    pub from: Option<String>,
    /// How long until the repair.
    pub downtime: Duration,
}

/// What happened: four instants in seconds since the trial's start, each none where it was not seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Injection {
    /// The name of its kind.
    pub kind: String,
    /// Whom.
    pub role: String,
    /// Which copy, from 1.
    pub replica: u32,
    /// Of a link: who talks to the role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The command was issued.
    pub command_s: Option<f64>,
    /// The effect was observed at the target.
    pub effect_s: Option<f64>,
    /// The repair was issued.
    pub repair_s: Option<f64>,
    /// The target was observed to be ready again.
    pub ready_s: Option<f64>,
    /// What this machine cannot do, where that is why it was not injected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// What went wrong, where something did; an instant above may be missing for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

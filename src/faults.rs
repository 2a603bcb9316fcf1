//! Faults: what is broken, when, for how long, and what came of it.
//!
//! [`Fault`] is what an experiment declares; [`Planned`] is one injection of it in one trial, with every choice made;
//! [`Injection`] is what happened, in four instants.

pub mod check;
pub mod heal;
pub mod identity;
pub mod inject;
pub mod journal;
pub mod leftovers;
mod machine;
mod network;
pub mod noted;
pub mod plan;
pub mod possible;
mod process;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::proxy::{self, LinkFault};
use crate::units;

/// The generator, as the name of who talks to a role.
pub const LOAD: &str = "load";

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

/// `30s`, or `30s..60s`.
impl std::str::FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((from, to)) = text.split_once("..") else { return units::parse_duration(text).map(Self::At) };
        let (from, to) = (units::parse_duration(from)?, units::parse_duration(to)?);
        if from > to {
            return Err(format!("{text:?} ends before it begins; write the earlier time first, such as 30s..60s"));
        }
        Ok(Self::Between(from, to))
    }
}

/// As it is read back.
impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(at) => f.write_str(&units::format_duration(*at)),
            Self::Between(from, to) => {
                write!(f, "{}..{}", units::format_duration(*from), units::format_duration(*to))
            }
        }
    }
}

/// A number from 1, `random`, or `all`.
impl std::str::FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("random", _) => Ok(Self::Random),
            ("all", _) => Ok(Self::All),
            (_, Ok(number)) if number > 0 => Ok(Self::One(number)),
            _ => Err(format!("{text:?} is no replica; write its number, from 1, or random, or all")),
        }
    }
}

/// As it is read back.
impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(number) => write!(f, "{number}"),
            Self::Random => f.write_str("random"),
            Self::All => f.write_str("all"),
        }
    }
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

impl Fault {
    /// The earliest and the latest time of its first injection.
    pub fn first(&self) -> (Duration, Duration) {
        match self.at {
            When::At(at) => (at, at),
            When::Between(from, to) => (from, to),
        }
    }

    /// Its kinds in words.
    pub fn kinds_in_words(&self) -> String {
        self.kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
    }
}

/// `kill of task-service 1 at 30s, 3 times every 20s`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, role, replica, times, every, .. } = self;
        write!(f, "{} of {role} {replica}", self.kinds_in_words())?;
        self.from.iter().try_for_each(|from| write!(f, " from {from}"))?;
        write!(f, " at {at}")?;
        if *times > 1 {
            write!(f, ", {times} times every {}", units::format_duration(*every))?;
        }
        Ok(())
    }
}

impl FaultKind {
    /// Its name in files, on the command line, and in results.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::StopStart => "stop-start",
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::CpuBurn { .. } => "cpu-burn",
            Self::MemoryHog { .. } => "memory-hog",
            Self::Link(link) => link.name(),
        }
    }

    /// Whether it acts on the replica itself: two of these at a time on one contradict each other.
    pub fn is_of_process(&self) -> bool {
        matches!(self, Self::Restart | Self::StopStart | Self::Kill | Self::Pause)
    }

    /// Whether it lasts until a repair.
    pub fn has_downtime(&self) -> bool {
        !matches!(self, Self::Restart)
    }
}

/// `kill`, `cpu-burn=2`, `memory-hog=256MiB`, or a fault of a link such as `latency=50ms,jitter=5ms`.
impl std::str::FromStr for FaultKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let name = text.split([',', '=']).next().unwrap_or(text).trim();
        let rest = text[name.len()..].trim_start();
        let value = rest.strip_prefix('=').unwrap_or(rest).trim();
        match name {
            "restart" | "stop-start" | "kill" | "pause" if !rest.is_empty() => {
                Err(format!("{name} takes no value; take {rest} out"))
            }
            "restart" => Ok(Self::Restart),
            "stop-start" => Ok(Self::StopStart),
            "kill" => Ok(Self::Kill),
            "pause" => Ok(Self::Pause),
            "cpu-burn" if rest.is_empty() => Ok(Self::CpuBurn { cpus: 1.0 }),
            "cpu-burn" => {
                let cpus = value.parse().ok().filter(|cpus: &f64| cpus.is_finite() && *cpus > 0.0);
                let cpus = cpus.ok_or_else(|| format!("{value:?} is no number of CPUs; write cpu-burn=1 or 0.5"))?;
                Ok(Self::CpuBurn { cpus })
            }
            "memory-hog" if rest.is_empty() => {
                Err("memory-hog needs its memory; write for instance memory-hog=256MiB".to_owned())
            }
            "memory-hog" => match units::parse_size(value)? {
                0 => Err("a memory-hog of no memory does nothing; write for instance memory-hog=256MiB".to_owned()),
                bytes => Ok(Self::MemoryHog { bytes }),
            },
            _ if proxy::KINDS.iter().any(|kind| kind.name == name) => text.parse().map(Self::Link),
            _ => {
                let own = OWN_KINDS.iter().map(|(name, _)| *name);
                let all: Vec<_> = own.chain(proxy::KINDS.iter().map(|kind| kind.name)).collect();
                Err(format!("unknown kind of fault {name:?}; there are {}", all.join(", ")))
            }
        }
    }
}

/// As it is read back.
impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(link) => write!(f, "{link}"),
            Self::CpuBurn { cpus } => write!(f, "cpu-burn={cpus}"),
            Self::MemoryHog { bytes } if bytes.is_multiple_of(1 << 20) => write!(f, "memory-hog={}MiB", bytes >> 20),
            Self::MemoryHog { bytes } => write!(f, "memory-hog={bytes}"),
            kind => f.write_str(kind.name()),
        }
    }
}

/// The kinds that are no fault of a link, and what each does.
pub const OWN_KINDS: &[(&str, &str)] = &[
    ("restart", "asked to stop, and started again at once"),
    ("stop-start", "asked to stop, and started again after the downtime"),
    ("kill", "killed, and started again after the downtime"),
    ("pause", "held, and let go on after the downtime"),
    ("cpu-burn", "so many CPUs' worth of work beside the role, on its CPUs"),
    ("memory-hog", "so much memory taken beside the role, at most half of what is available"),
];

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
    /// How long until the repair; zero for a restart.
    pub downtime: Duration,
}

/// `kill of task-service 1`, `latency=50ms of gateway 1 from load`.
impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, role, replica, .. } = self;
        write!(f, "{kind} of {role} {replica}")?;
        self.from.iter().try_for_each(|from| write!(f, " from {from}"))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_and_written_back() {
        for (text, written) in [
            ("kill", "kill"),
            (" stop-start ", "stop-start"),
            ("cpu-burn", "cpu-burn=1"),
            ("cpu-burn = 0.5", "cpu-burn=0.5"),
            ("memory-hog=0.25GiB", "memory-hog=256MiB"),
            ("memory-hog=1kB", "memory-hog=1000"),
            ("blackhole,direction=both", "blackhole"),
            ("latency=50ms,jitter=5ms", "latency=50ms,jitter=5ms"),
        ] {
            let kind: FaultKind = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(kind.to_string(), written);
            assert_eq!(written.parse(), Ok(kind), "{text}");
        }
        for (text, expected) in [
            ("", "there are restart, stop-start, kill, pause, cpu-burn, memory-hog, latency"),
            ("kill=9", "kill takes no value; take =9 out"),
            ("pause,latency=1s", "takes no value"),
            ("cpu-burn=many", "no number of CPUs"),
            ("cpu-burn,2,3", "no number of CPUs"),
            ("memory-hog", "needs its memory"),
            ("memory-hog=0", "does nothing"),
            ("latency", "needs its latency"),
        ] {
            let error = text.parse::<FaultKind>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn times_and_replicas_are_read_and_written_back() {
        for text in ["30s", "1500ms", "20s..1m"] {
            assert_eq!(text.parse::<When>().unwrap().to_string(), text);
        }
        for text in ["1", "3", "random", "all"] {
            assert_eq!(text.parse::<Which>().unwrap().to_string(), text);
        }
        assert!("9s..1s".parse::<When>().is_err() && "..".parse::<When>().is_err());
        assert!("0".parse::<Which>().is_err() && "-1".parse::<Which>().is_err() && "each".parse::<Which>().is_err());
    }
}

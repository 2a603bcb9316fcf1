//! `scalelab arch fail`: one service of the task tracker fails under steady load.
//!
//! The one rule: the flags make an experiment and nothing else; `--print-experiment` shows it as the file that does the
//! same. Names and defaults are those of the published tool, so that its command lines work here.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Common, set_replicas};
use crate::error::input;
use crate::experiment::{Experiment, Level, LoadPlan, RoleLimits};
use crate::faults::{Fault, FaultKind, When, Which};
use crate::{systems, units};

const SYSTEM: &str = "task-tracker";

/// How often it is injected, each time into a system that was started anew, so that there is an interval.
const TRIALS: u32 = 5;

/// How long a trial takes in all.
const DURATION: Duration = Duration::from_secs(90);

/// How long it is down, where that is up to the lab.
const DOWNTIME: Duration = Duration::from_secs(10);

/// `scalelab arch fail`.
#[derive(Args)]
pub struct FailArgs {
    /// The role that fails; container names such as tasktracker_task_service do too [default: task-service, or monolith]
    #[arg(long, value_name = "ROLE", alias = "target-service")]
    target: Option<String>,
    /// restart, stop-start, kill, pause, cpu-burn=CPUS, memory-hog=SIZE, or what is done to the link to it, such as
    /// latency=200ms,jitter=20ms, blackhole, reset, error-rate=10%; repeat it, and one is drawn for each trial
    #[arg(long, value_name = "MODE", default_value = "restart")]
    failure_mode: Vec<FaultKind>,
    /// Which copy: a number from 1, random, or all
    #[arg(long, value_name = "N", default_value = "1")]
    replica: Which,
    /// Of a link: who talks to the target, such as gateway, or load for the generator [default: everybody who does]
    #[arg(long, value_name = "ROLE")]
    from: Option<String>,
    /// When, since the start of the load; at least 20 s after everybody has started and the warm-up has passed, to know
    /// what is usual
    #[arg(long, value_parser = units::parse_duration, default_value = "30s", value_name = "DURATION")]
    inject_at: Duration,
    /// How long until it is repaired; a restart needs none [default: 10s]
    #[arg(long, value_parser = units::parse_duration, value_name = "DURATION")]
    downtime: Option<Duration>,
    /// Users
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: u32,
    /// Users that start a second
    #[arg(long, default_value_t = 20.0)]
    spawn_rate: f64,
    /// Mean think time of a user
    #[arg(long, value_parser = units::parse_duration, default_value = "200ms")]
    think: Duration,
    /// Replicas of each service behind the gateway, or of the monolith
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    replicas: u32,
    /// Which architecture
    #[arg(long, value_enum, default_value = "microservices", alias = "arch")]
    architecture: Architecture,
    /// What protects the gateway: none, timeout, retry, budget, breaker, shedding, each with those before it; several
    /// are compared [default: all of them]
    #[arg(long, value_delimiter = ',', value_name = "LEVEL,LEVEL,…")]
    resilience: Vec<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Architecture {
    Monolith,
    Microservices,
}

impl FailArgs {
    /// The flags that every verb has. The duration is not among them: here it is that of the whole trial.
    pub fn common(&self) -> Common {
        Common { duration: None, ..self.common.clone() }
    }

    /// The experiment that the flags make.
    ///
    /// # Errors
    /// Flags that make no sense together, with the way out, as input.
    pub fn experiment(&self) -> anyhow::Result<Experiment> {
        if self.common.base_url.is_some() {
            return Err(input(
                "--base-url: a fault needs a system that the lab has started, to break it and to repair it; leave it \
                 out, and choose --deployment processes or in-process",
            ));
        }
        let name = match self.architecture {
            Architecture::Monolith => "monolith",
            Architecture::Microservices => "microservices",
        };
        let target = self.target()?;
        let text = |name: &str| Level::Text(name.to_owned());
        let mut factors = BTreeMap::from([("architecture".to_owned(), vec![text(name)])]);
        if !self.resilience.is_empty() {
            factors.insert("resilience".to_owned(), self.resilience.iter().map(|level| text(level)).collect());
        }
        let mut experiment = Experiment {
            question: format!("How long do users suffer when {target} fails, and is any acknowledged write lost?"),
            name: "arch-fail".to_owned(),
            system: SYSTEM.to_owned(),
            trials: TRIALS,
            factors,
            load: LoadPlan::Closed { users: self.concurrency, think: self.think, spawn_rate: self.spawn_rate },
            settings: serde_json::json!({"argon2": "minimum"}),
            faults: vec![Fault {
                at: When::At(self.inject_at),
                kinds: self.failure_mode.clone(),
                role: target,
                replica: self.replica,
                from: self.from.clone(),
                downtime: self.downtime()?,
                every: Duration::ZERO,
                times: 1,
            }],
            ..Experiment::empty()
        };
        experiment.warmup = self.common.warmup.unwrap_or(experiment.warmup);
        experiment.duration = self.measured(&experiment)?;
        match self.architecture {
            Architecture::Monolith if self.replicas > 1 => {
                let limits = RoleLimits { replicas: Some(self.replicas), ..RoleLimits::default() };
                experiment.roles.insert(name.to_owned(), limits);
            }
            _ => set_replicas(&mut experiment, &[self.replicas], &[name]),
        }
        Ok(experiment)
    }

    /// The role, by its own name or by that of the published container.
    fn target(&self) -> anyhow::Result<String> {
        let Some(given) = &self.target else {
            return Ok(match self.architecture {
                Architecture::Monolith => "monolith",
                Architecture::Microservices => "task-service",
            }
            .to_owned());
        };
        let name = given.strip_prefix("tasktracker_").unwrap_or(given).replace('_', "-");
        let role = match name.as_str() {
            "app" => "monolith",
            "api-gateway" => "gateway",
            name => name,
        };
        let roles: Vec<_> = systems::find(SYSTEM).into_iter().flat_map(|system| system.roles()).collect();
        if roles.iter().any(|known| known.name == role) {
            return Ok(role.to_owned());
        }
        let names: Vec<_> = roles.iter().map(|role| role.name).collect();
        Err(input(format!("--target {given}: there is no such role; {SYSTEM} has {}", names.join(", "))))
    }

    fn downtime(&self) -> anyhow::Result<Duration> {
        let is_needed = self.failure_mode.iter().any(FaultKind::has_downtime);
        match self.downtime {
            Some(_) if !is_needed => Err(input(
                "--downtime: a restart is over when the service is back; leave it out, or write --failure-mode stop-start",
            )),
            Some(downtime) => Ok(downtime),
            None if is_needed => Ok(DOWNTIME),
            None => Ok(Duration::ZERO),
        }
    }

    /// What is left of the whole trial once everybody has started and the warm-up has passed.
    fn measured(&self, experiment: &Experiment) -> anyhow::Result<Duration> {
        if !(self.spawn_rate > 0.0 && self.spawn_rate.is_finite()) {
            return Err(input(format!("--spawn-rate {}: it must be above 0", self.spawn_rate)));
        }
        let whole = self.common.duration.unwrap_or(DURATION);
        let begin = Duration::from_secs(experiment.window(&experiment.load).start.into());
        whole.checked_sub(begin).filter(|measured| *measured >= Duration::from_secs(1)).ok_or_else(|| {
            input(format!(
                "--duration {}: {} users at {} a second and the warm-up take {} of it, and nothing is left to measure; \
                 make it longer, or the start shorter with --spawn-rate or --warmup",
                units::format_duration(whole),
                self.concurrency,
                self.spawn_rate,
                units::format_duration(begin),
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: FailArgs,
    }

    fn experiment(flags: &[&str]) -> Result<Experiment, String> {
        let line = Line::try_parse_from([&["x"][..], flags].concat()).map_err(|error| error.to_string())?;
        line.args.experiment().map_err(|error| error.to_string())
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_not_said_is_as_in_the_published_tool() {
        let experiment = experiment(&[]).unwrap();
        assert_eq!(
            experiment.load,
            LoadPlan::Closed { users: 100, think: Duration::from_millis(200), spawn_rate: 20.0 }
        );
        let fault = Fault {
            at: When::At(seconds(30)),
            kinds: vec![FaultKind::Restart],
            role: "task-service".to_owned(),
            replica: Which::One(1),
            from: None,
            downtime: Duration::ZERO,
            every: Duration::ZERO,
            times: 1,
        };
        assert_eq!(experiment.faults, [fault]);
        assert_eq!(experiment.trials, 5);
        // The last of 100 users starts after 4.95 s, and 2 s warm them up.
        assert_eq!(experiment.window(&experiment.load), 7..90);
    }

    #[test]
    fn a_role_is_known_by_its_name_and_by_that_of_its_container() {
        for (flags, role) in [
            (&["--target", "user-service"][..], "user-service"),
            (&["--target-service", "tasktracker_task_service"], "task-service"),
            (&["--target-service", "tasktracker_api_gateway"], "gateway"),
            (&["--target", "tasktracker_app", "--arch", "monolith"], "monolith"),
            (&["--architecture", "monolith"], "monolith"),
        ] {
            assert_eq!(experiment(flags).unwrap().faults[0].role, role, "{flags:?}");
        }
    }

    #[test]
    fn the_duration_is_that_of_the_whole_trial() {
        for (flags, window) in [
            (&["--duration-seconds", "60"][..], 7..60),
            (&["--duration", "60s", "--warmup", "10s"], 15..60),
            (&["--duration", "12s", "--concurrency", "10"], 3..12),
        ] {
            let experiment = experiment(flags).unwrap();
            assert_eq!(experiment.window(&experiment.load), window, "{flags:?}");
        }
    }

    #[test]
    fn flags_become_the_fault_the_arms_and_the_replicas() {
        let made = experiment(&[
            "--failure-mode=kill",
            "--failure-mode=pause",
            "--replica=random",
            "--downtime=5",
            "--replicas=3",
            "--resilience=none,breaker",
        ])
        .unwrap();
        let fault = &made.faults[0];
        assert_eq!((&fault.kinds[..], fault.replica), (&[FaultKind::Kill, FaultKind::Pause][..], Which::Random));
        assert_eq!(fault.downtime, seconds(5));
        assert_eq!(made.roles["task-service"].replicas, Some(3));
        assert_eq!(crate::experiment::cells(&made).len(), 2);
        let monolith = experiment(&["--architecture=monolith", "--replicas=2"]).unwrap();
        assert_eq!(monolith.roles["monolith"].replicas, Some(2));
    }

    #[test]
    fn a_flag_that_makes_no_sense_is_refused_with_the_way_out() {
        for (flags, expected) in [
            (&["--target", "tasktracker_task_db"][..], "gateway, user-service, task-service"),
            (&["--failure-mode", "explode"], "stop-start"),
            (&["--failure-mode", "cpu-burn=0"], "cpu-burn=1"),
            (&["--downtime", "5s"], "--failure-mode stop-start"),
            (&["--replica", "0"], "random, or all"),
            (&["--duration", "6s"], "nothing is left"),
            (&["--spawn-rate", "0"], "above 0"),
            (&["--base-url", "http://localhost:8000"], "--deployment processes"),
        ] {
            let error = experiment(flags).map(|_| ()).unwrap_err();
            assert!(error.contains(expected), "{flags:?}: {error}");
        }
    }
}

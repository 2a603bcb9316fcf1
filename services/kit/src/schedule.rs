//! When operations are due: pure, seeded, without a clock.
//!
//! The one rule: the i-th arrival is a function of the stages, the kind of arrivals and the seed. Nothing that happens
//! while a run lasts moves it, and how many threads or replicas share the work does not either: the i-th arrival
//! belongs to lane `i mod lanes`.
//!
//! Stages are one function of time, the cumulative rate Λ(t). An evenly spaced schedule puts its k-th arrival where
//! Λ(t) = k; a Poisson one where Λ(t) is the k-th arrival of a unit Poisson process (the time-change theorem; Devroye,
//! Non-Uniform Random Variate Generation, 1986, VI.1.3). So a ramp costs no thinning and no arrival drifts.

use std::time::Duration;

use rand::RngExt as _;
use serde::{Deserialize, Serialize};

const NS_PER_S: f64 = 1e9;

/// A stretch of an open schedule: the rate goes from `from_per_s` to `to_per_s` linearly.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// How long; none for ever.
    pub duration: Option<Duration>,
    /// The rate at its start.
    pub from_per_s: f64,
    /// The rate at its end.
    pub to_per_s: f64,
}

/// Intended times in nanoseconds since the start of the schedule, in order.
#[derive(Clone)]
pub struct Schedule {
    stages: Vec<Stage>,
    /// None for even spacing.
    poisson: Option<crate::Rng>,
    /// The stage that holds the next arrival.
    stage: usize,
    /// When that stage begins, in seconds.
    stage_start_s: f64,
    /// Λ at the beginning of that stage.
    stage_start_mass: f64,
    /// Arrivals given so far.
    given: u64,
    /// Λ of the next arrival, for Poisson arrivals.
    mass: f64,
}

impl Schedule {
    /// A schedule of stages, one after another. Those after one without end are never reached.
    pub fn new(stages: &[Stage], poisson: bool, seed: u64) -> Self {
        let mut schedule = Self {
            stages: stages.to_vec(),
            poisson: poisson.then(|| crate::rng(seed, "load/arrivals")),
            stage: 0,
            stage_start_s: 0.0,
            stage_start_mass: 0.0,
            given: 0,
            mass: 0.0,
        };
        schedule.mass = schedule.unit_gap();
        schedule
    }

    /// Only the arrivals of one lane of `lanes`.
    ///
    /// # Panics
    /// When there are no lanes.
    pub fn lane(self, lane: usize, lanes: usize) -> impl Iterator<Item = u64> + use<> {
        assert!(lane < lanes, "lane {lane} of {lanes}");
        self.skip(lane).step_by(lanes)
    }

    /// A unit exponential for Poisson arrivals, nothing otherwise.
    fn unit_gap(&mut self) -> f64 {
        self.poisson.as_mut().map_or(0.0, |rng| -(1.0 - rng.random::<f64>()).ln())
    }

    fn next_mass(&self) -> f64 {
        // Counted, not summed up: an evenly spaced schedule must not drift.
        if self.poisson.is_some() { self.mass } else { self.given as f64 }
    }
}

impl Iterator for Schedule {
    type Item = u64;

    /// Evenly spaced arrivals are passed over without visiting each.
    fn nth(&mut self, n: usize) -> Option<u64> {
        if self.poisson.is_none() {
            self.given += n as u64;
            return self.next();
        }
        for _ in 0..n {
            self.next()?;
        }
        self.next()
    }

    fn next(&mut self) -> Option<u64> {
        let mass = self.next_mass();
        loop {
            let stage = self.stages.get(self.stage)?;
            let within = mass - self.stage_start_mass;
            if within < mass_of(stage) {
                let at_s = self.stage_start_s + time_to_mass(stage, within);
                self.given += 1;
                self.mass += self.unit_gap();
                return Some((at_s * NS_PER_S).round() as u64);
            }
            self.stage_start_mass += mass_of(stage);
            self.stage_start_s += stage.duration?.as_secs_f64();
            self.stage += 1;
        }
    }
}

/// How many arrivals a stage holds, on average.
fn mass_of(stage: &Stage) -> f64 {
    match stage.duration {
        Some(duration) => (stage.from_per_s + stage.to_per_s) / 2.0 * duration.as_secs_f64(),
        None if stage.from_per_s > 0.0 => f64::INFINITY,
        None => 0.0,
    }
}

/// Seconds into the stage at which `mass` arrivals have come: the root of a·t + s·t²/2 = mass, in the form that stays
/// exact for a flat stage (s = 0).
fn time_to_mass(stage: &Stage, mass: f64) -> f64 {
    let slope = stage.duration.map_or(0.0, |duration| (stage.to_per_s - stage.from_per_s) / duration.as_secs_f64());
    if mass == 0.0 {
        return 0.0;
    }
    if slope == 0.0 {
        return mass / stage.from_per_s;
    }
    let root = (stage.from_per_s * stage.from_per_s + 2.0 * slope * mass).max(0.0).sqrt();
    2.0 * mass / (stage.from_per_s + root)
}

/// How many arrivals stages hold, on average; infinite when one of them has no end.
pub fn arrivals(stages: &[Stage]) -> f64 {
    stages.iter().map(mass_of).sum()
}

/// How long stages last; none when one of them has no end.
pub fn total_duration(stages: &[Stage]) -> Option<Duration> {
    stages.iter().map(|stage| stage.duration).sum()
}

/// The stages as far as they go before `end`, and before they have given `most` arrivals.
pub fn until(stages: &[Stage], end: Duration, most: Option<u64>) -> Vec<Stage> {
    let mut left = end;
    let mut mass = most.map_or(f64::INFINITY, |most| most as f64);
    let mut kept = Vec::new();
    for stage in stages {
        let length = kept_of(stage, left, mass);
        let cut = cut(stage, length);
        left -= length;
        // Rounding must not make it negative.
        mass = (mass - mass_of(&cut)).max(0.0);
        kept.push(cut);
        if stage.duration != Some(length) {
            break;
        }
    }
    kept
}

/// How much of a stage lies within `left` and within `mass` arrivals.
fn kept_of(stage: &Stage, left: Duration, mass: f64) -> Duration {
    let length = stage.duration.map_or(left, |duration| duration.min(left));
    if mass < mass_of(stage) { length.min(Duration::from_secs_f64(time_to_mass(stage, mass))) } else { length }
}

fn cut(stage: &Stage, length: Duration) -> Stage {
    let share = stage.duration.map_or(0.0, |duration| length.as_secs_f64() / duration.as_secs_f64());
    let to_per_s = stage.from_per_s + (stage.to_per_s - stage.from_per_s) * share;
    Stage { duration: Some(length), from_per_s: stage.from_per_s, to_per_s }
}

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

use super::Stage;
use crate::units::parse_duration;

const NS_PER_S: f64 = 1e9;

/// Intended times in nanoseconds since the start of the schedule, in order.
#[derive(Clone)]
pub struct Schedule {
    stages: Vec<Stage>,
    /// None for even spacing.
    poisson: Option<kit::Rng>,
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
            poisson: poisson.then(|| kit::rng(seed, "load/arrivals")),
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

/// Reads stages such as `30s:100,1m:500`: for 30 s 100 a second, then for a minute 500 a second.
///
/// `~` before a rate ramps linearly from the rate before it (0 at the beginning) over the stage: `30s:~100` goes from
/// 0 to 100 in 30 s. A rate of 0 is a pause.
///
/// # Errors
/// What is wrong, with the stage it is in.
pub fn parse_stages(text: &str) -> Result<Vec<Stage>, String> {
    let mut before_per_s = 0.0;
    let mut stages = Vec::new();
    for part in text.split(',').map(str::trim) {
        let stage = parse_stage(part, before_per_s)
            .map_err(|error| format!("stage {part:?}: {error}; write duration:rate, such as 30s:100,1m:500"))?;
        before_per_s = stage.to_per_s;
        stages.push(stage);
    }
    Ok(stages)
}

fn parse_stage(text: &str, before_per_s: f64) -> Result<Stage, String> {
    let (duration, rate) = text.split_once(':').ok_or("no colon between duration and rate")?;
    let duration = parse_duration(duration)?;
    if duration.is_zero() {
        return Err("it lasts no time".to_owned());
    }
    let (ramp, rate) = rate.trim().strip_prefix('~').map_or((false, rate.trim()), |rate| (true, rate));
    let to_per_s: f64 = rate.parse().map_err(|_| format!("{rate:?} is not a rate"))?;
    if !to_per_s.is_finite() || to_per_s < 0.0 {
        return Err(format!("{rate:?} is not a rate"));
    }
    let from_per_s = if ramp { before_per_s } else { to_per_s };
    Ok(Stage { duration: Some(duration), from_per_s, to_per_s })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn times_ms(stages: &str, poisson: bool, seed: u64) -> Vec<u64> {
        Schedule::new(&parse_stages(stages).unwrap(), poisson, seed).map(|ns| ns / MS).collect()
    }

    #[test]
    fn evenly_spaced_arrivals_are_exact() {
        for (stages, expect) in [
            ("1s:5", vec![0, 200, 400, 600, 800]),
            ("1s:2,1s:4", vec![0, 500, 1000, 1250, 1500, 1750]),
            ("1s:2,1s:0,1s:2", vec![0, 500, 2000, 2500]),
            // Λ(t) = t²: arrival k at √k seconds.
            ("2s:~4", vec![0, 1000, 1414, 1732]),
            // Down from 4 a second to 0 in 2 s: 4t − t² = k.
            ("1s:4,2s:~0", vec![0, 250, 500, 750, 1000, 1267, 1585, 2000]),
        ] {
            assert_eq!(times_ms(stages, false, 0), expect, "{stages}");
        }
    }

    #[test]
    fn a_constant_rate_does_not_drift() {
        let stage = Stage { duration: None, from_per_s: 3.0, to_per_s: 3.0 };
        let at = Schedule::new(&[stage], false, 0).nth(3_000_000).unwrap();
        assert_eq!(at, 1_000_000_000_000_000);
    }

    #[test]
    fn the_same_seed_gives_the_same_poisson_arrivals_and_another_seed_others() {
        assert_eq!(times_ms("1s:1000", true, 7), times_ms("1s:1000", true, 7));
        assert_ne!(times_ms("1s:1000", true, 7), times_ms("1s:1000", true, 8));
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_spread_of_an_exponential() {
        let stage = Stage { duration: None, from_per_s: 1000.0, to_per_s: 1000.0 };
        let times: Vec<u64> = Schedule::new(&[stage], true, 1).take(100_001).collect();
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        // Standard error of both is 0.3 % of the mean.
        assert!((mean / 1e6 - 1.0).abs() < 0.015, "mean gap {mean} ns");
        assert!((deviation / mean - 1.0).abs() < 0.02, "deviation {deviation} ns");
    }

    #[test]
    fn poisson_arrivals_follow_a_ramp() {
        let times = times_ms("10s:~2000", true, 3);
        let first_half = times.iter().filter(|at| **at < 5000).count();
        // A quarter of 10,000 arrivals come in the first half; five standard deviations are 217.
        assert!((first_half as i64 - 2500).abs() < 250, "{first_half} arrivals");
    }

    #[test]
    fn lanes_share_the_arrivals_without_changing_them() {
        let all: Vec<u64> = Schedule::new(&parse_stages("1s:100").unwrap(), true, 7).collect();
        let mut merged: Vec<u64> =
            (0..3).flat_map(|lane| Schedule::new(&parse_stages("1s:100").unwrap(), true, 7).lane(lane, 3)).collect();
        merged.sort_unstable();
        assert_eq!(merged, all);
    }

    #[test]
    fn stages_are_cut_at_a_time_or_at_a_number_of_arrivals() {
        let held = [Stage { duration: None, from_per_s: 200.0, to_per_s: 200.0 }];
        let ramps = parse_stages("1s:10,2s:~30,5s:7").unwrap();
        for (stages, end_ms, most, lengths_ms, holds) in [
            (&held[..], 2600, None, vec![2600], 520.0),
            (&held[..], 5000, Some(100), vec![500], 100.0),
            (&ramps[..], 2000, None, vec![1000, 1000], 10.0 + 15.0),
            (&ramps[..], 9000, Some(5), vec![500], 5.0),
            (&ramps[..], 4000, Some(1_000), vec![1000, 2000, 1000], 10.0 + 40.0 + 7.0),
        ] {
            let kept = until(stages, Duration::from_millis(end_ms), most);
            let found: Vec<_> = kept.iter().map(|stage| stage.duration.unwrap().as_millis()).collect();
            assert_eq!(found, lengths_ms, "{end_ms} ms, {most:?}");
            assert!((arrivals(&kept) - holds).abs() < 1e-6, "{}", arrivals(&kept));
        }
    }

    #[test]
    fn a_stage_without_end_hides_those_after_it_and_no_rate_gives_nothing() {
        let forever = |rate| Stage { duration: None, from_per_s: rate, to_per_s: rate };
        assert_eq!(Schedule::new(&[forever(0.0), forever(5.0)], false, 0).next(), None);
        assert_eq!(Schedule::new(&[], true, 0).next(), None);
    }

    #[test]
    fn wrong_stages_are_refused_with_the_way_out() {
        for (text, part) in [
            ("30s", "no colon"),
            ("30s:x", "not a rate"),
            ("30s:-1", "not a rate"),
            ("0s:5", "lasts no time"),
            ("5q:5", "not a duration"),
            ("", "no colon"),
            ("10s:5,", "no colon"),
        ] {
            let error = parse_stages(text).unwrap_err();
            assert!(error.contains(part) && error.contains("30s:100"), "{text}: {error}");
        }
    }
}

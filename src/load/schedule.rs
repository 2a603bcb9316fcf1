//! Stages of load as people write them; what they mean is [`kit::schedule`].

use crate::units::parse_duration;

pub use kit::schedule::{Schedule, Stage, arrivals, total_duration, until};

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
    use std::time::Duration;

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

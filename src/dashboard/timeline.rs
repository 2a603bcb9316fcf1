//! Gauges over time in bounded memory: however long a trial runs, a gauge keeps at most [`Timeline::MOST`] points.
//!
//! The one rule: all gauges of a timeline share the width of their steps, so that those of replicas can be added up.
//! When time grows too long, steps are merged two by two.

use std::collections::BTreeMap;

/// What becomes of several values that fall into one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// Their mean: rates, CPU.
    Mean,
    /// The largest: percentiles, of which there is no mean.
    Max,
    /// The last: counts that only grow.
    Last,
}

/// Whose gauge, and which.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// `cpu`, `rss_bytes`, …
    pub name: String,
    /// Whose.
    pub role: String,
    /// Which replica, from 1.
    pub replica: u32,
}

/// Gauges over time.
#[derive(Debug)]
pub struct Timeline {
    /// Seconds a step.
    width_s: f64,
    gauges: BTreeMap<Key, (Fold, BTreeMap<u64, Step>)>,
}

/// The values of one gauge in one step.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// When the last value was taken.
    t_s: f64,
    sum: f64,
    count: u32,
    max: f64,
    /// None where the last reading was missing.
    last: Option<f64>,
}

/// A point of a gauge: when, and what; none where it could not be measured.
pub type Point = (f64, Option<f64>);

impl Default for Timeline {
    fn default() -> Self {
        Self { width_s: 1.0, gauges: BTreeMap::new() }
    }
}

impl Timeline {
    /// The most points a gauge keeps; half as many at least, once it had that many.
    pub const MOST: u64 = 480;

    /// The most gauges; further ones are left out.
    const GAUGES: usize = 2_000;

    /// Adds a value, in the order of time.
    pub fn push(&mut self, key: Key, fold: Fold, t_s: f64, value: Option<f64>) {
        if !t_s.is_finite() || t_s < 0.0 || (self.gauges.len() >= Self::GAUGES && !self.gauges.contains_key(&key)) {
            return;
        }
        while t_s / self.width_s >= Self::MOST as f64 {
            self.widen();
        }
        let value = value.filter(|value| value.is_finite());
        let step = Step {
            t_s,
            sum: value.unwrap_or(0.0),
            count: u32::from(value.is_some()),
            max: value.unwrap_or(f64::NEG_INFINITY),
            last: value,
        };
        let place = (t_s / self.width_s) as u64;
        let (_, steps) = self.gauges.entry(key).or_insert_with(|| (fold, BTreeMap::new()));
        steps.entry(place).and_modify(|earlier| earlier.merge(step)).or_insert(step);
    }

    fn widen(&mut self) {
        self.width_s *= 2.0;
        for (_, steps) in self.gauges.values_mut() {
            let mut wider: BTreeMap<u64, Step> = BTreeMap::new();
            for (place, step) in std::mem::take(steps) {
                wider.entry(place / 2).and_modify(|earlier| earlier.merge(step)).or_insert(step);
            }
            *steps = wider;
        }
    }

    /// The last instant of any gauge.
    pub fn end_s(&self) -> f64 {
        let ends = self.gauges.values().filter_map(|(_, steps)| Some(steps.last_key_value()?.1.t_s));
        ends.fold(0.0, f64::max)
    }

    /// Roles that have this gauge, in order.
    pub fn roles(&self, name: &str) -> Vec<&str> {
        let mut roles: Vec<_> = self.of(name).map(|(key, ..)| key.role.as_str()).collect();
        roles.dedup();
        roles
    }

    /// A gauge, added up over the replicas of `role`, or over everybody's without one. Where one of those that were
    /// read could not be measured, the sum is unknown.
    pub fn sum(&self, name: &str, role: Option<&str>) -> Vec<Point> {
        let mut points: BTreeMap<u64, Point> = BTreeMap::new();
        for (_, fold, steps) in self.of(name).filter(|(key, ..)| role.is_none_or(|role| key.role == role)) {
            for (place, step) in steps {
                let point = points.entry(*place).or_insert((0.0, Some(0.0)));
                point.0 = point.0.max(step.t_s);
                point.1 = point.1.zip(step.value(fold)).map(|(a, b)| a + b);
            }
        }
        points.into_values().collect()
    }

    /// A count that only grows, as its growth a second.
    pub fn rate(&self, name: &str) -> Vec<Point> {
        let points = self.sum(name, None);
        let pairs = points.windows(2).filter(|pair| pair[1].0 > pair[0].0);
        pairs
            .map(|pair| {
                let grown = pair[0].1.zip(pair[1].1).map(|(before, after)| (after - before).max(0.0));
                (pair[1].0, grown.map(|grown| grown / (pair[1].0 - pair[0].0)))
            })
            .collect()
    }

    /// The last value, added up over replicas.
    pub fn last(&self, name: &str, role: Option<&str>) -> Option<f64> {
        self.sum(name, role).last()?.1
    }

    fn of(&self, name: &str) -> impl Iterator<Item = (&Key, Fold, &BTreeMap<u64, Step>)> {
        let named = self.gauges.iter().filter(move |(key, _)| key.name == name);
        named.map(|(key, (fold, steps))| (key, *fold, steps))
    }
}

impl Step {
    fn merge(&mut self, later: Self) {
        *self = Self {
            t_s: later.t_s,
            sum: self.sum + later.sum,
            count: self.count + later.count,
            max: self.max.max(later.max),
            last: later.last.or(self.last),
        };
    }

    fn value(&self, fold: Fold) -> Option<f64> {
        let any = self.count > 0;
        match fold {
            Fold::Mean => any.then(|| self.sum / f64::from(self.count)),
            Fold::Max => any.then_some(self.max),
            Fold::Last => self.last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, role: &str, replica: u32) -> Key {
        Key { name: name.to_owned(), role: role.to_owned(), replica }
    }

    #[test]
    fn a_year_of_seconds_takes_no_more_room_than_eight_minutes() {
        let mut timeline = Timeline::default();
        for second in 0..1_000_000 {
            timeline.push(key("cpu", "a", 1), Fold::Mean, f64::from(second), Some(0.5));
            timeline.push(key("sent", "a", 1), Fold::Last, f64::from(second), Some(f64::from(second) * 3.0));
        }
        let cpu = timeline.sum("cpu", Some("a"));
        assert!(cpu.len() as u64 <= Timeline::MOST && cpu.len() as u64 >= Timeline::MOST / 2, "{}", cpu.len());
        assert!(cpu.iter().all(|(_, value)| *value == Some(0.5)));
        assert!(timeline.rate("sent").iter().all(|(_, rate)| (rate.unwrap() - 3.0).abs() < 1e-9));
    }

    #[test]
    fn replicas_are_added_up_and_a_reading_that_is_missing_makes_the_sum_unknown() {
        let mut timeline = Timeline::default();
        timeline.push(key("cpu", "a", 1), Fold::Mean, 1.0, Some(0.5));
        timeline.push(key("cpu", "a", 2), Fold::Mean, 1.001, Some(0.25));
        timeline.push(key("cpu", "a", 1), Fold::Mean, 2.0, Some(0.5));
        timeline.push(key("cpu", "a", 2), Fold::Mean, 2.0, None);
        timeline.push(key("cpu", "b", 1), Fold::Mean, 2.0, Some(1.0));
        assert_eq!(timeline.sum("cpu", Some("a")), [(1.001, Some(0.75)), (2.0, None)]);
        assert_eq!(timeline.roles("cpu"), ["a", "b"]);
    }

    #[test]
    fn the_percentiles_of_a_longer_step_are_those_of_its_worst_second() {
        let mut timeline = Timeline::default();
        timeline.push(key("p99", "", 0), Fold::Max, 0.0, Some(9.0));
        timeline.push(key("p99", "", 0), Fold::Max, 1.0, Some(2.0));
        timeline.push(key("p99", "", 0), Fold::Max, Timeline::MOST as f64, Some(1.0));
        assert_eq!(timeline.sum("p99", None), [(1.0, Some(9.0)), (Timeline::MOST as f64, Some(1.0))]);
    }
}

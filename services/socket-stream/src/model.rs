//! Processing time and stable rate in closed form.
//!
//! The one rule: the model is list scheduling of equal tasks. A stage of P tasks on S slots takes ceil(P / S) waves of
//! one task each, and a batch takes the sum of its stages and of the overheads before them. It is stable as long as that
//! is less than the batch interval. (With one job at a time, that is: several at a time fill each other's gaps, and then a
//! stream may keep up though each batch takes longer than the interval. Back-pressure and the memory bound are left out.)

use std::time::Duration;

use crate::policy::{Output, Plan, Take, ns, partition_of};
use crate::settings::Settings;

/// How long a batch of so many records is processed, without scheduling delay; none when no slot is left, for then it
/// never ends. Records are spread evenly, and blocks are as many as intervals fit into a batch.
pub fn processing_time(settings: &Settings, records_per_batch: f64) -> Option<Duration> {
    let time_s = Model::new(settings).processing_s(records_per_batch)?;
    // A year: what takes longer is as good as for ever.
    Some(Duration::from_nanos((time_s.min(3e7) * 1e9).round() as u64))
}

/// The highest rate in lines/s, of each stream, at which processing takes less than the batch interval. None: there is
/// none, because records cost nothing. 0: even an empty batch takes too long, or no slot is left.
pub fn highest_stable_rate(settings: &Settings) -> Option<f64> {
    let model = Model::new(settings);
    let interval_s = settings.batch_interval.as_secs_f64();
    let records_at = |per_s: f64| per_s * interval_s * f64::from(settings.running_receivers());
    let spare_s = |per_s: f64| model.processing_s(records_at(per_s)).map_or(-1.0, |time_s| interval_s - time_s);
    if settings.slots() == 0 {
        return Some(0.0);
    }
    // With enough records every block and every key is there, and time grows in proportion to the rate.
    let (many, twice) = (1e9, 2e9);
    let slope = (spare_s(many) - spare_s(twice)) / (twice - many);
    if slope <= 0.0 && spare_s(many) > 0.0 {
        return None;
    }
    let crossing = twice + spare_s(twice) / slope;
    if crossing.is_finite()
        && crossing > 0.0
        && spare_s(crossing * (1.0 - 1e-9)) > 0.0
        && model.is_full(records_at(crossing))
    {
        return Some(crossing);
    }
    // So few records that blocks or keys are missing: there time goes up and down with the rate.
    let coarse = (0..700).map(|step| 1e5 * 0.95_f64.powi(step)).find(|per_s| spare_s(*per_s) > 0.0);
    let (mut stable, mut unstable) = coarse.map_or((0.0, 0.0), |per_s| (per_s, per_s / 0.95));
    for _ in 0..60 {
        let middle = f64::midpoint(stable, unstable);
        if spare_s(middle) > 0.0 { stable = middle } else { unstable = middle }
    }
    Some(stable)
}

/// The share of slot time that stands idle because tasks run in waves: 1 - P / (S ceil(P / S)). None without a slot or a
/// task.
pub fn waste(partitions: u32, slots: u32) -> Option<f64> {
    (slots > 0 && partitions > 0)
        .then(|| 1.0 - f64::from(partitions) / (f64::from(slots) * f64::from(partitions.div_ceil(slots))))
}

/// Jobs and tasks of a batch of so many records.
pub fn jobs_and_tasks(settings: &Settings, records_per_batch: f64) -> (u32, f64) {
    Model::new(settings).jobs_and_tasks(records_per_batch)
}

struct Model<'a> {
    settings: &'a Settings,
    plan: Plan,
    /// Of each reduce partition: words alike, as their number and ln(1 - q), q the share of one such word.
    words: Vec<Vec<(f64, f64)>>,
}

impl<'a> Model<'a> {
    fn new(settings: &'a Settings) -> Self {
        let plan = Plan::of(settings);
        let weight = |word: u32| (f64::from(word) + 1.0).powf(-settings.skew);
        let sum: f64 = (0..settings.vocabulary).map(weight).sum();
        let mut words = vec![Vec::<(f64, f64)>::new(); plan.reduce_partitions as usize];
        // Without a scan nobody asks which keys there are.
        let asked = if matches!(plan.outputs[..], [Output::Take(_)]) { settings.vocabulary } else { 0 };
        for word in 0..asked {
            let missing = (-weight(word) / sum).ln_1p();
            let alike = &mut words[partition_of(format!("word{word}").as_bytes(), plan.reduce_partitions) as usize];
            match alike.last_mut() {
                Some((count, same)) if *same == missing => *count += 1.0,
                _ => alike.push((1.0, missing)),
            }
        }
        Self { settings, plan, words }
    }

    fn processing_s(&self, records: f64) -> Option<f64> {
        let slots = self.settings.slots();
        if slots == 0 {
            return None;
        }
        let (jobs, tasks) = self.jobs_and_tasks(records);
        let overhead_s = self.settings.job_overhead().as_secs_f64() * f64::from(jobs)
            + self.settings.task_overhead().as_secs_f64() * tasks;
        let maps = self.maps(records);
        let each_s = self.settings.cost_per_line().as_secs_f64() * records / maps.max(1.0);
        Some(overhead_s + (maps / f64::from(slots)).ceil() * each_s)
    }

    fn jobs_and_tasks(&self, records: f64) -> (u32, f64) {
        let spread = if self.plan.partitions > 0 { self.blocks(records) } else { 0.0 };
        let (jobs, scanned) = self.scans(records);
        (jobs, spread + self.maps(records) + f64::from(scanned))
    }

    /// Tasks of the stage that maps.
    fn maps(&self, records: f64) -> f64 {
        if self.plan.partitions > 0 { f64::from(self.plan.partitions) } else { self.blocks(records) }
    }

    /// Blocks of a batch: as many as fit into it, but none without a record.
    fn blocks(&self, records: f64) -> f64 {
        self.blocks_that_fit().min(records.ceil())
    }

    fn blocks_that_fit(&self) -> f64 {
        let a_receiver = ns(self.settings.batch_interval) as f64 / ns(self.settings.block_interval) as f64;
        a_receiver.max(1.0) * f64::from(self.settings.running_receivers())
    }

    /// Jobs that printing takes, and the reduce tasks they run.
    fn scans(&self, records: f64) -> (u32, u32) {
        let [Output::Take(rows)] = self.plan.outputs[..] else { return (1, self.plan.reduce_partitions) };
        let mut take = Take::new(rows, self.plan.reduce_partitions);
        let (mut jobs, mut scanned) = (0, 0);
        while let Some(scan) = take.next_scan() {
            let missing = take.missing();
            let found = scan.clone().map(|partition| missing.min(self.keys(partition, records).round() as u32)).sum();
            (jobs, scanned) = (jobs + 1, scan.end);
            take.scanned(&scan, found);
        }
        (jobs, scanned)
    }

    /// Keys that a reduce partition has, on average: a word of share q is among n words with probability 1 - (1 - q)^n.
    fn keys(&self, partition: u32, records: f64) -> f64 {
        let words = records * f64::from(self.settings.words_per_line);
        let there = |missing: f64| if words > 0.0 { -(missing * words).exp_m1() } else { 0.0 };
        self.words[partition as usize].iter().map(|(count, missing)| count * there(*missing)).sum()
    }

    /// Whether more records bring no further block and no further job.
    fn is_full(&self, records: f64) -> bool {
        records.ceil() >= self.blocks_that_fit() && self.scans(records) == self.scans(f64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Like, Per};

    /// A phase of the study: its cores, partitions and cost.
    fn phase(cores: u32, partitions: u32, cost_ms: u64, cost_per: Per) -> Settings {
        let (batch_interval, cost) = (Duration::from_secs(2), Duration::from_millis(cost_ms));
        Settings { batch_interval, cores, partitions, cost, cost_per, like: Like::Spark, ..Settings::default() }
    }

    #[test]
    fn processing_time_is_waves_of_tasks_and_overheads() {
        for (settings, records, jobs_and_tasks, expected_s) in [
            // The two published settings: 1 job of 15 tasks, 2 jobs of 20 tasks.
            (phase(4, 4, 15, Per::Line), 286.0, (1, 15.0), 2.0 * 71.5 * 0.015 + 0.327 + 15.0 * 0.0038),
            (phase(8, 8, 5, Per::Line), 282.0, (2, 20.0), 2.0 * 35.25 * 0.005 + 2.0 * 0.327 + 20.0 * 0.0038),
            (phase(4, 4, 4, Per::Word), 300.0, (1, 15.0), 2.0 * 75.0 * 0.012 + 0.384),
            (phase(4, 4, 0, Per::Line), 300.0, (1, 15.0), 0.384),
            // Nothing received: no block, no key, and so a second job that looks at the other partitions.
            (phase(4, 4, 15, Per::Line), 0.0, (2, 8.0), 2.0 * 0.327 + 8.0 * 0.0038),
            // Three records make three blocks at most.
            (Settings { state: true, ..phase(4, 4, 0, Per::Line) }, 3.0, (1, 11.0), 0.327 + 11.0 * 0.0038),
            // No spread: ten blocks on three slots are four waves.
            (Settings { print: 0, ..phase(4, 0, 10, Per::Line) }, 300.0, (1, 11.0), 4.0 * 0.3 + 0.327 + 11.0 * 0.0038),
        ] {
            assert_eq!(super::jobs_and_tasks(&settings, records), jobs_and_tasks, "{records} records, {settings:?}");
            let found_s = processing_time(&settings, records).unwrap().as_secs_f64();
            assert!((found_s - expected_s).abs() < 1e-6, "{found_s} s instead of {expected_s} s: {settings:?}");
        }
        assert_eq!(processing_time(&phase(1, 4, 15, Per::Line), 10.0), None);
    }

    #[test]
    fn the_highest_stable_rate_takes_just_less_than_the_interval() {
        for settings in [
            phase(4, 4, 15, Per::Line),
            phase(8, 8, 5, Per::Line),
            phase(4, 4, 4, Per::Word),
            phase(4, 0, 15, Per::Line),
            Settings { receivers: 2, ..phase(4, 3, 15, Per::Line) },
            Settings { vocabulary: 1, ..phase(4, 4, 15, Per::Line) },
            Settings { skew: 1.2, vocabulary: 5_000, ..phase(4, 4, 15, Per::Line) },
            // So slow that a batch of a few records is all it can do.
            phase(4, 4, 700, Per::Line),
        ] {
            let rate = highest_stable_rate(&settings).unwrap();
            let records = |rate: f64| rate * 2.0 * f64::from(settings.receivers);
            let time = |rate: f64| processing_time(&settings, records(rate)).unwrap().as_secs_f64();
            assert!(rate > 0.0 && time(rate * 0.999_999) < 2.0, "{rate}: {} s", time(rate * 0.999_999));
            assert!([1.000_001, 1.1, 2.0, 100.0].iter().all(|more| time(rate * more) >= 2.0), "{rate}: {settings:?}");
        }
    }

    #[test]
    fn before_holds_106_lines_a_second_and_with_as_many_partitions_as_slots_a_good_deal_more() {
        // (2 s - 0.384 s) / 2 waves / 15 ms x 4 partitions / 2 s
        let rate = highest_stable_rate(&phase(4, 4, 15, Per::Line)).unwrap();
        assert!((rate - 107.733).abs() < 0.01, "{rate}");
        // (2 s - 0.3802 s) / 1 wave / 15 ms x 3 partitions / 2 s, less a task.
        let rate = highest_stable_rate(&phase(4, 3, 15, Per::Line)).unwrap();
        assert!((rate - 161.98).abs() < 0.01, "{rate}");
    }

    #[test]
    fn a_rate_without_bound_is_none_and_no_slot_is_0() {
        assert_eq!(highest_stable_rate(&phase(4, 4, 0, Per::Line)), None);
        assert_eq!(highest_stable_rate(&phase(1, 4, 0, Per::Line)), Some(0.0));
        let short = Settings { batch_interval: Duration::from_millis(300), ..phase(4, 4, 0, Per::Line) };
        assert_eq!(highest_stable_rate(&short), Some(0.0), "the overhead alone is longer");
    }

    #[test]
    fn slots_stand_idle_unless_partitions_are_a_multiple_of_them() {
        for (partitions, slots, idle) in [
            (3, 3, Some(0.0)),
            (6, 3, Some(0.0)),
            (4, 3, Some(1.0 - 4.0 / 6.0)),
            (8, 7, Some(1.0 - 8.0 / 14.0)),
            (1, 7, Some(1.0 - 1.0 / 7.0)),
            (4, 0, None),
            (0, 4, None),
        ] {
            assert_eq!(waste(partitions, slots), idle, "{partitions} on {slots}");
        }
    }
}

//! Processing time and stable rate in closed form.
//!
//! The one rule: the model is list scheduling of equal tasks. A stage of P tasks on S slots takes ceil(P / S) waves of
//! one task each, and a batch takes the sum of its stages and of the overheads before them. It is stable as long as that
//! is less than the batch interval.

use std::time::Duration;

use crate::policy::{Output, Plan, Take, ns, partition_of};
use crate::settings::Settings;

/// How long a batch of so many records is processed, without scheduling delay; none when no slot is left, for then it
/// never ends. Records are spread evenly, and blocks are as many as intervals fit into a batch.
pub fn processing_time(settings: &Settings, records: f64) -> Option<Duration> {
    let waves = waves(settings, records)?;
    let map_s = waves * settings.cost_per_line().as_secs_f64() * records / maps(settings, records).max(1.0);
    Some(overhead(settings, records) + Duration::from_secs_f64(map_s.min(1e9)))
}

/// The highest rate in lines/s, of each stream, at which processing takes less than the batch interval. None: there is
/// none, because records cost nothing. 0: even an empty batch takes too long, or no slot is left.
pub fn highest_stable_rate(settings: &Settings) -> Option<f64> {
    let interval_s = settings.batch_interval.as_secs_f64();
    let is_stable = |rate: f64| {
        let records = rate * interval_s * f64::from(settings.running_receivers());
        processing_time(settings, records).is_some_and(|time| time < settings.batch_interval)
    };
    if !is_stable(0.0) {
        return Some(0.0);
    }
    // Above this every task is busy for longer than the interval, whatever else there is.
    let most = 1e12;
    if is_stable(most) {
        return None;
    }
    // Processing time grows with the rate, by steps where a further key or block comes in: bisected, not solved.
    let (mut stable, mut unstable) = (0.0, most);
    while unstable - stable > 1e-9 * unstable.max(1e-3) {
        let middle = if stable < 1.0 { unstable / 2.0 } else { f64::midpoint(stable, unstable) };
        if is_stable(middle) {
            stable = middle
        } else {
            unstable = middle
        }
        if unstable < 1e-6 {
            break;
        }
    }
    Some(stable)
}

/// The share of slot time that stands idle because tasks run in waves: 1 - P / (S ceil(P / S)). None without a slot.
pub fn waste(partitions: u32, slots: u32) -> Option<f64> {
    (slots > 0 && partitions > 0)
        .then(|| 1.0 - f64::from(partitions) / (f64::from(slots) * f64::from(partitions.div_ceil(slots))))
}

/// Jobs and tasks of a batch of so many records.
pub fn jobs_and_tasks(settings: &Settings, records: f64) -> (u32, f64) {
    let before = if settings.partitions > 0 {
        blocks(settings, records) + f64::from(settings.partitions)
    } else {
        maps(settings, records)
    };
    let (jobs, scanned) = scans(settings, records);
    (jobs, before + f64::from(scanned))
}

fn overhead(settings: &Settings, records: f64) -> Duration {
    let (jobs, tasks) = jobs_and_tasks(settings, records);
    let tasks_ns = ns(settings.task_overhead()) as f64 * tasks;
    settings.job_overhead() * jobs + Duration::from_nanos(tasks_ns.round() as u64)
}

fn waves(settings: &Settings, records: f64) -> Option<f64> {
    let slots = settings.slots();
    (slots > 0).then(|| (maps(settings, records) / f64::from(slots)).ceil())
}

/// Tasks of the stage that maps.
fn maps(settings: &Settings, records: f64) -> f64 {
    if settings.partitions > 0 { f64::from(settings.partitions) } else { blocks(settings, records) }
}

/// Blocks of a batch: those that fit into it, but none without a record.
fn blocks(settings: &Settings, records: f64) -> f64 {
    let fit = (ns(settings.batch_interval) as f64 / ns(settings.block_interval) as f64).max(1.0);
    (fit * f64::from(settings.running_receivers())).min(records.ceil())
}

/// Jobs that printing takes, and the reduce tasks they run.
fn scans(settings: &Settings, records: f64) -> (u32, u32) {
    let plan = Plan::of(settings);
    match plan.outputs.first() {
        Some(Output::Take(rows)) => {
            let keys = keys(settings, records);
            let mut take = Take::new(*rows, plan.reduce_partitions);
            let (mut jobs, mut scanned) = (0, 0);
            while let Some(scan) = take.next_scan() {
                let missing = take.missing();
                let found = keys[scan.start as usize..scan.end as usize].iter();
                let rows = found.map(|keys| missing.min(keys.round() as u32)).sum();
                (jobs, scanned) = (jobs + 1, scan.end);
                take.scanned(&scan, rows);
            }
            (jobs, scanned)
        }
        _ => (1, plan.reduce_partitions),
    }
}

/// Keys that each reduce partition has of a batch, on average: a word of probability q is in n words with 1 - (1 - q)^n.
fn keys(settings: &Settings, records: f64) -> Vec<f64> {
    let partitions = settings.reduce_partitions();
    let words = records * f64::from(settings.words_per_line);
    let weight = |word: u32| (f64::from(word) + 1.0).powf(-settings.skew);
    let sum: f64 = (0..settings.vocabulary).map(weight).sum();
    let mut keys = vec![0.0; partitions as usize];
    for word in 0..settings.vocabulary {
        let there = -((-weight(word) / sum).ln_1p() * words).exp_m1();
        // With one word of probability 1, ln(0) x 0 is not a number: it is there as soon as there is a word.
        let there = if there.is_nan() { 0.0 } else { there };
        keys[partition_of(format!("word{word}").as_bytes(), partitions) as usize] += there;
    }
    keys
}

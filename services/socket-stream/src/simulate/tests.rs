//! What the phases of the study come to, on a virtual clock.

use std::collections::BTreeMap;

use kit::batch::Status::{self, Completed, Processing, Queued};
use kit::batch::{Batch, Engine, Entry, Receiver};
use kit::journal::Line;
use kit::series::Point;
use kit::{OpsRecord, Stage};
use proptest::prelude::*;

use super::*;
use crate::model;
use crate::settings::{Like, Per};

/// All that a run told.
#[derive(Default)]
struct Told {
    engine: Engine,
    batches: BTreeMap<u64, Batch>,
    receivers: BTreeMap<u32, Receiver>,
    /// As it was at the end of the schedule, before what was left was finished.
    at_stop: BTreeMap<u64, Batch>,
    records: Vec<OpsRecord>,
    points: Vec<Point>,
    /// Every byte.
    text: String,
}

impl Told {
    fn completed(&self) -> impl Iterator<Item = &Batch> {
        self.batches.values().filter(|batch| batch.status == Status::Completed)
    }

    /// Those of a whole interval: the first lacks its last block, and the one made at the stop has one more.
    fn whole(&self) -> impl Iterator<Item = &Batch> {
        let last = self.batches.len() as u64 - 1;
        self.completed().filter(move |batch| batch.batch > 0 && batch.batch < last)
    }

    fn mean_processing_s(&self) -> f64 {
        let times: Vec<_> = self.whole().filter_map(processing_time_ms).collect();
        times.iter().sum::<f64>() / times.len() as f64 / 1e3
    }

    fn delays_s(&self) -> Vec<f64> {
        self.batches.values().filter_map(scheduling_delay_ms).map(|ms| ms / 1e3).collect()
    }

    /// Operations of a kind, by how they ended: well, and not known.
    fn count(&self, kind: &str) -> (u64, u64) {
        let of_kind = || self.records.iter().filter(|record| record.kind == kind);
        (of_kind().map(|record| record.ok).sum(), of_kind().map(|record| record.unknown).sum())
    }

    fn series(&self, name: &str) -> Vec<f64> {
        self.points.iter().filter(|point| point.name == name).filter_map(|point| point.value).collect()
    }
}

/// From submission to the start of the first job; none before.
fn scheduling_delay_ms(batch: &Batch) -> Option<f64> {
    Some(batch.started_ms? - batch.submitted_ms)
}

/// From the start of the first job to the end of the last; none before.
fn processing_time_ms(batch: &Batch) -> Option<f64> {
    Some(batch.ended_ms? - batch.started_ms?)
}

/// Over the batches that have it.
fn mean_s(batches: &BTreeMap<u64, Batch>, of_ms: impl Fn(&Batch) -> Option<f64>) -> Option<f64> {
    let values: Vec<_> = batches.values().filter_map(of_ms).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64 / 1e3)
}

fn count(batches: &BTreeMap<u64, Batch>, status: Status) -> usize {
    batches.values().filter(|batch| batch.status == status).count()
}

fn told(settings: &Settings, seed: u64, seconds: u64) -> Told {
    let (recorder, series, journal) = (Recorder::default(), Series::default(), Journal::default());
    let mut told = Told::default();
    let (mut ops_seq, mut series_seq, mut journal_seq) = (0, 0, 0);
    simulate(settings, seed, Duration::from_secs(seconds), &recorder, &series, &journal, &mut |now_ns| {
        let lines = journal.after(journal_seq);
        for line in lines.lines() {
            let line: Line<Entry> = serde_json::from_str(line)?;
            journal_seq = line.seq;
            match line.entry {
                Entry::Engine(engine) => told.engine = engine,
                Entry::Batch(batch) => {
                    told.batches.insert(batch.batch, batch);
                }
                Entry::Receiver(receiver) => {
                    told.receivers.insert(receiver.stream, receiver);
                }
            }
        }
        if now_ns == seconds * SECOND_NS {
            told.at_stop = told.batches.clone();
        }
        let ops = recorder.after(ops_seq, now_ns);
        for line in ops.lines() {
            let record: OpsRecord = serde_json::from_str(line)?;
            if !record.open {
                ops_seq = record.seq;
                told.records.push(record);
            }
        }
        let points = series.after(series_seq);
        series_seq = points.last().map_or(series_seq, |point| point.seq);
        told.text.push_str(&(lines + &ops + &serde_json::to_string(&points)?));
        told.points.extend(points);
        Ok(())
    })
    .unwrap();
    told
}

fn at_rate(per_s: f64, settings: Settings) -> Settings {
    let stages = vec![Stage { duration: None, from_per_s: per_s, to_per_s: per_s }];
    let settings = Settings { stages, ..settings };
    assert_eq!(settings.check(), Ok(()));
    settings
}

/// What every phase of the study has.
fn phase(cores: u32, partitions: u32, cost_ms: u64, cost_per: Per) -> Settings {
    let (batch_interval, cost) = (Duration::from_secs(2), Duration::from_millis(cost_ms));
    Settings { batch_interval, cores, partitions, cost, cost_per, like: Like::Spark, ..Settings::default() }
}

/// With as much time to finish as it takes.
fn before() -> Settings {
    let graceful_stop_timeout = Some(Duration::from_secs(3_600));
    Settings { graceful_stop_timeout, ..at_rate(143.0, phase(4, 4, 15, Per::Line)) }
}

fn after() -> Settings {
    at_rate(141.0, phase(8, 8, 5, Per::Line))
}

fn close(found: f64, expected: f64, within: f64) -> bool {
    (found - expected).abs() <= within * expected.abs()
}

#[test]
fn the_phases_take_as_long_as_was_published() {
    let ours = |settings: Settings| Settings { like: Like::None, ..settings };
    for (name, settings, processing_s, stable) in [
        ("before", before(), 2.531, false),
        ("after", after(), 1.080, true),
        ("baseline", at_rate(150.0, phase(4, 4, 0, Per::Line)), 0.384, true),
        ("slow-map", at_rate(150.0, phase(4, 4, 4, Per::Word)), 2.18, false),
        ("slow-map at 140", at_rate(140.0, phase(4, 4, 4, Per::Word)), 2.06, false),
        ("slow-map without overhead", ours(at_rate(150.0, phase(4, 4, 4, Per::Word))), 1.80, true),
        ("parallelism", at_rate(150.0, phase(8, 8, 4, Per::Word)), 0.90 + 0.73, true),
        ("parallelism at 140", at_rate(140.0, phase(8, 8, 4, Per::Word)), 0.84 + 0.73, true),
        // The receiver's slot is what makes two waves of one.
        ("before, with a core more", at_rate(143.0, phase(5, 4, 15, Per::Line)), 1.073 + 0.384, true),
    ] {
        let told = told(&settings, 7, 60);
        let found_s = told.mean_processing_s();
        assert!(close(found_s, processing_s, 0.025), "{name}: {found_s} s, published {processing_s} s");

        let records = settings.planned_rate_per_s().unwrap() * 2.0;
        let model_s = model::processing_time(&settings, records).unwrap().as_secs_f64();
        assert!(close(found_s, model_s, 0.025), "{name}: {found_s} s, by the model {model_s} s");
        assert!(close(told.engine.predicted_processing_ms.unwrap(), model_s * 1e3, 1e-6), "{name}");

        let delays_s = told.delays_s();
        let expected_s = if stable { 0.0 } else { (delays_s.len() - 1) as f64 * (found_s - 2.0) };
        let last_s = *delays_s.last().unwrap();
        assert!((last_s - expected_s).abs() <= 0.05 * expected_s + 0.2, "{name}: {last_s} s after {}", delays_s.len());
    }
}

#[test]
fn before_shows_the_figures_of_the_published_page() {
    let told = told(&before(), 7, 112);
    let page = &told.at_stop;
    // 56 batches by then: 43 completed, 1 running and 12 waiting, on the page that was published.
    assert_eq!(page.len(), 55, "the 56th is submitted at the very end");
    let (completed, running, waiting) = (count(page, Completed), count(page, Processing), count(page, Queued));
    assert!((42..=44).contains(&completed) && running == 1, "{completed} completed");
    assert!((11..=13).contains(&waiting), "{waiting} waiting");
    // Published: 11.688, 2.531 and 13.946 s. The delay is 22 times what the processing time has above 2 s, so it shows
    // each hundredth of that: how evenly records were dealt out.
    let (scheduling_s, processing_s, total_s) = (
        mean_s(page, scheduling_delay_ms).unwrap(),
        mean_s(page, processing_time_ms).unwrap(),
        mean_s(page, |batch| Some(scheduling_delay_ms(batch)? + processing_time_ms(batch)?)).unwrap(),
    );
    assert!(close(scheduling_s, 11.688, 0.08), "{scheduling_s}");
    assert!(close(processing_s, 2.531, 0.02), "{processing_s}");
    assert!(close(total_s, 13.946, 0.08), "{total_s}");
    assert!(total_s < scheduling_s + processing_s - 0.1, "{total_s} is over fewer batches than {scheduling_s}");
    // A queue as long as the delay holds intervals.
    let delay_s = told.batches.values().rev().filter(|batch| batch.time_ms <= 85e3).find_map(scheduling_delay_ms);
    let (delay_s, waiting) = (delay_s.unwrap() / 1e3, told.series("queued_batches"));
    let then = waiting[(85.0 + delay_s) as usize - 1];
    assert!((then - delay_s / 2.0).abs() <= 1.0, "{then} waiting, delay {delay_s} s");
    assert_eq!(told.count("record"), (143 * 112, 0), "what was received is finished after the stop");
}

#[test]
fn after_has_no_delay_and_an_empty_queue() {
    let told = told(&after(), 7, 60);
    assert!(told.delays_s().iter().all(|delay_s| *delay_s < 1e-9));
    let (jobs, tasks): (Vec<_>, Vec<_>) = told.whole().map(|batch| (batch.jobs, batch.tasks)).unzip();
    assert!(jobs.iter().all(|jobs| *jobs == 2) && tasks.iter().all(|tasks| *tasks == 20), "{jobs:?} {tasks:?}");
    assert_eq!(told.series("queued_batches").into_iter().fold(0.0, f64::max), 0.0);
}

#[test]
fn before_takes_one_job_of_fifteen_tasks() {
    let told = told(&before(), 7, 20);
    assert!(told.whole().all(|batch| (batch.jobs, batch.tasks, batch.blocks) == (1, 15, 10)));
    let first = &told.batches[&0];
    assert_eq!((first.blocks, first.time_ms), (9, 2_000.0), "the first is partial: its last block is the next one's");
}

#[test]
fn the_scheduling_delay_is_lindleys_recursion() {
    for (settings, interval_s) in [
        (before(), 2.0),
        (after(), 2.0),
        (Settings { poisson: true, ..at_rate(120.0, phase(4, 4, 15, Per::Line)) }, 2.0),
        (Settings { poisson: true, like: Like::None, ..at_rate(180.0, phase(4, 3, 15, Per::Line)) }, 2.0),
    ] {
        let told = told(&settings, 7, 100);
        let ended: Vec<_> = told.completed().collect();
        assert!(ended.len() > 45);
        for pair in ended.windows(2).filter(|pair| pair[1].time_ms - pair[0].time_ms == 2_000.0) {
            let delay_s = |batch: &Batch| scheduling_delay_ms(batch).unwrap() / 1e3;
            let expected = (delay_s(pair[0]) + processing_time_ms(pair[0]).unwrap() / 1e3 - interval_s).max(0.0);
            assert!((delay_s(pair[1]) - expected).abs() < 1e-6, "batch {}", pair[1].batch);
        }
    }
}

#[test]
fn batch_times_are_multiples_of_the_interval_and_nothing_is_late() {
    let told =
        told(&at_rate(50.0, Settings { batch_interval: Duration::from_millis(700), ..Settings::default() }), 7, 21);
    assert_eq!(told.batches.len(), 30);
    for (number, batch) in &told.batches {
        assert_eq!(batch.time_ms, (number + 1) as f64 * 700.0);
        assert_eq!(batch.submitted_ms, batch.time_ms);
    }
}

#[test]
fn an_empty_batch_still_runs_its_jobs() {
    let told = told(&at_rate(0.0, phase(4, 4, 15, Per::Line)), 7, 10);
    assert_eq!(told.batches.len(), 4, "the fifth would be submitted at the stop, and has nothing in it");
    for batch in told.batches.values() {
        // No row in one partition, none in the other three.
        assert_eq!((batch.records, batch.blocks, batch.jobs, batch.tasks), (0, 0, 2, 8));
        assert!(close(processing_time_ms(batch).unwrap(), 2.0 * 327.0 + 8.0 * 3.8, 1e-9));
    }
    assert_eq!((told.count("batch"), told.count("record")), ((4, 0), (0, 0)));
}

#[test]
fn with_one_core_batches_queue_for_ever_and_it_is_said() {
    let told = told(&at_rate(100.0, phase(1, 4, 15, Per::Line)), 7, 20);
    assert!(told.engine.notes[0].contains("no slot is left"), "{:?}", told.engine.notes);
    assert_eq!(told.engine.predicted_processing_ms, None);
    let page = &told.at_stop;
    assert_eq!((count(page, Completed), count(page, Processing), count(page, Queued)), (0, 1, 8));
    assert_eq!(mean_s(page, processing_time_ms), None);
    // Given up when the run ended.
    assert!(told.batches.values().all(|batch| batch.status == Status::Failed && batch.ended_ms.is_none()));
    let reasons: Vec<_> = told.batches.values().filter_map(|batch| batch.reason.as_deref()).collect();
    assert_eq!(reasons[0], "still running when the run ended");
    assert!(reasons[1..].iter().all(|reason| *reason == "still queued when the run ended") && reasons.len() == 10);
    assert_eq!((told.count("batch"), told.count("record")), ((0, 10), (0, 2_000)));
}

#[test]
fn two_jobs_at_a_time_fill_the_gaps_of_each_other() {
    // One at a time is unstable: the driver's overhead and the second wave leave slots idle. The work itself fits.
    let told = told(&Settings { concurrent_jobs: 2, ..before() }, 7, 100);
    assert_eq!(told.series("running_batches").into_iter().fold(0.0, f64::max), 2.0);
    assert!(*told.delays_s().last().unwrap() < 0.5, "{:?}", told.delays_s().last());
    assert_eq!(told.count("record"), (14_300, 0));
}

#[test]
fn a_graceful_stop_finishes_what_was_received_within_its_time() {
    let all = told(&before(), 7, 40);
    assert!(all.batches.values().all(|batch| batch.status == Status::Completed));
    assert_eq!(all.count("record"), (143 * 40, 0));

    let timeout = Some(Duration::from_secs(3));
    let cut = told(&Settings { graceful_stop_timeout: timeout, ..before() }, 7, 40);
    let left: Vec<_> = cut.batches.values().filter(|batch| batch.status == Status::Failed).collect();
    assert!(left.len() >= 3 && left.iter().all(|batch| batch.reason.as_ref().unwrap().contains("when the run ended")));
    let (ok, unknown) = cut.count("record");
    assert!(unknown > 300 && ok + unknown == 143 * 40, "{ok} and {unknown}");
    let (ok, unknown) = cut.count("batch");
    assert_eq!((ok + unknown, unknown), (cut.batches.len() as u64, left.len() as u64));
}

#[test]
fn what_memory_cannot_hold_waits_at_the_source_and_nothing_is_lost() {
    let bound = Settings { memory_bytes: 10_000, max_line_bytes: 100, ..before() };
    let bounded = told(&bound, 7, 60);
    assert!(bounded.series("held_bytes").into_iter().all(|bytes| bytes <= 10_000.0));
    let blocked_s = bounded.series("receiver_blocked_s");
    assert!(*blocked_s.last().unwrap() > 5.0 && blocked_s.windows(2).all(|pair| pair[0] <= pair[1]), "{blocked_s:?}");
    let (ok, unknown) = bounded.count("record");
    assert_eq!(ok + unknown, 143 * 60);
    // The scheduling delay is bounded then, but the latency of records is not.
    let worst_s = |told: &Told| told.delays_s().into_iter().fold(0.0, f64::max);
    assert!(worst_s(&bounded) < 6.0, "{}", worst_s(&bounded));
}

#[test]
fn back_pressure_heals_the_scheduling_delay_and_not_the_latency() {
    let pressed = Settings { backpressure: true, pid_min_rate: 10.0, ..at_rate(200.0, phase(4, 4, 15, Per::Line)) };
    let told = told(&pressed, 7, 240);
    let delays_s = told.delays_s();
    let (worst_s, last_s) = (delays_s.iter().copied().fold(0.0, f64::max), delays_s[100]);
    assert!(worst_s > 1.0 && last_s < 1.0, "worst {worst_s} s, at 200 s {last_s} s");
    // What is held back waits before the receiver: at 200 s for half a minute and more.
    let latency_s = |second| {
        let of = |record: &&OpsRecord| record.kind == "record" && record.second == second;
        told.records.iter().find(of).and_then(|record| record.total.mean()).map(|mean| mean.as_secs_f64())
    };
    assert!(latency_s(10) < latency_s(60) && latency_s(60) < latency_s(140), "{:?}", latency_s(140));
    assert!(latency_s(140).unwrap() > 20.0, "{:?}", latency_s(140));
    let (ok, unknown) = told.count("record");
    assert_eq!(ok + unknown, 200 * 240, "what was not received in time is unknown");
    // The rate that is asked for is about what the model holds to be stable.
    let stable = model::highest_stable_rate(&pressed).unwrap();
    let limits = told.series("rate_limit");
    let mean = limits[100..230].iter().sum::<f64>() / 130.0;
    assert!(close(mean, stable, 0.15), "asked for {mean}/s, stable below {stable}/s");
}

#[test]
fn the_first_batches_under_back_pressure_are_made_at_the_initial_rate() {
    let pressed = Settings { backpressure: true, ..at_rate(200.0, phase(4, 4, 15, Per::Line)) };
    let held = told(&Settings { initial_rate: Some(50.0), ..pressed.clone() }, 7, 60);
    // The first batch lacks its last block, and the end of the second asks for another rate.
    assert_eq!([0, 1].map(|batch| held.batches[&batch].records), [90, 100]);
    assert_eq!(held.series("rate_limit")[0], 50.0);
    let worst_s = |told: &Told| told.delays_s()[..10].iter().copied().fold(0.0, f64::max);
    let free = told(&pressed, 7, 60);
    assert!(worst_s(&held) < 0.7 * worst_s(&free), "{} s, and {} s without", worst_s(&held), worst_s(&free));
    assert!(*held.series("rate_limit").last().unwrap() > 50.0);
    // Without back-pressure it holds to the end, as in the reference.
    let alone = told(&Settings { initial_rate: Some(50.0), backpressure: false, ..pressed }, 7, 60);
    assert_eq!(alone.series("rate_limit").last(), Some(&50.0));
}

#[test]
fn a_highest_rate_holds_from_the_beginning_and_blocks_a_source_whose_connection_is_full() {
    // Lines of some 20 kB.
    let long = Settings { max_rate: Some(50.0), words_per_line: 3_000, ..Settings::default() };
    let told = told(&at_rate(100.0, long), 7, 30);
    assert!(told.completed().all(|batch| batch.records <= 101), "a second was saved at most");
    assert_eq!(told.series("rate_limit")[5], 50.0);
    let (due, sent, received) = (told.series("due_lines"), told.series("sent_lines"), told.series("received_records"));
    assert_eq!((due[29], due[9]), (3_000.0, 1_000.0));
    assert!((received[29] - 1_500.0).abs() <= 51.0, "{}", received[29]);
    let in_socket = (sent[29] - received[29]) * 20_400.0;
    assert!(in_socket < SOCKET_BYTES as f64 && in_socket > 0.8 * SOCKET_BYTES as f64, "{in_socket}");
    let blocked_s = told.series("blocked_s");
    assert!(blocked_s[29] > 20.0 && blocked_s[2] == 0.0, "{blocked_s:?}");
}

#[test]
fn each_receiver_is_a_stream_of_its_own_and_holds_a_slot() {
    let settings = at_rate(50.0, Settings { receivers: 2, cores: 3, ..phase(3, 3, 10, Per::Line) });
    let told = told(&settings, 7, 20);
    assert_eq!(told.count("record"), (2 * 50 * 20, 0));
    assert!(told.receivers.len() == 2 && told.receivers.values().all(|receiver| !receiver.active));
    // 200 records of 10 ms on the one slot that is left, and 0.38 s of overhead.
    assert!(
        close(told.mean_processing_s(), 2.0 + 0.327 + 0.0038 * (20.0 + 3.0 + 1.0), 0.02),
        "{}",
        told.mean_processing_s()
    );
    let crowded = Settings { receivers: 3, cores: 2, ..settings };
    let crowded = super::tests::told(&crowded, 7, 10);
    assert_eq!(crowded.series("clients")[0], 2.0);
    assert_eq!(
        crowded.receivers[&2].no_record_latency.as_deref(),
        Some("no core is left for this receiver: it never connects")
    );
    assert_eq!(crowded.count("record"), (0, 2 * 50 * 10));
}

#[test]
fn without_a_spread_each_block_is_mapped_by_one_task() {
    let settings = at_rate(100.0, Settings { partitions: 0, ..phase(5, 0, 10, Per::Line) });
    let told = told(&settings, 7, 20);
    // 10 blocks of 20 records on 4 slots: 3 waves of 0.2 s; 10 + 1 or 2 tasks of 5 reduce partitions.
    let (jobs, tasks) = model::jobs_and_tasks(&settings, 200.0);
    let batch = &told.batches[&3];
    assert_eq!((batch.jobs, f64::from(batch.tasks), batch.blocks), (jobs, tasks, 10));
    assert!(close(told.mean_processing_s(), 0.6 + 0.327 * f64::from(jobs) + 0.0038 * tasks, 0.001));
}

#[test]
fn counts_that_are_kept_need_every_partition_in_one_job() {
    for settings in [Settings { state: true, ..before() }, Settings { window_batches: 3, ..before() }] {
        let told = told(&settings, 7, 20);
        assert!(told.whole().all(|batch| (batch.jobs, batch.tasks) == (1, 10 + 4 + 4)));
    }
}

#[test]
fn a_batch_of_few_records_is_scanned_for_the_keys_it_really_has() {
    // One line of three words a second: printing five rows wants more partitions than of a full batch.
    let told = told(&at_rate(1.0, phase(4, 4, 0, Per::Line)), 7, 40);
    let jobs: Vec<_> = told.completed().map(|batch| batch.jobs).collect();
    assert!(jobs.iter().any(|jobs| *jobs > 1), "{jobs:?}");
    assert!(told.completed().all(|batch| batch.tasks <= 2 + 4 + 4));
}

#[test]
fn the_latency_of_a_record_is_half_an_interval_and_half_a_block_and_the_work() {
    let told = told(&after(), 7, 60);
    let (sum_s, count) = told
        .records
        .iter()
        .filter(|record| record.kind == "record" && (10..50).contains(&record.second))
        .map(|record| (record.total.mean().unwrap().as_secs_f64() * record.ok as f64, record.ok))
        .fold((0.0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    // Lines of (t - interval - block, t - block]: the last block of an interval lands in the next batch.
    let expected_s = 0.2 + 1.0 + 1.08;
    assert!(close(sum_s / count as f64, expected_s, 0.02), "{} s", sum_s / count as f64);
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_one_others() {
    let settings = Settings { poisson: true, skew: 1.0, backpressure: true, ..before() };
    let one = told(&settings, 7, 30).text;
    assert!(one.len() > 10_000);
    assert!(one == told(&settings, 7, 30).text && one != told(&settings, 8, 30).text);
}

#[test]
fn the_first_error_of_the_reader_ends_it() {
    let mut calls = 0;
    let (recorder, series, journal) = (Recorder::default(), Series::default(), Journal::default());
    let failed = simulate(&before(), 7, Duration::from_secs(60), &recorder, &series, &journal, &mut |_| {
        calls += 1;
        anyhow::ensure!(calls < 3, "the disk is full");
        Ok(())
    });
    assert_eq!((failed.unwrap_err().to_string(), calls), ("the disk is full".to_owned(), 3));
}

#[test]
fn the_rate_that_the_model_calls_highest_is_where_a_stream_begins_to_fall_behind() {
    let graceful_stop_timeout = Some(Duration::from_secs(1));
    for settings in [
        phase(4, 4, 15, Per::Line),
        phase(4, 3, 15, Per::Line),
        Settings { like: Like::None, ..phase(8, 8, 4, Per::Word) },
    ] {
        let highest = model::highest_stable_rate(&settings).unwrap();
        let last_delay_s = |share: f64| {
            let settings = Settings { graceful_stop_timeout, ..at_rate(share * highest, settings.clone()) };
            *told(&settings, 7, 60).delays_s().last().unwrap()
        };
        let (below_s, above_s) = (last_delay_s(0.95), last_delay_s(1.05));
        assert!(below_s < 0.1 && above_s > 1.0, "{highest}/s: {below_s} s below, {above_s} s above");
    }
}

#[test]
fn burning_is_said_to_be_modelled_as_sleeping() {
    let burning = told(&Settings { work: crate::settings::Work::Burn, ..after() }, 7, 6);
    assert!(burning.engine.notes[0].contains("a CPU of its own"), "{:?}", burning.engine.notes);
    let sleeping = told(&after(), 7, 6);
    assert_eq!((burning.batches, sleeping.engine.notes.len()), (sleeping.batches, 0));
}

#[test]
fn nothing_at_all_ends_at_once() {
    for settings in [Settings::default(), before()] {
        let told = told(&settings, 7, 0);
        assert!(told.batches.is_empty() && told.records.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_set_every_line_that_was_due_is_accounted_for(
        (cores, receivers, partitions) in (1_u32..6, 1_u32..3, 0_u32..6),
        (cost_ms, rate) in (0_u64..20, 0.0_f64..150.0),
        (interval_ms, block_ms) in (300_u64..2_500, 50_u64..1_500),
        (concurrent_jobs, print, vocabulary) in (1_u32..3, 0_u32..12, 1_u32..60),
        (poisson, backpressure, state, spark) in any::<(bool, bool, bool, bool)>(),
        memory_bytes in 200_u64..50_000,
        stop_ms in 0_u64..5_000,
    ) {
        let settings = at_rate(rate, Settings {
            cores, receivers, partitions, concurrent_jobs, print, vocabulary, poisson, backpressure, memory_bytes,
            state: state && concurrent_jobs == 1,
            cost: Duration::from_millis(cost_ms),
            batch_interval: Duration::from_millis(interval_ms),
            block_interval: Duration::from_millis(block_ms),
            like: if spark { Like::Spark } else { Like::None },
            max_line_bytes: 100,
            pid_min_rate: 20.0,
            graceful_stop_timeout: Some(Duration::from_millis(stop_ms)),
            ..Settings::default()
        });
        let told = told(&settings, 7, 15);
        let due: u64 = (0..settings.running_receivers())
            .map(|stream| words::schedule(&settings, 7, stream).take_while(|at_ns| *at_ns < 15 * SECOND_NS).count() as u64)
            .sum();
        let (ok, unknown) = told.count("record");
        prop_assert_eq!(ok + unknown, due);
        let in_batches: u64 = told.batches.values().map(|batch| batch.records).sum();
        let processed: u64 = told.completed().map(|batch| batch.records).sum();
        prop_assert!(in_batches <= due && processed == ok, "{in_batches} in batches, {processed} processed, {due} due");
        prop_assert!(told.series("held_bytes").into_iter().all(|bytes| bytes <= memory_bytes as f64));
        let (ok, unknown) = told.count("batch");
        prop_assert_eq!(ok + unknown, told.batches.len() as u64);
        for batch in told.completed() {
            prop_assert!(batch.started_ms.unwrap() >= batch.submitted_ms && batch.ended_ms >= batch.started_ms);
        }
    }
}

//! A job on batches, without an engine.

use super::*;
use crate::Settings;
use crate::policy::{Output, start_of};
use crate::stream::{Cost, Job, Stream, Word};

/// Runs a job on batches of blocks, every partition of it; gives the rows of each batch, sorted.
fn run(job: &Job, batches: &[&[&str]]) -> Vec<Vec<String>> {
    let one = |(number, blocks): (u64, &&[&str])| {
        let (batch, _) = mapped(job, number, blocks);
        let reduced =
            (0..job.plan().reduce_partitions as usize).map(|partition| batch.reduce(partition, None).unwrap());
        let mut rows: Vec<_> = reduced.flat_map(|rows| rows.output).collect();
        batch.ended_well();
        rows.sort();
        rows
    };
    (0..).zip(batches).map(one).collect()
}

fn mapped(job: &Job, number: u64, blocks: &[&str]) -> (Arc<dyn Running>, Charge) {
    let texts = blocks.iter().map(|text| Arc::new((*text).to_owned())).collect();
    let batch = job.program.clone().begin(number, texts, u64::MAX);
    let partitions = job.plan().partitions;
    let mut charge = Charge::default();
    let mut add = |of: Charge| {
        charge.sleep_ns += of.sleep_ns;
        charge.burn_ns += of.burn_ns;
    };
    if partitions == 0 {
        (0..blocks.len()).for_each(|block| add(batch.map_block(block)));
    } else {
        (0..blocks.len()).for_each(|block| batch.spread(block, start_of(block as u32, partitions)));
        (0..partitions as usize).for_each(|partition| add(batch.map_partition(partition)));
    }
    (batch, charge)
}

fn word_count(settings: Settings) -> Job {
    Job::word_count(&Settings { print: 100, ..settings })
}

#[test]
fn words_are_counted_however_they_are_spread() {
    let blocks: &[&str] = &["a b a\nc\n", "a\r\n\n", "ä\n"];
    for partitions in [0, 1, 2, 7] {
        for reduce in [1, 3] {
            let settings = Settings { partitions, reduce_partitions: Some(reduce), ..Settings::default() };
            let rows = run(&word_count(settings), &[blocks, &[]]);
            // An empty line has one word, which is empty, as split makes it elsewhere.
            assert_eq!(rows[0], ["(, 1)", "(a, 3)", "(b, 1)", "(c, 1)", "(ä, 1)"], "{partitions} and {reduce}");
            assert!(rows[1].is_empty());
        }
    }
}

#[test]
fn counts_are_of_a_batch_of_a_window_or_of_the_stream() {
    let batches: [&[&str]; 4] = [&["a\nb\n"], &["a\n"], &[], &["a\n"]];
    for (window_batches, state, expected) in [
        (0, false, [vec!["(a, 1)", "(b, 1)"], vec!["(a, 1)"], vec![], vec!["(a, 1)"]]),
        (2, false, [vec!["(a, 1)", "(b, 1)"], vec!["(a, 2)", "(b, 1)"], vec!["(a, 1)"], vec!["(a, 1)"]]),
        (
            0,
            true,
            [vec!["(a, 1)", "(b, 1)"], vec!["(a, 2)", "(b, 1)"], vec!["(a, 2)", "(b, 1)"], vec!["(a, 3)", "(b, 1)"]],
        ),
    ] {
        let job = word_count(Settings { window_batches, state, ..Settings::default() });
        assert_eq!(run(&job, &batches), expected, "window {window_batches}, state {state}");
    }
}

#[test]
fn a_batch_that_failed_leaves_nothing_behind_and_neither_do_its_last_tasks() {
    for (window_batches, state) in [(3, false), (0, true)] {
        let settings =
            Settings { partitions: 1, reduce_partitions: Some(2), window_batches, state, ..Settings::default() };
        let job = word_count(settings);
        let words: &[&str] = &["a b c d\n"];
        let rows = |batch: &Arc<dyn Running>, partition| batch.reduce(partition, None).unwrap().output;
        run(&job, &[words]);
        let (failed, _) = mapped(&job, 1, words);
        rows(&failed, 0);
        // Its other task has not ended when the next batch is at work.
        let (next, _) = mapped(&job, 2, words);
        let mut found = [rows(&next, 0), rows(&next, 1)].concat();
        found.sort();
        assert_eq!(found, ["(a, 2)", "(b, 2)", "(c, 2)", "(d, 2)"], "window {window_batches}, state {state}");
        assert!(rows(&failed, 1).is_empty());
        next.ended_well();
        let (last, _) = mapped(&job, 3, &[]);
        let all: Vec<_> = [rows(&last, 0), rows(&last, 1)].concat();
        let expected = if state { 2 } else { 1 };
        assert!(all.len() == 4 && all.iter().all(|row| row.contains(&format!(", {expected})"))), "{all:?}");
    }
}

#[test]
fn a_cost_is_charged_by_line_or_by_word() {
    use crate::settings::{Per, Work};
    let cost = std::time::Duration::from_micros(4);
    for (cost_per, work, charge) in [
        (Per::Line, Work::Sleep, Charge { sleep_ns: 8_000, burn_ns: 0 }),
        (Per::Word, Work::Burn, Charge { sleep_ns: 0, burn_ns: 16_000 }),
    ] {
        for partitions in [0, 3] {
            let job = word_count(Settings { cost, cost_per, work, partitions, ..Settings::default() });
            assert_eq!(mapped(&job, 0, &["a b c\nd\n"]).1, charge);
        }
    }
}

#[test]
fn only_as_many_rows_are_given_as_are_asked_for() {
    let settings = Settings { print: 2, partitions: 1, ..Settings::default() };
    let (batch, _) = mapped(&Job::word_count(&settings), 0, &["a b c d e\n"]);
    let rows = batch.reduce(0, Some(3)).unwrap();
    assert_eq!((rows.count, rows.output.len()), (3, 3));
}

#[test]
fn operators_follow_one_another() {
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let told = seen.clone();
    let job = Stream::lines()
        .map(|line: &str| line.len() as u64)
        .filter(|length| *length > 0)
        .cost(Cost { each: std::time::Duration::from_nanos(5), work: crate::settings::Work::Sleep })
        .flat_map(|length, out| (1..=length).for_each(out))
        .map(|number| (number % 2, 1_u32))
        .reduce_by_key(|total, count| *total += count, 3)
        .for_each(move |batch, rows| lock(&told).entry(batch).or_insert_with(Vec::new).extend_from_slice(rows));
    assert_eq!(job.plan().outputs, [Output::All]);
    run(&job, &[&["abc\n\nde\n"]]);
    let mut rows = lock(&seen)[&0].clone();
    rows.sort_unstable();
    assert_eq!(rows, [(0, 2), (1, 3)]);
    assert_eq!(mapped(&job, 1, &["abc\n\nde\n"]).1, Charge { sleep_ns: 10, burn_ns: 0 });
}

#[test]
fn words_of_any_length_are_keys() {
    let long = "x".repeat(1_000);
    let job = Stream::lines()
        .map(|line: &str| (Word::new(line), 1_u64))
        .reduce_by_key(|total, count| *total += count, 2)
        .print(9);
    let text = format!("{long}\n{long}\n");
    assert_eq!(run(&job, &[&[text.as_str()]]), [[format!("({long}, 2)")]]);
}

//! A job at work on one batch: what each kind of task does with the text of the blocks.
//!
//! The one rule: a task touches what is its own. Tasks of one stage never write to the same place, and a stage reads
//! only what the one before it has finished, so the locks here are never waited for.
//!
//! What a batch leaves for those after it counts only once the batch has ended well: it is put beside what is kept, and
//! the next batch takes it or drops it, partition by partition. So a batch that fails in one of its tasks leaves nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{Charge, Flow, Key, Value};

/// The lines of a block, each with its newline but perhaps the last.
pub(crate) type Text = Arc<String>;

/// A job without its types.
pub(crate) trait Begin: Send + Sync {
    /// Begins on a batch and its blocks.
    fn begin(self: Arc<Self>, batch: u64, blocks: Vec<Text>) -> Arc<dyn Running>;
}

/// A batch at work.
pub(crate) trait Running: Send + Sync {
    /// Spreads the lines of a block over the partitions, the first to partition `start`.
    fn spread(&self, block: usize, start: u32);
    /// Maps and combines what was spread to a partition.
    fn map_partition(&self, partition: usize) -> Charge;
    /// Maps and combines a block as it is.
    fn map_block(&self, block: usize) -> Charge;
    /// Brings together what belongs to a partition; at most so many rows are asked for.
    fn reduce(&self, partition: usize, rows: Option<u32>) -> Rows;
    /// All of it has ended well. Said before a task of the next batch starts, where batches need one another.
    fn ended_well(&self);
}

/// What a task of the last stage gives.
#[derive(Default)]
pub(crate) struct Rows {
    /// How many.
    pub count: u32,
    /// The first of them as text, where they are printed.
    pub output: Vec<String>,
}

/// Which batches a value is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Batch,
    Window(u32),
    Stream,
}

/// What becomes of the rows.
pub(super) enum Sink<K, V> {
    Print(u32),
    ForEach(ForEach<K, V>),
}

type ForEach<K, V> = Box<dyn Fn(u64, &[(K, V)]) + Send + Sync>;

/// Quick, and the same in every run: rows come in the same order.
type Table<K, V> = HashMap<K, V, FixedState>;

pub(super) struct Program<F, R, K, V> {
    flow: F,
    reduce: R,
    scope: Scope,
    sink: Sink<K, V>,
    partitions: usize,
    reduce_partitions: u32,
    /// By partition of the reduce: what later batches need.
    kept: Vec<Mutex<Kept<K, V>>>,
}

struct Kept<K, V> {
    /// The stream so far.
    state: Table<K, V>,
    /// What the last batch adds to it, if that ends well.
    added: Option<Left<Table<K, V>>>,
    /// Batches of the window, the last of which may not have ended.
    window: VecDeque<Left<Vec<(K, V)>>>,
}

/// What a batch left.
struct Left<T> {
    batch: u64,
    ended_well: Arc<AtomicBool>,
    rows: T,
}

impl<F, R, K, V> Program<F, R, K, V> {
    pub(super) fn new(
        flow: F,
        reduce: R,
        scope: Scope,
        sink: Sink<K, V>,
        partitions: u32,
        reduce_partitions: u32,
    ) -> Self {
        let kept = || Mutex::new(Kept { state: Table::default(), added: None, window: VecDeque::new() });
        let kept = (0..reduce_partitions).map(|_| kept()).collect();
        let partitions = partitions as usize;
        Self { flow, reduce, scope, sink, partitions, reduce_partitions, kept }
    }
}

impl<F, R, K, V> Begin for Program<F, R, K, V>
where
    F: Flow<Item = (K, V)>,
    R: Fn(&mut V, V) + Send + Sync + 'static,
    K: Key,
    V: Value,
{
    fn begin(self: Arc<Self>, batch: u64, blocks: Vec<Text>) -> Arc<dyn Running> {
        let maps = if self.partitions == 0 { blocks.len() } else { self.partitions };
        Arc::new(Batch {
            batch,
            spread: blocks.iter().map(|_| OnceLock::new()).collect(),
            combined: (0..maps).map(|_| Mutex::default()).collect(),
            blocks,
            ended_well: Arc::default(),
            program: self,
        })
    }
}

struct Batch<F, R, K, V> {
    program: Arc<Program<F, R, K, V>>,
    batch: u64,
    blocks: Vec<Text>,
    /// By block and partition: where the lines are.
    spread: Vec<OnceLock<Vec<Vec<Span>>>>,
    /// Whether all of it has.
    ended_well: Arc<AtomicBool>,
    /// By task of the map: what it combined.
    combined: Vec<Mutex<Combined<K, V>>>,
}

/// By partition of the reduce, where there are any: keys and their values.
type Combined<K, V> = BTreeMap<u32, Vec<(K, V)>>;

/// A line's first byte in its block, and the byte after its last.
type Span = (u32, u32);

impl<F, R, K, V> Running for Batch<F, R, K, V>
where
    F: Flow<Item = (K, V)>,
    R: Fn(&mut V, V) + Send + Sync + 'static,
    K: Key,
    V: Value,
{
    fn spread(&self, block: usize, start: u32) {
        let partitions = self.program.partitions;
        let text = &self.blocks[block];
        // Twenty bytes a line are few: no list grows more than once.
        let mut spans = vec![Vec::with_capacity(text.len() / 20 / partitions + 1); partitions];
        let mut partition = start as usize % partitions;
        for_each_line(text, |from, to| {
            spans[partition].push((from as u32, to as u32));
            partition = if partition + 1 == partitions { 0 } else { partition + 1 };
        });
        // A block is spread once.
        let _ = self.spread[block].set(spans);
    }

    fn map_partition(&self, partition: usize) -> Charge {
        let mut task = MapTask::new(&*self.program);
        for (text, spread) in self.blocks.iter().zip(&self.spread) {
            let spans = spread.get().map_or(&[][..], |spread| &spread[partition]);
            for (from, to) in spans {
                task.line(&text[*from as usize..*to as usize]);
            }
        }
        self.end_map(partition, task)
    }

    fn map_block(&self, block: usize) -> Charge {
        let mut task = MapTask::new(&*self.program);
        let text = &self.blocks[block];
        for_each_line(text, |from, to| task.line(&text[from..to]));
        self.end_map(block, task)
    }

    fn reduce(&self, partition: usize, rows: Option<u32>) -> Rows {
        let program = &*self.program;
        let mut table = Table::default();
        for task in &self.combined {
            let combined = lock(task).remove(&(partition as u32));
            for (key, value) in combined.into_iter().flatten() {
                add(&mut table, &program.reduce, key, value);
            }
        }
        match program.scope {
            Scope::Batch => self.give(table.len(), table.into_iter(), rows),
            Scope::Stream => {
                let mut kept = lock(&program.kept[partition]);
                if kept.added.as_ref().is_some_and(|added| added.batch > self.batch) {
                    // This batch has failed, and the next one is at work already.
                    return Rows::default();
                }
                if let Some(added) = kept.added.take_if(|added| added.ended_well.load(Relaxed)) {
                    for (key, value) in added.rows {
                        add(&mut kept.state, &program.reduce, key, value);
                    }
                }
                let state = &kept.state;
                let is_new = |key: &K| !state.contains_key(key);
                // Only what is printed is copied, where that is all that is asked for.
                let known = state.iter().map(|(key, value)| {
                    let mut value = value.clone();
                    if let Some(more) = table.get(key) {
                        (program.reduce)(&mut value, more.clone());
                    }
                    (key.clone(), value)
                });
                let new = || table.iter().filter(|(key, _)| is_new(key));
                let all = state.len() + new().count();
                let new = new().map(|(key, value)| (key.clone(), value.clone()));
                let given = self.give(all, known.chain(new), rows);
                kept.added = Some(self.left(table));
                given
            }
            Scope::Window(batches) => {
                let mut kept = lock(&program.kept[partition]);
                if kept.window.back().is_some_and(|last| last.batch > self.batch) {
                    return Rows::default();
                }
                let is_of_window = |batch: u64| batch + u64::from(batches) > self.batch;
                kept.window.retain(|left| is_of_window(left.batch) && left.ended_well.load(Relaxed));
                kept.window.push_back(self.left(table.into_iter().collect()));
                let mut all = Table::default();
                for (key, value) in kept.window.iter().flat_map(|left| &left.rows) {
                    add(&mut all, &program.reduce, key.clone(), value.clone());
                }
                self.give(all.len(), all.into_iter(), rows)
            }
        }
    }

    fn ended_well(&self) {
        self.ended_well.store(true, Relaxed);
    }
}

impl<F, R, K: Key, V: Value> Batch<F, R, K, V> {
    fn end_map(&self, task: usize, map: MapTask<'_, F, R, K, V>) -> Charge {
        let partitions = self.program.reduce_partitions;
        let mut combined = Combined::new();
        for (key, value) in map.table {
            combined.entry(key.partition(partitions)).or_default().push((key, value));
        }
        *lock(&self.combined[task]) = combined;
        map.charge
    }

    fn left<T>(&self, rows: T) -> Left<T> {
        Left { batch: self.batch, ended_well: self.ended_well.clone(), rows }
    }

    fn give(&self, all: usize, rows: impl Iterator<Item = (K, V)>, most: Option<u32>) -> Rows {
        let count = most.map_or(all, |most| all.min(most as usize)) as u32;
        match &self.program.sink {
            Sink::Print(print) => {
                // One more than is printed says that there are more.
                let printed = rows.take(print.saturating_add(1).min(count) as usize);
                Rows { count, output: printed.map(|(key, value)| format!("({key}, {value})")).collect() }
            }
            Sink::ForEach(each) => {
                each(self.batch, &rows.collect::<Vec<_>>());
                Rows { count, output: Vec::new() }
            }
        }
    }
}

/// A task of the map: its records are combined by key as they come.
struct MapTask<'a, F, R, K, V> {
    program: &'a Program<F, R, K, V>,
    charge: Charge,
    table: Table<K, V>,
}

impl<'a, F, R, K, V> MapTask<'a, F, R, K, V> {
    fn new(program: &'a Program<F, R, K, V>) -> Self {
        Self { program, charge: Charge::default(), table: Table::default() }
    }
}

impl<F, R, K, V> MapTask<'_, F, R, K, V>
where
    F: Flow<Item = (K, V)>,
    R: Fn(&mut V, V),
    K: Key,
{
    #[inline(always)]
    fn line(&mut self, line: &str) {
        let Self { program, charge, table } = self;
        program.flow.each(line, charge, &mut |_: &mut Charge, (key, value)| add(table, &program.reduce, key, value));
    }
}

#[inline(always)]
fn add<K: Key, V>(table: &mut Table<K, V>, reduce: &impl Fn(&mut V, V), key: K, value: V) {
    match table.get_mut(&key) {
        Some(total) => reduce(total, value),
        None => {
            table.insert(key, value);
        }
    }
}

/// Where each line of a text begins and ends: at its newline, and a carriage return before it, or at the text's end.
fn for_each_line(text: &str, mut each: impl FnMut(usize, usize)) {
    let bytes = text.as_bytes();
    let mut from = 0;
    for newline in memchr::memchr_iter(b'\n', bytes) {
        let returned = newline > from && bytes[newline - 1] == b'\r';
        each(from, newline - usize::from(returned));
        from = newline + 1;
    }
    if from < bytes.len() {
        each(from, bytes.len());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use crate::policy::{Output, start_of};
    use crate::stream::{Cost, Job, Stream, Word};

    /// Runs a job on batches of blocks, every partition of it; gives the rows of each batch, sorted.
    fn run(job: &Job, batches: &[&[&str]]) -> Vec<Vec<String>> {
        let one = |(number, blocks): (u64, &&[&str])| {
            let (batch, _) = mapped(job, number, blocks);
            let reduced = (0..job.plan().reduce_partitions as usize).map(|partition| batch.reduce(partition, None));
            let mut rows: Vec<_> = reduced.flat_map(|rows| rows.output).collect();
            batch.ended_well();
            rows.sort();
            rows
        };
        (0..).zip(batches).map(one).collect()
    }

    fn mapped(job: &Job, number: u64, blocks: &[&str]) -> (Arc<dyn Running>, Charge) {
        let texts = blocks.iter().map(|text| Arc::new((*text).to_owned())).collect();
        let batch = job.program.clone().begin(number, texts);
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
                [
                    vec!["(a, 1)", "(b, 1)"],
                    vec!["(a, 2)", "(b, 1)"],
                    vec!["(a, 2)", "(b, 1)"],
                    vec!["(a, 3)", "(b, 1)"],
                ],
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
            let rows = |batch: &Arc<dyn Running>, partition| batch.reduce(partition, None).output;
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
        let rows = batch.reduce(0, Some(3));
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
}

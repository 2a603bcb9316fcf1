//! A job at work on one batch: what each kind of task does with the text of the blocks.
//!
//! The one rule: a task touches what is its own. Tasks of one stage never write to the same place, and a stage reads
//! only what the one before it has finished, so the locks here are never waited for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::kept::{self, Leaving, Table, add};
use super::{Charge, Flow, Key, Value};

/// The lines of a block, each with its newline but perhaps the last.
pub(crate) type Text = Arc<String>;

/// A job without its types.
pub(crate) trait Begin: Send + Sync {
    /// Begins on a batch and its blocks. What is kept for the batches after it may be so many bytes.
    fn begin(self: Arc<Self>, batch: u64, blocks: Vec<Text>, state_bytes: u64) -> Arc<dyn Running>;
}

/// A batch at work.
pub(crate) trait Running: Send + Sync {
    /// Spreads the lines of a block over the partitions, the first to partition `start`.
    fn spread(&self, block: usize, start: u32);
    /// Maps and combines what was spread to a partition.
    fn map_partition(&self, partition: usize) -> Charge;
    /// Maps and combines a block as it is.
    fn map_block(&self, block: usize) -> Charge;
    /// Brings together what belongs to a partition; at most so many rows are asked for. An error says why the batch fails.
    fn reduce(&self, partition: usize, rows: Option<u32>) -> Result<Rows, String>;
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

pub(super) struct Program<F, R, K, V> {
    flow: F,
    reduce: R,
    sink: Sink<K, V>,
    partitions: usize,
    reduce_partitions: u32,
    /// By partition of the reduce: what later batches need.
    kept: Vec<Kept<K, V>>,
}

enum Kept<K, V> {
    Nothing,
    Window(u32, Mutex<kept::Window<K, V>>),
    Stream(Mutex<kept::Running<K, V>>),
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
        let kept = || match scope {
            Scope::Batch => Kept::Nothing,
            Scope::Window(batches) => Kept::Window(batches, Mutex::default()),
            Scope::Stream => Kept::Stream(Mutex::default()),
        };
        let kept = (0..reduce_partitions).map(|_| kept()).collect();
        Self { flow, reduce, sink, partitions: partitions as usize, reduce_partitions, kept }
    }
}

impl<F, R, K, V> Begin for Program<F, R, K, V>
where
    F: Flow<Item = (K, V)>,
    R: Fn(&mut V, V) + Send + Sync + 'static,
    K: Key,
    V: Value,
{
    fn begin(self: Arc<Self>, batch: u64, blocks: Vec<Text>, state_bytes: u64) -> Arc<dyn Running> {
        let maps = if self.partitions == 0 { blocks.len() } else { self.partitions };
        Arc::new(Batch {
            batch,
            leaving: Leaving::new(batch, state_bytes),
            spread: blocks.iter().map(|_| OnceLock::new()).collect(),
            combined: (0..maps).map(|_| Mutex::default()).collect(),
            blocks,
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
    /// For the batches after it.
    leaving: Leaving,
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

    fn reduce(&self, partition: usize, rows: Option<u32>) -> Result<Rows, String> {
        let program = &*self.program;
        let mut table = Table::default();
        for task in &self.combined {
            let combined = lock(task).remove(&(partition as u32));
            for (key, value) in combined.into_iter().flatten() {
                add(&mut table, &program.reduce, key, value);
            }
        }
        let given = match &program.kept[partition] {
            Kept::Nothing => Some(self.give(table.len(), table.into_iter(), rows)),
            Kept::Window(batches, kept) => {
                let all = lock(kept).add(&self.leaving, *batches, table, &program.reduce)?;
                all.map(|all| self.give(all.len(), all.into_iter(), rows))
            }
            Kept::Stream(kept) => {
                lock(kept).add(&self.leaving, table, &program.reduce, |all, known| self.give(all, known, rows))?
            }
        };
        Ok(given.unwrap_or_default())
    }

    fn ended_well(&self) {
        self.leaving.ended_well();
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
mod tests;

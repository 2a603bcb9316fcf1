//! A small typed language for jobs over a stream of lines.
//!
//! ```
//! use socket_stream::stream::{Stream, Word};
//!
//! let job = Stream::lines()
//!     .repartition(4)
//!     .flat_map(|line, out| line.split(' ').for_each(|word| out(Word::new(word))))
//!     .map(|word| (word, 1_u64))
//!     .reduce_by_key(|total, count| *total += count, 4)
//!     .print(5);
//! assert_eq!(job.plan().reduce_partitions, 4);
//! ```
//!
//! The engine runs it on each batch. The one rule: operators between a spread and a reduce are one loop. Each is a type
//! of its own, so that the compiler sees all of them at once; only whole tasks are called through a pointer.

mod flow;
mod kept;
mod run;

use std::fmt::Display;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::{self, Output, Plan};
use crate::settings::{Per, Settings, Work};

pub use flow::{Charge, Costly, Filter, FlatMap, Flow, Map, Split};
use run::{Program, Scope, Sink};
pub(crate) use run::{Running, Text};

/// A word, as a key: up to 24 bytes lie in it, longer ones beside it.
pub type Word = compact_str::CompactString;

/// Where a job begins.
#[derive(Clone, Copy, Debug)]
pub struct Stream;

impl Stream {
    /// The lines that receivers get, without their newlines.
    pub fn lines() -> Lines {
        Lines { partitions: 0, cost: Cost::default() }
    }
}

/// What an operator costs for each record that passes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// For one record.
    pub each: Duration,
    /// How it is spent.
    pub work: Work,
}

/// Lines of text.
#[derive(Clone, Copy, Debug)]
pub struct Lines {
    partitions: u32,
    cost: Cost,
}

impl Lines {
    /// Spreads the lines of each block evenly over so many partitions, in turn. 0, or without it: each block is one.
    pub fn repartition(self, partitions: u32) -> Self {
        Self { partitions, ..self }
    }

    /// What each line costs.
    pub fn cost(self, cost: Cost) -> Self {
        Self { cost, ..self }
    }

    /// Makes one record of each line.
    pub fn map<T, F>(self, each: F) -> Records<impl Flow<Item = T>>
    where
        T: 'static,
        F: Fn(&str) -> T + Send + Sync + 'static,
    {
        self.flat_map(move |line, out| out(each(line)))
    }

    /// Makes any number of records of each line: whatever is given to the second argument.
    pub fn flat_map<T, F>(self, each: F) -> Records<impl Flow<Item = T>>
    where
        T: 'static,
        F: Fn(&str, &mut dyn FnMut(T)) + Send + Sync + 'static,
    {
        Records { partitions: self.partitions, flow: Split::new(self.cost, each) }
    }
}

/// Records of any kind.
pub struct Records<F> {
    partitions: u32,
    flow: F,
}

impl<F: Flow> Records<F> {
    /// What each record costs.
    pub fn cost(self, cost: Cost) -> Records<Costly<F>> {
        Records { partitions: self.partitions, flow: Costly::new(self.flow, cost) }
    }

    /// Makes one record of each.
    pub fn map<T, G>(self, each: G) -> Records<Map<F, G>>
    where
        G: Fn(F::Item) -> T + Send + Sync + 'static,
    {
        Records { partitions: self.partitions, flow: Map::new(self.flow, each) }
    }

    /// Makes any number of records of each: whatever is given to the second argument.
    pub fn flat_map<T, G>(self, each: G) -> Records<FlatMap<F, G, T>>
    where
        T: 'static,
        G: Fn(F::Item, &mut dyn FnMut(T)) + Send + Sync + 'static,
    {
        Records { partitions: self.partitions, flow: FlatMap::new(self.flow, each) }
    }

    /// Keeps the records for which it holds.
    pub fn filter<G>(self, keep: G) -> Records<Filter<F, G>>
    where
        G: Fn(&F::Item) -> bool + Send + Sync + 'static,
    {
        Records { partitions: self.partitions, flow: Filter::new(self.flow, keep) }
    }

    /// Brings the values of each key together, first within a task, then over all of them in so many partitions:
    /// `reduce` adds its second argument to its first. In which order is not said.
    ///
    /// # Panics
    /// Without a partition.
    pub fn reduce_by_key<K, V, R>(self, reduce: R, partitions: u32) -> Reduced<F, R>
    where
        F: Flow<Item = (K, V)>,
        K: Key,
        V: Value,
        R: Fn(&mut V, V) + Send + Sync + 'static,
    {
        assert!(partitions > 0, "a reduce needs a partition");
        Reduced {
            partitions: self.partitions,
            flow: self.flow,
            reduce,
            reduce_partitions: partitions,
            scope: Scope::Batch,
        }
    }
}

/// One value for each key: of a batch, of a window of batches, or of the stream so far.
pub struct Reduced<F, R> {
    partitions: u32,
    flow: F,
    reduce: R,
    reduce_partitions: u32,
    scope: Scope,
}

impl<F, R, K, V> Reduced<F, R>
where
    F: Flow<Item = (K, V)>,
    R: Fn(&mut V, V) + Send + Sync + 'static,
    K: Key,
    V: Value,
{
    /// Values of the last so many batches, each time, but those that failed. 0 and 1: of one batch.
    pub fn by_window(self, batches: u32) -> Self {
        Self { scope: if batches > 1 { Scope::Window(batches) } else { Scope::Batch }, ..self }
    }

    /// Values of the stream so far, without batches that failed. A batch after which they would take more than
    /// [`Settings::state_bytes`] fails, as in a window.
    pub fn running(self) -> Self {
        Self { scope: Scope::Stream, ..self }
    }

    /// Prints the first rows of each batch, and whether there are more. Only as many partitions are reduced as that
    /// takes, except where each must be to know the values of the batches to come.
    pub fn print(self, rows: u32) -> Job {
        self.job(Sink::Print(rows))
    }

    /// Gives every row of every batch to `each`, one partition at a time, from the threads of the tasks. The first
    /// argument is the batch's number, from 0.
    pub fn for_each(self, each: impl Fn(u64, &[(K, V)]) + Send + Sync + 'static) -> Job {
        self.job(Sink::ForEach(Box::new(each)))
    }

    fn job(self, sink: Sink<K, V>) -> Job {
        let output = match (&sink, self.scope) {
            // One more than is printed, to know whether there are more.
            (Sink::Print(rows), Scope::Batch) => Output::Take(rows.saturating_add(1)),
            _ => Output::All,
        };
        let plan =
            Plan { partitions: self.partitions, reduce_partitions: self.reduce_partitions, outputs: vec![output] };
        let print = if let Sink::Print(rows) = sink { rows } else { 0 };
        let keeps = self.scope != Scope::Batch;
        let program = Program::new(self.flow, self.reduce, self.scope, sink, self.partitions, self.reduce_partitions);
        Job { plan, print, keeps, program: Arc::new(program) }
    }
}

/// A job, ready to run on each batch of a stream.
#[derive(Clone)]
pub struct Job {
    plan: Plan,
    /// Rows printed of each batch.
    pub(crate) print: u32,
    /// Whether batches need what those before them left, so that they have to end in their order.
    pub(crate) keeps: bool,
    pub(crate) program: Arc<dyn run::Begin>,
}

impl Job {
    /// Its stages and outputs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The job that the role `engine` runs: counts words.
    pub fn word_count(settings: &Settings) -> Self {
        let cost = Cost { each: settings.cost, work: settings.work };
        let lines = Stream::lines().repartition(settings.partitions);
        match settings.cost_per {
            Per::Line => counted(lines.cost(cost).flat_map(|line, out| words(line, out)), settings),
            Per::Word => counted(lines.flat_map(|line, out| words(line, out)).cost(cost), settings),
        }
    }
}

/// As `line.split(' ')`, at half the cost for words of a few letters.
#[inline(always)]
fn words(line: &str, out: &mut dyn FnMut(Word)) {
    let mut from = 0;
    for (at, byte) in line.bytes().enumerate() {
        if byte == b' ' {
            out(Word::new(&line[from..at]));
            from = at + 1;
        }
    }
    out(Word::new(&line[from..]));
}

fn counted(words: Records<impl Flow<Item = Word>>, settings: &Settings) -> Job {
    let pairs = words.map(|word| (word, 1_u64));
    let counts = pairs.reduce_by_key(|total, count| *total += count, settings.reduce_partitions());
    let counts = if settings.state { counts.running() } else { counts.by_window(settings.window_batches) };
    counts.print(settings.print)
}

/// What values can be brought together by.
pub trait Key: Hash + Eq + Clone + Display + Send + Sync + 'static {
    /// Which of `partitions` it belongs to: the same on every machine.
    fn partition(&self, partitions: u32) -> u32;
    /// Bytes that it holds beside its own size. What is kept from batch to batch is bounded by what its keys and values
    /// take ([`Settings::state_bytes`]); a value counts with its own size alone.
    fn heap_bytes(&self) -> usize;
}

impl Key for Word {
    fn partition(&self, partitions: u32) -> u32 {
        policy::partition_of(self.as_bytes(), partitions)
    }

    fn heap_bytes(&self) -> usize {
        if self.is_heap_allocated() { self.capacity() } else { 0 }
    }
}

impl Key for String {
    fn partition(&self, partitions: u32) -> u32 {
        policy::partition_of(self.as_bytes(), partitions)
    }

    fn heap_bytes(&self) -> usize {
        self.capacity()
    }
}

macro_rules! key_of_bytes {
    ($($number:ty),*) => {
        $(impl Key for $number {
            fn partition(&self, partitions: u32) -> u32 {
                policy::partition_of(&self.to_le_bytes(), partitions)
            }

            fn heap_bytes(&self) -> usize {
                0
            }
        })*
    };
}

key_of_bytes!(u8, u16, u32, u64, i8, i16, i32, i64);

/// What a key can have.
pub trait Value: Clone + Display + Send + Sync + 'static {}

impl<T: Clone + Display + Send + Sync + 'static> Value for T {}

//! What batches leave for those after them, by partition of the reduce, and how many bytes that may be.
//!
//! The one rule: what a batch leaves counts only once the batch has ended well. Until then it lies beside what is kept,
//! and the next batch takes it or drops it. A batch after which too much would be kept is refused before it leaves
//! anything, so the engine goes on with what it has, and nothing is forgotten without a word.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{Key, Value};

/// Quick, and the same in every run: rows come in the same order.
pub(super) type Table<K, V> = HashMap<K, V, FixedState>;

/// Adds a value to its key's.
#[inline(always)]
pub(super) fn add<K: Key, V>(table: &mut Table<K, V>, reduce: &impl Fn(&mut V, V), key: K, value: V) {
    match table.get_mut(&key) {
        Some(total) => reduce(total, value),
        None => {
            table.insert(key, value);
        }
    }
}

/// What one partition keeps of the stream so far.
pub(super) struct Running<K, V> {
    table: Table<K, V>,
    /// What its keys hold elsewhere.
    heap_bytes: u64,
    /// What the last batch adds, if that ends well.
    added: Option<Left<Table<K, V>>>,
}

/// What one partition keeps of the last batches.
pub(super) struct Window<K, V> {
    /// The last of which may not have ended.
    batches: VecDeque<Left<Vec<(K, V)>>>,
}

/// What a batch left.
struct Left<T> {
    batch: u64,
    ended_well: Arc<AtomicBool>,
    rows: T,
    bytes: u64,
}

/// A batch that is about to leave something in each partition.
pub(super) struct Leaving {
    batch: u64,
    ended_well: Arc<AtomicBool>,
    most_bytes: u64,
    /// What would be kept in the partitions that have been asked about.
    bytes: AtomicU64,
}

impl Leaving {
    pub(super) fn new(batch: u64, most_bytes: u64) -> Self {
        Self { batch, ended_well: Arc::default(), most_bytes, bytes: AtomicU64::new(0) }
    }

    pub(super) fn ended_well(&self) {
        self.ended_well.store(true, Relaxed);
    }

    /// Whether one more partition may keep so many bytes. Every partition asks once, so it holds for all of them together.
    fn may_keep(&self, bytes: u64, what: &str, instead: &str) -> Result<(), String> {
        let all_bytes = self.bytes.fetch_add(bytes, Relaxed) + bytes;
        if all_bytes <= self.most_bytes {
            return Ok(());
        }
        let most_bytes = self.most_bytes;
        Err(format!(
            "{what} would hold {all_bytes} bytes or more, above state_bytes = {most_bytes}; raise it, {instead}, or have \
             fewer different keys"
        ))
    }
}

impl<K: Key, V: Value> Running<K, V> {
    /// Adds a batch, and gives what `rows` makes of how many keys there are now and of the rows; none for a batch that
    /// has failed, where the next one is at work already.
    pub(super) fn add<R>(
        &mut self,
        leaving: &Leaving,
        table: Table<K, V>,
        reduce: &impl Fn(&mut V, V),
        rows: impl FnOnce(usize, &mut dyn Iterator<Item = (K, V)>) -> R,
    ) -> Result<Option<R>, String> {
        if self.added.as_ref().is_some_and(|added| added.batch > leaving.batch) {
            return Ok(None);
        }
        self.take_added(reduce);
        let state = &self.table;
        let new = || table.iter().filter(|(key, _)| !state.contains_key(*key));
        let (new_keys, new_bytes) =
            new().fold((0, 0), |(keys, bytes), (key, _)| (keys + 1, bytes + key.heap_bytes() as u64));
        let all = state.len() + new_keys;
        let bytes = table_bytes::<K, V>(all) + self.heap_bytes + new_bytes;
        leaving.may_keep(bytes, "counts of the stream so far", "count by window (window_batches)")?;
        // Only what is printed is copied, where that is all that is asked for.
        let known = state.iter().map(|(key, value)| {
            let mut value = value.clone();
            if let Some(more) = table.get(key) {
                reduce(&mut value, more.clone());
            }
            (key.clone(), value)
        });
        let given = rows(all, &mut known.chain(new().map(|(key, value)| (key.clone(), value.clone()))));
        self.added = Some(Left::of(leaving, table, new_bytes));
        Ok(Some(given))
    }

    /// Takes what the last batch left, or drops it.
    fn take_added(&mut self, reduce: &impl Fn(&mut V, V)) {
        let Some(added) = self.added.take().filter(|added| added.ended_well.load(Relaxed)) else { return };
        self.heap_bytes += added.bytes;
        for (key, value) in added.rows {
            add(&mut self.table, reduce, key, value);
        }
    }
}

impl<K: Key, V: Value> Window<K, V> {
    /// Adds a batch, and gives the rows of the last so many; none for a batch that has failed, where the next one is at
    /// work already.
    pub(super) fn add(
        &mut self,
        leaving: &Leaving,
        batches: u32,
        table: Table<K, V>,
        reduce: &impl Fn(&mut V, V),
    ) -> Result<Option<Table<K, V>>, String> {
        if self.batches.back().is_some_and(|last| last.batch > leaving.batch) {
            return Ok(None);
        }
        let is_of_window = |batch: u64| batch + u64::from(batches) > leaving.batch;
        self.batches.retain(|left| is_of_window(left.batch) && left.ended_well.load(Relaxed));
        let heap_bytes: u64 = table.keys().map(|key| key.heap_bytes() as u64).sum();
        let bytes = (table.len() * size_of::<(K, V)>()) as u64 + heap_bytes;
        let kept_bytes: u64 = self.batches.iter().map(|left| left.bytes).sum();
        leaving.may_keep(kept_bytes + bytes, "a window of counts", "take fewer batches (window_batches)")?;
        self.batches.push_back(Left::of(leaving, table.into_iter().collect(), bytes));
        let mut all = Table::default();
        for (key, value) in self.batches.iter().flat_map(|left| &left.rows) {
            add(&mut all, reduce, key.clone(), value.clone());
        }
        Ok(Some(all))
    }
}

impl<T> Left<T> {
    fn of(leaving: &Leaving, rows: T, bytes: u64) -> Self {
        Self { batch: leaving.batch, ended_well: leaving.ended_well.clone(), rows, bytes }
    }
}

impl<K, V> Default for Running<K, V> {
    fn default() -> Self {
        Self { table: Table::default(), heap_bytes: 0, added: None }
    }
}

impl<K, V> Default for Window<K, V> {
    fn default() -> Self {
        Self { batches: VecDeque::new() }
    }
}

/// Bytes of a table of so many entries: slots in a power of two, of which an eighth is free, and a byte beside each.
fn table_bytes<K, V>(entries: usize) -> u64 {
    if entries == 0 {
        return 0;
    }
    let slots = (entries * 8).div_ceil(7).next_power_of_two().max(4);
    (slots * (size_of::<(K, V)>() + 1)) as u64
}

#[cfg(test)]
mod tests {
    use super::super::Word;
    use super::*;

    type Counts = Table<Word, u64>;

    /// `count` words, the first of which is word `first`, each as long as asked for.
    fn words(first: usize, count: usize, length: usize) -> Counts {
        (first..first + count).map(|n| (Word::new(format!("{n:0length$}")), 1)).collect()
    }

    fn sum(total: &mut u64, more: u64) {
        *total += more;
    }

    /// The keys there are after each batch, or why the batch failed.
    fn told(batches: impl Iterator<Item = Result<Option<usize>, String>>) -> Vec<Result<usize, String>> {
        batches.map(|keys| keys.map(Option::unwrap)).collect()
    }

    fn running(most_bytes: u64, batches: Vec<Counts>) -> (Running<Word, u64>, Vec<Result<usize, String>>) {
        let mut kept = Running::default();
        let told = told((0..).zip(batches).map(|(number, table)| {
            let leaving = Leaving::new(number, most_bytes);
            let keys = kept.add(&leaving, table, &sum, |all, rows| {
                assert_eq!(rows.count(), all);
                all
            })?;
            leaving.ended_well();
            Ok(keys)
        }));
        (kept, told)
    }

    #[test]
    fn the_bytes_of_a_table_are_those_that_it_has() {
        for entries in [0, 1, 3, 4, 7, 8, 14, 15, 1_000, 28_672, 28_673] {
            let mut table = Counts::default();
            (0..entries).for_each(|n| add(&mut table, &sum, Word::new(n.to_string()), 1));
            let (told, has) = (table_bytes::<Word, u64>(entries), table.allocation_size() as u64);
            assert!(has.abs_diff(told) <= 64, "{entries} entries: {told} of {has} bytes");
        }
    }

    #[test]
    fn ever_new_words_stay_below_the_bound_and_fail_loudly() {
        const MOST: u64 = 100_000;
        for length in [8, 100] {
            let (kept, told) = running(MOST, (0..100).map(|batch| words(100 * batch, 100, length)).collect());
            let failed: Vec<_> = told.iter().filter_map(|keys| keys.as_ref().err()).collect();
            assert!((1..100).contains(&failed.len()), "{} of 100 batches failed", failed.len());
            for part in
                ["counts of the stream so far would hold", "above state_bytes = 100000; raise it", "window_batches"]
            {
                assert!(failed[0].contains(part), "{}", failed[0]);
            }
            let heap: usize = kept.table.keys().map(Key::heap_bytes).sum();
            assert_eq!(kept.heap_bytes, heap as u64);
            let holds = (kept.table.allocation_size() + heap) as u64;
            assert!(holds <= MOST + 64, "{holds} bytes");
        }
    }

    #[test]
    fn a_full_state_goes_on_with_the_words_it_has() {
        let batches = vec![words(0, 100, 4), words(100, 1_000, 4), words(0, 100, 4), words(50, 60, 4)];
        let (kept, told) = running(10_000, batches);
        assert_eq!((&told[0], told[1].is_err(), &told[2], &told[3]), (&Ok(100), true, &Ok(100), &Ok(110)));
        let counts: u64 = kept.table.values().sum();
        assert_eq!(counts, 200, "what failed left nothing, and the last is not taken yet");
    }

    #[test]
    fn a_window_recovers_once_old_batches_leave() {
        let mut kept = Window::default();
        let sizes = [100, 100, 500, 100, 10, 400, 10];
        let told = told((0..).zip(sizes).map(|(number, size)| {
            // Each row is 32 bytes: 300 of them may be kept.
            let leaving = Leaving::new(number, 300 * 32);
            let all = kept.add(&leaving, 3, words(1_000 * number as usize, size, 4), &sum)?;
            leaving.ended_well();
            Ok(all.map(|all| all.len()))
        }));
        let keys: Vec<_> = told.iter().map(|keys| keys.as_ref().ok().copied()).collect();
        assert_eq!(keys, [Some(100), Some(200), None, Some(200), Some(110), None, Some(20)]);
        let reason = told[2].as_ref().unwrap_err();
        assert!(reason.starts_with("a window of counts would hold 22400 bytes or more"), "{reason}");
    }

    #[test]
    fn the_bound_holds_for_all_partitions_together() {
        let leaving = Leaving::new(0, 4_000);
        let mut partitions = [Window::default(), Window::default(), Window::default()];
        let kept = partitions.each_mut().map(|kept| kept.add(&leaving, 2, words(0, 60, 4), &sum).is_ok());
        assert_eq!(kept, [true, true, false], "60 rows of 32 bytes each");
    }
}

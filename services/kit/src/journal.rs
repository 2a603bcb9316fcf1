//! What a role tells beside numbers: one JSON object a line, kept until its reader has acknowledged it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

/// One line, as it is read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line<T> {
    /// Its place in the sender's stream, from 1.
    pub seq: u64,
    /// What is told.
    #[serde(flatten)]
    pub entry: T,
}

/// Keeps lines until the reader has acknowledged them. At most so many wait; then the oldest go, and a reader sees it by
/// the gap in their numbers.
#[derive(Clone)]
pub struct Journal(Arc<Mutex<Queue>>);

struct Queue {
    last: u64,
    lines: VecDeque<(u64, String)>,
    capacity: usize,
}

impl Queue {
    fn push(&mut self, entry: &impl Serialize) {
        self.last += 1;
        let seq = self.last;
        let line = serde_json::to_string(&Line { seq, entry }).expect("an entry is an object of plain values");
        self.lines.push_back((seq, line));
        if self.lines.len() > self.capacity {
            self.lines.pop_front();
        }
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self::with_capacity(Self::CAPACITY)
    }
}

impl Journal {
    /// How many unread lines are kept, so that a role nobody reads stays small.
    pub const CAPACITY: usize = 20_000;

    /// One in which this many unread lines wait at most.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Arc::new(Mutex::new(Queue { last: 0, lines: VecDeque::new(), capacity })))
    }

    /// Tells something.
    ///
    /// # Panics
    /// When it is not an object of plain values.
    pub fn push(&self, entry: &impl Serialize) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(entry);
    }

    /// Tells several things, in their order, without anything of others between them.
    ///
    /// # Panics
    /// As [`Journal::push`].
    pub fn push_all(&self, entries: impl IntoIterator<Item = impl Serialize>) {
        let mut queue = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        entries.into_iter().for_each(|entry| queue.push(&entry));
    }

    /// The lines after `seq`, newline-delimited; those up to it are forgotten.
    pub fn after(&self, seq: u64) -> String {
        let mut queue = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        while queue.lines.front().is_some_and(|(line, _)| *line <= seq) {
            queue.lines.pop_front();
        }
        queue.lines.iter().flat_map(|(_, line)| [line.as_str(), "\n"]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Entry {
        n: u32,
    }

    #[test]
    fn a_line_stays_until_the_next_read_acknowledges_it() {
        let journal = Journal::default();
        (1..=3).for_each(|n| journal.push(&Entry { n }));
        assert_eq!(journal.after(0).lines().count(), 3);
        assert_eq!(journal.after(0).lines().count(), 3, "a failed read loses nothing");
        let rest: Vec<Line<Entry>> = journal.after(2).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rest.iter().map(|line| (line.seq, line.entry.n)).collect::<Vec<_>>(), [(3, 3)]);
    }

    #[test]
    fn a_role_that_nobody_reads_stays_small() {
        let journal = Journal::default();
        (0..Journal::CAPACITY as u32 + 5).for_each(|n| journal.push(&Entry { n }));
        let kept = journal.after(0);
        assert_eq!(kept.lines().count(), Journal::CAPACITY);
        assert!(kept.starts_with(r#"{"seq":6,"#));
    }
}

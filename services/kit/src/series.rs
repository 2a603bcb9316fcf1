//! A named gauge over time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

/// One value of one gauge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Its place in the sender's stream, from 1.
    pub seq: u64,
    /// When, on the sender's monotonic clock.
    pub at_ns: u64,
    /// The gauge.
    pub name: String,
    /// Its value; none where it could not be measured.
    pub value: Option<f64>,
}

/// Keeps points until the reader has acknowledged them. At most [`Series::CAPACITY`] wait; then the oldest go.
#[derive(Clone, Default)]
pub struct Series(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    last: u64,
    points: VecDeque<Point>,
}

impl Series {
    /// How many unread points are kept, so that a role nobody reads stays small.
    pub const CAPACITY: usize = 20_000;

    /// Adds a value.
    pub fn push(&self, at_ns: u64, name: &str, value: Option<f64>) {
        let mut queue = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        queue.last += 1;
        let seq = queue.last;
        queue.points.push_back(Point { seq, at_ns, name: name.to_owned(), value });
        if queue.points.len() > Self::CAPACITY {
            queue.points.pop_front();
        }
    }

    /// The points after `seq`; those up to it are forgotten.
    pub fn after(&self, seq: u64) -> Vec<Point> {
        let mut queue = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        while queue.points.front().is_some_and(|point| point.seq <= seq) {
            queue.points.pop_front();
        }
        queue.points.iter().cloned().collect()
    }
}

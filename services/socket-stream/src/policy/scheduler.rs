//! Which batches run.
//!
//! The one rule: in the order they were submitted, so many at a time. A batch that cannot keep up makes those behind it
//! wait: that wait is the scheduling delay.

use std::collections::{BTreeSet, VecDeque};

/// The queue of batches, by number.
#[derive(Clone, Debug)]
pub struct JobScheduler {
    at_a_time: usize,
    queued: VecDeque<u64>,
    running: BTreeSet<u64>,
}

impl JobScheduler {
    /// One that runs so many batches at a time.
    pub fn new(at_a_time: u32) -> Self {
        Self { at_a_time: at_a_time as usize, queued: VecDeque::new(), running: BTreeSet::new() }
    }

    /// A batch waits from now on.
    pub fn submit(&mut self, batch: u64) {
        self.queued.push_back(batch);
    }

    /// The batch that starts now, if one may.
    pub fn start_next(&mut self) -> Option<u64> {
        if self.running.len() >= self.at_a_time {
            return None;
        }
        let batch = self.queued.pop_front()?;
        self.running.insert(batch);
        Some(batch)
    }

    /// A batch has ended.
    pub fn end(&mut self, batch: u64) {
        self.running.remove(&batch);
    }

    /// Gives up everything, and says what that is: the running ones first.
    pub fn give_up(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.running).into_iter().chain(self.queued.drain(..)).collect()
    }

    /// Batches submitted and not started.
    pub fn queued(&self) -> usize {
        self.queued.len()
    }

    /// Batches started and not ended.
    pub fn running(&self) -> usize {
        self.running.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_run_in_order_and_so_many_at_a_time() {
        let mut scheduler = JobScheduler::new(2);
        (0..4).for_each(|batch| scheduler.submit(batch));
        assert_eq!([(); 3].map(|()| scheduler.start_next()), [Some(0), Some(1), None]);
        scheduler.end(1);
        assert_eq!((scheduler.start_next(), scheduler.start_next()), (Some(2), None));
        assert_eq!((scheduler.queued(), scheduler.running()), (1, 2));
        assert_eq!(scheduler.give_up(), [0, 2, 3]);
        assert_eq!((scheduler.queued(), scheduler.running()), (0, 0));
    }
}

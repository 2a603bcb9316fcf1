//! The counts and averages that a streaming page shows.
//!
//! The one rule: each average is over the batches that have what it is of, as the reference has it. The scheduling delay
//! is over batches that have started, processing time and total delay only over those that have ended, so in a stream
//! that falls behind the average total delay is not the sum of the other two averages.

use std::collections::{BTreeMap, VecDeque};

use kit::batch::{Batch, Status};

/// What is known of a stream from its batches, told as they change.
#[derive(Clone, Debug)]
pub struct Statistics {
    batch_interval_ms: f64,
    retained: usize,
    /// Queued and processing, by number.
    active: BTreeMap<u64, Batch>,
    /// The last ones that ended, oldest first.
    completed: VecDeque<Batch>,
    total_completed: u64,
    total_failed: u64,
    received_records: u64,
    processed_records: u64,
}

impl Statistics {
    /// How many ended batches averages are over in the reference.
    pub const RETAINED: usize = 1_000;

    /// Nothing yet.
    pub fn new(batch_interval_ms: f64, retained: usize) -> Self {
        Self {
            batch_interval_ms,
            retained,
            active: BTreeMap::new(),
            completed: VecDeque::new(),
            total_completed: 0,
            total_failed: 0,
            received_records: 0,
            processed_records: 0,
        }
    }

    /// A batch has changed.
    pub fn tell(&mut self, batch: &Batch) {
        let before = self.active.remove(&batch.batch);
        let started = |batch: &Batch| batch.started_ms.is_some();
        if started(batch) && !before.as_ref().is_some_and(started) {
            self.received_records += batch.records;
        }
        match batch.status {
            Status::Queued | Status::Processing => {
                self.active.insert(batch.batch, batch.clone());
            }
            Status::Completed | Status::Failed => {
                self.total_completed += 1;
                self.total_failed += u64::from(batch.status == Status::Failed);
                // One that was given up before it started was neither received nor processed.
                self.processed_records += if started(batch) { batch.records } else { 0 };
                self.completed.push_back(batch.clone());
                if self.completed.len() > self.retained {
                    self.completed.pop_front();
                }
            }
        }
    }

    /// Batches submitted and not started.
    pub fn queued(&self) -> usize {
        self.active.values().filter(|batch| batch.status == Status::Queued).count()
    }

    /// Batches started and not ended.
    pub fn processing(&self) -> usize {
        self.active.len() - self.queued()
    }

    /// Batches submitted and not ended.
    pub fn active(&self) -> usize {
        self.active.len()
    }

    /// Batches that have ended, failed ones included.
    pub fn completed(&self) -> u64 {
        self.total_completed
    }

    /// Those that failed.
    pub fn failed(&self) -> u64 {
        self.total_failed
    }

    /// Records of the batches that have started: a batch counts when its first job starts, not when it is received.
    pub fn received_records(&self) -> u64 {
        self.received_records
    }

    /// Records of the batches that have ended.
    pub fn processed_records(&self) -> u64 {
        self.processed_records
    }

    /// Records/s, by the records of a batch and its interval, over all batches.
    pub fn average_input_rate_per_s(&self) -> Option<f64> {
        let interval_ms = self.batch_interval_ms;
        average(self.all().map(|batch| Some(batch.records as f64 * 1_000.0 / interval_ms)))
    }

    /// From submission to the start of the first job, over the batches that have started.
    pub fn average_scheduling_delay_ms(&self) -> Option<f64> {
        average(self.all().map(scheduling_delay_ms))
    }

    /// From the start of the first job to the end of the last, over the batches that have ended.
    pub fn average_processing_time_ms(&self) -> Option<f64> {
        average(self.completed.iter().map(processing_time_ms))
    }

    /// From submission to the end of the last job, over the batches that have ended.
    pub fn average_total_delay_ms(&self) -> Option<f64> {
        average(self.completed.iter().map(total_delay_ms))
    }

    /// From batch time to submission, over all batches: what no delay above shows.
    pub fn average_lateness_ms(&self) -> Option<f64> {
        average(self.all().map(|batch| Some(lateness_ms(batch))))
    }

    fn all(&self) -> impl Iterator<Item = &Batch> {
        self.completed.iter().chain(self.active.values())
    }
}

/// From submission to the start of the first job; none before.
pub fn scheduling_delay_ms(batch: &Batch) -> Option<f64> {
    Some(batch.started_ms? - batch.submitted_ms)
}

/// From the start of the first job to the end of the last; none before.
pub fn processing_time_ms(batch: &Batch) -> Option<f64> {
    Some(batch.ended_ms? - batch.started_ms?)
}

/// From submission to the end of the last job; none before.
pub fn total_delay_ms(batch: &Batch) -> Option<f64> {
    Some(scheduling_delay_ms(batch)? + processing_time_ms(batch)?)
}

/// From batch time to submission.
pub fn lateness_ms(batch: &Batch) -> f64 {
    batch.submitted_ms - batch.time_ms
}

fn average(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let (sum, count) = values.flatten().fold((0.0, 0_u64), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch of 300 records, submitted 10 ms late, that starts and ends so long after its submission.
    fn batch(number: u64, started_ms: Option<f64>, ended_ms: Option<f64>) -> Batch {
        let time_ms = (number + 1) as f64 * 2_000.0;
        let submitted_ms = time_ms + 10.0;
        let status = match (started_ms, ended_ms) {
            (_, Some(_)) => Status::Completed,
            (Some(_), None) => Status::Processing,
            (None, None) => Status::Queued,
        };
        Batch {
            batch: number,
            time_ms,
            submitted_ms,
            records: 300,
            status,
            started_ms: started_ms.map(|ms| submitted_ms + ms),
            ended_ms: ended_ms.map(|ms| submitted_ms + ms),
            ..Batch::default()
        }
    }

    #[test]
    fn averages_are_over_different_sets() {
        let mut statistics = Statistics::new(2_000.0, Statistics::RETAINED);
        statistics.tell(&batch(0, None, None));
        assert_eq!((statistics.queued(), statistics.received_records()), (1, 0));
        statistics.tell(&batch(0, Some(0.0), None));
        assert_eq!(
            (statistics.processing(), statistics.received_records(), statistics.processed_records()),
            (1, 300, 0)
        );
        statistics.tell(&batch(0, Some(0.0), Some(2_500.0)));
        statistics.tell(&batch(1, None, None));
        statistics.tell(&batch(1, Some(500.0), None));
        statistics.tell(&batch(2, None, None));

        assert_eq!((statistics.queued(), statistics.processing(), statistics.completed()), (1, 1, 1));
        assert_eq!((statistics.received_records(), statistics.processed_records()), (600, 300));
        assert_eq!(statistics.average_input_rate_per_s(), Some(150.0));
        assert_eq!(statistics.average_scheduling_delay_ms(), Some(250.0), "over both that have started");
        assert_eq!(statistics.average_processing_time_ms(), Some(2_500.0));
        assert_eq!(statistics.average_total_delay_ms(), Some(2_500.0), "over the one that has ended: not 250 + 2500");
        assert_eq!(statistics.average_lateness_ms(), Some(10.0));
    }

    #[test]
    fn nothing_is_no_average() {
        let statistics = Statistics::new(1_000.0, 10);
        assert_eq!(statistics.average_processing_time_ms(), None);
        assert_eq!(statistics.average_input_rate_per_s(), None);
    }

    #[test]
    fn averages_forget_what_is_not_retained_and_counts_do_not() {
        let mut statistics = Statistics::new(2_000.0, 2);
        for (number, took_ms) in [(0, 100.0), (1, 200.0), (2, 400.0)] {
            statistics.tell(&batch(number, Some(0.0), Some(took_ms)));
        }
        assert_eq!((statistics.completed(), statistics.received_records()), (3, 900));
        assert_eq!(statistics.average_processing_time_ms(), Some(300.0));
    }

    #[test]
    fn a_batch_that_was_given_up_unstarted_has_no_delay() {
        let mut statistics = Statistics::new(2_000.0, 10);
        statistics.tell(&Batch { status: Status::Failed, ..batch(0, None, None) });
        assert_eq!((statistics.failed(), statistics.completed(), statistics.received_records()), (1, 1, 0));
        assert_eq!(statistics.average_scheduling_delay_ms(), None);
    }
}

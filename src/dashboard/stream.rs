//! A stream as its journal tells it: the engine, its receivers, and its batches, of which the last thousand are kept.
//!
//! The one rule: what is averaged is what the published page averages, over what it retains. The scheduling delay is
//! averaged over batches that have started, processing time and total delay over completed ones, so that the average
//! total is not the sum of the other two.

use std::collections::{BTreeMap, BTreeSet};

use kit::batch::{Batch, Engine, Entry, Receiver, Status};

/// How many completed batches are kept: `spark.streaming.ui.retainedBatches`.
pub const RETAINED: usize = 1_000;

/// How many batches may wait before further ones are only counted.
const WAITING: usize = 20_000;

/// Everything a stream told so far.
#[derive(Debug, Default)]
pub struct Stream {
    /// How the engine is set up; none until it has said so.
    pub engine: Option<Engine>,
    /// Receivers by stream.
    pub receivers: BTreeMap<u32, Receiver>,
    /// Batches that wait or run, and those given up when the run ended, by number.
    pub active: BTreeMap<u64, Batch>,
    /// The last completed ones, by number.
    pub completed: BTreeMap<u64, Batch>,
    /// All that were completed.
    pub total_completed: u64,
    /// Records of batches that have started: published pages count them as received from then on.
    pub received_records: u64,
    /// Records of completed batches.
    pub processed_records: u64,
    /// Waiting batches that are only counted.
    unlisted: u64,
}

/// Averages in milliseconds and records a second; none where there is nothing to average.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Averages {
    /// Over all retained batches.
    pub input_rate: Option<f64>,
    /// Over those that have started.
    pub scheduling_ms: Option<f64>,
    /// Over completed ones.
    pub processing_ms: Option<f64>,
    /// Over completed ones.
    pub total_ms: Option<f64>,
    /// Over all retained batches: handed over so long after the tick, which no published delay shows.
    pub lateness_ms: Option<f64>,
}

impl Stream {
    /// Takes one line of the journal; a damaged one is left out.
    pub fn take(&mut self, line: &str) {
        match serde_json::from_str(line) {
            Ok(Entry::Engine(engine)) => self.engine = Some(engine),
            Ok(Entry::Receiver(receiver)) => drop(self.receivers.insert(receiver.stream, receiver)),
            Ok(Entry::Batch(batch)) => self.take_batch(batch),
            Err(_) => {}
        }
    }

    fn take_batch(&mut self, batch: Batch) {
        let number = batch.batch;
        if let Some(kept) = self.completed.get_mut(&number) {
            *kept = batch;
            return;
        }
        let known = self.active.remove(&number);
        let is_long_gone = self.completed.len() >= RETAINED
            && self.completed.first_key_value().is_some_and(|(first, _)| number < *first);
        if known.is_none() && is_long_gone {
            return;
        }
        if known.is_none() && batch.status != Status::Queued && self.unlisted > 0 {
            self.unlisted -= 1;
        }
        let had_started = known.is_some_and(|known| known.started_ms.is_some());
        if batch.started_ms.is_some() && !had_started {
            self.received_records += batch.records;
        }
        if !is_active(&batch) {
            self.total_completed += 1;
            self.processed_records += batch.records;
            self.completed.insert(number, batch);
            if self.completed.len() > RETAINED {
                self.completed.pop_first();
            }
        } else if batch.status == Status::Queued && self.active.len() >= WAITING {
            self.unlisted += 1;
        } else {
            self.active.insert(number, batch);
        }
    }

    /// Batches that wait, run, or were given up.
    pub fn active_count(&self) -> u64 {
        self.active.len() as u64 + self.unlisted
    }

    /// Batches that wait.
    pub fn waiting_count(&self) -> u64 {
        self.active.values().filter(|batch| batch.started_ms.is_none()).count() as u64 + self.unlisted
    }

    /// Batches that run.
    pub fn running_count(&self) -> u64 {
        self.active.values().filter(|batch| batch.started_ms.is_some()).count() as u64
    }

    /// Batches that were given up when the run ended.
    pub fn given_up_count(&self) -> u64 {
        self.active.values().filter(|batch| batch.status == Status::Failed).count() as u64
    }

    /// All that are kept, by number.
    pub fn retained(&self) -> impl Iterator<Item = &Batch> {
        // Completed ones come first almost always; with several jobs at a time they mix.
        let mut all: Vec<_> = self.completed.values().chain(self.active.values()).collect();
        all.sort_by_key(|batch| batch.batch);
        all.into_iter()
    }

    /// Batch interval in milliseconds; 0 until the engine has said so.
    pub fn interval_ms(&self) -> f64 {
        self.engine.as_ref().map_or(0.0, |engine| engine.batch_interval_ms)
    }

    /// Records a second of a batch: by its interval, not by when they arrived.
    pub fn input_rate(&self, batch: &Batch) -> Option<f64> {
        let interval_ms = self.interval_ms();
        (interval_ms > 0.0).then(|| batch.records as f64 * 1000.0 / interval_ms)
    }

    /// Streams of receivers that were planned, and of those that told something.
    pub fn streams(&self) -> BTreeSet<u32> {
        let planned = self.engine.as_ref().map_or(0, |engine| engine.receivers);
        (0..planned).chain(self.receivers.keys().copied()).collect()
    }

    /// Records a second of one receiver, batch by batch of those that are kept: none where there are several receivers
    /// and the journal tells only what they got together, as older ones do.
    pub fn receiver_rates(&self, stream: u32) -> Vec<(&Batch, f64)> {
        let (interval_ms, is_only) = (self.interval_ms(), self.streams().len() == 1);
        let records = |batch: &Batch| match &batch.records_by_stream[..] {
            [] => is_only.then_some(batch.records),
            by_stream => by_stream.get(stream as usize).copied(),
        };
        let rate = |batch| Some((batch, records(batch)? as f64 * 1000.0 / interval_ms));
        self.retained().filter(|_| interval_ms > 0.0).filter_map(rate).collect()
    }

    /// Their mean.
    pub fn receiver_rate(&self, stream: u32) -> Option<f64> {
        mean(self.receiver_rates(stream).into_iter().map(|(_, rate)| rate))
    }

    /// The averages.
    pub fn averages(&self) -> Averages {
        let completed = || self.completed.values();
        Averages {
            input_rate: mean(self.retained().filter_map(|batch| self.input_rate(batch))),
            scheduling_ms: mean(self.retained().filter_map(scheduling_ms)),
            processing_ms: mean(completed().filter_map(processing_ms)),
            total_ms: mean(completed().filter_map(total_ms)),
            lateness_ms: mean(self.retained().map(|batch| batch.submitted_ms - batch.time_ms)),
        }
    }

    /// The last instant told, in milliseconds since the start of the schedule.
    pub fn end_ms(&self) -> f64 {
        let of_batch = |batch: &Batch| batch.ended_ms.or(batch.started_ms).unwrap_or(batch.submitted_ms);
        let batches = self.active.values().chain(self.completed.values()).map(of_batch);
        batches.chain(self.receivers.values().map(|receiver| receiver.at_ms)).fold(0.0, f64::max)
    }
}

/// Whether a batch has not come to its end: it waits, runs, or was given up.
pub fn is_active(batch: &Batch) -> bool {
    match batch.status {
        Status::Queued | Status::Processing => true,
        Status::Completed => false,
        Status::Failed => batch.ended_ms.is_none(),
    }
}

/// From submission to the start of the first job.
pub fn scheduling_ms(batch: &Batch) -> Option<f64> {
    Some(batch.started_ms? - batch.submitted_ms)
}

/// From the start of the first job to the end of the last.
pub fn processing_ms(batch: &Batch) -> Option<f64> {
    Some(batch.ended_ms? - batch.started_ms?)
}

/// From submission to the end of the last job.
pub fn total_ms(batch: &Batch) -> Option<f64> {
    Some(scheduling_ms(batch)? + processing_ms(batch)?)
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u64), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(stream: &mut Stream, batch: &Batch) {
        let line = serde_json::to_value(Entry::Batch(batch.clone())).unwrap();
        let mut line = line.as_object().unwrap().clone();
        line.insert("seq".to_owned(), 1.into());
        stream.take(&serde_json::to_string(&line).unwrap());
    }

    fn queued(number: u64) -> Batch {
        let time_ms = 2000.0 * number as f64;
        Batch { batch: number, time_ms, submitted_ms: time_ms + 1.0, records: 280, ..Batch::default() }
    }

    fn completed(number: u64, delay_ms: f64, took_ms: f64) -> Batch {
        let batch = queued(number);
        let started_ms = batch.submitted_ms + delay_ms;
        Batch { status: Status::Completed, started_ms: Some(started_ms), ended_ms: Some(started_ms + took_ms), ..batch }
    }

    #[test]
    fn each_average_is_over_the_batches_that_the_published_page_takes() {
        let engine = Engine { batch_interval_ms: 2000.0, ..Engine::default() };
        let mut stream = Stream { engine: Some(engine), ..Stream::default() };
        told(&mut stream, &completed(1, 0.0, 2500.0));
        told(&mut stream, &completed(2, 500.0, 2500.0));
        told(&mut stream, &Batch { status: Status::Processing, started_ms: Some(7001.0), ..queued(3) });
        told(&mut stream, &Batch { records: 0, ..queued(4) });
        assert_eq!(
            stream.averages(),
            Averages {
                input_rate: Some(105.0),
                scheduling_ms: Some(500.0),
                processing_ms: Some(2500.0),
                total_ms: Some(2750.0),
                lateness_ms: Some(1.0)
            }
        );
        assert_eq!((stream.received_records, stream.processed_records), (840, 560), "counted as received when started");
        assert_eq!((stream.waiting_count(), stream.running_count(), stream.active_count()), (1, 1, 2));
    }

    #[test]
    fn each_receiver_has_its_own_rate_where_the_journal_tells_it() {
        let engine = Engine { batch_interval_ms: 2000.0, receivers: 2, ..Engine::default() };
        let mut stream = Stream { engine: Some(engine), ..Stream::default() };
        told(&mut stream, &Batch { records_by_stream: vec![200, 80], ..queued(1) });
        told(&mut stream, &Batch { records_by_stream: vec![240, 40], ..queued(2) });
        assert_eq!((stream.receiver_rate(0), stream.receiver_rate(1)), (Some(110.0), Some(30.0)));
        let rates: Vec<_> = stream.receiver_rates(1).iter().map(|(batch, rate)| (batch.batch, *rate)).collect();
        assert_eq!(rates, [(1, 40.0), (2, 20.0)]);
        assert_eq!((stream.receiver_rate(2), stream.averages().input_rate), (None, Some(140.0)));

        let mut older = Stream { engine: stream.engine.clone(), ..Stream::default() };
        told(&mut older, &queued(1));
        assert_eq!(older.receiver_rate(0), None);
        older.engine.as_mut().unwrap().receivers = 1;
        assert_eq!(older.receiver_rate(0), Some(140.0));
    }

    #[test]
    fn the_last_line_with_a_number_holds_and_no_batch_counts_twice() {
        let mut stream = Stream::default();
        told(&mut stream, &queued(1));
        told(&mut stream, &Batch { status: Status::Processing, started_ms: Some(2001.0), ..queued(1) });
        told(&mut stream, &completed(1, 0.0, 5.0));
        told(&mut stream, &completed(1, 0.0, 5.0));
        assert_eq!((stream.total_completed, stream.received_records, stream.processed_records), (1, 280, 280));
        assert_eq!(stream.active_count(), 0);
    }

    #[test]
    fn a_long_stream_keeps_a_thousand_batches_and_counts_all() {
        let mut stream = Stream::default();
        (0..2_500).for_each(|number| told(&mut stream, &completed(number, 0.0, 1.0)));
        assert_eq!((stream.total_completed, stream.completed.len()), (2_500, RETAINED));
        told(&mut stream, &completed(3, 0.0, 1.0));
        assert_eq!((stream.total_completed, *stream.completed.first_key_value().unwrap().0), (2_500, 1_500));
    }

    #[test]
    fn a_batch_that_was_given_up_is_not_completed_and_a_failed_one_is() {
        let mut stream = Stream::default();
        let reason = Some("still queued when the run ended".to_owned());
        told(&mut stream, &Batch { status: Status::Failed, reason: reason.clone(), ..queued(1) });
        told(&mut stream, &Batch { status: Status::Failed, reason, ..completed(2, 0.0, 1.0) });
        assert_eq!((stream.total_completed, stream.active_count(), stream.given_up_count()), (1, 1, 1));
    }

    #[test]
    fn a_damaged_line_is_left_out() {
        let mut stream = Stream::default();
        ["", "{", "{\"entry\":\"unheard of\"}", "[]"].into_iter().for_each(|line| stream.take(line));
        assert!(stream.engine.is_none() && stream.active.is_empty());
    }
}

//! The stream as JSON with the field names of Spark's REST API, so that a client written for that reads this too.
//!
//! The one rule: whole milliseconds and absent fields where Spark has them. Instants are cut to milliseconds first, as a
//! clock of milliseconds would read them, so that total delay is scheduling delay plus processing time.

use kit::batch::{Batch, Status};
use serde::Serialize;

use super::stream::{self, Stream};

/// An application, of which every trial is one.
#[derive(Debug, Serialize)]
pub struct Application {
    /// Unique, and safe in a URL.
    pub id: String,
    /// For people.
    pub name: String,
}

/// `streaming/statistics`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Statistics {
    start_time: String,
    batch_duration: i64,
    num_receivers: u32,
    num_active_receivers: u32,
    num_inactive_receivers: u32,
    num_total_completed_batches: u64,
    num_retained_completed_batches: u64,
    num_active_batches: u64,
    num_processed_records: u64,
    num_received_records: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    avg_input_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avg_scheduling_delay: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avg_processing_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avg_total_delay: Option<i64>,
}

/// An element of `streaming/batches`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchInfo {
    batch_id: i64,
    batch_time: String,
    status: &'static str,
    batch_duration: i64,
    input_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduling_delay: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    processing_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_delay: Option<i64>,
    num_active_output_ops: u32,
    num_completed_output_ops: u32,
    num_failed_output_ops: u32,
    num_total_output_ops: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_failure_reason: Option<String>,
}

/// An element of `streaming/receivers`. The archive names no executor, so its two fields are absent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiverInfo {
    stream_id: u32,
    stream_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_active: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error_message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avg_event_rate: Option<f64>,
    event_rates: Vec<(i64, f64)>,
}

/// The states that `?status=` knows.
pub const STATUSES: [&str; 3] = ["COMPLETED", "QUEUED", "PROCESSING"];

/// The statistics.
pub fn statistics(stream: &Stream) -> Statistics {
    let engine = stream.engine.clone().unwrap_or_default();
    let active = stream.receivers.values().filter(|receiver| receiver.active).count() as u32;
    let averaged = |of: fn(&Delays) -> Option<i64>| {
        let values: Vec<_> = stream.retained().filter_map(|batch| of(&Delays::of(stream, batch))).collect();
        // Whole milliseconds, cut off, as there.
        (!values.is_empty()).then(|| values.iter().sum::<i64>() / values.len() as i64)
    };
    Statistics {
        start_time: time(unix_ms(stream, 0.0)),
        batch_duration: engine.batch_interval_ms as i64,
        num_receivers: engine.receivers,
        num_active_receivers: active,
        num_inactive_receivers: engine.receivers.saturating_sub(active),
        num_total_completed_batches: stream.total_completed,
        num_retained_completed_batches: stream.completed.len() as u64,
        num_active_batches: stream.active_count(),
        num_processed_records: stream.processed_records,
        num_received_records: stream.received_records,
        avg_input_rate: stream.averages().input_rate,
        avg_scheduling_delay: averaged(|delays| delays.scheduling),
        avg_processing_time: averaged(|delays| delays.processing),
        avg_total_delay: averaged(|delays| delays.total),
    }
}

/// The batches that are kept, the newest first, with one of `statuses`, or all when none is asked for.
pub fn batches(stream: &Stream, statuses: &[String]) -> Vec<BatchInfo> {
    let mut infos: Vec<_> = stream.retained().map(|batch| batch_info(stream, batch)).collect();
    infos.retain(|info| statuses.is_empty() || statuses.iter().any(|status| status == info.status));
    infos.sort_by_key(|info| std::cmp::Reverse(info.batch_id));
    infos
}

/// The batch of this id, if it is kept.
pub fn batch(stream: &Stream, id: i64) -> Option<BatchInfo> {
    let found = stream.retained().find(|batch| unix_ms(stream, batch.time_ms) == id);
    found.map(|batch| batch_info(stream, batch))
}

/// All receivers, by stream.
pub fn receivers(stream: &Stream) -> Vec<ReceiverInfo> {
    stream.streams().iter().map(|id| receiver_info(stream, *id)).collect()
}

/// The receiver of this stream, if there is one.
pub fn receiver(stream: &Stream, id: u32) -> Option<ReceiverInfo> {
    stream.streams().contains(&id).then(|| receiver_info(stream, id))
}

fn receiver_info(stream: &Stream, id: u32) -> ReceiverInfo {
    let receiver = stream.receivers.get(&id);
    let rates = stream.receiver_rates(id).into_iter();
    let event_rates = rates.map(|(batch, rate)| (unix_ms(stream, batch.time_ms), rate)).collect();
    let error = receiver.and_then(|receiver| receiver.last_error.clone());
    ReceiverInfo {
        stream_id: id,
        stream_name: format!("SocketReceiver-{id}"),
        is_active: receiver.map(|receiver| receiver.active),
        last_error_time: receiver.and_then(|receiver| Some(time(unix_ms(stream, receiver.last_error_ms?)))),
        last_error_message: error.clone(),
        last_error: error,
        avg_event_rate: stream.receiver_rate(id),
        event_rates,
    }
}

fn batch_info(stream: &Stream, batch: &Batch) -> BatchInfo {
    let id = unix_ms(stream, batch.time_ms);
    let delays = Delays::of(stream, batch);
    let (is_active, has_started) = (stream::is_active(batch), batch.started_ms.is_some());
    let open = batch.output_ops.saturating_sub(batch.output_ops_done);
    let has_failed = batch.status == Status::Failed;
    BatchInfo {
        batch_id: id,
        batch_time: time(id),
        // A failed batch is a completed one with a failed operation; one that was given up stays where it was.
        status: match (is_active, has_started) {
            (false, _) => "COMPLETED",
            (true, false) => "QUEUED",
            (true, true) => "PROCESSING",
        },
        batch_duration: stream.interval_ms() as i64,
        input_size: batch.records,
        scheduling_delay: delays.scheduling,
        processing_time: delays.processing,
        total_delay: delays.total,
        num_active_output_ops: if batch.status == Status::Processing { open } else { 0 },
        num_completed_output_ops: batch.output_ops_done,
        num_failed_output_ops: if has_failed { open } else { 0 },
        num_total_output_ops: batch.output_ops,
        first_failure_reason: batch.reason.clone(),
    }
}

/// The delays of a batch in whole milliseconds.
pub(super) struct Delays {
    pub(super) scheduling: Option<i64>,
    pub(super) processing: Option<i64>,
    pub(super) total: Option<i64>,
}

impl Delays {
    pub(super) fn of(stream: &Stream, batch: &Batch) -> Self {
        let submitted = unix_ms(stream, batch.submitted_ms);
        let started = batch.started_ms.map(|at| unix_ms(stream, at));
        let ended = batch.ended_ms.map(|at| unix_ms(stream, at));
        Self {
            scheduling: started.map(|started| started - submitted),
            processing: started.zip(ended).map(|(started, ended)| ended - started),
            total: started.zip(ended).map(|(_, ended)| ended - submitted),
        }
    }
}

/// An instant of the journal as milliseconds since the Unix epoch, as a clock of milliseconds reads it.
pub(super) fn unix_ms(stream: &Stream, at_ms: f64) -> i64 {
    let start_ms = stream.engine.as_ref().map_or(0.0, |engine| engine.start_unix_ms);
    // Sums of large and small numbers miss a whole one by less than a microsecond.
    (start_ms + at_ms + 1e-3).floor() as i64
}

/// `2026-11-21T10:15:30.000GMT`.
fn time(unix_ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fGMT").to_string()
}

#[cfg(test)]
mod tests {
    use kit::batch::Engine;

    use super::*;

    #[test]
    fn two_receivers_have_a_rate_each() {
        let engine = Engine { start_unix_ms: 1e6, batch_interval_ms: 2000.0, receivers: 2, ..Engine::default() };
        let mut stream = Stream::default();
        stream.engine = Some(engine);
        for (batch, by_stream) in [(1, vec![200, 80]), (2, vec![240, 40])] {
            let (time_ms, records) = (2000.0 * batch as f64, by_stream.iter().sum());
            let batch = Batch { batch, time_ms, records, records_by_stream: by_stream, ..Batch::default() };
            stream.active.insert(batch.batch, batch);
        }
        let found = receivers(&stream);
        let of = |id: usize| (found[id].avg_event_rate, found[id].event_rates.clone());
        assert_eq!(of(0), (Some(110.0), vec![(1_002_000, 100.0), (1_004_000, 120.0)]));
        assert_eq!(of(1), (Some(30.0), vec![(1_002_000, 40.0), (1_004_000, 20.0)]));
    }
}

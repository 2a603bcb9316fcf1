//! What a micro-batch engine tells in its journal: its set-up once, then each batch and each receiver as it changes.
//!
//! All times are in milliseconds since the start of the schedule, so that a simulated journal holds no wall-clock value;
//! [`Engine::start_unix_ms`] is what makes them times of day.

use serde::{Deserialize, Serialize};

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case")]
pub enum Entry {
    /// The engine, told once, before anything else.
    Engine(Engine),
    /// A batch, told when it is submitted, when its first job starts, and when its last job ends.
    Batch(Batch),
    /// A receiver, told whenever its state changes.
    Receiver(Receiver),
}

/// How an engine is set up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Engine {
    /// Its name.
    pub name: String,
    /// Its wall clock at the start of the schedule, in milliseconds since the Unix epoch; 0 when simulated.
    pub start_unix_ms: f64,
    /// Batch interval.
    pub batch_interval_ms: f64,
    /// Block interval.
    pub block_interval_ms: f64,
    /// Slots, those of receivers included.
    pub cores: u32,
    /// Receivers, each of which holds one slot.
    pub receivers: u32,
    /// Partitions that records are spread over; 0 where they stay in their blocks.
    pub partitions: u32,
    /// Jobs that may run at a time.
    pub concurrent_jobs: u32,
    /// The processing time that the model expects at the planned rate; none where there is no such rate.
    pub predicted_processing_ms: Option<f64>,
    /// What the reader should know, such as that no slot is left.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Where a batch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Submitted, not started.
    #[default]
    Queued,
    /// Its first job has started.
    Processing,
    /// Its last job has ended well.
    Completed,
    /// A job of it failed, or it was given up when the run ended; [`Batch::reason`] says why.
    Failed,
}

/// A batch as it is at the moment of telling. The last entry with its number holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Its number, from 0.
    pub batch: u64,
    /// Batch time: the end of its interval, where the interval's tick was due.
    pub time_ms: f64,
    /// Its records.
    pub records: u64,
    /// The records of each stream, where there are two or more.
    #[serde(default, skip_serializing_if = "is_of_one")]
    pub records_by_stream: Vec<u64>,
    /// Its blocks, which are the tasks of its first stage.
    pub blocks: u32,
    /// Where it is.
    pub status: Status,
    /// When its jobs were handed over. Minus `time_ms`, this is its lateness.
    pub submitted_ms: f64,
    /// When its first job started. Minus `submitted_ms`, this is its scheduling delay.
    pub started_ms: Option<f64>,
    /// When its last job ended. Minus `started_ms`, this is its processing time.
    pub ended_ms: Option<f64>,
    /// Output operations, each of which is one job or more.
    pub output_ops: u32,
    /// Those that have ended well.
    pub output_ops_done: u32,
    /// Jobs it took so far: printing may need more than one.
    pub jobs: u32,
    /// Tasks it took so far, over all stages.
    pub tasks: u32,
    /// Why it failed.
    pub reason: Option<String>,
    /// What was printed, at most a few lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
}

/// With one stream its records are those of the batch.
fn is_of_one(records: &[u64]) -> bool {
    records.len() <= 1
}

/// A receiver as it is at the moment of telling.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Receiver {
    /// Its stream, from 0.
    pub stream: u32,
    /// When this was told.
    pub at_ms: f64,
    /// Whether it is connected and receives.
    pub active: bool,
    /// Where it is connected to.
    pub source: String,
    /// How often it was restarted.
    pub restarts: u32,
    /// Why it stopped receiving last.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_ms: Option<f64>,
    /// Why the latency of its records is not known, where that is so.
    pub no_record_latency: Option<String>,
}

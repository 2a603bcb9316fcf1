//! The stages of a batch.
//!
//! The one rule: every batch of a stream has the same plan, and an empty batch still runs it.
//!
//! ```text
//! blocks ── spread ──► partitions ── map, combine ──► reduce partitions ── output
//!        (one task a block)      (one task a partition)        (one task a partition that is looked at)
//! ```
//!
//! Without partitions there is no spread and each block is mapped by one task; without reduce partitions the map is the
//! last stage. What a stage before the last one made is kept for the whole batch, so a further job of it, or a further
//! output, repeats only the last stage.

use crate::settings::Settings;

/// What is done with each batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Partitions the records are spread over; 0: they stay in their blocks.
    pub partitions: u32,
    /// Partitions of the reduce; 0: there is none.
    pub reduce_partitions: u32,
    /// Output operations, one after another.
    pub outputs: Vec<Output>,
}

/// What an output operation asks of the last stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The first so many rows: partitions are looked at until there are enough, each look a job.
    Take(u32),
    /// Every partition, in one job.
    All,
}

impl Plan {
    /// The word count of these settings: what it prints is taken from the first partitions, unless counts are kept from
    /// batch to batch, which needs all of them each time.
    pub fn of(settings: &Settings) -> Self {
        let kept = settings.state || settings.window_batches > 0;
        let output = if kept { Output::All } else { Output::Take(settings.print.saturating_add(1)) };
        Self { partitions: settings.partitions, reduce_partitions: settings.reduce_partitions(), outputs: vec![output] }
    }
}

//! What to do next: ticks, blocks, batches, jobs, stages, tasks, slots, back-pressure.
//!
//! The one rule: plain state machines that are handed instants (`u64` nanoseconds on one clock). No thread, no clock, no
//! socket and no payload is in here, so the live engine and the simulated one run the very same code: the live one keeps
//! what is in a block in a map of its own, by [`BlockId`].
//!
//! [`Driver`] ties the parts together. It is told what happened and answers with [`Action`]s:
//!
//! ```text
//! wake, block, task_done, stop, received_all  ──►  Driver  ──►  CloseBlocks, Submitted, StartTask, Ended, Rate, Tell, Drained
//! ```
//!
//! | part | what it decides |
//! |---|---|
//! | [`Ticks`] | when blocks and batches end: at multiples of their period on the wall clock |
//! | [`BlockGenerator`], [`Allocator`] | what is in a block, and which blocks are in a batch |
//! | [`MemoryBound`] | whether a receiver may read |
//! | [`JobScheduler`] | which batches run: in order, so many at a time |
//! | [`Plan`], [`Take`] | the stages of a batch and their tasks, and how many partitions printing looks at |
//! | [`Slots`] | which task runs where: the next one on the first free slot |
//! | [`PidRateEstimator`], [`RateLimiter`] | how fast a receiver may be |
//! | [`Receiving`] | what is told of a receiver, and when it connects again |

mod blocks;
mod driver;
mod partition;
mod plan;
mod rate;
mod receiver;
mod scheduler;
mod slots;
mod take;
mod ticks;

pub use blocks::{Allocator, Block, BlockGenerator, BlockId, MemoryBound};
pub use driver::{Action, Done, Driver, Ended, Start, Submitted, Task, TaskId, TaskWork};
pub use partition::{partition_of, round_robin, start_of};
pub use plan::{Output, Plan};
pub use rate::{PidRateEstimator, RateLimiter};
pub use receiver::Receiving;
pub use scheduler::JobScheduler;
pub use slots::Slots;
pub use take::Take;
pub use ticks::Ticks;

/// Nanoseconds of a duration; one that is too long for the clock is as long as the clock.
pub fn ns(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

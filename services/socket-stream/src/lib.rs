//! A micro-batch stream engine, and the source that feeds it: when does a stream fall behind?
//!
//! The one rule: what to do next is decided in [`policy`], state machines that are handed instants. The live engine
//! ([`engine`]) and the simulated one ([`mod@simulate`]) differ only in where the instants come from and in who does the
//! work, so what one teaches holds for the other.
//!
//! ```text
//! source ─ lines ─► receiver ─► block (200 ms) ─► batch (interval) ─► job ─► stages ─► tasks on slots ─► output
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`settings`] | what an experiment may set, for both roles |
//! | [`words`], [`source`] | the lines, and the role that sends them on time |
//! | [`policy`] | ticks, blocks, batches, jobs, stages, tasks, slots, back-pressure |
//! | [`ops`] | batches and records as operations, for both engines |
//! | [`stream`], [`engine`] | a typed API to build a job, and the role that runs it |
//! | [`model`] | processing time and stable rate in closed form |
//! | [`simulate()`] | the same policy on a virtual clock |

pub mod engine;
pub mod model;
pub mod ops;
pub mod policy;
pub mod settings;
pub mod simulate;
mod socket;
pub mod source;
pub mod stream;
pub mod words;

pub use settings::{Like, Per, Settings, Work};
pub use simulate::simulate;

/// Every role of this system.
pub const ROLES: &[kit::Role] = &[source::ROLE, engine::ROLE];

//! When to end a trial early: an objective that has been missed for too long. Pure.

use std::time::Duration;

use crate::verdict::Slo;

mod watch;

pub use watch::{Watch, supports};

/// `errors > 50% for 30s`.
#[derive(Clone, Debug, PartialEq)]
pub struct Abort {
    /// What must hold for so long that the trial is ended.
    pub when: Slo,
    /// How long.
    pub held: Duration,
}

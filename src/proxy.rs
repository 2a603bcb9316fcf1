//! A TCP proxy that breaks a link on purpose.
//!
//! What it does to a link is a [`LinkFault`], with one grammar everywhere: `latency=50ms,jitter=5ms,share=0.1`. Faults
//! come and go while connections are open, through the admin endpoint, and act on those too; several at a time add up.
//! The one rule: a connection that no fault touches is carried as if there were none.
//!
//! What it does not do: the opening of a connection is answered by the kernel, so no latency delays it, and a connection
//! under a blackhole is opened and then silent. What was held when a fault is lifted passes at once.

mod admin;
mod alarm;
mod effects;
mod faults;
mod grammar;
mod http;
mod lane;
mod link;
mod pipe;
mod role;
mod way;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use faults::suits;
pub use grammar::KINDS;
pub use role::ProxySettings;

/// The role.
pub const ROLE: kit::Role =
    kit::Role { name: "proxy", about: "passes connections on, and breaks them on purpose", run: role::run };

/// What is done to the connections of a link. Written and read as text, in JSON too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkFault {
    /// What.
    pub kind: LinkKind,
    /// Which way; `down` is towards the client.
    pub direction: Direction,
    /// The part of the connections that it touches, of `error-rate` and `slow` the part of the requests: above 0, at most 1.
    pub share: f64,
}

/// What is done to a link.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkKind {
    /// Everything arrives later, each chunk by the latency and a jitter drawn evenly from ± of it.
    Latency {
        /// How much later.
        latency: Duration,
        /// How much that varies, either way.
        jitter: Duration,
    },
    /// No more than so many bytes a second pass.
    Bandwidth {
        /// Bytes a second.
        bytes_per_s: u64,
    },
    /// Nothing passes, and nothing is closed.
    Blackhole,
    /// The connection is reset, after this long.
    Reset {
        /// From the fault's start, or from the connection's.
        after: Duration,
    },
    /// The end of a connection is passed on later.
    SlowClose {
        /// How much later.
        delay: Duration,
    },
    /// The connection is closed once so many bytes have passed.
    LimitData {
        /// How many.
        bytes: u64,
    },
    /// The first connections are reset, those after them pass.
    FailFirst {
        /// How many.
        connections: u32,
    },
    /// Requests are answered with an error instead of being passed on.
    ErrorRate {
        /// The status of the answer.
        status: u16,
    },
    /// Requests are passed on later.
    Slow {
        /// How much later.
        latency: Duration,
        /// How much that varies, either way.
        jitter: Duration,
    },
}

/// Which way a fault works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Towards the client.
    #[default]
    Down,
    /// Towards the server.
    Up,
    /// Both ways.
    Both,
}

impl LinkFault {
    /// Whether it needs a proxy that understands HTTP.
    pub fn is_http(&self) -> bool {
        matches!(self.kind, LinkKind::ErrorRate { .. } | LinkKind::Slow { .. })
    }
}

#[cfg(test)]
mod tests;

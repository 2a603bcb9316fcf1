//! Nothing lost: what was acknowledged against what is found afterwards.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What became of the writes of a trial, after everything was healed and read back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lost {
    /// Creates that were sent.
    pub attempted: u64,
    /// Creates that were acknowledged.
    pub acknowledged: u64,
    /// Creates whose fate was not known when they ended: found afterwards or not, both are right.
    pub unknown: u64,
    /// Of those, how many were found.
    pub unknown_found: u64,
    /// Acknowledged, and not there although nobody deleted it.
    pub lost: u64,
    /// There more than once.
    pub duplicated: u64,
    /// Deleted and acknowledged so, and there.
    pub resurrected: u64,
    /// There, and never asked for, or surely refused.
    pub phantom: u64,
    /// Reads that did not see a write that was acknowledged before they began.
    pub stale: u64,
    /// Owners whose totals do not add up to what is found.
    pub wrong_totals: u64,
    /// Tasks whose history was checked for linearizability.
    pub linearizable_checked: u64,
    /// Of those, how many no order explains.
    pub not_linearizable: u64,
    /// The operations behind the counts above, by count: at most some dozens each.
    pub named: BTreeMap<String, Vec<String>>,
    /// Why the check could not be made, or not whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchecked: Option<String>,
}

//! The operations of a trial, kept encoded: a few kB for each second and kind, where decoded histograms take hundreds.
//!
//! The one rule: they are decoded one record at a time, so that memory does not grow with the length of a trial.

use std::collections::BTreeMap;

use anyhow::Context as _;
use kit::OpsRecord;
use kit::op::Latencies;
use serde::Deserialize;

/// Records by the second of their schedule, as they came. Those of several generators stand beside each other.
#[derive(Clone, Debug, Default)]
pub struct OpsLog {
    seconds: BTreeMap<u32, Vec<String>>,
}

/// What is read of a record while the trial runs. Decoding histograms takes CPU time that load and system may need.
#[derive(Deserialize)]
struct Brief {
    seq: u64,
    second: u32,
    kind: String,
    open: bool,
    ok: u64,
    failed: u64,
    unknown: u64,
    wrong: u64,
    units: u64,
    bytes: u64,
    total: Latencies,
    failed_total: Option<Latencies>,
}

impl OpsLog {
    /// Adds a record's line, unless its second is still open and more may come; gives back its counts and total times,
    /// without decoding the rest.
    ///
    /// # Errors
    /// When the line is none.
    pub fn add(&mut self, line: &str) -> anyhow::Result<OpsRecord> {
        let record: Brief = serde_json::from_str(line).context("an operations record could not be read")?;
        if !record.open {
            self.seconds.entry(record.second).or_default().push(line.to_owned());
        }
        let Brief { seq, second, kind, open, ok, failed, unknown, wrong, units, bytes, total, failed_total } = record;
        Ok(OpsRecord {
            seq,
            second,
            kind,
            open,
            ok,
            failed,
            unknown,
            wrong,
            units,
            bytes,
            total,
            failed_total,
            ..OpsRecord::default()
        })
    }

    /// The records in the order of their seconds.
    pub fn iter(&self) -> impl Iterator<Item = OpsRecord> {
        // What `add` has read once can be read again.
        self.seconds.values().flatten().filter_map(|line| serde_json::from_str(line).ok())
    }
}

impl FromIterator<OpsRecord> for OpsLog {
    fn from_iter<T: IntoIterator<Item = OpsRecord>>(records: T) -> Self {
        let mut log = Self::default();
        for record in records {
            // Cannot fail: every field is a number, a string or a histogram within its bounds.
            let line = serde_json::to_string(&record).unwrap_or_default();
            log.seconds.entry(record.second).or_default().push(line);
        }
        log
    }
}

//! The operations of a trial, encoded, on disk: decoded histograms take up to hundreds of kB for each second and kind.
//!
//! The one rule: they are decoded one record at a time, and memory holds sixteen bytes of each, however long a trial is.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use anyhow::Context as _;
use kit::OpsRecord;
use kit::op::Latencies;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::surroundings;

/// Records as they came, and where each is. Those of several generators stand beside each other.
#[derive(Clone, Debug)]
pub struct OpsLog {
    kept: Kept,
    end: u64,
    places: Vec<Place>,
}

/// Where the lines are.
#[derive(Clone, Debug)]
enum Kept {
    /// A file without a name, which goes with the log.
    Disk(Arc<File>),
    /// For a few records that are at hand.
    Memory(Vec<u8>),
}

/// Where a record is.
#[derive(Clone, Copy, Debug)]
struct Place {
    second: u32,
    at: u64,
    length: u32,
}

/// What most readers need of a record: all but its lags, waits and works. Decoding histograms takes CPU time that load
/// and system may need.
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
    statuses: BTreeMap<u16, u64>,
    errors: BTreeMap<String, u64>,
    total: Latencies,
    failed_total: Option<Latencies>,
}

impl From<Brief> for OpsRecord {
    fn from(brief: Brief) -> Self {
        let Brief { seq, second, kind, open, ok, failed, unknown, wrong, units, bytes, .. } = brief;
        let Brief { statuses, errors, total, failed_total, .. } = brief;
        Self {
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
            statuses,
            errors,
            total,
            failed_total,
            ..Self::default()
        }
    }
}

/// What says whether the rest is wanted.
#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
}

impl OpsLog {
    /// An empty log on disk.
    ///
    /// # Errors
    /// When there is no place for temporary files, as surroundings.
    pub fn new() -> anyhow::Result<Self> {
        let file = tempfile::tempfile().map_err(|error| {
            surroundings(format!("cannot make a file in {}: {error}; set TMPDIR", std::env::temp_dir().display()))
        })?;
        Ok(Self { kept: Kept::Disk(Arc::new(file)), end: 0, places: Vec::new() })
    }

    /// Adds a record's line, unless its second is still open and more may come; gives back its counts and total times,
    /// without decoding the rest.
    ///
    /// # Errors
    /// When the line is none.
    pub fn add(&mut self, line: &str) -> anyhow::Result<OpsRecord> {
        let record: Brief = serde_json::from_str(line).context("an operations record could not be read")?;
        if !record.open {
            self.append(record.second, line)?;
        }
        Ok(record.into())
    }

    /// Adds the line of a record that was read already.
    ///
    /// # Errors
    /// When the disk refuses, as surroundings.
    pub fn append(&mut self, second: u32, line: &str) -> anyhow::Result<()> {
        match &mut self.kept {
            Kept::Memory(bytes) => bytes.extend_from_slice(line.as_bytes()),
            Kept::Disk(file) => file.write_all_at(line.as_bytes(), self.end).map_err(|error| {
                surroundings(format!("cannot keep operations in {}: {error}", std::env::temp_dir().display()))
            })?,
        }
        self.places.push(Place { second, at: self.end, length: line.len() as u32 });
        self.end += line.len() as u64;
        Ok(())
    }

    /// Whether memory is free of what it holds.
    #[cfg(test)]
    pub fn is_on_disk(&self) -> bool {
        matches!(self.kept, Kept::Disk(_))
    }

    /// The records in the order of their seconds.
    pub fn iter(&self) -> impl Iterator<Item = OpsRecord> {
        self.read_as()
    }

    /// The same without lags, waits and works.
    pub fn briefs(&self) -> impl Iterator<Item = OpsRecord> {
        self.read_as::<Brief>().map(OpsRecord::from)
    }

    /// The same with lags, waits and works of the kinds that are `wanted` only.
    pub fn with_phases_of(&self, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = OpsRecord> {
        self.lines().filter_map(move |line| {
            let Kind { kind } = serde_json::from_slice(&line).ok()?;
            if wanted(&kind) {
                return serde_json::from_slice(&line).ok();
            }
            serde_json::from_slice::<Brief>(&line).ok().map(OpsRecord::from)
        })
    }

    /// What a reader wants of the records, in the order of their seconds.
    pub fn read_as<T: DeserializeOwned>(&self) -> impl Iterator<Item = T> {
        self.lines().filter_map(|line| serde_json::from_slice(&line).ok())
    }

    fn lines(&self) -> impl Iterator<Item = Vec<u8>> {
        let mut places = self.places.clone();
        places.sort_by_key(|place| place.second);
        places.into_iter().filter_map(|place| self.read(place))
    }

    /// What `append` has written can be read again, unless the disk fails under it.
    fn read(&self, place: Place) -> Option<Vec<u8>> {
        let mut line = vec![0; place.length as usize];
        match &self.kept {
            Kept::Memory(bytes) => line.copy_from_slice(bytes.get(place.at as usize..)?.get(..place.length as usize)?),
            Kept::Disk(file) => file.read_exact_at(&mut line, place.at).ok()?,
        }
        Some(line)
    }
}

impl Default for OpsLog {
    /// An empty log in memory, for what is at hand.
    fn default() -> Self {
        Self { kept: Kept::Memory(Vec::new()), end: 0, places: Vec::new() }
    }
}

impl FromIterator<OpsRecord> for OpsLog {
    fn from_iter<T: IntoIterator<Item = OpsRecord>>(records: T) -> Self {
        let mut log = Self::default();
        for record in records {
            // Neither can fail: a record is numbers, strings and histograms within bounds, and memory takes it.
            let line = serde_json::to_string(&record).unwrap_or_default();
            let _ = log.append(record.second, &line);
        }
        log
    }
}

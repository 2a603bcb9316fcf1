//! An operation, the unit everything is measured in, and what a second of them looks like on the wire.
//!
//! ```text
//! intended ── lag ──► released ── queue ──► started ── work ──► finished      wait = lag + queue, total = wait + work
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::{Deserialize, Serialize};

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It did what it should.
    Ok,
    /// It was refused or broke, and did not happen.
    Failed,
    /// It was given up (a time-out, a lost connection after sending): it may have happened.
    Unknown,
    /// It was answered, and a check says that the answer is wrong.
    Wrong,
}

impl Outcome {
    /// All outcomes, in the order in which counts are kept.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Failed, Self::Unknown, Self::Wrong];
}

/// One unit of useful work: four instants on one monotonic clock, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// When the schedule wanted it.
    pub intended_ns: u64,
    /// When the schedule let it go.
    pub released_ns: u64,
    /// When work on it began.
    pub started_ns: u64,
    /// When it was done, or given up.
    pub finished_ns: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// A status code of its protocol, 0 where there is none.
    pub status: u16,
    /// How much it was, in the system's own unit (requests, records, pages, bytes).
    pub units: u64,
    /// Bytes received.
    pub bytes: u64,
}

/// Durations of many operations in nanoseconds, three significant digits.
#[derive(Clone, Debug)]
pub struct Latencies(pub Histogram<u32>);

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    /// The longest duration that is kept apart from longer ones: an hour.
    const LONGEST_NS: u64 = 3_600_000_000_000;

    /// An empty histogram, which grows with what it is given.
    pub fn new() -> Self {
        Self(Histogram::new(3).expect("three digits are within 0 to 5"))
    }

    /// Adds one duration.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.record_many(ns, 1);
    }

    /// Adds one duration `count` times.
    #[inline]
    pub fn record_many(&mut self, ns: u64, count: u64) {
        // Cannot fail: the value is clamped and the histogram resizes itself.
        let _ = self.0.record_n(ns.min(Self::LONGEST_NS), u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// Adds all of another histogram.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("resizes itself");
    }

    /// How many durations there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The duration below which a share `quantile` (0 to 1) lies; none when there is nothing.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_nanos(self.0.value_at_quantile(quantile)))
    }

    /// The mean; none when there is nothing.
    pub fn mean(&self) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_nanos(self.0.mean().round() as u64))
    }
}

impl Serialize for Latencies {
    /// HdrHistogram V2 with deflate, in base64: what every HdrHistogram library reads. Nothing for an empty one.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_empty() {
            return serializer.serialize_str("");
        }
        ENCODER.with_borrow_mut(|encoder| {
            let bytes = encoder.encode(&self.0).map_err(serde::ser::Error::custom)?;
            serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(bytes))
        })
    }
}

thread_local! {
    static ENCODER: RefCell<Encoder> = RefCell::default();
}

/// Encodes histograms in buffers that it keeps: some 40 histograms leave a generator each second, and half a megabyte
/// made and dropped for each shows as memory that comes and goes.
struct Encoder {
    plain: V2Serializer,
    bytes: Vec<u8>,
    deflate: flate2::Compress,
    packed: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        let deflate = flate2::Compress::new(flate2::Compression::default(), true);
        Self { plain: V2Serializer::new(), bytes: Vec::new(), deflate, packed: Vec::new() }
    }
}

impl Encoder {
    /// The compressed form's head: its cookie and the length of what follows, both big-endian.
    const COOKIE: u32 = 0x1c84_9314;
    const HEAD: usize = 8;

    fn encode(&mut self, histogram: &Histogram<u32>) -> Result<&[u8], String> {
        self.bytes.clear();
        self.plain.serialize(histogram, &mut self.bytes).map_err(|error| format!("histogram: {error:?}"))?;
        self.packed.clear();
        self.packed.extend_from_slice(&Self::COOKIE.to_be_bytes());
        self.packed.extend_from_slice(&[0; 4]);
        self.deflate.reset();
        loop {
            let taken = usize::try_from(self.deflate.total_in()).unwrap_or(usize::MAX);
            // What cannot be compressed grows a little: then there is a second round.
            self.packed.reserve(64 + self.bytes.len() - taken);
            let status = self
                .deflate
                .compress_vec(&self.bytes[taken..], &mut self.packed, flate2::FlushCompress::Finish)
                .map_err(|error| format!("histogram: {error}"))?;
            if status == flate2::Status::StreamEnd {
                break;
            }
        }
        let length = u32::try_from(self.packed.len() - Self::HEAD).map_err(|error| format!("histogram: {error}"))?;
        self.packed[4..Self::HEAD].copy_from_slice(&length.to_be_bytes());
        Ok(&self.packed)
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self::new());
        }
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(text.as_bytes())
            .map_err(|error| serde::de::Error::custom(format!("histogram: {error}")))?;
        let mut histogram: Histogram<u32> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| serde::de::Error::custom(format!("histogram: {error:?}")))?;
        let mut latencies = Self::new();
        if (histogram.sigfig(), histogram.low()) == (latencies.0.sigfig(), latencies.0.low()) {
            // One of ours: adding it to an empty one would make the same again.
            histogram.auto(true);
            return Ok(Self(histogram));
        }
        latencies.0.add(&histogram).map_err(|error| serde::de::Error::custom(format!("histogram: {error:?}")))?;
        Ok(latencies)
    }
}

/// The operations of one kind that were intended in one second.
///
/// The four durations hold every operation that was answered or given up (`ok`, `unknown`, `wrong`); the totals of
/// those that failed stand apart, because a refusal is fast and would flatter. A given-up operation counts with the
/// time until it was given up.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct OpsRecord {
    /// Its place in the sender's stream, from 1; 0 while the second is open.
    pub seq: u64,
    /// The second since the start of the schedule in which the operations were intended.
    pub second: u32,
    /// What the operations were.
    pub kind: String,
    /// Whether operations of this second may still end. Then there are counts, but no durations yet.
    pub open: bool,
    /// How many ended well.
    pub ok: u64,
    /// How many were refused or broke.
    pub failed: u64,
    /// How many were given up.
    pub unknown: u64,
    /// How many were answered wrongly.
    pub wrong: u64,
    /// Sum of the units of the good ones.
    pub units: u64,
    /// Bytes received.
    pub bytes: u64,
    /// How many ended with each status code.
    pub statuses: BTreeMap<u16, u64>,
    /// How many did not end well, by reason.
    pub errors: BTreeMap<String, u64>,
    /// released − intended.
    pub lag: Latencies,
    /// started − intended.
    pub wait: Latencies,
    /// finished − started.
    pub work: Latencies,
    /// finished − intended.
    pub total: Latencies,
    /// finished − intended of the failed ones.
    pub failed_total: Option<Latencies>,
}

impl OpsRecord {
    /// All operations, however they ended.
    pub fn count(&self) -> u64 {
        self.ok + self.failed + self.unknown + self.wrong
    }

    /// Total times of all operations, those that failed too: a refusal is fast, so this is no latency to judge by.
    pub fn all_times(&self) -> Latencies {
        let mut all = self.total.clone();
        if let Some(failed) = &self.failed_total {
            all.add(failed);
        }
        all
    }

    /// The count of one outcome.
    pub fn outcome_mut(&mut self, outcome: Outcome) -> &mut u64 {
        match outcome {
            Outcome::Ok => &mut self.ok,
            Outcome::Failed => &mut self.failed,
            Outcome::Unknown => &mut self.unknown,
            Outcome::Wrong => &mut self.wrong,
        }
    }

    /// Adds one ended operation.
    #[inline]
    pub fn record(&mut self, op: &Op) {
        self.record_many(op, 1);
    }

    /// Adds `count` operations that went alike.
    #[inline]
    pub fn record_many(&mut self, op: &Op, count: u64) {
        *self.outcome_mut(op.outcome) += count;
        self.bytes += op.bytes * count;
        if op.status != 0 {
            *self.statuses.entry(op.status).or_default() += count;
        }
        let total = op.finished_ns.saturating_sub(op.intended_ns);
        if op.outcome == Outcome::Failed {
            self.failed_total.get_or_insert_with(Latencies::new).record_many(total, count);
            return;
        }
        if op.outcome == Outcome::Ok {
            self.units += op.units * count;
        }
        self.lag.record_many(op.released_ns.saturating_sub(op.intended_ns), count);
        self.wait.record_many(op.started_ns.saturating_sub(op.intended_ns), count);
        self.work.record_many(op.finished_ns.saturating_sub(op.started_ns), count);
        self.total.record_many(total, count);
    }

    /// The counts of a second that is not over; encoding its durations at each look would cost what the load needs.
    pub fn counts_so_far(&self) -> Self {
        Self {
            second: self.second,
            kind: self.kind.clone(),
            open: true,
            ok: self.ok,
            failed: self.failed,
            unknown: self.unknown,
            wrong: self.wrong,
            units: self.units,
            bytes: self.bytes,
            statuses: self.statuses.clone(),
            errors: self.errors.clone(),
            ..Self::default()
        }
    }

    /// Adds the counts and durations of another record; keeps its own second and kind.
    pub fn merge(&mut self, other: &Self) {
        self.ok += other.ok;
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.wrong += other.wrong;
        self.units += other.units;
        self.bytes += other.bytes;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (error, count) in &other.errors {
            *self.errors.entry(error.clone()).or_default() += count;
        }
        self.lag.add(&other.lag);
        self.wait.add(&other.wait);
        self.work.add(&other.work);
        self.total.add(&other.total);
        if let Some(failed) = &other.failed_total {
            self.failed_total.get_or_insert_with(Latencies::new).add(failed);
        }
    }
}

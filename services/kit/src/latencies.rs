//! Durations of many operations, and their form on the wire.
//!
//! The one rule: every number is what an HdrHistogram of three digits gives. Few durations are kept as a list of its
//! buckets, because its array of some 24,000 counters costs more to clear, add and encode than all that is in it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::{Deserialize, Serialize};

/// Durations of many operations in nanoseconds, three significant digits.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Held);

#[derive(Clone, Debug)]
enum Held {
    Few(Few),
    Many(Box<Histogram<u32>>),
}

impl Default for Held {
    fn default() -> Self {
        Self::Few(Few::default())
    }
}

/// Buckets and how many durations are in each, as they came: in any order, and one more than once.
#[derive(Clone, Debug, Default)]
struct Few {
    counts: Vec<(u32, u32)>,
    /// Of all counts. At most [`u32::MAX`], so that no bucket of the histogram can overflow.
    total: u64,
}

impl Latencies {
    /// The longest duration that is kept apart from longer ones: an hour.
    const LONGEST_NS: u64 = 3_600_000_000_000;

    /// None yet; it grows with what it is given.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one duration.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.record_many(ns, 1);
    }

    /// Adds one duration `count` times.
    #[inline]
    pub fn record_many(&mut self, ns: u64, count: u64) {
        if count == 0 {
            return;
        }
        let (ns, count) = (ns.min(Self::LONGEST_NS), u32::try_from(count).unwrap_or(u32::MAX));
        if let Held::Few(few) = &mut self.0
            && few.push(bucket_of(ns), count)
        {
            return;
        }
        // Cannot fail: the value is clamped and the histogram resizes itself.
        let _ = self.many().record_n(ns, count);
    }

    /// Adds all of another.
    pub fn add(&mut self, other: &Self) {
        match (&mut self.0, &other.0) {
            (Held::Few(few), Held::Few(more)) if few.total + more.total <= u64::from(u32::MAX) => {
                few.add(more);
                if few.counts.len() > Few::AT_MOST {
                    self.many();
                }
            }
            (_, Held::Few(more)) => more.record_into(self.many()),
            (Held::Few(few), Held::Many(more)) => {
                let mut all = more.clone();
                few.record_into(&mut all);
                self.0 = Held::Many(all);
            }
            (Held::Many(all), Held::Many(more)) => all.add(&**more).expect("resizes itself"),
        }
    }

    /// Forgets all durations, and keeps the room they took unless they were far fewer than it is for.
    pub fn reset(&mut self) {
        match &mut self.0 {
            Held::Few(few) => {
                few.counts.clear();
                few.total = 0;
            }
            Held::Many(many) if many.len() > Few::AT_MOST as u64 / 4 => many.reset(),
            Held::Many(_) => *self = Self::new(),
        }
    }

    /// How many durations there are.
    pub fn count(&self) -> u64 {
        match &self.0 {
            Held::Few(few) => few.total,
            Held::Many(many) => many.len(),
        }
    }

    /// The duration below which a share `quantile` (0 to 1) lies; none when there is nothing.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let ns = match &self.0 {
            _ if self.count() == 0 => return None,
            Held::Few(few) => few.value_at(quantile),
            Held::Many(many) => many.value_at_quantile(quantile),
        };
        Some(Duration::from_nanos(ns))
    }

    /// The mean; none when there is nothing.
    pub fn mean(&self) -> Option<Duration> {
        (self.count() > 0).then(|| Duration::from_nanos(self.mean_ns().round() as u64))
    }

    /// The mean in nanoseconds with its fraction; 0 when there is nothing.
    pub fn mean_ns(&self) -> f64 {
        match &self.0 {
            Held::Few(few) => few.mean(),
            Held::Many(many) => many.mean(),
        }
    }

    /// The shortest in nanoseconds, rounded down to its bucket; 0 when there is nothing.
    pub fn min_ns(&self) -> u64 {
        match &self.0 {
            Held::Few(few) => few.counts.iter().map(|(bucket, _)| *bucket).min().map_or(0, lowest),
            Held::Many(many) => many.min(),
        }
    }

    /// The longest in nanoseconds, rounded up to its bucket; 0 when there is nothing.
    pub fn max_ns(&self) -> u64 {
        match &self.0 {
            Held::Few(few) => few.counts.iter().map(|(bucket, _)| *bucket).max().map_or(0, highest),
            Held::Many(many) => many.max(),
        }
    }

    /// The shortest duration of each bucket that holds any, ascending, and how many it holds.
    pub fn recorded(&self) -> Vec<(u64, u64)> {
        match &self.0 {
            Held::Few(few) => few.sorted().iter().map(|(bucket, count)| (lowest(*bucket), u64::from(*count))).collect(),
            Held::Many(many) => many
                .iter_recorded()
                .map(|value| (many.lowest_equivalent(value.value_iterated_to()), u64::from(value.count_at_value())))
                .collect(),
        }
    }

    /// The same as a histogram of the library.
    pub fn to_histogram(&self) -> Histogram<u32> {
        match &self.0 {
            Held::Few(few) => few.to_histogram(),
            Held::Many(many) => many.as_ref().clone(),
        }
    }

    /// HdrHistogram V2 with deflate, in base64: what every HdrHistogram library reads. Nothing for none.
    ///
    /// # Errors
    /// When a histogram is beyond what the format holds.
    pub fn encode(&self) -> Result<String, String> {
        if self.count() == 0 {
            return Ok(String::new());
        }
        ENCODER.with_borrow_mut(|encoder| {
            match &self.0 {
                Held::Few(few) => encoder.write_few(&few.sorted()),
                Held::Many(many) => encoder.write_many(many)?,
            }
            encoder.pack().map(|bytes| STANDARD.encode(bytes))
        })
    }

    /// What [`Self::encode`] or another HdrHistogram library wrote.
    ///
    /// # Errors
    /// When it is no histogram, or one that does not fit.
    pub fn decode(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::new());
        }
        DECODER.with_borrow_mut(|decoder| {
            let Decoder { packed, .. } = decoder;
            packed.clear();
            STANDARD.decode_vec(text, packed).map_err(|error| format!("histogram: {error}"))?;
            if let Some(few) = decoder.few() {
                return Ok(Self(Held::Few(few)));
            }
            decoder.many().map(|many| Self(Held::Many(Box::new(many))))
        })
    }

    /// As a histogram from here on.
    fn many(&mut self) -> &mut Histogram<u32> {
        if let Held::Few(few) = &self.0 {
            self.0 = Held::Many(Box::new(few.to_histogram()));
        }
        match &mut self.0 {
            Held::Many(many) => many,
            Held::Few(_) => unreachable!("made above"),
        }
    }
}

/// An empty histogram, which grows with what it is given.
fn empty() -> Histogram<u32> {
    Histogram::new(Few::DIGITS).expect("three digits are within 0 to 5")
}

/// Half of the buckets of the first power of two above 2 × 10³: from there on, so many a power of two.
const HALF: u32 = 1024;

/// The bucket of a duration, as HdrHistogram numbers them.
#[inline]
fn bucket_of(ns: u64) -> u32 {
    let power = 53 - (ns | u64::from(2 * HALF - 1)).leading_zeros();
    // Durations are at most an hour, and what is decoded at most 2⁶⁴: both are far below 2³² buckets.
    power * HALF + (ns >> power) as u32
}

/// The shortest duration of a bucket, and the power of two by which the next one differs.
fn place(bucket: u32) -> (u64, u32) {
    let power = (bucket / HALF).saturating_sub(1);
    (u64::from(bucket - power * HALF) << power, power)
}

fn lowest(bucket: u32) -> u64 {
    place(bucket).0
}

fn highest(bucket: u32) -> u64 {
    let (lowest, power) = place(bucket);
    lowest + ((1 << power) - 1)
}

fn middle(bucket: u32) -> u64 {
    let (lowest, power) = place(bucket);
    lowest + ((1 << power) >> 1)
}

impl Few {
    /// Beyond that a histogram is faster.
    const AT_MOST: usize = 1024;
    const DIGITS: u8 = 3;

    /// Adds, unless there are too many.
    #[inline]
    fn push(&mut self, bucket: u32, count: u32) -> bool {
        let total = self.total + u64::from(count);
        if total > u64::from(u32::MAX) {
            return false;
        }
        if let Some(last) = self.counts.last_mut()
            && last.0 == bucket
        {
            last.1 += count;
        } else if self.counts.len() < Self::AT_MOST {
            self.counts.push((bucket, count));
        } else {
            return false;
        }
        self.total = total;
        true
    }

    /// Adds all of another. Both together are at most [`u32::MAX`]; the buckets may be too many then.
    fn add(&mut self, other: &Self) {
        self.counts.extend_from_slice(&other.counts);
        settle(&mut self.counts);
        self.total += other.total;
    }

    /// In ascending order, each bucket once.
    fn sorted(&self) -> Cow<'_, [(u32, u32)]> {
        if is_settled(&self.counts) {
            return Cow::Borrowed(&self.counts);
        }
        let mut counts = self.counts.clone();
        settle(&mut counts);
        Cow::Owned(counts)
    }

    /// As `Histogram::value_at_quantile` has it.
    fn value_at(&self, quantile: f64) -> u64 {
        let quantile = quantile.min(1.0);
        let enough = ((quantile * self.total as f64).ceil() as u64).max(1);
        let mut so_far = 0;
        let sorted = self.sorted();
        let found = sorted.iter().find(|(_, count)| {
            so_far += u64::from(*count);
            so_far >= enough
        });
        found.map_or(0, |(bucket, _)| if quantile == 0.0 { lowest(*bucket) } else { highest(*bucket) })
    }

    /// As `Histogram::mean` has it, in the same order of the same operations.
    fn mean(&self) -> f64 {
        let part = |(bucket, count): &(u32, u32)| middle(*bucket) as f64 * f64::from(*count) / self.total as f64;
        self.sorted().iter().fold(0.0, |sum, counted| sum + part(counted))
    }

    fn record_into(&self, histogram: &mut Histogram<u32>) {
        // The longest first: then it grows once.
        let longest = self.counts.iter().max_by_key(|(bucket, _)| *bucket);
        for (bucket, count) in longest.map(|(bucket, _)| (*bucket, 0)).iter().chain(&self.counts) {
            // Cannot fail: it resizes itself.
            let _ = histogram.record_n(lowest(*bucket), *count);
        }
    }

    fn to_histogram(&self) -> Histogram<u32> {
        let mut histogram = empty();
        self.record_into(&mut histogram);
        histogram
    }
}

fn is_settled(counts: &[(u32, u32)]) -> bool {
    counts.is_sorted_by(|one, next| one.0 < next.0)
}

fn settle(counts: &mut Vec<(u32, u32)>) {
    if is_settled(counts) {
        return;
    }
    // Mostly two sorted halves, which the stable sort sees.
    counts.sort_by_key(|(bucket, _)| *bucket);
    counts.dedup_by(|next, kept| {
        let is_same = next.0 == kept.0;
        kept.1 += if is_same { next.1 } else { 0 };
        is_same
    });
}

impl Serialize for Latencies {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.encode().map_err(serde::ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Latencies;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("an encoded histogram")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Latencies, E> {
                Latencies::decode(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

thread_local! {
    static ENCODER: RefCell<Encoder> = RefCell::default();
    static DECODER: RefCell<Decoder> = RefCell::default();
}

/// The plain form: cookie, length of the counts, offset, digits, lowest, highest and ratio, all big-endian; counts.
const COOKIE: u32 = 0x1c84_9313;
const HEAD: usize = 40;

/// The compressed form's head: its cookie and the length of what follows, both big-endian.
const PACKED_COOKIE: u32 = 0x1c84_9314;
const PACKED_HEAD: usize = 8;

/// Encodes in buffers that it keeps: some 40 histograms leave a generator each second, and half a megabyte made and
/// dropped for each shows as memory that comes and goes.
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
    fn write_many(&mut self, histogram: &Histogram<u32>) -> Result<(), String> {
        self.bytes.clear();
        self.plain.serialize(histogram, &mut self.bytes).map_err(|error| format!("histogram: {error:?}"))?;
        Ok(())
    }

    /// What the library writes for a histogram of these, without the histogram.
    fn write_few(&mut self, sorted: &[(u32, u32)]) {
        let bytes = &mut self.bytes;
        bytes.clear();
        bytes.extend_from_slice(&COOKIE.to_be_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&u32::from(Few::DIGITS).to_be_bytes());
        bytes.extend_from_slice(&1_u64.to_be_bytes());
        bytes.extend_from_slice(&top(sorted.last().map_or(0, |(bucket, _)| *bucket)).to_be_bytes());
        bytes.extend_from_slice(&1.0_f64.to_be_bytes());
        let mut next = 0;
        for (bucket, count) in sorted {
            match i64::from(bucket - next) {
                0 => {}
                // One alone is written as a count of none.
                1 => write_number(bytes, 0),
                skipped => write_number(bytes, -skipped),
            }
            write_number(bytes, i64::from(*count));
            next = bucket + 1;
        }
        let length = (bytes.len() - HEAD) as u32;
        bytes[4..8].copy_from_slice(&length.to_be_bytes());
    }

    fn pack(&mut self) -> Result<&[u8], String> {
        // What cannot be compressed grows a little. The buffer keeps its length: clearing it is work too.
        let room = PACKED_HEAD + 128 + self.bytes.len() + self.bytes.len() / 8;
        if self.packed.len() < room {
            self.packed.resize(room, 0);
        }
        self.deflate.reset();
        let (head, body) = self.packed.split_at_mut(PACKED_HEAD);
        let status = self.deflate.compress(&self.bytes, body, flate2::FlushCompress::Finish);
        if status.map_err(|error| format!("histogram: {error}"))? != flate2::Status::StreamEnd {
            return Err("histogram: it could not be compressed".to_owned());
        }
        let length = u32::try_from(self.deflate.total_out()).map_err(|error| format!("histogram: {error}"))?;
        head[..4].copy_from_slice(&PACKED_COOKIE.to_be_bytes());
        head[4..].copy_from_slice(&length.to_be_bytes());
        Ok(&self.packed[..PACKED_HEAD + length as usize])
    }
}

/// The highest value that a histogram can hold once it has grown for this bucket; a new one says 2.
fn top(bucket: u32) -> u64 {
    match place(bucket).1 {
        0 => 2,
        power => (u64::from(2 * HALF) << power) - 1,
    }
}

/// ZigZag and LEB128. Numbers are within 33 bits, so the format's ninth byte does not come up.
fn write_number(bytes: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

/// Decodes in buffers that it keeps.
struct Decoder {
    packed: Vec<u8>,
    inflate: flate2::Decompress,
    /// Room for what [`Few`] can be: at most eight bytes a bucket, and some to see the end.
    plain: Box<[u8]>,
}

impl Default for Decoder {
    fn default() -> Self {
        let plain = vec![0; HEAD + 8 * Few::AT_MOST + 64].into();
        Self { packed: Vec::new(), inflate: flate2::Decompress::new(true), plain }
    }
}

impl Decoder {
    /// What is packed, if it is of our precision and few; all else is the library's to read, or to refuse.
    fn few(&mut self) -> Option<Few> {
        let (cookie, rest) = self.packed.split_first_chunk::<4>()?;
        let (length, body) = rest.split_first_chunk::<4>()?;
        if u32::from_be_bytes(*cookie) != PACKED_COOKIE {
            return None;
        }
        let body = body.get(..u32::from_be_bytes(*length) as usize)?;
        self.inflate.reset(true);
        let status = self.inflate.decompress(body, &mut self.plain, flate2::FlushDecompress::Finish).ok()?;
        if status != flate2::Status::StreamEnd {
            return None;
        }
        read_few(&self.plain[..self.inflate.total_out() as usize])
    }

    fn many(&self) -> Result<Histogram<u32>, String> {
        let read = Deserializer::new().deserialize(&mut self.packed.as_slice());
        let mut histogram: Histogram<u32> = read.map_err(|error| format!("histogram: {error:?}"))?;
        let mut all = empty();
        if (histogram.sigfig(), histogram.low()) == (all.sigfig(), all.low()) {
            // One of ours: adding it to an empty one would make the same again.
            histogram.auto(true);
            return Ok(histogram);
        }
        all.add(&histogram).map_err(|error| format!("histogram: {error:?}"))?;
        Ok(all)
    }
}

fn read_few(plain: &[u8]) -> Option<Few> {
    let (head, mut counts) = plain.split_at_checked(HEAD)?;
    let word = |at: usize| Some(u32::from_be_bytes(*head.get(at..)?.first_chunk()?));
    let long = |at: usize| Some(u64::from_be_bytes(*head.get(at..)?.first_chunk()?));
    let is_ours =
        (word(0)?, word(8)?, word(12)?, long(16)?) == (COOKIE, 0, u32::from(Few::DIGITS), 1) && long(24)? >= 2;
    if !is_ours || word(4)? as usize != counts.len() || long(32)? != 1.0_f64.to_bits() {
        return None;
    }
    let (mut few, mut bucket) = (Few::default(), 0_u32);
    // As the library has it, counters reach to the end of the power of two that holds the highest value.
    let end = (place(bucket_of(long(24)?)).1 + 2) * HALF;
    while !counts.is_empty() {
        match read_number(&mut counts)? {
            skipped @ ..0 => bucket = bucket.checked_add(u32::try_from(-skipped).ok()?)?,
            count => {
                if count > 0 && (bucket >= end || !few.push(bucket, u32::try_from(count).ok()?)) {
                    return None;
                }
                bucket = bucket.checked_add(1)?;
            }
        }
    }
    Some(few)
}

fn read_number(bytes: &mut &[u8]) -> Option<i64> {
    let mut number = 0;
    for place in 0..8 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((number >> 1) as i64 ^ -((number & 1) as i64));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::V2DeflateSerializer;
    use proptest::prelude::*;

    fn both(durations: &[(u64, u64)]) -> (Latencies, Histogram<u32>) {
        let (mut ours, mut theirs) = (Latencies::new(), empty());
        for (ns, count) in durations {
            ours.record_many(*ns, *count);
            theirs.record_n((*ns).min(Latencies::LONGEST_NS), u32::try_from(*count).unwrap()).unwrap();
        }
        (ours, theirs)
    }

    fn is_few(latencies: &Latencies) -> bool {
        matches!(latencies.0, Held::Few(_))
    }

    /// Every number of one is the other's, to the last bit.
    fn assert_same(ours: &Latencies, theirs: &Histogram<u32>) {
        assert_eq!(ours.count(), theirs.len());
        assert_eq!((ours.min_ns(), ours.max_ns()), (theirs.min(), theirs.max()));
        assert_eq!(ours.mean_ns().to_bits(), theirs.mean().to_bits());
        for quantile in [0.0, 1e-9, 0.1, 0.25, 0.5, 0.66, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 1.0, 1.5] {
            let value = (!theirs.is_empty()).then(|| Duration::from_nanos(theirs.value_at_quantile(quantile)));
            assert_eq!(ours.quantile(quantile), value, "{quantile}");
        }
        let recorded: Vec<_> = theirs
            .iter_recorded()
            .map(|value| (theirs.lowest_equivalent(value.value_iterated_to()), u64::from(value.count_at_value())))
            .collect();
        assert_eq!(ours.recorded(), recorded);
        assert!(ours.to_histogram() == *theirs && ours.to_histogram().high() == theirs.high());
    }

    fn payload(latencies: &Latencies) -> Vec<u8> {
        let Held::Few(few) = &latencies.0 else { panic!("few") };
        let mut encoder = Encoder::default();
        encoder.write_few(&few.sorted());
        encoder.bytes
    }

    fn plain(histogram: &Histogram<u32>) -> Vec<u8> {
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(histogram, &mut bytes).unwrap();
        bytes
    }

    fn library(text: &str) -> Histogram<u32> {
        let bytes = STANDARD.decode(text).unwrap();
        Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap()
    }

    /// Of every size, many alike, and around the bounds of buckets.
    fn duration() -> impl Strategy<Value = u64> {
        prop_oneof![
            Just(0),
            0_u64..5_000,
            (0_u32..43, 0_u64..4).prop_map(|(power, off)| ((1_u64 << power) + off).saturating_sub(2)),
            0_u64..4_000_000_000_000,
            (1_u64..60).prop_map(|ms| ms * 1_000_000),
        ]
    }

    fn durations() -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop_oneof![
            9 => proptest::collection::vec((duration(), prop_oneof![Just(1), 1_u64..2_000_000]), 0..300),
            1 => proptest::collection::vec((duration(), 1_u64..3), 1_000..2_500),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn every_number_is_what_the_library_gives(one in durations(), other in durations()) {
            let ((mut ours, mut theirs), (more, more_of_theirs)) = (both(&one), both(&other));
            assert_same(&ours, &theirs);
            if is_few(&ours) && ours.count() > 0 {
                assert_eq!(payload(&ours), plain(&theirs));
            }
            ours.add(&more);
            theirs.add(&more_of_theirs).unwrap();
            // Grown by adding, the library gives the longest of the other as what it can hold.
            let (_, again) = both(&[one.as_slice(), other.as_slice()].concat());
            prop_assert_eq!(theirs.len(), again.len());
            let highest = ours.to_histogram().high();
            prop_assert!(highest == again.high() || highest == theirs.high());
            for (ns, count) in ours.recorded() {
                prop_assert_eq!(u64::from(theirs.count_at(ns)), count);
            }
            let mut by_one = Latencies::new();
            one.iter().chain(&other).for_each(|(ns, count)| by_one.record_many(*ns, *count));
            assert_same(&by_one, &again);
            prop_assert_eq!((ours.min_ns(), ours.max_ns(), ours.recorded()), (again.min(), again.max(), by_one.recorded()));
            prop_assert_eq!(ours.mean_ns().to_bits(), again.mean().to_bits());
        }

        #[test]
        fn what_is_encoded_is_read_alike_here_and_by_the_library(durations in durations()) {
            let (ours, theirs) = both(&durations);
            let text = ours.encode().unwrap();
            let read = Latencies::decode(&text).unwrap();
            if theirs.is_empty() {
                prop_assert_eq!(text, "");
            } else {
                prop_assert!(library(&text) == theirs);
                prop_assert_eq!(is_few(&read), is_few(&ours) || theirs.iter_recorded().count() <= Few::AT_MOST);
            }
            assert_same(&read, &theirs);
            let mut written = Vec::new();
            V2DeflateSerializer::new().serialize(&theirs, &mut written).unwrap();
            assert_same(&Latencies::decode(&STANDARD.encode(written)).unwrap(), &theirs);
        }

        #[test]
        fn damaged_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), at in 0_usize..400, to: u8) {
            let _ = Latencies::decode(&STANDARD.encode(&bytes));
            let _ = read_few(&bytes);
            let (ours, _) = both(&[(7, 1), (3_000, 2), (5_000_000, 300_000)]);
            bytes = payload(&ours);
            // Not the length: the library makes room for what it says, and that is up to 4 GB.
            let at = [0, 1, 2, 3].into_iter().chain(8..bytes.len()).cycle().nth(at).unwrap();
            bytes[at] = to;
            let theirs = Deserializer::new().deserialize::<u32, _>(&mut bytes.as_slice());
            if let Some(few) = read_few(&bytes) {
                prop_assert!(few.to_histogram().iter_recorded().eq(theirs.unwrap().iter_recorded()));
            }
        }
    }

    #[test]
    fn counts_beyond_32_bits_go_where_the_library_puts_them() {
        let most = u64::from(u32::MAX);
        for durations in [vec![(5, most), (5, 1), (9, 1)], vec![(5, most - 1), (5, 1), (5, 0)], vec![(5, most), (9, 7)]]
        {
            let (ours, theirs) = both(&durations);
            assert_same(&ours, &theirs);
            let (mut twice, mut twice_theirs) = (ours.clone(), theirs.clone());
            twice.add(&ours);
            twice_theirs.add(&theirs).unwrap();
            assert_same(&twice, &twice_theirs);
        }
    }

    #[test]
    fn a_reset_keeps_a_list_s_room_and_a_histogram_only_while_it_is_needed() {
        let fill = |latencies: &mut Latencies, count: u64| (0..count).for_each(|ns| latencies.record(ns * 1_000));
        let mut latencies = Latencies::new();
        fill(&mut latencies, 100);
        latencies.reset();
        assert!(matches!(&latencies.0, Held::Few(few) if few.counts.capacity() >= 100));
        fill(&mut latencies, 2_000);
        latencies.reset();
        assert!(!is_few(&latencies));
        assert_same(&latencies, &empty_like(&latencies));
        fill(&mut latencies, 100);
        latencies.reset();
        assert!(is_few(&latencies));
    }

    fn empty_like(latencies: &Latencies) -> Histogram<u32> {
        let mut histogram = latencies.to_histogram();
        histogram.reset();
        histogram
    }

    #[test]
    fn foreign_precision_is_taken_over() {
        let mut foreign = Histogram::<u64>::new(2).unwrap();
        foreign.record_n(1_000_000, 3).unwrap();
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&foreign, &mut bytes).unwrap();
        let read = Latencies::decode(&STANDARD.encode(bytes)).unwrap();
        assert_eq!(read.count(), 3);
        assert!(Latencies::decode("AAAA").is_err() && Latencies::decode("not base64").is_err());
    }
}

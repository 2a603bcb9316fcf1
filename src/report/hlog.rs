//! Operations ↔ an HdrHistogram interval log, which every HdrHistogram tool reads.
//!
//! The one rule: one line a second, kind and phase, tagged `kind:total`, `kind:wait`, `kind:work` or `kind:lag`, in
//! nanoseconds; the largest value of a line is given in milliseconds, as the format's own tools do.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow};
use base64::Engine as _;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};
use kit::OpsRecord;
use kit::op::Latencies;

/// The log; `start_unix_s` is the start of the schedule (0 on a virtual clock).
pub fn interval_log(ops: &[OpsRecord], start_unix_s: f64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let start = UNIX_EPOCH + Duration::try_from_secs_f64(start_unix_s).context("the start of the schedule")?;
    let mut builder = IntervalLogWriterBuilder::new();
    builder.with_start_time(start).with_base_time(start).with_max_value_divisor(1e6);
    let mut writer = builder.begin_log_with(&mut bytes, &mut serializer)?;
    let mut ordered: Vec<&OpsRecord> = ops.iter().collect();
    ordered.sort_by(|a, b| (a.second, &a.kind).cmp(&(b.second, &b.kind)));
    for record in ordered {
        let phases = [("total", &record.total), ("wait", &record.wait), ("work", &record.work), ("lag", &record.lag)];
        for (phase, latencies) in phases.into_iter().filter(|(_, latencies)| latencies.count() > 0) {
            let name = tag(&record.kind, phase);
            let second = Duration::from_secs(u64::from(record.second));
            writer
                .write_histogram(&latencies.0, second, Duration::from_secs(1), Tag::new(&name))
                .map_err(|error| anyhow!("interval log, {name}: {error:?}"))?;
        }
    }
    Ok(bytes)
}

/// A tag may hold neither comma, space nor line break.
fn tag(kind: &str, phase: &str) -> String {
    let kind = kind.replace(|letter: char| letter == ',' || letter.is_whitespace(), "_");
    format!("{kind}:{phase}")
}

/// The lines of a log: tag, start in seconds since its base, and the durations.
pub fn read_interval_log(bytes: &[u8]) -> Result<Vec<(String, f64, Latencies)>> {
    let mut lines = Vec::new();
    for entry in IntervalLogIterator::new(bytes) {
        let LogEntry::Interval(interval) = entry.map_err(|error| anyhow!("interval log: {error:?}"))? else { continue };
        let encoded = base64::engine::general_purpose::STANDARD.decode(interval.encoded_histogram())?;
        let histogram = Deserializer::new()
            .deserialize(&mut encoded.as_slice())
            .map_err(|error| anyhow!("interval log: {error:?}"))?;
        let mut latencies = Latencies::new();
        latencies.0.add(&histogram).map_err(|error| anyhow!("interval log: {error:?}"))?;
        let tag = interval.tag().map_or_else(String::new, |tag| tag.as_str().to_owned());
        lines.push((tag, interval.start_timestamp().as_secs_f64(), latencies));
    }
    Ok(lines)
}

//! Operations ↔ an HdrHistogram interval log, which every HdrHistogram tool reads.
//!
//! The one rule: one line a second, kind and phase, tagged `kind:total`, `kind:wait`, `kind:work` or `kind:lag`, in
//! nanoseconds; the largest value of a line is given in milliseconds, as the format's own tools do.

use std::io::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow};
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, IntervalLogWriterBuilder, LogEntry};
use kit::op::Latencies;
use serde::Deserialize;

use crate::measure::OpsLog;

/// What is read of a record: its durations stay encoded, as the log wants them.
#[derive(Deserialize)]
struct Encoded {
    second: u32,
    kind: String,
    total: String,
    wait: String,
    work: String,
    lag: String,
}

/// The log; `start_unix_s` is the start of the schedule (0 on a virtual clock).
pub fn interval_log(ops: &OpsLog, start_unix_s: f64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let start = UNIX_EPOCH + Duration::try_from_secs_f64(start_unix_s).context("the start of the schedule")?;
    let mut builder = IntervalLogWriterBuilder::new();
    builder.with_start_time(start).with_base_time(start).with_max_value_divisor(NS_OF_A_MS);
    builder.begin_log_with(&mut bytes, &mut serializer)?;
    for record in ops.read_as::<Encoded>() {
        let phases = [("total", &record.total), ("wait", &record.wait), ("work", &record.work), ("lag", &record.lag)];
        for (phase, text) in phases.into_iter().filter(|(_, text)| !text.is_empty()) {
            let name = tag(&record.kind, phase);
            let latencies = Latencies::decode(text).map_err(|error| anyhow!("interval log, {name}: {error}"))?;
            let longest_ms = latencies.max_ns() as f64 / NS_OF_A_MS;
            writeln!(bytes, "Tag={name},{}.000,1.000,{longest_ms:.3},{text}", record.second)?;
        }
    }
    Ok(bytes)
}

const NS_OF_A_MS: f64 = 1e6;

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
        let latencies = Latencies::decode(interval.encoded_histogram());
        let latencies = latencies.map_err(|error| anyhow!("interval log: {error}"))?;
        let tag = interval.tag().map_or_else(String::new, |tag| tag.as_str().to_owned());
        lines.push((tag, interval.start_timestamp().as_secs_f64(), latencies));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kit::{Op, OpsRecord, Outcome};

    #[test]
    fn what_is_written_can_be_read() {
        let mut record = OpsRecord { second: 3, kind: "GET /a, b".to_owned(), ..OpsRecord::default() };
        for ms in 1..=100 {
            let (intended_ns, released_ns, started_ns) = (0, 1_000, 2_000);
            let finished_ns = ms * 1_000_000;
            let outcome = Outcome::Ok;
            record.record(&Op {
                intended_ns,
                released_ns,
                started_ns,
                finished_ns,
                outcome,
                status: 0,
                units: 1,
                bytes: 0,
            });
        }
        let bytes = interval_log(&[record.clone()].into_iter().collect(), 1_700_000_000.5).expect("written");
        let lines = read_interval_log(&bytes).expect("read");
        let tags: Vec<&str> = lines.iter().map(|(tag, ..)| tag.as_str()).collect();
        assert_eq!(tags, ["GET_/a__b:total", "GET_/a__b:wait", "GET_/a__b:work", "GET_/a__b:lag"]);
        assert!(lines.iter().all(|(_, start_s, _)| *start_s == 3.0));
        assert_eq!(lines[0].2.to_histogram(), record.total.to_histogram());
        assert_eq!(lines[3].2.quantile(0.5), record.lag.quantile(0.5));
    }

    #[test]
    fn a_damaged_log_is_refused() {
        assert!(read_interval_log(b"Tag=x:total,0.0,1.0,1.0,notbase64!\n").is_err());
    }
}

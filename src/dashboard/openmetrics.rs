//! The run in OpenMetrics text, for whoever collects metrics already: a stream's gauges with the names they have in
//! Spark (`streaming_totalCompletedBatches`), and for every system load, latency, CPU and memory.
//!
//! The one rule: what nobody measured is left out, where Spark would say -1 or 0.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::follow::{Followed, Run};
use super::spark::{Delays, unix_ms};
use super::stream::Stream;

/// What its text is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Of {
    trial: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfRole {
    trial: String,
    role: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfQuantile {
    trial: String,
    quantile: &'static str,
}

type Numbers<Labels> = Family<Labels, Gauge<f64, AtomicU64>>;

/// The metrics of a run and of the trial that began last.
pub fn metrics(run: Option<&Run>, trial: Option<&Followed>) -> String {
    let mut registry = Registry::default();
    if let Some(run) = run {
        gauge(&mut registry, "scalelab_trials_planned", "Planned trials", run.plan.len() as f64);
        gauge(&mut registry, "scalelab_trials_final", "Trials that are final", run.results.len() as f64);
    }
    if let Some(trial) = trial {
        every_system(&mut registry, trial);
        if let Some(stream) = &trial.stream {
            of_stream(&mut registry, &trial.name, stream);
        }
    }
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = text::encode(&mut out, &registry);
    out
}

fn every_system(registry: &mut Registry, trial: &Followed) {
    let of = || Of { trial: trial.name.clone() };
    let history = &trial.history;
    for (name, help, count) in [
        ("scalelab_operations", "Operations, however they ended", history.requests),
        ("scalelab_failed_operations", "Operations that did not end well", history.failures),
    ] {
        let family = Family::<Of, Counter>::default();
        family.get_or_create(&of()).inc_by(count);
        registry.register(name, help, family);
    }
    let seconds = Numbers::<OfQuantile>::default();
    for (quantile, name) in [("0.5", "p50"), ("0.95", "p95"), ("0.99", "p99")] {
        if let Some(ms) = history.gauges.last(name, None) {
            seconds.get_or_create(&OfQuantile { trial: trial.name.clone(), quantile }).set(ms / 1000.0);
        }
    }
    registry.register("scalelab_latency_seconds", "Latency from the intended time, in the last second", seconds);
    let users = Numbers::<Of>::default();
    if let Some(value) = trial.series.last("users", None) {
        users.get_or_create(&of()).set(value);
    }
    registry.register("scalelab_users", "Users that have started", users);
    for (name, help, series) in [
        ("scalelab_cpu_cores", "CPUs in use, all replicas of a role", "cpu"),
        ("scalelab_resident_memory_bytes", "Resident memory, all replicas of a role", "rss_bytes"),
    ] {
        let family = Numbers::<OfRole>::default();
        for role in trial.series.roles(series) {
            if let Some(value) = trial.series.last(series, Some(role)) {
                family.get_or_create(&OfRole { trial: trial.name.clone(), role: role.to_owned() }).set(value);
            }
        }
        registry.register(name, help, family);
    }
}

fn of_stream(registry: &mut Registry, trial: &str, stream: &Stream) {
    let mut put = |name: &str, help: &str, value: Option<f64>| {
        let family = Numbers::<Of>::default();
        if let Some(value) = value {
            family.get_or_create(&Of { trial: trial.to_owned() }).set(value);
        }
        registry.register(format!("streaming_{name}"), help, family);
    };
    let count = |count: u64| Some(count as f64);
    let receivers = stream.engine.as_ref().map(|engine| f64::from(engine.receivers));
    put("receivers", "Receivers", receivers);
    put("totalCompletedBatches", "Batches completed since the start", count(stream.total_completed));
    put("totalReceivedRecords", "Records of batches that have started", count(stream.received_records));
    put("totalProcessedRecords", "Records of completed batches", count(stream.processed_records));
    put("unprocessedBatches", "Batches that wait or run", count(stream.active_count()));
    put("waitingBatches", "Batches that wait", count(stream.waiting_count()));
    put("runningBatches", "Batches that run", count(stream.running_count()));
    put("retainedCompletedBatches", "Completed batches that are kept", count(stream.completed.len() as u64));
    let completed = stream.completed.last_key_value().map(|(_, batch)| batch);
    let received = stream.retained().last();
    for (which, batch) in [("lastCompletedBatch", completed), ("lastReceivedBatch", received)] {
        let at = |ms: Option<f64>| ms.map(|ms| unix_ms(stream, ms) as f64);
        let mut put = |what: &str, help: &str, value| put(&format!("{which}_{what}"), help, value);
        put("submissionTime", "When it was submitted, in ms since 1970", at(batch.map(|batch| batch.submitted_ms)));
        put(
            "processingStartTime",
            "When its first job started, in ms since 1970",
            at(batch.and_then(|batch| batch.started_ms)),
        );
        put(
            "processingEndTime",
            "When its last job ended, in ms since 1970",
            at(batch.and_then(|batch| batch.ended_ms)),
        );
    }
    let delays = completed.map(|batch| Delays::of(stream, batch));
    let delay = |of: fn(&Delays) -> Option<i64>| delays.as_ref().and_then(of).map(|ms| ms as f64);
    put("lastCompletedBatch_processingDelay", "Its processing time in ms", delay(|delays| delays.processing));
    put("lastCompletedBatch_schedulingDelay", "Its scheduling delay in ms", delay(|delays| delays.scheduling));
    put("lastCompletedBatch_totalDelay", "Its total delay in ms", delay(|delays| delays.total));
    put("lastReceivedBatch_records", "Its records", received.map(|batch| batch.records as f64));
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge = Gauge::<f64, AtomicU64>::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

//! What every role tells Prometheus, beside what it registers itself: whether it is ready, its operations by outcome,
//! and its process.
//!
//! The one rule: read when it is asked for; a value that is unknown is left out.

use std::fmt;
use std::sync::{Arc, Mutex};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::op::Outcome;
use crate::recorder::Recorder;
use crate::role::{Phase, Status};
use crate::usage;

/// A registry with what every role tells.
pub(crate) fn registry(recorder: &Recorder, status: &Status) -> Arc<Mutex<Registry>> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(OfRole { recorder: recorder.clone(), status: status.clone() }));
    Arc::new(Mutex::new(registry))
}

struct OfRole {
    recorder: Recorder,
    status: Status,
}

impl fmt::Debug for OfRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfRole").field("phase", &self.status.phase()).finish_non_exhaustive()
    }
}

impl Collector for OfRole {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let ready = u64::from(self.status.phase() == Phase::Ready);
        tell(&mut encoder, "role_ready", "Whether the role is ready.", Some(ConstGauge::new(ready)))?;
        let kind = ConstCounter::new(0_u64).metric_type();
        let mut ops = encoder.encode_descriptor("ops", "Operations since the start.", None, kind)?;
        for (outcome, count) in Outcome::ALL.iter().zip(self.recorder.totals()) {
            let labels = [("outcome", format!("{outcome:?}").to_lowercase())];
            ConstCounter::new(count).encode(ops.encode_family(&labels)?)?;
        }
        let usage = usage::of_process(std::process::id());
        let gauge = |value: Option<u64>| value.map(ConstGauge::new);
        tell(&mut encoder, "process_cpu_seconds", "CPU time in seconds.", usage.cpu_s.map(ConstCounter::new))?;
        tell(&mut encoder, "process_resident_memory_bytes", "Resident memory.", gauge(usage.rss_bytes))?;
        tell(&mut encoder, "process_open_fds", "Open file descriptors.", gauge(usage.open_files))?;
        tell(&mut encoder, "process_threads", "Threads.", gauge(usage.threads))
    }
}

/// One family of one value, where that is known.
fn tell(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, metric: Option<impl EncodeMetric>) -> fmt::Result {
    let Some(metric) = metric else { return Ok(()) };
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Op;

    #[test]
    fn every_role_tells_its_readiness_its_operations_and_its_process() {
        let (recorder, status) = (Recorder::default(), Status::new(None));
        let shard = recorder.shard(&["task".to_owned()]);
        let op = Op {
            intended_ns: 0,
            released_ns: 0,
            started_ns: 0,
            finished_ns: 1,
            outcome: Outcome::Failed,
            status: 0,
            units: 1,
            bytes: 0,
        };
        shard.end(shard.begin(0), 0, &op, None);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry(&recorder, &status).lock().unwrap()).unwrap();
        for line in [
            "# HELP role_ready Whether the role is ready.\n# TYPE role_ready gauge\nrole_ready 0\n",
            "# TYPE ops counter\nops_total{outcome=\"ok\"} 0\nops_total{outcome=\"failed\"} 1\n",
            "# TYPE process_cpu_seconds counter\nprocess_cpu_seconds_total ",
            "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes ",
            "# TYPE process_open_fds gauge\nprocess_open_fds ",
            "# TYPE process_threads gauge\nprocess_threads ",
        ] {
            assert!(text.contains(line), "{line:?} is not in {text}");
        }
        assert!(text.ends_with("\n# EOF\n"), "{text}");
    }
}

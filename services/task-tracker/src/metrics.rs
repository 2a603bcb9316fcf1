//! What a role counts of its own work, for Prometheus.
//!
//! The one rule: every counter is looked up once, at the start; a request only adds.

use axum::http::StatusCode;
use kit::Env;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// Answers by class of status, and requests that were shed or had nobody waiting any more.
#[derive(Clone)]
pub struct HttpMetrics {
    by_class: [Counter; 5],
    /// Requests that were refused because too much was under way.
    pub shed: Counter,
    /// Requests whose caller had gone, or had no time left, before they ended.
    pub expired: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Class {
    status: &'static str,
}

impl HttpMetrics {
    /// Registers them.
    pub fn register(env: &Env) -> Self {
        let family = Family::<Class, Counter>::default();
        let by_class =
            ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|status| family.get_or_create(&Class { status }).clone());
        let (shed, expired) = (Counter::default(), Counter::default());
        let mut registry = env.metrics.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        registry.register("http_requests", "Answers by class of status", family);
        registry.register("http_shed", "Requests refused because too much was under way", shed.clone());
        registry.register("http_expired", "Requests that nobody waited for to the end", expired.clone());
        Self { by_class, shed, expired }
    }

    /// Counts an answer.
    pub fn count(&self, status: StatusCode) {
        if let Some(counter) = self.by_class.get(usize::from(status.as_u16() / 100).wrapping_sub(1)) {
            counter.inc();
        }
    }
}

/// What a role does with its upstreams.
#[derive(Clone, Default)]
pub struct UpstreamMetrics {
    /// Requests that were to be sent on.
    pub requests: Counter,
    /// Tries sent.
    pub tries: Counter,
    /// Tries that were repetitions.
    pub retries: Counter,
    /// Retries that the budget forbade.
    pub over_budget: Counter,
    /// Tries without a good answer: no connection, a reset, a time-out, a 5xx.
    pub failures: Counter,
    /// Times a breaker opened.
    pub breaker_opens: Counter,
    /// Connections made.
    pub connections: Counter,
}

impl UpstreamMetrics {
    /// Registers them; one set for all upstreams of a role.
    pub fn register(env: &Env) -> Self {
        let metrics = Self::default();
        let mut registry = env.metrics.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for (name, help, counter) in [
            ("upstream_requests", "Requests to send on", &metrics.requests),
            ("upstream_tries", "Tries sent to upstreams", &metrics.tries),
            ("upstream_retries", "Tries that repeated a failed one", &metrics.retries),
            ("upstream_retries_over_budget", "Retries that the budget forbade", &metrics.over_budget),
            ("upstream_failures", "Tries without a good answer", &metrics.failures),
            ("upstream_breaker_opens", "Times a breaker opened", &metrics.breaker_opens),
            ("upstream_connections", "Connections made to upstreams", &metrics.connections),
        ] {
            registry.register(name, help, counter.clone());
        }
        drop(registry);
        metrics
    }
}

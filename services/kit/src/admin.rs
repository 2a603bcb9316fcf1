//! The admin endpoint of a role, on a port of its own: is it alive, is it ready, start, stop, and what did it measure.
//!
//! [`Admin`] is the endpoint as functions: the HTTP routes call them, and so does the lab for a role in its own process.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::extension::{self, Extension};
use crate::journal::Journal;
use crate::metrics;
use crate::recorder::Recorder;
use crate::role::{Control, Status};
use crate::series::Series;

/// Lines of a history that wait for their reader: a minute of some thousands of operations a second.
const HISTORY: usize = 300_000;

/// Everything that can be asked of a role.
#[derive(Clone)]
pub struct Admin {
    /// The role's clock.
    pub clock: Clock,
    /// Its operations.
    pub recorder: Recorder,
    /// Its gauges.
    pub series: Series,
    /// What it tells beside numbers.
    pub journal: Journal,
    /// One line an operation, where that was asked for.
    pub history: Journal,
    /// What only this role understands.
    pub extension: Extension,
    /// Start and stop.
    pub control: Control,
    /// Its readiness.
    pub status: Status,
    /// Its Prometheus metrics.
    pub metrics: Arc<Mutex<Registry>>,
}

/// The answer of `/healthz`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Health {
    /// `starting`, `ready`, `stopping` or `ended`.
    pub phase: String,
    /// Whether a stopped generator has ended and recorded everything it had begun.
    pub drained: bool,
}

/// The answer of `/clock`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ClockReading {
    /// The role's monotonic clock.
    pub monotonic_ns: u64,
    /// The role's wall clock.
    pub wall_ns: u64,
}

/// The body of `/start`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// When to start, on the role's monotonic clock.
    pub at_ns: u64,
}

/// The query of `/ops`, `/series` and `/journal`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct After {
    /// What was read before and may be forgotten.
    #[serde(default)]
    pub after: u64,
}

impl Admin {
    /// The endpoint of a role that has done nothing yet.
    pub(crate) fn new(clock: Clock, addr: Option<SocketAddr>) -> Self {
        let (recorder, status) = (Recorder::default(), Status::new(addr));
        Self {
            clock,
            metrics: metrics::registry(&recorder, &status),
            recorder,
            series: Series::default(),
            journal: Journal::default(),
            history: Journal::with_capacity(HISTORY),
            extension: Extension::default(),
            control: Control::default(),
            status,
        }
    }

    /// The endpoint of something that has no host: a simulation, whose clock is moved by hand.
    pub fn of_simulation(clock: Clock) -> Self {
        Self::new(clock, None)
    }

    /// How the role is.
    pub fn health(&self) -> Health {
        Health { phase: self.status.phase().name().to_owned(), drained: self.control.is_drained() }
    }

    /// The role's clocks.
    pub fn clock(&self) -> ClockReading {
        ClockReading { monotonic_ns: self.clock.now_ns(), wall_ns: self.clock.wall_ns() }
    }

    /// Operations after a sequence number, as newline-delimited JSON.
    pub fn ops(&self, after: u64) -> String {
        // Once everything has ended, the last second is over too.
        let now_ns = if self.control.is_drained() { u64::MAX } else { self.clock.now_ns() };
        self.recorder.after(after, now_ns)
    }

    /// Gauges after a sequence number, as newline-delimited JSON.
    pub fn series(&self, after: u64) -> String {
        let mut text = String::new();
        for point in self.series.after(after) {
            text.push_str(&serde_json::to_string(&point).expect("a point can be written"));
            text.push('\n');
        }
        text
    }

    /// The journal after a sequence number, as newline-delimited JSON.
    pub fn journal(&self, after: u64) -> String {
        self.journal.after(after)
    }

    /// The history after a sequence number, as newline-delimited JSON.
    pub fn history(&self, after: u64) -> String {
        self.history.after(after)
    }

    /// Prometheus text: what the role registered, its operations by outcome, and its process.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        let registry = self.metrics.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // Writing into a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}

/// The routes. Every request must carry the run's token, where there is one.
pub fn router(admin: Admin, token: &str) -> Router {
    let expected: Option<Arc<str>> = (!token.is_empty()).then(|| format!("Bearer {token}").into());
    Router::new()
        .route("/healthz", get(|State(admin): State<Admin>| async move { Json(admin.health()) }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .route("/clock", get(|State(admin): State<Admin>| async move { Json(admin.clock()) }))
        .route("/start", post(start))
        .route("/stop", post(stop))
        .route("/ops", get(|State(admin): State<Admin>, Query(query): Query<After>| async move { ndjson(admin.ops(query.after)) }))
        .route("/series", get(|State(admin): State<Admin>, Query(query): Query<After>| async move { ndjson(admin.series(query.after)) }))
        .route("/journal", get(|State(admin): State<Admin>, Query(query): Query<After>| async move { ndjson(admin.journal(query.after)) }))
        .route("/history", get(|State(admin): State<Admin>, Query(query): Query<After>| async move { ndjson(admin.history(query.after)) }))
        .fallback(extended)
        .with_state(admin)
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let expected = expected.clone();
            async move {
                let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
                match expected {
                    Some(expected) if given != Some(&*expected) => {
                        (StatusCode::UNAUTHORIZED, "the bearer token of this run is needed\n").into_response()
                    }
                    _ => next.run(request).await,
                }
            }
        }))
}

async fn readyz(State(admin): State<Admin>) -> Response {
    match admin.status.readiness().await {
        Ok(()) => (StatusCode::OK, "ready\n").into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics_text(State(admin): State<Admin>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], admin.metrics()).into_response()
}

async fn start(State(admin): State<Admin>, Json(start): Json<Start>) -> StatusCode {
    admin.control.start(start.at_ns);
    StatusCode::ACCEPTED
}

async fn stop(State(admin): State<Admin>) -> StatusCode {
    admin.control.stop();
    StatusCode::ACCEPTED
}

/// Whatever else is asked is the role's own business.
async fn extended(
    State(admin): State<Admin>,
    method: axum::http::Method,
    uri: axum::http::Uri,
    body: String,
) -> Response {
    let request = extension::Request { method: method.as_str(), path: uri.path(), body: &body };
    let extension::Answer { status, body } = admin.extension.call(request);
    let kind = if body.starts_with(['{', '[']) { "application/json" } else { "text/plain; charset=utf-8" };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, kind)], body).into_response()
}

fn ndjson(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/x-ndjson")], text).into_response()
}

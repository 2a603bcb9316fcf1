//! The gateway: one address for all services.
//!
//! The one rule: it knows paths, not meanings. It forwards bytes, checks no token (the service that answers does, as
//! the monolith does: once a request), and every mechanism it protects itself with can be switched off.

pub mod backoff;
pub mod balance;
pub mod breaker;
pub mod budget;
pub mod levels;
pub mod upstream;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::header::{ACCEPT, ALLOW, AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;

use crate::metrics::HttpMetrics;
use crate::refusal::{Refusal, SHED};
use crate::service::{deadline_ms, json, read_body};
use crate::settings::GatewaySettings;
use crate::shedding::InFlight;
use upstream::{Failure, Forward, Reply, Upstream};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The headers of a request that go on to the service.
const FORWARDED: [HeaderName; 5] = [AUTHORIZATION, CONTENT_TYPE, ACCEPT, IF_MATCH, IDEMPOTENCY_KEY];

/// The headers of an answer that go back to the client.
const RETURNED: [HeaderName; 6] = [CONTENT_TYPE, ETAG, WWW_AUTHENTICATE, ALLOW, RETRY_AFTER, SHED];

/// The paths that go to each service.
pub const ROUTES: [(&str, &str); 3] =
    [("/api/v1/auth", "user-service"), ("/api/v1/tasks", "task-service"), ("/api/v1/stats", "stats-service")];

/// The gateway at work, shared by all its requests.
pub struct Gateway {
    /// How it treats its upstreams.
    pub settings: GatewaySettings,
    /// The services, in the order of [`ROUTES`].
    pub upstreams: Vec<Upstream>,
    /// Limits what is under way.
    pub in_flight: InFlight,
    /// Counts answers.
    pub metrics: HttpMetrics,
    /// The OpenAPI document.
    pub document: Bytes,
}

impl Gateway {
    /// The gateway as a router that can be served.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new().fallback(move |request: Request| self.clone().answer(request))
    }

    /// Whether every service has a replica that is ready.
    ///
    /// # Errors
    /// Which service has none.
    pub fn readiness(&self) -> Result<(), String> {
        match self.upstreams.iter().find(|upstream| !upstream.is_ready()) {
            None => Ok(()),
            Some(upstream) => Err(format!("no replica of {} is ready", upstream.name())),
        }
    }

    async fn answer(self: Arc<Self>, request: Request) -> Response {
        let response = self.dispatch(request).await.unwrap_or_else(Refusal::into_response);
        self.metrics.count(response.status());
        response
    }

    async fn dispatch(&self, request: Request) -> Result<Response, Refusal> {
        let (parts, body) = request.into_parts();
        let Some(upstream) = self.upstream(parts.uri.path()) else { return self.own(&parts) };
        let Some(_under_way) = self.in_flight.enter() else {
            self.metrics.shed.inc();
            return Err(Refusal::Shed);
        };
        let own_ms = self.settings.deadline_ms;
        let deadline_ms = [deadline_ms(&parts.headers), (own_ms > 0).then_some(own_ms)].into_iter().flatten().min();
        let body = if body.is_end_stream() { Bytes::new() } else { read_body(body).await? };
        let request = forwarded(&parts, body);
        upstream.send(&request, deadline_ms).await.map(returned).map_err(refusal)
    }

    fn upstream(&self, path: &str) -> Option<&Upstream> {
        let under =
            |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let place = ROUTES.iter().position(|(prefix, _)| under(prefix))?;
        self.upstreams.get(place)
    }

    /// What the gateway answers itself.
    fn own(&self, parts: &Parts) -> Result<Response, Refusal> {
        let path = parts.uri.path();
        let path = path.strip_suffix('/').unwrap_or(path);
        if !["/health", "/readyz", "/openapi.json"].contains(&path) {
            return Err(Refusal::NotFound("not found"));
        }
        if parts.method != Method::GET {
            return Err(Refusal::WrongMethod("GET".into()));
        }
        match path {
            "/openapi.json" => return Ok(json(StatusCode::OK, self.document.clone())),
            "/readyz" => self.readiness().map_err(|reason| Refusal::Unavailable(reason.into()))?,
            _ => {}
        }
        Ok(json(StatusCode::OK, r#"{"status":"ok"}"#))
    }
}

fn forwarded(parts: &Parts, body: Bytes) -> Forward {
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let headers = selected(&parts.headers, &FORWARDED);
    Forward { method: parts.method.clone(), target, repeatable: is_repeatable(&parts.method, &headers), headers, body }
}

/// Idempotent by its method, or keyed. With `If-Match` a second try would meet the version that the first one made.
fn is_repeatable(method: &Method, headers: &HeaderMap) -> bool {
    match *method {
        Method::GET => true,
        Method::PUT | Method::DELETE => !headers.contains_key(IF_MATCH),
        Method::POST => headers.contains_key(IDEMPOTENCY_KEY),
        _ => false,
    }
}

fn returned(reply: Reply) -> Response {
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() = reply.status;
    *response.headers_mut() = selected(&reply.headers, &RETURNED);
    response
}

fn selected(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let mut selected = HeaderMap::with_capacity(8);
    for name in names {
        for value in headers.get_all(name) {
            selected.append(name.clone(), value.clone());
        }
    }
    selected
}

fn refusal(failure: Failure) -> Refusal {
    match failure {
        Failure::TimedOut(_) => Refusal::Status(StatusCode::GATEWAY_TIMEOUT, "the service did not answer in time"),
        Failure::Broken(_) => {
            Refusal::Status(StatusCode::BAD_GATEWAY, "the service broke the connection before it had answered")
        }
        Failure::LeftAlone(_) | Failure::Unreachable(_) => Refusal::Unavailable(failure.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_be_done_twice_is_repeatable() {
        for (method, header, expected) in [
            (Method::GET, None, true),
            (Method::PUT, None, true),
            (Method::PUT, Some(IF_MATCH), false),
            (Method::DELETE, None, true),
            (Method::DELETE, Some(IF_MATCH), false),
            (Method::PATCH, None, false),
            (Method::POST, None, false),
            (Method::POST, Some(IDEMPOTENCY_KEY), true),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(name) = header.clone() {
                headers.insert(name, "\"1\"".parse().unwrap());
            }
            assert_eq!(is_repeatable(&method, &headers), expected, "{method} {header:?}");
        }
    }
}

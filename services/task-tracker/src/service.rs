//! What every service role does with a request: find its operation, check the token, read the body, hand it over.
//!
//! The one rule: the same code runs in both assemblies; which operations a role has, and where its counts come from,
//! is all that differs.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use kit::Clock;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Semaphore, oneshot};

use crate::metrics::HttpMetrics;
use crate::operations::{self, Found, Operation, Part};
use crate::passwords::Passwords;
use crate::refusal::{DEADLINE, Problem, Refusal};
use crate::settings::Cost;
use crate::shedding::{InFlight, UnderWay};
use crate::stats::Counts;
use crate::store::Store;
use crate::tokens::Tokens;

/// The largest body that is read, in bytes.
pub const LARGEST_BODY: usize = 128 * 1024;

/// A service role at work, shared by all its requests.
pub struct Service {
    /// What it answers.
    pub operations: Vec<&'static Operation>,
    /// Its database; a role without one has no operation that needs it.
    pub store: Option<Store>,
    /// Where statistics come from.
    pub counts: Counts,
    /// Checks and issues tokens.
    pub tokens: Tokens,
    /// Hashes and checks passwords.
    pub passwords: Passwords,
    /// The time.
    pub clock: Clock,
    /// Limits what is under way.
    pub in_flight: InFlight,
    /// Whether work that nobody waits for any more is dropped.
    pub drop_expired: bool,
    /// What a request for tasks costs beside its own work.
    pub cost: Option<CostOfTasks>,
    /// Counts answers.
    pub metrics: HttpMetrics,
    /// The OpenAPI document of this role.
    pub document: Bytes,
}

/// One request, checked as far as its operation asks for.
pub struct Call {
    /// The caller; 0 where the operation needs no token.
    pub user: i64,
    /// The number in the path; 0 where it has none.
    pub id: i64,
    /// The query, not decoded.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; empty where the operation takes none.
    pub body: Bytes,
}

impl Service {
    /// The service as a router that can be served.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new().fallback(move |request: Request| self.clone().answer(request))
    }

    /// The database.
    ///
    /// # Errors
    /// When this role has none.
    pub fn store(&self) -> Result<&Store, Refusal> {
        self.store.as_ref().ok_or(Refusal::NotFound("this role has no database"))
    }

    /// Whether it can answer: its database does.
    ///
    /// # Errors
    /// The reason why not.
    pub async fn readiness(&self) -> Result<(), String> {
        match &self.store {
            Some(store) => store.check().await,
            None => Ok(()),
        }
    }

    async fn answer(self: Arc<Self>, request: Request) -> Response {
        let response = self.clone().dispatch(request).await.unwrap_or_else(Refusal::into_response);
        self.metrics.count(response.status());
        response
    }

    async fn dispatch(self: Arc<Self>, request: Request) -> Result<Response, Refusal> {
        let (parts, body) = request.into_parts();
        let (operation, id) = match operations::find(&self.operations, &parts.method, parts.uri.path()) {
            Found::Operation(operation, id) => (operation, id),
            Found::WrongMethod(allowed) => return Err(Refusal::WrongMethod(allowed)),
            Found::Nothing => return Err(Refusal::NotFound("not found")),
        };
        // Readiness must be answered above all when there is much to do.
        if operation.part == Part::Every {
            return (operation.handle)(self, Call::empty(parts.headers)).await;
        }
        let Some(under_way) = self.in_flight.enter() else {
            self.metrics.shed.inc();
            return Err(Refusal::Shed);
        };
        let user = if operation.token { self.user(&parts.headers)? } else { 0 };
        let id = id.map_or(Ok(0), task_id)?;
        let deadline_ms = deadline_ms(&parts.headers);
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let headers = parts.headers;
        let (drop_expired, expired) = (self.drop_expired, self.metrics.expired.clone());
        let work = async move {
            let body = match operation.body {
                Some(_) => json_body(&headers, body).await?,
                None => Bytes::new(),
            };
            if let Some(cost) = self.cost_of(operation) {
                cost.pay(&self.clock).await;
            }
            (operation.handle)(self.clone(), Call { user, id, query, headers, body }).await
        };
        match drop_expired {
            true => while_wanted(deadline_ms.map(Duration::from_millis), expired, under_way, work).await,
            false => to_the_end(expired, under_way, work).await,
        }
    }

    /// What an operation pays in this role: whoever looks tasks up itself does.
    fn cost_of(&self, operation: &Operation) -> Option<&CostOfTasks> {
        let looks_up = operation.part == Part::Tasks || operation.part == Part::Stats && self.store.is_some();
        self.cost.as_ref().filter(|_| looks_up)
    }

    fn user(&self, headers: &HeaderMap) -> Result<i64, Refusal> {
        let refused = Refusal::Unauthorized("no valid token; log in and send it as Authorization: Bearer");
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((scheme, token)) = given.and_then(|value| value.split_once(' ')) else { return Err(refused) };
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(refused);
        }
        self.tokens.user(token.trim()).ok_or(refused)
    }
}

impl Call {
    fn empty(headers: HeaderMap) -> Self {
        Self { user: 0, id: 0, query: String::new(), headers, body: Bytes::new() }
    }
}

/// `GET /health`: the process runs.
pub async fn health(_service: Arc<Service>, _call: Call) -> Result<Response, Refusal> {
    Ok(json(StatusCode::OK, r#"{"status":"ok"}"#))
}

/// `GET /readyz`: it can do its work.
pub async fn ready(service: Arc<Service>, _call: Call) -> Result<Response, Refusal> {
    match service.readiness().await {
        Ok(()) => Ok(json(StatusCode::OK, r#"{"status":"ok"}"#)),
        Err(reason) => Err(Refusal::Unavailable(reason.into())),
    }
}

/// `GET /openapi.json`
pub async fn openapi(service: Arc<Service>, _call: Call) -> Result<Response, Refusal> {
    Ok(json(StatusCode::OK, service.document.clone()))
}

/// An answer of JSON text.
pub fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer without a body.
pub fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// The time the caller has left, if it says so. What it says wrong, it does not say.
pub fn deadline_ms(headers: &HeaderMap) -> Option<u64> {
    headers.get(DEADLINE)?.to_str().ok()?.parse().ok()
}

/// Reads a body up to the limit.
///
/// # Errors
/// When it is longer, or the client stopped sending.
pub async fn read_body(body: Body) -> Result<Bytes, Refusal> {
    match Limited::new(body, LARGEST_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Refusal::Status(StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 131072 bytes"))
        }
        Err(_) => Err(Problem::of_body("body_incomplete", "did not arrive whole").into()),
    }
}

async fn json_body(headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    let body = read_body(body).await?;
    let kind = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let is_json = kind.is_none_or(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
    });
    if is_json {
        Ok(body)
    } else {
        Err(Problem::new("header", "Content-Type", "content_type", "must be application/json").into())
    }
}

/// Drops work whose caller has no time left; one that leaves drops this as a whole.
async fn while_wanted(
    time: Option<Duration>,
    expired: Counter,
    _under_way: UnderWay,
    work: impl Future<Output = Result<Response, Refusal>>,
) -> Result<Response, Refusal> {
    let mut unwanted = CountedUnlessDone { expired, done: false };
    let answer = match time {
        None => Some(work.await),
        Some(Duration::ZERO) => None,
        Some(time) => tokio::time::timeout(time, work).await.ok(),
    };
    unwanted.done = answer.is_some();
    answer.unwrap_or(Err(Refusal::Status(StatusCode::GATEWAY_TIMEOUT, "the caller's deadline has passed")))
}

/// Does the work to its end, whether or not somebody still waits for it.
async fn to_the_end(
    expired: Counter,
    under_way: UnderWay,
    work: impl Future<Output = Result<Response, Refusal>> + Send + 'static,
) -> Result<Response, Refusal> {
    let (answer, caller) = oneshot::channel();
    tokio::spawn(async move {
        let _under_way = under_way;
        if answer.send(work.await).is_err() {
            expired.inc();
        }
    });
    // It panicked, and nobody knows how far it had come.
    caller.await.unwrap_or(Err(Refusal::Status(StatusCode::BAD_GATEWAY, "the request ended without an answer")))
}

struct CountedUnlessDone {
    expired: Counter,
    done: bool,
}

impl Drop for CountedUnlessDone {
    fn drop(&mut self) {
        if !self.done {
            self.expired.inc();
        }
    }
}

/// The slots of a [`Cost`].
pub struct CostOfTasks {
    slots: Semaphore,
    held_for: Duration,
}

impl CostOfTasks {
    /// All of them free.
    pub fn new(cost: Cost) -> Self {
        Self { slots: Semaphore::new(cost.slots.get() as usize), held_for: Duration::from_millis(cost.ms.get().into()) }
    }

    /// Waits for a slot and holds it for its time.
    async fn pay(&self, clock: &Clock) {
        let _slot = self.slots.acquire().await;
        clock.sleep(self.held_for).await;
    }
}

fn task_id(text: &str) -> Result<i64, Refusal> {
    text.parse()
        .map_err(|_| Refusal::from(Problem::new("path", "task_id", "int_parsing", "must be a whole number of 64 bits")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_panics_is_answered_502_since_it_may_have_been_done() {
        let (in_flight, expired) = (InFlight::new(1), Counter::default());
        let work = async { panic!("in the midst of a write") };
        let refusal = to_the_end(expired.clone(), in_flight.enter().unwrap(), work).await.unwrap_err();
        assert_eq!((refusal.status().as_u16(), in_flight.count(), expired.get()), (502, 0, 0));
    }
}

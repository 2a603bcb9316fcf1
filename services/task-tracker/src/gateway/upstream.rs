//! The replicas of one upstream service, and how a request gets an answer from one of them.
//!
//! The one rule: what to do next is decided by the state machines beside this file; here is only the doing.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::http::header::HOST;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use kit::{Clock, Env, Shutdown};
use tokio::net::TcpStream;

use super::backoff;
use super::balance::{self, Candidate, Readiness};
use super::breaker::{Breaker, CallOutcome};
use super::budget::Budget;
use super::levels::Levels;
use crate::metrics::UpstreamMetrics;
use crate::refusal::{DEADLINE, SHED};
use crate::settings::{GatewaySettings, RetrySettings};
use crate::shedding::InFlight;

/// Idle connections kept to one replica.
const KEPT_CONNECTIONS: usize = 128;

/// A connection that was not needed for this long is closed, so that their number follows the load and does not stay
/// at that of the busiest moment.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// A request as it is sent on.
pub struct Forward {
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub target: String,
    /// Its headers, those that go on only.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Whether doing it twice is doing it once.
    pub repeatable: bool,
}

/// An upstream's answer.
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Every replica's breaker is open.
    #[error("{0} has failed too often and is left alone for a moment")]
    LeftAlone(&'static str),
    /// No connection was made.
    #[error("no replica of {0} can be reached")]
    Unreachable(&'static str),
    /// The connection broke before the answer was whole; the work may have been done.
    #[error("{0} broke the connection before it had answered")]
    Broken(&'static str),
    /// It took too long; the work may have been done.
    #[error("{0} did not answer in time")]
    TimedOut(&'static str),
}

/// The replicas of one service. Cheap to clone.
#[derive(Clone)]
pub struct Upstream(Arc<Inner>);

struct Inner {
    name: &'static str,
    replicas: Vec<Replica>,
    settings: GatewaySettings,
    clock: Clock,
    metrics: UpstreamMetrics,
    levels: Levels,
    turn: AtomicUsize,
    rng: Mutex<kit::Rng>,
    budget: Mutex<Budget>,
}

struct Replica {
    addr: String,
    host: HeaderValue,
    in_flight: InFlight,
    /// What `readiness` says, for reading without its lock.
    ready: AtomicBool,
    readiness: Mutex<Readiness>,
    breaker: Mutex<Breaker>,
    /// Connections that wait for their next request, with the time since when; the last used is the first taken, so the
    /// longest unused is the first here.
    idle: Mutex<Vec<(Connection, u64)>>,
}

type Connection = SendRequest<Full<Bytes>>;

impl Upstream {
    /// The replicas that the role was given under this name.
    ///
    /// # Errors
    /// When there are none, or an address is not one.
    pub fn new(
        env: &Env,
        name: &'static str,
        settings: &GatewaySettings,
        metrics: &UpstreamMetrics,
        levels: &Levels,
    ) -> anyhow::Result<Self> {
        let replicas: anyhow::Result<Vec<_>> =
            env.config.peers(name)?.iter().map(|addr| Replica::new(addr, settings)).collect();
        let replicas = replicas?;
        levels.add(replicas.len());
        Ok(Self(Arc::new(Inner {
            name,
            replicas,
            settings: settings.clone(),
            clock: env.clock.clone(),
            metrics: metrics.clone(),
            levels: levels.clone(),
            turn: AtomicUsize::new(0),
            rng: Mutex::new(env.rng(name)),
            budget: Mutex::new(Budget::new(&settings.retries, env.clock.now_ns())),
        })))
    }

    /// Asks every replica, again and again, whether it is ready, until the role stops.
    pub fn watch_readiness(&self, shutdown: &Shutdown) {
        for index in 0..self.0.replicas.len() {
            let (upstream, shutdown) = (self.clone(), shutdown.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = upstream.ask_for_ever(index) => {}
                    () = shutdown.requested() => {}
                }
            });
        }
    }

    /// Whether at least one replica is thought ready.
    pub fn is_ready(&self) -> bool {
        self.0.replicas.iter().any(|replica| replica.ready.load(Ordering::Relaxed))
    }

    /// The service's name.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Sends a request until it is answered, may not be repeated, or its time is up.
    ///
    /// # Errors
    /// The last try's failure.
    pub async fn send(&self, request: &Forward, deadline_ms: Option<u64>) -> Result<Reply, Failure> {
        let mut earlier = None;
        let result = self.try_until(request, deadline_ms, &mut earlier).await;
        match earlier {
            // That the last try was refused says nothing of the one before it.
            Some(failure) if request.method != Method::GET && is_refusal(&result) => Err(failure),
            _ => result,
        }
    }

    /// The last try's result; in `earlier` what became of one before it that may have been done.
    async fn try_until(
        &self,
        request: &Forward,
        deadline_ms: Option<u64>,
        earlier: &mut Option<Failure>,
    ) -> Result<Reply, Failure> {
        let retries = &self.0.settings.retries;
        let deadline_ns = deadline_ms.map(|ms| self.0.clock.now_ns().saturating_add(ms.saturating_mul(1_000_000)));
        self.0.metrics.requests.inc();
        lock(&self.0.budget).deposit();
        let mut tries = 1;
        let mut last = None;
        loop {
            let result = match self.choose(last) {
                Some(index) => {
                    last = Some(index);
                    self.try_once(index, request, deadline_ns).await
                }
                None => Err(Failure::LeftAlone(self.0.name)),
            };
            let may_repeat = retries.on
                && request.repeatable
                && tries < retries.max_tries
                && is_worth_a_retry(&result, &request.method, retries);
            if !may_repeat {
                return result;
            }
            if !lock(&self.0.budget).withdraw(self.0.clock.now_ns()) {
                self.0.metrics.over_budget.inc();
                return result;
            }
            let wait = backoff::wait(retries, tries - 1, &mut lock(&self.0.rng));
            if self.time_left(deadline_ns).is_some_and(|left| left <= wait) {
                return result;
            }
            self.0.clock.sleep(wait).await;
            self.0.metrics.retries.inc();
            *earlier = earlier.or(unclear(&result, self.0.name));
            tries += 1;
        }
    }

    async fn try_once(&self, index: usize, request: &Forward, deadline_ns: Option<u64>) -> Result<Reply, Failure> {
        let replica = &self.0.replicas[index];
        let mut call = OpenCall::begin(&self.0, replica);
        self.0.metrics.tries.inc();
        let own = self.0.settings.try_timeout_ms;
        let own = (own > 0).then(|| Duration::from_millis(own));
        let left = self.time_left(deadline_ns);
        let time = [own, left].into_iter().flatten().min();
        let result = match time {
            None => self.0.exchange(replica, request, None).await,
            Some(Duration::ZERO) => Err(Failure::TimedOut(self.0.name)),
            Some(time) => tokio::time::timeout(time, self.0.exchange(replica, request, left))
                .await
                .unwrap_or(Err(Failure::TimedOut(self.0.name))),
        };
        call.outcome = outcome(&result);
        if matches!(result, Err(Failure::Unreachable(_))) {
            self.0.note(replica, Readiness::unreachable);
        }
        result
    }

    /// A replica to ask; after a failed try another one than `last`, if there is one.
    fn choose(&self, last: Option<usize>) -> Option<usize> {
        let now_ns = self.0.clock.now_ns();
        let admits = |replica: &Replica| lock(&replica.breaker).admits(now_ns);
        let replicas = &self.0.replicas;
        // The usual case needs no list.
        if let [only] = replicas.as_slice() {
            return admits(only).then_some(0);
        }
        let mut candidates: Vec<_> = replicas
            .iter()
            .enumerate()
            .filter(|(_, replica)| admits(replica))
            .map(|(index, replica)| Candidate {
                index,
                ready: replica.ready.load(Ordering::Relaxed),
                in_flight: replica.in_flight.count(),
            })
            .collect();
        if candidates.len() > 1 {
            candidates.retain(|candidate| Some(candidate.index) != last);
        }
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
        balance::choose(self.0.settings.balance, &candidates, turn, &mut lock(&self.0.rng))
    }

    fn time_left(&self, deadline_ns: Option<u64>) -> Option<Duration> {
        deadline_ns.map(|at_ns| Duration::from_nanos(at_ns.saturating_sub(self.0.clock.now_ns())))
    }

    async fn ask_for_ever(&self, index: usize) {
        let replica = &self.0.replicas[index];
        let request = Forward {
            method: Method::GET,
            target: "/readyz".into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            repeatable: false,
        };
        let interval = Duration::from_millis(self.0.settings.readiness_interval_ms.max(10));
        loop {
            let asked = tokio::time::timeout(Duration::from_secs(1), self.0.exchange(replica, &request, None)).await;
            let good = matches!(asked, Ok(Ok(reply)) if reply.status == StatusCode::OK);
            self.0.note(replica, |readiness| readiness.asked(good));
            replica.close_unused(self.0.clock.now_ns());
            self.0.clock.sleep(interval).await;
        }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({}, {} replicas)", self.0.name, self.0.replicas.len())
    }
}

impl Inner {
    async fn exchange(&self, replica: &Replica, request: &Forward, left: Option<Duration>) -> Result<Reply, Failure> {
        let mut message = replica.message(request, left)?;
        let kept = if self.settings.pooled { replica.take_idle() } else { None };
        if let Some(mut connection) = kept {
            match connection.try_send_request(message).await {
                Ok(response) => return self.finish(replica, connection, response).await,
                // It was closed while it lay idle, and the request never left: a fresh one is no retry.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => message = unsent,
                    None => return Err(Failure::Broken(self.name)),
                },
            }
        }
        let mut connection = self.connect(replica).await?;
        match connection.send_request(message).await {
            Ok(response) => self.finish(replica, connection, response).await,
            Err(_) => Err(Failure::Broken(self.name)),
        }
    }

    async fn connect(&self, replica: &Replica) -> Result<Connection, Failure> {
        let unreachable = Failure::Unreachable(self.name);
        let connecting = TcpStream::connect(&replica.addr);
        let connected = match self.settings.connect_timeout_ms {
            0 => connecting.await.ok(),
            ms => tokio::time::timeout(Duration::from_millis(ms), connecting).await.ok().and_then(Result::ok),
        };
        let Some(stream) = connected else { return Err(unreachable) };
        let _ = stream.set_nodelay(true);
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|_| unreachable)?;
        self.metrics.connections.inc();
        // Ends when the replica closes it or the sender is dropped; a request under way hears of it through its sender.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }

    async fn finish(
        &self,
        replica: &Replica,
        connection: Connection,
        response: axum::http::Response<hyper::body::Incoming>,
    ) -> Result<Reply, Failure> {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|_| Failure::Broken(self.name))?.to_bytes();
        if self.settings.pooled {
            replica.keep_idle(connection, self.clock.now_ns());
        }
        Ok(Reply { status: parts.status, headers: parts.headers, body })
    }

    /// Changes what is thought of a replica's readiness; a change of mind is told at once.
    fn note(&self, replica: &Replica, what: impl FnOnce(&mut Readiness)) {
        let mut readiness = lock(&replica.readiness);
        let before = readiness.is_ready();
        what(&mut readiness);
        let ready = readiness.is_ready();
        replica.ready.store(ready, Ordering::Relaxed);
        if ready != before {
            self.levels.readiness(ready);
        }
    }
}

impl Replica {
    fn new(addr: &str, settings: &GatewaySettings) -> anyhow::Result<Self> {
        let host = HeaderValue::from_str(addr).map_err(|_| anyhow::anyhow!("the peer {addr:?} is no host:port"))?;
        Ok(Self {
            addr: addr.to_owned(),
            host,
            in_flight: InFlight::new(0),
            ready: AtomicBool::new(false),
            readiness: Mutex::default(),
            breaker: Mutex::new(Breaker::new(settings.breaker.clone())),
            idle: Mutex::default(),
        })
    }

    fn message(&self, request: &Forward, left: Option<Duration>) -> Result<Request<Full<Bytes>>, Failure> {
        let mut message = Request::new(Full::new(request.body.clone()));
        *message.method_mut() = request.method.clone();
        *message.uri_mut() = request.target.parse().map_err(|_| Failure::Broken("the gateway"))?;
        let headers = message.headers_mut();
        headers.clone_from(&request.headers);
        headers.insert(HOST, self.host.clone());
        if let Some(left) = left {
            headers.insert(DEADLINE, HeaderValue::from(left.as_millis() as u64));
        }
        Ok(message)
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = lock(&self.idle);
        while let Some((connection, _)) = idle.pop() {
            if connection.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    fn keep_idle(&self, connection: Connection, now_ns: u64) {
        let mut idle = lock(&self.idle);
        if !connection.is_closed() && idle.len() < KEPT_CONNECTIONS {
            idle.push((connection, now_ns));
        }
    }

    fn close_unused(&self, now_ns: u64) {
        let before_ns = now_ns.saturating_sub(KEPT_FOR.as_nanos() as u64);
        let mut idle = lock(&self.idle);
        let unused = idle.iter().take_while(|(_, since_ns)| *since_ns < before_ns).count();
        idle.drain(..unused);
    }
}

/// A call under way; dropped early, its outcome is unknown and its places are given back.
struct OpenCall<'a> {
    upstream: &'a Inner,
    replica: &'a Replica,
    /// That of the breaker when it began.
    epoch: u64,
    outcome: CallOutcome,
    _under_way: Option<crate::shedding::UnderWay>,
}

impl<'a> OpenCall<'a> {
    fn begin(upstream: &'a Inner, replica: &'a Replica) -> Self {
        let epoch = lock(&replica.breaker).begin(upstream.clock.now_ns());
        Self { upstream, replica, epoch, outcome: CallOutcome::Unknown, _under_way: replica.in_flight.enter() }
    }
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        if self.outcome == CallOutcome::Failure {
            self.upstream.metrics.failures.inc();
        }
        let mut breaker = lock(&self.replica.breaker);
        let before = breaker.is_closed();
        if breaker.end(self.upstream.clock.now_ns(), self.epoch, self.outcome) {
            self.upstream.metrics.breaker_opens.inc();
        }
        if breaker.is_closed() != before {
            self.upstream.levels.breaker(before);
        }
    }
}

/// A replica that sheds is at work; one that answers nothing, or only that it cannot, is not.
fn outcome(result: &Result<Reply, Failure>) -> CallOutcome {
    match result {
        Ok(reply) if reply.headers.contains_key(&SHED) => CallOutcome::Success,
        Ok(reply) if reply.status.is_server_error() => CallOutcome::Failure,
        Ok(_) => CallOutcome::Success,
        Err(_) => CallOutcome::Failure,
    }
}

/// A time-out is not, unless it is asked for: the replica may still be at it, and the caller has waited long enough.
/// Neither is that of an overwriting request ever: its first try may be done long after the second was answered.
fn is_worth_a_retry(result: &Result<Reply, Failure>, method: &Method, retries: &RetrySettings) -> bool {
    let after_timeout = retries.after_timeout && !matches!(*method, Method::PUT | Method::PATCH);
    match result {
        Ok(reply) if reply.status == StatusCode::GATEWAY_TIMEOUT => after_timeout,
        Ok(reply) => matches!(reply.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY),
        Err(Failure::TimedOut(_)) => after_timeout,
        Err(failure) => matches!(failure, Failure::Unreachable(_) | Failure::Broken(_)),
    }
}

/// What is left open by a try that is worth a retry: whether the work was done.
fn unclear(result: &Result<Reply, Failure>, name: &'static str) -> Option<Failure> {
    match result {
        Ok(reply) if reply.status == StatusCode::BAD_GATEWAY => Some(Failure::Broken(name)),
        Ok(reply) if reply.status == StatusCode::GATEWAY_TIMEOUT => Some(Failure::TimedOut(name)),
        Err(failure @ (Failure::Broken(_) | Failure::TimedOut(_))) => Some(*failure),
        _ => None,
    }
}

/// Whether a result says that its own try surely did nothing.
fn is_refusal(result: &Result<Reply, Failure>) -> bool {
    match result {
        Ok(reply) => reply.status.is_client_error() || reply.status == StatusCode::SERVICE_UNAVAILABLE,
        Err(failure) => matches!(failure, Failure::LeftAlone(_) | Failure::Unreachable(_)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

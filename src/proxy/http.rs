//! A link whose requests are read: some are answered with an error, some are passed on later.
//!
//! The one rule: one connection to the server for each of the client, so what one of them does to its connection the
//! other notices. Protocol upgrades are not passed on.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rand::RngExt as _;
use tokio::net::TcpStream;

use super::LinkKind;
use super::faults::Active;
use super::lane::Lane;
use counted::Counted;

mod counted;

type Body = BoxBody<Bytes, hyper::Error>;

/// Headers that are between two neighbours, and not passed on.
const BETWEEN_NEIGHBOURS: [HeaderName; 6] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// What a connection's requests have in common.
struct Requests {
    lane: Rc<Lane>,
    number: u64,
    sender: RefCell<SendRequest<Incoming>>,
    /// What each fault draws from, for this connection.
    draws: RefCell<Vec<(u64, kit::Rng)>>,
}

/// What the faults do to one request.
#[derive(Default)]
struct Verdict {
    /// How much later, by which fault.
    delays: Vec<(u64, Duration)>,
    /// What it is answered with instead of being passed on.
    error: Option<StatusCode>,
}

/// Carries a link to its end.
pub async fn carry(lane: &Rc<Lane>, client: TcpStream, server: TcpStream, number: u64) {
    let counters = lane.shared.counters.clone();
    let client = TokioIo::new(Counted { stream: client, counters });
    // The server has gone already.
    let Ok((sender, upstream)) = hyper::client::conn::http1::handshake(TokioIo::new(server)).await else { return };
    let (sender, draws) = (RefCell::new(sender), RefCell::default());
    let requests = Rc::new(Requests { lane: lane.clone(), number, sender, draws });
    let service = hyper::service::service_fn(move |request| answer(requests.clone(), request));
    let serving = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .header_read_timeout(None)
        .serve_connection(client, service);
    let (mut serving, mut upstream) = (pin!(serving), pin!(upstream));
    let upstream_open = Cell::new(true);
    poll_fn(|context| {
        lane.remember(number, context.waker());
        if upstream_open.get() && upstream.as_mut().poll(context).is_ready() {
            upstream_open.set(false);
            // What was answered is still sent.
            serving.as_mut().graceful_shutdown();
        }
        match serving.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(()),
            // The client waits for what the server's connection is to bring now.
            Poll::Pending if upstream_open.get() && upstream.as_mut().poll(context).is_ready() => {
                upstream_open.set(false);
                serving.as_mut().graceful_shutdown();
                serving.as_mut().poll(context).map(|_| ())
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
}

async fn answer(requests: Rc<Requests>, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let verdict = requests.judge();
    requests.wait(&verdict.delays).await;
    match verdict.error {
        Some(status) => Ok(refuse(status, request.into_body()).await),
        None => requests.pass_on(request).await,
    }
}

impl Requests {
    /// Draws what the faults that are active now do to a request.
    fn judge(&self) -> Verdict {
        let mut verdict = Verdict::default();
        for active in self.lane.set().iter() {
            let Active { id, fault, .. } = &**active;
            let mut draws = self.draws.borrow_mut();
            let at = draws.iter().position(|(known, _)| known == id).unwrap_or_else(|| {
                draws.push((*id, kit::rng(self.lane.shared.seed, &format!("proxy/{id}/{}", self.number))));
                draws.len() - 1
            });
            let rng = &mut draws[at].1;
            if fault.share < 1.0 && rng.random::<f64>() >= fault.share {
                continue;
            }
            match &fault.kind {
                LinkKind::ErrorRate { status } => verdict.error = StatusCode::from_u16(*status).ok(),
                LinkKind::Slow { latency, jitter } => {
                    let varied = latency.as_secs_f64() + jitter.as_secs_f64() * rng.random_range(-1.0..=1.0);
                    verdict.delays.push((*id, Duration::from_secs_f64(varied.max(0.0))));
                }
                _ => continue,
            }
            active.count();
        }
        verdict
    }

    /// Waits for all delays whose faults are still active.
    async fn wait(&self, delays: &[(u64, Duration)]) {
        if delays.is_empty() {
            return;
        }
        let arrived_ns = self.lane.now_ns();
        let mut wait = self.lane.alarm.wait();
        poll_fn(|context| {
            let active = self.lane.set();
            let left = delays.iter().filter(|(id, _)| active.iter().any(|active: &Arc<Active>| active.id == *id));
            let due_ns = arrived_ns.saturating_add(left.map(|(_, delay)| delay.as_nanos() as u64).sum());
            if due_ns <= self.lane.now_ns() {
                return Poll::Ready(());
            }
            wait.wake_at(due_ns, context.waker());
            Poll::Pending
        })
        .await;
    }

    async fn pass_on(&self, mut request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
        let closes = only_for_neighbours(request.headers_mut());
        if closes {
            request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        poll_fn(|context| self.sender.borrow_mut().poll_ready(context)).await?;
        let answered = self.sender.borrow_mut().send_request(request);
        let mut response = answered.await?;
        if only_for_neighbours(response.headers_mut()) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response.map(|body| body.boxed()))
    }
}

/// Takes out what is between two neighbours; says whether it asked to close the connection.
fn only_for_neighbours(headers: &mut HeaderMap) -> bool {
    let mut named = Vec::new();
    let mut closes = false;
    for value in headers.get_all(header::CONNECTION) {
        for name in value.to_str().unwrap_or_default().split(',').map(str::trim) {
            closes |= name.eq_ignore_ascii_case("close");
            named.extend(HeaderName::from_bytes(name.as_bytes()));
        }
    }
    for name in BETWEEN_NEIGHBOURS.iter().chain(&named) {
        headers.remove(name);
    }
    closes
}

/// An error in the server's place. The request is read to its end, so that the connection goes on.
async fn refuse(status: StatusCode, mut body: Incoming) -> Response<Body> {
    while let Some(Ok(_)) = body.frame().await {}
    let text = format!("{{\"error\":\"fault\",\"fault\":\"error-rate\",\"status\":{}}}\n", status.as_u16());
    let mut response = Response::new(Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert("x-fault", HeaderValue::from_static("error-rate"));
    response
}

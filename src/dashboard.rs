//! The live page of a run: follows an archive while it grows, and shows a finished one the same.
//!
//! The one rule: it holds no state of its own. Everything it says stands in the archive, and what it keeps is a cache
//! that can be rebuilt. It listens on loopback unless told otherwise, and loads nothing from elsewhere.
//!
//! The page draws with small SVG of its own instead of the report's plotly: the report is drawn once and explored, this
//! is drawn again each second, on a phone too, where 4.6 MB of script and a new layout for each of a dozen plots is
//! what the reader would wait for.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Path as UrlPath, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;

mod follow;
mod openmetrics;
mod spark;
mod state;
mod stream;
mod timeline;
mod words;

use crate::archive::Archive;
use crate::error::surroundings;
use crate::interrupt::Interrupt;
use follow::{Followed, Follower, Run};
use stream::Stream;

/// Where the page is served when nothing else is said: where people look for Spark's.
pub const PORT: u16 = 4040;

/// A page that is being served. Dropped, it stops.
#[must_use = "dropped, the page is gone"]
pub struct Dashboard {
    addr: SocketAddr,
    stopper: kit::shutdown::Stopper,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Dashboard {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What to type into a browser on this machine.
    pub fn url(&self) -> String {
        match self.addr.ip() {
            ip if ip.is_unspecified() || ip.is_loopback() => format!("http://localhost:{}", self.addr.port()),
            _ => format!("http://{}", self.addr),
        }
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            // It ends in bounded time, and a page that panicked is no reason to lose a run.
            let _ = thread.join();
        }
    }
}

/// Serves the page of `archive`, an archive or a link to one, which need not be there yet.
///
/// # Errors
/// When the address cannot be had, as surroundings.
pub fn serve(archive: &Path, addr: SocketAddr) -> anyhow::Result<Dashboard> {
    #[expect(clippy::disallowed_methods, reason = "the page stands where its reader is, on a real port")]
    let listener = std::net::TcpListener::bind(addr).map_err(|error| refused(addr, &error))?;
    let addr = listener.local_addr()?;
    let mut router = router(Shared(Arc::new(Mutex::new(Follower::new(archive)))));
    if addr.ip().is_loopback() {
        router = router.layer(middleware::from_fn(only_for_this_machine));
    }
    let (stopper, shutdown) = kit::shutdown::channel();
    let thread = std::thread::Builder::new().name("dashboard".to_owned()).spawn(move || {
        // The page gives way to what is measured. On Linux this is the calling thread only; where it is refused, the
        // page is as important as anything else.
        let _ = rustix::process::setpriority_process(None, 19);
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        if let Err(error) = runtime.block_on(kit::http::serve(listener, router, shutdown)) {
            eprintln!("dashboard: {error:#}");
        }
    })?;
    Ok(Dashboard { addr, stopper, thread: Some(thread) })
}

fn refused(addr: SocketAddr, error: &std::io::Error) -> anyhow::Error {
    let (port, other) = (addr.port(), addr.port().checked_add(1).unwrap_or(PORT));
    let what = match error.kind() {
        std::io::ErrorKind::AddrInUse => format!("port {port} is in use"),
        _ => error.to_string(),
    };
    surroundings(format!(
        "cannot show the page on {addr}: {what}; choose another port (--ui {other}), or none (--ui off)"
    ))
}

/// Serves the page of what `dir` leads to until Ctrl-C; a folder of runs is followed to its latest. Gives back the exit
/// code.
///
/// # Errors
/// When `dir` is no archive and does not become one, as input; when the address cannot be had, as surroundings.
pub fn watch(dir: &Path, addr: SocketAddr) -> anyhow::Result<u8> {
    let latest = dir.join("latest");
    let dir = if latest.is_symlink() { latest.as_path() } else { dir };
    let is_to_come = dir.file_name().is_some_and(|name| name == "latest") && !dir.exists();
    if !is_to_come {
        Archive::open(dir)?;
    }
    let interrupt = Interrupt::listen("stopping")?;
    let dashboard = serve(dir, addr)?;
    if is_to_come {
        eprintln!("{} is not there yet; the page shows the next run", dir.display());
    }
    eprintln!("watching {}; stop with Ctrl-C", dir.display());
    println!("{}", dashboard.url());
    while !interrupt.wait(Duration::from_secs(3600)) {}
    Ok(0)
}

/// What all requests share.
#[derive(Clone)]
struct Shared(Arc<Mutex<Follower>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Follower> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A page on loopback is asked for under a name of loopback. A browser that was led here under another name (DNS
/// rebinding) must not read what runs on this machine.
async fn only_for_this_machine(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, port)| if port.ends_with(']') { host } else { name });
    let literal = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    if name == "localhost" || literal.is_ok_and(|ip| ip.is_loopback()) {
        return next.run(request).await;
    }
    let what =
        format!("this page is for localhost, not for {host:?}; serve it with --ui ADDRESS:PORT to show it to others");
    told(StatusCode::FORBIDDEN, &what)
}

fn router(shared: Shared) -> Router {
    let streaming = "/api/v1/applications/{id}/streaming";
    Router::new()
        .route("/", get(page))
        .route("/api/state", get(page_state))
        .route("/api/v1/applications", get(applications))
        .route("/api/v1/applications/{id}", get(application))
        .route(&format!("{streaming}/statistics"), get(statistics))
        .route(&format!("{streaming}/batches"), get(batches))
        .route(&format!("{streaming}/batches/{{batch}}"), get(batch))
        .route(&format!("{streaming}/receivers"), get(receivers))
        .route(&format!("{streaming}/receivers/{{stream}}"), get(receiver))
        .route("/metrics", get(metrics))
        .fallback(async || not_found("no such page: / is the page, /api/v1/applications and /metrics are for programs"))
        .with_state(shared)
}

/// One file, with its style and script in it: nothing to fetch, nothing to go stale.
async fn page() -> Response {
    const PAGE: &str = include_str!("dashboard/page.html");
    let page = PAGE
        .replace("/* page.css */", include_str!("dashboard/page.css"))
        .replace("/* chart.js */", include_str!("dashboard/chart.js"))
        .replace("/* page.js */", include_str!("dashboard/page.js"));
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; \
         frame-ancestors 'none'; base-uri 'none'";
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, page).into_response()
}

#[derive(Deserialize)]
struct Wanted {
    /// The trial, otherwise the last that has begun.
    trial: Option<String>,
    /// What the page has already.
    version: Option<u64>,
}

async fn page_state(State(shared): State<Shared>, Query(wanted): Query<Wanted>) -> Response {
    let mut follower = shared.lock();
    let path = follower.path().display().to_string();
    follower.look_at(wanted.trial.as_deref());
    let version = follower.version();
    if wanted.version == Some(version) {
        return StatusCode::NO_CONTENT.into_response();
    }
    let (run, trial) = follower.look_at(wanted.trial.as_deref()).unzip();
    ([(header::CACHE_CONTROL, "no-store")], Json(state::state(version, &path, run, trial.flatten()))).into_response()
}

async fn applications(State(shared): State<Shared>) -> Response {
    let mut follower = shared.lock();
    Json(follower.look().map(|run| all_applications(run)).unwrap_or_default()).into_response()
}

/// Every trial that has begun is one, the last first.
fn all_applications(run: &Run) -> Vec<spark::Application> {
    let name = |trial: &str| {
        let levels: Vec<_> = run.levels(trial).iter().map(|(factor, level)| format!("{factor} {level}")).collect();
        let is_only = run.plan.len() < 2 || levels.is_empty();
        if is_only { run.about.name.clone() } else { format!("{}: {}", run.about.name, levels.join(", ")) }
    };
    let ids = run.begun.iter().rev().map(|trial| spark::Application { id: id(run, trial), name: name(trial) });
    ids.collect()
}

fn id(run: &Run, trial: &str) -> String {
    format!("{}-{trial}", run.stamp())
}

async fn application(State(shared): State<Shared>, UrlPath(id): UrlPath<String>) -> Response {
    let mut follower = shared.lock();
    let all = follower.look().map(|run| all_applications(run)).unwrap_or_default();
    match all.into_iter().find(|application| application.id == id) {
        Some(application) => Json(application).into_response(),
        None => no_application(&id),
    }
}

async fn statistics(State(shared): State<Shared>, UrlPath(id): UrlPath<String>) -> Response {
    of_stream(&shared, &id, |stream| Json(spark::statistics(stream)).into_response())
}

async fn batches(
    State(shared): State<Shared>,
    UrlPath(id): UrlPath<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    let statuses = query.into_iter().filter(|(key, _)| key == "status").map(|(_, status)| status.to_uppercase());
    let statuses: Vec<_> = statuses.collect();
    if let Some(unknown) = statuses.iter().find(|status| !spark::STATUSES.contains(&status.as_str())) {
        return told(StatusCode::BAD_REQUEST, &format!("unknown status {unknown:?}: {}", spark::STATUSES.join(", ")));
    }
    of_stream(&shared, &id, |stream| Json(spark::batches(stream, &statuses)).into_response())
}

async fn batch(State(shared): State<Shared>, UrlPath((id, batch)): UrlPath<(String, String)>) -> Response {
    of_stream(&shared, &id, |stream| match batch.parse().ok().and_then(|batch| spark::batch(stream, batch)) {
        Some(info) => Json(info).into_response(),
        None => not_found(&format!("unknown batch: {batch}")),
    })
}

async fn receivers(State(shared): State<Shared>, UrlPath(id): UrlPath<String>) -> Response {
    of_stream(&shared, &id, |stream| Json(spark::receivers(stream)).into_response())
}

async fn receiver(State(shared): State<Shared>, UrlPath((id, wanted)): UrlPath<(String, String)>) -> Response {
    of_stream(&shared, &id, |stream| {
        let found = wanted.parse().ok().and_then(|wanted: u32| spark::receiver(stream, wanted));
        match found {
            Some(info) => Json(info).into_response(),
            None => not_found(&format!("unknown receiver: {wanted}")),
        }
    })
}

/// The stream of an application, or why there is none.
fn of_stream(shared: &Shared, wanted: &str, answer: impl FnOnce(&Stream) -> Response) -> Response {
    let mut follower = shared.lock();
    let trial = follower.look().and_then(|run| run.begun.iter().find(|trial| id(run, trial) == wanted).cloned());
    let Some(trial) = trial else { return no_application(wanted) };
    catch_up(&mut follower, Some(&trial));
    match follower.look_at(Some(&trial)) {
        Some((_, Some(Followed { stream: Some(stream), .. }))) => answer(stream),
        _ => not_found(&format!("no stream in {wanted}")),
    }
}

/// A program asks once and takes the answer for whole, so what a look leaves of a large archive is read at once.
fn catch_up(follower: &mut Follower, trial: Option<&str>) {
    const LOOKS: usize = 50;
    for _ in 0..LOOKS {
        if follower.look_at(trial).is_none_or(|(_, trial)| trial.is_none_or(|trial| trial.left == 0)) {
            break;
        }
    }
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let mut follower = shared.lock();
    catch_up(&mut follower, None);
    let (run, trial) = follower.look_at(None).unzip();
    let text = openmetrics::metrics(run, trial.flatten());
    ([(header::CONTENT_TYPE, openmetrics::CONTENT_TYPE)], text).into_response()
}

fn no_application(id: &str) -> Response {
    not_found(&format!("no such app: {id}"))
}

fn not_found(what: &str) -> Response {
    told(StatusCode::NOT_FOUND, what)
}

fn told(status: StatusCode, what: &str) -> Response {
    (status, Json(serde_json::json!({ "error": what }))).into_response()
}

//! The role against a server that does what a script says.
#![expect(clippy::disallowed_methods, reason = "a test binds its own listener")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use kit::{Clock, OpsRecord, RoleConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::experiment::LoadPlan;

/// What the server does with one request.
enum Reply {
    /// Answers with a status and a JSON body.
    Answer(u16, &'static str),
    /// Answers with a JSON body that was made.
    Made(u16, String),
    /// Sends these bytes and closes.
    Raw(&'static [u8]),
    /// Closes the connection without a word.
    Close,
    /// Never answers.
    Silence,
    /// Answers at this instant of the real clock.
    At(u64),
}

/// A request as the server saw it.
#[derive(Clone, Debug)]
struct Seen {
    connection: u64,
    line: String,
    head: String,
    body: String,
}

type Script = Arc<dyn Fn(&Seen, u64) -> Reply + Send + Sync>;

struct Server {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Server {
    /// The script is given the request and how many came before it.
    fn start(script: impl Fn(&Seen, u64) -> Reply + Send + Sync + 'static) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let log = seen.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! { () = accept(listener, Arc::new(script), log) => {} _ = stopped => {} }
            });
        });
        Self { url, seen, _stop: stop }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn accept(listener: std::net::TcpListener, script: Script, log: Arc<Mutex<Vec<Seen>>>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let count = Arc::new(AtomicU64::new(0));
    for connection in 0.. {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(serve(stream, connection, script.clone(), log.clone(), count.clone()));
    }
}

async fn serve(
    mut stream: tokio::net::TcpStream,
    connection: u64,
    script: Script,
    log: Arc<Mutex<Vec<Seen>>>,
    count: Arc<AtomicU64>,
) {
    let mut held = Vec::new();
    loop {
        let Some(seen) = read_request(&mut stream, &mut held, connection).await else { return };
        log.lock().unwrap().push(seen.clone());
        let reply = script(&seen, count.fetch_add(1, Ordering::Relaxed));
        let (status, body) = match reply {
            Reply::Answer(status, body) => (status, body.to_owned()),
            Reply::Made(status, body) => (status, body),
            Reply::Raw(bytes) => {
                let _ = stream.write_all(bytes).await;
                return;
            }
            Reply::Close => return,
            Reply::Silence => std::future::pending().await,
            Reply::At(at_ns) => {
                Clock::real().sleep_until(at_ns).await;
                (200, "{}".to_owned())
            }
        };
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read_request(stream: &mut tokio::net::TcpStream, held: &mut Vec<u8>, connection: u64) -> Option<Seen> {
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(held).into_owned();
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse::<usize>().unwrap());
            if rest.len() >= length {
                held.drain(..head.len() + 4 + length);
                let line = head.lines().next().unwrap().to_owned();
                return Some(Seen { connection, line, head: head.to_owned(), body: rest[..length].to_owned() });
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => held.extend_from_slice(&buffer[..count]),
        }
    }
}

fn step(method: &str, path: &str) -> Step {
    serde_json::from_value(serde_json::json!({ "method": method, "path": path })).unwrap()
}

fn scenario(json: serde_json::Value) -> Scenario {
    serde_json::from_value(json).unwrap()
}

fn one_get() -> Scenario {
    Scenario { steps: vec![step("GET", "/x")], ..Scenario::default() }
}

fn closed(users: u32) -> LoadPlan {
    LoadPlan::Closed { users, think: Duration::ZERO, spawn_rate: 0.0 }
}

fn open(stages: &str, connections: u32) -> LoadPlan {
    LoadPlan::Open { stages: schedule::parse_stages(stages).unwrap(), poisson: false, connections }
}

fn settings(url: &str, scenario: Scenario, plan: LoadPlan) -> LoadSettings {
    LoadSettings {
        base_url: Some(url.to_owned()),
        scenario,
        plan,
        workers: 1,
        timeout: Duration::from_secs(5),
        disable_keepalive: false,
        requests: None,
        duration: None,
        threads: Some(1),
        insecure: false,
    }
}

fn host(settings: &LoadSettings, replica: u32) -> kit::host::Hosted {
    let mut config = RoleConfig::new("load");
    config.run = "r1".into();
    config.replica = replica;
    config.seed = 7;
    config.settings = serde_json::to_value(settings).unwrap();
    kit::host::start(ROLES[0], config, Clock::real()).unwrap()
}

/// Runs a replica to its own end and merges what it measured, by kind.
fn run(settings: &LoadSettings) -> BTreeMap<String, OpsRecord> {
    merged(&records(settings, 1))
}

fn records(settings: &LoadSettings, replica: u32) -> Vec<OpsRecord> {
    let mut hosted = host(settings, replica);
    if !hosted.wait_until_started() {
        panic!("{:#}", hosted.join().unwrap_err());
    }
    hosted.admin.control.start(hosted.admin.clock.now_ns());
    wait_for(|| hosted.has_ended() || hosted.admin.health().drained);
    let text = hosted.admin.ops(0);
    hosted.request_stop();
    hosted.join().unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn wait_for(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

fn merged(records: &[OpsRecord]) -> BTreeMap<String, OpsRecord> {
    let mut kinds: BTreeMap<String, OpsRecord> = BTreeMap::new();
    for record in records {
        kinds.entry(record.kind.clone()).or_default().merge(record);
    }
    kinds
}

fn failure(settings: &LoadSettings) -> String {
    let mut hosted = host(settings, 1);
    assert!(!hosted.wait_until_started(), "it started");
    format!("{:#}", hosted.join().unwrap_err())
}

#[test]
fn a_closed_loop_does_as_many_requests_as_it_was_told() {
    let server = Server::start(|_, _| Reply::Answer(200, "{}"));
    let ops = run(&LoadSettings { requests: Some(100), ..settings(&server.url, one_get(), closed(4)) });
    let ops = &ops["GET /x"];
    assert_eq!((ops.ok, ops.count(), ops.total.count()), (100, 100, 100));
    assert_eq!(ops.statuses, BTreeMap::from([(200, 100)]));
    assert_eq!(server.seen().len(), 100);
    assert_eq!(server.seen().iter().map(|seen| seen.connection).max(), Some(3), "a connection a user");
}

#[test]
fn what_became_of_a_request_is_said_as_it_is() {
    // (method, what the server does) → outcome and reason.
    let cases: [(&str, fn() -> Reply, &str, &str); 14] = [
        ("GET", || Reply::Answer(200, "{}"), "ok", ""),
        ("GET", || Reply::Answer(302, "{}"), "ok", ""),
        ("GET", || Reply::Answer(404, "{}"), "failed", "HTTP 404"),
        ("POST", || Reply::Answer(429, "{}"), "failed", "HTTP 429"),
        ("POST", || Reply::Answer(503, "{}"), "failed", "HTTP 503"),
        ("GET", || Reply::Answer(500, "{}"), "failed", "HTTP 500"),
        ("POST", || Reply::Answer(500, "{}"), "unknown", "HTTP 500"),
        ("DELETE", || Reply::Answer(504, "{}"), "unknown", "HTTP 504"),
        ("GET", || Reply::Close, "unknown", "connection closed before the answer"),
        ("POST", || Reply::Close, "unknown", "connection closed before the answer"),
        (
            "GET",
            || Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx"),
            "unknown",
            "connection closed within the answer",
        ),
        ("GET", || Reply::Silence, "unknown", "timed out after 50ms"),
        ("GET", || Reply::Raw(b"SSH-2.0\r\n"), "wrong", "malformed answer: not HTTP/1.1"),
        (
            "GET",
            || Reply::Raw(b"HTTP/1.1 204 X\r\n\r\nmore"),
            "wrong",
            "malformed answer: bytes after the end of the body",
        ),
    ];
    for (method, reply, outcome, reason) in cases {
        let server = Server::start(move |_, _| reply());
        let scenario = Scenario { steps: vec![step(method, "/x")], ..Scenario::default() };
        let settings = settings(&server.url, scenario, closed(1));
        let ops = run(&LoadSettings { requests: Some(1), timeout: Duration::from_millis(50), ..settings });
        let mut ops = ops.into_values().next().unwrap();
        let count = |ops: &OpsRecord| (ops.ok, ops.failed, ops.unknown, ops.wrong);
        let expect = match outcome {
            "ok" => (1, 0, 0, 0),
            "failed" => (0, 1, 0, 0),
            "unknown" => (0, 0, 1, 0),
            _ => (0, 0, 0, 1),
        };
        let reasons = std::mem::take(&mut ops.errors).into_keys().collect::<Vec<_>>();
        assert_eq!((count(&ops), reasons.join(", ")), (expect, reason.to_owned()), "{method} {outcome} {reason}");
    }
}

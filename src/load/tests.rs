//! The role against a server that does what a script says.
#![expect(clippy::disallowed_methods, reason = "a test binds its own listener")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use kit::{Clock, OpsRecord, RoleConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::experiment::LoadPlan;

/// A method, what the server does, the outcome and its reason.
type Case = (&'static str, fn() -> Reply, &'static str, &'static str);

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
        scenario,
        plan,
        timeout: Duration::from_secs(5),
        threads: Some(1),
        ..LoadSettings::new(Some(url.to_owned()))
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
    let cases: [Case; 14] = [
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

#[test]
fn a_refused_connection_did_not_happen() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let ops = run(&LoadSettings { requests: Some(2), ..settings(&url, one_get(), closed(1)) });
    let ops = &ops["GET /x"];
    assert_eq!((ops.failed, &ops.errors), (2, &BTreeMap::from([("connection refused".to_owned(), 2)])));
}

#[test]
fn a_connection_closed_while_idle_is_replaced_and_its_request_sent_once_more() {
    // Every third request of a connection finds it closed.
    let server = Server::start(|_, before| if before % 3 == 2 { Reply::Close } else { Reply::Answer(200, "{}") });
    let ops = run(&LoadSettings { requests: Some(10), ..settings(&server.url, one_get(), closed(1)) });
    assert_eq!((ops["GET /x"].ok, ops["GET /x"].count()), (10, 10));
    assert_eq!(server.seen().len(), 14, "ten that were answered and four that were not");
}

#[test]
fn without_keep_alive_every_request_has_a_connection_of_its_own() {
    let server = Server::start(|_, _| Reply::Answer(200, "{}"));
    let settings = settings(&server.url, one_get(), closed(1));
    run(&LoadSettings { requests: Some(5), disable_keepalive: true, ..settings });
    let seen = server.seen();
    assert_eq!(seen.iter().map(|seen| seen.connection).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert!(seen[0].head.contains("connection: close"));
}

#[test]
fn users_register_for_themselves_and_never_share_an_account() {
    let server = Server::start(|seen, _| match seen.line.split(' ').nth(1).unwrap() {
        "/register" => Reply::Made(201, format!(r#"{{"token": "t-{}"}}"#, seen.body)),
        "/tasks" => Reply::Answer(201, r#"{"id": 42}"#),
        _ => Reply::Answer(200, "{}"),
    });
    let scenario = scenario(serde_json::json!({
        "setup": [
            { "method": "POST", "path": "/register", "body": "{{run}}-{{user}}",
              "extract": { "token": { "json": "/token" } }, "check": { "status": [201] } },
            { "method": "POST", "path": "/tasks", "repeat": 2, "headers": { "authorization": "{{token}}" },
              "extract": { "task": { "json": "/id", "collect": true } } },
        ],
        "steps": [
            { "path": "/tasks/{{pick:task}}?n={{n}}", "name": "get", "headers": { "Authorization": "{{token}}" } },
            { "path": "/tasks/{{take:task}}", "name": "delete", "method": "DELETE" },
        ],
    }));
    let ops = run(&LoadSettings { requests: Some(60), ..settings(&server.url, scenario, closed(3)) });
    // Each of three users deletes its two tasks; with none left, neither step can be drawn.
    let mut owners: BTreeMap<String, std::collections::BTreeSet<u64>> = BTreeMap::new();
    for seen in server.seen() {
        if let Some(line) = seen.head.lines().find(|line| line.to_lowercase().starts_with("authorization")) {
            owners.entry(line.to_lowercase()).or_default().insert(seen.connection);
        }
    }
    assert_eq!(owners.len(), 3);
    assert!(owners.contains_key("authorization: t-r1-2"), "{owners:?}");
    assert!(owners.values().all(|connections| connections.len() == 1), "a token on two connections: {owners:?}");
    assert_eq!(ops["delete"].ok, 6);
    let impossible: u64 = ops.values().map(|ops| ops.failed).sum();
    assert_eq!(ops.values().map(OpsRecord::count).sum::<u64>(), 60);
    assert!(impossible > 0);
}

#[test]
fn a_setup_step_that_fails_ends_the_role_with_step_status_and_body() {
    let server = Server::start(|_, _| Reply::Answer(409, r#"{"detail": "taken"}"#));
    let scenario = scenario(serde_json::json!({
        "setup": [{ "name": "register", "method": "POST", "path": "/r",
                    "check": { "status": [201], "json": { "/id": "integer" } } }],
        "steps": [{ "path": "/" }],
    }));
    let error = failure(&settings(&server.url, scenario, closed(1)));
    assert_eq!(error, r#"setup step "register" of user 0: HTTP 409: {"detail": "taken"}"#);
}

#[test]
fn a_wrong_scenario_is_refused_before_a_connection_is_opened() {
    for (step, part) in [
        (serde_json::json!({ "path": "x" }), "must begin with /"),
        (serde_json::json!({ "path": "/{{token}}" }), "nor extracted by any step"),
        (serde_json::json!({ "path": "/{{pick:ids}}" }), "no step collects"),
        (serde_json::json!({ "path": "/{{random:9-1}}" }), "is empty"),
        (serde_json::json!({ "path": "/{{n" }), "without }}"),
        (serde_json::json!({ "path": "/", "method": "G T" }), "not a method"),
        (serde_json::json!({ "path": "/", "headers": { "a b": "c" } }), "is not a header"),
        (serde_json::json!({ "path": "/", "headers": { "Content-Length": "3" } }), "leave it out"),
        (serde_json::json!({ "path": "/", "check": { "json": { "/a": "text" } } }), "unknown type"),
        (serde_json::json!({ "path": "/", "extract": { "a": {} } }), "either json or header"),
        (serde_json::json!({ "path": "/", "weight": 0 }), "none can be drawn"),
        (serde_json::json!({ "path": "/", "extract": { "op": { "json": "/id" } } }), "already has a meaning"),
        (tracked("read", serde_json::json!({})), "needs arg"),
        (tracked("read", serde_json::json!({ "arg": "task" })), "the step uses none of {{pick:task}}"),
        (tracked("create", serde_json::json!({ "arg": "task" })), "leave arg out"),
        (tracked("create", serde_json::json!({})), "needs got.id"),
        (tracked("count", serde_json::json!({ "got": { "id": "/id" } })), "needs got.total"),
        (tracked("count", serde_json::json!({ "got": { "total": "total" } })), "is not a JSON pointer"),
        (tracked("delete", serde_json::json!({ "arg": "id", "sets": { "a": "b" } })), "sets nothing"),
        (tracked("change", serde_json::json!({ "arg": "id", "sets": { "version": "1" } })), "the system's to give"),
        (tracked("change", serde_json::json!({ "arg": "id", "sets": { "a": "{{uuid}}" } })), "may hold only op"),
    ] {
        let scenario = scenario(serde_json::json!({ "steps": [step] }));
        let error = failure(&settings("http://127.0.0.1:1", scenario, closed(1)));
        assert!(error.contains(part), "{step}: {error}");
    }
}

/// A step on `/{{pick:id}}` that collects that id itself.
fn tracked(does: &str, mut track: serde_json::Value) -> serde_json::Value {
    track["does"] = does.into();
    let extract = serde_json::json!({ "id": { "json": "/id", "collect": true } });
    serde_json::json!({ "path": "/{{pick:id}}", "extract": extract, "track": track })
}

/// Creates a thing, and then reads, changes and deletes it.
fn life() -> Scenario {
    let state = serde_json::json!({ "status": "/status", "version": "/version" });
    scenario(serde_json::json!({
        "setup": [{ "name": "create", "method": "POST", "path": "/t", "body": "{{op}}",
                    "extract": { "t": { "json": "/id", "collect": true } },
                    "track": { "does": "create", "got": { "id": "/id" } } }],
        "steps": [
            { "name": "plain", "path": "/plain" },
            { "name": "read", "path": "/t/{{pick:t}}", "track": { "does": "read", "arg": "t", "got": state } },
            { "name": "change", "path": "/t/{{pick:t}}", "method": "PUT", "body": "{{op}}",
              "track": { "does": "change", "arg": "t", "sets": { "title": "by {{op}}" }, "got": state } },
            { "name": "delete", "path": "/t/{{take:t}}", "method": "DELETE", "track": { "does": "delete", "arg": "t" } },
        ],
        "in_turn": true,
    }))
}

/// What a replica that runs to its own end told of each operation.
fn history(settings: &LoadSettings) -> Vec<track::Entry> {
    let mut hosted = host(settings, 1);
    assert!(hosted.wait_until_started(), "it did not start");
    hosted.admin.control.start(hosted.admin.clock.now_ns());
    wait_for(|| hosted.has_ended() || hosted.admin.health().drained);
    let told = hosted.admin.history(0);
    hosted.request_stop();
    hosted.join().unwrap();
    let lines = told.lines().map(|line| serde_json::from_str::<kit::journal::Line<track::Entry>>(line).unwrap());
    lines.enumerate().map(|(place, line)| (line.seq == place as u64 + 1).then_some(line.entry).unwrap()).collect()
}

#[test]
fn a_history_tells_what_each_operation_did_to_which_thing() {
    let server = Server::start(|seen, _| match seen.line.split(' ').next().unwrap() {
        "POST" => Reply::Answer(201, r#"{"id": 7}"#),
        "DELETE" => Reply::Answer(404, "{}"),
        _ => Reply::Answer(200, r#"{"id": 7, "status": "todo", "version": 3, "more": 1}"#),
    });
    let settings = LoadSettings { requests: Some(4), history: true, ..settings(&server.url, life(), closed(1)) };
    let told = history(&settings);
    let shown: Vec<String> = told
        .iter()
        .map(|entry| {
            let track::Entry { op, kind, does, outcome, status, arg, sets, got, .. } = entry;
            format!("{op} {kind} {does:?} {outcome:?} {status} {arg:?} {sets:?} {got:?}")
        })
        .collect();
    let state = r#"{"status": "todo", "version": "3"}"#;
    assert_eq!(
        shown,
        [
            r#"0-1 create Some(Create) Ok 201 None {} {"id": "7"}"#.to_owned(),
            format!(r#"0-2 read Some(Read) Ok 200 Some("7") {{}} {state}"#),
            format!(r#"0-3 change Some(Change) Ok 200 Some("7") {{"title": "by 0-3"}} {state}"#),
            r#"0-4 delete Some(Delete) Failed 404 Some("7") {} {}"#.to_owned(),
            "0-5 plain None Ok 200 None {} {}".to_owned(),
        ]
    );
    // The set-up lies before the start, and everything else after it and in order.
    assert!(told[0].invoke_ns < 0 && told[0].intended_ns.is_none() && told[0].return_ns < Some(0));
    let times: Vec<i64> = told[1..].iter().flat_map(|entry| [entry.invoke_ns, entry.return_ns.unwrap()]).collect();
    assert!(times.is_sorted() && times[0] >= 0, "{times:?}");
    assert_eq!(server.seen()[2].body, "0-3");
}

#[test]
fn without_being_asked_for_there_is_no_history_and_nothing_of_an_answer_is_looked_at() {
    let server = Server::start(|_, _| Reply::Answer(200, "no JSON"));
    let step = serde_json::json!({ "path": "/", "track": { "does": "count", "got": { "total": "/total" } } });
    let scenario = scenario(serde_json::json!({ "steps": [step] }));
    let off = LoadSettings { requests: Some(3), ..settings(&server.url, scenario, closed(1)) };
    assert_eq!(history(&off), []);
    assert_eq!(run(&off)["GET /"].ok, 3);
}

#[test]
fn what_was_given_up_has_no_return_and_a_refusal_of_a_second_try_leaves_the_first_open() {
    let step = serde_json::json!({ "method": "DELETE", "path": "/", "name": "delete" });
    let scenario = scenario(serde_json::json!({ "steps": [step] }));
    let told = |server: &Server| {
        let settings =
            LoadSettings { requests: Some(2), history: true, ..settings(&server.url, scenario.clone(), closed(1)) };
        let told = history(&LoadSettings { timeout: Duration::from_millis(100), ..settings });
        let shown = told.iter().map(|entry| (entry.outcome, entry.status, entry.return_ns.is_some(), entry.resent));
        shown.collect::<Vec<_>>()
    };
    use kit::Outcome::{Failed, Ok, Unknown};
    let silent = Server::start(|_, before| if before == 0 { Reply::Answer(200, "{}") } else { Reply::Silence });
    assert_eq!(told(&silent), [(Ok, 200, true, false), (Unknown, 0, false, false)]);
    // It was sent on a kept connection, which ended; the second try finds nothing to delete.
    let repeated = Server::start(|_, before| match before {
        0 => Reply::Answer(200, "{}"),
        1 => Reply::Close,
        _ => Reply::Answer(404, "{}"),
    });
    assert_eq!(told(&repeated), [(Ok, 200, true, false), (Unknown, 404, true, true)]);
    let refused = Server::start(|_, _| Reply::Answer(404, "{}"));
    assert_eq!(told(&refused), [(Failed, 404, true, false), (Failed, 404, true, false)]);
}

#[test]
fn a_second_try_that_finds_nobody_leaves_the_first_open() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        let _ = stream.read(&mut [0; 4096]);
        // Nobody listens any more when the connection ends.
        drop(listener);
    });
    let scenario = Scenario { steps: vec![step("PUT", "/")], ..Scenario::default() };
    let settings = LoadSettings { requests: Some(3), history: true, ..settings(&url, scenario, closed(1)) };
    let told: Vec<_> = history(&settings).iter().map(|entry| (entry.outcome, entry.status)).collect();
    use kit::Outcome::{Failed, Ok, Unknown};
    assert_eq!(told, [(Ok, 200), (Unknown, 0), (Failed, 0)]);
}

#[test]
fn checks_look_at_the_body_and_say_what_is_wrong_with_it() {
    let cases = [
        ("/tasks", "array", r#"{"tasks": []}"#, ""),
        ("/tasks", "array", r#"{"tasks": {}}"#, "check /tasks: not an array"),
        ("/tasks", "array?", r#"{"tasks": null}"#, ""),
        ("/tasks", "any", "{}", "check /tasks: not there"),
        ("/tasks/0/id", "integer", r#"{"tasks": [{"id": 1.5}]}"#, "check /tasks/0/id: not an integer"),
        ("/ok", "=true", r#"{"ok": true}"#, ""),
        ("/ok", "=yes", r#"{"ok": "no"}"#, "check /ok: not \"yes\""),
        ("/ok", "any", "<html>", "check: not JSON"),
    ];
    for (pointer, what, body, reason) in cases {
        let server = Server::start(move |_, _| Reply::Answer(200, body));
        let scenario = scenario(serde_json::json!({
            "steps": [{ "path": "/x", "check": { "json": { pointer: what } } }],
        }));
        let ops = run(&LoadSettings { requests: Some(1), ..settings(&server.url, scenario, closed(1)) });
        let ops = &ops["GET /x"];
        let reasons: Vec<&str> = ops.errors.keys().map(String::as_str).collect();
        assert_eq!((ops.wrong, reasons.concat()), (u64::from(!reason.is_empty()), reason.to_owned()), "{body}");
    }
}

#[test]
fn steps_are_drawn_by_weight() {
    let server = Server::start(|_, _| Reply::Answer(200, "{}"));
    let scenario = scenario(serde_json::json!({
        "steps": [{ "path": "/a", "weight": 9 }, { "path": "/b", "weight": 1 }, { "path": "/c", "weight": 0 }],
    }));
    let ops = run(&LoadSettings { requests: Some(1000), ..settings(&server.url, scenario, closed(2)) });
    let rare = ops["GET /b"].ok;
    // Mean 100, deviation 9.5.
    assert!((50..150).contains(&rare) && !ops.contains_key("GET /c"), "{rare} of 1000");
}

#[test]
fn an_open_loop_offers_exactly_its_schedule() {
    let server = Server::start(|_, _| Reply::Answer(200, "{}"));
    let records = records(&settings(&server.url, one_get(), open("300ms:500,200ms:~1000", 20)), 1);
    let ops = &merged(&records)["GET /x"];
    // 150 in the first stage, 150 in the ramp from 500 to 1000 a second.
    assert_eq!((ops.ok, ops.count()), (300, 300));
}

#[test]
fn a_stall_shows_in_the_time_of_everything_that_was_due_in_it() {
    let begin = std::sync::OnceLock::new();
    // Nothing is answered in the 300 ms after the first request.
    let server = Server::start(move |_, _| {
        let now_ns = Clock::real().now_ns();
        let end_ns = begin.get_or_init(|| now_ns) + 300_000_000;
        Reply::At(end_ns.max(now_ns))
    });
    let ops = run(&settings(&server.url, one_get(), open("600ms:500", 4)));
    let ops = &ops["GET /x"];
    assert_eq!(ops.ok, 300);
    // Half of the requests fell into the stall, and waited 150 ms on average, though only four were sent in it.
    let waited = |quantile| ops.wait.quantile(quantile).unwrap().as_millis();
    let total = |quantile| ops.total.quantile(quantile).unwrap().as_millis();
    assert!((100..220).contains(&total(0.75)), "p75 of total {} ms", total(0.75));
    assert!((100..220).contains(&waited(0.75)), "p75 of wait {} ms", waited(0.75));
    assert!(total(0.99) >= 280, "p99 of total {} ms", total(0.99));
}

#[test]
fn what_was_due_and_never_sent_counts_as_failed() {
    let server = Server::start(|_, _| Reply::Silence);
    let settings = settings(&server.url, one_get(), open("200ms:100", 1));
    let settings =
        LoadSettings { duration: Some(Duration::from_millis(200)), timeout: Duration::from_millis(300), ..settings };
    let ops = run(&settings);
    let ops = &ops["GET /x"];
    assert_eq!((ops.unknown, ops.failed, ops.errors[driver::NOT_SENT]), (1, 19, 19));
}

#[test]
fn stopping_begins_nothing_more_and_waits_for_what_is_under_way() {
    let server = Server::start(|_, before| if before == 0 { Reply::Silence } else { Reply::Answer(200, "{}") });
    let plan = LoadPlan::Closed { users: 2, think: Duration::from_secs(3600), spawn_rate: 0.0 };
    let settings = LoadSettings { timeout: Duration::from_millis(200), ..settings(&server.url, one_get(), plan) };
    let mut hosted = host(&settings, 1);
    assert!(hosted.wait_until_started());
    hosted.admin.control.start(0);
    wait_for(|| hosted.admin.recorder.totals()[0] == 1);
    hosted.admin.control.stop();
    wait_for(|| hosted.admin.health().drained);
    assert_eq!(hosted.admin.recorder.totals(), [1, 0, 1, 0]);
    let names: std::collections::BTreeSet<String> =
        hosted.admin.series.after(0).into_iter().map(|point| point.name).collect();
    assert!(["users", "in_flight", "connections", "backlog"].iter().all(|name| names.contains(*name)), "{names:?}");
    hosted.request_stop();
    hosted.join().unwrap();
}

#[test]
fn replicas_share_users_and_requests_without_overlap() {
    let server = Server::start(|_, _| Reply::Answer(200, "{}"));
    let scenario = scenario(serde_json::json!({ "steps": [{ "path": "/{{user}}", "name": "x" }] }));
    let mut users = Vec::new();
    let mut total = OpsRecord::default();
    for replica in 1..=3 {
        let plan = LoadPlan::Closed { users: 7, think: Duration::ZERO, spawn_rate: 0.0 };
        let shared = LoadSettings { workers: 3, requests: Some(50), ..settings(&server.url, scenario.clone(), plan) };
        let before = server.seen().len();
        total.merge(&merged(&records(&shared, replica))["x"]);
        let mut seen: Vec<String> =
            server.seen()[before..].iter().map(|seen| seen.line.split(' ').nth(1).unwrap().to_owned()).collect();
        seen.sort();
        seen.dedup();
        users.extend(seen);
    }
    users.sort();
    assert_eq!(users, ["/0", "/1", "/2", "/3", "/4", "/5", "/6"]);
    assert_eq!(total.count(), 50);
}

#[test]
fn a_user_starts_at_its_turn_and_its_first_operation_is_due_then() {
    let server = Server::start(|_, _| Reply::Answer(200, "{}"));
    let plan = LoadPlan::Closed { users: 3, think: Duration::from_secs(3600), spawn_rate: 10.0 };
    let settings = settings(&server.url, scenario(serde_json::json!({ "steps": [{ "path": "/{{user}}" }] })), plan);
    let started_ns = Clock::real().now_ns();
    run(&LoadSettings { duration: Some(Duration::from_millis(250)), ..settings });
    assert_eq!(server.seen().len(), 3);
    assert!(Clock::real().now_ns() - started_ns >= 200_000_000, "the third user starts after 200 ms");
}

#[test]
fn ten_thousand_idle_users_are_small() {
    let compiled = scenario::Compiled::new(
        &one_get(),
        scenario::Origin::plain(&["127.0.0.1:1".to_owned()]),
        &scenario::Options { run: "r", seed: 1, keep_alive: true, history: false },
    )
    .unwrap();
    let user = compiled.user(0);
    assert!(size_of_val(&user) < 1024, "a user takes {} bytes", size_of_val(&user));
    assert!(size_of::<client::Client>() < 512, "a client takes {} bytes", size_of::<client::Client>());
}

#[test]
fn a_limit_of_open_files_that_is_too_low_is_named() {
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    raise_file_limit(10).unwrap();
    if let Some(hard) = hard {
        let error = raise_file_limit(hard + 1).unwrap_err().to_string();
        assert!(error.contains(&hard.to_string()) && error.contains("--load-workers"), "{error}");
    }
    assert_eq!(needed_files(&closed(10_000), 4), 2_564);
}

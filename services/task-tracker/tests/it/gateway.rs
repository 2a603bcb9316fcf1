//! The gateway and the stats service against upstreams that misbehave.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use kit::host::Hosted;
use serde_json::{Value, json};

use crate::assembly::{config, counter, start, until, with_peers, with_settings};
use crate::client::{Answer, send};

/// An upstream that does as it is told. It answers its readiness by itself.
struct Fake {
    addr: SocketAddr,
    requests: Arc<AtomicUsize>,
}

/// What a fake does with request number n, from 0: an answer's head after `HTTP/1.1 `, or none to break the connection.
type Behaviour = fn(usize) -> Option<&'static str>;

const OK: Option<&str> = Some("200 OK");
const UNAVAILABLE: Option<&str> = Some("503 Service Unavailable");
const SHED: Option<&str> = Some("503 Service Unavailable\r\nx-shed: 1");
/// Neither answers nor breaks the connection.
const SILENCE: Option<&str> = Some("");

impl Fake {
    #[expect(clippy::disallowed_methods, reason = "a fake upstream is a host of its own")]
    fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (addr, requests) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counted = requests.clone();
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counted = counted.clone();
                thread::spawn(move || converse(stream, behaviour, &counted));
            }
        });
        Self { addr, requests }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Answers the requests of one connection; they have no bodies.
fn converse(mut stream: TcpStream, behaviour: Behaviour, requests: &AtomicUsize) {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        text.extend_from_slice(&piece[..length]);
        if !text.ends_with(b"\r\n\r\n") {
            continue;
        }
        let head =
            if text.starts_with(b"GET /readyz") { OK } else { behaviour(requests.fetch_add(1, Ordering::SeqCst)) };
        text.clear();
        match head {
            None => return,
            Some("") => continue,
            Some(head) => {
                let answer =
                    format!("HTTP/1.1 {head}\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}");
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        }
    }
}

/// Nobody listens there: a port that was free a moment ago.
#[expect(clippy::disallowed_methods, reason = "to find a port where nobody listens")]
fn nobody() -> String {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().to_string()
}

/// A gateway whose task service has these replicas.
fn gateway(replicas: &[String], settings: Value) -> Hosted {
    let other = Fake::start(|_| OK).addr.to_string();
    let others = [other];
    let peers = [("user-service", others.as_slice()), ("task-service", replicas), ("stats-service", others.as_slice())];
    start(with_settings(with_peers(config("gateway", None), &peers), json!({ "gateway": settings })))
}

fn ready(gateway: &Hosted) {
    until("the gateway is ready", || {
        send(gateway.addr, "GET", "/readyz", &[], "").is_ok_and(|answer| answer.status == 200)
    });
}

fn get(gateway: &Hosted) -> Answer {
    send(gateway.addr, "GET", "/api/v1/tasks/", &[], "").unwrap()
}

#[test]
fn a_failed_try_is_repeated_only_where_that_is_safe_and_worth_it() {
    type Row = (&'static str, Behaviour, &'static str, &'static [(&'static str, &'static str)], Value, u16, usize);
    let late: Behaviour = |n| if n == 0 { SILENCE } else { OK };
    let after_timeout = || json!({ "try_timeout_ms": 50, "retries": { "after_timeout": true } });
    let rows: [Row; 21] = [
        ("a 503 is repeated", |n| if n == 0 { UNAVAILABLE } else { OK }, "GET", &[], json!({}), 200, 2),
        ("a shed one too", |n| if n == 0 { SHED } else { OK }, "GET", &[], json!({}), 200, 2),
        ("a reset too", |n| if n == 0 { None } else { OK }, "GET", &[], json!({}), 200, 2),
        ("at most so many tries", |_| UNAVAILABLE, "GET", &[], json!({ "retries": { "max_tries": 3 } }), 503, 3),
        ("a broken connection in the end is 502", |_| None, "GET", &[], json!({}), 502, 2),
        ("never without retries", |_| UNAVAILABLE, "GET", &[], json!({ "retries": { "on": false } }), 503, 1),
        (
            "never without budget",
            |_| UNAVAILABLE,
            "GET",
            &[],
            json!({ "retries": { "budget_percent": 0.0, "budget_floor_per_s": 0.0 } }),
            503,
            1,
        ),
        ("a POST is not repeated", |_| UNAVAILABLE, "POST", &[], json!({}), 503, 1),
        ("a keyed POST is", |n| if n == 0 { None } else { OK }, "POST", &[("Idempotency-Key", "k")], json!({}), 200, 2),
        (
            "nor is a refusal after a try that may have been done",
            |n| if n == 0 { None } else { UNAVAILABLE },
            "DELETE",
            &[],
            json!({}),
            502,
            2,
        ),
        (
            "nor that nothing is there after it",
            |n| if n == 0 { None } else { Some("404 Not Found") },
            "DELETE",
            &[],
            json!({}),
            502,
            2,
        ),
        (
            "a read has nothing to be unsure of",
            |n| if n == 0 { None } else { UNAVAILABLE },
            "GET",
            &[],
            json!({}),
            503,
            2,
        ),
        ("a refusal after a refusal is one", |_| UNAVAILABLE, "DELETE", &[], json!({}), 503, 2),
        ("a 404 is an answer", |_| Some("404 Not Found"), "GET", &[], json!({}), 404, 1),
        ("a late try is where that is asked for", late, "GET", &[], after_timeout(), 200, 2),
        (
            "without a budget every one is",
            |_| SILENCE,
            "GET",
            &[],
            json!({
                "try_timeout_ms": 50,
                "retries": { "after_timeout": true, "max_tries": 4, "budget": false, "jitter": false },
            }),
            504,
            4,
        ),
        ("a late PUT is not even then", late, "PUT", &[], after_timeout(), 504, 1),
        ("nor one that was answered so", |_| Some("504 Gateway Timeout"), "PUT", &[], after_timeout(), 504, 1),
        ("a late DELETE is", late, "DELETE", &[], after_timeout(), 200, 2),
        ("a late keyed POST is", late, "POST", &[("Idempotency-Key", "k")], after_timeout(), 200, 2),
        ("a time-out is not repeated and is 504", |_| SILENCE, "GET", &[], json!({ "try_timeout_ms": 50 }), 504, 1),
    ];
    for (sentence, behaviour, method, headers, settings, status, requests) in rows {
        let fake = Fake::start(behaviour);
        let gateway = gateway(&[fake.addr.to_string()], settings);
        let answer = send(gateway.addr, method, "/api/v1/tasks/", headers, "").unwrap();
        assert_eq!((answer.status, fake.requests()), (status, requests), "{sentence}");
    }
}

#[test]
fn the_deadline_bounds_a_request_also_where_a_try_has_no_bound() {
    let fake = Fake::start(|_| SILENCE);
    let gateway = gateway(&[fake.addr.to_string()], json!({ "deadline_ms": 50, "try_timeout_ms": 0 }));
    assert_eq!(get(&gateway).status, 504);
}

#[test]
fn what_is_above_the_limit_is_shed_at_once_and_counted() {
    let fake = Fake::start(|n| if n == 0 { SILENCE } else { OK });
    let gateway = gateway(&[fake.addr.to_string()], json!({ "max_in_flight": 1 }));
    thread::scope(|scope| {
        let first = scope.spawn(|| get(&gateway));
        until("the first is under way", || fake.requests() == 1);
        let second = get(&gateway);
        assert_eq!((second.status, second.header("x-shed"), second.header("retry-after")), (503, "1", "1"));
        assert!(second.body["detail"].is_string());
        assert_eq!(send(gateway.addr, "GET", "/health", &[], "").unwrap().status, 200, "its health is not shed");
        assert_eq!(first.join().unwrap().status, 504);
    });
    assert_eq!(counter(&gateway, "http_shed_total"), 1);
}

#[test]
fn without_a_limit_nothing_is_shed() {
    let fake = Fake::start(|_| OK);
    let gateway = gateway(&[fake.addr.to_string()], json!({ "max_in_flight": 0 }));
    assert_eq!(get(&gateway).status, 200);
}

#[test]
fn a_replica_that_fails_too_often_is_left_alone() {
    let fake = Fake::start(|_| Some("500 Internal Server Error"));
    let breaker = json!({ "min_calls": 5, "open_ms": 60_000 });
    let gateway = gateway(&[fake.addr.to_string()], json!({ "breaker": breaker }));
    let statuses: Vec<_> = (0..8).map(|_| get(&gateway).status).collect();
    assert_eq!(statuses, [500, 500, 500, 500, 500, 503, 503, 503]);
    assert_eq!(fake.requests(), 5);
    assert_eq!(counter(&gateway, "upstream_breaker_opens_total"), 1);
}

#[test]
fn without_a_breaker_it_is_asked_again_and_again() {
    let fake = Fake::start(|_| Some("500 Internal Server Error"));
    let gateway = gateway(&[fake.addr.to_string()], json!({ "breaker": { "on": false, "min_calls": 5 } }));
    assert!((0..8).all(|_| get(&gateway).status == 500));
    assert_eq!(fake.requests(), 8);
}

#[test]
fn what_the_gateway_does_is_told_over_time_and_trouble_at_once() {
    let fake = Fake::start(|n| if n < 9 { Some("500 Internal Server Error") } else { OK });
    let breaker = json!({ "min_calls": 5, "open_ms": 60_000 });
    let settings = json!({ "breaker": breaker, "readiness_interval_ms": 60_000, "max_in_flight": 9 });
    let gateway = gateway(&[fake.addr.to_string()], settings);
    ready(&gateway);
    assert!((0..8).all(|_| get(&gateway).status >= 500));
    let points = || gateway.admin.series.after(0);
    let values = |name: &str| -> Vec<f64> {
        points().into_iter().filter(|point| point.name == name).filter_map(|point| point.value).collect()
    };
    assert_eq!(values("breaker_open").last(), Some(&1.0), "at once");
    let not_ready = values("not_ready");
    assert!(not_ready.contains(&1.0) && not_ready.ends_with(&[0.0]), "{not_ready:?}");
    // They are told one after the other.
    let sums = [("requests", 8.0), ("tries", 5.0), ("retries", 0.0), ("over_budget", 0.0), ("shed", 0.0)];
    until("a second has passed", || sums.iter().all(|(name, value)| values(name).last() == Some(value)));
}

#[test]
fn one_replica_dead_is_not_noticed_by_a_client() {
    let fake = Fake::start(|_| OK);
    let gateway = gateway(&[nobody(), fake.addr.to_string()], json!({}));
    ready(&gateway);
    assert!((0..50).all(|_| get(&gateway).status == 200));
    assert_eq!(fake.requests(), 50);
}

#[test]
fn a_retry_goes_to_another_replica() {
    let (bad, good) = (Fake::start(|_| UNAVAILABLE), Fake::start(|_| OK));
    let settings = json!({ "retries": { "budget": false }, "breaker": { "on": false } });
    let gateway = gateway(&[bad.addr.to_string(), good.addr.to_string()], settings);
    assert!((0..50).all(|_| get(&gateway).status == 200));
    assert_eq!((good.requests(), counter(&gateway, "upstream_retries_total") as usize), (50, bad.requests()));
}

#[test]
fn taking_turns_regardless_of_readiness_shows_every_second_request_the_dead_one() {
    let fake = Fake::start(|_| OK);
    let settings = json!({ "balance": "round-robin", "retries": { "on": false }, "breaker": { "on": false } });
    let gateway = gateway(&[nobody(), fake.addr.to_string()], settings);
    ready(&gateway);
    let statuses: Vec<_> = (0..4).map(|_| get(&gateway).status).collect();
    assert_eq!(statuses, [503, 200, 503, 200]);
}

#[test]
fn connections_are_kept_unless_that_is_switched_off() {
    for (pooled, least, most) in [(true, 0, 3), (false, 20, usize::MAX)] {
        let fake = Fake::start(|_| OK);
        let settings = json!({ "pooled": pooled, "readiness_interval_ms": 60_000 });
        let gateway = gateway(&[fake.addr.to_string()], settings);
        ready(&gateway);
        let before = counter(&gateway, "upstream_connections_total");
        assert!((0..20).all(|_| get(&gateway).status == 200));
        let made = (counter(&gateway, "upstream_connections_total") - before) as usize;
        assert!((least..=most).contains(&made), "pooled {pooled}: {made} connections for 20 requests");
    }
}

#[test]
fn a_gateway_with_a_service_that_nobody_serves_is_not_ready() {
    let gateway = gateway(&[nobody()], json!({}));
    let answer = send(gateway.addr, "GET", "/readyz", &[], "").unwrap();
    assert_eq!(answer.status, 503);
    until("it names the service", || {
        let answer = send(gateway.addr, "GET", "/readyz", &[], "").unwrap();
        answer.body["detail"].as_str().is_some_and(|detail| detail.contains("task-service"))
    });
    assert_eq!(get(&gateway).status, 503);
}

#[test]
fn statistics_are_503_when_the_task_service_is_gone_and_never_zeros() {
    let token = task_tracker::tokens::Tokens::new("a key for tests", kit::Clock::real(), 30).issue(1).unwrap();
    let bearer = format!("Bearer {token}");
    for (sentence, replica) in [
        ("gone", nobody()),
        ("failing", Fake::start(|_| Some("500 Internal Server Error")).addr.to_string()),
        ("no sense", Fake::start(|_| OK).addr.to_string()),
    ] {
        let stats = start(with_peers(config("stats-service", None), &[("task-service", &[replica])]));
        let answer = send(stats.addr, "GET", "/api/v1/stats/", &[("Authorization", &bearer)], "").unwrap();
        assert_eq!(answer.status, 503, "{sentence}");
        assert!(
            answer.body["detail"].as_str().unwrap().starts_with("no statistics now"),
            "{sentence}: {}",
            answer.body
        );
    }
}

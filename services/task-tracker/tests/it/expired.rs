//! Work that nobody waits for any more, and what a request can be made to cost.

use std::io::Write as _;
use std::net::TcpStream;
use std::thread;

use kit::host::Hosted;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::assembly::{config, counter, start, until, with_settings};
use crate::client::send;
use crate::databases::sqlite;

/// Longer than any test waits.
const FOR_EVER_MS: u32 = 3_600_000;

fn task_service(folder: &TempDir, settings: Value) -> Hosted {
    start(with_settings(config("task-service", Some(sqlite(folder)("tasks"))), settings))
}

fn bearer() -> String {
    let token = task_tracker::tokens::Tokens::new("a key for tests", kit::Clock::real(), 30).issue(1).unwrap();
    format!("Bearer {token}")
}

/// Asks for the tasks, and does not wait for the answer.
fn ask(service: &Hosted) -> TcpStream {
    let mut stream = TcpStream::connect(service.addr).unwrap();
    let head = format!("GET /api/v1/tasks/ HTTP/1.1\r\nhost: h\r\nauthorization: {}\r\n\r\n", bearer());
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn under_way(service: &Hosted) -> f64 {
    let points = service.admin.series.after(0);
    points.iter().rfind(|point| point.name == "in_flight").and_then(|point| point.value).unwrap_or(0.0)
}

fn expired(service: &Hosted) -> u64 {
    counter(service, "http_expired_total")
}

#[test]
fn work_is_dropped_when_its_caller_has_no_time_left_or_has_gone() {
    let folder = TempDir::new().unwrap();
    let service = task_service(&folder, json!({ "cost": { "ms": FOR_EVER_MS, "slots": 1 } }));
    for (name, left_ms) in [("none at all", "0"), ("too little", "20")] {
        let headers = [("authorization", bearer()), ("x-deadline-ms", left_ms.to_owned())];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(send(service.addr, "GET", "/api/v1/tasks/", &headers, "").unwrap().status, 504, "{name}");
    }
    assert_eq!(expired(&service), 2);
    let caller = ask(&service);
    until("it is under way", || under_way(&service) == 1.0);
    drop(caller);
    until("it is dropped", || expired(&service) == 3);
    until("its place is free", || under_way(&service) == 0.0);
}

#[test]
fn switched_off_work_goes_on_for_callers_that_have_gone() {
    let folder = TempDir::new().unwrap();
    let settings = json!({ "drop_expired": false, "cost": { "ms": 1_500, "slots": 1 } });
    let service = task_service(&folder, settings);
    let caller = ask(&service);
    until("it is under way", || under_way(&service) == 1.0);
    drop(caller);
    until("it has ended for nobody", || expired(&service) == 1);
    assert_eq!(counter(&service, r#"http_requests_total{status="2xx"}"#), 0, "nobody was answered");
}

#[test]
fn a_cost_bounds_what_a_replica_does_at_once() {
    let folder = TempDir::new().unwrap();
    let service = task_service(&folder, json!({ "cost": { "ms": 50, "slots": 2 } }));
    let clock = kit::Clock::real();
    let begun_ns = clock.now_ns();
    let bearer = bearer();
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let answer = send(service.addr, "GET", "/api/v1/tasks/", &[("authorization", &bearer)], "").unwrap();
                assert_eq!(answer.status, 200);
            });
        }
    });
    let took_ms = (clock.now_ns() - begun_ns) / 1_000_000;
    assert!(took_ms >= 150, "six in two slots of 50 ms took {took_ms} ms");
    let health = send(service.addr, "GET", "/readyz", &[], "").unwrap();
    assert_eq!(health.status, 200, "readiness costs nothing");
}

//! The role on real sockets, with both ends in the test's hands.
#![expect(clippy::disallowed_methods, reason = "a test binds its own listener")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use kit::extension::{Answer, Request};
use kit::host::Hosted;
use kit::{Clock, RoleConfig};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::faults::Active;

mod http;
mod transparent;

/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough that what passes has passed.
const A_WHILE: Duration = Duration::from_millis(60);

/// A proxy, and the server that it passes on to, which does nothing by itself.
struct Proxy {
    hosted: Hosted,
    server: TcpListener,
}

impl Proxy {
    fn start(faults: &[&str]) -> Self {
        Self::with(json!({"faults": faults}), 7)
    }

    fn with(settings: Value, seed: u64) -> Self {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let hosted = host(settings, seed, &[server.local_addr().unwrap()]);
        assert!(hosted.wait_until_started());
        Self { hosted, server }
    }

    /// A connection's two ends.
    fn link(&self) -> (TcpStream, TcpStream) {
        let client = self.connect();
        let (server, _) = self.server.accept().unwrap();
        (patient(client), patient(server))
    }

    fn connect(&self) -> TcpStream {
        patient(TcpStream::connect(self.hosted.addr).unwrap())
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.hosted.admin.extension.call(Request { method, path, body })
    }

    fn json(&self, method: &str, path: &str, body: &str) -> Value {
        let Answer { status, body } = self.ask(method, path, body);
        assert_eq!(status, 200, "{method} {path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    fn add(&self, fault: &str) -> u64 {
        let added = self.json("POST", "/faults", fault);
        assert!(added["applied_ns"].as_u64().unwrap() <= Clock::real().now_ns());
        added["id"].as_u64().unwrap()
    }

    fn lift(&self, id: u64) {
        self.json("DELETE", &format!("/faults/{id}"), "");
    }

    fn touched(&self, id: u64) -> u64 {
        let faults = self.json("GET", "/faults", "");
        let of = faults.as_array().unwrap().iter().find(|fault| fault["id"] == id).unwrap();
        of["touched"].as_u64().unwrap()
    }
}

fn host(settings: Value, seed: u64, upstreams: &[SocketAddr]) -> Hosted {
    let mut config = RoleConfig::new("proxy");
    config.settings = settings;
    config.seed = seed;
    config.peers.insert("upstream".to_owned(), upstreams.iter().map(ToString::to_string).collect());
    kit::host::start(super::ROLE, config, Clock::real()).unwrap()
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends bytes one way, and sees them arrive.
fn passes(from: &mut TcpStream, to: &mut TcpStream) -> Duration {
    let clock = Clock::real();
    let sent_ns = clock.now_ns();
    from.write_all(b"ping").unwrap();
    let mut bytes = [0; 4];
    to.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"ping");
    Duration::from_nanos(clock.now_ns() - sent_ns)
}

fn nothing_arrives(at: &mut TcpStream) {
    at.set_read_timeout(Some(A_WHILE)).unwrap();
    let result = at.read(&mut [0; 1]);
    assert!(matches!(&result, Err(error) if error.kind() == ErrorKind::WouldBlock), "{result:?}");
    at.set_read_timeout(Some(PATIENCE)).unwrap();
}

fn is_reset(at: &mut TcpStream) {
    let result = at.read(&mut [0; 1]);
    assert!(matches!(&result, Err(error) if error.kind() == ErrorKind::ConnectionReset), "{result:?}");
}

fn is_closed(at: &mut TcpStream) {
    assert_eq!(at.read(&mut [0; 1]).unwrap(), 0);
}

fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

/// What a fault does to a connection, seen from its two ends: client, server.
type Sight = fn(&mut TcpStream, &mut TcpStream);

/// What is seen while the fault is active, of a connection that was open before and of a new one.
const KINDS: &[(&str, Sight)] = &[
    ("latency=40ms", |client, server| {
        let took = passes(server, client);
        assert!(took >= Duration::from_millis(40), "{took:?}");
    }),
    ("latency=40ms,direction=up", |client, server| {
        assert!(passes(client, server) >= Duration::from_millis(40));
    }),
    ("latency=1h,direction=up", |client, server| {
        passes(server, client);
        client.write_all(b"late").unwrap();
        nothing_arrives(server);
    }),
    ("latency=20ms,direction=both", |client, server| {
        assert!(passes(server, client) >= Duration::from_millis(20));
        assert!(passes(client, server) >= Duration::from_millis(20));
    }),
    ("bandwidth=100kB", |client, server| {
        passes(client, server);
        let started_ns = Clock::real().now_ns();
        server.write_all(&[1; 12_000]).unwrap();
        client.read_exact(&mut [0; 12_000]).unwrap();
        let took = Duration::from_nanos(Clock::real().now_ns() - started_ns);
        // A burst of 10 ms may pass at once.
        assert!(took >= Duration::from_millis(109), "{took:?}");
    }),
    ("blackhole,direction=down", |client, server| {
        passes(client, server);
        server.write_all(b"held").unwrap();
        nothing_arrives(client);
    }),
    ("blackhole", |client, server| {
        client.write_all(b"held").unwrap();
        server.write_all(b"held").unwrap();
        nothing_arrives(client);
        nothing_arrives(server);
    }),
    ("reset", |client, server| {
        is_reset(client);
        is_reset(server);
    }),
    ("reset=50ms", |client, server| {
        is_reset(client);
        is_reset(server);
    }),
    ("slow-close=50ms", |client, server| {
        passes(server, client);
        server.shutdown(Shutdown::Write).unwrap();
        let started_ns = Clock::real().now_ns();
        is_closed(client);
        assert!(Clock::real().now_ns() - started_ns >= 49_000_000);
        passes(client, server);
    }),
    ("limit-data=10", |client, server| {
        server.write_all(&[1; 25]).unwrap();
        let mut seen = Vec::new();
        client.read_to_end(&mut seen).unwrap();
        assert_eq!(seen, [1; 10]);
        is_closed(server);
    }),
    ("limit-data=10,direction=up", |client, server| {
        server.write_all(&[2; 25]).unwrap();
        client.read_exact(&mut [0; 25]).unwrap();
        client.write_all(&[1; 25]).unwrap();
        let mut seen = Vec::new();
        server.read_to_end(&mut seen).unwrap();
        assert_eq!(seen, [1; 10]);
        is_closed(client);
    }),
];

#[test]
fn each_fault_acts_on_open_and_on_new_connections_and_no_more_once_it_is_lifted() {
    for (fault, sight) in KINDS {
        let proxy = Proxy::start(&[]);
        let (mut client, mut server) = proxy.link();
        passes(&mut client, &mut server);
        let id = proxy.add(fault);
        sight(&mut client, &mut server);
        let (mut client, mut server) = proxy.link();
        sight(&mut client, &mut server);
        assert_eq!(proxy.touched(id), 2, "{fault}");
        proxy.lift(id);
        let (mut client, mut server) = proxy.link();
        passes(&mut client, &mut server);
        passes(&mut server, &mut client);
        server.shutdown(Shutdown::Write).unwrap();
        is_closed(&mut client);
        passes(&mut client, &mut server);
    }
}

#[test]
fn what_was_held_passes_once_the_fault_is_lifted() {
    for fault in ["blackhole", "latency=1h", "bandwidth=1", "slow-close=1h", "latency=30m,jitter=10m"] {
        let proxy = Proxy::start(&[fault]);
        let (mut client, mut server) = proxy.link();
        server.write_all(b"held").unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        nothing_arrives_at_the_end(fault, &mut client);
        proxy.json("DELETE", "/faults", "");
        let mut seen = Vec::new();
        client.read_to_end(&mut seen).unwrap();
        let expected: &[u8] = if fault.starts_with("slow-close") { b"" } else { b"held" };
        assert!(seen.ends_with(expected), "{fault}: {seen:?}");
        passes(&mut client, &mut server);
    }
}

/// A slow close lets the bytes pass, and a slow byte may be the first of four.
fn nothing_arrives_at_the_end(fault: &str, client: &mut TcpStream) {
    if fault.starts_with("slow-close") {
        client.read_exact(&mut [0; 4]).unwrap();
    }
    if !fault.starts_with("bandwidth") {
        nothing_arrives(client);
    }
}

#[test]
fn a_reset_that_is_lifted_in_time_does_not_come() {
    let proxy = Proxy::start(&[]);
    let (mut client, mut server) = proxy.link();
    let id = proxy.add("reset=1h");
    passes(&mut client, &mut server);
    proxy.lift(id);
    passes(&mut server, &mut client);
    assert_eq!(proxy.hosted.admin.extension.call(Request { method: "GET", path: "/faults", body: "" }).body, "[]\n");
}

#[test]
fn the_first_connections_fail_and_those_after_them_pass() {
    let proxy = Proxy::start(&[]);
    let (mut client, mut server) = proxy.link();
    let id = proxy.add("fail-first=2");
    passes(&mut client, &mut server);
    for _ in 0..2 {
        is_reset(&mut proxy.connect());
    }
    let (mut client, mut server) = proxy.link();
    passes(&mut client, &mut server);
    assert_eq!(proxy.touched(id), 2);
}

#[test]
fn a_share_touches_the_connections_that_its_seed_says_and_no_other() {
    let touched = |seed: u64| -> Vec<bool> {
        let proxy = Proxy::with(json!({"faults": ["blackhole,share=50%"]}), seed);
        (0..20)
            .map(|_| {
                let (mut client, mut server) = proxy.link();
                server.write_all(b"x").unwrap();
                client.set_read_timeout(Some(A_WHILE)).unwrap();
                client.read(&mut [0; 1]).is_err()
            })
            .collect()
    };
    let fault = Active::new(1, "blackhole,share=50%".parse().unwrap(), 0);
    let expected = |seed| (1..=20).map(|number| fault.touches(seed, number)).collect::<Vec<_>>();
    assert_eq!(touched(3), expected(3));
    assert_eq!(touched(4), expected(4));
    assert_ne!(expected(3), expected(4));
}

#[test]
fn faults_that_are_active_at_a_time_add_up() {
    let proxy = Proxy::start(&["latency=20ms", "latency=30ms", "limit-data=8", "slow-close=1h,direction=up"]);
    let (mut client, mut server) = proxy.link();
    let took = passes(&mut server, &mut client);
    assert!(took >= Duration::from_millis(50), "{took:?}");
    client.shutdown(Shutdown::Write).unwrap();
    nothing_arrives(&mut server);
    let id = proxy.add("blackhole");
    server.write_all(b"pong").unwrap();
    nothing_arrives(&mut client);
    proxy.lift(id);
    let mut seen = Vec::new();
    client.read_to_end(&mut seen).unwrap();
    assert_eq!(seen, b"pong");
}

#[test]
fn under_latency_a_sender_is_held_up_before_memory_is_full() {
    let proxy = Proxy::start(&["latency=1h"]);
    let (_client, mut server) = proxy.link();
    server.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let chunk = vec![0; 1 << 20];
    let sent: usize = (0..64).map_while(|_| server.write(&chunk).ok()).sum();
    assert!(sent < 40 << 20, "{sent} bytes were taken");
}

#[test]
fn under_latency_throughput_stays() {
    const SIZE: usize = 8 << 20;
    let proxy = Proxy::start(&["latency=100ms"]);
    let (mut client, mut server) = proxy.link();
    let started_ns = Clock::real().now_ns();
    let sending = std::thread::spawn(move || server.write_all(&vec![1; SIZE]).map(|()| server));
    client.read_exact(&mut vec![0; SIZE]).unwrap();
    sending.join().unwrap().unwrap();
    let took = Duration::from_nanos(Clock::real().now_ns() - started_ns);
    assert!(took < Duration::from_secs(2), "two windows of 100 ms, not a latency for each of 128 chunks: {took:?}");
}

#[test]
fn a_latency_is_kept_to_a_millisecond() {
    let proxy = Proxy::start(&[]);
    let (mut client, mut server) = proxy.link();
    let mut median = |faults: &[&str]| {
        let ids: Vec<_> = faults.iter().map(|fault| proxy.add(fault)).collect();
        let mut took: Vec<_> = (0..21).map(|_| passes(&mut server, &mut client)).collect();
        took.sort();
        ids.into_iter().for_each(|id| proxy.lift(id));
        (took[10], took[0])
    };
    for us in [1_500, 7_000, 20_300] {
        let asked = Duration::from_micros(us);
        // A machine that does much else at the same time is late by itself: one quiet moment of some is enough.
        let kept = (0..20).any(|_| {
            let ((idle, _), (took, least)) = (median(&[]), median(&[&format!("latency={us}us")]));
            assert!(least >= asked, "{least:?} is earlier than {asked:?}");
            took - idle.min(took) < asked + Duration::from_millis(1)
        });
        assert!(kept, "{asked:?} is not kept to a millisecond");
    }
}

#[test]
fn ends_are_passed_on_as_they_came() {
    let proxy = Proxy::start(&[]);
    let (mut client, mut server) = proxy.link();
    client.shutdown(Shutdown::Write).unwrap();
    is_closed(&mut server);
    passes(&mut server, &mut client);
    drop(server);
    is_closed(&mut client);

    let (client, mut server) = proxy.link();
    reset(client);
    is_reset(&mut server);

    let (mut client, server) = proxy.link();
    reset(server);
    is_reset(&mut client);
}

#[test]
fn what_a_server_said_before_it_broke_still_arrives() {
    let proxy = Proxy::start(&[]);
    let (mut client, mut server) = proxy.link();
    server.write_all(b"last words").unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
    reset(server);
    let mut seen = Vec::new();
    let error = client.read_to_end(&mut seen).unwrap_err();
    assert_eq!((seen.as_slice(), error.kind()), (&b" words"[..], ErrorKind::ConnectionReset));
}

#[test]
fn a_server_that_is_not_there_resets_the_client() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let there = TcpListener::bind("127.0.0.1:0").unwrap();
    let hosted = host(json!({}), 1, &[gone, there.local_addr().unwrap()]);
    assert!(hosted.wait_until_started());
    let connect = || patient(TcpStream::connect(hosted.addr).unwrap());
    is_reset(&mut connect());
    let mut second = connect();
    let (mut server, _) = there.accept().unwrap();
    passes(&mut second, &mut server);
    is_reset(&mut connect());
}

#[test]
fn a_proxy_that_stops_closes_its_connections() {
    let mut proxy = Proxy::start(&[]);
    let (mut client, mut server) = proxy.link();
    passes(&mut client, &mut server);
    proxy.hosted.request_stop();
    proxy.hosted.join().unwrap();
    is_closed(&mut client);
    is_closed(&mut server);
    assert!(TcpStream::connect(proxy.hosted.addr).is_err());
}

#[test]
fn the_admin_endpoint_counts_and_refuses_with_the_way_out() {
    let proxy = Proxy::start(&[]);
    let (mut client, mut server) = proxy.link();
    passes(&mut client, &mut server);
    server.write_all(b"answer").unwrap();
    client.read_exact(&mut [0; 6]).unwrap();
    let expected = json!({"open": 1, "total": 1, "refused": 0, "bytes_up": 4, "bytes_down": 6});
    // It counts after it has written.
    let counted = (0..1_000_000).any(|_| proxy.json("GET", "/links", "") == expected);
    assert!(counted, "{}", proxy.json("GET", "/links", ""));
    assert_eq!(proxy.add("latency=1ms"), 1);
    assert_eq!(proxy.add(" bandwidth=1GB \n"), 2);
    let listed = proxy.json("GET", "/faults", "");
    assert_eq!((&listed[0]["fault"], &listed[1]["fault"]), (&"latency=1ms".into(), &"bandwidth=1GB".into()));
    for (method, path, body, status, expected) in [
        ("POST", "/faults", "", 400, "write one of latency=50ms"),
        ("POST", "/faults", "latency=-5", 400, "not a duration"),
        ("POST", "/faults", "error-rate=10%", 400, "http = true (--http)"),
        ("DELETE", "/faults/7", "", 404, "there is no fault 7; active: 1, 2"),
        ("DELETE", "/faults/all", "", 400, "names no fault"),
        ("PUT", "/faults", "", 405, "GET, POST and DELETE /faults"),
        ("POST", "/links", "", 405, "GET /links"),
        ("GET", "/toxics", "", 404, "a proxy has no GET /toxics"),
    ] {
        let answer = proxy.ask(method, path, body);
        assert_eq!(answer.status, status, "{method} {path} {body}");
        assert!(answer.body.contains(expected), "{method} {path} {body}: {}", answer.body);
    }
    assert!(proxy.json("DELETE", "/faults", "")["lifted_ns"].is_u64());
    assert_eq!(proxy.ask("DELETE", "/faults/1", "").body, "there is no fault 1; none is active\n");
}

#[test]
fn settings_that_make_no_sense_end_the_role_with_the_reason() {
    let here = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (settings, upstreams, expected) in [
        (json!({"faults": ["lag=3"]}), &[here][..], "unknown link fault"),
        (json!({"faults": ["slow=3ms"]}), &[here], "http = true"),
        (json!({"http": true, "faults": ["latency=3ms"]}), &[here], "put a second one without http in front"),
        (json!({"fault": []}), &[here], "unknown field `fault`"),
        (json!({}), &[], "no address of its peer upstream"),
    ] {
        let mut hosted = host(settings, 1, upstreams);
        assert!(!hosted.wait_until_started(), "{expected}");
        let error = format!("{:#}", hosted.join().unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
}

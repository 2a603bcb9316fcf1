//! The proxy by hand: the program stands between a client and a server, and is told what to break.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout};
use std::time::Duration;

use super::lab::{begin, call, signal};

const PATIENCE: Duration = Duration::from_secs(20);

/// The program, and what it said when it started.
struct Proxy {
    child: Child,
    out: BufReader<ChildStdout>,
    addr: SocketAddr,
    admin: SocketAddr,
    token: Option<String>,
}

impl Proxy {
    fn begin(flags: &[&str]) -> Self {
        let mut child = begin(&[&["proxy", "--listen", "0"][..], flags].concat());
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        while !said.contains("/links") {
            assert_ne!(out.read_line(&mut said).unwrap(), 0, "{said}");
        }
        let after = |word: &str| said.split_once(word).and_then(|(_, rest)| rest.split_whitespace().next());
        let addr = after("proxy on ").unwrap().parse().unwrap();
        let admin = after("admin on http://").unwrap().parse().unwrap();
        let token = after("Bearer ").map(|token| token.trim_end_matches('\'').to_owned());
        Self { child, out, addr, admin, token }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A request as curl would make it: status and body.
    fn ask(&self, method: &str, path: &str, body: &str, token: Option<&str>) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin.port())).unwrap();
        let bearer = token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/x-www-form-urlencoded\r\n{bearer}content-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn end(mut self) -> String {
        signal(self.child.id(), "INT");
        let mut said = String::new();
        self.out.read_to_string(&mut said).unwrap();
        assert!(self.child.wait().unwrap().success(), "{said}");
        said
    }
}

fn server() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    (listener, addr)
}

fn passes(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"ping").unwrap();
    let mut bytes = [0; 4];
    to.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"ping");
}

#[test]
fn faults_are_added_and_lifted_by_hand_while_a_connection_is_open() {
    let (server, addr) = server();
    let proxy = Proxy::begin(&["--upstream", &addr]);
    assert!(proxy.admin.ip().is_loopback() && proxy.token.is_none());
    let mut client = proxy.connect();
    let (mut far, _) = server.accept().unwrap();
    passes(&mut client, &mut far);
    let (status, body) = proxy.ask("POST", "/faults", "blackhole", None);
    assert_eq!(status, 200, "{body}");
    assert!(body.starts_with("{\"id\":1,\"applied_ns\":"), "{body}");
    far.write_all(b"held").unwrap();
    client.set_read_timeout(Some(Duration::from_millis(60))).unwrap();
    assert!(client.read(&mut [0; 1]).is_err(), "nothing passes");
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let (_, listed) = proxy.ask("GET", "/faults", "", None);
    assert!(listed.contains("\"fault\":\"blackhole\"") && listed.contains("\"touched\":1"), "{listed}");
    assert_eq!(proxy.ask("DELETE", "/faults/1", "", None).0, 200);
    client.read_exact(&mut [0; 4]).unwrap();
    for (method, path, body, status, expected) in [
        ("POST", "/faults", "lag=1", 400, "unknown link fault"),
        ("POST", "/faults", "error-rate=10%", 400, "--http"),
        ("DELETE", "/faults/9", "", 404, "none is active"),
        ("GET", "/nothing", "", 404, "GET /links"),
    ] {
        let (seen, text) = proxy.ask(method, path, body, None);
        assert!(seen == status && text.contains(expected), "{method} {path} {body}: {seen} {text}");
    }
    let said = proxy.end();
    assert!(said.contains("\"total\":1"), "{said}");
}

#[test]
fn a_fault_of_requests_makes_the_proxy_read_them() {
    let (_server, addr) = server();
    let proxy = Proxy::begin(&["--upstream", &addr, "--fault", "error-rate=100%,status=503"]);
    let mut client = proxy.connect();
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("x-fault: error-rate"), "{answer}");
    proxy.end();
}

#[test]
fn an_admin_address_that_others_can_reach_asks_for_its_token() {
    let (_server, addr) = server();
    let proxy = Proxy::begin(&["--upstream", &addr, "--admin", "0.0.0.0:0"]);
    let token = proxy.token.clone().expect("it says its token");
    for (given, status) in [(None, 401), (Some("wrong"), 401), (Some(token.as_str()), 200)] {
        assert_eq!(proxy.ask("GET", "/faults", "", given).0, status, "{given:?}");
    }
    proxy.end();
}

#[test]
fn what_cannot_be_is_refused_with_the_exit_code_and_the_way_out() {
    let (taken, addr) = server();
    for (flags, code, expected) in [
        (&["--listen", &addr, "--upstream", "localhost:1"][..], 4, "choose another place with --listen"),
        (&["--listen", "0", "--admin", &addr, "--upstream", "localhost:1"], 4, "choose another place with --admin"),
        (&["--listen", "0", "--upstream", "nowhere.invalid:1"], 4, "write HOST:PORT of a server"),
        (&["--listen", "0", "--upstream", "localhost"], 2, "localhost:5432"),
        (&["--listen", "0", "--upstream", "localhost:1", "--fault", "lag=3"], 2, "unknown link fault"),
        (
            &["--listen", "0", "--upstream", "localhost:1", "--fault", "slow=1s", "--fault", "latency=1s"],
            2,
            "put a second one without http in front of it",
        ),
    ] {
        let called = call(&[&["proxy"][..], flags].concat());
        assert_eq!(called.code, Some(code), "{flags:?}: {}", called.stderr);
        assert!(called.stderr.contains(expected), "{flags:?}: {}", called.stderr);
    }
    drop(taken);
}

#[test]
fn the_help_names_the_faults() {
    let called = call(&["proxy", "--help"]);
    for word in ["latency=50ms,jitter=5ms", "fail-first=3", "error-rate=10%", "direction=up|down|both"] {
        assert!(called.stdout.contains(word), "{word}: {}", called.stdout);
    }
}

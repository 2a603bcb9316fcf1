//! The proxy that reads requests.

use super::*;

/// A server that answers each request with its own head and body, on as many connections as come.
fn mirror() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            std::thread::spawn(move || {
                let mut stream = patient(stream.unwrap());
                while let Some((head, body)) = read_message(&mut stream) {
                    let text = format!("{number}\n{head}\n\n{body}");
                    let closes = if head.contains("GET /last") { "connection: close\r\n" } else { "" };
                    let length = text.len();
                    let answer = format!("HTTP/1.1 200 OK\r\n{closes}content-length: {length}\r\n\r\n{text}");
                    stream.write_all(answer.as_bytes()).unwrap();
                    if !closes.is_empty() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

/// The head, its lines ended by one character, and the body of a request or an answer; none at the end.
fn read_message(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().replace("\r\n", "\n").trim_end().to_owned();
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).unwrap()))
}

struct Http {
    hosted: Hosted,
}

impl Http {
    fn start(faults: &[&str], seed: u64) -> Self {
        let hosted = host(json!({"http": true, "faults": faults}), seed, &[mirror()]);
        assert!(hosted.wait_until_started());
        Self { hosted }
    }

    fn connect(&self) -> TcpStream {
        patient(TcpStream::connect(self.hosted.addr).unwrap())
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Value {
        let Answer { status, body } = self.hosted.admin.extension.call(Request { method, path, body });
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

fn send(stream: &mut TcpStream, text: &str) -> (String, String) {
    stream.write_all(text.as_bytes()).unwrap();
    read_message(stream).unwrap()
}

const GET: &str = "GET /a?b=c HTTP/1.1\r\nhost: x\r\n\r\n";
const POST: &str = "POST /p HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello";

#[test]
fn requests_and_answers_pass_on_one_connection_each_way() {
    let proxy = Http::start(&[], 1);
    let mut stream = proxy.connect();
    for (request, first, last) in
        [(GET, "GET /a?b=c HTTP/1.1", ""), (POST, "POST /p HTTP/1.1", "hello"), (GET, "GET", "")]
    {
        let (head, body) = send(&mut stream, request);
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        let (connection, seen) = body.split_once('\n').unwrap();
        assert_eq!(connection, "0", "the connection to the server is kept");
        assert!(seen.starts_with(first) && seen.contains("\nhost: x") && seen.ends_with(last), "{seen}");
    }
    let (_, body) = send(&mut proxy.connect(), GET);
    assert!(body.starts_with("1\n"), "another client has a connection of its own: {body}");
}

#[test]
fn headers_between_neighbours_stay_between_them() {
    let proxy = Http::start(&[], 1);
    let request = "GET / HTTP/1.1\r\nhost: x\r\nkeep-alive: timeout=5\r\nconnection: keep-alive, x-mine\r\nx-mine: 1\r\nx-other: 2\r\nte: gzip\r\n\r\n";
    let (_, body) = send(&mut proxy.connect(), request);
    for gone in ["keep-alive", "x-mine", "te: ", "connection: "] {
        assert!(!body.contains(gone), "{gone}: {body}");
    }
    assert!(body.contains("x-other: 2"), "{body}");
}

#[test]
fn a_server_that_closes_closes_the_client() {
    let proxy = Http::start(&[], 1);
    let mut stream = proxy.connect();
    let (head, _) = send(&mut stream, "GET /last HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(head.contains("connection: close"), "{head}");
    is_closed(&mut stream);
}

#[test]
fn an_error_is_answered_instead_of_the_server_and_the_connection_goes_on() {
    let proxy = Http::start(&[], 1);
    let mut stream = proxy.connect();
    send(&mut stream, GET);
    let added = proxy.ask("POST", "/faults", "error-rate=100%,status=503");
    for request in [GET, POST, GET] {
        let (head, body) = send(&mut stream, request);
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("x-fault: error-rate"), "{head}");
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["status"], 503);
    }
    assert_eq!(proxy.ask("GET", "/faults", "")[0]["touched"], 3);
    proxy.ask("DELETE", &format!("/faults/{}", added["id"]), "");
    let (head, _) = send(&mut stream, GET);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

#[test]
fn the_same_seed_fails_the_same_requests_and_about_as_many_as_asked() {
    let failed = |seed: u64| -> Vec<bool> {
        let proxy = Http::start(&["error-rate=25%"], seed);
        let mut stream = proxy.connect();
        (0..200).map(|_| send(&mut stream, GET).0.starts_with("HTTP/1.1 500")).collect()
    };
    let first = failed(5);
    assert_eq!(failed(5), first);
    assert_ne!(failed(6), first);
    let count = first.iter().filter(|failed| **failed).count();
    // Six standard deviations around 50.
    assert!((14..=86).contains(&count), "{count}");
}

#[test]
fn a_slow_request_is_passed_on_later_and_at_once_when_the_fault_is_lifted() {
    let proxy = Http::start(&["slow=30ms"], 1);
    let mut stream = proxy.connect();
    let started_ns = Clock::real().now_ns();
    send(&mut stream, GET);
    assert!(Clock::real().now_ns() - started_ns >= 30_000_000);
    proxy.ask("DELETE", "/faults", "");
    proxy.ask("POST", "/faults", "slow=1h");
    stream.write_all(GET.as_bytes()).unwrap();
    nothing_arrives(&mut stream);
    proxy.ask("DELETE", "/faults", "");
    assert!(read_message(&mut stream).unwrap().0.starts_with("HTTP/1.1 200"));
}

#[test]
fn a_server_that_is_not_there_resets_the_client() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let hosted = host(json!({"http": true}), 1, &[gone]);
    assert!(hosted.wait_until_started());
    is_reset(&mut patient(TcpStream::connect(hosted.addr).unwrap()));
}

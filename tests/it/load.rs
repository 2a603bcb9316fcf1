//! `scalelab load URL` against a server of this test: what it prints, what it archives, and its exit codes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use serde_json::Value;

use super::lab::{call, scratch, write};

/// Answers every request with one status, and counts them. It ends with the process.
struct Server {
    url: String,
    requests: Arc<AtomicU64>,
}

impl Server {
    fn start(status: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicU64::new(0));
        let counted = requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counted = counted.clone();
                thread::spawn(move || converse(&stream, status, &counted));
            }
        });
        Self { url, requests }
    }
}

/// Keeps the connection until the other side closes it.
fn converse(mut stream: &TcpStream, status: &str, requests: &AtomicU64) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut lines = BufReader::new(stream).lines();
    // A head ends with an empty line; a body has no line end, and counts with the head after it.
    while lines.by_ref().map_while(Result::ok).any(|line| line.is_empty()) {
        requests.fetch_add(1, Relaxed);
        stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nhi").as_bytes()).ok()?;
    }
    None
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer} in {value:#}"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file under a folder; links are not followed.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let of = |entry: std::fs::DirEntry| match entry.file_type().unwrap().is_dir() {
        true => files(&entry.path()),
        false => vec![entry.path()],
    };
    entries.flat_map(of).collect()
}

#[test]
fn a_counted_load_is_exit_0_and_its_json_has_the_names_of_the_field_and_the_right_counts() {
    let server = Server::start("200 OK");
    let called = call(&["load", &server.url, "-n", "200", "-c", "8", "--output-format", "json"]);
    assert_eq!(called.code, Some(0), "{}", called.stderr);
    let found = json(&called.stdout);
    for key in [
        "successRate",
        "total",
        "slowest",
        "fastest",
        "average",
        "requestsPerSec",
        "totalData",
        "sizePerRequest",
        "sizePerSec",
    ] {
        assert!(found["summary"][key].is_number(), "{key}: {found:#}");
    }
    for key in ["responseTimeHistogram", "latencyPercentiles", "rps", "details", "errorDistribution"] {
        assert!(found[key].is_object(), "{key}: {found:#}");
    }
    assert_eq!(found["statusCodeDistribution"], serde_json::json!({ "200": 200 }));
    assert_eq!(number(&found, "/scalelab/outcomes/ok"), 200.0);
    assert_eq!(server.requests.load(Relaxed), 200, "as many were sent as were counted");
}

#[test]
fn an_objective_that_is_missed_is_exit_1_and_named() {
    let server = Server::start("500 Broken");
    let called = call(&["load", &server.url, "-n", "200", "-c", "4", "--slo", "errors <= 1%"]);
    assert_eq!(called.code, Some(1), "{}{}", called.stdout, called.stderr);
    for part in ["[500] 200 responses", "of all 200 requests, 200 of which failed", "Verdict: fail (errors <= 1%)"] {
        assert!(called.stdout.contains(part), "{part:?} is not in {}", called.stdout);
    }
}

#[test]
fn a_target_that_is_not_there_is_exit_4_and_a_wrong_url_is_exit_2() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let called = call(&["load", &format!("http://{gone}/"), "-n", "3", "-c", "1"]);
    assert_eq!(called.code, Some(4), "{}", called.stderr);
    assert!(called.stderr.contains("cannot reach http://127.0.0.1:"), "{}", called.stderr);
    for (url, part) in [("127.0.0.1:80", "http://host:port/path"), ("ftp://127.0.0.1/", "unknown scheme")] {
        let called = call(&["load", url]);
        assert_eq!(called.code, Some(2), "{url}: {}", called.stderr);
        assert!(called.stderr.contains(part), "{url}: {}", called.stderr);
    }
    let called = call(&["load", "http://127.0.0.1/", "-H", "accept: a", "-H", "Accept: b"]);
    assert_eq!(called.code, Some(2), "{}", called.stderr);
    assert!(called.stderr.contains("header Accept is given twice"), "{}", called.stderr);
}

#[test]
fn a_folder_that_cannot_be_written_is_named_before_anything_is_sent() {
    let server = Server::start("200 OK");
    let called = call(&["load", &server.url, "-n", "50", "--out", "/proc/nowhere"]);
    assert_eq!(called.code, Some(4), "{}", called.stderr);
    assert!(called.stderr.contains("--out") && called.stderr.contains("/proc/nowhere"), "{}", called.stderr);
    assert_eq!((server.requests.load(Relaxed), called.stdout.as_str()), (0, ""));
}

#[test]
fn an_open_loop_sends_what_was_asked_for() {
    let server = Server::start("200 OK");
    let called = call(&["load", &server.url, "-r", "200", "-d", "1s", "-c", "4", "--output-format", "json"]);
    assert_eq!(called.code, Some(0), "{}", called.stderr);
    let found = json(&called.stdout);
    let (offered, sent) = (number(&found, "/scalelab/offered"), server.requests.load(Relaxed) as f64);
    assert!((199.0..=201.0).contains(&offered), "{offered} offered");
    // A busy machine may be too slow for the last ones, and they are counted as such.
    let not_sent = found["errorDistribution"]["not sent before the end"].as_f64().unwrap_or(0.0);
    assert_eq!(sent + not_sent, offered, "{called}", called = called.stdout);
    assert_eq!(number(&found, "/summary/total"), 1.0);
}

#[test]
fn an_archived_load_holds_what_was_printed_and_no_secret_and_can_be_drawn_again() {
    let (server, folder) = (Server::start("200 OK"), scratch());
    let out = folder.path().to_str().unwrap();
    let url = format!("{}?token=hunter2", server.url);
    let secrets = ["authorization: Bearer hunter2", "X-Api-Key: hunter2", "cookie: id=hunter2"];
    let headers = secrets.iter().flat_map(|secret| ["-H", secret]);
    let arguments = ["load", &url, "-n", "200", "-b", "pin=hunter2", "--output-format", "json", "--out", out];
    let called = call(&arguments.into_iter().chain(headers).collect::<Vec<_>>());
    assert_eq!(called.code, Some(0), "{}", called.stderr);

    let archive = folder.path().join("latest");
    let results = read(&archive.join("results.jsonl"));
    let trial = json(results.trim_end());
    assert_eq!((results.lines().count(), &trial["valid"]), (1, &Value::Bool(true)), "{results}");
    assert_eq!(number(&trial, "/total_requests"), 200.0);
    let printed = number(&json(&called.stdout), "/summary/requestsPerSec");
    let archived = number(&trial, "/throughput_rps");
    assert!((archived / printed - 1.0).abs() < 1e-9, "{printed} was printed, {archived} was archived");

    let history = read(&archive.join("trials/000_r0/stats_history.csv"));
    let rows: Vec<Vec<&str>> = history.lines().map(|line| line.split(',').collect()).collect();
    let total = rows[0].iter().position(|name| *name == "Total Request Count").unwrap();
    assert!(rows.len() > 1 && rows.last().unwrap()[total] == "200", "{history}");

    no_secret(&archive, "hunter2");
    std::fs::remove_file(archive.join("report.html")).unwrap();
    let again = call(&["report", archive.to_str().unwrap()]);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(read(&archive.join("report.html")).contains(&server.url));
}

#[test]
fn a_secret_of_a_step_is_not_archived_and_comes_from_its_file_when_the_run_goes_on() {
    let (server, folder) = (Server::start("200 OK"), scratch());
    let text = |path: &str| {
        format!(
            "# why?\nsystem = \"http\"\ndeployment = \"external\"\ntrials = 1\nwarmup = \"0s\"\nduration = \"1s\"\n\
             [external]\ndefault = \"{}\"\n[load]\nusers = 1\nthink = \"5ms\"\n\
             [[step]]\npath = \"{path}\"\nheaders = {{ authorization = \"Bearer hunter2\", x-key = \"{{{{n}}}}\" }}\n",
            server.url.trim_end_matches('/')
        )
    };
    let file = write(folder.path(), "own.toml", &text("/"));
    let other = write(folder.path(), "other.toml", &text("/other"));
    let (file, other) = (file.to_str().unwrap(), other.to_str().unwrap());
    let out = folder.path().join("runs");
    let called = call(&["run", file, "--out", out.to_str().unwrap()]);
    assert_eq!(called.code, Some(0), "{}{}", called.stdout, called.stderr);
    let archive = out.join("latest");
    no_secret(&archive, "hunter2");
    assert!(read(&archive.join("experiment.toml")).contains("{{n}}"));

    // As if it had been interrupted before the trial had ended.
    write(&archive, "results.jsonl", "");
    let archive = archive.to_str().unwrap();
    for (arguments, part) in [
        (&["run", "--resume", archive][..], "the header authorization of step \"GET /\" is ***"),
        (&["run", other, "--resume", archive], "are not those of"),
        (&["run", &format!("{archive}/experiment.toml")], "is ***"),
    ] {
        let called = call(arguments);
        assert_eq!(called.code, Some(2), "{arguments:?}: {}", called.stderr);
        assert!(called.stderr.contains(part), "{arguments:?}: {}", called.stderr);
    }
    let called = call(&["run", file, "--resume", archive]);
    assert_eq!(called.code, Some(0), "{}{}", called.stdout, called.stderr);
    assert!(read(&Path::new(archive).join("results.jsonl")).contains("\"valid\":true"));
}

fn no_secret(archive: &Path, secret: &str) {
    let all = files(&archive.canonicalize().unwrap());
    assert!(all.iter().any(|path| path.ends_with("experiment.toml")));
    for path in all {
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        assert!(!text.contains(secret), "{}", path.display());
    }
}

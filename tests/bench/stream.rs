//! A stream against a plain loop on the same socket, and what a batch costs that has nothing to do.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Far more lines a second than anybody reads: the reader sets the pace.
const FLOOD: &str = "50000000";

/// The source alone.
struct Source {
    child: Child,
    port: u16,
}

impl Source {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port();
        let child = Command::new(env!("CARGO_BIN_EXE_scalelab"))
            .args(["stream", "source", "--rate", FLOOD, "--port", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the source starts");
        Self { child, port }
    }

    fn connect(&self) -> TcpStream {
        let begun = Instant::now();
        loop {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(stream) => return stream,
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(10), "the source: {error}"),
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines a second that one thread reads and counts the words of, as one would write it first.
pub fn plain_loop(seconds: u32) -> f64 {
    let source = Source::start();
    let mut lines = BufReader::with_capacity(256 * 1024, source.connect());
    let mut counts: HashMap<String, u64> = HashMap::new();
    let mut line = String::new();
    let (begun, mut read) = (Instant::now(), 0_u64);
    while begun.elapsed() < Duration::from_secs(u64::from(seconds)) {
        for _ in 0..1_000 {
            line.clear();
            assert!(lines.read_line(&mut line).expect("lines") > 0, "the source left");
            for word in line.split_whitespace() {
                match counts.get_mut(word) {
                    Some(count) => *count += 1,
                    None => _ = counts.insert(word.to_owned(), 1),
                }
            }
            read += 1;
        }
    }
    assert_eq!(counts.values().sum::<u64>(), 3 * read);
    read as f64 / begun.elapsed().as_secs_f64()
}

/// What a run of the word count came to.
pub struct Streamed {
    pub processing_ms: f64,
    pub stable: bool,
    pub scheduling_delay_ms: f64,
    /// Sent by the source, as a share of what its schedule asked for.
    pub sent: f64,
}

/// Runs the word count at a rate.
pub fn word_count(rate: f64, seconds: u32) -> Streamed {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let file = folder.path().join("bench.toml");
    let text = format!(
        "system = \"socket-stream\"\ntrials = 1\nwarmup = \"3s\"\nduration = \"{seconds}s\"\n\
         [load]\nmode = \"open\"\nrate = {rate:.3}\n\
         [roles.source]\ncpus = \"0-1\"\n[roles.engine]\ncpus = \"0-1\"\n\
         [settings]\nbatch_interval = \"1s\"\ncores = 2\npartitions = 0\nreduce_partitions = 1\nmemory_bytes = 1000000000\n"
    );
    std::fs::write(&file, text).expect("a file");
    let output = Command::new(env!("CARGO_BIN_EXE_scalelab"))
        .args(["run", "--out"])
        .arg(folder.path().join("runs"))
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    let results = std::fs::read_to_string(folder.path().join("runs/latest/results.jsonl")).unwrap_or_default();
    let trial: serde_json::Value = results
        .lines()
        .next()
        .and_then(|line| serde_json::from_str(line).ok())
        .unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let number = |key: &str| trial["stream"][key].as_f64().unwrap_or(f64::NAN);
    Streamed {
        processing_ms: number("avg_processing_time_ms"),
        stable: trial["stream"]["state"] == "stable",
        scheduling_delay_ms: number("avg_scheduling_delay_ms"),
        sent: number("avg_input_rate_per_s") / rate,
    }
}

/// The highest rate that is held with no scheduling delay, between two rates that are 5 % apart in the end.
pub fn highest_held(mut low: f64, mut high: f64, seconds: u32) -> f64 {
    let held = |rate: f64| {
        let seen = word_count(rate, seconds);
        let held = seen.stable && seen.scheduling_delay_ms < 1.0 && seen.sent > 0.99;
        println!(
            "  {rate:.0} lines/s: processing {:.0} ms, delay {:.1} ms, sent {:.3}: {}",
            seen.processing_ms,
            seen.scheduling_delay_ms,
            seen.sent,
            if held { "held" } else { "not held" }
        );
        held
    };
    if !held(low) {
        return 0.0;
    }
    while high / low > 1.05 {
        let middle = (low * high).sqrt();
        if held(middle) { low = middle } else { high = middle }
    }
    low
}

/// Seconds from the start of the program until an hour of stream is simulated and saved; the report is not counted.
pub fn simulated_hour_s() -> f64 {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let file = folder.path().join("hour.toml");
    let text = "system = \"socket-stream\"\ndeployment = \"simulated\"\ntrials = 1\nwarmup = \"0s\"\nduration = \"1h\"\n\
                [load]\nmode = \"open\"\nrate = 150\n\
                [settings]\nlike = \"spark\"\nbatch_interval = \"2s\"\ncores = 8\npartitions = 8\ncost = \"5ms\"\n";
    std::fs::write(&file, text).expect("a file");
    let begun = std::time::SystemTime::now();
    let status = Command::new(env!("CARGO_BIN_EXE_scalelab"))
        .args(["run", "--out"])
        .arg(folder.path().join("runs"))
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("the program starts");
    assert!(status.success());
    let saved = folder.path().join("runs/latest/results.jsonl").metadata().and_then(|file| file.modified());
    saved.expect("a result").duration_since(begun).expect("a clock that goes forward").as_secs_f64()
}

//! Roles on threads of the test, what they told, and sources that misbehave.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use kit::batch::{Batch, Entry, Receiver, Status};
use kit::host::{self, Hosted};
use kit::journal::Line;
use kit::{Clock, OpsRecord, Role, RoleConfig};
use serde_json::{Value, json};
use socket_stream::words::Lines;
use socket_stream::{ROLES, Settings};

pub const SEED: u64 = 7;

/// So many lines a second for so long, as settings have it.
pub fn stages(per_s: f64, seconds: u64) -> Value {
    json!([{ "duration": { "secs": seconds, "nanos": 0 }, "from_per_s": per_s, "to_per_s": per_s }])
}

pub fn settings(settings: &Value) -> Settings {
    serde_json::from_value(settings.clone()).unwrap()
}

/// Starts a source; it waits for its clients and the start.
pub fn source(settings: &Value) -> Hosted {
    begin("source", settings, |_| {})
}

/// Starts an engine that reads from an address of the system's own source.
pub fn engine(settings: &Value, source: SocketAddr) -> Hosted {
    begin("engine", settings, |config| {
        config.peers.insert("source".into(), vec![source.to_string()]);
    })
}

pub fn begin(name: &str, settings: &Value, change: impl FnOnce(&mut RoleConfig)) -> Hosted {
    let role = *ROLES.iter().find(|role| role.name == name).expect("a role of the table");
    begin_role(role, settings, change)
}

pub fn begin_role(role: Role, settings: &Value, change: impl FnOnce(&mut RoleConfig)) -> Hosted {
    let mut config = RoleConfig::new(role.name);
    config.seed = SEED;
    config.settings = settings.clone();
    change(&mut config);
    let mut hosted = host::start(role, config, Clock::real()).unwrap();
    if !hosted.wait_until_started() {
        panic!("a role ended at its start: {:?}", hosted.join());
    }
    hosted
}

/// Gives the start signal to all of them, for now.
pub fn start(roles: &[&Hosted]) {
    let now_ns = Clock::real().now_ns();
    roles.iter().for_each(|role| role.admin.control.start(now_ns));
}

/// Asks one to begin nothing new, and waits until all it had begun has ended.
pub fn drain(role: &Hosted) {
    role.admin.control.stop();
    until("the role is drained", || role.admin.control.is_drained());
}

/// Ends one, and all of its threads.
pub fn end(mut role: Hosted) {
    role.request_stop();
    role.join().unwrap();
    until("every thread has ended", || kit::usage::of_threads(&role.thread_prefix).is_empty());
}

/// Waits for a condition, at most twenty seconds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let clock = Clock::real();
    let deadline_ns = clock.now_ns() + 20_000_000_000;
    let (_nobody, never) = mpsc::channel::<()>();
    while !condition() {
        assert!(clock.now_ns() < deadline_ns, "waited 20 s in vain until {what}");
        // A condition looks at what other threads do: they need the CPU more.
        let _ = never.recv_timeout(std::time::Duration::from_millis(2));
    }
}

/// All that a role has told, in order.
pub fn journal(role: &Hosted) -> Vec<Entry> {
    let text = role.admin.journal(0);
    text.lines().map(|line| serde_json::from_str::<Line<Entry>>(line).unwrap().entry).collect()
}

/// Each batch as it was told last.
pub fn batches(role: &Hosted) -> Vec<Batch> {
    let mut batches = BTreeMap::new();
    for entry in journal(role) {
        if let Entry::Batch(batch) = entry {
            batches.insert(batch.batch, batch);
        }
    }
    batches.into_values().collect()
}

/// What was told of receivers, in order.
pub fn receivers(role: &Hosted) -> Vec<Receiver> {
    let receiver = |entry| if let Entry::Receiver(receiver) = entry { Some(receiver) } else { None };
    journal(role).into_iter().filter_map(receiver).collect()
}

/// Records of the batches that have ended well.
pub fn completed_records(role: &Hosted) -> u64 {
    let completed = batches(role).into_iter().filter(|batch| batch.status == Status::Completed);
    completed.map(|batch| batch.records).sum()
}

/// The values of one gauge.
pub fn series(role: &Hosted, name: &str) -> Vec<Option<f64>> {
    role.admin.series.after(0).into_iter().filter(|point| point.name == name).map(|point| point.value).collect()
}

/// The operations of one kind, all seconds together.
pub fn ops(role: &Hosted, kind: &str) -> OpsRecord {
    let mut sum = OpsRecord::default();
    for line in role.admin.ops(0).lines() {
        let record: OpsRecord = serde_json::from_str(line).unwrap();
        assert!(!record.open, "second {} of {:?} is open", record.second, record.kind);
        if record.kind == kind {
            sum.merge(&record);
        }
    }
    sum
}

/// What batches printed, added up by word.
pub fn printed<'a>(batches: impl IntoIterator<Item = &'a Batch>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for row in batches.into_iter().flat_map(|batch| &batch.output) {
        let (word, count) = row.trim_matches(['(', ')']).rsplit_once(", ").unwrap();
        *counts.entry(word.to_owned()).or_default() += count.parse::<u64>().unwrap();
    }
    counts
}

/// The words of the first lines of so many streams, counted plainly.
pub fn counted(settings: &Settings, streams: u32, lines: u64) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for stream in 0..streams {
        let ring = Lines::new(settings, SEED, stream);
        for word in (0..lines).flat_map(|n| ring.line(n).split(' ')) {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// A source of someone else: it sends each client what its script has for it, in order, and closes the connection where
/// the script says so. The last one keeps its connection for ever.
pub fn foreign_source(script: Vec<(Vec<u8>, AtEnd)>) -> SocketAddr {
    let listener = listener();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut kept: Vec<TcpStream> = Vec::new();
        for (bytes, at_end) in script {
            let (mut socket, _) = listener.accept().unwrap();
            // A client that does not want all of it goes.
            let _ = socket.write_all(&bytes);
            match at_end {
                AtEnd::Close => drop(socket),
                AtEnd::Stay => kept.push(socket),
            }
        }
        // Whoever comes later waits.
        loop {
            thread::park();
        }
    });
    addr
}

#[derive(Clone, Copy)]
pub enum AtEnd {
    Close,
    Stay,
}

/// A loopback listener on any port.
#[expect(clippy::disallowed_methods, reason = "the test is the other end")]
pub fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

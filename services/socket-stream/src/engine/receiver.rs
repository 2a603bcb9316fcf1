//! A receiver: a thread that connects to the source and reads lines into its inbox.
//!
//! The one rule: it never ends a run. A source that is absent, goes, or sends what is no line is told with the reason, and
//! connected to again after the delay.
//!
//! A rate limit holds up what is read, so no more is read at once than it lets pass in about a second; at the stop that
//! much passes at once, and is in a batch. What the source has sent beyond it is still read as fast as the limit allows.

use std::io::{self, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use rustix::event::PollFlags;
use tokio::sync::mpsc::UnboundedSender;

use super::Engine;
use super::ledger::Note;
use super::lines::{self, LineBuffer};
use crate::policy::{Receiving, ns};
use crate::socket::{self, LOOK};

/// How long a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;
/// What comes within this time is read together, unless the last read was large: one for each small packet costs more
/// than what is in it.
const GATHER_NS: u64 = 1_000_000;
const LARGE_READ: usize = 32 << 10;
/// About how long a line is, before there was one.
const LINE_BYTES: usize = 64;
/// A source that ends may do so because the run does: for so long a stop is waited for before it is told as lost.
const END_OF_RUN: Duration = Duration::from_secs(1);

/// A source of ours that has sent nothing for so long after the stop, nor ended, has nothing more. Shorter silences are
/// usual where a window was closed: it is probed after 200 ms.
const QUIET: Duration = Duration::from_millis(500);

/// Receives until the run ends: the body of a receiver's thread. Says once that it has tried to connect.
pub(super) fn receive(engine: &Engine, stream: u32, tried: &UnboundedSender<()>) {
    // One after another, so that receiver n is the source's client n.
    engine.signal.wait_until(u64::MAX, |told| told.end || told.tried >= stream);
    let first = connect(&engine.source);
    let connected_ns = engine.clock.now_ns();
    engine.signal.tell(|told| told.tried += 1);
    let _ = tried.send(());
    let Some((origin_ns, first)) = until_start(engine, first, connected_ns) else { return };
    let mut receiver = Receiver::new(engine, stream, origin_ns);
    let cut = receiver.run(first);
    if let Some(core) = engine.core.get() {
        core.receiver_ended(engine, cut);
    }
}

/// Tries again until the start; none when there will be none. What a source sends before is not read.
fn until_start(
    engine: &Engine,
    mut socket: Result<TcpStream, String>,
    mut connected_ns: u64,
) -> Option<(u64, Option<TcpStream>)> {
    loop {
        let retry_ns = match socket {
            Ok(_) => u64::MAX,
            Err(_) => engine.clock.now_ns().saturating_add(ns(engine.settings.receiver_restart_delay)),
        };
        let told = engine.signal.wait_until(retry_ns, |told| told.end || told.start_ns.is_some());
        if told.end {
            return None;
        }
        if let Some(start_ns) = told.start_ns {
            engine.signal.wait_until(start_ns, |told| told.end);
            // A source that was reached too late is connected to anew, as one that comes later.
            return Some((start_ns, socket.ok().filter(|_| connected_ns <= start_ns)));
        }
        socket = connect(&engine.source);
        connected_ns = engine.clock.now_ns();
    }
}

fn connect(source: &str) -> Result<TcpStream, String> {
    let cannot = |error: io::Error| format!("cannot connect to {source}: {error}");
    let mut refused = None;
    for addr in source.to_socket_addrs().map_err(cannot)? {
        let connected = TcpStream::connect_timeout(&addr, CONNECT_WITHIN);
        match connected.and_then(|socket| socket.set_nonblocking(true).map(|()| socket)) {
            Ok(socket) => return Ok(socket),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.map_or_else(|| format!("cannot connect to {source}: it has no address"), cannot))
}

struct Receiver<'a> {
    engine: &'a Engine,
    stream: u32,
    start_ns: u64,
    receiving: Receiving,
    buffer: LineBuffer,
    /// Lines received, which is the number of the next one, and their bytes.
    received: u64,
    received_bytes: u64,
    /// Bytes that the last read gave.
    last_read: usize,
}

/// Why reading from one connection ended.
enum End {
    /// The run ends.
    Run,
    /// The source has closed the connection.
    Closed,
    /// Something else about the source.
    Lost(String),
}

impl<'a> Receiver<'a> {
    fn new(engine: &'a Engine, stream: u32, start_ns: u64) -> Self {
        let settings = &engine.settings;
        let mut receiving = Receiving::new(stream, &engine.source, ns(settings.receiver_restart_delay), start_ns);
        if engine.foreign {
            receiving.no_record_latency("the source is a foreign one, so when its lines were due is not known");
        }
        // However many receivers hold a line that has only begun, each can read its own to the end.
        let share = (settings.memory_bytes / u64::from(settings.running_receivers())).saturating_sub(1);
        let longest = usize::try_from(settings.max_line_bytes.min(share)).unwrap_or(usize::MAX);
        let buffer = LineBuffer::new(longest);
        Self { engine, stream, start_ns, receiving, buffer, received: 0, received_bytes: 0, last_read: 0 }
    }

    /// Connects, reads, and connects again, until the run ends. Says whether it was cut off before its source had ended.
    fn run(&mut self, mut first: Option<TcpStream>) -> bool {
        let cut = loop {
            let connected = match first.take() {
                Some(socket) => Ok(socket),
                None => self.connect_late(),
            };
            let (lost_ns, reason, cut) = match connected {
                Ok(socket) => {
                    let entry = self.receiving.connected(self.engine.clock.now_ns());
                    self.tell(entry);
                    let end = self.read(&socket);
                    let lost_ns = self.engine.clock.now_ns();
                    self.engine.memory.release(self.buffer.held() as u64);
                    self.buffer.clear();
                    match end {
                        End::Run => break true,
                        End::Closed if self.run_ends(lost_ns) => break false,
                        End::Closed => (lost_ns, "the source closed the stream".to_owned(), false),
                        End::Lost(reason) => (lost_ns, reason, true),
                    }
                }
                Err(reason) => (self.engine.clock.now_ns(), reason, true),
            };
            let (entry, again_ns) = self.receiving.lost(lost_ns, &reason);
            self.tell(entry);
            let told = self.engine.signal.wait_until(again_ns, |told| told.end || told.stop_ns.is_some());
            if told.end || told.stop_ns.is_some() {
                break cut;
            }
        };
        let entry = self.receiving.ended(self.engine.clock.now_ns());
        self.tell(entry);
        cut
    }

    fn connect_late(&mut self) -> Result<TcpStream, String> {
        let socket = connect(&self.engine.source)?;
        let late = "the source was reached after the start, so when its lines were due is not known";
        self.receiving.no_record_latency(late);
        Ok(socket)
    }

    /// Whether a source that has just closed the stream did so because the run ends.
    fn run_ends(&self, closed_ns: u64) -> bool {
        let at_most = END_OF_RUN.min(self.engine.settings.receiver_restart_delay);
        let stops = |told: &super::signal::Told| told.end || told.stop_ns.is_some();
        let told = self.engine.signal.wait_until(closed_ns.saturating_add(ns(at_most)), stops);
        stops(&told)
    }

    fn tell(&mut self, entry: kit::batch::Entry) {
        if !self.receiving.knows_lines() {
            self.engine.note(Note::Forget { stream: self.stream, line: self.received });
        }
        self.engine.note(Note::Tell(Box::new(entry)));
    }

    /// Reads one connection to its end. After the stop, what our own source has sent until then is still to come; one of
    /// someone else may never end.
    fn read(&mut self, socket: &TcpStream) -> End {
        let quiet = if self.engine.foreign { Duration::ZERO } else { QUIET.max(self.engine.settings.block_interval) };
        let quiet_ns = ns(quiet);
        let mut last_ns = self.engine.clock.now_ns();
        loop {
            let told = self.engine.signal.told();
            let now_ns = self.engine.clock.now_ns();
            let quiet_since_ns =
                told.stop_ns.map(|stop_ns| if self.engine.foreign { stop_ns } else { stop_ns.max(last_ns) });
            if told.end || quiet_since_ns.is_some_and(|since_ns| now_ns >= since_ns.saturating_add(quiet_ns)) {
                return End::Run;
            }
            match socket::wait(socket, PollFlags::IN, LOOK) {
                Ok(came) if came.is_empty() => continue,
                Ok(_) => {}
                Err(error) => return self.broken(&error),
            }
            // There is something, and it is not quiet while there is no room for it.
            if self.last_read < LARGE_READ {
                self.engine.signal.wait_until(last_ns + GATHER_NS, |told| told.end);
            }
            last_ns = self.engine.clock.now_ns();
            match self.read_some(socket) {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(error) => return self.broken(&error),
            }
        }
    }

    fn broken(&self, error: &io::Error) -> End {
        End::Lost(format!("reading from {}: {error}", self.engine.source))
    }

    /// Bytes that the limit lets pass in about a second.
    fn most_at_once(&self) -> usize {
        let Some(per_s) = self.engine.inboxes[self.stream as usize].rate() else { return READ_BYTES };
        let mean = self.received_bytes.checked_div(self.received).unwrap_or(LINE_BYTES as u64);
        // A line that has begun and is longer than those before it is not read in small pieces.
        let line = (mean as f64).max(self.buffer.held() as f64);
        ((per_s * line) as usize).clamp(LINE_BYTES, READ_BYTES)
    }

    /// Reads what there is, as far as it may be held.
    fn read_some(&mut self, mut socket: &TcpStream) -> io::Result<Option<End>> {
        let engine = self.engine;
        if !engine.inboxes[self.stream as usize].has_room(self.buffer.held() + READ_BYTES) {
            return Ok(self.wait_for_block());
        }
        let (now_ns, next_ns) = (engine.clock.now_ns(), engine.inboxes[self.stream as usize].next_ns());
        if next_ns > now_ns {
            let told = engine.signal.wait_until(next_ns.min(now_ns + ns(LOOK)), |told| told.end);
            return Ok(told.end.then_some(End::Run));
        }
        let most = engine.memory.hold(self.most_at_once(), LOOK);
        if most == 0 {
            return Ok(None);
        }
        let result = socket.read(self.buffer.room(most));
        let read = *result.as_ref().unwrap_or(&0);
        engine.memory.release((most - read) as u64);
        self.last_read = read;
        match result {
            Ok(0) => Ok(Some(self.closed())),
            Ok(read) => Ok(self.take(read)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The block is as large as one can be: the next tick takes it.
    fn wait_for_block(&self) -> Option<End> {
        let before_ns = self.engine.clock.now_ns();
        let told = self.engine.signal.wait_until(before_ns + ns(LOOK), |told| told.end);
        self.engine.memory.blocked(self.engine.clock.now_ns() - before_ns);
        told.end.then_some(End::Run)
    }

    /// Puts the lines that are complete now into the inbox.
    fn take(&mut self, read: usize) -> Option<End> {
        let mut buffer = std::mem::replace(&mut self.buffer, LineBuffer::new(0));
        let before = buffer.held() + read;
        let (mut taken, mut ended) = (0, false);
        let fault = buffer.read(read, |text| (taken, ended) = (text.len(), self.pass(text)));
        if fault.is_some() {
            // What is no line is not held.
            self.engine.memory.release((before - taken - buffer.held()) as u64);
        }
        self.buffer = buffer;
        if ended { Some(End::Run) } else { fault.map(|fault| End::Lost(fault.to_string())) }
    }

    /// The source has ended; what it began is a line.
    fn closed(&mut self) -> End {
        let mut buffer = std::mem::replace(&mut self.buffer, LineBuffer::new(0));
        let held = buffer.held();
        let (mut taken, mut ended) = (0, false);
        let fault = buffer.end(|text| (taken, ended) = (text.len(), self.pass(text)));
        self.engine.memory.release((held - taken) as u64);
        self.buffer = buffer;
        match fault {
            _ if ended => End::Run,
            Some(fault) => End::Lost(fault.to_string()),
            None => End::Closed,
        }
    }

    /// Puts lines into the inbox, as fast as the limit allows, and after the stop at once; says whether everything ends.
    fn pass(&mut self, text: &str) -> bool {
        let inbox = &self.engine.inboxes[self.stream as usize];
        let (mut text, mut left) = (text, lines::count(text));
        self.received_bytes += text.len() as u64;
        while left > 0 {
            let now_ns = self.engine.clock.now_ns();
            let (granted, next_ns) = if self.engine.signal.told().stop_ns.is_some() {
                inbox.pass(now_ns, left);
                (left, now_ns)
            } else {
                inbox.grant(now_ns, left)
            };
            let first_line = self.receiving.knows_lines().then_some(self.received);
            if granted == left {
                inbox.add(text, left, first_line);
            } else if granted > 0 {
                let (first, rest) = lines::split(text, granted);
                inbox.add(first, granted, first_line);
                text = rest;
            } else if self.wait_for_rate(next_ns, left, text.len()) {
                return true;
            }
            self.received += granted;
            left -= granted;
        }
        false
    }

    /// Waits until the next line may pass, or the rate may have changed, or the stop; says whether everything ends instead.
    fn wait_for_rate(&self, next_ns: u64, left: u64, bytes: usize) -> bool {
        let look_ns = self.engine.clock.now_ns() + ns(LOOK);
        let told = self.engine.signal.wait_until(next_ns.min(look_ns), |told| told.end || told.stop_ns.is_some());
        if told.end {
            let waited_s = self.engine.clock.now_ns().saturating_sub(self.start_ns) as f64 / 1e9;
            eprintln!(
                "receiver {}: the run ended after {waited_s:.1} s, before {left} lines that were read ({bytes} bytes) \
                 had passed the rate limit; they are in no batch",
                self.stream
            );
        }
        told.end
    }
}

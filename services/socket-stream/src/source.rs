//! The role `source`: serves lines of text over TCP, on time.
//!
//! Whatever reads lines from a socket can be its client. Each connection is a stream of its own with the whole schedule:
//! line `n` of a stream is due at its origin plus `schedule(n)`, and the origin is the start, or the accept where that is
//! later. The one rule: the schedule never waits for a client. A client that reads slowly makes the write block; that
//! time is counted, and every line that is due still leaves, late.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use kit::role::BoxFuture;
use kit::{Clock, Env, Role, Schedule};
use rustix::event::PollFlags;
use tokio::sync::mpsc;

use crate::Settings;
use crate::socket::{self, LOOK};
use crate::words::{self, Lines};

/// The row of the table.
pub const ROLE: Role = Role { name: "source", about: "serves lines of text over TCP, on schedule", run };

const S: u64 = 1_000_000_000;
/// Lines that are due within this time leave together.
const GATHER_NS: u64 = 1_000_000;
/// What one write holds at most, so that a count of lines sent is never far behind.
const WRITE_BYTES: usize = 256 << 10;

fn run(env: Env) -> BoxFuture<anyhow::Result<()>> {
    Box::pin(serve(env))
}

async fn serve(mut env: Env) -> anyhow::Result<()> {
    let settings: Settings = env.config.settings()?;
    settings.check().map_err(|(key, what)| anyhow::anyhow!("settings of role source: {key}: {what}"))?;
    let listener = env.listener();
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (flushed, flushes) = mpsc::unbounded_channel();
    let source = Arc::new(Source {
        settings,
        seed: env.config.seed,
        clock: env.clock.clone(),
        told: Told::default(),
        taken: Mutex::default(),
        sums: Sums::default(),
        flushed,
    });
    env.ready();
    let _end = End(source.clone());
    tokio::select! {
        result = accept(&env, &source, &listener) => result,
        result = follow(&env, &source, flushes) => result,
        () = env.shutdown.requested() => Ok(()),
    }
}

/// Dropped, also when the role is killed where it stands, it ends the threads of the clients.
struct End(Arc<Source>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.told.shutdown.store(0, Relaxed);
    }
}

/// Gives each connection a thread, for ever.
async fn accept(env: &Env, source: &Arc<Source>, listener: &tokio::net::TcpListener) -> anyhow::Result<()> {
    loop {
        let (socket, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            // Too many open files, or a client that went before it was taken: the next one may do.
            Err(error) => {
                eprintln!("source: a client could not be accepted: {error}");
                env.clock.sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let accepted_ns = env.clock.now_ns();
        let socket = socket.into_std()?;
        socket.set_nodelay(true)?;
        let place = Place::lowest(source);
        let name = env.thread_name(&format!("send{}", place.stream));
        let client = move || {
            let source = place.source.clone();
            // A client that went: its place is free again.
            let _ = Client::new(&source, socket, place.stream, accepted_ns).serve();
            drop(place);
        };
        thread::Builder::new().name(name).spawn(client).context("starting a thread for a client of the source")?;
    }
}

/// Passes the lab's signals on, and tells the gauges each second.
async fn follow(env: &Env, source: &Source, mut flushes: mpsc::UnboundedReceiver<()>) -> anyhow::Result<()> {
    let start_ns = env.control.started().await;
    source.told.start.store(start_ns, Relaxed);
    let mut tick_ns = start_ns.max(env.clock.now_ns());
    loop {
        tokio::select! {
            () = env.clock.sleep_until(tick_ns) => {
                source.tell(env);
                tick_ns += S;
            }
            () = env.control.stopped() => break,
        }
    }
    let stop_ns = env.clock.now_ns();
    source.told.stop.store(stop_ns, Relaxed);
    while source.sums.unflushed.load(Relaxed) > 0 {
        // One comes for each client that ends; none of them ends later than the time for a graceful stop.
        if flushes.recv().await.is_none() {
            break;
        }
    }
    source.tell(env);
    env.control.set_drained();
    std::future::pending().await
}

/// What all clients share.
struct Source {
    settings: Settings,
    seed: u64,
    clock: Clock,
    told: Told,
    /// Stream numbers in use.
    taken: Mutex<BTreeSet<u32>>,
    sums: Sums,
    /// Told by each client when its last line has left, or it has.
    flushed: mpsc::UnboundedSender<()>,
}

/// Instants, `u64::MAX` until they are known.
struct Told {
    start: AtomicU64,
    stop: AtomicU64,
    shutdown: AtomicU64,
}

impl Default for Told {
    fn default() -> Self {
        let unknown = || AtomicU64::new(u64::MAX);
        Self { start: unknown(), stop: unknown(), shutdown: unknown() }
    }
}

/// Sums over all clients since the start.
#[derive(Default)]
struct Sums {
    due: AtomicU64,
    sent: AtomicU64,
    blocked_ns: AtomicU64,
    clients: AtomicU64,
    /// Clients that may still send.
    unflushed: AtomicU64,
}

impl Source {
    fn tell(&self, env: &Env) {
        let now_ns = env.clock.now_ns();
        let count = |sum: &AtomicU64| Some(sum.load(Relaxed) as f64);
        env.series.push(now_ns, "sent_lines", count(&self.sums.sent));
        env.series.push(now_ns, "due_lines", count(&self.sums.due));
        env.series.push(now_ns, "blocked_s", count(&self.sums.blocked_ns).map(|ns| ns / 1e9));
        env.series.push(now_ns, "clients", count(&self.sums.clients));
    }

    fn taken(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.taken.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The lowest stream number that was free; free again when dropped.
struct Place {
    source: Arc<Source>,
    stream: u32,
}

impl Place {
    fn lowest(source: &Arc<Source>) -> Self {
        let mut taken = source.taken();
        // One of so many numbers is free, as fewer are taken.
        let stream = (0..=taken.len() as u32).find(|stream| !taken.contains(stream)).unwrap_or(0);
        taken.insert(stream);
        source.sums.clients.fetch_add(1, Relaxed);
        source.sums.unflushed.fetch_add(1, Relaxed);
        Self { source: source.clone(), stream }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.source.taken().remove(&self.stream);
        self.source.sums.clients.fetch_sub(1, Relaxed);
    }
}

/// One connection.
struct Client<'a> {
    source: &'a Source,
    socket: TcpStream,
    lines: Lines,
    schedule: std::iter::Peekable<Schedule>,
    accepted_ns: u64,
    /// Lines due so far.
    due: u64,
    /// Lines sent whole,
    sent: u64,
    /// and bytes of the next.
    offset: usize,
    /// When lines were last looked for.
    gathered_ns: u64,
    /// Whether it may still send; told once that it does not.
    sending: bool,
}

/// The client has gone, or the role ends.
struct Gone;

impl<'a> Client<'a> {
    fn new(source: &'a Source, socket: TcpStream, stream: u32, accepted_ns: u64) -> Self {
        Self {
            source,
            socket,
            lines: Lines::new(&source.settings, source.seed, stream),
            schedule: words::schedule(&source.settings, source.seed, stream).peekable(),
            accepted_ns,
            due: 0,
            sent: 0,
            offset: 0,
            gathered_ns: 0,
            sending: true,
        }
    }

    fn serve(mut self) -> Result<(), Gone> {
        let origin_ns = self.wait_for_start()?.max(self.accepted_ns);
        self.send(origin_ns)?;
        self.flushed();
        // Sent is not read: the connection stays until the client has had all of it.
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
        loop {
            self.rest(LOOK, true)?;
        }
    }

    fn wait_for_start(&mut self) -> Result<u64, Gone> {
        loop {
            match self.source.told.start.load(Relaxed) {
                // Before the first line nothing else would tell that a client has gone.
                u64::MAX => self.rest(LOOK, true)?,
                start_ns => return Ok(start_ns),
            }
        }
    }

    /// Sends every line when it is due, until the stop and what was due by then.
    fn send(&mut self, origin_ns: u64) -> Result<(), Gone> {
        loop {
            let stop_ns = self.source.told.stop.load(Relaxed);
            if self.sent < self.due {
                self.write(origin_ns, stop_ns)?;
                continue;
            }
            let now_ns = self.source.clock.now_ns();
            let wake_ns = self.wake_ns(origin_ns);
            if now_ns < wake_ns.min(stop_ns) {
                self.rest_until(wake_ns, now_ns)?;
                continue;
            }
            self.gathered_ns = now_ns;
            self.count_due(origin_ns, now_ns.min(stop_ns));
            if self.sent == self.due && now_ns >= stop_ns {
                return Ok(());
            }
        }
    }

    /// When the next lines are to be sent: when one is due, but not right after those before.
    fn wake_ns(&mut self, origin_ns: u64) -> u64 {
        let due_ns = self.schedule.peek().map_or(u64::MAX, |at_ns| origin_ns.saturating_add(*at_ns));
        due_ns.max(self.gathered_ns + GATHER_NS)
    }

    fn count_due(&mut self, origin_ns: u64, now_ns: u64) {
        let Some(since_origin_ns) = now_ns.checked_sub(origin_ns) else { return };
        let before = self.due;
        while self.schedule.next_if(|at_ns| *at_ns <= since_origin_ns).is_some() {
            self.due += 1;
        }
        self.source.sums.due.fetch_add(self.due - before, Relaxed);
    }

    fn write(&mut self, origin_ns: u64, stop_ns: u64) -> Result<(), Gone> {
        let piece = self.lines.piece(self.sent, self.offset, self.due - self.sent, WRITE_BYTES);
        match self.socket.write(piece) {
            Ok(0) => Err(Gone),
            Ok(bytes) => {
                let (ended, within) = self.lines.advance(self.sent, self.offset, bytes);
                (self.sent, self.offset) = (self.sent + ended, within);
                self.source.sums.sent.fetch_add(ended, Relaxed);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.blocked(origin_ns, stop_ns),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(_) => Err(Gone),
        }
    }

    /// The client does not read. Meanwhile more is due.
    fn blocked(&mut self, origin_ns: u64, stop_ns: u64) -> Result<(), Gone> {
        let before_ns = self.source.clock.now_ns();
        let patience_ns = self.source.settings.graceful_stop_timeout().as_nanos() as u64;
        if before_ns > stop_ns.saturating_add(patience_ns) || self.shuts_down() {
            return Err(Gone);
        }
        let came = socket::wait(&self.socket, PollFlags::OUT, LOOK).map_err(|_| Gone)?;
        let now_ns = self.source.clock.now_ns();
        self.source.sums.blocked_ns.fetch_add(now_ns - before_ns, Relaxed);
        self.count_due(origin_ns, now_ns.min(stop_ns));
        if came.intersects(PollFlags::ERR | PollFlags::HUP) { Err(Gone) } else { Ok(()) }
    }

    fn rest_until(&mut self, wake_ns: u64, now_ns: u64) -> Result<(), Gone> {
        // Once nothing is due any more, no write would tell that the client has gone.
        let end_is_gone = wake_ns == u64::MAX;
        self.rest(LOOK.min(Duration::from_nanos(wake_ns.saturating_sub(now_ns))), end_is_gone)
    }

    /// Waits, and drops what the client says meanwhile. A client that has only ended its own sending may still read;
    /// `end_is_gone` says that it is taken for gone all the same.
    fn rest(&mut self, at_most: Duration, end_is_gone: bool) -> Result<(), Gone> {
        if self.shuts_down() {
            return Err(Gone);
        }
        let events = if end_is_gone { PollFlags::IN | PollFlags::RDHUP } else { PollFlags::empty() };
        let came = socket::wait(&self.socket, events, at_most).map_err(|_| Gone)?;
        if came.intersects(PollFlags::ERR | PollFlags::HUP) {
            return Err(Gone);
        }
        if came.contains(PollFlags::IN) {
            let mut said = [0; 4096];
            match self.socket.read(&mut said) {
                Ok(0) => return Err(Gone),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(Gone),
                _ => {}
            }
        }
        Ok(())
    }

    fn shuts_down(&self) -> bool {
        self.source.told.shutdown.load(Relaxed) != u64::MAX
    }

    fn flushed(&mut self) {
        if std::mem::take(&mut self.sending) {
            self.source.sums.unflushed.fetch_sub(1, Relaxed);
            let _ = self.source.flushed.send(());
        }
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        self.flushed();
    }
}

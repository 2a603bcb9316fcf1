//! The role `engine`: receives lines, and runs a job on each batch of them, with threads and in real time.
//!
//! ```text
//! receiver threads ─ lines ─► inbox ─ blocks ─► core (policy::Driver behind one lock) ─ tasks ─► slot threads
//!                                                │ entries, batches that ended
//!                                                └─► ledger thread: journal, operations, series
//! ```
//!
//! The one rule: nothing is decided here. The driver says what to do; these threads do it and say when it was done. A
//! slot that ends a task asks for the next one itself, so no task waits for a thread that only passes it on.

mod core;
mod inbox;
mod ledger;
mod lines;
mod receiver;
mod signal;
mod slot;

use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use kit::role::BoxFuture;
use kit::{Clock, Env, Role};
use tokio::sync::mpsc as asynchronous;

use self::core::Core;
use self::inbox::{Inbox, Memory, Spare};
use self::ledger::{Ledger, Note};
use self::signal::Signal;
use crate::ops::Ops;
use crate::policy::{Driver, RateLimiter, Start};
use crate::settings::{KEPT_IN_TURN, Settings};
use crate::stream::Job;

/// The row of the table: the engine with the word count of its settings.
pub const ROLE: Role = Role { name: "engine", about: "receives lines, and counts their words batch by batch", run };

fn run(env: Env) -> BoxFuture<anyhow::Result<()>> {
    Box::pin(run_job(env, |settings| Ok(Job::word_count(settings))))
}

/// A source that is not reached by then does not keep the role from being ready.
const TRIED_WITHIN: Duration = Duration::from_secs(2);

/// What all threads of an engine share.
struct Engine {
    settings: Settings,
    clock: Clock,
    /// Where lines come from.
    source: String,
    /// Whether that is not the system's own source.
    foreign: bool,
    signal: Signal,
    memory: Memory,
    /// By stream.
    inboxes: Vec<Inbox>,
    spare: Spare,
    notes: mpsc::Sender<Note>,
    /// There from the start on.
    core: OnceLock<Core>,
}

impl Engine {
    /// Hands something to the ledger, which ends last.
    fn note(&self, note: Note) {
        let _ = self.notes.send(note);
    }
}

/// Runs a job as a role, until its shutdown: what the role `engine` does with a word count.
///
/// # Errors
/// When the settings make no sense, no source is given, or a thread ends that must not.
pub async fn run_job(mut env: Env, make: impl FnOnce(&Settings) -> anyhow::Result<Job>) -> anyhow::Result<()> {
    // It serves nobody.
    drop(env.listener.take());
    let mut settings: Settings = env.config.settings()?;
    settings.check().map_err(|(key, what)| anyhow::anyhow!("settings of role {}: {key}: {what}", env.config.role))?;
    let job = make(&settings)?;
    anyhow::ensure!(
        !job.keeps || settings.concurrent_jobs == 1,
        "settings of role {}: concurrent_jobs: concurrent_jobs is {}; {KEPT_IN_TURN}",
        env.config.role,
        settings.concurrent_jobs
    );
    settings.partitions = job.plan().partitions;
    settings.reduce_partitions = Some(job.plan().reduce_partitions);
    settings.print = job.print;
    for note in settings.notes().into_iter().chain(too_few_cpus(&settings, env.cpus)) {
        eprintln!("{}: {note}", env.config.role);
    }
    let (notes, noted) = mpsc::channel();
    let engine = Arc::new(engine(&env, settings, notes)?);
    let (ended, mut endings) = asynchronous::unbounded_channel();
    let _end = End(engine.clone());
    let threads = Threads { env: &env, engine, ended };
    tokio::select! {
        result = live(&env, &threads, job, noted) => result,
        Some(error) = endings.recv() => Err(error),
        () = env.shutdown.requested() => Ok(()),
    }
}

/// Dropped, also when the role is killed where it stands, it ends the engine's threads.
struct End(Arc<Engine>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.signal.tell(|told| told.end = true);
        if let Some(core) = self.0.core.get() {
            core.end();
        }
    }
}

fn engine(env: &Env, settings: Settings, notes: mpsc::Sender<Note>) -> anyhow::Result<Engine> {
    let source = match &settings.source {
        Some(source) => source.clone(),
        None => env.config.peers("source")?[0].clone(),
    };
    let clock = env.clock.clone();
    Ok(Engine {
        source,
        foreign: settings.source.is_some(),
        signal: Signal::new(clock.clone()),
        memory: Memory::new(clock.clone(), settings.memory_bytes),
        inboxes: (0..settings.running_receivers())
            .map(|stream| Inbox::new(stream, RateLimiter::of(&settings)))
            .collect(),
        spare: Spare::default(),
        notes,
        core: OnceLock::new(),
        clock,
        settings,
    })
}

async fn live(env: &Env, threads: &Threads<'_>, job: Job, noted: mpsc::Receiver<Note>) -> anyhow::Result<()> {
    let engine = &threads.engine;
    let (tried, mut tries) = asynchronous::unbounded_channel();
    for stream in 0..engine.settings.running_receivers() {
        let tried = tried.clone();
        threads.spawn(&format!("recv{stream}"), move |engine| receiver::receive(&engine, stream, &tried))?;
    }
    // A source that is there is connected before the start, so that its lines are due from the start on.
    let all_tried = async {
        for _ in 0..engine.settings.running_receivers() {
            tries.recv().await;
        }
    };
    tokio::select! {
        () = all_tried => {}
        () = env.clock.sleep(TRIED_WITHIN) => {}
    }
    env.ready();
    let origin_ns = env.control.started().await;
    start(env, threads, job, noted, origin_ns)?;
    env.control.stopped().await;
    engine.signal.tell(|told| told.stop_ns = Some(engine.clock.now_ns()));
    if let Some(core) = engine.core.get() {
        core.stop(engine);
    }
    std::future::pending().await
}

fn start(
    env: &Env,
    threads: &Threads<'_>,
    job: Job,
    noted: mpsc::Receiver<Note>,
    origin_ns: u64,
) -> anyhow::Result<()> {
    let engine = &threads.engine;
    let settings = &engine.settings;
    env.recorder.set_origin(origin_ns);
    let now_ns = engine.clock.now_ns();
    let start = Start {
        now_ns: now_ns.max(origin_ns),
        origin_ns,
        wall_minus_now_ns: engine.clock.wall_ns() as i64 - now_ns as i64,
        notes: too_few_cpus(settings, env.cpus).into_iter().collect(),
    };
    let driver = Driver::new(settings, job.plan().clone(), &start);
    let first_batch_ns = driver.next_batch_tick_ns().unwrap_or(u64::MAX);
    let ops = Ops::new(&env.recorder, settings, env.config.seed, origin_ns, first_batch_ns);
    let ledger = Ledger::new(env, noted, ops, origin_ns);
    threads.spawn("ledger", move |engine| ledger.keep(&engine))?;
    let core = Core::new(driver, job, engine.inboxes.len());
    anyhow::ensure!(engine.core.set(core).is_ok(), "the engine was started twice");
    // What the engine is, is told before anything else.
    engine.core.wait().begin(engine);
    threads.spawn("timer", move |engine| core::keep_time(&engine))?;
    for slot in 0..settings.slots() {
        threads.spawn(&format!("slot{slot}"), move |engine| slot::work(&engine))?;
    }
    engine.signal.tell(|told| told.start_ns = Some(origin_ns));
    Ok(())
}

fn too_few_cpus(settings: &Settings, cpus: usize) -> Option<String> {
    settings.cores_to_compute(cpus).map(|cores| {
        format!(
            "{} slots compute on {cpus} CPUs, so tasks take longer than they cost; set cores to {cores} or fewer, or work \
             to \"sleep\"",
            settings.slots()
        )
    })
}

/// Starts threads that must not end in a panic.
struct Threads<'a> {
    env: &'a Env,
    engine: Arc<Engine>,
    ended: asynchronous::UnboundedSender<anyhow::Error>,
}

impl Threads<'_> {
    fn spawn(&self, name: &str, body: impl FnOnce(Arc<Engine>) + Send + 'static) -> anyhow::Result<()> {
        let (engine, ended, thread_name) = (self.engine.clone(), self.ended.clone(), name.to_owned());
        let guarded = move || {
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(engine))).is_err() {
                let _ = ended.send(anyhow::anyhow!("thread {thread_name} of the engine panicked; its log says where"));
            }
        };
        let started = thread::Builder::new().name(self.env.thread_name(name)).spawn(guarded);
        started.with_context(|| format!("starting thread {name} of the engine"))?;
        Ok(())
    }
}

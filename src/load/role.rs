//! The role `load`: sets its users up, waits for the start, loads, drains, and stays readable until it is told to go.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::thread;

use anyhow::Context as _;
use kit::role::BoxFuture;
use kit::{Clock, Env};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::{mpsc, watch};

use super::LoadSettings;
use super::client::{self, Place};
use super::driver::{Event, Gauges, Job, Signal, run_lane};
use super::scenario::{Compiled, Options, Origin};
use crate::experiment::LoadPlan;

/// Files a generator holds open besides its connections: standard streams, timers, pollers, the admin endpoint.
const FILES_BESIDES: u64 = 64;

pub(super) fn run(env: Env) -> BoxFuture<anyhow::Result<()>> {
    Box::pin(generate(env))
}

async fn generate(mut env: Env) -> anyhow::Result<()> {
    // It serves nobody.
    drop(env.listener.take());
    let settings: LoadSettings = env.config.settings()?;
    let threads = threads(&settings, &env);
    let job = Arc::new(job(&settings, &env, threads).await?);
    let mut generator = Generator::start(&env, job, threads)?;
    tokio::select! {
        result = generator.run(&env) => result?,
        () = env.shutdown.requested() => {}
    }
    env.shutdown.requested().await;
    Ok(())
}

fn threads(settings: &LoadSettings, env: &Env) -> usize {
    let units = match &settings.plan {
        LoadPlan::Closed { users, .. } => *users,
        LoadPlan::Open { connections, .. } => *connections,
    };
    let share = (units.div_ceil(settings.workers.max(1)) as usize).max(1);
    settings.threads.unwrap_or(env.cpus).clamp(1, share)
}

async fn job(settings: &LoadSettings, env: &Env, threads: usize) -> anyhow::Result<Job> {
    let workers = settings.workers.max(1);
    let replica = env.config.replica;
    anyhow::ensure!(
        (1..=workers).contains(&replica),
        "replica {replica} of role load does not exist: there are {workers} (settings.workers)"
    );
    raise_file_limit(needed_files(&settings.plan, workers))?;
    let options = Options {
        run: &env.config.run,
        seed: env.config.seed,
        keep_alive: !settings.disable_keepalive,
        history: settings.history,
    };
    let target = target(settings, env)?;
    let scenario = Compiled::new(&settings.scenario, target, &options)?;
    let tls = match scenario.origins.iter().any(|origin| origin.https) {
        true => Some(client::tls(settings.insecure)?),
        false => None,
    };
    let mut places = Vec::new();
    for origin in &scenario.origins {
        places.push(Place::resolve(origin, tls.as_ref()).await?);
    }
    let closed = matches!(settings.plan, LoadPlan::Closed { .. });
    let share = |requests: u64| {
        let (workers, at) = (u64::from(workers), u64::from(replica - 1));
        requests / workers + u64::from(at < requests % workers)
    };
    Ok(Job {
        scenario,
        places: Arc::new(places),
        plan: settings.plan.clone(),
        timeout: settings.timeout,
        keep_alive: !settings.disable_keepalive,
        seed: env.config.seed,
        duration: settings.duration,
        left: settings.requests.filter(|_| closed).map(|requests| AtomicI64::new(share(requests) as i64)),
        arrivals: settings.requests.filter(|_| !closed),
        lanes: threads * workers as usize,
        clock: env.clock.clone(),
        recorder: env.recorder.clone(),
        run: env.config.run.clone(),
        history: settings.history.then(|| env.history.clone()),
    })
}

fn target(settings: &LoadSettings, env: &Env) -> anyhow::Result<Origin> {
    match &settings.base_url {
        Some(url) => {
            let (origin, path) = Origin::parse(url).map_err(anyhow::Error::msg)?;
            anyhow::ensure!(path == "/", "base_url {url:?} has a path; put {path:?} before the paths of the steps");
            Ok(origin)
        }
        None => Ok(Origin::plain(env.config.peers("target")?)),
    }
}

/// The threads of a generator, and what they tell.
struct Generator {
    signal: watch::Sender<Signal>,
    events: mpsc::UnboundedReceiver<Event>,
    gauges: Vec<Arc<Gauges>>,
}

impl Generator {
    fn start(env: &Env, job: Arc<Job>, threads: usize) -> anyhow::Result<Self> {
        let (signal, heard) = watch::channel(Signal::SetUp);
        let (tell, events) = mpsc::unbounded_channel();
        let first = (env.config.replica as usize - 1) * threads;
        let mut gauges = Vec::new();
        for thread in 0..threads {
            let told = Arc::new(Gauges::default());
            gauges.push(told.clone());
            let (job, heard, tell) = (job.clone(), heard.clone(), tell.clone());
            thread::Builder::new()
                .name(env.thread_name(&format!("gen{thread}")))
                .spawn(move || lane_thread(&job, first + thread, told, heard, &tell))
                .context("starting a thread for load")?;
        }
        Ok(Self { signal, events, gauges })
    }

    async fn run(&mut self, env: &Env) -> anyhow::Result<()> {
        for _ in 0..self.gauges.len() {
            self.next().await?;
        }
        env.ready();
        let origin_ns = env.control.started().await;
        // Before the threads know: they count seconds from it.
        env.recorder.set_origin(origin_ns);
        self.signal.send_replace(Signal::Start(origin_ns));
        self.follow(env, origin_ns).await?;
        // Nothing more comes: the last second is complete although it is not over, and an open one has no durations.
        env.recorder.collect(u64::MAX);
        env.control.set_drained();
        Ok(())
    }

    /// Tells the gauges each second until every thread has drained.
    async fn follow(&mut self, env: &Env, origin_ns: u64) -> anyhow::Result<()> {
        let mut left = self.gauges.len();
        let mut stopping = false;
        let mut busy = Busy::new(env);
        let mut tick_ns = origin_ns.max(env.clock.now_ns());
        while left > 0 {
            tokio::select! {
                event = self.next() => { event?; left -= 1; }
                () = env.control.stopped(), if !stopping => {
                    stopping = true;
                    self.signal.send_replace(Signal::Stop);
                }
                () = env.clock.sleep_until(tick_ns) => {
                    self.tell(env, &mut busy);
                    tick_ns += 1_000_000_000;
                }
            }
        }
        self.tell(env, &mut busy);
        Ok(())
    }

    fn tell(&self, env: &Env, busy: &mut Busy) {
        let now_ns = env.clock.now_ns();
        let sum = |of: fn(&Gauges) -> &AtomicU64| {
            Some(self.gauges.iter().map(|gauges| of(gauges).load(Relaxed)).sum::<u64>() as f64)
        };
        env.series.push(now_ns, "users", sum(|gauges| &gauges.users));
        env.series.push(now_ns, "in_flight", sum(|gauges| &gauges.in_flight));
        env.series.push(now_ns, "connections", sum(|gauges| &gauges.connections));
        env.series.push(now_ns, "backlog", sum(|gauges| &gauges.backlog));
        if let Some(share) = busy.share(&env.clock) {
            env.series.push(now_ns, "thread_busy", Some(share));
        }
    }

    async fn next(&mut self) -> anyhow::Result<()> {
        match self.events.recv().await {
            Some(Event::Ready | Event::Drained) => Ok(()),
            Some(Event::Failed(error)) => Err(error),
            None => anyhow::bail!("every thread of the load generator has ended unexpectedly"),
        }
    }
}

fn lane_thread(
    job: &Arc<Job>,
    lane: usize,
    gauges: Arc<Gauges>,
    heard: watch::Receiver<Signal>,
    tell: &mpsc::UnboundedSender<Event>,
) {
    let run = std::panic::AssertUnwindSafe(|| run_lane(job.clone(), lane, gauges, heard, tell));
    let error = match std::panic::catch_unwind(run) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error,
        Err(_) => anyhow::anyhow!("a thread of the load generator panicked; its log says where"),
    };
    let _ = tell.send(Event::Failed(error));
}

/// How busy the busiest thread is, from the CPU time of each.
struct Busy {
    prefix: String,
    before: Vec<(u32, f64)>,
    before_ns: u64,
}

impl Busy {
    fn new(env: &Env) -> Self {
        let prefix = env.thread_name("gen");
        Self { before: kit::usage::of_threads(&prefix), before_ns: env.clock.now_ns(), prefix }
    }

    /// The share of one CPU since the last time; none when that is too short ago to tell.
    fn share(&mut self, clock: &Clock) -> Option<f64> {
        let (now, now_ns) = (kit::usage::of_threads(&self.prefix), clock.now_ns());
        let elapsed_s = now_ns.saturating_sub(self.before_ns) as f64 / 1e9;
        if elapsed_s < 0.1 {
            return None;
        }
        let used = |(id, cpu_s): &(u32, f64)| {
            let before = self.before.iter().find(|(known, _)| known == id).map_or(0.0, |(_, cpu_s)| *cpu_s);
            (cpu_s - before) / elapsed_s
        };
        let busiest = now
            .iter()
            .map(used)
            .fold(None, |most: Option<f64>, share| Some(most.map_or(share, |most| most.max(share))));
        (self.before, self.before_ns) = (now, now_ns);
        busiest
    }
}

/// How many files one replica of a generator needs at a time.
pub fn needed_files(plan: &LoadPlan, workers: u32) -> u64 {
    let connections = match plan {
        LoadPlan::Closed { users, .. } => *users,
        LoadPlan::Open { connections, .. } => *connections,
    };
    u64::from(connections.div_ceil(workers.max(1))) + FILES_BESIDES
}

/// Raises this process's limit of open files to the hard one, where `needed` asks for it.
///
/// # Errors
/// When the hard limit is too low; it is named, with the way out.
pub fn raise_file_limit(needed: u64) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    anyhow::ensure!(
        limit.maximum.is_none_or(|hard| hard >= needed),
        "{needed} files are needed at a time, and the hard limit of open files is {}; raise it (ulimit -Hn, LimitNOFILE, or \
         /etc/security/limits.conf), use fewer users, or spread them with --load-workers",
        limit.maximum.unwrap_or(0)
    );
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).context("raising the limit of open files")
}

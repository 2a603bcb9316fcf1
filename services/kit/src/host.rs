//! Hosts one replica of one role: binds its sockets, gives it threads of its own, serves its admin endpoint, and ends
//! it in bounded time.
//!
//! A process told on standard input exits when that closes: this is what happens when the lab dies, however it dies.

#![expect(clippy::disallowed_methods, reason = "the host binds and waits so that roles need not")]

use std::io::{BufRead, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::admin::{self, Admin};
use crate::clock::Clock;
use crate::config::RoleConfig;
use crate::gate::Gate;
use crate::role::{Env, Phase, Role};
use crate::shutdown::{self, HARD_DEADLINE, Stopper};

/// The first line a role's process prints, once its sockets are bound and it has not refused its configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReadyLine {
    /// Where it serves.
    pub ready_addr: SocketAddr,
    /// Where its admin endpoint is.
    pub admin_addr: SocketAddr,
    /// Its process.
    pub pid: u32,
}

/// Where a process finds its configuration.
pub enum ConfigSource {
    /// One line of standard input; the process ends when that closes.
    Stdin,
    /// A file; standard input is never read.
    File(PathBuf),
}

/// A role that runs on threads of this process. Dropped, it is asked to stop and not waited for.
pub struct Hosted {
    /// Its admin endpoint, as functions.
    pub admin: Admin,
    /// Where it serves.
    pub addr: SocketAddr,
    /// The start of the names of its threads.
    pub thread_prefix: String,
    stopper: Stopper,
    gate: Gate,
    thread: Option<thread::JoinHandle<anyhow::Result<()>>>,
}

/// Runs a role as this process, until it is told to stop. Errors go to standard error.
pub fn run_process(find: impl Fn(&str) -> anyhow::Result<Role>, source: ConfigSource) -> ExitCode {
    match host_process(find, source) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(4)
        }
    }
}

fn host_process(find: impl Fn(&str) -> anyhow::Result<Role>, source: ConfigSource) -> anyhow::Result<()> {
    let (config, watch_stdin) = match source {
        ConfigSource::Stdin => {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).context("reading the configuration from standard input")?;
            (parse(&line, "standard input")?, true)
        }
        ConfigSource::File(path) => {
            let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            (parse(&text, &path.display().to_string())?, false)
        }
    };
    let role = find(&config.role)?;
    raise_open_files();
    let admin_listener = bind(config.admin_bind, "admin_bind")?;
    let admin_addr = admin_listener.local_addr()?;
    let token = config.admin_token.clone();
    let mut hosted = start(role, config, Clock::real())?;
    serve_admin(admin_listener, hosted.admin.clone(), &token)?;

    // On a thread of its own: whatever the role does, these signals are heard.
    let stopper = hosted.stopper.clone();
    spawn_named("signals", move || {
        if watch_stdin {
            let stopper = stopper.clone();
            let _ = spawn_named("stdin", move || {
                let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
                end_within_deadline(&stopper);
            });
        }
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(termination());
        end_within_deadline(&stopper);
    })?;

    if hosted.wait_until_started() {
        let line = ReadyLine { ready_addr: hosted.addr, admin_addr, pid: std::process::id() };
        println!("{}", serde_json::to_string(&line)?);
    }
    hosted.join()
}

fn parse(text: &str, from: &str) -> anyhow::Result<RoleConfig> {
    serde_json::from_str(text).with_context(|| format!("the configuration in {from} is not a role's"))
}

fn end_within_deadline(stopper: &Stopper) {
    stopper.stop();
    thread::sleep(HARD_DEADLINE + Duration::from_secs(1));
    eprintln!("error: still busy {} s after being asked to stop; ended", HARD_DEADLINE.as_secs() + 1);
    std::process::exit(4);
}

/// Waits for SIGTERM or Ctrl-C.
pub async fn termination() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn bind(addr: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).with_context(|| format!("cannot listen on {addr} ({what})"))
}

/// Serves the admin endpoint of a role that runs on threads of this process, until the process ends; says where.
///
/// # Errors
/// When its address cannot be bound or a thread not started.
pub fn open_admin(admin: Admin, addr: SocketAddr, token: &str) -> anyhow::Result<SocketAddr> {
    let listener = bind(addr, "admin endpoint")?;
    let addr = listener.local_addr()?;
    serve_admin(listener, admin, token)?;
    Ok(addr)
}

fn serve_admin(listener: TcpListener, admin: Admin, token: &str) -> anyhow::Result<()> {
    let router = admin::router(admin, token);
    spawn_named("admin", move || {
        give_way();
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        // Ends with the process: the last read comes after the role has stopped.
        let (_stopper, shutdown) = shutdown::channel();
        if let Err(error) = runtime.block_on(crate::http::serve(listener, router, shutdown)) {
            eprintln!("admin endpoint: {error:#}");
        }
    })?;
    Ok(())
}

/// Starts a role on threads of this process. Returns at once; [`Hosted::wait_until_started`] waits.
///
/// # Errors
/// When its address cannot be bound or a thread not started.
pub fn start(role: Role, config: RoleConfig, clock: Clock) -> anyhow::Result<Hosted> {
    let listener = bind(config.bind, role.name)?;
    let addr = listener.local_addr()?;
    let (stopper, shutdown) = shutdown::channel();
    let admin = Admin::new(clock.clone(), Some(addr));
    let thread_prefix = unique_thread_prefix();
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let env = Env {
        config,
        clock,
        listener: Some(listener),
        recorder: admin.recorder.clone(),
        series: admin.series.clone(),
        journal: admin.journal.clone(),
        history: admin.history.clone(),
        extension: admin.extension.clone(),
        metrics: admin.metrics.clone(),
        shutdown: shutdown.clone(),
        control: admin.control.clone(),
        status: admin.status.clone(),
        thread_prefix: thread_prefix.clone(),
        cpus,
    };
    let collector = collect_each_second(admin.clone(), shutdown, &thread_prefix)?;
    let gate = Gate::default();
    let thread = {
        let admin = admin.clone();
        let prefix = thread_prefix.clone();
        let gate = gate.clone();
        spawn_named(&format!("{thread_prefix}main"), move || {
            let result = run_on_own_runtime(role, env, &prefix, cpus, &gate);
            admin.status.0.phase.send_replace(Phase::Ended);
            drop(collector);
            result
        })?
    };
    Ok(Hosted { admin, addr, thread_prefix, stopper, gate, thread: Some(thread) })
}

fn run_on_own_runtime(role: Role, env: Env, prefix: &str, cpus: usize, gate: &Gate) -> anyhow::Result<()> {
    // With one CPU a second thread would only take turns with the first.
    let mut builder = if cpus == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(cpus);
        builder
    };
    let runtime = builder.enable_all().thread_name(format!("{prefix}rt")).build()?;
    gate.leads_to(runtime.handle(), if cpus == 1 { 0 } else { cpus });
    let (status, shutdown) = (env.status.clone(), env.shutdown.clone());
    let work = async {
        let role = (role.run)(env);
        let deadline = async {
            shutdown.requested().await;
            status.0.phase.send_replace(Phase::Stopping);
            tokio::time::sleep(HARD_DEADLINE).await;
        };
        tokio::select! {
            result = role => result,
            () = deadline => Err(anyhow::anyhow!("still busy {} s after being asked to stop; dropped", HARD_DEADLINE.as_secs())),
        }
    };
    // Dropped inside of the runtime: some of what a role holds has a last word to say there.
    let result = runtime.block_on(async { gate.guard(work).await.unwrap_or(Ok(())) });
    runtime.shutdown_timeout(Duration::from_millis(500));
    result
}

/// Raises this process's limit of open files to what it may have: every connection is one, and the usual limit is 1024.
pub fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Where it is refused, whoever needs more says so when it does.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

/// Makes this thread give way to the role's own on the CPU they share: encoding a second of histograms takes
/// milliseconds, in which a request would leave late.
fn give_way() {
    // Where it is refused, measuring goes on and the lag says what it costs. On Linux this is the calling thread only.
    let _ = rustix::process::setpriority_process(None, 19);
}

/// Closes seconds as they end, also when nobody reads them, so that memory stays flat.
fn collect_each_second(
    admin: Admin,
    shutdown: shutdown::Shutdown,
    prefix: &str,
) -> anyhow::Result<std::sync::mpsc::Sender<()>> {
    let (ended, end) = std::sync::mpsc::channel::<()>();
    spawn_named(&format!("{prefix}collect"), move || {
        give_way();
        while matches!(end.recv_timeout(Duration::from_secs(1)), Err(std::sync::mpsc::RecvTimeoutError::Timeout)) {
            admin.recorder.collect(admin.clock.now_ns());
        }
        drop(shutdown);
    })?;
    Ok(ended)
}

impl Hosted {
    /// Waits until the role is ready or has ended; says whether it is ready.
    pub fn wait_until_started(&self) -> bool {
        loop {
            if let Some(ready) = self.wait_until_started_for(Duration::from_secs(3600)) {
                return ready;
            }
        }
    }

    /// As [`Hosted::wait_until_started`], for at most this long; none when it is still starting.
    pub fn wait_until_started_for(&self, at_most: Duration) -> Option<bool> {
        let mut phase = self.admin.status.0.phase.subscribe();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().ok()?;
        runtime.block_on(async {
            let started = phase.wait_for(|phase| *phase != Phase::Starting);
            let phase = tokio::time::timeout(at_most, started).await.ok()?;
            Some(phase.is_ok_and(|phase| *phase == Phase::Ready))
        })
    }

    /// Whether the role has ended, by itself or because it was asked to.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(thread::JoinHandle::is_finished)
    }

    /// Asks the role to stop.
    pub fn request_stop(&self) {
        self.gate.let_go();
        self.stopper.stop();
    }

    /// Ends the role without a word: what it was doing is dropped where it stands, and its sockets are closed.
    pub fn kill(&mut self) {
        self.gate.kill();
        // How it ended is no news to whoever killed it.
        let _ = self.join();
        // Threads of its own hear it here.
        self.stopper.stop();
    }

    /// Holds every thread of the role's runtime, until [`Hosted::let_go`]. Threads of its own that only answer that
    /// runtime then have nothing to do; others go on.
    ///
    /// # Errors
    /// When one of them is too busy to be held; none is then.
    pub fn hold(&self) -> anyhow::Result<()> {
        self.gate.hold()
    }

    /// Lets the role go on.
    pub fn let_go(&self) {
        self.gate.let_go();
    }

    /// Waits for the role's end.
    ///
    /// # Errors
    /// The role's own error, or that it panicked.
    pub fn join(&mut self) -> anyhow::Result<()> {
        match self.thread.take().map(thread::JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => anyhow::bail!("the role panicked; its log says where"),
        }
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        self.gate.let_go();
        self.stopper.stop();
    }
}

/// Linux keeps 15 bytes of a thread's name: a short prefix leaves room for the rest.
fn unique_thread_prefix() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("r{:x}/", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn spawn_named<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<thread::JoinHandle<T>> {
    thread::Builder::new().name(name.to_owned()).spawn(body).with_context(|| format!("starting thread {name}"))
}

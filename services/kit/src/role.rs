//! A role, and the environment that is handed to it.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::RoleConfig;
use crate::extension::Extension;
use crate::journal::Journal;
use crate::recorder::Recorder;
use crate::series::Series;
use crate::shutdown::Shutdown;

/// A boxed future, as functions in tables return them.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A part of a system that can be started, replicated, pinned, killed and measured: one row of a system's table.
#[derive(Clone, Copy)]
pub struct Role {
    /// Its name, unique in its system.
    pub name: &'static str,
    /// What it does, in a few words.
    pub about: &'static str,
    /// Runs it until its shutdown is requested. It calls [`Env::ready`] once it can do its work.
    pub run: fn(Env) -> BoxFuture<anyhow::Result<()>>,
}

/// All that a role needs and may not take for itself.
pub struct Env {
    /// What it was told.
    pub config: RoleConfig,
    /// The time.
    pub clock: Clock,
    /// The socket it serves on, bound already. [`Env::listener`] takes it.
    pub listener: Option<TcpListener>,
    /// Where its operations go.
    pub recorder: Recorder,
    /// Where its gauges go.
    pub series: Series,
    /// Where it tells what is no number.
    pub journal: Journal,
    /// Where it tells each operation, where that was asked for.
    pub history: Journal,
    /// Where it registers what only it understands.
    pub extension: Extension,
    /// Its Prometheus metrics; whoever registers one keeps a handle to it.
    pub metrics: Arc<Mutex<Registry>>,
    /// Asks it to stop. It then finishes what it has begun and returns.
    pub shutdown: Shutdown,
    /// The lab's start and stop signals, for roles that generate.
    pub control: Control,
    /// Where it says that it is ready.
    pub status: Status,
    /// The start of every thread name of this replica; CPU time is attributed by it.
    pub thread_prefix: String,
    /// How many CPUs it may use.
    pub cpus: usize,
}

impl Env {
    /// The bound listener.
    ///
    /// # Panics
    /// When it was taken before.
    pub fn listener(&mut self) -> TcpListener {
        self.listener.take().expect("a role takes its listener once")
    }

    /// Says that the role can do its work.
    pub fn ready(&self) {
        self.status.0.phase.send_replace(Phase::Ready);
    }

    /// A generator for one named purpose of this replica.
    pub fn rng(&self, purpose: &str) -> crate::Rng {
        crate::rng(self.config.seed, &format!("{}/{}/{purpose}", self.config.role, self.config.replica))
    }

    /// The name for a thread of this role: at most 15 bytes survive, so keep `name` short.
    pub fn thread_name(&self, name: &str) -> String {
        format!("{}{name}", self.thread_prefix)
    }
}

/// What a role says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is getting ready.
    Starting,
    /// It can do its work.
    Ready,
    /// It was asked to stop.
    Stopping,
    /// It has ended.
    Ended,
}

impl Phase {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Ended => "ended",
        }
    }
}

/// A check of readiness: no answer is good, a reason is not.
pub type ReadinessCheck = Arc<dyn Fn() -> BoxFuture<Result<(), String>> + Send + Sync>;

/// The status of a role, written by it and its host, read by the admin endpoint.
#[derive(Clone)]
pub struct Status(pub(crate) Arc<StatusInner>);

pub(crate) struct StatusInner {
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) check: Mutex<Option<ReadinessCheck>>,
    pub(crate) addr: Option<SocketAddr>,
}

impl Status {
    pub(crate) fn new(addr: Option<SocketAddr>) -> Self {
        Self(Arc::new(StatusInner { phase: watch::Sender::new(Phase::Starting), check: Mutex::new(None), addr }))
    }

    /// What else must hold for the role to be ready, asked at each request for its readiness.
    pub fn check_with(&self, check: ReadinessCheck) {
        *self.0.check.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(check);
    }

    /// The phase it is in.
    pub fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    /// Where the role serves.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.0.addr
    }

    /// # Errors
    /// The reason why it is not ready.
    pub async fn readiness(&self) -> Result<(), String> {
        match self.phase() {
            Phase::Ready => {}
            phase => return Err(phase.name().to_owned()),
        }
        let check = self.0.check.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        match check {
            Some(check) => check().await,
            None => Ok(()),
        }
    }
}

/// The lab's signals to a role that generates.
#[derive(Clone)]
pub struct Control(pub(crate) Arc<ControlInner>);

pub(crate) struct ControlInner {
    pub(crate) start: watch::Sender<Option<u64>>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) drained: watch::Sender<bool>,
}

impl Default for Control {
    fn default() -> Self {
        Self(Arc::new(ControlInner {
            start: watch::Sender::new(None),
            stop: watch::Sender::new(false),
            drained: watch::Sender::new(false),
        }))
    }
}

impl Control {
    /// Waits for the start signal: when to start, in ns of the role's clock.
    pub async fn started(&self) -> u64 {
        let mut start = self.0.start.subscribe();
        // Copied out first: what the channel lends must not be held across a wait.
        let at_ns = start.wait_for(Option::is_some).await.map(|at_ns| at_ns.unwrap_or(0));
        match at_ns {
            Ok(at_ns) => at_ns,
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits for the stop signal: begin nothing new, finish what is under way.
    pub async fn stopped(&self) {
        let mut stop = self.0.stop.subscribe();
        if stop.wait_for(|stop| *stop).await.is_err() {
            std::future::pending().await
        }
    }

    /// Gives the start signal.
    pub fn start(&self, at_ns: u64) {
        self.0.start.send_replace(Some(at_ns));
    }

    /// Gives the stop signal.
    pub fn stop(&self) {
        self.0.stop.send_replace(true);
    }

    /// Says that everything begun has ended and is recorded.
    pub fn set_drained(&self) {
        self.0.drained.send_replace(true);
    }

    /// Whether everything begun has ended and is recorded.
    pub fn is_drained(&self) -> bool {
        *self.0.drained.borrow()
    }
}

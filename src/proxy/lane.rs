//! One thread of the proxy: its runtime, the faults it obeys, and the connections it carries.
//!
//! The one rule: a connection lives on one thread, so what it looks at in its hot path is a plain cell.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::task::Waker;

use anyhow::Context as _;
use kit::Clock;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;

use super::alarm::Alarm;
use super::faults::Set;
use super::{http, link};

/// What is read at a time.
const SCRATCH: usize = 64 * 1024;

/// What a lane is told.
pub enum Order {
    /// Carry a connection.
    Open(Accepted),
    /// Obey these faults from now on, and say since when.
    Faults {
        /// All that are active.
        set: Set,
        /// Told the time once every open connection obeys.
        done: Sender<u64>,
    },
    /// Close every connection, and end.
    End,
}

/// A connection that was accepted.
pub struct Accepted {
    /// The client's end, which does not block.
    pub client: OwnedFd,
    /// Where to pass it on.
    pub upstream: SocketAddr,
    /// Its number, from 1, in the order of accepting.
    pub number: u64,
    /// When.
    pub at_ns: u64,
}

/// What all lanes count.
#[derive(Default)]
pub struct Counters {
    /// Connections that are open.
    pub open: AtomicU64,
    /// Connections that could not be passed on.
    pub refused: AtomicU64,
    /// Bytes towards the server.
    pub bytes_up: AtomicU64,
    /// Bytes towards the client.
    pub bytes_down: AtomicU64,
}

/// What every lane is given.
#[derive(Clone)]
pub struct Shared {
    /// The time.
    pub clock: Clock,
    /// Where every random decision starts.
    pub seed: u64,
    /// Whether requests are read instead of bytes passed.
    pub http: bool,
    /// What is counted.
    pub counters: Arc<Counters>,
}

/// One thread's share of the connections.
pub struct Lane {
    /// What it has in common with the others.
    pub shared: Shared,
    /// Its timer.
    pub alarm: Rc<Alarm>,
    /// What is read before it is written; nobody keeps it across a wait.
    pub scratch: RefCell<Box<[u8]>>,
    set: RefCell<Set>,
    version: Cell<u64>,
    /// To wake every open connection when the faults change.
    open: RefCell<BTreeMap<u64, Waker>>,
}

impl Lane {
    /// The faults it obeys.
    pub fn set(&self) -> Set {
        self.set.borrow().clone()
    }

    /// Changes with the faults.
    pub fn version(&self) -> u64 {
        self.version.get()
    }

    /// The time.
    pub fn now_ns(&self) -> u64 {
        self.shared.clock.now_ns()
    }

    /// Has a connection's task woken when the faults change, until [`Lane::forget`].
    pub fn remember(&self, number: u64, waker: &Waker) {
        self.open.borrow_mut().insert(number, waker.clone());
    }

    fn forget(&self, number: u64) {
        self.open.borrow_mut().remove(&number);
    }

    fn obey(&self, set: Set) {
        *self.set.borrow_mut() = set;
        self.version.set(self.version.get() + 1);
        self.open.borrow().values().for_each(Waker::wake_by_ref);
    }
}

/// Carries connections until it is told to end; then all of them are closed.
///
/// # Errors
/// When the kernel lacks something.
pub fn run(shared: Shared, mut orders: UnboundedReceiver<Order>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build_local(tokio::runtime::LocalOptions::default())
        .context("starting a runtime for the proxy")?;
    runtime.block_on(async {
        let alarm = Alarm::new(shared.clock.clone()).context("making a timer")?;
        let lane = Rc::new(Lane {
            shared,
            alarm: alarm.clone(),
            scratch: RefCell::new(vec![0; SCRATCH].into_boxed_slice()),
            set: RefCell::new(Set::from([])),
            version: Cell::new(0),
            open: RefCell::default(),
        });
        tokio::task::spawn_local(async move { alarm.run().await });
        while let Some(order) = orders.recv().await {
            match order {
                Order::Open(accepted) => {
                    tokio::task::spawn_local(carry(lane.clone(), accepted));
                }
                Order::Faults { set, done } => {
                    lane.obey(set);
                    // Tasks run in the order in which they were woken: behind every open connection.
                    let lane = lane.clone();
                    tokio::task::spawn_local(async move { done.send(lane.now_ns()) });
                }
                Order::End => break,
            }
        }
        Ok(())
    })
}

/// Counts a connection as open, and forgets it in the end, however that comes.
struct Open(Rc<Lane>, u64);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.shared.counters.open.fetch_sub(1, Relaxed);
        self.0.forget(self.1);
    }
}

async fn carry(lane: Rc<Lane>, accepted: Accepted) {
    lane.shared.counters.open.fetch_add(1, Relaxed);
    let _open = Open(lane.clone(), accepted.number);
    let (number, at_ns) = (accepted.number, accepted.at_ns);
    // A client that has gone meanwhile needs nothing.
    let Ok(client) = TcpStream::from_std(accepted.client.into()) else { return };
    let server = match TcpStream::connect(accepted.upstream).await {
        Ok(server) => server,
        Err(_) => {
            lane.shared.counters.refused.fetch_add(1, Relaxed);
            link::refuse(&lane, &client, number).await;
            return;
        }
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    match lane.shared.http {
        true => http::carry(&lane, client, server, number).await,
        false => link::carry(&lane, client, server, number, at_ns).await,
    }
}

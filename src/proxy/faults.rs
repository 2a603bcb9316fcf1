//! The faults that are active, and which connections each of them touches.
//!
//! The one rule: a change is answered once every open connection obeys it, and changes come one after the other.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use kit::Clock;
use rand::RngExt as _;
use tokio::sync::mpsc::UnboundedSender;

use super::lane::Order;
use super::{LinkFault, LinkKind};

/// How long a thread may take to obey a change; it takes microseconds.
const OBEYED_WITHIN: Duration = Duration::from_secs(5);

/// A fault that is active.
pub struct Active {
    /// Its number, from 1, in the order of adding.
    pub id: u64,
    /// What it does.
    pub fault: LinkFault,
    /// Since when, on the proxy's clock.
    pub since_ns: u64,
    touched: AtomicU64,
}

impl Active {
    /// A fault that has touched nothing yet.
    pub fn new(id: u64, fault: LinkFault, since_ns: u64) -> Arc<Self> {
        Arc::new(Self { id, fault, since_ns, touched: AtomicU64::new(0) })
    }

    /// Whether it touches a connection: decided once for both, from the seed.
    pub fn touches(&self, seed: u64, connection: u64) -> bool {
        self.fault.share >= 1.0 || {
            let mut rng = kit::rng(seed, &format!("proxy/{}/{connection}", self.id));
            rng.random::<f64>() < self.fault.share
        }
    }

    /// Counts a connection, or a request, that it touches.
    pub fn count(&self) {
        self.touched.fetch_add(1, Relaxed);
    }

    /// How many connections, of HTTP faults requests, it has touched.
    pub fn touched(&self) -> u64 {
        self.touched.load(Relaxed)
    }
}

/// The active faults, in the order of adding. Replaced as a whole.
pub type Set = Arc<[Arc<Active>]>;

/// The faults of a proxy and the threads that obey them.
pub struct Faults {
    clock: Clock,
    http: bool,
    lanes: Vec<UnboundedSender<Order>>,
    /// The number of the last one, held while a change is made.
    last: Mutex<u64>,
    current: Mutex<Set>,
}

/// Why a change was not made.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// What was asked for makes no sense here.
    Wrong(String),
    /// There is no such fault.
    Unknown(String),
    /// A thread did not answer.
    Stuck(String),
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Faults {
    /// No fault, and who is to be told of some.
    pub fn new(clock: Clock, http: bool, lanes: Vec<UnboundedSender<Order>>) -> Self {
        Self { clock, http, lanes, last: Mutex::new(0), current: Mutex::new(Set::from([])) }
    }

    /// The active ones.
    pub fn current(&self) -> Set {
        locked(&self.current).clone()
    }

    /// Adds a fault; gives back its number and since when every open connection obeys it.
    ///
    /// # Errors
    /// When this proxy cannot do it.
    pub fn add(&self, fault: LinkFault) -> Result<(u64, u64), Refused> {
        suits(&fault, self.http).map_err(Refused::Wrong)?;
        let mut last = locked(&self.last);
        *last += 1;
        let active = Active::new(*last, fault, self.clock.now_ns());
        let before = self.current();
        let set = before.iter().cloned().chain([active]).collect();
        let since_ns = self.replace(set).inspect_err(|_| {
            // Whoever asked was not told its number and cannot lift it.
            let _ = self.replace(before);
        })?;
        Ok((*last, since_ns))
    }

    /// Lifts a fault, or all; gives back since when no open connection obeys it.
    ///
    /// # Errors
    /// When there is no such fault.
    pub fn lift(&self, id: Option<u64>) -> Result<u64, Refused> {
        let _one_at_a_time = locked(&self.last);
        let before = self.current();
        let set: Set = before.iter().filter(|active| id.is_some_and(|id| active.id != id)).cloned().collect();
        if let Some(id) = id.filter(|_| set.len() == before.len()) {
            let there: Vec<_> = before.iter().map(|active| active.id.to_string()).collect();
            let there =
                if there.is_empty() { "none is active".to_owned() } else { format!("active: {}", there.join(", ")) };
            return Err(Refused::Unknown(format!("there is no fault {id}; {there}")));
        }
        self.replace(set)
    }

    fn replace(&self, set: Set) -> Result<u64, Refused> {
        *locked(&self.current) = set.clone();
        let (done, obeyed) = mpsc::channel();
        let mut waiting = 0;
        for lane in &self.lanes {
            // A thread that has ended has no connection left.
            waiting += usize::from(lane.send(Order::Faults { set: set.clone(), done: done.clone() }).is_ok());
        }
        drop(done);
        let mut at_ns = self.clock.now_ns();
        for _ in 0..waiting {
            match obeyed.recv_timeout(OBEYED_WITHIN) {
                Ok(obeyed_ns) => at_ns = at_ns.max(obeyed_ns),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let seconds = OBEYED_WITHIN.as_secs();
                    return Err(Refused::Stuck(format!("the proxy has not obeyed within {seconds} s; start it again")));
                }
            }
        }
        Ok(at_ns)
    }

    /// Whether a connection that was just accepted is to be reset, because it is one of the first.
    pub fn fails_first(&self) -> bool {
        let mut fails = false;
        for active in &*self.current() {
            if let LinkKind::FailFirst { connections } = active.fault.kind
                && active.touched() < u64::from(connections)
            {
                active.count();
                fails = true;
            }
        }
        fails
    }
}

/// Whether a proxy of this mode can do it.
///
/// # Errors
/// Why not, and which can.
pub fn suits(fault: &LinkFault, http: bool) -> Result<(), String> {
    match (fault.is_http(), http) {
        (true, false) => Err(format!(
            "{} works on requests, and this proxy passes bytes; start one with http = true (--http)",
            fault.name()
        )),
        (false, true) => Err(format!(
            "{} works on bytes, and this proxy reads requests; put a second one without http in front of it",
            fault.name()
        )),
        _ => Ok(()),
    }
}

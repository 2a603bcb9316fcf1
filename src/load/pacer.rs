//! Wakes tasks of one thread at instants, by one timer of the kernel.
//!
//! The one rule: no timer of the runtime. Those count milliseconds; a timerfd counts nanoseconds and costs nothing
//! while it is not armed. Deadlines of requests are not timers at all: a sweep looks at all of them every few
//! milliseconds.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::unix::AsyncFd;

use kit::Clock;

/// A task of the thread, as the pacer sees it.
#[derive(Default)]
pub struct Sleeper {
    waker: RefCell<Option<Waker>>,
    /// Set by the pacer when the instant has come.
    due: Cell<bool>,
    /// When what the task waits for is given up; never while it is `u64::MAX`.
    deadline_ns: Cell<u64>,
    /// Set by the sweep when it has been given up.
    overdue: Cell<bool>,
}

/// The timer of one thread.
pub struct Pacer {
    clock: Clock,
    timer: AsyncFd<OwnedFd>,
    /// What the timer is set to; `u64::MAX` when it is not.
    armed_ns: Cell<u64>,
    queue: RefCell<BinaryHeap<Reverse<Entry>>>,
    /// Of every sleeper whose deadlines are watched.
    watched: RefCell<Vec<Rc<Sleeper>>>,
    entries: Cell<u64>,
    stopped: Cell<bool>,
}

struct Entry {
    at_ns: u64,
    /// Equal instants keep their order.
    order: u64,
    sleeper: Rc<Sleeper>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ns, self.order).cmp(&(other.at_ns, other.order))
    }
}

/// The pacer was stopped: the instant will not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// A deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue;

impl Sleeper {
    /// A sleeper for one task.
    pub fn new() -> Rc<Self> {
        Rc::new(Self { deadline_ns: Cell::new(u64::MAX), ..Self::default() })
    }

    /// Wakes its task.
    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Remembers the task that waits. The same one every time, so this is a comparison.
    pub fn register(&self, context: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if waker.as_ref().is_none_or(|known| !known.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
    }

    /// Does something that is given up at a deadline. The deadline holds for everything until [`Sleeper::no_deadline`].
    ///
    /// # Errors
    /// When the deadline has passed.
    pub async fn until_deadline<T>(&self, doing: impl Future<Output = T>) -> Result<T, Overdue> {
        let mut doing = std::pin::pin!(doing);
        poll_fn(|context| {
            self.register(context);
            if self.overdue.get() {
                return Poll::Ready(Err(Overdue));
            }
            doing.as_mut().poll(context).map(Ok)
        })
        .await
    }

    /// Sets the deadline.
    pub fn set_deadline(&self, at_ns: u64) {
        self.overdue.set(false);
        self.deadline_ns.set(at_ns);
    }

    /// Takes the deadline away.
    pub fn no_deadline(&self) {
        self.set_deadline(u64::MAX);
    }
}

impl Pacer {
    /// A pacer for the runtime it is made on.
    ///
    /// # Errors
    /// When the kernel gives no timer.
    pub fn new(clock: Clock) -> std::io::Result<Rc<Self>> {
        let timer =
            rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: an OwnedFd is the same open descriptor as long as it lives, and AsyncFd owns it until it has
        // deregistered it.
        let timer = unsafe { AsyncFd::register_with_interest(timer, tokio::io::Interest::READABLE) }?;
        Ok(Rc::new(Self {
            clock,
            timer,
            armed_ns: Cell::new(u64::MAX),
            queue: RefCell::default(),
            watched: RefCell::default(),
            entries: Cell::new(0),
            stopped: Cell::new(false),
        }))
    }

    /// The time.
    pub fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    /// Has a sleeper's deadlines watched from now on.
    pub fn watch(&self, sleeper: &Rc<Sleeper>) {
        self.watched.borrow_mut().push(sleeper.clone());
    }

    /// Waits until an instant; at once when it has passed.
    ///
    /// # Errors
    /// When the pacer is stopped meanwhile.
    pub async fn sleep_until(&self, at_ns: u64, sleeper: &Rc<Sleeper>) -> Result<(), Stopped> {
        if self.stopped.get() {
            return Err(Stopped);
        }
        if at_ns > self.now_ns() {
            self.enqueue(at_ns, sleeper.clone());
            poll_fn(|context| {
                sleeper.register(context);
                if sleeper.due.get() || self.stopped.get() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
        if self.stopped.get() { Err(Stopped) } else { Ok(()) }
    }

    /// Waits until an instant, also when the pacer is stopped: for the housekeeping, which goes on.
    pub async fn doze_until(&self, at_ns: u64, sleeper: &Rc<Sleeper>) {
        self.enqueue(at_ns, sleeper.clone());
        poll_fn(|context| {
            sleeper.register(context);
            if sleeper.due.get() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn enqueue(&self, at_ns: u64, sleeper: Rc<Sleeper>) {
        sleeper.due.set(false);
        let order = self.entries.get();
        self.entries.set(order + 1);
        self.queue.borrow_mut().push(Reverse(Entry { at_ns, order, sleeper }));
        if at_ns < self.armed_ns.get() {
            self.arm(at_ns);
        }
    }

    fn arm(&self, at_ns: u64) {
        let at = Timespec { tv_sec: (at_ns / 1_000_000_000) as i64, tv_nsec: (at_ns % 1_000_000_000) as _ };
        let timer = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        // Setting it clears a tick that nobody read, so the timer never needs to be read.
        match rustix::time::timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &timer) {
            Ok(_) => self.armed_ns.set(at_ns),
            // Cannot happen with a valid descriptor and time; the next entry tries again.
            Err(_) => self.armed_ns.set(u64::MAX),
        }
    }

    /// Wakes every sleeper whose instant has come, for ever.
    pub async fn run(&self) -> std::io::Result<()> {
        loop {
            self.wake_due();
            let mut ticked = self.timer.readable().await?;
            ticked.clear_ready();
            self.armed_ns.set(u64::MAX);
        }
    }

    fn wake_due(&self) {
        let now_ns = self.now_ns();
        let mut queue = self.queue.borrow_mut();
        while queue.peek().is_some_and(|Reverse(entry)| entry.at_ns <= now_ns) {
            let Some(Reverse(entry)) = queue.pop() else { break };
            entry.sleeper.due.set(true);
            entry.sleeper.wake();
        }
        let next = queue.peek().map(|Reverse(entry)| entry.at_ns);
        if let Some(next) = next.filter(|next| *next < self.armed_ns.get()) {
            self.arm(next);
        }
    }

    /// Gives up whatever is past its deadline.
    pub fn sweep(&self) {
        let now_ns = self.now_ns();
        for sleeper in &*self.watched.borrow() {
            if sleeper.deadline_ns.get() <= now_ns {
                sleeper.deadline_ns.set(u64::MAX);
                sleeper.overdue.set(true);
                sleeper.wake();
            }
        }
    }

    /// Ends every sleep, and those to come.
    pub fn stop(&self) {
        self.stopped.set(true);
        for Reverse(entry) in &*self.queue.borrow() {
            entry.sleeper.wake();
        }
    }

    /// Whether it was stopped.
    pub fn is_stopped(&self) -> bool {
        self.stopped.get()
    }
}

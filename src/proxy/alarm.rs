//! Wakes tasks of one thread at instants, to the precision of the kernel's timer.
//!
//! The one rule: no timer of the runtime, which counts milliseconds and rounds up. While nobody waits, nothing is armed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Waker;

use kit::Clock;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::unix::AsyncFd;

/// The timer of one thread.
pub struct Alarm {
    clock: Clock,
    timer: AsyncFd<OwnedFd>,
    /// What the timer is set to; `u64::MAX` when it is not.
    armed_ns: Cell<u64>,
    /// By instant, and by whose it is.
    waiting: RefCell<BTreeMap<(u64, u64), Waker>>,
    next: Cell<u64>,
}

/// One instant that a task waits for; none is waited for once it is dropped.
pub struct Wait {
    alarm: Rc<Alarm>,
    id: u64,
    at_ns: u64,
}

impl Alarm {
    /// An alarm for the runtime it is made on.
    ///
    /// # Errors
    /// When the kernel gives no timer.
    pub fn new(clock: Clock) -> std::io::Result<Rc<Self>> {
        let timer =
            rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: an OwnedFd is the same open descriptor as long as it lives, and AsyncFd owns it until it has
        // deregistered it.
        let timer = unsafe { AsyncFd::register_with_interest(timer, tokio::io::Interest::READABLE) }?;
        let armed_ns = Cell::new(u64::MAX);
        Ok(Rc::new(Self { clock, timer, armed_ns, waiting: RefCell::default(), next: Cell::new(0) }))
    }

    /// The time.
    pub fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    /// Somebody who may wait, for one instant at a time.
    pub fn wait(self: &Rc<Self>) -> Wait {
        let id = self.next.get();
        self.next.set(id + 1);
        Wait { alarm: self.clone(), id, at_ns: u64::MAX }
    }

    /// Wakes whoever's instant has come, for ever.
    ///
    /// # Errors
    /// When the kernel's timer fails.
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
        let mut waiting = self.waiting.borrow_mut();
        while let Some(first) = waiting.first_entry() {
            if first.key().0 > now_ns {
                break;
            }
            first.remove().wake();
        }
        if let Some(((at_ns, _), _)) = waiting.first_key_value() {
            self.arm(*at_ns);
        }
    }

    fn arm(&self, at_ns: u64) {
        if at_ns >= self.armed_ns.get() {
            return;
        }
        let at = Timespec { tv_sec: (at_ns / 1_000_000_000) as i64, tv_nsec: (at_ns % 1_000_000_000) as _ };
        let timer = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        // Setting it clears a tick that nobody read, so the timer never needs to be read.
        let armed = rustix::time::timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &timer);
        // It cannot fail with a valid descriptor and time; if it did, the next who waits would try again.
        self.armed_ns.set(armed.map_or(u64::MAX, |_| at_ns));
    }
}

impl Wait {
    /// Wakes a task at an instant, instead of the one asked for before.
    pub fn wake_at(&mut self, at_ns: u64, waker: &Waker) {
        let is_set = self.alarm.waiting.borrow().contains_key(&(self.at_ns, self.id));
        if is_set && at_ns == self.at_ns {
            return;
        }
        self.clear();
        self.at_ns = at_ns;
        self.alarm.waiting.borrow_mut().insert((at_ns, self.id), waker.clone());
        self.alarm.arm(at_ns);
    }

    /// Waits for nothing any more.
    pub fn clear(&mut self) {
        if self.at_ns != u64::MAX {
            self.alarm.waiting.borrow_mut().remove(&(self.at_ns, self.id));
            self.at_ns = u64::MAX;
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.clear();
    }
}

//! Holds a role that runs on threads of this process, or ends it where it stands.
//!
//! Threads cannot be stopped from outside. So the role's own future waits at the gate each time it is woken, and while
//! the role is held every worker of its runtime is given a task that waits there too: then nothing of it moves.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::runtime::Handle;

/// What a role's threads pass. Cheap while it is open.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    held: bool,
    killed: bool,
    /// Threads that wait here now.
    waiting: usize,
    /// Wakes the role's own future.
    waker: Option<Waker>,
    /// The role's runtime, and how many workers it has beside the thread that runs the role.
    runtime: Option<(Handle, usize)>,
}

/// A thread that is busy for longer without a pause is not held.
const HELD_WITHIN: Duration = Duration::from_secs(2);

impl Gate {
    /// Says whose gate it is.
    pub(crate) fn leads_to(&self, runtime: &Handle, workers: usize) {
        self.lock().runtime = Some((runtime.clone(), workers));
    }

    /// The role's own future, behind the gate; none when it was killed.
    pub(crate) async fn guard<T>(&self, role: impl Future<Output = T>) -> Option<T> {
        let mut role = pin!(role);
        std::future::poll_fn(|context| {
            if self.pass(Some(context.waker())) { role.as_mut().poll(context).map(Some) } else { Poll::Ready(None) }
        })
        .await
    }

    /// Waits while the role is held; says whether it may go on.
    fn pass(&self, waker: Option<&Waker>) -> bool {
        let mut state = self.lock();
        if let Some(waker) = waker
            && !state.waker.as_ref().is_some_and(|known| known.will_wake(waker))
        {
            state.waker = Some(waker.clone());
        }
        if state.held && !state.killed {
            state.waiting += 1;
            self.0.changed.notify_all();
            while state.held && !state.killed {
                state = self.0.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
            }
            state.waiting -= 1;
            self.0.changed.notify_all();
        }
        !state.killed
    }

    /// Holds the role: on return nothing of it moves.
    ///
    /// # Errors
    /// When a thread is too busy to be held; the role then goes on.
    pub(crate) fn hold(&self) -> anyhow::Result<()> {
        let mut state = self.lock();
        let Some((runtime, workers)) = state.runtime.clone() else { anyhow::bail!("it has not begun") };
        state.held = true;
        if let Some(waker) = &state.waker {
            waker.wake_by_ref();
        }
        drop(state);
        // One after the other, so that no worker is given two while another gets none.
        for waiting in 1..=workers + 1 {
            if !self.wait_for(waiting) {
                self.let_go();
                anyhow::bail!("a thread was too busy to be held within {} s", HELD_WITHIN.as_secs());
            }
            if waiting <= workers {
                let gate = self.clone();
                runtime.spawn(async move { gate.pass(None) });
            }
        }
        Ok(())
    }

    /// Waits until so many threads wait here; says whether they do.
    fn wait_for(&self, waiting: usize) -> bool {
        let not_yet = |state: &mut State| state.waiting < waiting;
        let waited = self.0.changed.wait_timeout_while(self.lock(), HELD_WITHIN, not_yet);
        !waited.unwrap_or_else(|poisoned| poisoned.into_inner()).1.timed_out()
    }

    /// Lets the role go on.
    pub(crate) fn let_go(&self) {
        self.lock().held = false;
        self.0.changed.notify_all();
    }

    /// Ends the role: its future is not polled any more.
    pub(crate) fn kill(&self) {
        let mut state = self.lock();
        state.killed = true;
        state.held = false;
        if let Some(waker) = &state.waker {
            waker.wake_by_ref();
        }
        drop(state);
        self.0.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

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

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a killed role gives its port back, which a real socket shows")]

    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::host::{Hosted, start};
    use crate::role::BoxFuture;
    use crate::{Clock, Env, Role, RoleConfig};

    fn run(mut env: Env) -> BoxFuture<anyhow::Result<()>> {
        Box::pin(async move {
            let router = axum::Router::new().route("/", axum::routing::get(|| async { "here" }));
            let listener = env.listener();
            env.ready();
            crate::http::serve(listener, router, env.shutdown.clone()).await
        })
    }

    fn hosted() -> Hosted {
        let role = Role { name: "answers", about: "answers", run };
        let hosted = start(role, RoleConfig::new("answers"), Clock::real()).unwrap();
        assert!(hosted.wait_until_started());
        hosted
    }

    fn connect(hosted: &Hosted) -> TcpStream {
        let stream = TcpStream::connect(hosted.addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        stream
    }

    fn ask(stream: &mut TcpStream) {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: it\r\n\r\n").unwrap();
    }

    fn answer(stream: &mut TcpStream) -> std::io::Result<String> {
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..count]).into_owned())
    }

    #[test]
    fn a_held_role_answers_nothing_on_an_open_connection_and_goes_on_afterwards() {
        let mut hosted = hosted();
        let mut open = connect(&hosted);
        ask(&mut open);
        assert!(answer(&mut open).unwrap().ends_with("here"));
        for _ in 0..3 {
            hosted.hold().unwrap();
            ask(&mut open);
            // The kernel still makes connections for it.
            let mut new = connect(&hosted);
            ask(&mut new);
            for stream in [&mut open, &mut new] {
                let error = answer(stream).unwrap_err();
                assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
            }
            hosted.let_go();
            for stream in [&mut open, &mut new] {
                stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                assert!(answer(stream).unwrap().ends_with("here"));
                stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            }
        }
        hosted.hold().unwrap();
        hosted.request_stop();
        hosted.join().unwrap();
    }

    #[test]
    fn a_killed_role_ends_its_connections_and_gives_its_port_back() {
        for is_held in [false, true] {
            let mut hosted = hosted();
            let mut open = connect(&hosted);
            ask(&mut open);
            assert!(answer(&mut open).unwrap().ends_with("here"));
            if is_held {
                hosted.hold().unwrap();
            }
            hosted.kill();
            assert!(hosted.has_ended());
            // Its end, or a reset.
            assert!(answer(&mut open).unwrap_or_default().is_empty());
            assert_eq!(TcpStream::connect(hosted.addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
            TcpListener::bind(hosted.addr).unwrap();
        }
    }

    #[test]
    fn a_role_that_is_too_busy_to_be_held_goes_on() {
        let (send, receive) = std::sync::mpsc::channel::<()>();
        let gate = Gate::default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        gate.leads_to(runtime.handle(), 1);
        runtime.spawn(async move {
            let _ = receive.recv();
        });
        assert!(gate.hold().unwrap_err().to_string().contains("too busy"));
        assert!(gate.pass(None), "nobody is held");
        drop(send);
    }
}

//! Ctrl-C: once asks to stop cleanly, twice stops at once.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::Poll;
use std::time::Duration;

/// Whether the user asked to stop. Cheap to clone.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<Inner>);

#[derive(Default)]
struct Inner {
    asked: AtomicBool,
    lock: Mutex<()>,
    bell: Condvar,
}

impl Interrupt {
    /// Listens for Ctrl-C and SIGTERM from now on; `first` is said at the first.
    ///
    /// # Errors
    /// When the listening thread cannot be started.
    pub fn listen(first: &'static str) -> anyhow::Result<Self> {
        let interrupt = Self::default();
        let ringing = interrupt.clone();
        let (tell, listening) = std::sync::mpsc::channel();
        std::thread::Builder::new().name("interrupt".into()).spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            runtime.block_on(async {
                let mut asked = std::pin::pin!(kit::host::termination());
                // From its first poll on it hears; before, the program would die of the signal.
                let heard = poll_fn(|context| Poll::Ready(asked.as_mut().poll(context))).await;
                let _ = tell.send(());
                if heard.is_pending() {
                    asked.await;
                }
            });
            eprintln!("\n{first} (again: at once)");
            ringing.ask();
            runtime.block_on(kit::host::termination());
            std::process::exit(130);
        })?;
        // Told, or gone without a word where there is no runtime.
        let _ = listening.recv();
        Ok(interrupt)
    }

    /// Asks to stop.
    pub fn ask(&self) {
        self.0.asked.store(true, Ordering::Release);
        let _locked = self.0.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.0.bell.notify_all();
    }

    /// Whether stopping was asked for.
    pub fn is_asked(&self) -> bool {
        self.0.asked.load(Ordering::Acquire)
    }

    /// Waits this long, or until stopping is asked for; says whether it was.
    pub fn wait(&self, at_most: Duration) -> bool {
        let locked = self.0.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = self.0.bell.wait_timeout_while(locked, at_most, |()| !self.is_asked());
        self.is_asked()
    }
}

//! The signal to stop, handed to everything that runs.

use std::time::Duration;

use tokio::sync::watch;

/// How long a role may take to finish what it has begun, before it is dropped.
pub const HARD_DEADLINE: Duration = Duration::from_secs(5);

/// The receiving end: cheap to clone, true once and for ever.
#[derive(Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// The sending end. Dropped without a word, it stops its receivers too.
#[derive(Clone)]
pub struct Stopper(watch::Sender<bool>);

/// A connected pair.
pub fn channel() -> (Stopper, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Shutdown(receiver))
}

impl Stopper {
    /// Asks everything that holds the receiving end to stop.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Waits until stopping was asked for.
    pub async fn requested(&self) {
        let _ = self.0.clone().wait_for(|stop| *stop).await;
    }
}

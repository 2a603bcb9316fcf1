//! What a role tells of itself over time.
//!
//! The one rule: a gauge is what is counted anyway, read once a second; nothing is counted for it. Sums only grow, so
//! that a reader who missed a second loses nothing.

use std::time::Duration;

use kit::Env;

/// Between two readings.
const EVERY: Duration = Duration::from_secs(1);

/// Tells what `read` gives back, each second until the role stops.
pub fn tell<const N: usize>(env: &Env, read: impl Fn() -> [(&'static str, f64); N] + Send + 'static) {
    let (series, clock, shutdown) = (env.series.clone(), env.clock.clone(), env.shutdown.clone());
    tokio::spawn(async move {
        let mut at_ns = clock.now_ns();
        loop {
            for (name, value) in read() {
                series.push(clock.now_ns(), name, Some(value));
            }
            // Not from now on: readings that take time would drift.
            at_ns = (at_ns + EVERY.as_nanos() as u64).max(clock.now_ns());
            tokio::select! {
                () = clock.sleep_until(at_ns) => {}
                () = shutdown.requested() => return,
            }
        }
    });
}

//! The role `hog`: takes CPUs and memory away from whatever else runs here.
//!
//! The one rule: it takes what it was told and no more, never more than half of the memory that is available, and lets
//! go of it at once when told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use kit::role::BoxFuture;
use kit::{Clock, Env};
use serde::Deserialize;

use crate::faults::possible::available_memory;

/// The role.
pub const ROLE: kit::Role = kit::Role { name: "hog", about: "takes CPUs and memory away", run };

/// How long a thread burns and rests, together: short, so that a fraction of a CPU is one at any time.
const PERIOD_NS: u64 = 10_000_000;
/// CPUs that make sense: more threads than any machine has do not burn more.
const MOST_CPUS: f64 = 4096.0;
/// What is touched between two looks whether to go on.
const PIECE: usize = 4 << 20;
const PAGE: usize = 4096;

/// The settings of the role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HogSettings {
    /// How many CPUs to burn; 1.5 is one and half of another.
    pub cpus: f64,
    /// How much memory to hold.
    pub bytes: u64,
}

fn run(env: Env) -> BoxFuture<anyhow::Result<()>> {
    Box::pin(hog(env))
}

async fn hog(mut env: Env) -> anyhow::Result<()> {
    // It serves nobody.
    drop(env.listener.take());
    let settings: HogSettings = env.config.settings()?;
    check(settings, available_memory().ok()).map_err(|why| anyhow::anyhow!("settings of role hog: {why}"))?;
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let holding = tokio::task::spawn_blocking(move || hold(settings.bytes, &told));
    let memory = tokio::select! {
        memory = holding => memory??,
        () = env.shutdown.requested() => {
            stop.store(true, Relaxed);
            return Ok(());
        }
    };
    let threads = burn(settings.cpus, &env, &stop)?;
    let now_ns = env.clock.now_ns();
    env.series.push(now_ns, "hog_cpus", Some(settings.cpus));
    env.series.push(now_ns, "hog_bytes", Some(memory.len() as f64));
    env.ready();
    env.shutdown.requested().await;
    stop.store(true, Relaxed);
    drop(memory);
    // Each looks every few milliseconds.
    tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join()))).await?;
    Ok(())
}

/// Whether a machine with so much memory available can be asked for it.
///
/// # Errors
/// Why not, and what can be asked for.
pub fn check(settings: HogSettings, available: Option<u64>) -> Result<(), String> {
    let HogSettings { cpus, bytes } = settings;
    if !(0.0..=MOST_CPUS).contains(&cpus) {
        return Err(format!("cpus = {cpus}: write 0 or more, such as 1.5"));
    }
    if cpus == 0.0 && bytes == 0 {
        return Err("it takes neither CPUs nor memory; write cpus, bytes, or both".to_owned());
    }
    let mb = |bytes: u64| bytes / 1_000_000;
    match available {
        _ if bytes == 0 => Ok(()),
        None => Err("how much memory is available cannot be read from /proc/meminfo, so none is taken".to_owned()),
        Some(available) if bytes > available / 2 => Err(format!(
            "{} MB are more than half of the {} MB that are available; ask for {} MB or less",
            mb(bytes),
            mb(available),
            mb(available / 2)
        )),
        Some(_) => Ok(()),
    }
}

/// Memory that is there, not only promised: every page has been written. Empty when it was told to stop.
fn hold(bytes: u64, stop: &AtomicBool) -> anyhow::Result<Vec<u8>> {
    let mut memory = Vec::new();
    let size = usize::try_from(bytes).context("bytes of role hog")?;
    memory.try_reserve_exact(size).with_context(|| format!("{bytes} bytes cannot be had"))?;
    while memory.len() < size {
        if stop.load(Relaxed) {
            return Ok(Vec::new());
        }
        let piece = PIECE.min(size - memory.len());
        let from = memory.len();
        memory.resize(from + piece, 0);
        // Zeros alone could all be one page.
        memory[from..].iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    }
    Ok(memory)
}

fn burn(cpus: f64, env: &Env, stop: &Arc<AtomicBool>) -> anyhow::Result<Vec<thread::JoinHandle<()>>> {
    shares(cpus)
        .enumerate()
        .map(|(number, share)| {
            let (clock, stop) = (env.clock.clone(), stop.clone());
            thread::Builder::new()
                .name(env.thread_name(&format!("hog{number}")))
                .spawn(move || burn_share(share, &clock, &stop))
                .context("starting a thread to burn a CPU")
        })
        .collect()
}

/// What each thread burns of a CPU: all of one, and the last what is left.
fn shares(cpus: f64) -> impl Iterator<Item = f64> {
    let whole = cpus.floor();
    std::iter::repeat_n(1.0, whole as usize).chain(Some(cpus - whole).filter(|rest| *rest > 0.0))
}

fn burn_share(share: f64, clock: &Clock, stop: &AtomicBool) {
    let burning_ns = (PERIOD_NS as f64 * share) as u64;
    let mut period_ns = clock.now_ns();
    while !stop.load(Relaxed) {
        while clock.now_ns() < period_ns + burning_ns && !stop.load(Relaxed) {
            (0..100).for_each(|_| std::hint::spin_loop());
        }
        // What was missed because another had the CPU is not made up for.
        let now_ns = clock.now_ns();
        period_ns = (period_ns + PERIOD_NS).max(now_ns.saturating_sub(PERIOD_NS));
        if share < 1.0 {
            thread::park_timeout(Duration::from_nanos(period_ns.saturating_sub(now_ns)));
        }
    }
}

#[cfg(test)]
mod tests {
    use kit::RoleConfig;

    use super::*;

    #[test]
    fn never_more_than_half_of_the_memory_is_taken() {
        let ask = |cpus, bytes| HogSettings { cpus, bytes };
        for (settings, available, expected) in [
            (ask(1.5, 0), None, None),
            (ask(0.0, 50_000_000), Some(100_000_000), None),
            (ask(0.0, 50_000_001), Some(100_000_000), Some("ask for 50 MB or less")),
            (ask(0.0, 1), None, Some("/proc/meminfo")),
            (ask(0.0, 0), Some(1), Some("write cpus, bytes, or both")),
            (ask(-1.0, 0), None, Some("0 or more")),
            (ask(f64::NAN, 0), None, Some("0 or more")),
        ] {
            let said = check(settings, available);
            match expected {
                None => assert_eq!(said, Ok(()), "{settings:?}"),
                Some(part) => assert!(said.as_ref().unwrap_err().contains(part), "{settings:?}: {said:?}"),
            }
        }
    }

    #[test]
    fn a_share_of_a_cpu_is_a_thread_of_its_own() {
        for (cpus, expected) in [(0.0, &[][..]), (0.5, &[0.5]), (1.0, &[1.0]), (2.25, &[1.0, 1.0, 0.25])] {
            assert_eq!(shares(cpus).collect::<Vec<_>>(), expected, "{cpus}");
        }
    }

    fn start(settings: serde_json::Value) -> kit::host::Hosted {
        let mut config = RoleConfig::new("hog");
        config.settings = settings;
        kit::host::start(ROLE, config, Clock::real()).unwrap()
    }

    #[test]
    fn it_is_ready_once_it_holds_what_it_was_told_and_ends_when_told() {
        let mut hog = start(serde_json::json!({"cpus": 0.1, "bytes": 64 << 20}));
        assert!(hog.wait_until_started());
        let points = hog.admin.series.after(0);
        assert!(
            points.iter().any(|point| point.name == "hog_bytes" && point.value == Some(67_108_864.0)),
            "{points:?}"
        );
        hog.request_stop();
        hog.join().unwrap();
    }

    #[test]
    fn more_than_there_is_is_refused_with_the_reason() {
        let mut hog = start(serde_json::json!({"bytes": 1_u64 << 60}));
        assert!(!hog.wait_until_started());
        let error = format!("{:#}", hog.join().unwrap_err());
        assert!(error.contains("more than half of the"), "{error}");
    }
}

//! Injects what is planned, on time, and records what happened, in four instants.
//!
//! Each injection has a thread of its own. A fault that is applied is a guard: dropped, it heals. When the trial is over,
//! however it ends, nothing new is broken, and what is broken is healed at once.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use anyhow::Context as _;

use super::journal::{Intent, Journal};
use super::noted::Noted;
use super::possible::Machine;
use super::{FaultKind, Injection, Planned, machine, network, process};
use crate::deploy::Deployment;
use crate::deploy::running::Running;
use crate::error::surroundings;
use crate::experiment::DeploymentKind;
use crate::interrupt::Interrupt;

/// Where faults are injected.
pub struct Stage<'a> {
    /// Into whom.
    pub running: &'a Running<'a>,
    /// When the trial starts, on the lab's clock.
    pub origin_ns: u64,
    /// The lab's clock.
    pub clock: kit::Clock,
    /// Ctrl-C.
    pub interrupt: &'a Interrupt,
    /// That the trial is over.
    pub over: &'a Over,
    /// Where what takes CPU and memory runs.
    pub processes: &'a dyn Deployment,
    /// What this machine can do, and where it is to do it; none is everything.
    pub machine: Option<(&'a Machine, DeploymentKind)>,
    /// Where it is written down what has to be undone.
    pub journal: &'a Arc<Journal>,
    /// Told of every injection at each of its instants.
    pub told: &'a Told,
}

/// The injections that have come further since somebody looked, each with its place in the plan.
#[derive(Default)]
pub struct Told(Mutex<Vec<(usize, Injection)>>);

impl Told {
    fn tell(&self, place: usize, injection: &Injection) {
        self.lock().push((place, injection.clone()));
    }

    /// Takes them out.
    pub fn take(&self) -> Vec<(usize, Injection)> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(usize, Injection)>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Whether the trial is over, and why.
#[derive(Default)]
pub struct Over {
    why: Mutex<Option<String>>,
    bell: Condvar,
}

/// Tells that the trial is over when dropped.
#[must_use = "dropped, it says that the trial is over"]
pub struct AtTheEnd<'a>(&'a Over);

/// A fault that is in effect. Dropped, it heals.
pub(super) trait Applied {
    /// Issues the repair and waits until it is done.
    fn heal(&mut self) -> anyhow::Result<()>;
    /// When the target was seen to be as before, after healing; none when it was not.
    fn ready_ns(&self) -> Option<u64>;
}

/// A fault as it was applied.
pub(super) struct Effect<'a> {
    /// What heals it.
    pub applied: Box<dyn Applied + 'a>,
    /// When it was commanded: once the target was free to be commanded.
    pub command_ns: u64,
    /// When its effect was seen; none when it was not.
    pub seen_ns: Option<u64>,
    /// What went wrong, though it was applied.
    pub problem: Option<String>,
}

/// An effect, or a repair, that is not seen by then was not seen; of an effect, beyond the downtime.
pub(super) const SEEN_WITHIN: Duration = Duration::from_secs(30);

/// How often is looked whether an effect, or a repair, can be seen.
pub(super) const PROBE: Duration = Duration::from_millis(5);

/// Enough for a thread that mostly waits, of which there may be hundreds.
const STACK: usize = 512 << 10;

/// The threads that inject.
pub struct Injecting<'scope>(Vec<(Injection, ScopedJoinHandle<'scope, Injection>)>);

/// Begins to inject what is planned.
///
/// # Errors
/// When a thread cannot be started, as surroundings.
pub fn begin<'scope>(
    scope: &'scope Scope<'scope, '_>,
    stage: &'scope Stage<'_>,
    planned: &'scope [Planned],
) -> anyhow::Result<Injecting<'scope>> {
    let mut threads = Vec::new();
    for (number, planned) in planned.iter().enumerate() {
        let thread = std::thread::Builder::new().name(format!("fault{}", number + 1)).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, move || stage.inject(number, planned));
        let thread = thread.map_err(|error| surroundings(format!("cannot start a thread for a fault: {error}")))?;
        threads.push((empty(planned), thread));
    }
    Ok(Injecting(threads))
}

impl Injecting<'_> {
    /// Whether one has not ended.
    pub fn under_way(&self) -> bool {
        self.0.iter().any(|(_, thread)| !thread.is_finished())
    }

    /// Waits for all; gives back what happened, in the order of the plan.
    pub fn end(self) -> Vec<Injection> {
        let end = |(empty, thread): (Injection, ScopedJoinHandle<'_, Injection>)| {
            let panicked = || Injection { problem: Some("its thread panicked".to_owned()), ..empty };
            thread.join().unwrap_or_else(|_| panicked())
        };
        self.0.into_iter().map(end).collect()
    }
}

fn empty(planned: &Planned) -> Injection {
    Injection {
        kind: planned.kind.name().to_owned(),
        role: planned.role.clone(),
        replica: planned.replica,
        from: planned.from.clone(),
        ..Injection::default()
    }
}

impl Stage<'_> {
    fn inject(&self, place: usize, planned: &Planned) -> Injection {
        let mut injection = empty(planned);
        if let Err(error) = self.break_and_heal(place, planned, &mut injection) {
            injection.problem.get_or_insert(format!("{error:#}"));
        }
        self.told.tell(place, &injection);
        injection
    }

    fn break_and_heal(&self, place: usize, planned: &Planned, injection: &mut Injection) -> anyhow::Result<()> {
        let at_ns = self.origin_ns + planned.at.as_nanos() as u64;
        if let Some(why) = self.over.wait_until(&self.clock, at_ns) {
            anyhow::bail!("it was not injected: {why}");
        }
        let against = self.machine.and_then(|(machine, site)| machine.against(planned.kind.name(), site));
        if against.is_some() {
            injection.skipped = against;
            return Ok(());
        }
        let mut paused = None;
        if planned.kind == FaultKind::Pause {
            let slot = self.running.slot(&planned.role, planned.replica)?;
            injection.skipped = slot.cannot_be_held();
            if injection.skipped.is_some() {
                return Ok(());
            }
            let intent = slot.pid().and_then(Intent::paused);
            paused = intent.map(|intent| Noted::new(self.journal, intent)).transpose()?;
        }
        let command_ns = self.clock.now_ns();
        injection.command_s = self.since_start(command_ns);
        self.told.tell(place, injection);
        let Effect { mut applied, command_ns, seen_ns, problem } = self.apply(planned).inspect_err(|_| {
            // Nothing was broken.
            injection.command_s = None;
        })?;
        injection.command_s = self.since_start(command_ns);
        injection.effect_s = seen_ns.and_then(|seen_ns| self.since_start(seen_ns));
        injection.problem = problem.or_else(|| seen_ns.is_none().then(|| self.not_seen("its effect")));
        self.told.tell(place, injection);
        let downtime = if planned.kind == FaultKind::Restart { Duration::ZERO } else { planned.downtime };
        let _ = self.over.wait_until(&self.clock, command_ns + downtime.as_nanos() as u64);
        injection.repair_s = self.since_start(self.clock.now_ns());
        self.told.tell(place, injection);
        if let Err(error) = applied.heal() {
            // So that it can be healed later.
            paused.into_iter().for_each(Noted::keep);
            return Err(error).context("it could not be healed");
        }
        drop(paused);
        injection.ready_s = applied.ready_ns().and_then(|ready_ns| self.since_start(ready_ns));
        if injection.ready_s.is_none() {
            injection.problem.get_or_insert(self.not_seen("that it was ready again"));
        }
        Ok(())
    }

    fn apply<'s>(&'s self, planned: &Planned) -> anyhow::Result<Effect<'s>> {
        match &planned.kind {
            FaultKind::Restart | FaultKind::StopStart => process::stop(self, planned),
            FaultKind::Kill => process::kill(self, planned),
            FaultKind::Pause => process::pause(self, planned),
            FaultKind::Link(fault) => network::break_link(self, planned, fault),
            FaultKind::CpuBurn { cpus } => machine::hog(self, planned, *cpus, 0),
            FaultKind::MemoryHog { bytes } => machine::hog(self, planned, 0.0, *bytes),
        }
    }

    fn since_start(&self, at_ns: u64) -> Option<f64> {
        Some((at_ns as f64 - self.origin_ns as f64) / 1e9)
    }

    fn not_seen(&self, what: &str) -> String {
        if self.interrupt.is_asked() {
            return format!("{what} was not seen: the run was interrupted");
        }
        format!("{what} was not seen within {} s", SEEN_WITHIN.as_secs())
    }

    /// Looks again and again until `seen` is so; gives back when that was, or none when it was not by then, or the run
    /// was interrupted.
    pub(super) fn probe(&self, at_most: Duration, mut seen: impl FnMut() -> bool) -> Option<u64> {
        let deadline_ns = self.clock.now_ns() + at_most.as_nanos() as u64;
        loop {
            if seen() {
                return Some(self.clock.now_ns());
            }
            if self.clock.now_ns() > deadline_ns || self.interrupt.wait(PROBE) {
                return None;
            }
        }
    }
}

impl Over {
    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.why.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Tells that the trial is over; the first reason counts.
    pub fn tell(&self, why: &str) {
        self.lock().get_or_insert_with(|| why.to_owned());
        self.bell.notify_all();
    }

    /// Tells it at the latest when what this gives back is dropped.
    pub fn at_the_end(&self) -> AtTheEnd<'_> {
        AtTheEnd(self)
    }

    /// Waits until an instant, or until the trial is over; gives back why it is.
    pub fn wait_until(&self, clock: &kit::Clock, at_ns: u64) -> Option<String> {
        let mut why = self.lock();
        loop {
            let left_ns = at_ns.saturating_sub(clock.now_ns());
            if left_ns == 0 || why.is_some() {
                return why.clone();
            }
            let waited = self.bell.wait_timeout(why, Duration::from_nanos(left_ns));
            why = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }
}

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.tell("the trial has ended");
    }
}

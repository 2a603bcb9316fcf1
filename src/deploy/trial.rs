//! Runs one trial somewhere and gives back its record.
//!
//! The order is always the same: databases, roles (each after its peers), generators with their set-up, a common start,
//! sampling each interval while faults come and go, heal, stop, drain, last read, end. Whatever happens, what was broken
//! is healed and what was started is ended.

use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::collect::{Collected, Origin, sample};
use super::history::History;
use super::running::{Running, tell_start};
use super::start::Starting;
use super::{Deployment, pinning};
use crate::archive::TrialFiles;
use crate::database::Server;
use crate::experiment::{Experiment, LoadPlan, Trial};
use crate::faults::inject::{Over, Stage, Told};
use crate::faults::journal::Journal;
use crate::faults::possible::Machine;
use crate::faults::{self, Injection, Planned};
use crate::interrupt::Interrupt;
use crate::measure::{Sample, TrialRecord};
use crate::systems::System;

pub use super::simulated::simulate;

/// What a trial needs beside the experiment.
pub struct Site<'a> {
    /// The experiment.
    pub experiment: &'a Experiment,
    /// The system under test.
    pub system: &'a dyn System,
    /// Where its roles run.
    pub deployment: &'a dyn Deployment,
    /// Where the generators run.
    pub load_deployment: &'a dyn Deployment,
    /// Where what takes CPU and memory beside a role runs: never in the lab's own process.
    pub processes: &'a dyn Deployment,
    /// Where databases are made.
    pub databases: &'a Server,
    /// Who gets which CPUs.
    pub budget: &'a pinning::Budget,
    /// The run's name, part of every name it makes.
    pub run: &'a str,
    /// Which faults this machine can do; none is every kind.
    pub machine: Option<&'a Machine>,
    /// Where it is written down what has to be undone.
    pub journal: &'a Arc<Journal>,
    /// Ctrl-C.
    pub interrupt: &'a Interrupt,
    /// Told what is going on, with the share of the trial that is done.
    pub progress: &'a dyn Fn(&str, f64),
}

/// What came of a trial.
pub enum Ended {
    /// Its record.
    Done(Box<TrialRecord>),
    /// It was interrupted; what it had measured is in its files.
    Interrupted,
}

/// The longest one operation may take, in time-outs: connecting, the exchange, and both again after a lost connection.
pub const TIMEOUTS_OF_AN_OPERATION: u32 = 4;

/// The gauge that says how long accounts and data took to make, in seconds, before anything was measured.
pub const SET_UP: &str = "set_up_s";

/// A role that is not ready by then does not come up.
pub const READY_WITHIN: Duration = Duration::from_secs(60);

/// The same for a generator, which makes its users' accounts before.
pub const SET_UP_WITHIN: Duration = Duration::from_secs(900);

/// How often the lab looks whether a drain is over.
const LOOK: Duration = Duration::from_millis(20);

/// From the start signal to the first second, so that every generator has heard it.
const LEAD: Duration = Duration::from_millis(150);

/// Beyond the end of the window, faults take at most this long to heal: stopping, starting and getting ready are each
/// given up before.
const HEALED_WITHIN: Duration = Duration::from_secs(180);

/// Runs one trial.
///
/// # Errors
/// When something could not be started, or a replica could not be read, as surroundings.
pub fn run(site: &Site<'_>, trial: &Trial, files: &mut TrialFiles) -> anyhow::Result<Ended> {
    let assembly = site.system.assemble(site.experiment, &trial.levels);
    let plan = site.experiment.load.at(&trial.levels);
    let planned = faults::plan::plan(site.experiment, trial, &assembly);
    (site.progress)("starting", 0.0);
    let mut starting = Starting::new(site, trial, &assembly, &planned, files)?;
    starting.system()?;
    if site.interrupt.is_asked() {
        return Ok(Ended::Interrupted);
    }
    let mut set_up = None;
    if let Some(entry) = assembly.entry {
        (site.progress)("setting up", 0.0);
        let clock = kit::Clock::real();
        let before_ns = clock.now_ns();
        starting.load(entry, &plan)?;
        let took_s = (clock.now_ns() - before_ns) as f64 / 1e9;
        let (name, role) = (SET_UP.to_owned(), "load".to_owned());
        set_up = Some(Sample { t_s: 0.0, name, role, replica: 1, value: Some(took_s) });
    }
    let Starting { mut running, .. } = starting;
    let mut collected = Collected::new(site.system.counted_kind(), !planned.is_empty())?;
    collected.history = History::of(site, trial);
    files.series(set_up.as_slice())?;
    collected.series.extend(set_up);
    let (injections, failure) = measure(site, trial, &plan, &planned, &running, files, &mut collected)?;
    // Here everything is healed and ready, and nothing is being sent: what was written can be read back.
    let mut history = collected.history.as_mut().filter(|_| !site.interrupt.is_asked());
    collected.lost =
        history.as_mut().and_then(|history| history.check(site, trial, &running, assembly.entry, failure.as_deref()));
    let problems = running.stop();
    if site.interrupt.is_asked() {
        return Ok(Ended::Interrupted);
    }
    let failure = failure.or_else(|| problems.into_iter().next());
    let participants = running.slots.iter().map(|slot| slot.participant.clone()).collect();
    Ok(Ended::Done(Box::new(collected.record(site, trial, participants, injections, failure))))
}

/// Measures until the window has passed and everything has drained; gives back what was injected, and why the trial is
/// not valid, if so.
fn measure(
    site: &Site<'_>,
    trial: &Trial,
    plan: &LoadPlan,
    planned: &[Planned],
    running: &Running<'_>,
    files: &mut TrialFiles,
    collected: &mut Collected,
) -> anyhow::Result<(Vec<Injection>, Option<String>)> {
    let clock = kit::Clock::real();
    if site.interrupt.is_asked() {
        return Ok((Vec::new(), None));
    }
    let origin = Origin {
        ns: clock.now_ns() + LEAD.as_nanos() as u64,
        unix_s: (clock.wall_ns() + LEAD.as_nanos() as u64) as f64 / 1e9,
    };
    for slot in running.measuring() {
        if let Some(told) = slot.ask(|admin, _| tell_start(admin, &clock, origin.ns)) {
            told?;
        }
    }
    let window = site.experiment.window(plan);
    let (over, told) = (Over::default(), Told::default());
    let stage = Stage {
        running,
        origin_ns: origin.ns,
        clock: clock.clone(),
        interrupt: site.interrupt,
        over: &over,
        processes: site.processes,
        machine: site.machine.map(|machine| (machine, site.experiment.deployment)),
        journal: site.journal,
        told: &told,
    };
    collected.watch(site.experiment.abort_when.as_ref(), &window);
    let mut measuring = Measuring { site, trial, running, told: &told, origin, clock, files, collected };
    let (injections, failure) = thread::scope(|scope| {
        // Whatever happens in here, the threads that inject are told to heal and end, and waited for.
        let _over = over.at_the_end();
        let injecting = faults::inject::begin(scope, &stage, planned)?;
        let mut failure = measuring.window(plan, &window)?;
        over.tell(failure.as_deref().unwrap_or("the measured window was over"));
        (site.progress)("draining", 1.0);
        if failure.is_none() {
            failure = measuring.settle(|| injecting.under_way())?;
        }
        anyhow::Ok((injecting.end(), failure))
    })?;
    let at_the_end = measuring.end(&window, failure.is_none())?;
    Ok((injections, failure.or(at_the_end)))
}

/// A trial that is being measured.
struct Measuring<'m, 'a> {
    site: &'m Site<'a>,
    trial: &'m Trial,
    running: &'m Running<'a>,
    told: &'m Told,
    origin: Origin,
    clock: kit::Clock,
    files: &'m mut TrialFiles,
    collected: &'m mut Collected,
}

impl Measuring<'_, '_> {
    /// Samples and reads at each interval until the window has passed; gives back why the trial ended before, if so.
    fn window(&mut self, plan: &LoadPlan, window: &Range<u32>) -> anyhow::Result<Option<String>> {
        let interval = self.site.experiment.sample_interval.as_nanos() as u64;
        let (origin_ns, end_ns) = (self.origin.ns, self.origin.ns + u64::from(window.end) * 1_000_000_000);
        let mut next = origin_ns;
        loop {
            let now = self.clock.now_ns();
            if now < next && self.site.interrupt.wait(Duration::from_nanos(next - now)) {
                return Ok(None);
            }
            let failure = self.look()?.or_else(|| self.collected.aborted());
            if failure.is_some() || next >= end_ns {
                return Ok(failure);
            }
            let done = (next - origin_ns) as f64 / (end_ns - origin_ns) as f64;
            (self.site.progress)(phase(plan, self.site.experiment.warmup, done * f64::from(window.end)), done);
            next = (next + interval).min(end_ns);
        }
    }

    /// Samples and reads once; gives back why the trial cannot go on, if so.
    fn look(&mut self) -> anyhow::Result<Option<String>> {
        self.write_faults()?;
        sample(self.running, self.origin, &self.clock, self.collected, self.files)?;
        let read = self.collected.read(self.running, self.origin, self.files);
        // What has ended by itself is the reason why it could not be read.
        Ok(self.running.ended().or_else(|| read.err().map(|error| format!("{error:#}"))))
    }

    /// Writes how far faults have come since the last time.
    fn write_faults(&mut self) -> anyhow::Result<()> {
        self.told.take().iter().try_for_each(|(place, injection)| self.files.fault(*place, injection))
    }

    /// Goes on sampling and reading while something keeps the trial from its end, because that may take a while; gives
    /// back what it was in the end, if that was too long or went wrong.
    fn wait(&mut self, at_most: Duration, mut waits: impl FnMut() -> Option<String>) -> anyhow::Result<Option<String>> {
        let interval = self.site.experiment.sample_interval.as_nanos() as u64;
        let begun_ns = self.clock.now_ns();
        let mut next_ns = begun_ns + interval;
        while let Some(problem) = waits() {
            let now_ns = self.clock.now_ns();
            if now_ns > begun_ns + at_most.as_nanos() as u64 {
                return Ok(Some(format!("{problem} within {} s; its last seconds are missing", at_most.as_secs())));
            }
            if let Some(ended) = self.running.ended() {
                return Ok(Some(ended));
            }
            if now_ns >= next_ns {
                next_ns += interval;
                if let Some(failure) = self.look()? {
                    return Ok(Some(failure));
                }
            }
            if self.site.interrupt.wait(LOOK) {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Waits until every fault is healed.
    fn settle(&mut self, mut under_way: impl FnMut() -> bool) -> anyhow::Result<Option<String>> {
        self.wait(HEALED_WITHIN, || under_way().then(|| "what was broken was not healed".to_owned()))
    }

    /// Stops what makes the load, then what measures beside it, and waits until what they had begun has ended, or been
    /// given up; gives back why not, if so.
    fn drain(&mut self) -> anyhow::Result<Option<String>> {
        let at_most = self.site.system.drain_within(self.site.experiment, &self.trial.levels);
        let at_most = at_most.unwrap_or(self.site.experiment.timeout * TIMEOUTS_OF_AN_OPERATION);
        for under_test in [false, true] {
            let running = self.running;
            running.stop_measuring(under_test);
            let undrained = self.wait(at_most + Duration::from_secs(2), || running.undrained(under_test))?;
            if let Some(problem) = undrained {
                return Ok(Some(problem));
            }
        }
        Ok(None)
    }

    /// Drains where the trial has gone well, and reads for the last time; gives back what went wrong, if so.
    fn end(&mut self, window: &Range<u32>, is_well: bool) -> anyhow::Result<Option<String>> {
        let mut failure = None;
        if is_well && !self.site.interrupt.is_asked() {
            failure = self.drain().unwrap_or_else(|error| Some(format!("{error:#}")));
        }
        if let Err(error) = self.collected.read(self.running, self.origin, self.files) {
            failure = failure.or_else(|| self.running.ended()).or_else(|| Some(format!("{error:#}")));
        }
        self.write_faults()?;
        self.collected.finish(self.site, self.trial, window, self.origin, self.files)?;
        Ok(failure)
    }
}

fn phase(plan: &LoadPlan, warmup: Duration, at_s: f64) -> &'static str {
    let ramp_s = plan.ramp().as_secs_f64();
    if at_s < ramp_s {
        "users start"
    } else if at_s < ramp_s + warmup.as_secs_f64() {
        "warming up"
    } else {
        "measuring"
    }
}

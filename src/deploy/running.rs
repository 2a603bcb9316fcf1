//! The replicas of a trial, each in its slot.
//!
//! A slot is shared between the loop that samples and reads, and the threads that inject faults. The one rule: whoever
//! takes long with a replica, ending it or starting it again, takes it out of its slot before, so the loop never waits.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use kit::usage::Usage;
use kit::{Clock, Role, RoleConfig};

use super::{AdminClient, Deployment, Launch, Replica};
use crate::database::Databases;
use crate::faults::journal::{Intent, Journal};
use crate::faults::noted::Noted;
use crate::interrupt::Interrupt;
use crate::measure::Participant;

/// All replicas, generators last. Dropped, all are ended.
pub struct Running<'a> {
    /// In the order of starting.
    pub slots: Vec<Slot<'a>>,
    /// The proxies in links that are going to be broken.
    pub links: Vec<Link>,
    /// Dropped once nobody uses them.
    pub databases: Option<Databases>,
    /// That they are to be dropped.
    pub databases_noted: Vec<Noted>,
    /// Removed when dropped, after the replicas; a simulation has none.
    pub scratch: Option<tempfile::TempDir>,
    /// That it is to be removed.
    pub scratch_noted: Option<Noted>,
}

/// A link that goes through a proxy.
pub struct Link {
    /// Who talks.
    pub from: String,
    /// To whom.
    pub role: String,
    /// Which copy, from 1.
    pub replica: u32,
    /// Whether the proxy understands HTTP, or passes bytes on.
    pub http: bool,
    /// The proxy's slot.
    pub slot: usize,
}

/// A place for a replica, which may be down for a while.
pub struct Slot<'a> {
    /// What the report says of it.
    pub participant: Participant,
    /// Whether it is told start and stop, and measures operations itself.
    pub measures: bool,
    /// Where it serves; the same each time it is started.
    pub addr: String,
    /// What it takes to start it again; none for what nobody here started.
    launched: Option<Launched<'a>>,
    inside: Mutex<Inside>,
}

/// All that a replica was started with.
pub struct Launched<'a> {
    /// Where.
    pub deployment: &'a dyn Deployment,
    /// The system it belongs to.
    pub system: &'a str,
    /// The role.
    pub role: Role,
    /// What it is told.
    pub config: RoleConfig,
    /// Its CPUs.
    pub cpus: Option<Vec<usize>>,
    /// Its log.
    pub log: PathBuf,
    /// How long it may take until it is ready.
    pub ready_within: Duration,
    /// Where it is written down that its process is to be ended.
    pub journal: Arc<Journal>,
}

/// A replica that runs, and that it is written down.
pub struct Alive {
    /// The replica.
    pub replica: Box<dyn Replica>,
    /// Goes after it.
    _noted: Option<Noted>,
}

struct Inside {
    state: State,
    /// How often it was started again: what it tells is numbered anew each time.
    life: u32,
    /// The last reading: when, and CPU seconds.
    last: Option<(u64, f64)>,
    /// Why it ended, when that was not asked for.
    died: Option<String>,
}

enum State {
    Up(Alive),
    /// It is held: it can be sampled, but would not answer.
    Held(Alive),
    /// A fault has ended it, or somebody is ending or starting it right now.
    Down,
}

/// What one replica uses.
pub struct Reading {
    /// When it was read.
    pub at_ns: u64,
    /// What was read; nothing while it is down.
    pub usage: Usage,
    /// CPUs used since the reading before; the outer one is none where there was no reading before.
    pub cpu: Option<Option<f64>>,
}

/// Bound by another socket in the moment when it is wanted back: that passes.
const ADDRESS_WITHIN: Duration = Duration::from_secs(10);

/// How often a taken address is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(50);

impl Launched<'_> {
    /// Starts the replica, and waits until it is ready.
    ///
    /// # Errors
    /// Why it did not come up, as surroundings.
    pub fn launch(&self, interrupt: &Interrupt) -> anyhow::Result<Alive> {
        self.launch_at(self.config.clone(), interrupt)
    }

    fn launch_at(&self, config: RoleConfig, interrupt: &Interrupt) -> anyhow::Result<Alive> {
        let number = config.replica;
        let replica = self.deployment.launch(&Launch {
            system: self.system,
            role: self.role,
            config,
            cpus: self.cpus.as_deref(),
            log: &self.log,
            ready_within: self.ready_within,
            interrupted: &|| interrupt.is_asked(),
        })?;
        // Until here it would have ended with the lab by itself, as it does later unless it is held.
        let process = replica.pid().and_then(|pid| Intent::process(pid, self.role.name, number));
        let noted = process.map(|process| Noted::new(&self.journal, process)).transpose()?;
        Ok(Alive { replica, _noted: noted })
    }
}

/// Whether an address was taken, by what the system says of it.
fn address_is_taken(error: &anyhow::Error) -> bool {
    let number = rustix::io::Errno::ADDRINUSE.raw_os_error();
    format!("{error:#}").contains(&format!("(os error {number})"))
}

/// Tells a replica when the trial starts, on its own clock.
///
/// # Errors
/// When it does not answer.
pub fn tell_start(admin: &AdminClient, clock: &Clock, origin_ns: u64) -> anyhow::Result<()> {
    let before = clock.now_ns();
    let reading = admin.clock()?;
    let here = before.midpoint(clock.now_ns());
    // On one machine the offset is the error of reading it; elsewhere it is what makes the start common.
    let offset = i128::from(reading.monotonic_ns) - i128::from(here);
    admin.start(u64::try_from(i128::from(origin_ns) + offset).unwrap_or(0))
}

impl<'a> Slot<'a> {
    /// A slot with a replica that is up.
    pub fn new(participant: Participant, measures: bool, launched: Option<Launched<'a>>, alive: Alive) -> Self {
        let addr = alive.replica.addr();
        let inside = Mutex::new(Inside { state: State::Up(alive), life: 0, last: None, died: None });
        Self { participant, measures, addr, launched, inside }
    }

    /// Stands for the system when it runs elsewhere, so that what is not measured has a name and a reason.
    pub fn external() -> Self {
        let reason = Some("the system runs elsewhere".to_owned());
        let participant = Participant {
            role: "external".to_owned(),
            replica: 1,
            under_test: true,
            cpus: None,
            no_memory: reason.clone(),
            no_cpu: reason,
        };
        Self::new(participant, false, None, Alive::elsewhere(AdminClient::http("", "")))
    }

    /// Its role and number, in words.
    pub fn name(&self) -> String {
        format!("{} {}", self.participant.role, self.participant.replica)
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Reads what it uses.
    pub fn reading(&self, clock: &Clock) -> Reading {
        let mut inside = self.lock();
        let usage = match &mut inside.state {
            State::Up(alive) | State::Held(alive) => Some(alive.replica.usage()),
            State::Down => None,
        };
        let at_ns = clock.now_ns();
        let Some(usage) = usage else { return Reading { at_ns, usage: Usage::default(), cpu: Some(None) } };
        let cpu = inside.last.map(|(then_ns, before_s)| {
            let used_s = usage.cpu_s? - before_s;
            (at_ns > then_ns).then(|| used_s / ((at_ns - then_ns) as f64 / 1e9))
        });
        inside.last = usage.cpu_s.map(|cpu_s| (at_ns, cpu_s));
        Reading { at_ns, usage, cpu }
    }

    /// Asks its admin endpoint; none where it is down or held. With it comes which life of the replica this is. No fault
    /// is injected meanwhile: a question to a replica that is then held would wait for long.
    pub fn ask<T>(&self, question: impl FnOnce(&AdminClient, u32) -> T) -> Option<T> {
        let inside = self.lock();
        match &inside.state {
            State::Up(alive) => Some(question(alive.replica.admin(), inside.life)),
            State::Held(_) | State::Down => None,
        }
    }

    /// Its admin endpoint, where it is up.
    pub fn admin(&self) -> Option<AdminClient> {
        self.ask(|admin, _| admin.clone())
    }

    /// Why it has ended, when it has ended by itself or could not be started again.
    pub fn ended(&self) -> Option<String> {
        let mut inside = self.lock();
        if inside.died.is_none() {
            inside.died = match &mut inside.state {
                State::Up(alive) | State::Held(alive) => alive.replica.ended(),
                State::Down => None,
            };
        }
        inside.died.clone()
    }

    /// Takes the replica out: it is down from now on.
    ///
    /// # Errors
    /// When it is not there to be taken.
    pub fn take(&self) -> anyhow::Result<Alive> {
        self.check_alive()?;
        let mut inside = self.lock();
        match std::mem::replace(&mut inside.state, State::Down) {
            State::Up(alive) => {
                inside.last = None;
                Ok(alive)
            }
            other => {
                inside.state = other;
                drop(inside);
                anyhow::bail!("{} was still down, or held, by the fault before", self.name())
            }
        }
    }

    fn check_alive(&self) -> anyhow::Result<()> {
        self.ended().map_or(Ok(()), |reason| Err(anyhow::anyhow!("it had ended before: {reason}")))
    }

    /// Starts it again where it was, and puts it back; one that measures is told when the trial started.
    ///
    /// # Errors
    /// Why it did not come up; the slot has then ended, with that reason.
    pub fn start_again(&self, clock: &Clock, origin_ns: u64, interrupt: &Interrupt) -> anyhow::Result<()> {
        let launched_ns = clock.now_ns();
        let started = self.launch_again(clock, interrupt).and_then(|alive| {
            if self.measures {
                tell_start(alive.replica.admin(), clock, origin_ns)?;
            }
            Ok(alive)
        });
        let mut inside = self.lock();
        match started {
            Ok(alive) => {
                inside.state = State::Up(alive);
                inside.life += 1;
                inside.last = Some((launched_ns, 0.0));
                Ok(())
            }
            Err(error) => {
                inside.died = Some(format!("role {} could not be started again: {error:#}", self.name()));
                Err(error)
            }
        }
    }

    fn launch_again(&self, clock: &Clock, interrupt: &Interrupt) -> anyhow::Result<Alive> {
        let Some(launched) = &self.launched else { anyhow::bail!("nobody here has started {}", self.name()) };
        let mut config = launched.config.clone();
        config.bind = self.addr.parse()?;
        let deadline_ns = clock.now_ns() + ADDRESS_WITHIN.as_nanos() as u64;
        loop {
            match launched.launch_at(config.clone(), interrupt) {
                Err(error) if address_is_taken(&error) && clock.now_ns() < deadline_ns => {
                    if interrupt.wait(TRY_AGAIN) {
                        return Err(error);
                    }
                }
                launched => return launched,
            }
        }
    }

    /// The CPUs and the log of what was started, to start something beside it.
    pub fn beside(&self) -> (Option<&[usize]>, Option<&Path>) {
        let launched = self.launched.as_ref();
        (launched.and_then(|launched| launched.cpus.as_deref()), launched.map(|launched| launched.log.as_path()))
    }

    /// Why it cannot be held here, where that is so.
    pub fn cannot_be_held(&self) -> Option<String> {
        match &self.lock().state {
            State::Up(alive) if self.measures && alive.replica.pid().is_none() => Some(format!(
                "{} works on threads of its own, which cannot be held in the lab's process; run processes",
                self.participant.role
            )),
            _ => None,
        }
    }

    /// Its process, where it has one of its own and is there.
    pub fn pid(&self) -> Option<u32> {
        match &self.lock().state {
            State::Up(alive) | State::Held(alive) => alive.replica.pid(),
            State::Down => None,
        }
    }

    /// Holds it; gives back when that was commanded.
    ///
    /// # Errors
    /// When it is not there, or cannot be held.
    pub fn hold(&self, clock: &Clock) -> anyhow::Result<u64> {
        self.check_alive()?;
        let mut inside = self.lock();
        match std::mem::replace(&mut inside.state, State::Down) {
            State::Up(mut alive) => {
                let command_ns = clock.now_ns();
                let held = alive.replica.pause();
                inside.state = if held.is_ok() { State::Held(alive) } else { State::Up(alive) };
                held.map(|()| command_ns)
            }
            other => {
                inside.state = other;
                drop(inside);
                anyhow::bail!("{} was still down, or held, by the fault before", self.name())
            }
        }
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it is not there any more.
    pub fn let_go(&self) -> anyhow::Result<()> {
        let mut inside = self.lock();
        match std::mem::replace(&mut inside.state, State::Down) {
            State::Held(mut alive) => {
                let resumed = alive.replica.resume();
                inside.state = State::Up(alive);
                resumed
            }
            other => {
                inside.state = other;
                Ok(())
            }
        }
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        let inside = self.inside.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        match &mut inside.state {
            State::Up(alive) | State::Held(alive) => alive.replica.stop(),
            State::Down => Ok(()),
        }
    }
}

impl Alive {
    /// A replica that nobody here started.
    pub fn elsewhere(admin: AdminClient) -> Self {
        Self { replica: Box::new(Elsewhere(admin)), _noted: None }
    }
}

/// A replica that nobody here started.
struct Elsewhere(AdminClient);

impl Replica for Elsewhere {
    fn addr(&self) -> String {
        String::new()
    }
    fn admin(&self) -> &AdminClient {
        &self.0
    }
    fn usage(&mut self) -> Usage {
        Usage::default()
    }
    fn no_memory(&self) -> Option<&'static str> {
        Some("the system runs elsewhere")
    }
    fn ended(&mut self) -> Option<String> {
        None
    }
    fn stop(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
    fn pid(&self) -> Option<u32> {
        None
    }
}

impl<'a> Running<'a> {
    /// Where the replicas of a role serve.
    pub fn addresses(&self, role: &str) -> Vec<String> {
        let of_role = self.slots.iter().filter(|slot| slot.participant.role == role);
        of_role.map(|slot| slot.addr.clone()).collect()
    }

    /// One replica.
    ///
    /// # Errors
    /// When there is none.
    pub fn slot(&self, role: &str, replica: u32) -> anyhow::Result<&Slot<'a>> {
        let is_it = |slot: &&Slot<'_>| slot.participant.role == role && slot.participant.replica == replica;
        self.slots.iter().find(is_it).ok_or_else(|| anyhow::anyhow!("there is no {role} {replica}"))
    }

    /// Those that are told start and stop.
    pub fn measuring(&self) -> impl Iterator<Item = &Slot<'a>> {
        self.slots.iter().filter(|slot| slot.measures)
    }

    /// Tells those that measure to begin nothing new.
    pub fn stop_measuring(&self, under_test: bool) {
        for slot in self.measuring().filter(|slot| slot.participant.under_test == under_test) {
            if let Some(Err(error)) = slot.ask(|admin, _| admin.stop()) {
                // It may have died, which the caller sees.
                eprintln!("stopping {}: {error:#}", slot.participant.role);
            }
        }
    }

    /// One that measures and has not ended what it had begun, in words.
    pub fn undrained(&self, under_test: bool) -> Option<String> {
        let mut asked = self.measuring().filter(|slot| slot.participant.under_test == under_test);
        asked.find_map(|slot| {
            let role = &slot.participant.role;
            match slot.ask(|admin, _| admin.health()) {
                None => Some(format!("{role} was down and did not end")),
                Some(Ok(health)) if health.drained => None,
                Some(Ok(_)) => Some(format!("{role} did not end")),
                Some(Err(error)) => Some(format!("{role} could not be asked whether it has ended ({error:#})")),
            }
        })
    }

    /// Why one has ended, when it has ended by itself.
    pub fn ended(&self) -> Option<String> {
        self.slots.iter().find_map(Slot::ended)
    }

    /// Ends all, generators first and every role before its peers; gives back what went wrong.
    pub fn stop(&mut self) -> Vec<String> {
        let ended = self.slots.iter_mut().rev().filter_map(|slot| slot.stop().err());
        ended.map(|error| format!("{error:#}")).collect()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        for slot in self.slots.iter_mut().rev() {
            let _ = slot.stop();
        }
        // Databases are dropped once nobody uses them.
        self.slots.clear();
        if !self.databases.as_mut().is_none_or(Databases::remove) {
            self.databases_noted.drain(..).for_each(Noted::keep);
        }
        if let Some(scratch) = self.scratch.take()
            && scratch.close().is_err()
            && let Some(noted) = self.scratch_noted.take()
        {
            noted.keep();
        }
    }
}

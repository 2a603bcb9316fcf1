//! Faults of the machine: something beside a role, on its CPUs, that takes CPU time or memory.

use kit::RoleConfig;

use super::inject::{Applied, Effect, Stage};
use super::journal::Intent;
use super::noted::Noted;
use super::{Planned, process};
use crate::deploy::running::Slot;
use crate::deploy::trial::READY_WITHIN;
use crate::deploy::{Launch, Replica};

/// Takes so many CPUs' worth of time, or so much memory, beside a replica.
pub(super) fn hog<'s>(stage: &'s Stage<'_>, planned: &Planned, cpus: f64, bytes: u64) -> anyhow::Result<Effect<'s>> {
    let slot = stage.running.slot(&planned.role, planned.replica)?;
    let (on_cpus, log) = slot.beside();
    let log = log.ok_or_else(|| anyhow::anyhow!("nobody here has started {}", slot.name()))?;
    let mut config = RoleConfig::new("hog");
    config.replica = planned.replica;
    config.admin_token = kit::secret()?;
    config.settings = serde_json::json!({ "cpus": cpus, "bytes": bytes });
    let command_ns = stage.clock.now_ns();
    let hog = stage.processes.launch(&Launch {
        system: "lab",
        role: crate::systems::find_role("lab", "hog")?,
        config,
        cpus: on_cpus,
        log: &log.with_file_name(format!("hog-{}-{}.log", planned.role, planned.replica)),
        ready_within: READY_WITHIN,
        interrupted: &|| stage.interrupt.is_asked(),
    })?;
    let noted = hog.pid().and_then(|pid| Intent::process(pid, "hog", planned.replica));
    let noted = noted.map(|intent| Noted::new(stage.journal, intent)).transpose()?;
    let seen_ns = Some(stage.clock.now_ns());
    let applied = Box::new(Hogged { stage, slot, hog, _noted: noted, ready_ns: None });
    Ok(Effect { applied, command_ns, seen_ns, problem: None })
}

/// Something takes what the role needs. Dropped, its process is ended.
struct Hogged<'s> {
    stage: &'s Stage<'s>,
    slot: &'s Slot<'s>,
    hog: Box<dyn Replica>,
    /// Goes after it.
    _noted: Option<Noted>,
    ready_ns: Option<u64>,
}

impl Applied for Hogged<'_> {
    fn heal(&mut self) -> anyhow::Result<()> {
        self.hog.stop()?;
        self.ready_ns = process::ready(self.stage, self.slot);
        Ok(())
    }

    fn ready_ns(&self) -> Option<u64> {
        self.ready_ns
    }
}

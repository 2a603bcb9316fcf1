//! Runs one trial on a virtual clock: the same record from the system's model, without replicas.

use std::time::Duration;

use super::AdminClient;
use super::collect::{Collected, Origin};
use super::running::{Alive, Running, Slot};
use super::trial::{Ended, Site};
use crate::archive::TrialFiles;
use crate::experiment::Trial;
use crate::measure::Participant;
use crate::systems::{Part, Simulation};

/// Runs one trial of a system that has a model.
///
/// # Errors
/// When what was measured cannot be kept.
pub fn simulate(site: &Site<'_>, trial: &Trial, files: &mut TrialFiles) -> anyhow::Result<Ended> {
    let assembly = site.system.assemble(site.experiment, &trial.levels);
    let window = site.experiment.window(&site.experiment.load.at(&trial.levels));
    let until = Duration::from_secs(u64::from(window.end));
    let (clock, hand) = kit::Clock::manual();
    let admin = kit::admin::Admin::of_simulation(clock);
    let mut collected = Collected::new(site.system.counted_kind(), false)?;
    let model = Alive::elsewhere(AdminClient::Direct(Box::new(admin.clone())));
    let participants: Vec<_> = assembly.parts.iter().map(simulated).collect();
    let Some(studied) = participants.iter().rfind(|participant| participant.under_test).cloned() else {
        anyhow::bail!("{} has no role to simulate", site.experiment.system);
    };
    let running = Running {
        slots: vec![Slot::new(studied, true, None, model)],
        links: Vec::new(),
        databases: None,
        databases_noted: Vec::new(),
        scratch: None,
        scratch_noted: None,
    };
    let origin = Origin::default();
    let mut passed_ns = 0;
    let mut each_second = |now_ns: u64| {
        hand.advance(Duration::from_nanos(now_ns.saturating_sub(passed_ns)));
        passed_ns = passed_ns.max(now_ns);
        if site.interrupt.is_asked() {
            anyhow::bail!("interrupted");
        }
        collected.read(&running, origin, files)
    };
    let simulation = Simulation {
        until,
        recorder: &admin.recorder,
        series: &admin.series,
        journal: &admin.journal,
        each_second: &mut each_second,
    };
    let simulated = site.system.simulate(site.experiment, trial, simulation);
    if site.interrupt.is_asked() {
        return Ok(Ended::Interrupted);
    }
    simulated?;
    admin.control.set_drained();
    collected.read(&running, origin, files)?;
    collected.finish(site, trial, &window, origin, files)?;
    Ok(Ended::Done(Box::new(collected.record(site, trial, participants, Vec::new(), None))))
}

/// Stands for a role in a simulation, which uses nothing.
fn simulated(part: &Part) -> Participant {
    let reason = Some("it was simulated".to_owned());
    Participant {
        role: part.role.to_owned(),
        replica: 1,
        under_test: part.under_test,
        cpus: None,
        no_memory: reason.clone(),
        no_cpu: reason,
    }
}

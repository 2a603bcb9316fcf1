//! Which injections a trial has: every choice drawn from its seed. Pure.
//!
//! Each draw has a purpose of its own, so that another fault, or another draw of the same one, leaves it as it was.

use std::time::Duration;

use rand::RngExt as _;

use super::{Fault, FaultKind, LOAD, Planned, When, Which};
use crate::experiment::{Experiment, Level, Levels, Trial};
use crate::systems::Assembly;

/// The injections of a trial, in the order of time. A cell that lacks the role, the copy or the link has none of that
/// fault.
pub fn plan(experiment: &Experiment, trial: &Trial, assembly: &Assembly) -> Vec<Planned> {
    let mut planned: Vec<_> = experiment
        .faults
        .iter()
        .enumerate()
        .flat_map(|(index, fault)| of_fault(fault, index, trial, assembly))
        .collect();
    // Stable: those of one time stay in the order of the file.
    planned.sort_by_key(|injection| injection.at);
    planned
}

fn of_fault(fault: &Fault, index: usize, trial: &Trial, assembly: &Assembly) -> Vec<Planned> {
    let replicas = replicas(assembly, &fault.role);
    let mut planned = Vec::new();
    if replicas == 0 {
        return planned;
    }
    let draw = |what: &str| kit::rng(trial.seed, &format!("faults/{index}/{what}"));
    let first = match fault.at {
        When::At(at) => at,
        // Whole milliseconds: what is drawn is shown, and may be written into a file.
        When::Between(from, to) => {
            Duration::from_millis(draw("at").random_range(millis(from)..=millis(to).max(millis(from))))
        }
    };
    for number in 0..fault.times {
        let kind = match fault.kinds.as_slice() {
            [] => return planned,
            [only] => only,
            several => &several[draw(&format!("{number}/kind")).random_range(0..several.len())],
        };
        if matches!(kind, FaultKind::Link(_)) && !is_linked(assembly, &fault.role, fault.from.as_deref()) {
            continue;
        }
        let chosen = match fault.replica {
            Which::One(one) if one > replicas => continue,
            Which::One(one) => one..=one,
            Which::All => 1..=replicas,
            Which::Random => {
                let one = draw(&format!("{number}/replica")).random_range(1..=replicas);
                one..=one
            }
        };
        planned.extend(chosen.map(|replica| Planned {
            at: first.saturating_add(fault.every.saturating_mul(number)),
            kind: kind.clone(),
            role: fault.role.clone(),
            replica,
            from: fault.from.clone().filter(|_| matches!(kind, FaultKind::Link(_))),
            downtime: if kind.has_downtime() { fault.downtime } else { Duration::ZERO },
        }));
    }
    planned
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How many copies of a role a cell has.
pub(super) fn replicas(assembly: &Assembly, role: &str) -> u32 {
    assembly.parts.iter().find(|part| part.role == role).map_or(0, |part| part.replicas)
}

/// Who talks to a role in a cell.
pub(super) fn talkers(assembly: &Assembly, role: &str) -> Vec<&'static str> {
    let peers = assembly.parts.iter().filter(|part| part.peers.contains(&role)).map(|part| part.role);
    let load = assembly.entry.filter(|entry| *entry == role).map(|_| LOAD);
    load.into_iter().chain(peers).collect()
}

/// Whether a cell has the link.
pub(super) fn is_linked(assembly: &Assembly, role: &str, from: Option<&str>) -> bool {
    let talkers = talkers(assembly, role);
    from.map_or(!talkers.is_empty(), |from| talkers.contains(&from))
}

/// The cells whose faults can be planned before anything has run: all of a sweep, and both ends of a search.
pub(super) fn trials(experiment: &Experiment) -> Vec<Trial> {
    let Some(search) = &experiment.search else { return crate::experiment::plan(experiment) };
    let at = |cell: &Levels, level| {
        let mut cell = cell.clone();
        cell.insert(search.factor.clone(), Level::Int(level));
        Trial::new(0, cell, 0, experiment.seed)
    };
    let (low, high) = search.between;
    crate::experiment::cells(experiment).iter().flat_map(|cell| [at(cell, low), at(cell, high)]).collect()
}

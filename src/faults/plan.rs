//! Which injections a trial has.

use super::{Planned, When, Which};
use crate::experiment::{Experiment, Trial};
use crate::systems::Assembly;

/// The injections of a trial, in the order of time.
pub fn plan(experiment: &Experiment, _: &Trial, _: &Assembly) -> Vec<Planned> {
    let planned = experiment.faults.iter().filter_map(|fault| {
        let (When::At(at), Which::One(replica), Some(kind)) = (fault.at, fault.replica, fault.kinds.first()) else {
            return None;
        };
        let (role, from) = (fault.role.clone(), fault.from.clone());
        Some(Planned { at, kind: kind.clone(), role, replica, from, downtime: fault.downtime })
    });
    planned.collect()
}

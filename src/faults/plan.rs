//! Which injections a trial has: every choice drawn from its seed. Pure.
//!
//! Each draw has a purpose of its own, so that another fault, or another draw of the same one, leaves it as it was.

use std::time::Duration;

use rand::RngExt as _;

use super::{Fault, FaultKind, LOAD, Planned, When, Which};
use crate::experiment::{Experiment, Trial};
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

/// The trials whose faults can be planned before anything has run: all of a sweep, and both ends of a search.
pub fn trials(experiment: &Experiment) -> Vec<Trial> {
    if experiment.search.is_none() {
        return crate::experiment::plan(experiment);
    }
    let cells = experiment.cells_to_check().into_iter();
    cells.map(|levels| Trial::new(0, levels, 0, experiment.seed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{Level, Levels, file};
    use crate::systems;

    fn planned(faults: &str, architecture: &str, seed: u64) -> Vec<Planned> {
        let text = format!(
            "# why?\nsystem = 'task-tracker'\nduration = '5m'\n[factors]\nusers = [5]\n\
             architecture = ['monolith', 'microservices']\n[roles.task-service]\nreplicas = 3\n{faults}"
        );
        let experiment = file::parse(&text, "x", "x").unwrap();
        let levels = Levels::from([("architecture".to_owned(), Level::Text(architecture.to_owned()))]);
        let assembly = systems::find("task-tracker").unwrap().assemble(&experiment, &levels);
        plan(&experiment, &Trial { seed, ..Trial::new(0, levels, 0, 1) }, &assembly)
    }

    fn words(planned: &[Planned]) -> Vec<String> {
        let one = |injection: &Planned| {
            let (at, downtime) = (injection.at.as_secs_f64(), injection.downtime.as_secs_f64());
            format!("{at} {injection} {downtime}")
        };
        planned.iter().map(one).collect()
    }

    #[test]
    fn injections_are_in_the_order_of_time_and_only_where_the_role_is() {
        let faults = "[[fault]]\nat = '60s'\nkind = 'kill'\nrole = 'task-service'\nreplica = 'all'\ndowntime = '5s'\n\
            [[fault]]\nat = '30s'\nkind = 'restart'\nrole = 'gateway'\nevery = '40s'\ntimes = 2\n\
            [[fault]]\nat = '10s'\nkind = 'blackhole'\nrole = 'task-service'\nreplica = 3\nfrom = 'gateway'\n\
            [[fault]]\nat = '5s'\nkind = 'reset'\nrole = 'monolith'\n";
        assert_eq!(
            words(&planned(faults, "microservices", 1)),
            [
                "10 blackhole of task-service 3 from gateway 10",
                "30 restart of gateway 1 0",
                "60 kill of task-service 1 5",
                "60 kill of task-service 2 5",
                "60 kill of task-service 3 5",
                "70 restart of gateway 1 0",
            ]
        );
        assert_eq!(words(&planned(faults, "monolith", 1)), ["5 reset of monolith 1 10"]);
    }

    #[test]
    fn every_choice_comes_from_the_seed_and_is_nobody_elses() {
        let drawn = "[[fault]]\nat = '20s..30s'\nkind = ['kill', 'pause', 'blackhole']\nrole = 'task-service'\n\
            replica = 'random'\nevery = '20s'\ntimes = 6\ndowntime = '5s'\n";
        let other = "[[fault]]\nat = '1s..9s'\nkind = 'restart'\nrole = 'gateway'\n";
        let (first, again) = (planned(drawn, "microservices", 7), planned(drawn, "microservices", 7));
        assert_eq!(first, again);
        assert_ne!(first, planned(drawn, "microservices", 8));
        let beside = planned(&format!("{drawn}{other}"), "microservices", 7);
        let of_first: Vec<_> = beside.into_iter().filter(|injection| injection.role == "task-service").collect();
        assert_eq!(of_first, first, "another fault moves nothing");
        assert_eq!(first.len(), 6);
        let begin = first[0].at;
        assert!((Duration::from_secs(20)..=Duration::from_secs(30)).contains(&begin), "{begin:?}");
        for (number, injection) in first.iter().enumerate() {
            assert_eq!(injection.at, begin + Duration::from_secs(20) * number as u32);
            assert!((1..=3).contains(&injection.replica));
        }
        let many = "[[fault]]\nat = '9s'\nkind = ['kill', 'pause']\nrole = 'task-service'\nreplica = 'random'\n\
            every = '2s'\ntimes = 100\ndowntime = '1s'\n";
        let many = planned(many, "microservices", 7);
        for replica in 1..=3 {
            assert!((15..=55).contains(&many.iter().filter(|injection| injection.replica == replica).count()));
        }
        assert!((30..=70).contains(&many.iter().filter(|injection| injection.kind == FaultKind::Kill).count()));
    }
}

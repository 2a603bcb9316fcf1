//! Whether the faults of an experiment make sense together, before anything runs. Pure.
//!
//! What can be drawn counts with its worst case, so that no seed makes an experiment that another seed refuses.

use std::time::Duration;

use super::plan::{is_linked, plan, replicas, talkers, trials};
use super::{Fault, FaultKind, LOAD, Which};
use crate::experiment::{DeploymentKind, Experiment, Levels, Problem};
use crate::systems::{Assembly, System};
use crate::units::format_duration;

/// Where something that was started can be broken.
pub const ABLE: [DeploymentKind; 2] = [DeploymentKind::InProcess, DeploymentKind::Processes];

/// A fault without a downtime takes about as long; nothing else may happen to its replica meanwhile.
const RESTART: Duration = Duration::from_secs(1);

/// More of one fault are a slip of the pen.
const MOST_TIMES: u32 = 1_000;

/// What is usual cannot be told from less of the measured time before a fault.
const BASELINE: Duration = Duration::from_secs(7);

/// A cell of the plan, as faults see it.
struct Cell {
    levels: Levels,
    assembly: Assembly,
    /// The measured time, since the trial's start.
    begin: Duration,
    end: Duration,
}

/// Whether the faults make sense, together and with the cells of the plan.
///
/// # Errors
/// The first that does not: its place, and the way out.
pub fn check(experiment: &Experiment, system: &dyn System) -> Result<(), Problem> {
    if experiment.abort_when.is_some() && experiment.deployment == DeploymentKind::Simulated {
        return Err(Problem::new("abort_when", "a simulation is over before it could be aborted; take abort_when out"));
    }
    if experiment.faults.is_empty() {
        return Ok(());
    }
    check_deployment(experiment, system)?;
    let cells = cells(experiment, system);
    for (index, fault) in experiment.faults.iter().enumerate() {
        let problem = |(key, message): (&str, String)| Problem::new(format!("fault.{index}.{key}"), message);
        check_alone(fault).map_err(problem)?;
        check_role(fault, system, &cells).map_err(problem)?;
        check_links(fault, system, &cells).map_err(problem)?;
        check_end(fault, &cells).map_err(problem)?;
    }
    for (index, fault) in experiment.faults.iter().enumerate() {
        if let Some(other) = experiment.faults[..index].iter().find(|other| contradict(fault, other, &cells)) {
            return Err(Problem::new(
                format!("fault.{index}.at"),
                format!(
                    "{fault} contradicts {other}: one replica cannot bear both at a time; let the one be over before \
                     the other begins, or name another replica"
                ),
            ));
        }
    }
    Ok(())
}

/// What somebody should know before the first trial.
pub fn notes(experiment: &Experiment, system: &dyn System) -> Vec<String> {
    let cells = cells(experiment, system);
    let early = |fault: &&Fault| cells_of(fault, &cells).any(|cell| fault.first().0 < cell.begin + BASELINE);
    let words = |fault: &Fault| {
        let begin = cells_of(fault, &cells).map(|cell| cell.begin).max().unwrap_or_default();
        format!(
            "{fault} has no baseline: to know what is usual takes {} of measured time, which begins at {}; recovery from \
             its first injection will be unknown",
            format_duration(BASELINE),
            format_duration(begin)
        )
    };
    experiment.faults.iter().filter(early).map(words).collect()
}

/// Whether the memory that is taken at a time is at most half of what is `available` in bytes.
///
/// # Errors
/// Which fault takes more, and the most that is left for it.
pub fn memory(experiment: &Experiment, system: &dyn System, available: u64) -> Result<(), Problem> {
    let half = available / 2;
    for trial in trials(experiment) {
        let planned = plan(experiment, &trial, &system.assemble(experiment, &trial.levels));
        let hogs = || {
            planned.iter().filter_map(|injection| match injection.kind {
                FaultKind::MemoryHog { bytes } => Some((injection, bytes)),
                _ => None,
            })
        };
        for (injection, bytes) in hogs() {
            let is_held = |at: Duration, downtime| (at..at + downtime).contains(&injection.at);
            let taken: u64 = hogs()
                .filter(|(other, _)| is_held(other.at, other.downtime))
                .fold(0_u64, |sum, (_, bytes)| sum.saturating_add(bytes));
            if taken.max(bytes) > half {
                let mib = |bytes: u64| bytes >> 20;
                let is_it = |fault: &Fault| fault.kinds.contains(&injection.kind) && fault.role == injection.role;
                let index = experiment.faults.iter().position(is_it).unwrap_or_default();
                return Err(Problem::new(
                    format!("fault.{index}.memory"),
                    format!(
                        "{injection} makes {} MiB that are taken at a time, and {} MiB are available; a memory-hog \
                         takes at most half of that, {} MiB",
                        mib(taken.max(bytes)),
                        mib(available),
                        mib(half)
                    ),
                ));
            }
        }
    }
    Ok(())
}

fn cells(experiment: &Experiment, system: &dyn System) -> Vec<Cell> {
    let cell = |levels: Levels| {
        let window = experiment.window(&experiment.load.at(&levels));
        let second = |second: u32| Duration::from_secs(second.into());
        let assembly = system.assemble(experiment, &levels);
        Cell { assembly, levels, begin: second(window.start), end: second(window.end) }
    };
    experiment.cells_to_check().into_iter().map(cell).collect()
}

/// The cells that have the role of a fault, and the copy.
fn cells_of<'a>(fault: &'a Fault, cells: &'a [Cell]) -> impl Iterator<Item = &'a Cell> {
    cells.iter().filter(|cell| {
        let replicas = replicas(&cell.assembly, &fault.role);
        replicas > 0 && !matches!(fault.replica, Which::One(one) if one > replicas)
    })
}

fn check_deployment(experiment: &Experiment, system: &dyn System) -> Result<(), Problem> {
    if ABLE.contains(&experiment.deployment) {
        return Ok(());
    }
    let why = match experiment.deployment {
        DeploymentKind::External => "the lab breaks nothing that it has not started",
        _ => "a model has no faults",
    };
    let able: Vec<_> =
        ABLE.iter().filter(|kind| system.deployments().contains(kind)).map(ToString::to_string).collect();
    let way_out = match able.as_slice() {
        [] => format!("take [[fault]] out: {} runs nowhere else", system.name()),
        able => format!("run it {}, or take [[fault]] out", able.join(" or ")),
    };
    Err(Problem::new("fault.0", format!("deployment {}: {why}; {way_out}", experiment.deployment)))
}

/// A key of the fault, and what is wrong with it.
type Wrong = (&'static str, String);

/// What is wrong with a fault wherever it is.
fn check_alone(fault: &Fault) -> Result<(), Wrong> {
    let Fault { kinds, downtime, every, times, .. } = fault;
    if kinds.is_empty() {
        return Err(("kind", "no kind; write one, such as kind = \"kill\"".to_owned()));
    }
    if kinds.iter().any(FaultKind::has_downtime) && downtime.is_zero() {
        return Err(("downtime", "a downtime of nothing is no fault; write one above 0, or use restart".to_owned()));
    }
    if fault.first().0 > fault.first().1 {
        return Err(("at", format!("{} ends before it begins", fault.at)));
    }
    if !(1..=MOST_TIMES).contains(times) {
        return Err(("times", format!("times is {times}; write a number from 1 to {MOST_TIMES}")));
    }
    if *times > 1 && *every < lasts(fault) {
        let (every, lasts) = (format_duration(*every), format_duration(lasts(fault)));
        return Err((
            "every",
            format!(
                "every {every} the next begins before the last is over; write {lasts} or more, or a shorter downtime"
            ),
        ));
    }
    Ok(())
}

/// How long an injection holds its replica, at most.
fn lasts(fault: &Fault) -> Duration {
    let has_restart = fault.kinds.iter().any(|kind| !kind.has_downtime());
    if has_restart { fault.downtime.max(RESTART) } else { fault.downtime }
}

fn check_role(fault: &Fault, system: &dyn System, cells: &[Cell]) -> Result<(), Wrong> {
    let Fault { role, replica, .. } = fault;
    if role == LOAD {
        return Err((
            "role",
            "the load is the instrument and is not broken; break the link from it: role = \"ROLE\", from = \"load\""
                .to_owned(),
        ));
    }
    if !system.roles().iter().any(|known| known.name == role) {
        let known: Vec<_> = system.roles().iter().map(|role| role.name).collect();
        return Err(("role", format!("unknown role {role:?}; {} has {}", system.name(), known.join(", "))));
    }
    let most = cells.iter().map(|cell| replicas(&cell.assembly, role)).max().unwrap_or(0);
    if most == 0 {
        let mut there: Vec<_> =
            cells.iter().flat_map(|cell| cell.assembly.parts.iter().map(|part| part.role)).collect();
        there.sort_unstable();
        there.dedup();
        let there = there.join(", ");
        return Err((
            "role",
            format!("no cell of the plan has the role {role}; there are {there}: name one, or add the cell"),
        ));
    }
    match replica {
        Which::One(0) => Err(("replica", "replicas count from 1".to_owned())),
        Which::One(one) if *one > most => Err((
            "replica",
            format!(
                "no cell of the plan has {role} {one}; {most} is the last: name another, or write replicas = {one} under \
                 [roles.{role}]"
            ),
        )),
        _ => Ok(()),
    }
}

fn check_links(fault: &Fault, system: &dyn System, cells: &[Cell]) -> Result<(), Wrong> {
    let Fault { kinds, role, from, .. } = fault;
    let mut links = kinds.iter().filter_map(|kind| match kind {
        FaultKind::Link(link) => Some(link),
        _ => None,
    });
    let Some(first) = links.next() else {
        return match from {
            Some(_) => {
                Err(("from", format!("from names a link, and {} breaks none; take from out", fault.kinds_in_words())))
            }
            None => Ok(()),
        };
    };
    if system.is_stream() && [first].into_iter().chain(links).any(crate::proxy::LinkFault::is_http) {
        return Err((
            "kind",
            "the links of a stream carry no HTTP requests; use latency, blackhole or reset".to_owned(),
        ));
    }
    if cells_of(fault, cells).any(|cell| is_linked(&cell.assembly, role, from.as_deref())) {
        return Ok(());
    }
    let mut there: Vec<_> = cells_of(fault, cells).flat_map(|cell| talkers(&cell.assembly, role)).collect();
    there.sort_unstable();
    there.dedup();
    match from {
        Some(from) if !there.is_empty() => Err((
            "from",
            format!("no cell of the plan has a link from {from} to {role}; there is one from {}", there.join(", ")),
        )),
        _ => Err(("role", format!("nobody talks to {role}, so it has no link; name the role that it talks to"))),
    }
}

/// The last repair has to be within the measured time of every cell that has the role.
fn check_end(fault: &Fault, cells: &[Cell]) -> Result<(), Wrong> {
    let last = fault.first().1.saturating_add(fault.every.saturating_mul(fault.times - 1));
    let over = last.saturating_add(lasts(fault));
    let Some(cell) = cells_of(fault, cells).find(|cell| over > cell.end) else { return Ok(()) };
    let levels: Vec<_> = cell.levels.iter().map(|(factor, level)| format!("{factor} {level}")).collect();
    let of_cell = if levels.is_empty() { String::new() } else { format!(" of {}", levels.join(", ")) };
    let key = match fault {
        Fault { times: 2.., .. } => "times",
        _ if last < cell.end && !fault.downtime.is_zero() => "downtime",
        _ => "at",
    };
    let needed = over.saturating_sub(cell.begin).as_secs_f64().ceil();
    Err((
        key,
        format!(
            "{fault} is over at {}, and the measured time{of_cell} at {}; begin earlier, be shorter, or write duration = \
             \"{needed}s\" or more",
            format_duration(over),
            format_duration(cell.end)
        ),
    ))
}

/// Whether two faults can hold one replica of one cell at the same time.
fn contradict(one: &Fault, other: &Fault, cells: &[Cell]) -> bool {
    let of_process = |fault: &Fault| fault.kinds.iter().any(FaultKind::is_of_process);
    if one.role != other.role || !of_process(one) || !of_process(other) {
        return false;
    }
    let apart = matches!((one.replica, other.replica), (Which::One(one), Which::One(other)) if one != other);
    let together = || cells_of(one, cells).any(|cell| cells_of(other, std::slice::from_ref(cell)).next().is_some());
    !apart && together() && overlap(&held(one), &held(other))
}

/// When a fault may hold its replica: from the earliest begin to the latest end of each injection, in order.
fn held(fault: &Fault) -> Vec<(Duration, Duration)> {
    let (from, to) = fault.first();
    let later = |number: u32| fault.every.saturating_mul(number);
    (0..fault.times)
        .map(|number| {
            (from.saturating_add(later(number)), to.saturating_add(later(number)).saturating_add(lasts(fault)))
        })
        .collect()
}

/// Whether two rows of spans, each ordered by begin and by end, have an instant in common.
fn overlap(one: &[(Duration, Duration)], other: &[(Duration, Duration)]) -> bool {
    let (mut i, mut j) = (0, 0);
    while let (Some((from, to)), Some((other_from, other_to))) = (one.get(i), other.get(j)) {
        if from < other_to && other_from < to {
            return true;
        }
        if to <= other_to { i += 1 } else { j += 1 }
    }
    false
}

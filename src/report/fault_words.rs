//! What a fault did, in words: of one injection, of a configuration, and what the words mean.
//!
//! The one rule: what was not seen is not said. "Not within 30 s" is not "after 30 s", and a check that was not made is
//! not a check that passed.

use crate::measure::recovery::{Recovered, Recovery};
use crate::measure::{Lost, TrialSummary};
use crate::report::faults::{self, Arm};
use crate::report::{ReportInput, number};

/// What the words of a fault study mean, in one paragraph.
pub const DEFINITIONS: &str = "Operations belong to the second in which they were due, and goodput is those of them that ended \
    well. What is usual (the band) is taken from the windows before the command: at least the goodput, and at most the errors \
    and the p95, that its table names, and no wrong answer. Served as before, or recovered, is the start of the first \
    five consecutive windows in band, counted from the effect; a fault after which no window leaves the band was absorbed, and \
    > 30 s means: not within the 30 s that were watched. After ready is the same counted from when the target was ready: 0 says \
    that users waited for nothing else. Outage-equivalent is the sum over windows of their length times (1 − good ÷ offered): as \
    long as a full outage with the same loss. Budget is the share of 30 days' error budget that this burnt, at the availability \
    that is asked for, else at 99.9 %. It stays down where the load that it bore before keeps it down although the fault is gone \
    (metastable). Unknown is a write whose answer never came: found afterwards or not, both are right. Lost is a write that was \
    acknowledged and is not there.";

/// What killing does not show.
pub const DISK: &str = "Killing a process does not test the disk's honesty: what it had written stays in the kernel's page cache \
    and is there when it comes back. Only a loss of power, or a disk that forgets, would show a write that was acknowledged too early.";

/// One injection: when it took effect, how long it lasted, when users were served as before, and what it cost.
pub fn story(recovery: &Recovery) -> String {
    let injection = &recovery.injection;
    let mut told = vec![match (recovery.time_to_effect_s, injection.effect_s.zip(injection.ready_s)) {
        (Some(took), Some((effect, ready))) => format!(
            "The {} took effect {} after its command and lasted {}",
            injection.kind,
            number::seconds(took),
            number::seconds(ready - effect)
        ),
        (Some(took), None) => format!(
            "The {} took effect {} after its command, and the target was not seen ready again",
            injection.kind,
            number::seconds(took)
        ),
        (None, _) => format!("The effect of the {} was not seen", injection.kind),
    }];
    told.push(match recovery.recovered {
        Recovered::Unknown => {
            format!(
                "When users were served as before cannot be said ({})",
                recovery.unknown.as_deref().unwrap_or("no reason given")
            )
        }
        Recovered::Absorbed => "Users never left the usual band".to_owned(),
        Recovered::After(s) => {
            let after = recovery
                .after_ready_s
                .map_or_else(String::new, |s| format!(", {} after it was ready", number::seconds(s)));
            let again = recovery
                .relapsed_s
                .map_or_else(String::new, |at| format!(", and worse again from {} on", number::seconds(at)));
            format!("Users were served as before {} after the effect{after}{again}", number::seconds(s))
        }
        Recovered::NotWithin(s) => {
            let down = if recovery.metastable == Some(true) { ": the load alone keeps it down" } else { "" };
            format!("Users were not served as before within {} of the effect{down}", number::seconds(s))
        }
    });
    told.extend(
        recovery.outage_equivalent_s.map(|s| format!("As much was lost as in a full outage of {}", number::seconds(s))),
    );
    told.join(". ") + "."
}

/// Of a configuration that was not recovered in some trials: in how many.
pub fn censored(arm: &Arm) -> Option<String> {
    let all: Vec<&Recovery> = arm.trials.iter().flat_map(|trial| faults::felt(trial)).collect();
    let not = |recovery: &&&Recovery| matches!(recovery.recovered, Recovered::NotWithin(_));
    let count = all.iter().filter(not).count();
    (count > 0).then(|| {
        format!(
            "{}: not served as before when watching ended after {count} of {} injections; the true cost is higher.",
            arm.label,
            all.len()
        )
    })
}

/// The lines of a fault study in a terminal: recovery of each configuration, and what became of the writes.
pub fn lines(input: &ReportInput) -> Vec<String> {
    let arms = faults::arms(input);
    let several = arms.len() > 1;
    let named = |arm: &Arm, text: String| if several { format!("{}: {text}", arm.label) } else { text };
    let mut lines: Vec<String> = arms.iter().map(|arm| named(arm, recovery_line(arm))).collect();
    lines.extend(writes_line(input.trials));
    lines
}

fn recovery_line(arm: &Arm) -> String {
    let all: Vec<&Recovery> = arm.trials.iter().flat_map(|trial| faults::felt(trial)).collect();
    let of = |wanted: fn(&Recovered) -> bool| all.iter().filter(|recovery| wanted(&recovery.recovered)).count();
    let mut after: Vec<f64> = all
        .iter()
        .filter_map(|recovery| match recovery.recovered {
            Recovered::After(s) => Some(s),
            _ => None,
        })
        .collect();
    after.sort_by(f64::total_cmp);
    let mut told: Vec<String> = Vec::new();
    if let (Some(first), Some(last)) = (after.first(), after.last()) {
        let range = if after.len() > 1 {
            format!(" ({}–{})", number::digits(*first), number::digits(*last))
        } else {
            String::new()
        };
        let middle = number::seconds(after[(after.len() - 1) / 2]);
        told.push(format!(
            "recovered {middle}{range} after the effect in {} of {}",
            after.len(),
            injections(all.len())
        ));
    }
    let states = [
        ("absorbed", of(|state| matches!(state, Recovered::Absorbed))),
        ("not recovered while watched", of(|state| matches!(state, Recovered::NotWithin(_)))),
        ("cannot be told", of(|state| matches!(state, Recovered::Unknown))),
    ];
    let several = states.into_iter().filter(|(_, count)| *count > 0);
    told.extend(several.map(|(state, count)| format!("{state} in {count} of {}", injections(all.len()))));
    let mean = |values: &[f64]| crate::measure::stats::mean(values);
    let outages: Vec<f64> = arm.trials.iter().filter_map(|trial| faults::outage(trial)).collect();
    told.extend(mean(&outages).map(|s| format!("as much lost as in {} of full outage", number::seconds(s))));
    let available = mean(&faults::each(arm, |recovery| recovery.availability_percent));
    told.extend(available.map(|percent| format!("availability {}", number::with_unit(percent, "%"))));
    told.join("; ")
}

fn injections(count: usize) -> String {
    if count == 1 { "1 injection".to_owned() } else { format!("{count} injections") }
}

/// What became of the writes of all trials; none where nobody looked.
fn writes_line(trials: &[TrialSummary]) -> Option<String> {
    let checked: Vec<&Lost> = trials.iter().filter_map(|trial| trial.lost.as_ref()).collect();
    let sum = |of: fn(&Lost) -> u64| checked.iter().map(|lost| of(lost)).sum::<u64>();
    let first = checked.first()?;
    let wrong: [(&str, u64); 4] = [
        ("lost", sum(|lost| lost.lost)),
        ("duplicated", sum(|lost| lost.duplicated)),
        ("resurrected", sum(|lost| lost.resurrected)),
        ("phantom", sum(|lost| lost.phantom)),
    ];
    let unchecked: Vec<&str> = checked.iter().filter_map(|lost| lost.unchecked.as_deref()).collect();
    let (acknowledged, unknown) = (sum(|lost| lost.acknowledged), sum(|lost| lost.unknown));
    let word = match (wrong.iter().all(|(_, count)| *count == 0), unchecked.as_slice()) {
        (false, _) => "writes went wrong".to_owned(),
        (true, []) => "nothing lost".to_owned(),
        (true, [why, ..]) if unchecked.len() == checked.len() && first.acknowledged == 0 => {
            return Some(format!("writes: not checked ({why})"));
        }
        (true, [why, ..]) => format!("nothing seen lost, not all was checked ({why})"),
    };
    let counts: Vec<String> = wrong.iter().map(|(name, count)| format!("{} {name}", number::count(*count))).collect();
    let found = sum(|lost| lost.unknown_found);
    let unknown = if unknown > 0 {
        format!("; {} unknown, {} of them found", number::count(unknown), number::count(found))
    } else {
        String::new()
    };
    Some(format!("{word}: {} creates acknowledged, {}{unknown}", number::count(acknowledged), counts.join(", ")))
}

//! What a fault did, in words: of one injection, of a configuration, and what the words mean.
//!
//! The one rule: what was not seen is not said. "Not within 30 s" is not "after 30 s", and a check that was not made is
//! not a check that passed.

use crate::measure::recovery::{Recovered, Recovery};
use crate::measure::{Lost, TrialSummary};
use crate::report::faults::{self, Arm};
use crate::report::{ReportInput, number};

/// What the words of a fault study mean and how they are computed, in one paragraph.
pub const DEFINITIONS: &str = "Operations belong to the second in which they were due, and goodput is those of them that ended \
    well. A window is one second, or, where that holds fewer than 50 operations, as many more as it takes, up to 60. What is usual \
    is taken from the 18 windows that end 2 s before the command, or fewer where there are not as many, at least 5; where \
    goodput or p95 moves in them, or goodput varies by more than 5 % and twice its chance, nothing is said. A window is in band \
    when four things hold: its goodput is at most 5 % below the median of the usual ones, or by as much as they stray by chance \
    where that is more (three standard deviations from their median absolute deviation, with Student's t because they are few); \
    at most 1 % of its operations do not end well, or the usual share, three standard deviations and one operation where that is more; its p95 \
    is at most a quarter above the usual median, or as many deviations; and no answer is wrong. With users who wait for answers \
    goodput is as it was; with an open loop it is read at the usual offered rate. Users are down from the first two windows in a \
    row out of band, or from one that is out by more than twice the margin (of p95 six times), that begin at or after the effect \
    and at most five windows after the target was ready: what comes later is not laid to the fault. Served as before, or \
    recovered, is the start of the first five windows in a row in band after which the fault does not take them out of it again, \
    counted from the effect. Where no window leaves the band until five windows after ready, it was absorbed; where watching \
    ended before, it is unknown; and > 30 s means: not within the 30 s that were watched. After ready is the same counted from \
    when the target was ready: 0 says that users waited for nothing else. Outage-equivalent is the sum over windows of their \
    length times (1 − good ÷ offered): as long as a full outage with the same loss. Budget is the share that this is of the \
    43.2 min that 30 days allow at an availability of 99.9 %. It stays down where, three times as long as the fault and ten \
    windows after ready, the load that it bore before keeps its goodput out of band although the fault is gone (metastable). An \
    objective on recovery is judged by injections, one on availability by trials. Unknown is a write whose answer never came: \
    found afterwards or not, both are right. Lost is a write that was acknowledged and is not there.";

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
            let again = recovery.relapsed_s.map_or_else(String::new, |at| {
                format!("; they had been meanwhile, until it came again {} after the effect", number::seconds(at))
            });
            format!("Users were served as before {} after the effect{after}{again}", number::seconds(s))
        }
        Recovered::NotWithin(s) => {
            let down = match recovery.metastable {
                Some(true) => ": the load alone keeps it down",
                Some(false) => ": under the same load as before they were still worse off",
                None => "",
            };
            format!("Users were not served as before within {} of the effect{down}", number::seconds(s))
        }
    });
    let least = if recovery.recovered.is_censored() { "at least " } else { "" };
    told.extend(
        recovery
            .outage_equivalent_s
            .map(|s| format!("As much was lost as in a full outage of {least}{}", number::seconds(s))),
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

/// Of a configuration whose outage is not known of some trials: of how many.
pub fn not_judged(arm: &Arm) -> Option<String> {
    let count = arm.trials.iter().filter(|trial| faults::outage(trial).is_none()).count();
    (count > 0).then(|| format!("{}: {count} of {} trials could not be judged.", arm.label, arm.trials.len()))
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
    let least = if arm.trials.iter().any(|trial| faults::is_censored(trial)) { "at least " } else { "" };
    told.extend(mean(&outages).map(|s| format!("as much lost as in {least}{} of full outage", number::seconds(s))));
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

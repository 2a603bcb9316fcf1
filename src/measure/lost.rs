//! Nothing lost: what was acknowledged against what is found afterwards. Pure.
//!
//! The rule is that of a set whose elements are named by the operation that made them (Jepsen's `set-full`): what was
//! acknowledged must be there, what was surely refused must not be, and of what was given up both are right. Where a
//! part of the evidence is missing the answer is [`Lost::unchecked`], never "nothing lost".

use std::collections::BTreeMap;
use std::sync::Arc;

use kit::Outcome;
use serde::{Deserialize, Serialize};

use crate::load::Does;
use crate::load::track::Entry;

mod changes;
mod check;
mod linearizable;
#[cfg(test)]
mod tests;

pub use check::check;

/// What became of the writes of a trial, after everything was healed and read back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lost {
    /// Creates that were tried; those that are in neither of the next two were surely refused.
    pub attempted: u64,
    /// Creates that were acknowledged.
    pub acknowledged: u64,
    /// Creates whose fate was not known when they ended: found afterwards or not, both are right.
    pub unknown: u64,
    /// Of those, how many were found.
    pub unknown_found: u64,
    /// Acknowledged, and not there although nobody deleted it: creates, and changes that their versions say were undone.
    pub lost: u64,
    /// There more than once.
    pub duplicated: u64,
    /// Deleted and acknowledged so, and there.
    pub resurrected: u64,
    /// There, and never asked for, or surely refused.
    pub phantom: u64,
    /// Reads that did not see a write that was acknowledged before they began.
    pub stale: u64,
    /// Owners whose totals do not add up to what is found.
    pub wrong_totals: u64,
    /// Tasks whose history was checked for linearizability.
    pub linearizable_checked: u64,
    /// Of those, how many no order explains.
    pub not_linearizable: u64,
    /// Of those, how many have too many operations, or possible orders, to try them all.
    #[serde(default)]
    pub linearizable_undecided: u64,
    /// The operations behind the counts above, by count: at most some dozens each.
    pub named: BTreeMap<String, Vec<String>>,
    /// Why the check could not be made, or not whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchecked: Option<String>,
}

/// A text that many operations share.
pub type Text = Arc<str>;

/// Named texts, in the order of their names.
pub type Fields = Vec<(Text, Text)>;

/// What users did.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Every operation that is tracked, in any order.
    pub operations: Vec<Operation>,
    /// Creates that are not among them.
    pub creates: Creates,
    /// Why some are missing, where that is so.
    pub incomplete: Option<String>,
}

/// How many creates there were, by what is known of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Creates {
    /// All.
    pub attempted: u64,
    /// Those that were acknowledged.
    pub acknowledged: u64,
    /// Those whose fate is not known.
    pub unknown: u64,
}

impl Creates {
    /// Counts an operation, where it is one.
    pub fn count(&mut self, does: Does, fate: Fate) {
        if does == Does::Create {
            self.attempted += 1;
            self.acknowledged += u64::from(fate == Fate::Acknowledged);
            self.unknown += u64::from(fate == Fate::Unknown);
        }
    }
}

/// One operation, as the check needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Whose.
    pub user: u64,
    /// Its name, unique in the trial.
    pub op: Text,
    /// Its kind.
    pub kind: Text,
    /// What it does.
    pub does: Does,
    /// Whether it was done.
    pub fate: Fate,
    /// The status of its answer; 0 without one.
    pub status: u16,
    /// When it was sent, in ns since the trial's start.
    pub invoke_ns: i64,
    /// When its answer was there; none when it never came.
    pub return_ns: Option<i64>,
    /// Whether it was sent twice: then it may be done twice, too.
    pub resent: bool,
    /// The thing it is about.
    pub arg: Option<Text>,
    /// What it writes.
    pub sets: Fields,
    /// What its answer said.
    pub got: Fields,
}

/// Whether an operation was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was, and its answer says so.
    Acknowledged,
    /// It surely was not.
    Failed,
    /// It was, or was not, or will be.
    Unknown,
}

impl Fate {
    /// What an outcome says of it.
    pub fn of(outcome: Outcome, status: u16) -> Self {
        match outcome {
            Outcome::Ok => Self::Acknowledged,
            // It was said to be done, in a way that a check did not like.
            Outcome::Wrong if (200..300).contains(&status) => Self::Acknowledged,
            Outcome::Failed => Self::Failed,
            Outcome::Wrong | Outcome::Unknown => Self::Unknown,
        }
    }
}

/// What is found of one user afterwards.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Whose.
    pub user: u64,
    /// Everything that is there, or why that cannot be said.
    pub things: Result<Vec<Thing>, String>,
    /// What the system says how much there is.
    pub totals: Vec<Total>,
}

/// Something that is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Thing {
    /// Its id.
    pub id: String,
    /// The operation that made it, where it says so.
    pub op: Option<String>,
    /// Its version.
    pub version: Option<u64>,
    /// Its state, in the names of the steps' tracks.
    pub state: BTreeMap<String, String>,
}

/// A total that the system says, and what it should be by what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Total {
    /// Which.
    pub name: String,
    /// What the system says.
    pub said: u64,
    /// What is there.
    pub counted: u64,
}

/// Texts that were met before, so that a long history holds each once.
#[derive(Default)]
pub struct Words(std::collections::HashSet<Text>);

impl Words {
    fn text(&mut self, text: String) -> Text {
        if let Some(known) = self.0.get(text.as_str()) {
            return known.clone();
        }
        let text = Text::from(text);
        self.0.insert(text.clone());
        text
    }

    /// An entry of a history as the check needs it; none where its step is not tracked.
    pub fn operation(&mut self, entry: Entry) -> Option<Operation> {
        let mut fields = |given: BTreeMap<String, String>| {
            given.into_iter().map(|(name, value)| (self.text(name), self.text(value))).collect::<Fields>()
        };
        let (sets, got) = (fields(entry.sets), fields(entry.got));
        Some(Operation {
            user: entry.user,
            // Each is met once, or a few times at most.
            op: entry.op.into(),
            kind: self.text(entry.kind),
            does: entry.does?,
            fate: Fate::of(entry.outcome, entry.status),
            status: entry.status,
            invoke_ns: entry.invoke_ns,
            return_ns: entry.return_ns,
            resent: entry.resent,
            arg: entry.arg.map(|arg| self.text(arg)),
            sets,
            got,
        })
    }
}

impl Operation {
    fn got(&self, name: &str) -> Option<&Text> {
        self.got.iter().find(|(known, _)| &**known == name).map(|(_, value)| value)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.got(name)?.parse().ok()
    }

    /// What its answer said of the thing's state.
    fn state(&self) -> Fields {
        let own = |name: &str| ["id", "version", "total"].contains(&name);
        self.got.iter().filter(|(name, _)| !own(name)).cloned().collect()
    }
}

/// A count by its key, what it means, and where it is.
type Finding = (&'static str, &'static str, fn(&Lost) -> u64);

/// The counts that must be 0.
const FINDINGS: [Finding; 7] = [
    ("lost", "acknowledged and not there", |lost| lost.lost),
    ("duplicated", "there more than once", |lost| lost.duplicated),
    ("resurrected", "deleted and there again", |lost| lost.resurrected),
    ("phantom", "there and never asked for, or surely refused", |lost| lost.phantom),
    ("not_linearizable", "with a history that no order explains", |lost| lost.not_linearizable),
    ("stale", "reads that missed an acknowledged write", |lost| lost.stale),
    ("wrong_totals", "owners with totals that do not add up", |lost| lost.wrong_totals),
];

/// At most so many operations are named in a sentence.
const IN_A_SENTENCE: usize = 3;

impl Lost {
    /// A check that could not be made.
    pub fn not_checked(why: impl Into<String>) -> Self {
        Self { unchecked: Some(why.into()), ..Self::default() }
    }

    /// What is wrong, by count: the count's key, and a sentence that names operations.
    pub fn findings(&self) -> Vec<(&'static str, String)> {
        let found = FINDINGS.iter().filter(|(.., count)| count(self) > 0);
        found
            .map(|(key, meaning, count)| {
                let named = self.named.get(*key).map_or(&[][..], Vec::as_slice);
                let shown: Vec<&str> = named.iter().take(IN_A_SENTENCE).map(String::as_str).collect();
                let more = count(self).saturating_sub(shown.len() as u64);
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                (*key, format!("{} {meaning} ({}{more})", grouped(count(self)), shown.join("; ")))
            })
            .collect()
    }

    /// Whether something is wrong.
    pub fn is_broken(&self) -> bool {
        FINDINGS.iter().any(|(.., count)| count(self) > 0)
    }

    /// Adds the counts of another trial, and its reason not to be whole.
    fn add(&mut self, other: &Self) {
        self.attempted += other.attempted;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.unknown_found += other.unknown_found;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.resurrected += other.resurrected;
        self.phantom += other.phantom;
        self.stale += other.stale;
        self.wrong_totals += other.wrong_totals;
        self.linearizable_checked += other.linearizable_checked;
        self.not_linearizable += other.not_linearizable;
        self.linearizable_undecided += other.linearizable_undecided;
        for (key, named) in &other.named {
            self.named.entry(key.clone()).or_default().extend(named.iter().cloned());
        }
        self.unchecked = self.unchecked.take().or_else(|| other.unchecked.clone());
    }

    /// What trials say together; none where nothing was checked.
    pub fn of_all<'a>(each: impl Iterator<Item = &'a Self>) -> Option<Self> {
        each.fold(None, |sum: Option<Self>, next| {
            let mut sum = sum.unwrap_or_default();
            sum.add(next);
            Some(sum)
        })
    }

    /// In one sentence.
    pub fn statement(&self) -> String {
        let unknown = match self.unknown {
            0 => "none unknown".to_owned(),
            unknown => format!("{} unknown of which {} were found", grouped(unknown), grouped(self.unknown_found)),
        };
        let counts = format!("{} acknowledged, {unknown}", grouped(self.acknowledged));
        if self.is_broken() {
            let findings: Vec<String> = self.findings().into_iter().map(|(_, sentence)| sentence).collect();
            return format!("writes went wrong: {} ({counts})", findings.join(", "));
        }
        match &self.unchecked {
            Some(why) => format!("whether an acknowledged write was lost is unknown: {why} ({counts})"),
            None => format!("no acknowledged write was lost ({counts})"),
        }
    }
}

/// `1,234`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

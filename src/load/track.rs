//! A history: one line an operation, with what a check needs to know of it.
//!
//! The one rule: where nobody asked for one, nothing is kept; where somebody did, lines wait in the thread that sends
//! and are told a batch at a time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use kit::{Journal, Outcome};
use serde::{Deserialize, Serialize};

use super::client::Exchange;
use super::probe::{Found, Probe};
use super::scenario::{Action, Names, Need, Template, User};

/// What a step does to which thing, so that its history can be checked.
///
/// A thing is known by the text that its create was answered with as `id`, and that later steps pick, take or hold under
/// the name `arg`. Of what is named in `sets` and `got`, `id`, `version` (which grows with each write) and `total` have
/// their own meaning; every other name is a part of the thing's state, which a write sets and every answer shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Track {
    /// What it does.
    pub does: Does,
    /// The list or value that the thing's id comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arg: Option<String>,
    /// What it writes: texts, in which `{{op}}`, `{{user}}`, `{{n}}` and `{{run}}` may stand.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sets: BTreeMap<String, String>,
    /// What is kept of a good answer: JSON pointers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub got: BTreeMap<String, String>,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Does {
    /// Makes a thing; its answer gives the `id`.
    Create,
    /// Reads a thing.
    Read,
    /// Changes a thing.
    Change,
    /// Deletes a thing.
    Delete,
    /// Counts the user's things; its answer gives the `total`.
    Count,
}

/// One line of a history. Times are in ns since the trial's start; those of a set-up lie before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The user's number.
    pub user: u64,
    /// The operation's own name, unique in the run: what `{{op}}` stands for.
    pub op: String,
    /// Its kind: the step's name.
    pub kind: String,
    /// What it does, where its step is tracked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub does: Option<Does>,
    /// When the schedule wanted it; none in a set-up, which has no schedule.
    pub intended_ns: Option<i64>,
    /// When its first byte was sent.
    pub invoke_ns: i64,
    /// When its answer was there; none when it never came.
    pub return_ns: Option<i64>,
    /// Whether it was sent twice, because its server closed the first connection without an answer: the first may have
    /// been done, or may be done later.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resent: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// The status of the answer; 0 where there was none.
    pub status: u16,
    /// The thing it is about.
    pub arg: Option<String>,
    /// What it writes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sets: BTreeMap<String, String>,
    /// What its answer said.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub got: BTreeMap<String, String>,
}

/// A [`Track`], prepared.
#[derive(Debug)]
pub(super) struct Tracked {
    does: Does,
    pub(super) arg: Option<Need>,
    sets: Vec<(String, Template)>,
    /// Names, with the slots of the probe.
    got: Vec<(String, usize)>,
}

impl Tracked {
    /// # Errors
    /// What is wrong with it.
    pub(super) fn new(
        track: &Track,
        names: &Names,
        used: impl Fn(Need) -> bool,
        probe: &mut Probe,
    ) -> Result<Self, String> {
        track.check()?;
        let arg = match &track.arg {
            None => None,
            Some(name) => {
                let known = [
                    names.lists.get(name).map(|at| Need::List(*at)),
                    names.values.get(name).map(|at| Need::Value(*at)),
                ];
                let found = known.into_iter().flatten().find(|need| used(*need)).ok_or_else(|| {
                    format!("track arg {name:?}: the step uses none of {{{{pick:{name}}}}}, {{{{take:{name}}}}}, {{{{{name}}}}}")
                })?;
                Some(found)
            }
        };
        let mut sets = Vec::new();
        for (name, text) in &track.sets {
            let template = Template::parse(text, names).map_err(|error| format!("track sets {name}: {error}"))?;
            if !template.is_same_again() {
                return Err(format!("track sets {name}: {text:?} may hold only op, user, n and run besides text"));
            }
            sets.push((name.clone(), template));
        }
        let slot = |(name, pointer): (&String, &String)| {
            let slot = probe.add(pointer).map_err(|error| format!("track got {name}: {error}"))?;
            Ok((name.clone(), slot))
        };
        let got = track.got.iter().map(slot).collect::<Result<_, String>>()?;
        Ok(Self { does: track.does, arg, sets, got })
    }

    /// What of an answer is kept.
    pub(super) fn keep(&self, found: &[Option<Found>], user: &mut User) {
        let text = |slot: &usize| found.get(*slot).cloned().flatten().and_then(Found::into_text);
        let kept = self.got.iter().filter_map(|(name, slot)| Some((name.clone(), text(slot)?)));
        user.got = kept.collect();
    }
}

impl Track {
    fn check(&self) -> Result<(), String> {
        let does = self.does;
        let is_about_one = matches!(does, Does::Read | Does::Change | Does::Delete);
        let name =
            serde_json::to_value(does).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default();
        if is_about_one != self.arg.is_some() {
            return Err(match is_about_one {
                true => format!("track: does = {name:?} needs arg, the list or value that the thing's id comes from"),
                false => format!("track: does = {name:?} is about no thing that is there already; leave arg out"),
            });
        }
        for (needs, got) in [(Does::Create, "id"), (Does::Count, "total")] {
            if does == needs && !self.got.contains_key(got) {
                return Err(format!("track: does = {name:?} needs got.{got}, the JSON pointer to it in the answer"));
            }
        }
        if does != Does::Change && !self.sets.is_empty() {
            return Err(format!("track: does = {name:?} sets nothing; its answer says what there is (got)"));
        }
        match self.sets.keys().find(|name| ["id", "version", "total"].contains(&name.as_str())) {
            Some(name) => Err(format!("track sets {name}: it is the system's to give, not a step's to set")),
            None => Ok(()),
        }
    }
}

/// What came of an operation.
pub(super) struct Noted<'a> {
    /// When the schedule wanted it; none in a set-up.
    pub(super) intended_ns: Option<u64>,
    /// How its exchange went.
    pub(super) exchange: &'a Exchange,
    /// How it ended.
    pub(super) outcome: Outcome,
    /// The status of the answer; 0 where there was none.
    pub(super) status: u16,
}

/// The lines of one thread that are not told yet.
pub(super) struct Notes {
    journal: Option<Journal>,
    waiting: RefCell<Vec<Entry>>,
    /// None while users are set up.
    origin_ns: Cell<Option<i64>>,
}

impl Notes {
    /// Goes to `journal`; without one nothing is noted.
    pub(super) fn new(journal: Option<Journal>) -> Self {
        Self { journal, waiting: RefCell::default(), origin_ns: Cell::new(None) }
    }

    /// The schedule begins: times are told from here on.
    pub(super) fn begin(&self, origin_ns: u64) {
        self.origin_ns.set(Some(origin_ns as i64));
    }

    /// Notes what came of a user's last request.
    pub(super) fn add(&self, action: &Action, user: &mut User, run: &str, noted: Noted<'_>) {
        if self.journal.is_none() {
            return;
        }
        let Noted { intended_ns, exchange, outcome, status } = noted;
        let invoke_ns = exchange.earlier_ns.unwrap_or(exchange.started_ns);
        let track = action.track.as_ref();
        let mut render = |template: &Template| {
            let mut text = Vec::new();
            template.render(user, run, &mut text);
            String::from_utf8_lossy(&text).into_owned()
        };
        let sets = track.iter().flat_map(|track| &track.sets);
        let sets = sets.map(|(name, template)| (name.clone(), render(template))).collect();
        self.waiting.borrow_mut().push(Entry {
            user: user.number,
            op: user.op(),
            kind: action.name.clone(),
            does: track.map(|track| track.does),
            intended_ns: intended_ns.map(|ns| ns as i64),
            invoke_ns: invoke_ns as i64,
            return_ns: (status != 0).then_some(exchange.finished_ns as i64),
            resent: exchange.earlier_ns.is_some(),
            outcome,
            status,
            arg: user.arg.take().map(String::from),
            sets,
            got: std::mem::take(&mut user.got),
        });
    }

    /// Tells what waits. What users did to be set up waits for the start, from which its times count.
    pub(super) fn tell(&self) {
        let (Some(journal), Some(origin_ns)) = (&self.journal, self.origin_ns.get()) else { return };
        let told = std::mem::take(&mut *self.waiting.borrow_mut());
        journal.push_all(told.into_iter().map(|mut entry| {
            entry.invoke_ns -= origin_ns;
            entry.intended_ns = entry.intended_ns.map(|ns| ns - origin_ns);
            entry.return_ns = entry.return_ns.map(|ns| ns - origin_ns);
            entry
        }));
    }
}

#[cfg(test)]
mod tests {
    use crate::experiment::file::parse;

    #[test]
    fn a_file_says_what_is_tracked_and_is_archived_as_it_was() {
        let text = "# ?\nsystem = \"http\"\ndeployment = \"external\"\nexternal.default = \"http://h\"\n[load]\nusers = 1\n\
                    [[step]]\nmethod = \"PUT\"\npath = \"/{{pick:id}}\"\nextract = { id = { json = \"/id\", collect = true } }\n\
                    [step.track]\ndoes = \"change\"\narg = \"id\"\nsets = { title = \"{{op}}\" }\ngot = { version = \"/version\" }\n";
        let experiment = parse(text, "x", "x").unwrap();
        assert!(experiment.scenario.as_ref().unwrap().is_tracked());
        assert_eq!(parse(&experiment.to_toml(), "x", "x").unwrap(), experiment);
        let error = parse(&text.replace("\"change\"", "\"mend\""), "x", "x").unwrap_err().to_string();
        assert!(error.starts_with("x:") && error.contains("create") && error.contains("mend"), "{error}");
        let error = parse(&text.replace("arg =", "argument ="), "x", "x").unwrap_err().to_string();
        assert!(error.contains("unknown field `argument`"), "{error}");
    }
}

//! The check itself, one user after another: things are their users' own.

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::IteratorRandom as _;

use super::changes::{By, undone};
use super::linearizable::{Call, Event, Explained, explain};
use super::{Creates, Fate, Found, History, Lost, Operation, Text, Thing};
use crate::load::Does;

/// Operations that are named for each count.
const NAMED: usize = 20;

/// Things whose history is checked for linearizability.
const SAMPLED: usize = 500;

/// What became of the writes of a history, by what is found afterwards. `seed` draws the things whose history is checked
/// for linearizability.
pub fn check(history: &History, found: &[Found], seed: u64) -> Lost {
    let mut creates = history.creates;
    for operation in &history.operations {
        creates.count(operation.does, operation.fate);
    }
    let Creates { attempted, acknowledged, unknown } = creates;
    let mut lost = Lost { attempted, acknowledged, unknown, ..Lost::default() };
    if let Some(why) = &history.incomplete {
        // What was not heard of could be the delete of what is missing, or the create of what is there.
        lost.unchecked = Some(why.clone());
        return lost;
    }
    let found: BTreeMap<u64, &Found> = found.iter().map(|found| (found.user, found)).collect();
    let mut by_user: BTreeMap<u64, Vec<&Operation>> = found.keys().map(|user| (*user, Vec::new())).collect();
    for operation in &history.operations {
        by_user.entry(operation.user).or_default().push(operation);
    }
    let owners: Vec<Owner<'_>> =
        by_user.into_iter().map(|(user, operations)| Owner::new(user, operations, found.get(&user).copied())).collect();
    for owner in &owners {
        owner.check_things(&mut lost);
        owner.check_reads(&mut lost);
        owner.check_totals(&mut lost);
    }
    check_orders(&owners, seed, &mut lost);
    let unread: Vec<_> = owners.iter().filter(|owner| owner.wrote()).filter_map(|owner| owner.unread()).collect();
    if let Some(first) = unread.first() {
        let writers = owners.iter().filter(|owner| owner.wrote()).count();
        lost.unchecked =
            Some(format!("what {} of {writers} users wrote could not be read back: {first}", unread.len()));
    }
    lost
}

/// One user: what it did, and what is there.
struct Owner<'a> {
    user: u64,
    /// In the order of calls.
    operations: Vec<&'a Operation>,
    /// None where it cannot be said.
    things: Option<&'a [Thing]>,
    found: Option<&'a Found>,
    /// What was done to each thing that it knows by its id, in the order of calls.
    by_id: BTreeMap<&'a str, Known<'a>>,
}

/// A thing whose create was acknowledged.
struct Known<'a> {
    create: &'a Operation,
    others: Vec<&'a Operation>,
}

impl<'a> Known<'a> {
    fn all(&self) -> impl Iterator<Item = &'a Operation> {
        std::iter::once(self.create).chain(self.others.iter().copied())
    }

    /// Deletes that may have been done.
    fn deletes(&self) -> impl Iterator<Item = &'a Operation> {
        let deletes = self.others.iter().copied().filter(|operation| operation.does == Does::Delete);
        deletes.filter(|delete| delete.fate != Fate::Failed)
    }

    fn acknowledged_delete(&self) -> Option<&'a Operation> {
        self.deletes().find(|delete| delete.fate == Fate::Acknowledged)
    }
}

impl<'a> Owner<'a> {
    fn new(user: u64, mut operations: Vec<&'a Operation>, found: Option<&'a Found>) -> Self {
        operations.sort_by_key(|operation| operation.invoke_ns);
        let mut by_id: BTreeMap<&str, Known<'_>> = BTreeMap::new();
        for create in operations.iter().copied().filter(|operation| operation.does == Does::Create) {
            if let (Fate::Acknowledged, Some(id)) = (create.fate, create.got("id")) {
                by_id.entry(id).or_insert(Known { create, others: Vec::new() });
            }
        }
        for operation in &operations {
            if let Some(known) = operation.arg.as_deref().and_then(|id| by_id.get_mut(id)) {
                known.others.push(operation);
            }
        }
        let things = found.and_then(|found| found.things.as_deref().ok());
        Self { user, operations, things, found, by_id }
    }

    fn wrote(&self) -> bool {
        self.operations.iter().any(|operation| operation.does == Does::Create && operation.fate != Fate::Failed)
    }

    fn unread(&self) -> Option<&'a str> {
        match self.found.map(|found| &found.things) {
            Some(Ok(_)) => None,
            Some(Err(why)) => Some(why),
            None => Some("nobody looked"),
        }
    }

    /// What must be there, may be there, and must not be there.
    fn check_things(&self, lost: &mut Lost) {
        let Some(things) = self.things else { return };
        let mut by_op: BTreeMap<&str, Vec<&Thing>> = BTreeMap::new();
        for thing in things {
            match &thing.op {
                Some(op) => by_op.entry(op).or_default().push(thing),
                None => {
                    lost.phantom += 1;
                    lost.name("phantom", || format!("{} of user {}, which names no create", thing.id, self.user));
                }
            }
        }
        let creates = self.operations.iter().filter(|operation| operation.does == Does::Create);
        for create in creates {
            let there = by_op.remove(&*create.op).unwrap_or_default();
            self.check_create(create, &there, lost);
        }
        for (op, there) in by_op {
            lost.phantom += 1;
            lost.name("phantom", || format!("{} of user {}: no create {op} was sent", ids(&there), self.user));
        }
    }

    fn check_create(&self, create: &Operation, there: &[&Thing], lost: &mut Lost) {
        let known = create.got("id").and_then(|id| self.by_id.get(&**id)).filter(|known| known.create.op == create.op);
        if there.len() > 1 {
            lost.duplicated += 1;
            lost.name("duplicated", || format!("{} made {}", self.named(create), ids(there)));
        }
        match (create.fate, there.first()) {
            (Fate::Failed, Some(thing)) => {
                lost.phantom += 1;
                let status =
                    if create.status == 0 { "not sent".to_owned() } else { format!("answered {}", create.status) };
                lost.name("phantom", || format!("{} is there, and {} was {status}", thing.id, self.named(create)));
            }
            (Fate::Unknown, Some(_)) => lost.unknown_found += 1,
            (Fate::Acknowledged, Some(thing)) => {
                if let Some(delete) = known.and_then(Known::acknowledged_delete) {
                    lost.resurrected += 1;
                    lost.name("resurrected", || format!("{} is there after {}", thing.id, self.named(delete)));
                }
            }
            (Fate::Acknowledged, None) if known.is_none_or(|known| known.deletes().next().is_none()) => {
                lost.lost += 1;
                lost.name("lost", || self.named(create));
            }
            (_, None) => {}
        }
    }

    /// Reads during the run against what was acknowledged before they began.
    fn check_reads(&self, lost: &mut Lost) {
        let there: BTreeMap<&str, &Thing> =
            self.things.unwrap_or_default().iter().map(|thing| (thing.id.as_str(), thing)).collect();
        for (id, known) in &self.by_id {
            self.check_changes(known, there.get(id).copied(), lost);
            let Some(created_ns) = known.create.return_ns else { continue };
            for read in known.others.iter().filter(|read| read.status == 404 && read.invoke_ns > created_ns) {
                let until_ns = read.return_ns.unwrap_or(i64::MAX);
                // A delete that may have been done and was called before the answer explains it, this one included.
                if !known.deletes().any(|delete| delete.invoke_ns <= until_ns) {
                    lost.stale += 1;
                    lost.name("stale", || {
                        format!("{} did not find {id}, which {} had made", self.named(read), self.named(known.create))
                    });
                }
            }
            self.check_versions(id, known, lost);
        }
        let counts = self.operations.iter().filter(|operation| operation.does == Does::Count);
        let answered = counts.filter_map(|count| Some((*count, count.number("total")?, count.return_ns?)));
        let bounds = Bounds::new(self);
        for (count, total, return_ns) in answered {
            let (least, most) = bounds.at(count.invoke_ns, return_ns);
            if total < least || total > most {
                lost.stale += 1;
                let allowed = if least == most { least.to_string() } else { format!("{least} to {most}") };
                lost.name("stale", || format!("{} counted {total}, not {allowed}", self.named(count)));
            }
        }
    }

    /// A change that was acknowledged is there, or newer ones are.
    fn check_changes(&self, known: &Known<'_>, there: Option<&Thing>, lost: &mut Lost) {
        // What is there after it was deleted is told as such.
        for undone in undone(known.all(), there.filter(|_| known.acknowledged_delete().is_none())) {
            lost.lost += 1;
            lost.name("lost", || {
                let made = format!("{} made version {}", self.named(undone.write), undone.version);
                match undone.by {
                    By::Write(by, version) => format!("{made}, and {} version {version} after it", self.named(by)),
                    By::There(version) => format!("{made}, and {version} is there"),
                }
            });
        }
    }

    /// A version that was seen is not followed by an older one.
    fn check_versions(&self, id: &str, known: &Known<'_>, lost: &mut Lost) {
        let mut seen: Vec<(i64, u64, &Operation)> = known
            .all()
            .filter_map(|operation| Some((operation.return_ns?, operation.number("version")?, operation)))
            .collect();
        seen.sort_by_key(|(return_ns, ..)| *return_ns);
        // Each with the newest that was seen until then.
        for place in 1..seen.len() {
            let (_, version, by) = seen[place - 1];
            if version > seen[place].1 {
                seen[place].1 = version;
                seen[place].2 = by;
            }
        }
        for later in known.all() {
            let Some(version) = later.number("version") else { continue };
            let before = seen.partition_point(|(return_ns, ..)| *return_ns < later.invoke_ns);
            let Some((_, newest, by)) = before.checked_sub(1).map(|place| &seen[place]) else { continue };
            // Of two writes the first is lost, which is told as such.
            let are_writes = later.does == Does::Change && by.does != Does::Read;
            if version < *newest && !are_writes {
                lost.stale += 1;
                lost.name("stale", || {
                    format!(
                        "{} saw version {version} of {id}, and {} version {newest} before",
                        self.named(later),
                        self.named(by)
                    )
                });
            }
        }
    }

    fn check_totals(&self, lost: &mut Lost) {
        let totals = self.found.map_or(&[][..], |found| &found.totals);
        let wrong: Vec<_> = totals.iter().filter(|total| total.said != total.counted).collect();
        if let Some(first) = wrong.first() {
            lost.wrong_totals += 1;
            lost.name("wrong_totals", || {
                format!(
                    "{} of user {} is said to be {}, and {} are there",
                    first.name, self.user, first.said, first.counted
                )
            });
        }
    }

    /// `create 3-17 (user 3, 12.3 s)`
    fn named(&self, operation: &Operation) -> String {
        let at = match operation.invoke_ns {
            ..0 => "in the set-up".to_owned(),
            at_ns => format!("at {:.1} s", at_ns as f64 / 1e9),
        };
        let about =
            operation.arg.as_ref().or_else(|| operation.got("id")).map_or_else(String::new, |id| format!(" of {id}"));
        format!("{} {}{about} {at}", operation.kind, operation.op)
    }

    /// Everything that is known of a thing, its end included.
    fn events(&self, id: &str, known: &Known<'a>) -> Vec<Event> {
        let mut events: Vec<Event> = known.all().filter_map(event).collect();
        events.extend(known.all().filter_map(again));
        if let Some(things) = self.things {
            let there = things.iter().find(|thing| thing.id == id);
            let shown = |thing: &Thing| {
                Call::Shows(
                    thing
                        .state
                        .iter()
                        .map(|(name, value)| (Text::from(name.as_str()), Text::from(value.as_str())))
                        .collect(),
                )
            };
            let call = there.map_or(Call::Missing, shown);
            events.push(Event { invoke_ns: i64::MAX, return_ns: Some(i64::MAX), call });
        }
        events
    }
}

impl Lost {
    fn name(&mut self, count: &str, named: impl FnOnce() -> String) {
        let names = self.named.entry(count.to_owned()).or_default();
        if names.len() < NAMED {
            names.push(named());
        }
    }
}

/// The ids of things, for a message.
fn ids(things: &[&Thing]) -> String {
    things.iter().map(|thing| thing.id.as_str()).collect::<Vec<_>>().join(" and ")
}

/// How many things a user may have at a time.
struct Bounds {
    /// When creates that were acknowledged were.
    made: Vec<i64>,
    /// When creates were called that were not surely refused.
    called: Vec<i64>,
    /// When the first delete was called of each thing that may have been deleted.
    deleting: Vec<i64>,
    /// When the first delete was acknowledged of each thing.
    deleted: Vec<i64>,
}

impl Bounds {
    fn new(owner: &Owner<'_>) -> Self {
        let creates = || owner.operations.iter().filter(|operation| operation.does == Does::Create);
        let acknowledged = creates().filter(|create| create.fate == Fate::Acknowledged);
        let possible = creates().filter(|create| create.fate != Fate::Failed);
        let known = || owner.by_id.values();
        let first_answer = |known: &Known<'_>| {
            let acknowledged = known.deletes().filter(|delete| delete.fate == Fate::Acknowledged);
            acknowledged.filter_map(|delete| delete.return_ns).min()
        };
        let mut bounds = Self {
            made: acknowledged.filter_map(|create| create.return_ns).collect(),
            called: possible.map(|create| create.invoke_ns).collect(),
            deleting: known().filter_map(|known| known.deletes().map(|delete| delete.invoke_ns).min()).collect(),
            deleted: known().filter_map(first_answer).collect(),
        };
        for times in [&mut bounds.made, &mut bounds.called, &mut bounds.deleting, &mut bounds.deleted] {
            times.sort_unstable();
        }
        bounds
    }

    /// The least and the most that a count between these instants may say.
    fn at(&self, invoke_ns: i64, return_ns: i64) -> (u64, u64) {
        let before = |times: &[i64]| times.partition_point(|at_ns| *at_ns < invoke_ns) as u64;
        let until = |times: &[i64]| times.partition_point(|at_ns| *at_ns <= return_ns) as u64;
        let least = before(&self.made).saturating_sub(until(&self.deleting));
        (least, until(&self.called).saturating_sub(before(&self.deleted)))
    }
}

/// Whether some order explains the history of each of some things.
fn check_orders(owners: &[Owner<'_>], seed: u64, lost: &mut Lost) {
    let touched = owners.iter().flat_map(|owner| {
        let touched = owner.by_id.iter().filter(|(_, known)| !known.others.is_empty());
        touched.map(move |(id, known)| (owner, *id, known))
    });
    let mut sampled = touched.sample(&mut kit::rng(seed, "linearizable"), SAMPLED);
    sampled.sort_by_key(|(owner, id, _)| (owner.user, *id));
    let mut told = BTreeSet::new();
    for (owner, id, known) in sampled {
        lost.linearizable_checked += 1;
        match explain(owner.events(id, known)) {
            Explained::Yes => {}
            Explained::Undecided => lost.linearizable_undecided += 1,
            Explained::No => {
                lost.not_linearizable += 1;
                if told.insert((owner.user, id)) {
                    let operations = known.others.len() + 1;
                    lost.name("not_linearizable", || {
                        format!("{id} of user {}, made by {}: {operations} operations", owner.user, known.create.op)
                    });
                }
            }
        }
    }
}

/// What may come of a change that was sent twice: its first try, whose answer nobody saw, may be done long after the
/// second was answered, and then overwrites what came between. Nothing else overwrites.
fn again(operation: &Operation) -> Option<Event> {
    let may_come = operation.resent && operation.does == Does::Change;
    let call = Call::Change(operation.sets.clone(), Vec::new());
    may_come.then_some(Event { invoke_ns: operation.invoke_ns, return_ns: None, call })
}

/// An operation as the search for an order needs it; none where it says nothing of the thing.
fn event(operation: &Operation) -> Option<Event> {
    let &Operation { does, fate, status, invoke_ns, return_ns, .. } = operation;
    let unknown = fate == Fate::Unknown;
    let shown = if fate == Fate::Acknowledged { operation.state() } else { Vec::new() };
    let call = match (does, fate) {
        (Does::Create, _) => Call::Create(shown),
        (Does::Read | Does::Change | Does::Delete, Fate::Failed) if status == 404 => Call::Missing,
        (_, Fate::Failed) | (Does::Read, Fate::Unknown) | (Does::Count, _) => return None,
        (Does::Read, Fate::Acknowledged) => Call::Shows(shown),
        (Does::Change, _) => Call::Change(operation.sets.clone(), shown),
        (Does::Delete, _) => Call::Delete,
    };
    Some(Event { invoke_ns, return_ns: if unknown { None } else { return_ns }, call })
}

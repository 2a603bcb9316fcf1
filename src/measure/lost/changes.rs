//! Changes that were acknowledged and then undone, by the versions that their answers said.
//!
//! The one rule: a version belongs to one write, and each write makes a newer one than every write before it. Whatever
//! else happened to a thing, a version that is made once more, or that is newer than what came after it, was undone.

use super::{Fate, Operation, Thing};
use crate::load::Does;

/// A write that was acknowledged and undone.
pub(super) struct Undone<'a> {
    pub(super) write: &'a Operation,
    /// The version that it made.
    pub(super) version: u64,
    pub(super) by: By<'a>,
}

/// What shows that it was.
pub(super) enum By<'a> {
    /// A write that made this version after it.
    Write(&'a Operation, u64),
    /// What is there in the end has this version.
    There(u64),
}

/// The acknowledged writes of a thing, with the versions that they made, the oldest version first.
fn versions<'a>(operations: impl Iterator<Item = &'a Operation>) -> Vec<(u64, &'a Operation)> {
    let writes = operations.filter(|operation| matches!(operation.does, Does::Create | Does::Change));
    let acknowledged = writes.filter(|write| write.fate == Fate::Acknowledged);
    let mut versions: Vec<_> = acknowledged.filter_map(|write| Some((write.number("version")?, write))).collect();
    versions.sort_by_key(|(version, write)| (*version, write.invoke_ns));
    versions
}

/// What was undone of the writes among `operations`, which are all of one thing; `there` is what is left of it.
pub(super) fn undone<'a>(operations: impl Iterator<Item = &'a Operation>, there: Option<&Thing>) -> Vec<Undone<'a>> {
    let versions = versions(operations);
    let there = there.and_then(|thing| thing.version);
    let mut found = Vec::new();
    // Of the writes with this version or an older one, that which was called last.
    let mut last: Option<(u64, &Operation)> = None;
    for (place, &(version, write)) in versions.iter().enumerate() {
        if last.is_none_or(|(_, last)| write.invoke_ns >= last.invoke_ns) {
            last = Some((version, write));
        }
        let again = versions.get(place + 1).filter(|(next, _)| *next == version);
        let later = last.filter(|(_, last)| write.return_ns.is_some_and(|at_ns| at_ns < last.invoke_ns));
        let by = match (again.copied().or(later), there) {
            (Some((newer, by)), _) => By::Write(by, newer),
            (None, Some(there)) if there < version => By::There(there),
            _ => continue,
        };
        found.push(Undone { write, version, by });
    }
    found
}

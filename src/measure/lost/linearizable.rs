//! Whether some order of the operations on one thing explains every answer (Wing and Gong's search, with Lowe's memory
//! of what was tried before).
//!
//! The one rule: an operation takes effect at one instant between its call and its answer; one that was given up may
//! take effect at any instant after its call, or never. Things are independent, so each is checked alone.

use std::collections::HashSet;

use super::{Fields, Text};

/// The most operations of a thing whose orders are tried; one bit each.
const LONGEST: usize = WORDS * 64;
const WORDS: usize = 16;

/// The most states that are looked at for one thing.
const STATES: usize = 20_000;

/// An operation on a thing.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) invoke_ns: i64,
    /// None: it may never have happened.
    pub(super) return_ns: Option<i64>,
    pub(super) call: Call,
}

/// What it does, and what its answer showed.
#[derive(Clone, Debug)]
pub(super) enum Call {
    /// Makes the thing, with this state.
    Create(Fields),
    /// Sees this state.
    Shows(Fields),
    /// Sets this and then sees that.
    Change(Fields, Fields),
    /// Removes the thing.
    Delete,
    /// Sees that there is no such thing.
    Missing,
}

/// What the search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Explained {
    /// An order explains it.
    Yes,
    /// None does.
    No,
    /// There are too many operations or orders to try.
    Undecided,
}

/// What is known of a thing that is there; none is one that is not.
type State = Option<Vec<(Text, Text)>>;

/// Looks for an order.
pub(super) fn explain(mut events: Vec<Event>) -> Explained {
    if events.len() > LONGEST {
        return Explained::Undecided;
    }
    events.sort_by_key(|event| event.invoke_ns);
    let mut search = Search { events: &events, seen: HashSet::new() };
    search.from(Done::default(), &None)
}

/// Which operations were done.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Done([u64; WORDS]);

impl Done {
    fn has(&self, index: usize) -> bool {
        self.0[index / 64] & (1 << (index % 64)) != 0
    }

    fn with(mut self, index: usize) -> Self {
        self.0[index / 64] |= 1 << (index % 64);
        self
    }
}

struct Search<'a> {
    events: &'a [Event],
    /// What was done, and the state after it.
    seen: HashSet<(Done, State)>,
}

impl Search<'_> {
    fn from(&mut self, done: Done, state: &State) -> Explained {
        let open = |index: &usize| !done.has(*index);
        let answers = (0..self.events.len()).filter(open).filter_map(|index| self.events[index].return_ns);
        // Whatever comes next was called before the first answer that is still to be explained.
        let Some(first_ns) = answers.min() else { return Explained::Yes };
        if self.seen.len() >= STATES {
            return Explained::Undecided;
        }
        if !self.seen.insert((done, state.clone())) {
            return Explained::No;
        }
        let can_be_next = |index: &usize| open(index) && self.events[*index].invoke_ns <= first_ns;
        let mut candidates: Vec<usize> = (0..self.events.len()).filter(can_be_next).collect();
        // What surely happened first: what may have happened is rarely needed to explain the rest.
        candidates.sort_by_key(|index| {
            let return_ns = self.events[*index].return_ns;
            (return_ns.is_none(), return_ns)
        });
        for index in candidates {
            let event = &self.events[index];
            let Some(next) = event.call.after(state) else { continue };
            match self.from(done.with(index), &next) {
                Explained::No => {}
                found => return found,
            }
        }
        Explained::No
    }
}

impl Call {
    /// The state after it; none where its answer could not have been given in this state.
    fn after(&self, state: &State) -> Option<State> {
        match (self, state) {
            (Self::Create(shown), None) => Some(Some(shown.clone())),
            (Self::Shows(shown), Some(state)) => seen(state.clone(), shown).map(Some),
            (Self::Change(sets, shown), Some(state)) => {
                let mut state = state.clone();
                for (name, value) in sets {
                    match state.iter_mut().find(|(known, _)| known == name) {
                        Some((_, known)) => known.clone_from(value),
                        None => state.push((name.clone(), value.clone())),
                    }
                }
                state.sort();
                seen(state, shown).map(Some)
            }
            (Self::Delete, Some(_)) | (Self::Missing, None) => Some(None),
            _ => None,
        }
    }
}

/// The state, with what was not known of it before; none where it is not what was shown.
fn seen(mut state: Vec<(Text, Text)>, shown: &Fields) -> Option<Vec<(Text, Text)>> {
    for (name, value) in shown {
        match state.iter().find(|(known, _)| known == name) {
            Some((_, known)) if known == value => {}
            Some(_) => return None,
            None => state.push((name.clone(), value.clone())),
        }
    }
    state.sort();
    Some(state)
}

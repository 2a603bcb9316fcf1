//! Which replica is asked, and whether it is thought ready.
//!
//! The one rule: both are decided from what is handed in; nobody asks a replica or a clock here.

use rand::RngExt as _;

use crate::settings::Balance;

/// What is known of a replica when one is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Its place in the list.
    pub index: usize,
    /// Whether it is thought ready.
    pub ready: bool,
    /// What is under way with it.
    pub in_flight: usize,
}

/// Chooses among replicas whose breaker admits a call. `turn` counts choices, for the policy that takes turns.
/// When none is thought ready all are tried: readiness may be wrong about all of them at once, under overload above
/// all, and refusing everything would make it true.
pub fn choose(policy: Balance, candidates: &[Candidate], turn: usize, rng: &mut kit::Rng) -> Option<usize> {
    if candidates.is_empty() {
        return None;
    }
    if policy == Balance::RoundRobin {
        return Some(candidates[turn % candidates.len()].index);
    }
    let ready = candidates.iter().filter(|candidate| candidate.ready).count();
    if policy == Balance::LeastInFlight || ready == 0 {
        return Some(less_busy_of_two(candidates.len(), |place| candidates[place], rng));
    }
    let nth_ready = |place| *candidates.iter().filter(|candidate| candidate.ready).nth(place).unwrap_or(&candidates[0]);
    Some(less_busy_of_two(ready, nth_ready, rng))
}

/// The less busy of two drawn at random is nearly as good as the least busy of all, and does not send every request
/// to one that has just come back (Mitzenmacher, The Power of Two Choices, 2001).
fn less_busy_of_two(count: usize, candidate: impl Fn(usize) -> Candidate, rng: &mut kit::Rng) -> usize {
    if count == 1 {
        return candidate(0).index;
    }
    let first = rng.random_range(0..count);
    let second = (first + rng.random_range(1..count)) % count;
    let (first, second) = (candidate(first), candidate(second));
    if second.in_flight < first.in_flight { second.index } else { first.index }
}

/// Whether a replica is thought ready, from what it answers when asked and from calls that found nobody there.
#[derive(Debug, Default)]
pub struct Readiness {
    ready: bool,
    known: bool,
    good: u32,
    bad: u32,
}

/// Answers in a row that change a mind.
const IN_A_ROW: u32 = 2;

impl Readiness {
    /// Whether it is thought ready.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// It was asked. The first good answer counts at once; later a mind is changed by two in a row.
    pub fn asked(&mut self, good: bool) {
        if good {
            self.good += 1;
            self.bad = 0;
        } else {
            self.bad += 1;
            self.good = 0;
        }
        if good && (!self.known || self.good >= IN_A_ROW) {
            self.ready = true;
            self.known = true;
        }
        if self.bad >= IN_A_ROW {
            self.ready = false;
        }
    }

    /// A call found nobody there: there is no doubt.
    pub fn unreachable(&mut self) {
        self.ready = false;
        self.known = true;
        self.good = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(replicas: &[(bool, usize)]) -> Vec<Candidate> {
        let candidate = |(index, &(ready, in_flight))| Candidate { index, ready, in_flight };
        replicas.iter().enumerate().map(candidate).collect()
    }

    /// Which replicas are chosen in 200 draws.
    fn chosen(policy: Balance, replicas: &[(bool, usize)]) -> Vec<usize> {
        let (candidates, mut rng) = (candidates(replicas), kit::rng(1, "test"));
        let mut chosen: Vec<_> = (0..200).filter_map(|turn| choose(policy, &candidates, turn, &mut rng)).collect();
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }

    #[test]
    fn each_policy_chooses_among_the_replicas_it_may() {
        let (up, down) = (true, false);
        for (policy, replicas, expected) in [
            (Balance::Ready, vec![], vec![]),
            (Balance::Ready, vec![(up, 9)], vec![0]),
            (Balance::Ready, vec![(up, 0), (down, 0), (up, 0)], vec![0, 2]),
            (Balance::Ready, vec![(up, 5), (up, 0)], vec![1]),
            (Balance::Ready, vec![(up, 1), (up, 1), (up, 9)], vec![0, 1]),
            (Balance::Ready, vec![(down, 0), (down, 0)], vec![0, 1]),
            (Balance::LeastInFlight, vec![(up, 5), (down, 0)], vec![1]),
            (Balance::RoundRobin, vec![(up, 5), (down, 0), (up, 7)], vec![0, 1, 2]),
        ] {
            assert_eq!(chosen(policy, &replicas), expected, "{policy:?} {replicas:?}");
        }
    }

    #[test]
    fn one_answer_does_not_change_a_mind_but_a_refused_connection_does() {
        let mut readiness = Readiness::default();
        let mut after = |answers: &[bool]| {
            answers.iter().for_each(|good| readiness.asked(*good));
            readiness.is_ready()
        };
        assert!(after(&[true]), "the first good answer counts");
        assert!(after(&[false]), "one bad answer may be chance");
        assert!(!after(&[false]));
        assert!(!after(&[true]), "one good answer may be chance");
        assert!(after(&[true]));
        readiness.unreachable();
        assert!(!readiness.is_ready());
        readiness.asked(true);
        assert!(!readiness.is_ready());
        readiness.asked(true);
        assert!(readiness.is_ready());
    }
}

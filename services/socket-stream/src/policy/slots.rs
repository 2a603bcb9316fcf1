//! Which task runs where.
//!
//! The one rule: list scheduling (Graham, Bounds on multiprocessing timing anomalies, 1969). The next task, in order,
//! goes to the first slot that is free; nothing is planned ahead and nothing is taken back.

use std::collections::BTreeSet;

/// Tasks in order, and the slots they wait for.
#[derive(Clone, Debug)]
pub struct Slots<T: Ord> {
    free: BTreeSet<u32>,
    waiting: BTreeSet<T>,
}

impl<T: Ord> Slots<T> {
    /// So many free slots. There may be none: then everything waits for ever.
    pub fn new(slots: u32) -> Self {
        Self { free: (0..slots).collect(), waiting: BTreeSet::new() }
    }

    /// A task may run from now on.
    pub fn add(&mut self, task: T) {
        self.waiting.insert(task);
    }

    /// The first task and the slot it goes to, while there are both.
    pub fn start_next(&mut self) -> Option<(u32, T)> {
        let slot = *self.free.first()?;
        let task = self.waiting.pop_first()?;
        self.free.remove(&slot);
        Some((slot, task))
    }

    /// A slot is free again.
    pub fn release(&mut self, slot: u32) {
        self.free.insert(slot);
    }

    /// Forgets the waiting tasks that are not to run any more.
    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        self.waiting.retain(keep);
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use proptest::prelude::*;

    use super::*;

    /// How long tasks of these lengths take on so many slots, in order; none when some never run.
    fn makespan(lengths: &[u64], slots: u32) -> Option<u64> {
        let mut list = Slots::new(slots);
        (0..lengths.len()).for_each(|task| list.add(task));
        let (mut running, mut ran, mut now) = (BinaryHeap::new(), 0, 0);
        loop {
            while let Some((slot, task)) = list.start_next() {
                running.push(Reverse((now + lengths[task], slot)));
                ran += 1;
            }
            let Some(Reverse((end, slot))) = running.pop() else { return (ran == lengths.len()).then_some(now) };
            now = end;
            list.release(slot);
        }
    }

    #[test]
    fn tasks_go_to_the_first_free_slot_in_order() {
        let mut slots = Slots::new(2);
        [3, 1, 2, 4].into_iter().for_each(|task| slots.add(task));
        assert_eq!([slots.start_next(), slots.start_next(), slots.start_next()], [Some((0, 1)), Some((1, 2)), None]);
        slots.release(1);
        assert_eq!(slots.start_next(), Some((1, 3)));
        slots.retain(|task| *task != 4);
        slots.release(0);
        assert_eq!(slots.start_next(), None);
    }

    #[test]
    fn without_a_slot_nothing_ever_runs() {
        let mut slots = Slots::new(0);
        slots.add(1);
        assert_eq!(slots.start_next(), None);
        assert_eq!(makespan(&[1], 0), None);
        assert_eq!(makespan(&[], 0), Some(0));
    }

    #[test]
    fn equal_tasks_run_in_waves() {
        for (tasks, slots, waves) in [(4, 3, 2), (3, 3, 1), (6, 3, 2), (8, 7, 2), (7, 7, 1), (1, 8, 1), (0, 3, 0)] {
            assert_eq!(makespan(&vec![10; tasks], slots), Some(waves * 10), "{tasks} tasks on {slots} slots");
        }
    }

    proptest! {
        #[test]
        fn a_schedule_is_between_the_bounds_of_its_work(
            lengths in prop::collection::vec(0_u64..1_000, 0..40),
            slots in 1_u32..9,
        ) {
            let span = makespan(&lengths, slots).unwrap();
            let (sum, longest) = (lengths.iter().sum::<u64>(), lengths.iter().copied().max().unwrap_or(0));
            let least = longest.max(sum.div_ceil(u64::from(slots)));
            prop_assert!(span >= least && span <= sum);
            // Graham's bound: within 2 - 1/m of the best there is.
            prop_assert!(span as f64 <= sum as f64 / f64::from(slots) + longest as f64 * (1.0 - 1.0 / f64::from(slots)) + 1e-9);
        }

        #[test]
        fn one_slot_takes_the_sum_and_enough_slots_the_longest(lengths in prop::collection::vec(0_u64..1_000, 1..20)) {
            prop_assert_eq!(makespan(&lengths, 1), Some(lengths.iter().sum()));
            prop_assert_eq!(makespan(&lengths, lengths.len() as u32), lengths.iter().copied().max());
        }

        #[test]
        fn every_task_runs_once_and_no_slot_has_two(tasks in 0_u32..40, slots in 1_u32..9) {
            let mut list = Slots::new(slots);
            (0..tasks).for_each(|task| list.add(task));
            let (mut busy, mut ran) = (BTreeSet::new(), Vec::new());
            loop {
                while let Some((slot, task)) = list.start_next() {
                    prop_assert!(slot < slots && busy.insert(slot));
                    ran.push(task);
                }
                let Some(slot) = busy.pop_last() else { break };
                list.release(slot);
            }
            prop_assert_eq!(ran, (0..tasks).collect::<Vec<_>>());
        }
    }
}

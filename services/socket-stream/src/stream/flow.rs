//! Operators, each a type that pushes its records into the next.
//!
//! The one rule: nothing is collected between two operators.

use std::marker::PhantomData;

use super::Cost;
use crate::settings::Work;

/// What a task owes for the records it has passed, by how it is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// Time that it has to hold its slot.
    pub sleep_ns: u64,
    /// CPU time that it has to use.
    pub burn_ns: u64,
}

impl Charge {
    #[inline]
    fn add(&mut self, cost: Price) {
        self.sleep_ns += cost.sleep_ns;
        self.burn_ns += cost.burn_ns;
    }
}

/// A cost in the form that is quick to add.
type Price = Charge;

fn price(cost: Cost) -> Price {
    let each_ns = u64::try_from(cost.each.as_nanos()).unwrap_or(u64::MAX);
    match cost.work {
        Work::Sleep => Price { sleep_ns: each_ns, burn_ns: 0 },
        Work::Burn => Price { sleep_ns: 0, burn_ns: each_ns },
    }
}

/// A line goes in, records come out.
pub trait Flow: Send + Sync + 'static {
    /// What comes out.
    type Item;

    /// Passes one line through.
    fn each(&self, line: &str, charge: &mut Charge, out: &mut impl FnMut(&mut Charge, Self::Item));
}

/// Records made of lines.
pub struct Split<F, T> {
    price: Price,
    each: F,
    item: PhantomData<fn() -> T>,
}

impl<F, T> Split<F, T> {
    pub(super) fn new(cost: Cost, each: F) -> Self {
        Self { price: price(cost), each, item: PhantomData }
    }
}

impl<F, T> Flow for Split<F, T>
where
    T: 'static,
    F: Fn(&str, &mut dyn FnMut(T)) + Send + Sync + 'static,
{
    type Item = T;

    #[inline(always)]
    fn each(&self, line: &str, charge: &mut Charge, out: &mut impl FnMut(&mut Charge, T)) {
        charge.add(self.price);
        (self.each)(line, &mut |item| out(charge, item));
    }
}

/// One record made of each.
pub struct Map<F, G> {
    from: F,
    each: G,
}

impl<F, G> Map<F, G> {
    pub(super) fn new(from: F, each: G) -> Self {
        Self { from, each }
    }
}

impl<F, G, T> Flow for Map<F, G>
where
    F: Flow,
    G: Fn(F::Item) -> T + Send + Sync + 'static,
{
    type Item = T;

    #[inline(always)]
    fn each(&self, line: &str, charge: &mut Charge, out: &mut impl FnMut(&mut Charge, T)) {
        self.from.each(line, charge, &mut |charge: &mut Charge, item| out(charge, (self.each)(item)));
    }
}

/// Any number of records made of each.
pub struct FlatMap<F, G, T> {
    from: F,
    each: G,
    item: PhantomData<fn() -> T>,
}

impl<F, G, T> FlatMap<F, G, T> {
    pub(super) fn new(from: F, each: G) -> Self {
        Self { from, each, item: PhantomData }
    }
}

impl<F, G, T> Flow for FlatMap<F, G, T>
where
    F: Flow,
    T: 'static,
    G: Fn(F::Item, &mut dyn FnMut(T)) + Send + Sync + 'static,
{
    type Item = T;

    #[inline(always)]
    fn each(&self, line: &str, charge: &mut Charge, out: &mut impl FnMut(&mut Charge, T)) {
        self.from.each(line, charge, &mut |charge: &mut Charge, item| {
            (self.each)(item, &mut |item| out(charge, item));
        });
    }
}

/// Only some of the records.
pub struct Filter<F, G> {
    from: F,
    keep: G,
}

impl<F, G> Filter<F, G> {
    pub(super) fn new(from: F, keep: G) -> Self {
        Self { from, keep }
    }
}

impl<F, G> Flow for Filter<F, G>
where
    F: Flow,
    G: Fn(&F::Item) -> bool + Send + Sync + 'static,
{
    type Item = F::Item;

    #[inline(always)]
    fn each(&self, line: &str, charge: &mut Charge, out: &mut impl FnMut(&mut Charge, F::Item)) {
        self.from.each(line, charge, &mut |charge: &mut Charge, item| {
            if (self.keep)(&item) {
                out(charge, item);
            }
        });
    }
}

/// Records that cost something.
pub struct Costly<F> {
    from: F,
    price: Price,
}

impl<F> Costly<F> {
    pub(super) fn new(from: F, cost: Cost) -> Self {
        Self { from, price: price(cost) }
    }
}

impl<F: Flow> Flow for Costly<F> {
    type Item = F::Item;

    #[inline(always)]
    fn each(&self, line: &str, charge: &mut Charge, out: &mut impl FnMut(&mut Charge, F::Item)) {
        self.from.each(line, charge, &mut |charge: &mut Charge, item| {
            charge.add(self.price);
            out(charge, item);
        });
    }
}

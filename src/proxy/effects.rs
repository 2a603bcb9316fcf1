//! What faults do to one direction of one link, as numbers: no socket and no clock here.
//!
//! The one rule: everything follows from the faults, the seed, the link's number and the times that are handed in.

use std::sync::Arc;

use rand::RngExt as _;

use super::faults::Active;
use super::{Direction, LinkKind};

const MS: u64 = 1_000_000;
/// What may pass at once after a pause, in time.
const BURST_NS: u64 = 10 * MS;
/// What passes at a time while more waits, in time: half of a burst.
const SLICE_NS: u64 = 5 * MS;
/// How late a slice may be without loss of rate.
const LATE_NS: u64 = 100 * MS;

/// What faults do to one direction of one link.
#[derive(Default)]
pub struct Effects {
    delays: Vec<Delay>,
    bucket: Option<Bucket>,
    limits: Vec<Limit>,
    /// Nothing passes.
    pub blackhole: bool,
    /// How much later an end is passed on.
    pub close_delay_ns: u64,
}

struct Delay {
    fault: u64,
    latency_ns: u64,
    jitter_ns: u64,
    rng: kit::Rng,
}

struct Limit {
    fault: u64,
    left: u64,
}

/// The link that effects are of.
#[derive(Clone, Copy)]
pub struct LinkId {
    /// Where every random decision starts.
    pub seed: u64,
    /// Its number, from 1, in the order of accepting.
    pub number: u64,
}

impl Effects {
    /// What these faults do to a way of a link, given what they did `before` the last of them came or went.
    pub fn of(link: LinkId, way: Direction, faults: &[Arc<Active>], before: Self) -> Self {
        let mut effects = Self::default();
        let (mut delays, mut limits) = (before.delays, before.limits);
        let mut rate: Option<u64> = None;
        for Active { id, fault, .. } in faults.iter().map(AsRef::as_ref) {
            if fault.direction != Direction::Both && fault.direction != way {
                continue;
            }
            match &fault.kind {
                LinkKind::Latency { latency, jitter } => {
                    let known = delays.iter().position(|delay| delay.fault == *id).map(|at| delays.swap_remove(at));
                    effects.delays.push(known.unwrap_or_else(|| Delay {
                        fault: *id,
                        latency_ns: latency.as_nanos() as u64,
                        jitter_ns: jitter.as_nanos() as u64,
                        rng: kit::rng(link.seed, &format!("proxy/{id}/{}/jitter/{way}", link.number)),
                    }));
                }
                LinkKind::Bandwidth { bytes_per_s } => {
                    rate = Some(rate.map_or(*bytes_per_s, |rate| rate.min(*bytes_per_s)));
                }
                LinkKind::Blackhole => effects.blackhole = true,
                LinkKind::SlowClose { delay } => {
                    effects.close_delay_ns = effects.close_delay_ns.saturating_add(delay.as_nanos() as u64);
                }
                LinkKind::LimitData { bytes } => {
                    let known = limits.iter().position(|limit| limit.fault == *id).map(|at| limits.swap_remove(at));
                    effects.limits.push(known.unwrap_or(Limit { fault: *id, left: *bytes }));
                }
                // Of the whole link, of connections that are not open yet, or of requests.
                LinkKind::Reset { .. }
                | LinkKind::FailFirst { .. }
                | LinkKind::ErrorRate { .. }
                | LinkKind::Slow { .. } => {}
            }
        }
        effects.bucket = rate.map(|bytes_per_s| match before.bucket {
            Some(bucket) => Bucket { bytes_per_s, ..bucket },
            None => Bucket::new(bytes_per_s),
        });
        effects
    }

    /// Whether they leave everything as it is.
    pub fn is_none(&self) -> bool {
        self.delays.is_empty()
            && self.bucket.is_none()
            && self.limits.is_empty()
            && !self.blackhole
            && self.close_delay_ns == 0
    }

    /// Whether what arrives is held for some time.
    pub fn delays(&self) -> bool {
        !self.delays.is_empty()
    }

    /// When something that arrives at an instant is to be passed on; draws the jitter.
    pub fn due_ns(&mut self, arrived_ns: u64) -> u64 {
        self.delays.iter_mut().fold(arrived_ns, |due_ns, delay| {
            let jitter = delay.jitter_ns as f64 * delay.rng.random_range(-1.0..=1.0);
            due_ns.saturating_add(delay.latency_ns.saturating_add_signed(jitter.round() as i64))
        })
    }

    /// The latest instant at which something that arrived can be due.
    pub fn latest_due_ns(&self, arrived_ns: u64) -> u64 {
        self.delays
            .iter()
            .fold(arrived_ns, |due_ns, delay| due_ns.saturating_add(delay.latency_ns).saturating_add(delay.jitter_ns))
    }

    /// How many of so many bytes may pass now, at least one.
    ///
    /// # Errors
    /// When some may, if none may now.
    pub fn allowance(&mut self, wanted: usize, now_ns: u64) -> Result<usize, u64> {
        let wanted = self.limits.iter().fold(wanted, |wanted, limit| wanted.min(limit.left as usize));
        match &mut self.bucket {
            Some(bucket) => bucket.allowance(wanted, now_ns),
            None => Ok(wanted),
        }
    }

    /// So many bytes have passed.
    pub fn passed(&mut self, bytes: usize) {
        if let Some(bucket) = &mut self.bucket {
            bucket.tokens -= bytes as f64;
        }
        for limit in &mut self.limits {
            limit.left = limit.left.saturating_sub(bytes as u64);
        }
    }

    /// Whether a limit has been reached.
    pub fn is_spent(&self) -> bool {
        self.limits.iter().any(|limit| limit.left == 0)
    }
}

/// A token bucket that gives small slices, and loses nothing when its reader is late.
#[derive(Clone)]
struct Bucket {
    bytes_per_s: u64,
    tokens: f64,
    at_ns: u64,
    /// Whether somebody waits: then time counts that would be lost after a pause.
    awaited: bool,
}

impl Bucket {
    fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s, tokens: 0.0, at_ns: 0, awaited: false }
    }

    fn allowance(&mut self, wanted: usize, now_ns: u64) -> Result<usize, u64> {
        let worth = |ns: u64| self.bytes_per_s as f64 * ns as f64 / 1e9;
        let most = worth(if self.awaited { LATE_NS } else { BURST_NS }).max(1.0);
        self.tokens = (self.tokens + worth(now_ns.saturating_sub(self.at_ns))).min(most);
        self.at_ns = now_ns;
        // A slice is less than the most that is kept, so it comes.
        let least = worth(SLICE_NS).clamp(1.0, wanted.max(1) as f64);
        self.awaited = self.tokens < wanted as f64;
        if self.tokens >= least {
            return Ok((self.tokens as usize).min(wanted));
        }
        let wait_ns = (least - self.tokens) / self.bytes_per_s as f64 * 1e9;
        Err(now_ns.saturating_add((wait_ns.ceil() as u64).max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effects(faults: &[&str]) -> Effects {
        let faults: Vec<_> = (1..).zip(faults).map(|(id, text)| Active::new(id, text.parse().unwrap(), 0)).collect();
        Effects::of(LinkId { seed: 7, number: 1 }, Direction::Down, &faults, Effects::default())
    }

    #[test]
    fn delays_add_up_and_vary_by_no_more_than_their_jitter() {
        let mut both = effects(&["latency=50ms,jitter=5ms", "latency=10ms", "latency=1s,direction=up"]);
        let due: Vec<_> = (0..1_000).map(|_| both.due_ns(1_000 * MS) - 1_000 * MS).collect();
        let (least, most) = (due.iter().min().unwrap(), due.iter().max().unwrap());
        assert!((55 * MS..56 * MS).contains(least), "{least}");
        assert!((64 * MS..=65 * MS).contains(most), "{most}");
        assert_eq!(both.latest_due_ns(0), 65 * MS);
        let again = effects(&["latency=50ms,jitter=5ms", "latency=10ms"]).due_ns(0);
        assert_eq!(again, due[0], "the same seed draws the same");
    }

    #[test]
    fn a_rate_holds_over_any_time_in_slices_of_at_most_a_burst() {
        for (rate, wanted) in [(1_000_000, 65_536), (100_000, 700), (100, 10), (1, 3)] {
            let mut effects = effects(&[&format!("bandwidth={rate}"), "bandwidth=1GB"]);
            let (mut now_ns, mut passed, mut largest) = (0, 0, 0);
            while now_ns < 20_000 * MS {
                match effects.allowance(wanted, now_ns) {
                    Ok(bytes) => {
                        effects.passed(bytes);
                        passed += bytes;
                        largest = largest.max(bytes);
                    }
                    // As late as a timer on a busy machine.
                    Err(at_ns) => now_ns = at_ns + 2 * MS,
                }
            }
            let expected = rate as f64 * now_ns as f64 / 1e9;
            assert!((passed as f64 - expected).abs() <= 0.01 * expected + 1.0, "{rate}: {passed} for {expected}");
            assert!(largest as f64 <= (rate as f64 / 100.0).max(1.0), "{rate}: {largest} at once");
        }
    }

    #[test]
    fn after_a_pause_no_more_than_a_burst_passes_at_once() {
        let mut effects = effects(&["bandwidth=1MB"]);
        assert_eq!(effects.allowance(1 << 20, 3_600_000 * MS), Ok(10_000));
    }

    #[test]
    fn a_limit_goes_on_counting_when_other_faults_come_and_go() {
        let limit = Active::new(3, "limit-data=10".parse().unwrap(), 0);
        let link = LinkId { seed: 7, number: 1 };
        let mut effects = Effects::of(link, Direction::Down, std::slice::from_ref(&limit), Effects::default());
        assert_eq!(effects.allowance(100, 0), Ok(10));
        effects.passed(6);
        let other = Active::new(4, "latency=1ms".parse().unwrap(), 0);
        let mut effects = Effects::of(link, Direction::Down, &[limit, other], effects);
        assert_eq!(effects.allowance(100, 0), Ok(4));
        assert!(!effects.is_spent());
        effects.passed(4);
        assert!(effects.is_spent());
    }
}

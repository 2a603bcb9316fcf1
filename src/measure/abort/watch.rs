//! Looks at one second after another and says when to end a trial.
//!
//! One rule: a second that says nothing of what is asked, because nothing was offered or answered in it, does not end
//! what has begun: users who all wait for a system that hangs offer nothing.

use crate::measure::abort::Abort;
use crate::measure::{SecondSummary, Spread};
use crate::verdict::{Slo, three};

/// What may be asked of a second.
const ASKED: &str = "errors, failed, unknown, wrong, throughput, goodput, and p50, p90, p95, p99, p99.9, avg, max";

/// How long an objective has held, in complete seconds.
#[derive(Clone, Debug)]
pub struct Watch {
    abort: Abort,
    /// The first second since which it has held, in every second that says something.
    since: Option<u32>,
    /// The last second that was seen.
    last: Option<u32>,
}

impl Watch {
    /// Has seen nothing yet.
    pub fn new(abort: &Abort) -> Self {
        Self { abort: abort.clone(), since: None, last: None }
    }

    /// The last second that was seen.
    pub fn last(&self) -> Option<u32> {
        self.last
    }

    /// Why to end the trial; none as long as there is no reason. Seconds come complete and in order; one that was seen
    /// is not counted again.
    pub fn see(&mut self, second: &SecondSummary) -> Option<String> {
        if self.last.is_some_and(|last| second.second <= last) {
            return None;
        }
        // Seconds that are left out are missing, and may have been well.
        if self.last.is_some_and(|last| second.second > last + 1) {
            self.since = None;
        }
        self.last = Some(second.second);
        let slo = &self.abort.when;
        match of_second(&slo.key, second) {
            Some(value) if slo.op.met(value, slo.limit) => self.since = self.since.or(Some(second.second)),
            Some(_) => self.since = None,
            None => return None,
        }
        let needed = self.abort.held.as_secs_f64();
        let is_enough = self.since.is_some_and(|since| f64::from(second.second - since + 1) >= needed);
        is_enough.then(|| format!("{} for {} s, up to second {}", slo.text, three(needed), second.second))
    }
}

/// Whether what an objective is about is known of each second.
///
/// # Errors
/// When it is not, with what is.
pub fn supports(slo: &Slo) -> Result<(), String> {
    let every = SecondSummary { offered: 1, ok: 1, latency: ALL, ..SecondSummary::default() };
    match of_second(&slo.key, &every) {
        Some(_) => Ok(()),
        None => Err(format!("{slo} is not known of each second; there are {ASKED}")),
    }
}

const ALL: Spread = Spread {
    p50: Some(1.0),
    p90: Some(1.0),
    p95: Some(1.0),
    p99: Some(1.0),
    p999: Some(1.0),
    avg: Some(1.0),
    max: Some(1.0),
};

/// The number of a second behind the key of an objective; none where it has none.
fn of_second(key: &str, second: &SecondSummary) -> Option<f64> {
    let share = |count: u64| (second.offered > 0).then(|| 100.0 * count as f64 / second.offered as f64);
    let latency = &second.latency;
    match key {
        "error_rate" => share(second.failed + second.unknown + second.wrong),
        "failed_rate" => share(second.failed),
        "unknown_rate" => share(second.unknown),
        "wrong_rate" => share(second.wrong),
        "throughput_rps" => Some(second.answered as f64),
        "goodput_rps" => Some(second.ok as f64),
        "latency_p50_ms" => latency.p50,
        "latency_p90_ms" => latency.p90,
        "latency_p95_ms" => latency.p95,
        "latency_p99_ms" => latency.p99,
        "latency_p999_ms" => latency.p999,
        "latency_avg_ms" => latency.avg,
        "latency_max_ms" => latency.max,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn watch(text: &str, held_s: u64) -> Watch {
        let when = Slo::try_from(text.to_owned()).unwrap();
        Watch::new(&Abort { when, held: Duration::from_secs(held_s) })
    }

    fn second(second: u32, ok: u64, failed: u64) -> SecondSummary {
        SecondSummary { second, offered: ok + failed, ok, failed, answered: ok, ..SecondSummary::default() }
    }

    /// The second at which it says to end.
    fn ends(mut watch: Watch, seconds: &[SecondSummary]) -> Option<u32> {
        seconds.iter().find(|second| watch.see(second).is_some()).map(|second| second.second)
    }

    #[test]
    fn an_objective_must_hold_in_so_many_seconds_in_a_row() {
        let down = |range: std::ops::Range<u32>| range.map(|s| second(s, 10, 90));
        let up = |s: u32| second(s, 90, 10);
        let nothing = |s: u32| second(s, 0, 0);
        let cases: [(Vec<SecondSummary>, Option<u32>); 6] = [
            (down(0..10).collect(), Some(2)),
            (down(0..2).chain([up(2)]).chain(down(3..5)).collect(), None),
            (down(0..2).chain([up(2)]).chain(down(3..9)).collect(), Some(5)),
            // Seconds that say nothing, seconds that are missing, and one that is told twice.
            (down(0..2).chain([nothing(2)]).chain(down(3..5)).collect(), Some(3)),
            (down(0..2).chain(down(5..7)).collect(), None),
            (down(0..2).chain(down(1..2)).collect(), None),
        ];
        for (place, (seconds, expected)) in cases.into_iter().enumerate() {
            assert_eq!(ends(watch("errors > 50%", 3), &seconds), expected, "{place}");
        }
        let mut watch = watch("errors > 50%", 2);
        assert_eq!(watch.see(&second(6, 0, 9)), None);
        assert_eq!(watch.see(&second(7, 0, 9)).as_deref(), Some("errors > 50% for 2 s, up to second 7"));
    }

    #[test]
    fn nothing_at_all_is_no_goodput_and_no_latency() {
        let idle: Vec<SecondSummary> = (0..9).map(|s| second(s, 0, 0)).collect();
        assert_eq!(ends(watch("goodput < 1/s", 4), &idle), Some(3));
        assert_eq!(ends(watch("p95 > 0ms", 4), &idle), None);
    }

    #[test]
    fn what_is_not_known_of_a_second_is_refused() {
        let of = |text: &str| supports(&Slo::try_from(text.to_owned()).unwrap());
        for text in ["errors > 50%", "wrong > 0%", "p99.9 > 1s", "mean > 1s", "goodput < 5/s", "throughput < 5/s"] {
            assert_eq!(of(text), Ok(()), "{text}");
        }
        for text in ["wait p95 > 1s", "recovery > 5s", "availability < 99%", "stable", "delay_growth > 10ms"] {
            let why = of(text).unwrap_err();
            assert!(why.starts_with(&format!("{text} is not known of each second; there are errors")), "{why}");
        }
    }
}

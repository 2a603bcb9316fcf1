//! When to end a trial early: an objective that has been missed for too long. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::units;
use crate::verdict::Slo;

mod watch;

pub use watch::{Watch, supports};

/// `errors > 50% for 30s`.
#[derive(Clone, Debug, PartialEq)]
pub struct Abort {
    /// What must hold for so long that the trial is ended.
    pub when: Slo,
    /// How long.
    pub held: Duration,
}

impl FromStr for Abort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("abort_when {text:?}: {why}; write for instance errors > 50% for 30s");
        let (when, held) = text.rsplit_once(" for ").ok_or_else(|| wrong("it does not say for how long"))?;
        let when = Slo::try_from(when.trim().to_owned()).map_err(|why| wrong(&why))?;
        supports(&when).map_err(|why| wrong(&why))?;
        let held = units::parse_duration(held).map_err(|why| wrong(&why))?;
        if held < Duration::from_secs(1) {
            return Err(wrong("what is looked at are seconds, so at least 1s is needed"));
        }
        Ok(Self { when, held })
    }
}

/// As it is read back.
impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", self.when, units::format_duration(self.held))
    }
}

#[cfg(test)]
mod words {
    use super::*;

    #[test]
    fn a_reason_to_end_early_is_read_and_written_back() {
        for (text, limit, held_s) in [
            ("errors > 50% for 30s", 50.0, 30),
            ("p95 > 2s for 1m30s", 2000.0, 90),
            ("goodput < 5/s  for  10", 5.0, 10),
        ] {
            let abort: Abort = text.parse().unwrap();
            assert_eq!((abort.when.limit, abort.held.as_secs()), (limit, held_s), "{text}");
            assert_eq!(abort.to_string().parse(), Ok(abort), "{text}");
        }
        for (text, expected) in [
            ("errors > 50%", "how long"),
            ("fires > 50% for 30s", "fires"),
            ("errors > 50% for ever", "ever"),
            ("errors > 50% for 0s", "at least 1s"),
            ("stable for 30s", "not known of each second"),
        ] {
            let error = text.parse::<Abort>().unwrap_err();
            assert!(error.contains(expected) && error.contains("errors > 50% for 30s"), "{text}: {error}");
        }
    }
}

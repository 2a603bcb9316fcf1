//! The text of a link fault: `KIND=VALUE,KEY=VALUE,…`, the same on the command line, in files and on the wire.
//!
//! The one rule: what is written is read back as the same fault, and what is refused says what would have been right.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{Direction, LinkFault, LinkKind};
use crate::units::{format_duration, parse_duration, parse_size};

/// A kind of link fault, as it is written.
pub struct Kind {
    /// The word it begins with.
    pub name: &'static str,
    /// The key that the value behind that word stands for.
    value: Option<&'static str>,
    /// The keys it has besides.
    keys: &'static [&'static str],
    /// What it looks like.
    pub example: &'static str,
    /// What it does.
    pub about: &'static str,
}

impl Kind {
    /// Whether it needs a proxy that understands HTTP.
    pub fn is_http(&self) -> bool {
        matches!(self.name, "error-rate" | "slow")
    }
}

/// All kinds.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "latency",
        value: Some("latency"),
        keys: &["jitter", "direction", "share"],
        example: "latency=50ms,jitter=5ms",
        about: "everything arrives later, in order, without loss of throughput",
    },
    Kind {
        name: "bandwidth",
        value: Some("rate"),
        keys: &["direction", "share"],
        example: "bandwidth=1MB",
        about: "no more than so many bytes a second pass, for each connection and direction",
    },
    Kind {
        name: "blackhole",
        value: None,
        keys: &["direction", "share"],
        example: "blackhole",
        about: "nothing passes, either way, and nothing is closed; what was held passes when it is lifted",
    },
    Kind {
        name: "reset",
        value: Some("after"),
        keys: &["share"],
        example: "reset=2s",
        about: "connections are reset, after so long",
    },
    Kind {
        name: "slow-close",
        value: Some("delay"),
        keys: &["direction", "share"],
        example: "slow-close=1s",
        about: "the end of a connection is passed on later",
    },
    Kind {
        name: "limit-data",
        value: Some("bytes"),
        keys: &["direction", "share"],
        example: "limit-data=10kB",
        about: "a connection is closed once so many bytes have passed",
    },
    Kind {
        name: "fail-first",
        value: Some("connections"),
        keys: &[],
        example: "fail-first=3",
        about: "the first connections are reset, those after them pass",
    },
    Kind {
        name: "error-rate",
        value: Some("share"),
        keys: &["status"],
        example: "error-rate=10%,status=503",
        about: "this share of the HTTP requests is answered with an error instead of being passed on",
    },
    Kind {
        name: "slow",
        value: Some("latency"),
        keys: &["jitter", "share"],
        example: "slow=100ms,jitter=10ms",
        about: "HTTP requests are passed on later",
    },
];

impl Kind {
    /// The keys it has in a file.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.value.into_iter().chain(self.keys.iter().copied())
    }
}

/// Bytes that a text holds exactly, whatever its unit.
const MOST_BYTES: u64 = 1 << 53;

fn kind_of(name: &str) -> Result<&'static Kind, String> {
    KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| {
        let examples: Vec<_> = KINDS.iter().map(|kind| kind.example).collect();
        format!("unknown link fault {name:?}; write one of {}", examples.join(" · "))
    })
}

impl LinkFault {
    /// A fault from its kind and its keys, as a file has them: `latency`, `jitter`, `rate`, `after`, `delay`, `bytes`,
    /// `connections`, `status`, `direction`, `share`, each where it makes sense.
    ///
    /// # Errors
    /// What is wrong, and what would have been right.
    pub fn from_keys<'a>(kind: &str, keys: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        let kind = kind_of(kind)?;
        let mut given = BTreeMap::new();
        for (key, value) in keys {
            if kind.value != Some(key) && !kind.keys.contains(&key) {
                return Err(unknown_key(kind, key));
            }
            if given.insert(key, value).is_some() {
                return Err(format!("{key} is given twice; write it once, as in {}", kind.example));
            }
        }
        let fault = Self {
            kind: link_kind(kind, &given)?,
            direction: optional(&given, "direction")?.unwrap_or_else(|| usual_direction(kind.name)),
            share: given.get("share").map(|text| parse_share(text)).transpose()?.unwrap_or(1.0),
        };
        fault.check()?;
        Ok(fault)
    }

    /// Its keys, as [`LinkFault::from_keys`] reads them back.
    pub fn to_keys(&self) -> Vec<(&'static str, String)> {
        let Ok(kind) = kind_of(self.name()) else { return Vec::new() };
        let text = self.to_string();
        let words = text.split(',').filter_map(|word| word.split_once('='));
        let key = |name: &str| kind.keys().find(|key| *key == name);
        words
            .filter_map(|(name, value)| {
                Some((if name == kind.name { kind.value } else { key(name) }?, value.to_owned()))
            })
            .collect()
    }

    /// Whether its numbers make sense.
    ///
    /// # Errors
    /// Which does not, and what would.
    pub fn check(&self) -> Result<(), String> {
        let kind = kind_of(self.name())?;
        if !(self.share > 0.0 && self.share <= 1.0) {
            return Err(format!("a share of {} is none; write one above 0 and at most 1, or 10%", self.share));
        }
        if self.share < 1.0 && kind.value != Some("share") && !kind.keys.contains(&"share") {
            return Err(unknown_key(kind, "share"));
        }
        if self.direction != Direction::Down && !kind.keys.contains(&"direction") {
            return Err(unknown_key(kind, "direction"));
        }
        let above_zero = |what: &str, wrong: bool| match wrong {
            true => Err(format!("{what} of {} must be above 0; write for instance {}", kind.name, kind.example)),
            false => Ok(()),
        };
        match &self.kind {
            LinkKind::Latency { latency, jitter } | LinkKind::Slow { latency, jitter } => {
                above_zero("the latency", latency.is_zero())?;
                if jitter > latency {
                    let (jitter, latency) = (format_duration(*jitter), format_duration(*latency));
                    return Err(format!(
                        "a jitter of {jitter} is more than the latency of {latency}, and nothing arrives before it was \
                         sent; write jitter={latency} or less"
                    ));
                }
                Ok(())
            }
            LinkKind::SlowClose { delay } => above_zero("the delay", delay.is_zero()),
            LinkKind::Bandwidth { bytes_per_s: bytes } | LinkKind::LimitData { bytes } => {
                above_zero("the bytes", *bytes == 0)?;
                match *bytes > MOST_BYTES {
                    true => Err(format!("{bytes} bytes are more than {MOST_BYTES}, the most that {} takes", kind.name)),
                    false => Ok(()),
                }
            }
            LinkKind::FailFirst { connections } => above_zero("the connections", *connections == 0),
            // Any other says that its request was not done, or that nobody knows; both are true of it.
            LinkKind::ErrorRate { status: 404 } => Err(
                "404 says that a thing is not there, which the check of writes believes; write another status, such as 503"
                    .to_owned(),
            ),
            LinkKind::ErrorRate { status } => match (400..=599).contains(status) {
                true => Ok(()),
                false => Err(format!("{status} is not the status of an error; write one from 400 to 599, such as 503")),
            },
            LinkKind::Blackhole | LinkKind::Reset { .. } => Ok(()),
        }
    }

    /// The word it begins with.
    pub fn name(&self) -> &'static str {
        match self.kind {
            LinkKind::Latency { .. } => "latency",
            LinkKind::Bandwidth { .. } => "bandwidth",
            LinkKind::Blackhole => "blackhole",
            LinkKind::Reset { .. } => "reset",
            LinkKind::SlowClose { .. } => "slow-close",
            LinkKind::LimitData { .. } => "limit-data",
            LinkKind::FailFirst { .. } => "fail-first",
            LinkKind::ErrorRate { .. } => "error-rate",
            LinkKind::Slow { .. } => "slow",
        }
    }
}

fn link_kind(kind: &Kind, given: &BTreeMap<&str, &str>) -> Result<LinkKind, String> {
    let needed = |key: &str| given.get(key).copied().ok_or_else(|| needs(kind, key));
    let duration = |key: &str| needed(key).and_then(parse_duration);
    let none_or = |key: &str| given.get(key).map_or(Ok(Duration::ZERO), |text| parse_duration(text));
    Ok(match kind.name {
        "latency" => LinkKind::Latency { latency: duration("latency")?, jitter: none_or("jitter")? },
        "slow" => LinkKind::Slow { latency: duration("latency")?, jitter: none_or("jitter")? },
        "bandwidth" => {
            let rate = needed("rate")?;
            LinkKind::Bandwidth { bytes_per_s: parse_size(rate.trim_end_matches("/s"))? }
        }
        "reset" => LinkKind::Reset { after: none_or("after")? },
        "slow-close" => LinkKind::SlowClose { delay: duration("delay")? },
        "limit-data" => LinkKind::LimitData { bytes: parse_size(needed("bytes")?)? },
        "fail-first" => {
            let text = needed("connections")?;
            let wrong = |_| format!("{text:?} is not a number of connections; write for instance {}", kind.example);
            LinkKind::FailFirst { connections: text.parse().map_err(wrong)? }
        }
        "error-rate" => {
            needed("share")?;
            let status = given.get("status").map_or(Ok(500), |text| {
                text.parse().map_err(|_| format!("{text:?} is not a status of HTTP; write one from 400 to 599"))
            });
            LinkKind::ErrorRate { status: status? }
        }
        _ => LinkKind::Blackhole,
    })
}

fn optional<T: FromStr<Err = String>>(given: &BTreeMap<&str, &str>, key: &str) -> Result<Option<T>, String> {
    given.get(key).map(|text| text.parse()).transpose()
}

fn parse_share(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is not a share; write one above 0 and at most 1, such as 0.1 or 10%");
    let share = match text.trim().strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map_err(|_| wrong())? / 100.0,
        None => text.trim().parse().map_err(|_| wrong())?,
    };
    if share > 0.0 && share <= 1.0 { Ok(share) } else { Err(wrong()) }
}

fn needs(kind: &Kind, key: &str) -> String {
    format!("{} needs its {key}; write for instance {}", kind.name, kind.example)
}

fn unknown_key(kind: &Kind, key: &str) -> String {
    let name = kind.name;
    match (name, key) {
        ("reset", "direction") => format!("{name} ends both directions; leave direction out"),
        ("error-rate" | "slow", "direction") => format!("{name} works on requests; leave direction out"),
        ("fail-first", "direction" | "share") => format!("{name} counts connections; leave {key} out"),
        _ => {
            let keys: Vec<_> = kind.value.iter().chain(kind.keys).copied().collect();
            format!("{name} has no {key}; it has {}; write for instance {}", keys.join(", "), kind.example)
        }
    }
}

impl FromStr for LinkFault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',').map(|part| part.split_once('='));
        let mut words = text.split(',').map(str::trim);
        let (head, value) = match parts.next().flatten() {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (words.next().unwrap_or_default(), None),
        };
        let kind = kind_of(head)?;
        let mut keys = Vec::new();
        match (kind.value, value) {
            (Some(key), Some(value)) => keys.push((key, value)),
            (None, Some(_)) => return Err(format!("{head} takes no value; write for instance {}", kind.example)),
            (_, None) => {}
        }
        for (part, word) in parts.zip(text.split(',').skip(1)) {
            let Some((key, value)) = part else {
                return Err(format!("{:?} is no KEY=VALUE; write for instance {}", word.trim(), kind.example));
            };
            // In the text the share of error-rate stands behind its name.
            if kind.value == Some(key.trim()) && kind.name != key.trim() {
                return Err(format!("{} stands behind {head}; write for instance {}", key.trim(), kind.example));
            }
            keys.push((key.trim(), value.trim()));
        }
        Self::from_keys(head, keys)
    }
}

impl fmt::Display for LinkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match &self.kind {
            LinkKind::Latency { latency, jitter } | LinkKind::Slow { latency, jitter } => {
                write!(f, "={}", format_duration(*latency))?;
                if !jitter.is_zero() {
                    write!(f, ",jitter={}", format_duration(*jitter))?;
                }
            }
            LinkKind::Bandwidth { bytes_per_s } => write!(f, "={}", Bytes(*bytes_per_s))?,
            LinkKind::Blackhole => {}
            LinkKind::Reset { after } if after.is_zero() => {}
            LinkKind::Reset { after: time } | LinkKind::SlowClose { delay: time } => {
                write!(f, "={}", format_duration(*time))?;
            }
            LinkKind::LimitData { bytes } => write!(f, "={}", Bytes(*bytes))?,
            LinkKind::FailFirst { connections } => write!(f, "={connections}")?,
            LinkKind::ErrorRate { status } => return write!(f, "={},status={status}", Share(self.share)),
        }
        if self.direction != usual_direction(self.name()) {
            write!(f, ",direction={}", self.direction)?;
        }
        if self.share < 1.0 {
            write!(f, ",share={}", Share(self.share))?;
        }
        Ok(())
    }
}

impl TryFrom<String> for LinkFault {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<LinkFault> for String {
    fn from(fault: LinkFault) -> Self {
        fault.to_string()
    }
}

/// Where a fault acts unless it is said: nothing passes a blackhole, everything else is done to what comes back.
fn usual_direction(kind: &str) -> Direction {
    if kind == "blackhole" { Direction::Both } else { Direction::Down }
}

impl FromStr for Direction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "down" => Ok(Self::Down),
            "up" => Ok(Self::Up),
            "both" => Ok(Self::Both),
            _ => Err(format!("{text:?} is no direction; write down (to the client), up (to the server) or both")),
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "down",
            Self::Up => "up",
            Self::Both => "both",
        })
    }
}

/// In the largest unit that holds it exactly.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
        match units.iter().find(|(size, _)| self.0 > 0 && self.0.is_multiple_of(*size)) {
            Some((size, unit)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}", self.0),
        }
    }
}

/// In percent where that is exact.
struct Share(f64);

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = (self.0 * 1e8).round() / 1e6;
        if percent / 100.0 == self.0 { write!(f, "{percent}%") } else { write!(f, "{}", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_fault_is_read_and_written_back() {
        for (text, written) in [
            ("latency=50ms", "latency=50ms"),
            ("latency=50ms,jitter=5ms", "latency=50ms,jitter=5ms"),
            (" latency = 0.05 , jitter = 5ms ", "latency=50ms,jitter=5ms"),
            ("latency=1500us,direction=both,share=0.1", "latency=1500us,direction=both,share=10%"),
            ("latency=1s,direction=down,share=100%", "latency=1s"),
            ("latency=1s,share=7%", "latency=1s,share=7%"),
            ("bandwidth=1MB/s", "bandwidth=1MB"),
            ("bandwidth=1500", "bandwidth=1500"),
            ("bandwidth=64KiB,direction=up", "bandwidth=65536,direction=up"),
            ("blackhole", "blackhole"),
            ("blackhole,direction=both", "blackhole"),
            ("blackhole,direction=down", "blackhole,direction=down"),
            ("reset", "reset"),
            ("reset=0s", "reset"),
            ("reset=2s,share=0.5", "reset=2s,share=50%"),
            ("slow-close=1s", "slow-close=1s"),
            ("limit-data=10kB", "limit-data=10kB"),
            ("fail-first=3", "fail-first=3"),
            ("error-rate=10%", "error-rate=10%,status=500"),
            ("error-rate=0.333,status=503", "error-rate=0.333,status=503"),
            ("error-rate=1", "error-rate=100%,status=500"),
            ("slow=100ms,jitter=10ms,share=10%", "slow=100ms,jitter=10ms,share=10%"),
        ] {
            let fault: LinkFault = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(fault.to_string(), written, "{text}");
            assert_eq!(written.parse(), Ok(fault), "{written}");
        }
    }

    #[test]
    fn what_is_refused_is_told_what_would_be_right() {
        for (text, expected) in [
            ("", "write one of latency=50ms"),
            ("lag=50ms", "unknown link fault \"lag\""),
            ("latency", "latency needs its latency; write for instance latency=50ms"),
            ("latency=", "not a duration"),
            ("latency=fast", "write 250ms"),
            ("latency=0s", "above 0"),
            ("latency=5ms,jitter=6ms", "write jitter=5ms or less"),
            ("latency=5ms,jitter", "\"jitter\" is no KEY=VALUE"),
            ("latency=5ms,", "\"\" is no KEY=VALUE"),
            ("latency=5ms,jitter=1ms,jitter=2ms", "given twice"),
            ("latency=5ms,latency=6ms", "given twice"),
            ("latency=5ms,rate=1MB", "latency has no rate; it has latency, jitter, direction, share"),
            ("latency=5ms,direction=left", "write down (to the client)"),
            ("latency=5ms,share=0", "above 0 and at most 1"),
            ("latency=5ms,share=101%", "at most 1"),
            ("latency=5ms,share=NaN", "not a share"),
            ("latency=5ms,share=half", "such as 0.1 or 10%"),
            ("bandwidth", "needs its rate"),
            ("bandwidth=0", "above 0"),
            ("bandwidth=1Mbit", "not a size"),
            ("bandwidth=99999999GB", "more than 9007199254740992"),
            ("blackhole=1s", "blackhole takes no value"),
            ("reset=1s,direction=up", "reset ends both directions"),
            ("slow-close", "needs its delay"),
            ("slow-close=0s", "above 0"),
            ("limit-data=0B", "above 0"),
            ("fail-first=0", "above 0"),
            ("fail-first=many", "number of connections"),
            ("fail-first=3,share=0.5", "counts connections; leave share out"),
            ("error-rate", "needs its share; write for instance error-rate=10%"),
            ("error-rate=0", "above 0"),
            ("error-rate=10%,share=0.1", "share stands behind error-rate"),
            ("error-rate=10%,status=200", "from 400 to 599"),
            ("error-rate=10%,status=bad", "from 400 to 599"),
            ("error-rate=10%,status=404", "404 says that a thing is not there, which the check of writes believes"),
            ("error-rate=10%,direction=up", "works on requests"),
            ("slow=10ms,direction=both", "works on requests"),
        ] {
            let error = text.parse::<LinkFault>().expect_err(text);
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn keys_of_a_file_make_the_fault_that_the_text_makes() {
        for (kind, keys, text) in [
            (
                "latency",
                &[("latency", "50ms"), ("jitter", "5ms"), ("share", "0.1")][..],
                "latency=50ms,jitter=5ms,share=10%",
            ),
            ("bandwidth", &[("rate", "1MB/s")], "bandwidth=1MB"),
            ("blackhole", &[("direction", "down")], "blackhole,direction=down"),
            ("reset", &[], "reset"),
            ("reset", &[("after", "2s")], "reset=2s"),
            ("slow-close", &[("delay", "1s")], "slow-close=1s"),
            ("limit-data", &[("bytes", "10000")], "limit-data=10kB"),
            ("fail-first", &[("connections", "3")], "fail-first=3"),
            ("error-rate", &[("share", "0.1"), ("status", "503")], "error-rate=10%,status=503"),
            ("slow", &[("latency", "100ms")], "slow=100ms"),
        ] {
            assert_eq!(LinkFault::from_keys(kind, keys.iter().copied()), text.parse(), "{text}");
        }
        let error = LinkFault::from_keys("reset", [("delay", "1s")]).unwrap_err();
        assert!(error.contains("reset has no delay; it has after, share"), "{error}");
    }

    #[test]
    fn every_kind_reads_its_own_example() {
        for kind in KINDS {
            let fault: LinkFault = kind.example.parse().unwrap();
            assert_eq!(fault.name(), kind.name);
            assert!(kind.example.starts_with(fault.name()), "{}", kind.example);
        }
    }

    prop_compose! {
        fn any_fault()(
            kind in 0..9_usize, long_ns in 1..u64::from(u32::MAX) * 100, jitter in 0.0..=1.0_f64,
            bytes in 1..=MOST_BYTES, count in 1..u32::MAX,
            status in (400..=599_u16).prop_filter("404 is refused", |status| *status != 404),
            direction in prop_oneof![Just(Direction::Down), Just(Direction::Up), Just(Direction::Both)],
            share in prop_oneof![Just(1.0), 1e-9..=1.0_f64, (1..=100_u32).prop_map(|percent| f64::from(percent) / 100.0)],
        ) -> LinkFault {
            let time = Duration::from_nanos(long_ns);
            let jitter = time.mul_f64(jitter).min(time);
            let kind = match kind {
                0 => LinkKind::Latency { latency: time, jitter },
                1 => LinkKind::Bandwidth { bytes_per_s: bytes },
                2 => LinkKind::Blackhole,
                3 => LinkKind::Reset { after: time },
                4 => LinkKind::SlowClose { delay: time },
                5 => LinkKind::LimitData { bytes },
                6 => LinkKind::FailFirst { connections: count },
                7 => LinkKind::ErrorRate { status },
                _ => LinkKind::Slow { latency: time, jitter },
            };
            let has_direction = !matches!(
                kind,
                LinkKind::Reset { .. } | LinkKind::FailFirst { .. } | LinkKind::ErrorRate { .. } | LinkKind::Slow { .. }
            );
            let share = if matches!(kind, LinkKind::FailFirst { .. }) { 1.0 } else { share };
            LinkFault { kind, direction: if has_direction { direction } else { Direction::Down }, share }
        }
    }

    proptest! {
        #[test]
        fn any_fault_is_read_back_exactly(fault in any_fault()) {
            prop_assert_eq!(fault.check(), Ok(()));
            prop_assert_eq!(fault.to_string().parse(), Ok(fault));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[a-z0-9=,.%-]{0,40}") {
            let _ = text.parse::<LinkFault>();
        }
    }
}

//! Durations as `1m30s`, sizes as `10MiB`: one grammar for files and flags.

use std::time::Duration;

/// Reads `1h2m3s`, `250ms`, `1.5s`, `800us`; a bare number is seconds.
///
/// # Errors
/// What is wrong and what is allowed.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write 250ms, 10s, 1m30s or 2h");
    let trimmed = text.trim();
    if let Ok(seconds) = trimmed.parse::<f64>() {
        return seconds_to_duration(seconds).ok_or_else(wrong);
    }
    let mut rest = trimmed;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += number * unit_seconds(&rest[..unit_end]).ok_or_else(wrong)?;
        rest = &rest[unit_end..];
    }
    if trimmed.is_empty() { Err(wrong()) } else { seconds_to_duration(total).ok_or_else(wrong) }
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    })
}

fn seconds_to_duration(seconds: f64) -> Option<Duration> {
    // Whole nanoseconds, so that 0.1 s is exactly 100 ms.
    (seconds.is_finite() && (0.0..1e10).contains(&seconds))
        .then(|| Duration::from_nanos((seconds * 1e9).round() as u64))
}

/// Writes a duration so that [`parse_duration`] reads it back exactly.
pub fn format_duration(duration: Duration) -> String {
    let ns = duration.as_nanos();
    let whole = |unit: u128| ns.is_multiple_of(unit).then_some(ns / unit);
    match ns {
        0 => "0s".to_owned(),
        _ if ns >= 60_000_000_000 && whole(60_000_000_000).is_some() => format!("{}m", ns / 60_000_000_000),
        _ if whole(1_000_000_000).is_some() => format!("{}s", ns / 1_000_000_000),
        _ if whole(1_000_000).is_some() => format!("{}ms", ns / 1_000_000),
        _ if whole(1_000).is_some() => format!("{}us", ns / 1_000),
        _ => format!("{ns}ns"),
    }
}

/// Reads `100kB`, `512MiB`, `10M`; a bare number is bytes.
///
/// # Errors
/// What is wrong and what is allowed.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size; write 4096, 100kB or 512MiB");
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let number: f64 = trimmed[..digits].parse().map_err(|_| wrong())?;
    let factor = match trimmed[digits..].trim() {
        "" | "B" => 1.0,
        "k" | "kB" | "K" | "KB" => 1e3,
        "M" | "MB" => 1e6,
        "G" | "GB" => 1e9,
        "KiB" | "Ki" => 1024.0,
        "MiB" | "Mi" => 1024.0 * 1024.0,
        "GiB" | "Gi" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    Ok((number * factor).round() as u64)
}

/// Reads a CPU set such as `0-1,3` into its numbers.
///
/// # Errors
/// What is wrong and what is allowed.
pub fn parse_cpus(text: &str) -> Result<Vec<usize>, String> {
    let wrong = || format!("{text:?} is not a CPU set; write 0, 0-1 or 0,2-3");
    let mut cpus = std::collections::BTreeSet::new();
    for part in text.split(',') {
        let (from, to) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        let (from, to): (usize, usize) = (from.parse().map_err(|_| wrong())?, to.parse().map_err(|_| wrong())?);
        if from > to || to > 4096 {
            return Err(wrong());
        }
        cpus.extend(from..=to);
    }
    Ok(cpus.into_iter().collect())
}

/// Serde for durations as text, in files and in JSON.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// As [`super::format_duration`].
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_duration(*duration))
    }

    /// From text, or a number of seconds.
    ///
    /// # Errors
    /// What is wrong and what is allowed.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Text(String),
            Seconds(f64),
        }
        let text = match Raw::deserialize(deserializer)? {
            Raw::Text(text) => text,
            Raw::Seconds(seconds) => seconds.to_string(),
        };
        super::parse_duration(&text).map_err(serde::de::Error::custom)
    }
}

/// Serde for optional durations as text.
pub mod optional_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    struct Wrapped(#[serde(with = "super::duration")] Duration);

    /// As [`super::format_duration`].
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::duration::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// From text, a number of seconds, or nothing.
    ///
    /// # Errors
    /// What is wrong and what is allowed.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_back() {
        for (text, ns) in [
            ("250ms", 250_000_000),
            ("10s", 10_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5s", 1_500_000_000),
            ("0.1", 100_000_000),
            ("800us", 800_000),
            ("2h", 7_200_000_000_000),
            ("0s", 0),
        ] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration.as_nanos(), ns, "{text}");
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration), "{text}");
        }
        for wrong in ["", "ten", "10x", "-1s", "1e99", "s", "1m30"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_and_cpu_sets_are_read() {
        assert_eq!(parse_size("512MiB"), Ok(512 << 20));
        assert_eq!(parse_size("100kB"), Ok(100_000));
        assert!(parse_size("lots").is_err());
        assert_eq!(parse_cpus("0-1,3"), Ok(vec![0, 1, 3]));
        assert!(parse_cpus("3-1").is_err());
    }
}

//! Times as text: accepted in the forms clients send, kept and answered in one.
//!
//! The one rule: what is kept is RFC 3339 in UTC with six decimals, 27 characters, so that text order is time order.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

/// A wall-clock reading in nanoseconds as text.
pub fn from_wall_ns(wall_ns: u64) -> String {
    // A u64 of nanoseconds ends in the year 2554, within what a timestamp holds.
    format(Timestamp::from_nanosecond(i128::from(wall_ns)).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// A client's date-time as kept; none when it is not one. Without an offset it is taken as UTC, which is what Python
/// clients mean by a naive one.
pub fn parse(text: &str) -> Option<String> {
    let instant = if has_offset(text) {
        text.parse::<Timestamp>().ok()?
    } else {
        Offset::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok()?
    };
    let year = Offset::UTC.to_datetime(instant).year();
    (1..=9999).contains(&year).then(|| format(instant))
}

/// After `YYYY-MM-DD` only an offset or a zone brings one of these.
fn has_offset(text: &str) -> bool {
    text.bytes().skip(10).any(|byte| matches!(byte, b'Z' | b'z' | b'+' | b'-' | b'['))
}

fn format(instant: Timestamp) -> String {
    Offset::UTC.to_datetime(instant).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_clients_send_becomes_one_form() {
        for (text, kept) in [
            ("2026-01-02T03:04:05.123456", "2026-01-02T03:04:05.123456Z"),
            ("2026-01-02 03:04:05", "2026-01-02T03:04:05.000000Z"),
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000Z"),
            ("2026-01-02T03:04:05.5+02:00", "2026-01-02T01:04:05.500000Z"),
            ("2026-01-02 03:04:05-05:30", "2026-01-02T08:34:05.000000Z"),
            ("2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:05.123456Z"),
            ("2026-01-02T03:04", "2026-01-02T03:04:00.000000Z"),
            ("2026-01-02", "2026-01-02T00:00:00.000000Z"),
        ] {
            assert_eq!(parse(text).as_deref(), Some(kept), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_time_is_none() {
        for text in [
            "",
            "tomorrow",
            "2026-13-01T00:00:00",
            "2026-02-30",
            "-000001-01-01T00:00:00",
            "9999-12-31T23:59:59-10:00",
            "0001-01-01T00:00:00+10:00",
            "2026-01-02T03:04:05+99:00",
            "12:00",
            "\u{0}",
            "2026-01-02T03:04:05[Europe/Paris]",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_wall_clock_reading_has_the_same_form() {
        assert_eq!(from_wall_ns(1_500_000_000), "1970-01-01T00:00:01.500000Z");
    }
}

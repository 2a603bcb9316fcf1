//! Numbers as people read them: three significant digits, a unit, an interval.
//!
//! The one rule: what nobody measured is written as `–`, never as 0.

use crate::measure::Estimate;

/// Written where there is no value.
pub const NONE: &str = "–";

/// Three significant digits, without an exponent: `0.0123`, `1.23`, `12.3`, `123`, `12 300`.
pub fn digits(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { "0".to_owned() } else { NONE.to_owned() };
    }
    let magnitude = value.abs().log10().floor() as i32;
    let decimals = (2 - magnitude).clamp(0, 9);
    let step = 10_f64.powi((magnitude - 2).max(0));
    let rounded = if magnitude > 2 { (value / step).round() * step } else { value };
    let text = format!("{rounded:.*}", decimals as usize);
    group(if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text })
}

/// Thin spaces between groups of three digits, from ten thousand on.
fn group(text: &str) -> String {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |rest| ("−", rest));
    let mut grouped = String::from(sign);
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && whole.len() > 4 && (whole.len() - place).is_multiple_of(3) {
            grouped.push('\u{2009}');
        }
        grouped.push(digit);
    }
    if !fraction.is_empty() {
        grouped.push('.');
        grouped.push_str(fraction);
    }
    grouped
}

/// A count, exact.
pub fn count(value: u64) -> String {
    group(&value.to_string())
}

/// A value with its unit; `%` stands close.
pub fn with_unit(value: f64, unit: &str) -> String {
    match unit {
        "" => digits(value),
        "%" => format!("{}\u{2009}%", percent(value)),
        _ => format!("{} {unit}", digits(value)),
    }
}

/// Short of a hundred, what is missing has two digits: `99.95`, never rounded up to all.
fn percent(value: f64) -> String {
    let missing = 100.0 - value;
    if !(value > 99.0 && missing > 0.0) {
        return digits(value);
    }
    let decimals = (1 - missing.log10().floor() as i32).clamp(1, 6);
    let text = format!("{value:.*}", decimals as usize);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A duration in seconds: hundredths below ten seconds, else tenths.
pub fn seconds(value: f64) -> String {
    let decimals = if value.abs() < 10.0 { 2 } else { 1 };
    let text = format!("{value:.decimals$}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{} s", group(if text == "-0" { "0" } else { text }))
}

/// A duration given in milliseconds, in the unit that suits it.
pub fn milliseconds(value: f64) -> String {
    let (value, unit) = in_time_unit(value);
    with_unit(value, unit)
}

fn in_time_unit(ms: f64) -> (f64, &'static str) {
    match ms.abs() {
        ms_abs if ms_abs >= 10_000.0 => (ms / 1000.0, "s"),
        ms_abs if ms_abs < 0.1 && ms_abs > 0.0 => (ms * 1000.0, "µs"),
        _ => (ms, "ms"),
    }
}

/// An interval: `12.3 ms (11.9–12.8)`; the interval is left out where there is none.
pub fn interval(mean: f64, low: Option<f64>, high: Option<f64>, unit: &str) -> String {
    let (scale, unit) = if unit == "ms" {
        let (scaled, unit) = in_time_unit(mean);
        (if mean == 0.0 { 1.0 } else { scaled / mean }, unit)
    } else {
        (1.0, unit)
    };
    let value = with_unit(mean * scale, unit);
    match (low, high) {
        (Some(low), Some(high)) => format!("{value} ({}–{})", digits(low * scale), digits(high * scale)),
        _ => value,
    }
}

/// An estimate with its interval; `–` where there is none.
pub fn estimate(estimate: Option<&Estimate>, unit: &str) -> String {
    match estimate.and_then(|estimate| estimate.mean.map(|mean| (estimate, mean))) {
        Some((estimate, mean)) => interval(mean, estimate.low, estimate.high, unit),
        None => NONE.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(shown: &str, expect: Expect) {
        expect.assert_eq(shown);
    }

    #[test]
    fn a_number_has_three_digits_and_no_exponent() {
        check(
            &[0.0, 0.01234, 0.5, 1.0, 12.345, 123.4, 1234.5, 12345.6, -3.1234, f64::NAN].map(digits).join(" | "),
            expect!["0 | 0.0123 | 0.5 | 1 | 12.3 | 123 | 1230 | 12 300 | −3.12 | –"],
        );
    }

    #[test]
    fn a_duration_takes_the_unit_that_suits_it() {
        check(
            &[0.0123, 0.25, 12.0, 25_000.0].map(milliseconds).join(" | "),
            expect!["12.3 µs | 0.25 ms | 12 ms | 25 s"],
        );
    }

    #[test]
    fn what_is_short_of_a_hundred_percent_is_not_rounded_up() {
        check(
            &[88.84, 99.0, 99.95, 99.9934, 99.99999, 100.0].map(|value| with_unit(value, "%")).join(" | "),
            expect!["88.8 % | 99 % | 99.95 % | 99.9934 % | 99.99999 % | 100 %"],
        );
        check(
            &[0.0, 0.104, 6.13, 10.44, 30.0, 12_345.6].map(seconds).join(" | "),
            expect!["0 s | 0.1 s | 6.13 s | 10.4 s | 30 s | 12 345.6 s"],
        );
    }

    #[test]
    fn an_interval_stands_behind_its_mean() {
        check(&interval(12.34, Some(11.9), Some(12.8), "ms"), expect!["12.3 ms (11.9–12.8)"]);
        check(&interval(0.0, None, None, "%"), expect!["0 %"]);
        check(&estimate(None, "ms"), expect!["–"]);
    }
}

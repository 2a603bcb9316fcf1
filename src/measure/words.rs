//! The small words of answers: names of curves as subjects, levels as lists, what a guard means.
//!
//! One rule: a stranger reads them; nothing here is a key or an abbreviation that the report does not explain.

use crate::measure::stream::span;

/// A curve as the subject of a sentence.
pub struct Subject {
    /// With its article where it has one.
    pub name: String,
    plural: bool,
}

impl Subject {
    /// Names the architectures as one speaks of them, and everything else by its label.
    pub fn of(label: &str) -> Self {
        match label {
            "all" => Self { name: "the system".to_owned(), plural: false },
            _ if label.starts_with("monolith") => Self { name: format!("the {label}"), plural: false },
            _ => Self { name: label.to_owned(), plural: label.starts_with("microservices") },
        }
    }

    /// The verb that goes with it: `answers` or `answer`.
    pub fn verb(&self, singular: &'static str, plural: &'static str) -> &'static str {
        if self.plural { plural } else { singular }
    }

    /// `the monolith answers faster`, `microservices do more`.
    pub fn is_better(&self, metric: &str) -> String {
        match metric.ends_with("_ms") {
            true => format!("{} {} faster", self.name, self.verb("answers", "answer")),
            false => format!("{} {} more", self.name, self.verb("does", "do")),
        }
    }
}

/// `16, 64 and 128 users`, `100 and 200 operations/s`, `1 worker`, `batch 8 and 64`.
pub fn levels(levels: &[f64], x: &str) -> String {
    let each: Vec<String> = levels.iter().map(f64::to_string).collect();
    let list = list(&each);
    match x {
        "" => list,
        "rate" => format!("{list} operations/s"),
        _ if !x.ends_with('s') => format!("{x} {list}"),
        _ if levels == [1.0] => format!("1 {}", x.trim_end_matches('s')),
        _ => format!("{list} {x}"),
    }
}

/// One level of a factor that only streams have: `4 cores`, `interval 2 s`, `cost 15 ms`; none for other factors.
pub fn of_stream(factor: &str, level: f64) -> Option<String> {
    let counted = |noun: &str| if level == 1.0 { format!("1 {noun}") } else { format!("{level} {noun}s") };
    match factor {
        "cores" => Some(counted("core")),
        "partitions" => Some(counted("partition")),
        "batch_interval_ms" => Some(format!("interval {}", span(level))),
        "cost_ms" => Some(format!("cost {}", span(level))),
        _ => None,
    }
}

/// Levels of a factor of a stream in a sentence: `100 and 120 lines/s`, `2 and 4 cores`, `an interval of 2 s`.
pub fn stream_levels(levels: &[f64], factor: &str) -> String {
    let list = list(&levels.iter().map(|level| stream_level(*level, factor)).collect::<Vec<_>>());
    let one = levels.len() == 1;
    match factor {
        "rate" => format!("{list} lines/s"),
        "batch_interval_ms" => format!("{} {list}", if one { "an interval of" } else { "intervals of" }),
        "cost_ms" => format!("{} {list}", if one { "a cost of" } else { "costs of" }),
        "cores" | "partitions" if levels == [1.0] => format!("1 {}", factor.trim_end_matches('s')),
        "cores" | "partitions" => format!("{list} {factor}"),
        _ => self::levels(levels, factor),
    }
}

/// The same of levels without a gap between them, of which the ends are enough: `every level from 60 to 300 lines/s`.
pub fn stream_range(levels: &[f64], factor: &str) -> String {
    let ([first, _, _, .., last], false) = (levels, factor.ends_with("_ms")) else {
        return stream_levels(levels, factor);
    };
    format!("every level from {} to {}", stream_level(*first, factor), stream_levels(&[*last], factor))
}

/// One level, where the factor was named before: `120`, `2 s`.
pub fn stream_level(level: f64, factor: &str) -> String {
    if factor.ends_with("_ms") { span(level) } else { level.to_string() }
}

/// `a`, `a and b`, `a, b and c`.
pub fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [several @ .., last] => format!("{} and {last}", several.join(", ")),
    }
}

/// The metric as one speaks of it.
pub fn name(metric: &str) -> &str {
    match metric {
        "goodput_rps" => "goodput",
        "throughput_rps" => "throughput",
        "latency_avg_ms" => "mean latency",
        _ => metric.trim_start_matches("latency_").trim_end_matches("_ms"),
    }
}

/// What a guard says about the numbers it touches.
fn meaning(guard: &str) -> &str {
    match guard {
        "client-bound" => "the users' think time sets it",
        "generator-limited" => "the load generator was at its limit",
        "not-sent" => "requests that were due were never sent",
        "saturated" => "more was offered than could be sent",
        "refusals-hide-latency" => "too many operations were refused",
        "not-steady" => "it was not steady",
        "too-few-ops" => "too few operations stand behind it",
        "source-blocked" => "the source could not send all it should",
        "receiver-held" => "the receiver did not take all that was due",
        "records-not-followed" => "not all records were followed",
        "backlog" => "the stream fell behind",
        "baseline-unstable" => "what was usual before the fault is not known",
        "fault-skipped" => "a fault could not be injected",
        "fault-unknown" => "what a fault did is not known",
        "batches-failed" => "batches failed",
        _ => "it is doubtful",
    }
}

/// `at 16, 64 and 128 users the users' think time sets it (client-bound); at 4 users …`.
pub fn doubts(left_out: &[(f64, String)], x: &str) -> String {
    let mut by_guard: Vec<(&str, Vec<f64>)> = Vec::new();
    for (level, guard) in left_out {
        match by_guard.iter_mut().find(|(known, _)| known == guard) {
            Some((_, levels)) if levels.contains(level) => {}
            Some((_, levels)) => levels.push(*level),
            None => by_guard.push((guard, vec![*level])),
        }
    }
    let part = |(guard, at): &(&str, Vec<f64>)| match x {
        "" => format!("{} ({guard})", meaning(guard)),
        _ => format!("at {} {} ({guard})", levels(at, x), meaning(guard)),
    };
    by_guard.iter().map(part).collect::<Vec<_>>().join("; ")
}

/// With a capital letter in front.
pub fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_listed_as_one_says_them() {
        assert_eq!(levels(&[16.0, 64.0, 128.0], "users"), "16, 64 and 128 users");
        assert_eq!(levels(&[1.0], "workers"), "1 worker");
        assert_eq!(levels(&[100.0, 200.0], "rate"), "100 and 200 operations/s");
        assert_eq!(levels(&[8.0, 64.0], "batch"), "batch 8 and 64");
    }

    #[test]
    fn levels_of_streams_are_listed_with_their_units() {
        assert_eq!(stream_levels(&[100.0, 120.0], "rate"), "100 and 120 lines/s");
        assert_eq!(stream_levels(&[500.0], "batch_interval_ms"), "an interval of 500 ms");
        assert_eq!(stream_levels(&[500.0, 2_000.0], "batch_interval_ms"), "intervals of 500 ms and 2 s");
        assert_eq!(stream_levels(&[5.0, 15.0], "cost_ms"), "costs of 5 ms and 15 ms");
        assert_eq!((stream_levels(&[1.0], "cores"), stream_level(4.0, "cores")), ("1 core".to_owned(), "4".to_owned()));
        assert_eq!(stream_range(&[60.0, 120.0, 180.0, 240.0], "rate"), "every level from 60 to 240 lines/s");
        assert_eq!((of_stream("partitions", 3.0).as_deref(), of_stream("users", 3.0)), (Some("3 partitions"), None));
    }

    #[test]
    fn doubts_of_one_kind_are_told_once() {
        let left_out = [(16.0, "client-bound".to_owned()), (64.0, "client-bound".to_owned()), (4.0, "odd".to_owned())];
        assert_eq!(
            doubts(&left_out, "users"),
            "at 16 and 64 users the users' think time sets it (client-bound); at 4 users it is doubtful (odd)"
        );
    }

    #[test]
    fn a_curve_agrees_with_its_verb() {
        assert_eq!(Subject::of("monolith × 1").is_better("latency_p95_ms"), "the monolith × 1 answers faster");
        assert_eq!(Subject::of("microservices").is_better("goodput_rps"), "microservices do more");
    }
}

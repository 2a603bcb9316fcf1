//! What happens, in one sentence that rests on figures.
//!
//! The one rule: the sentence says what a reader would find in the charts below it, and in which unit.

use kit::batch::{Engine, Status};
use serde_json::Value;

use super::stream::{self, Stream};
use super::timeline::{Point, Timeline};
use crate::measure::guards;
use crate::report::number;

/// How a stream stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// `starting`, `stuck`, `failing`, `behind`, `held`, `catching-up`, `tight` or `stable`.
    pub state: &'static str,
    /// The sentence.
    pub sentence: String,
}

/// Batches that the sentence looks back on.
const RECENT: usize = 10;

/// A stream is close to its limit when processing takes this share of what it may.
const TIGHT: f64 = 0.9;

/// A receiver that takes less than this share of what is due leaves the rest in the connection.
const RECEIVES: f64 = 0.99;

/// A receiver, or a source, that was blocked for more than this share of the time was held up.
const BLOCKED: f64 = 0.01;

/// What waits outside of the engine, where no delay of a batch shows it, as a part of a sentence; none where nothing
/// does. It looks back on some batches, or on all the time when the stream is over.
pub fn held(series: &Timeline, stream: &Stream, is_over: bool) -> Option<String> {
    let read = |name: &str| -> Vec<(f64, f64)> {
        series.sum(name, None).into_iter().filter_map(|(t_s, value): Point| Some((t_s, value?))).collect()
    };
    let (due, received) = (read("due_lines"), read("received_records"));
    // Once nothing is due any more the receiver catches up, which says nothing of the time before.
    let last_due_s = due.windows(2).rev().find(|pair| pair[1].1 > pair[0].1).map(|pair| pair[1].0);
    let end_s = last_due_s.unwrap_or(f64::INFINITY).min(received.last()?.0);
    let recent_s = (RECENT as f64 * stream.interval_ms() / 1e3).max(10.0);
    let span_s = if is_over { end_s } else { recent_s.min(end_s) };
    let at = |told: &[(f64, f64)], t_s: f64| guards::at(told, t_s).unwrap_or(0.0);
    let grown = |told: &[(f64, f64)]| at(told, end_s) - at(told, end_s - span_s);
    if span_s <= 0.0 {
        return None;
    }
    let (was_due, was_received) = (grown(&due), grown(&received));
    let per_s = was_due / span_s;
    let waiting = at(&due, end_s) - at(&received, end_s);
    let span = format!("{}{}", if is_over { "" } else { "the last " }, time(1e3 * span_s));
    // Source and engine are not read at one instant, and lines may come by chance.
    let by_chance = 3.0 * per_s.sqrt();
    if was_received < RECEIVES * was_due && was_due - was_received > by_chance && waiting > 1.5 * per_s {
        let share = number::digits(100.0 * was_received / was_due);
        let lines = counted(waiting as u64, "line", "lines");
        let (wait, shows) = if is_over { ("waited", "showed") } else { ("wait", "shows") };
        return Some(format!(
            "the receiver took {share} % of the lines that were due in {span}, and {lines} {wait} in the connection, \
             where no delay of a batch {shows} them"
        ));
    }
    let blocked = |name: &str, who: &str| {
        let blocked_s = grown(&read(name));
        let what =
            format!("{who} for {} of {span}, and no delay of a batch shows the lines that wait", time(1e3 * blocked_s));
        (blocked_s > BLOCKED * span_s).then_some(what)
    };
    blocked("receiver_blocked_s", "the receiver did not read")
        .or_else(|| blocked("blocked_s", "the source was blocked"))
}

/// How a stream stands; `held` is what waits outside of it, and `is_over` puts it into the past.
pub fn standing(stream: &Stream, held: Option<&str>, is_over: bool) -> Standing {
    let say = |state, sentence: String| Standing { state, sentence };
    let Some(engine) = &stream.engine else {
        return say("starting", "The stream starts: its engine has not told anything yet.".to_owned());
    };
    if engine.cores <= engine.receivers {
        return say("stuck", no_slot(engine, stream.waiting_count()));
    }
    let recent: Vec<_> = stream.completed.values().rev().take(RECENT).collect();
    let took: Vec<_> = recent.iter().filter_map(|batch| stream::processing_ms(batch)).collect();
    if took.is_empty() {
        return say("starting", first_batch(stream));
    }
    let took_ms = took.iter().sum::<f64>() / took.len() as f64;
    let allowed_ms = engine.batch_interval_ms * f64::from(engine.concurrent_jobs.max(1));
    let share = took_ms / allowed_ms;
    let started = stream.retained().filter(|batch| batch.started_ms.is_some()).last();
    let delay_ms = started.and_then(stream::scheduling_ms).unwrap_or(0.0);
    let takes = format!(
        "processing {} {} of every {}{}",
        if is_over { "took" } else { "takes" },
        time(took_ms),
        time(engine.batch_interval_ms),
        if engine.concurrent_jobs > 1 {
            format!(", {} batches at a time", engine.concurrent_jobs)
        } else {
            String::new()
        },
    );
    let step_ms = (took_ms / f64::from(engine.concurrent_jobs.max(1)) - engine.batch_interval_ms).abs();
    let step = time(step_ms);
    let given_up = stream.given_up_count();
    let queue = match (is_over, stream.waiting_count()) {
        _ if given_up > 0 => format!("; {} given up in the end", counted(given_up, "batch was", "batches were")),
        (_, 0) => String::new(),
        (_, waiting) => format!(", and {} behind it", counted(waiting, "batch waits", "batches wait")),
    };
    let delay = time(delay_ms);
    let has_delay = delay_ms > 0.1 * engine.batch_interval_ms;
    if share > 1.0 {
        let (grows, waited) = if is_over { ("grew", "the last batch waited") } else { ("grows", "a batch now waits") };
        return say(
            "behind",
            format!("Falls behind: {takes}, so the delay {grows} by {step} a batch; {waited} {delay}{queue}."),
        );
    }
    // Those that fail are over early, so what follows would only look quick. Looks back as far as the rest does.
    let failed: Vec<_> = recent.iter().filter(|batch| batch.status == Status::Failed).collect();
    if let Some(last) = failed.first() {
        let (count, of) = (failed.len(), counted(recent.len() as u64, "batch", "batches"));
        let why = last.reason.as_deref().unwrap_or("the journal does not say why");
        return say("failing", format!("Fails: {count} of the last {of} failed, the last one because {why}; {takes}."));
    }
    if let Some(held) = held {
        return say("held", format!("Held back: {held}; {takes}."));
    }
    if has_delay {
        let left = (delay_ms / step_ms.max(1e-3)).ceil() as u64;
        let shrinks = if is_over { "shrank" } else { "shrinks" };
        let rest = if is_over {
            String::new()
        } else {
            format!(" and is gone in about {}", counted(left, "batch", "batches"))
        };
        return say(
            "catching-up",
            format!("Catching up: {takes}; the delay of {delay} {shrinks} by {step} a batch{rest}."),
        );
    }
    let waits = if is_over { "no batch had to wait" } else { "no batch has to wait" };
    if share >= TIGHT {
        return say("tight", format!("Stable, but close to the limit: {takes}; {waits} for long."));
    }
    say("stable", format!("Stable: {takes}; {waits}."))
}

fn no_slot(engine: &Engine, waiting: u64) -> String {
    let holds = if engine.receivers == 1 { "its receiver holds" } else { "its receivers hold" };
    let all = if engine.cores == 1 { "the only core".to_owned() } else { format!("all {} cores", engine.cores) };
    let wait =
        if waiting == 0 { String::new() } else { format!("; {}", counted(waiting, "batch waits", "batches wait")) };
    format!(
        "No slot is left: {holds} {all}, so no batch can start{wait}. Give it at least {} cores.",
        engine.receivers + 1
    )
}

fn first_batch(stream: &Stream) -> String {
    let interval = time(stream.interval_ms());
    match (stream.running_count(), stream.waiting_count()) {
        (0, 0) => format!("The first batch comes within {interval}."),
        (_, 0) => "The first batch is being processed.".to_owned(),
        (_, waiting) => format!("No batch has ended yet, and {}.", counted(waiting, "batch waits", "batches wait")),
    }
}

/// What a final trial came to, from its line in the results.
pub fn result(result: &Value) -> Option<String> {
    if result["valid"] == false {
        return Some(format!("Not valid: {}.", result["invalid"].as_str().unwrap_or("the archive does not say why")));
    }
    let (good, errors) = (result["goodput_rps"].as_f64()?, result["error_rate"].as_f64()?);
    let good = format!("{} good operations a second", number::digits(good));
    let slow = result["latency_p95_ms"].as_f64();
    let slow = slow.map_or_else(String::new, |ms| format!(", of which 95 in 100 took at most {}", time(ms)));
    Some(format!("{good}{slow}; {} % errors.", number::digits(errors)))
}

/// What the load of a trial comes to in the last seconds before `until_s`; none before the first.
pub fn load(history: &Timeline, until_s: f64) -> Option<String> {
    let recent = |name: &str| -> Vec<f64> {
        let points = history.sum(name, None);
        let points = points.iter().rev().filter(|(t_s, _)| *t_s < until_s).take(RECENT);
        points.filter_map(|(_, value)| *value).collect()
    };
    let mean = |name: &str| {
        let values = recent(name);
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let (offered, good) = (mean("offered")?, mean("good")?);
    let share = if offered > 0.0 { good / offered * 100.0 } else { 100.0 };
    let well = match share {
        _ if offered == 0.0 => "No operation is under way".to_owned(),
        _ if share > 99.99 => format!("{} operations a second, and all end well", number::digits(offered)),
        _ => format!("{} operations a second, of which {} % end well", number::digits(offered), number::digits(share)),
    };
    let slow = recent("p95").into_iter().reduce(f64::max);
    let slow = slow.map_or_else(String::new, |ms| format!("; 95 of 100 take at most {}", time(ms)));
    Some(format!("{well}{slow}."))
}

/// Slots, and how many waves of tasks they make of the partitions.
pub fn slots(engine: &Engine) -> String {
    let slots = engine.cores.saturating_sub(engine.receivers);
    let sum = format!(
        "{} = {} − {}",
        counted(u64::from(slots), "slot", "slots"),
        counted(u64::from(engine.cores), "core", "cores"),
        counted(u64::from(engine.receivers), "receiver", "receivers"),
    );
    if slots == 0 || engine.partitions == 0 {
        return sum;
    }
    let waves = engine.partitions.div_ceil(slots);
    let unused = socket_stream::model::waste(engine.partitions, slots).unwrap_or(0.0);
    let unused = if unused < 0.005 {
        String::new()
    } else {
        format!(", which leave {:.0} % of the slots' time unused", unused * 100.0)
    };
    format!(
        "{sum}; {} on them {} {}{unused}",
        counted(u64::from(engine.partitions), "task", "tasks"),
        if engine.partitions == 1 { "makes" } else { "make" },
        counted(u64::from(waves), "wave", "waves"),
    )
}

/// A duration as one says it: `5 ms`, `2.53 s`, `3 m 20 s`.
pub fn time(ms: f64) -> String {
    let seconds = (ms / 1000.0).round() as u64;
    match ms {
        _ if ms.abs() < 999.5 => format!("{} ms", number::digits(ms)),
        _ if ms < 99_950.0 => format!("{} s", number::digits(ms / 1000.0)),
        _ if ms < 7_200_000.0 => format!("{} m {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// `1 batch`, `12 515 records`.
pub fn counted(count: u64, one: &str, more: &str) -> String {
    format!("{} {}", number::count(count), if count == 1 { one } else { more })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use kit::batch::Batch;

    use super::super::timeline::{Fold, Key};
    use super::*;

    fn engine() -> Engine {
        Engine {
            batch_interval_ms: 2000.0,
            cores: 4,
            receivers: 1,
            partitions: 4,
            concurrent_jobs: 1,
            ..Engine::default()
        }
    }

    /// Twelve completed batches that took `took_ms` each, the last of which had waited `delay_ms`.
    fn check(engine: Engine, took_ms: f64, delay_ms: f64, waiting: u64, is_over: bool, expected: Expect) {
        let mut stream = Stream::default();
        stream.engine = Some(engine);
        for number in 0..12 {
            let time_ms = 2000.0 * number as f64;
            let (started_ms, status) = (Some(time_ms + delay_ms), Status::Completed);
            let ended_ms = started_ms.map(|started_ms| started_ms + took_ms);
            let batch = Batch {
                batch: number,
                time_ms,
                submitted_ms: time_ms,
                started_ms,
                ended_ms,
                status,
                ..Batch::default()
            };
            stream.completed.insert(number, batch);
        }
        for number in 12..12 + waiting {
            stream.active.insert(number, Batch { batch: number, ..Batch::default() });
        }
        let Standing { state, sentence } = standing(&stream, None, is_over);
        expected.assert_eq(&format!("{state}: {sentence}"));
    }

    #[test]
    fn a_stream_says_in_a_sentence_how_it_stands() {
        check(
            engine(),
            2531.0,
            11_700.0,
            12,
            false,
            expect![
                "behind: Falls behind: processing takes 2.53 s of every 2 s, so the delay grows by 531 ms a batch; a batch now waits 11.7 s, and 12 batches wait behind it."
            ],
        );
        check(
            engine(),
            2531.0,
            11_700.0,
            12,
            true,
            expect![
                "behind: Falls behind: processing took 2.53 s of every 2 s, so the delay grew by 531 ms a batch; the last batch waited 11.7 s, and 12 batches wait behind it."
            ],
        );
        check(
            engine(),
            1080.0,
            0.2,
            0,
            false,
            expect!["stable: Stable: processing takes 1.08 s of every 2 s; no batch has to wait."],
        );
        check(
            engine(),
            1900.0,
            3.0,
            1,
            false,
            expect![
                "tight: Stable, but close to the limit: processing takes 1.9 s of every 2 s; no batch has to wait for long."
            ],
        );
        check(
            engine(),
            1080.0,
            4200.0,
            2,
            false,
            expect![
                "catching-up: Catching up: processing takes 1.08 s of every 2 s; the delay of 4.2 s shrinks by 920 ms a batch and is gone in about 5 batches."
            ],
        );
        check(
            Engine { concurrent_jobs: 2, ..engine() },
            2531.0,
            0.0,
            0,
            false,
            expect!["stable: Stable: processing takes 2.53 s of every 2 s, 2 batches at a time; no batch has to wait."],
        );
        check(
            Engine { cores: 1, ..engine() },
            2531.0,
            0.0,
            3,
            false,
            expect![
                "stuck: No slot is left: its receiver holds the only core, so no batch can start; 3 batches wait. Give it at least 2 cores."
            ],
        );
    }

    #[test]
    fn what_waits_outside_of_the_engine_is_told_instead_of_a_short_delay() {
        // Due by 100 a second for a minute, and received as far as given; then the rest comes in.
        let check = |received_per_s: f64, blocked_share: f64, is_over: bool, expected: Expect| {
            let mut series = Timeline::default();
            for second in 1..=80 {
                let (t_s, running_s) = (f64::from(second), f64::from(second.min(60)));
                let received = if second > 60 { 6_000.0 } else { received_per_s * running_s };
                for (name, value, role) in [
                    ("due_lines", 100.0 * running_s, "source"),
                    ("received_records", received, "engine"),
                    ("receiver_blocked_s", blocked_share * running_s, "engine"),
                ] {
                    if is_over || second <= 60 {
                        let key = Key { name: name.to_owned(), role: role.to_owned(), replica: 1 };
                        series.push(key, Fold::Last, t_s, Some(value));
                    }
                }
            }
            let mut stream = Stream::default();
            stream.engine = Some(engine());
            expected.assert_eq(&held(&series, &stream, is_over).unwrap_or_default());
        };
        check(100.0, 0.0, false, expect![""]);
        check(99.5, 0.005, true, expect![""]);
        check(
            75.0,
            0.0,
            false,
            expect![
                "the receiver took 75 % of the lines that were due in the last 20 s, and 1500 lines wait in the connection, where no delay of a batch shows them"
            ],
        );
        check(
            75.0,
            0.5,
            true,
            expect![
                "the receiver took 75 % of the lines that were due in 60 s, and 1500 lines waited in the connection, where no delay of a batch showed them"
            ],
        );
        check(
            100.0,
            0.1,
            false,
            expect![
                "the receiver did not read for 2 s of the last 20 s, and no delay of a batch shows the lines that wait"
            ],
        );
        let mut stream = Stream::default();
        stream.engine = Some(engine());
        for number in 0..12 {
            let time_ms = 2000.0 * number as f64;
            let (started_ms, ended_ms) = (Some(time_ms), Some(time_ms + 1_990.0));
            let batch =
                Batch { batch: number, time_ms, submitted_ms: time_ms, started_ms, ended_ms, ..Batch::default() };
            stream.completed.insert(number, batch);
        }
        let Standing { state, sentence } = standing(&stream, Some("lines wait"), false);
        assert_eq!(
            (state, sentence.as_str()),
            ("held", "Held back: lines wait; processing takes 1.99 s of every 2 s.")
        );
    }

    #[test]
    fn batches_that_fail_are_told_instead_of_how_quick_they_are() {
        let mut stream = Stream::default();
        stream.engine = Some(engine());
        for number in 0..12 {
            let time_ms = 2000.0 * number as f64;
            let (started_ms, ended_ms) = (Some(time_ms), Some(time_ms + 20.0));
            let (status, reason) = match number {
                10 => (Status::Failed, Some("a task panicked: boom".to_owned())),
                _ => (Status::Completed, None),
            };
            let batch = Batch {
                batch: number,
                time_ms,
                submitted_ms: time_ms,
                started_ms,
                ended_ms,
                status,
                reason,
                ..Batch::default()
            };
            stream.completed.insert(number, batch);
        }
        let Standing { state, sentence } = standing(&stream, None, false);
        let expected = "Fails: 1 of the last 10 batches failed, the last one because a task panicked: boom; processing \
                        takes 20 ms of every 2 s.";
        assert_eq!((state, sentence.as_str()), ("failing", expected));
    }

    #[test]
    fn slots_and_waves_are_counted_out() {
        let check = |cores, receivers, partitions, expected: Expect| {
            expected.assert_eq(&slots(&Engine { cores, receivers, partitions, ..engine() }));
        };
        check(
            4,
            1,
            4,
            expect![
                "3 slots = 4 cores − 1 receiver; 4 tasks on them make 2 waves, which leave 33 % of the slots' time unused"
            ],
        );
        check(4, 1, 6, expect!["3 slots = 4 cores − 1 receiver; 6 tasks on them make 2 waves"]);
        check(
            8,
            1,
            8,
            expect![
                "7 slots = 8 cores − 1 receiver; 8 tasks on them make 2 waves, which leave 43 % of the slots' time unused"
            ],
        );
        check(2, 1, 0, expect!["1 slot = 2 cores − 1 receiver"]);
        check(1, 1, 4, expect!["0 slots = 1 core − 1 receiver"]);
    }
}

//! Whether a run of an exercise reached its goal, from its batches alone, and what to look at when it did not.
//!
//! The one rule: a hint names the quantities, where they stand and how they hang together; it never names a value to
//! write.

use std::fmt::Write as _;
use std::ops::Range;

use kit::batch::Batch;

use crate::verdict::three;

/// Batches in a row that make a goal, and the fewest that can show one.
const IN_A_ROW: usize = 5;

/// A delay below this share of the interval is none: it is the time to notice a tick.
const NO_DELAY: f64 = 0.01;

/// One batch in this many may be held up by the machine without a delay being claimed.
const STRAY: usize = 20;

/// What is to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Processing time above the interval in five consecutive batches, and a delay that rises.
    FallBehind,
    /// No delay, and an empty queue.
    CatchUp,
}

impl Goal {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Self::FallBehind => {
                "processing time above the batch interval in 5 consecutive batches, and a scheduling delay that rises"
            }
            Self::CatchUp => "scheduling delay 0, and an empty queue at the end",
        }
    }
}

/// How the settings divide a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// The batch interval.
    pub interval_ms: f64,
    /// Lines of a full batch.
    pub lines: f64,
    /// How long one line holds a slot.
    pub cost_ms: f64,
    /// Tasks that share the lines of a batch.
    pub partitions: u32,
    /// Slots, those of receivers included.
    pub cores: u32,
    /// Receivers, each of which holds one slot for as long as the stream runs.
    pub receivers: u32,
}

impl Shape {
    /// Slots for tasks.
    pub fn slots(&self) -> u32 {
        self.cores.saturating_sub(self.receivers)
    }

    /// How often every slot takes a task; none without slots.
    pub fn waves(&self) -> Option<u32> {
        (self.slots() > 0).then(|| self.partitions.div_ceil(self.slots()))
    }

    /// How long one task works.
    pub fn task_ms(&self) -> f64 {
        self.lines / f64::from(self.partitions.max(1)) * self.cost_ms
    }
}

/// What the batches of a run show.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Batches that have ended.
    pub ended: usize,
    /// Their mean processing time.
    pub processing_ms: Option<f64>,
    /// The most batches in a row whose processing time is above the interval.
    pub above_in_a_row: usize,
    /// The delay of the first batch that started, and of the last.
    pub delay_ms: Option<(f64, f64)>,
    /// How much the delay gained with each batch between those.
    pub growth_ms: f64,
    /// Batches that started late.
    pub late: usize,
    /// Batches that waited at the end of the window.
    pub queued: usize,
}

/// The figures, and whether they reach the goal.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Whether the goal is reached.
    pub met: bool,
    /// What it rests on.
    pub figures: Figures,
}

/// Judges the batches whose time lies within the window, in milliseconds since the start of the schedule. `batches` has
/// each batch once, as it was told last, in the order of their numbers.
pub fn judge(goal: Goal, batches: &[Batch], interval_ms: f64, window_ms: Range<f64>) -> Judgement {
    let within: Vec<&Batch> =
        batches.iter().filter(|batch| window_ms.start < batch.time_ms && batch.time_ms < window_ms.end).collect();
    let figures = figures(&within, interval_ms, window_ms.end);
    let rises = figures.delay_ms.is_some_and(|(first, last)| last - first > NO_DELAY * interval_ms);
    let met = match goal {
        Goal::FallBehind => figures.above_in_a_row >= IN_A_ROW && rises,
        Goal::CatchUp => figures.ended >= IN_A_ROW && figures.late * STRAY <= within.len() && figures.queued == 0,
    };
    Judgement { met, figures }
}

fn figures(batches: &[&Batch], interval_ms: f64, end_ms: f64) -> Figures {
    let slack_ms = NO_DELAY * interval_ms;
    let delays: Vec<(u64, f64)> =
        batches.iter().filter_map(|batch| Some((batch.batch, batch.started_ms? - batch.submitted_ms))).collect();
    let times: Vec<(u64, f64)> =
        batches.iter().filter_map(|batch| Some((batch.batch, batch.ended_ms? - batch.started_ms?))).collect();
    // A batch that was submitted at the very end had no time to start.
    let waits = |batch: &&&Batch| {
        batch.submitted_ms + slack_ms <= end_ms && batch.started_ms.is_none_or(|started_ms| started_ms > end_ms)
    };
    let ends = delays.first().copied().zip(delays.last().copied());
    let growth_ms = ends.map_or(0.0, |((first, from_ms), (last, to_ms))| match last - first {
        0 => 0.0,
        batches => (to_ms - from_ms) / batches as f64,
    });
    Figures {
        ended: times.len(),
        processing_ms: (!times.is_empty()).then(|| times.iter().map(|(_, ms)| ms).sum::<f64>() / times.len() as f64),
        above_in_a_row: longest_run(&times, interval_ms),
        delay_ms: ends.map(|((_, first_ms), (_, last_ms))| (first_ms, last_ms)),
        growth_ms,
        late: delays.iter().filter(|(_, ms)| *ms > slack_ms).count(),
        queued: batches.iter().filter(waits).count(),
    }
}

/// The most consecutive batches whose time is above the interval.
fn longest_run(times: &[(u64, f64)], interval_ms: f64) -> usize {
    let (mut longest, mut run, mut before) = (0, 0, None);
    for (number, ms) in times {
        let follows = before.is_some_and(|before| before + 1 == *number);
        run = if *ms <= interval_ms {
            0
        } else if follows {
            run + 1
        } else {
            1
        };
        longest = longest.max(run);
        before = Some(*number);
    }
    longest
}

/// What was seen, a line a quantity.
pub fn describe(figures: &Figures, shape: &Shape) -> String {
    let mut text = String::new();
    let interval = time(shape.interval_ms);
    let _ = match figures.processing_ms {
        Some(ms) => writeln!(
            text,
            "  processing time   {} a batch, interval {interval}; {}",
            time(ms),
            match figures.above_in_a_row {
                0 => "never above it".to_owned(),
                count => format!("above it in {} in a row", batches(count)),
            }
        ),
        None => writeln!(text, "  processing time   no batch has ended; interval {interval}"),
    };
    let _ = match figures.delay_ms {
        Some((first, last)) => writeln!(
            text,
            "  scheduling delay  {} at first, {} at last: {} with each batch",
            time(first),
            time(last),
            signed(figures.growth_ms)
        ),
        None => writeln!(text, "  scheduling delay  no batch has started"),
    };
    let _ = writeln!(text, "  queue             {} at the end", batches(figures.queued));
    let waves = shape.waves().map_or_else(
        || "none of them can run".to_owned(),
        |waves| format!("{} of {}", counted(waves, "wave"), time(shape.task_ms())),
    );
    let _ = writeln!(
        text,
        "  slots             {} - {} = {}; {}: {waves}",
        counted(shape.cores, "core"),
        counted(shape.receivers, "receiver"),
        counted(shape.slots(), "slot"),
        counted(shape.partitions, "task"),
    );
    text
}

/// What to look at after a goal was missed.
pub fn hint(goal: Goal, figures: &Figures, shape: &Shape) -> String {
    let Some(waves) = shape.waves() else {
        return format!(
            "a receiver holds a core for as long as the stream runs. Of {} none is left for tasks: batches queue, and no \
             error is shown. Look at the queue on the page.",
            counted(shape.cores, "core")
        );
    };
    match (goal, figures.processing_ms) {
        (_, None) => {
            "no batch ended while the stream ran. A batch needs its interval to be collected and its processing \
             time to be worked off: how do both compare with the length of the run?"
                .to_owned()
        }
        (Goal::FallBehind, Some(ms)) => still_on_time(figures, shape, waves, ms),
        (Goal::CatchUp, Some(ms)) if ms > shape.interval_ms => too_slow(shape, waves, ms),
        (Goal::CatchUp, Some(ms)) => format!(
            "on average a batch takes {}, which is below the interval, yet {} started late. A stream keeps up when \
             every batch has time to spare, not only the average one: look at the histogram of the processing time \
             beside the interval of {}.",
            time(ms),
            batches(figures.late),
            time(shape.interval_ms)
        ),
    }
}

fn still_on_time(figures: &Figures, shape: &Shape, waves: u32, processing_ms: f64) -> String {
    let interval = time(shape.interval_ms);
    if figures.above_in_a_row == 0 {
        return format!(
            "a batch collects {:.0} lines and deals them to {}. Each line holds a slot for {}, so one task works for {}, \
             and {} need {} on {}: {} of the {interval} there are. The rest of the {} is the engine's own. Which of these \
             figures would have to move, and which way, for a batch to need more time than its interval?",
            shape.lines,
            counted(shape.partitions, "task"),
            time(shape.cost_ms),
            time(shape.task_ms()),
            counted(shape.partitions, "task"),
            counted(waves, "wave"),
            counted(shape.slots(), "slot"),
            time(f64::from(waves) * shape.task_ms()),
            time(processing_ms),
        );
    }
    format!(
        "the processing time of {} crosses the interval of {interval}, but not for {IN_A_ROW} batches in a row, or by too \
         little for the delay to rise. The delay gains processing time - interval with each batch, here {}. Look at how far \
         the two are apart.",
        time(processing_ms),
        signed(processing_ms - shape.interval_ms)
    )
}

fn too_slow(shape: &Shape, waves: u32, processing_ms: f64) -> String {
    let (slots, tasks) = (shape.slots(), shape.partitions);
    let work_ms = f64::from(waves) * shape.task_ms();
    let over = format!(
        "a batch takes {}, {} more than its interval; that is what the delay gains with each batch. ",
        time(processing_ms),
        time(processing_ms - shape.interval_ms)
    );
    let why = if work_ms < processing_ms / 2.0 {
        format!(
            "Only {} of it is work on lines; the rest is what the engine takes for each job and each task. What \
             makes a batch have many tasks?",
            time(work_ms)
        )
    } else if waves > 1 {
        let last = tasks - slots * (waves - 1);
        format!(
            "{} cannot run at once on {}: they take {waves} waves, and in the last one {} at work and {} idle. A wave \
             lasts as long as one task, {}. Count the waves for other numbers of tasks and slots, and see what each \
             does to the length of a task.",
            counted(tasks, "task"),
            counted(slots, "slot"),
            if last == 1 { "1 slot is".to_owned() } else { format!("{last} slots are") },
            slots - last,
            time(shape.task_ms())
        )
    } else {
        let idle = match slots - tasks {
            0 => String::new(),
            idle => format!(", of which {idle} idle"),
        };
        format!(
            "All tasks run at once, {tasks} on {}{idle}, so more slots alone change nothing. The batch lasts as long \
             as one task: {:.0} lines of {} each. Which of the two can be made smaller, and what would it need?",
            counted(slots, "slot"),
            shape.lines / f64::from(tasks.max(1)),
            time(shape.cost_ms)
        )
    };
    over + &why
}

fn counted(count: u32, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn batches(count: usize) -> String {
    match count {
        0 => "no batch".to_owned(),
        1 => "1 batch".to_owned(),
        _ => format!("{count} batches"),
    }
}

/// In the unit that reads best, with digits enough to tell a processing time from the interval it is near to.
fn time(ms: f64) -> String {
    match ms.abs() {
        0.0..1000.0 => format!("{} ms", three(ms)),
        1000.0..10_000.0 => format!("{} s", (ms.round() / 1000.0)),
        _ => format!("{} s", three(ms / 1000.0)),
    }
}

fn signed(ms: f64) -> String {
    format!("{}{}", if ms > 0.0 { "+" } else { "" }, time(ms))
}

#[cfg(test)]
mod tests {
    use kit::batch::Status;

    use super::*;

    const INTERVAL_MS: f64 = 2000.0;

    /// What was given at the start of both exercises.
    const OVERLOADED: Shape =
        Shape { interval_ms: INTERVAL_MS, lines: 286.0, cost_ms: 15.0, partitions: 4, cores: 4, receivers: 1 };

    /// Batches that take `times_ms` one after another, as the engine works them off one at a time until `stop_ms`.
    fn stream(times_ms: &[f64], stop_ms: f64) -> Vec<Batch> {
        let mut free_ms = 0.0_f64;
        let batch = |(number, took_ms): (usize, &f64)| {
            let time_ms = (number + 1) as f64 * INTERVAL_MS;
            let started_ms = time_ms.max(free_ms);
            free_ms = started_ms + took_ms;
            let runs = started_ms <= stop_ms;
            Batch {
                batch: number as u64,
                time_ms,
                submitted_ms: time_ms,
                started_ms: runs.then_some(started_ms),
                ended_ms: runs.then_some(free_ms),
                status: if runs { Status::Completed } else { Status::Queued },
                ..Batch::default()
            }
        };
        times_ms.iter().enumerate().map(batch).collect()
    }

    fn met(goal: Goal, times_ms: &[f64]) -> bool {
        judge(goal, &stream(times_ms, 60_000.0), INTERVAL_MS, 0.0..60_000.0).met
    }

    #[test]
    fn a_goal_is_judged_from_the_batches_alone() {
        for (what, times_ms, falls_behind, keeps_up) in [
            ("always above the interval", &[2530.0; 29][..], true, false),
            ("always below", &[1080.0; 29], false, true),
            ("never ended", &[], false, false),
            (
                "four above, then one below, again and again",
                &[2100.0, 2100.0, 2100.0, 2100.0, 900.0].repeat(5),
                false,
                false,
            ),
            ("five above at the end", &[vec![1000.0; 20], vec![2500.0; 6]].concat(), true, false),
            ("exactly the interval", &[2000.0; 29], false, true),
            ("one stray batch of many", &[vec![1000.0; 10], vec![2300.0], vec![1000.0; 18]].concat(), false, true),
            ("too few to tell", &[1000.0; 4], false, false),
        ] {
            assert_eq!(met(Goal::FallBehind, times_ms), falls_behind, "{what}: falls behind");
            assert_eq!(met(Goal::CatchUp, times_ms), keeps_up, "{what}: keeps up");
        }
    }

    #[test]
    fn the_figures_are_those_of_the_recursion() {
        // d[n+1] = d[n] + 2530 - 2000 from the second batch on; at 60 s batch 22 runs and 23..=28 wait.
        let Figures { ended, processing_ms, above_in_a_row, delay_ms, growth_ms, late, queued } =
            judge(Goal::FallBehind, &stream(&[2530.0; 40], 60_000.0), INTERVAL_MS, 0.0..60_000.0).figures;
        assert_eq!((ended, above_in_a_row, late, queued), (23, 23, 22, 6));
        assert!((processing_ms.unwrap() - 2530.0).abs() < 1e-6 && (growth_ms - 530.0).abs() < 1e-6);
        let (first_ms, last_ms) = delay_ms.unwrap();
        assert!(first_ms == 0.0 && (last_ms - 22.0 * 530.0).abs() < 1e-6);
    }

    #[test]
    fn batches_of_the_warm_up_and_after_the_end_do_not_count() {
        let all = stream(&[2530.0; 40], f64::INFINITY);
        let figures = judge(Goal::FallBehind, &all, INTERVAL_MS, 4_000.0..60_000.0).figures;
        assert_eq!(figures.ended, 27, "those of 6 s to 58 s");
        assert_eq!(figures.queued, 6, "what ran after the end had waited at the end");
    }

    #[test]
    fn a_hint_names_what_to_look_at_and_never_a_value_to_write() {
        let hint_for = |goal, shape: Shape, took_ms: f64| {
            let figures = judge(goal, &stream(&[took_ms; 29], 60_000.0), INTERVAL_MS, 0.0..60_000.0).figures;
            hint(goal, &figures, &shape)
        };
        let one_wave = Shape { cores: 8, ..OVERLOADED };
        let many_tasks = Shape { partitions: 16, cores: 8, cost_ms: 5.0, ..OVERLOADED };
        let no_slot = Shape { cores: 1, ..OVERLOADED };
        let gentle = Shape { cost_ms: 5.0, ..OVERLOADED };
        for (goal, shape, took_ms, expected) in [
            (Goal::CatchUp, OVERLOADED, 2530.0, "they take 2 waves, and in the last one 1 slot is at work and 2 idle"),
            (Goal::CatchUp, one_wave, 2100.0, "All tasks run at once, 4 on 7 slots, of which 3 idle"),
            (Goal::CatchUp, many_tasks, 2200.0, "the rest is what the engine takes for each job and each task"),
            (Goal::CatchUp, no_slot, 2530.0, "Of 1 core none is left"),
            (Goal::CatchUp, gentle, 1990.0, "every batch has time to spare"),
            (
                Goal::FallBehind,
                gentle,
                1100.0,
                "one task works for 358 ms, and 4 tasks need 2 waves on 3 slots: 715 ms of the 2 s",
            ),
            (
                Goal::FallBehind,
                OVERLOADED,
                2000.5,
                "The delay gains processing time - interval with each batch, here +0.5 ms",
            ),
        ] {
            let hint = hint_for(goal, shape, took_ms);
            assert!(hint.contains(expected), "{hint}");
            assert!(!hint.contains("  "), "one sentence flows into the next: {hint}");
        }
    }

    #[test]
    fn figures_are_shown_a_line_each() {
        let figures = judge(Goal::FallBehind, &stream(&[2530.0; 40], 60_000.0), INTERVAL_MS, 0.0..60_000.0).figures;
        assert_eq!(
            describe(&figures, &OVERLOADED),
            "  processing time   2.53 s a batch, interval 2 s; above it in 23 batches in a row\n  \
               scheduling delay  0 ms at first, 11.7 s at last: +530 ms with each batch\n  \
               queue             6 batches at the end\n  \
               slots             4 cores - 1 receiver = 3 slots; 4 tasks: 2 waves of 1.073 s\n"
        );
    }
}

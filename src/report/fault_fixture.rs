//! Studies of faults as they might come out of runs, for the tests of this module: one service stopped in five trials, and
//! the same silence under three configurations, of which one does not recover.

use std::collections::BTreeMap;

use serde_json::json;

use super::fixture::{Fixture, comparison};
use crate::experiment::{Level, Levels, LoadPlan};
use crate::faults::Injection;
use crate::load::Stage;
use crate::measure::recovery::{Baseline, ByUser, Recovered, Recovery, RecoverySummary};
use crate::measure::{Lost, Sample, SecondSummary, Spread, TrialSummary, summarize_study};

const OFFERED: u64 = 120;
const SECONDS: u32 = 70;

/// How one trial goes, in seconds since its start.
#[derive(Clone, Copy)]
struct Course {
    command: f64,
    effect: f64,
    ready: f64,
    /// When users are served as before; none is never.
    back: Option<f64>,
    /// Share of operations that need nothing that is down.
    spared: f64,
    /// How long an operation waits before it fails.
    wait_ms: f64,
}

impl Course {
    fn after(self, later: f64) -> Self {
        let back = self.back.map(|back| back + later);
        Self { command: self.command + later, effect: self.effect + later, ready: self.ready + later, back, ..self }
    }
}

const STOPPED: Course =
    Course { command: 30.0, effect: 30.12, ready: 40.6, back: Some(42.0), spared: 0.12, wait_ms: 4.0 };

fn second(second: u32, course: Course, shake: u32) -> SecondSummary {
    let at = f64::from(second);
    let down = |at: f64| at >= course.effect && at < course.back.unwrap_or(f64::INFINITY);
    // The share of this second that falls into the outage.
    let share = (0..20).filter(|part| down(at + f64::from(*part) / 20.0)).count() as f64 / 20.0;
    let noise = f64::from((second * 7 + shake * 3) % 9) - 4.0;
    let offered = (OFFERED as f64 + noise) as u64;
    let ok = (offered as f64 * (1.0 - share * (1.0 - course.spared))).round() as u64;
    let calm = 6.0 + 0.12 * noise;
    let p95 = if share > 0.05 { calm.max(course.wait_ms) } else { calm };
    SecondSummary {
        second,
        measured: second >= 2,
        offered,
        answered: offered - if share > 0.0 && course.wait_ms > 100.0 { offered - ok } else { 0 },
        ok,
        failed: offered - ok,
        latency: Spread { p50: Some(0.4 * calm + 0.4 * share * course.wait_ms), p95: Some(p95), ..Spread::default() },
        ..SecondSummary::default()
    }
}

fn recovery(course: Course, seconds: &[SecondSummary], kind: &str, replica: u32) -> Recovery {
    let end = course.back.unwrap_or(f64::from(SECONDS));
    let meanwhile: Vec<&SecondSummary> =
        seconds.iter().filter(|s| f64::from(s.second) + 1.0 > course.effect && f64::from(s.second) < end).collect();
    let (offered, ok) = meanwhile.iter().fold((0, 0), |(a, b), s| (a + s.offered, b + s.ok));
    let outage = meanwhile.iter().map(|s| 1.0 - s.ok as f64 / s.offered as f64).sum::<f64>();
    Recovery {
        injection: Injection {
            kind: kind.to_owned(),
            role: "task-service".to_owned(),
            replica,
            command_s: Some(course.command),
            effect_s: Some(course.effect),
            repair_s: Some(course.ready - 0.5),
            ready_s: Some(course.ready),
            ..Injection::default()
        },
        baseline: Some(Baseline {
            from_s: course.command - 20.0,
            to_s: course.command - 2.0,
            window_s: 1.0,
            windows: 18,
            goodput_rps: 120.0,
            goodput_mad: 2.0,
            error_percent: 0.0,
            p95_ms: Some(6.0),
            least_goodput_rps: 111.0,
            most_error_percent: 1.0,
            most_p95_ms: Some(7.5),
            ..Baseline::default()
        }),
        time_to_effect_s: Some(course.effect - course.command),
        time_to_detect_s: Some(0.0),
        recovered: match course.back {
            Some(back) => Recovered::After(back - course.effect),
            None => Recovered::NotWithin(f64::from(SECONDS) - course.effect),
        },
        after_ready_s: course.back.map(|back| (back - course.ready).max(0.0)),
        outage_equivalent_s: Some(outage),
        availability_percent: Some(100.0 * ok as f64 / offered as f64),
        bad_operations: Some(offered - ok),
        budget_burnt_percent: Some(100.0 * outage / 2_592.0),
        metastable: Some(course.back.is_none()),
        ..Recovery::default()
    }
}

fn trial(index: usize, levels: Levels, courses: &[Course], kind: &str, amplification: Option<f64>) -> TrialSummary {
    let template = comparison().trials.swap_remove(0);
    let worst = |at: u32| {
        let near = courses.iter().copied().min_by_key(|course| {
            let at = f64::from(at);
            if at + 1.0 < course.effect { u64::MAX } else { (10.0 * (at - course.effect)) as u64 }
        });
        second(at, near.expect("a course"), index as u32)
    };
    let seconds: Vec<SecondSummary> = (0..SECONDS).map(worst).collect();
    let measured = || seconds.iter().filter(|second| second.measured);
    let (offered, ok) = measured().fold((0, 0), |(a, b), s| (a + s.offered, b + s.ok));
    let available = 100.0 * ok as f64 / offered as f64;
    let created = offered / 8;
    let summary = RecoverySummary {
        injections: courses.iter().map(|course| recovery(*course, &seconds, kind, 1)).collect(),
        availability_percent: Some(available),
        availability_repeatable_percent: Some(available + 0.4),
        by_kind: BTreeMap::from([
            ("GET /api/v1/auth/me".to_owned(), 100.0),
            ("GET /api/v1/tasks/".to_owned(), available - 1.0),
            ("POST /api/v1/tasks/".to_owned(), available - 1.3),
        ]),
        by_user: Some(ByUser { users: 50, worst: available - 6.0, median: available, mean: available + 0.1 }),
        amplification,
        ..RecoverySummary::default()
    };
    TrialSummary {
        index,
        name: format!("{index:03}_microservices_r{index}"),
        levels,
        repetition: index as u32,
        valid: true,
        invalid: None,
        measured_s: f64::from(SECONDS - 2),
        users: None,
        goodput_rps: Some(ok as f64 / f64::from(SECONDS - 2)),
        seconds,
        guards: Vec::new(),
        recovery: Some(summary),
        lost: Some(Lost {
            attempted: created,
            acknowledged: created - created / 7,
            unknown: 9,
            unknown_found: 3,
            linearizable_checked: 400,
            ..Lost::default()
        }),
        ..template
    }
}

fn of_faults(question: &str, answer: &str, factor: Option<(&str, &[&str])>, trials: Vec<TrialSummary>) -> Fixture {
    let mut fixture = comparison();
    let experiment = &mut fixture.experiment;
    experiment.question = question.to_owned();
    experiment.name = "faults".to_owned();
    experiment.factors = factor
        .map(|(name, levels)| (name.to_owned(), levels.iter().map(|level| Level::Text((*level).to_owned())).collect()))
        .into_iter()
        .collect();
    let stages = vec![Stage { duration: None, from_per_s: OFFERED as f64, to_per_s: OFFERED as f64 }];
    experiment.load = LoadPlan::Open { stages, poisson: false, connections: 256 };
    experiment.slo.clear();
    fixture.study = summarize_study(experiment, &trials);
    fixture.study.answer = answer.to_owned();
    fixture.planned = trials.len();
    fixture.trials = trials;
    fixture.verdict = json!({ "verdict": "pass", "which": null, "why": null, "guards": [] });
    fixture
}

/// The task service stopped for ten seconds, five times.
pub fn stopped() -> Fixture {
    let later = [0.0, 0.4, 0.1, 1.2, 0.2];
    let longer = [0.0, 0.6, -0.3, 1.1, 0.2];
    let trials = (0..5).map(|index| {
        let course = STOPPED.after(later[index]);
        let back = course.back.map(|back| back + longer[index]);
        trial(index, Levels::new(), &[Course { back, ..course }], "stop-start", Some(1.0))
    });
    let answer = "While the task service was stopped for 10.5 s, users suffered for 12 s: goodput fell from 120/s to 14/s, and \
                  was as before 1.4 s after it was ready. Nothing that was acknowledged was lost.";
    of_faults("What does a dead service cost its users?", answer, None, trials.collect())
}

/// Three faults in one trial.
pub fn repeated() -> Fixture {
    let short = Course { command: 12.0, effect: 12.1, ready: 15.2, back: Some(15.9), ..STOPPED };
    let courses = [short, short.after(18.0), short.after(36.0)];
    let answer = "Each of three kills cost users 3.8 s.";
    of_faults("What do three kills cost?", answer, None, vec![trial(0, Levels::new(), &courses, "kill", None)])
}

/// Five seconds of silence under three configurations; with naive retries it never ends.
pub fn arms() -> Fixture {
    const ARMS: [&str; 3] = ["timeout", "retry", "budget and breaker"];
    let silence = Course { command: 25.0, effect: 25.05, ready: 30.1, back: Some(34.0), spared: 0.1, wait_ms: 2_000.0 };
    let mut trials: Vec<TrialSummary> = Vec::new();
    for (place, arm) in ARMS.into_iter().enumerate() {
        for repetition in 0..3 {
            let later = 0.3 * f64::from(repetition);
            let (back, spared, tries) = match place {
                0 => (silence.back.map(|back| back + later), 0.1, 1.0),
                1 => (None, 0.05, 2.7 + 0.1 * later),
                _ => (Some(30.6 + later), 0.1, 1.08),
            };
            let levels = Levels::from([("resilience".to_owned(), Level::Text(arm.to_owned()))]);
            let course = Course { back, spared, ..silence };
            trials.push(trial(trials.len(), levels, &[course], "pause", Some(tries)));
        }
    }
    let answer = "With a timeout alone users suffered for 9.2 s of 5 s of silence; with naive retries the load alone kept the \
                  service down as long as was watched; with a budget and a breaker they suffered for 5.8 s.";
    let mut fixture = of_faults("Which mechanism helps against silence?", answer, Some(("resilience", &ARMS)), trials);
    fixture.tries = fixture.trials.iter().map(|trial| (trial.name.clone(), tries(trial))).collect();
    fixture
}

/// The gauge of tries, once a second: one for each operation, and those that amplify.
fn tries(trial: &TrialSummary) -> Vec<Sample> {
    let amplified = trial.recovery.as_ref().and_then(|recovery| recovery.amplification).unwrap_or(1.0);
    let mut sum = 0.0;
    let sample = |second: &SecondSummary| {
        let t_s = f64::from(second.second);
        let sample = Sample { t_s, name: "tries".to_owned(), role: "gateway".to_owned(), replica: 1, value: Some(sum) };
        sum += second.offered as f64 * if second.failed > 0 { amplified } else { 1.0 };
        sample
    };
    trial.seconds.iter().map(sample).collect()
}

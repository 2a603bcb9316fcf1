//! A study as it might come out of a run, for the tests of this module: two curves over five levels, three trials each,
//! with a level that the client bounds, a thin p99, memory nobody could measure, an invalid trial and hostile names.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::experiment::{DeploymentKind, Experiment, Level, Levels, LoadPlan};
use crate::measure::samples::{MadeStream, stream_experiment};
use crate::measure::{
    CellSummary, Crossover, Curve, Estimate, Fitted, Guard, Interval, KindSummary, Knee, SecondSummary, Spread,
    StudySummary, TrialSummary, Usl,
};
use crate::report::ReportInput;
use crate::verdict::Slo;

/// Everything that a [`ReportInput`] borrows.
pub struct Fixture {
    pub experiment: Experiment,
    pub study: StudySummary,
    pub trials: Vec<TrialSummary>,
    pub verdict: serde_json::Value,
    pub environment: serde_json::Value,
    pub planned: usize,
    pub notes: Vec<String>,
    pub journals: crate::report::Journals,
    pub tries: crate::report::Gauges,
}

impl Fixture {
    pub fn input(&self) -> ReportInput<'_> {
        ReportInput {
            experiment: &self.experiment,
            study: &self.study,
            trials: &self.trials,
            verdict: &self.verdict,
            environment: &self.environment,
            planned: self.planned,
            notes: &self.notes,
            journals: &self.journals,
            tries: &self.tries,
            highest_stable_rate: None,
        }
    }
}

pub const USERS: [f64; 5] = [4.0, 16.0, 64.0, 128.0, 256.0];
const MONOLITH: &str = "monolith";
const MICROSERVICES: &str = "microservices × 3";

/// The comparison of two architectures; they cross between 64 and 128 users.
pub fn comparison() -> Fixture {
    let goodput = [[180.0, 660.0, 1450.0, 1490.0, 1430.0], [150.0, 560.0, 1400.0, 1905.0, 2010.0]];
    let p95 = [[7.2, 9.8, 38.0, 118.0, 290.0], [12.4, 15.9, 41.0, 72.0, 168.0]];
    let curves: Vec<Curve> = [MONOLITH, MICROSERVICES]
        .into_iter()
        .enumerate()
        .map(|(place, label)| curve(label, &goodput[place], &p95[place], place == 1))
        .collect();
    let guards = curves.iter().flat_map(|curve| &curve.cells).flat_map(|cell| cell.guards.clone()).collect();
    let trials = trials(&curves);
    Fixture {
        experiment: experiment(),
        trials,
        study: StudySummary {
            x: Some("users".to_owned()),
            curves,
            crossovers: crossovers(),
            search: None,
            guards,
            answer: "From about 83 users on (71–97) microservices × 3 answer faster than the monolith: p95 72 ms \
                     against 118 ms at 128 users."
                .to_owned(),
        },
        verdict: json!({ "verdict": "fail", "which": "p95 <= 250ms",
            "why": "monolith at 256 users: p95 290 ms (279–301)", "guards": [] }),
        environment: json!({ "cpu_model": "Example CPU @ 2.40GHz", "cpus": 2, "memory": "8 GB",
            "kernel": "Linux 6.1", "version": "0.1.0", "started_at": "2026-01-05T10:00:00Z",
            "deployment": "processes", "command_line": "scalelab run compare.toml" }),
        planned: 30,
        notes: vec![
            "Equal budgets: each architecture had CPU 0 and 1 GiB for all its roles together; load ran on CPU 1."
                .to_owned(),
            "argon2 cost: minimum".to_owned(),
        ],
        journals: BTreeMap::new(),
        tries: BTreeMap::new(),
    }
}

/// The same with names and messages that try to leave their place.
pub fn hostile() -> Fixture {
    let mut fixture = comparison();
    fixture.experiment.question = "<script>alert(1)</script> & \"quotes\" </title>".to_owned();
    fixture.study.curves[0].label = "</script><img src=x onerror=alert(1)>".to_owned();
    fixture.study.answer = "<b>no</b> | `code` *stars*".to_owned();
    fixture.trials[0].invalid = Some("<script>alert(2)</script>".to_owned());
    fixture
}

/// One cell, one trial: no x axis.
pub fn single() -> Fixture {
    let mut fixture = comparison();
    fixture.study.x = None;
    fixture.study.crossovers.clear();
    fixture.study.curves.truncate(1);
    let curve = &mut fixture.study.curves[0];
    curve.cells.truncate(1);
    curve.cells[0].valid = 1;
    for estimate in curve.cells[0].metrics.values_mut() {
        (estimate.low, estimate.high) = (None, None);
        estimate.values.truncate(1);
    }
    fixture.study.answer = "180 requests a second were answered, with p95 7.2 ms.".to_owned();
    fixture.trials.truncate(1);
    fixture.planned = 1;
    fixture.verdict = json!({ "verdict": "pass", "which": null, "why": null, "guards": [] });
    fixture
}

/// Curves that do not cross, of an archive that was simulated.
pub fn simulated_without_crossover() -> Fixture {
    let mut fixture = comparison();
    fixture.environment["deployment"] = json!("simulated");
    for crossover in &mut fixture.study.crossovers {
        crossover.at = None;
        crossover.statement = format!("{}: no crossover in the tested range (4 to 256 users)", crossover.metric);
    }
    fixture.verdict = json!({ "verdict": "unknown", "which": "p99 <= 1s", "why": "too few requests behind p99" });
    fixture
}

fn experiment() -> Experiment {
    Experiment {
        question: "From how many users on do microservices answer faster than the monolith?".to_owned(),
        name: "compare-arch".to_owned(),
        system: "task-tracker".to_owned(),
        deployment: DeploymentKind::Processes,
        seed: 7,
        trials: 3,
        warmup: Duration::from_secs(2),
        duration: Duration::from_secs(10),
        slo: ["p95 <= 250ms", "errors <= 1%"].map(|text| Slo::try_from(text.to_owned()).unwrap()).to_vec(),
        factors: BTreeMap::from([("users".to_owned(), USERS.map(|users| Level::Int(users as i64)).to_vec())]),
        exclude: Vec::new(),
        load: LoadPlan::Closed { users: 4, think: Duration::from_millis(20), spawn_rate: 50.0 },
        load_workers: 1,
        timeout: Duration::from_secs(10),
        sample_interval: Duration::from_secs(1),
        roles: BTreeMap::new(),
        backends: BTreeMap::new(),
        settings: json!({ "argon2": "minimum" }),
        external: BTreeMap::new(),
        scenario: None,
        search: None,
        faults: Vec::new(),
        abort_when: None,
    }
}

fn levels(label: &str, users: f64) -> Levels {
    BTreeMap::from([
        ("architecture".to_owned(), Level::Text(label.to_owned())),
        ("users".to_owned(), Level::Int(users as i64)),
    ])
}

/// Three trials that differ by two percent.
fn three(mean: f64) -> Estimate {
    let values = vec![mean * 0.98, mean, mean * 1.02];
    Estimate {
        mean: Some(mean),
        low: Some(mean * 0.95),
        high: Some(mean * 1.05),
        values,
        null_reason: None,
        thin: None,
    }
}

fn curve(label: &str, goodput: &[f64; 5], p95: &[f64; 5], no_memory_at_16: bool) -> Curve {
    let cells = (0..USERS.len()).map(|place| cell(label, place, goodput[place], p95[place], no_memory_at_16));
    let interval = |estimate: f64| Interval { estimate, low: estimate * 0.93, high: estimate * 1.08 };
    Curve {
        label: label.to_owned(),
        levels: BTreeMap::from([("architecture".to_owned(), Level::Text(label.to_owned()))]),
        cells: cells.collect(),
        usl: match label {
            MONOLITH => Fitted::Fit(Usl {
                lambda: interval(46.0),
                sigma: interval(0.021),
                kappa: interval(0.00004),
                n_max: Some(interval(156.0)),
                kappa_zero: 0.02,
                kappa_supported: true,
                over: "concurrent operations".to_owned(),
            }),
            _ => Fitted::None("5 levels, of which 2 are bound by the client; 4 are needed".to_owned()),
        },
        knee: Fitted::Fit(Knee {
            n: interval(if label == MONOLITH { 33.0 } else { 58.0 }),
            capacity: interval(goodput[4]),
            saturated: label == MONOLITH,
        }),
    }
}

fn cell(label: &str, place: usize, goodput: f64, p95: f64, no_memory_at_16: bool) -> CellSummary {
    let users = USERS[place];
    let cpu = (goodput / 1500.0).min(0.98);
    let memory = if label == MONOLITH { 0.061 } else { 0.142 } + users * 0.0002;
    let mut metrics: BTreeMap<String, Estimate> = [
        ("throughput_rps", goodput * 1.002),
        ("goodput_rps", goodput),
        ("latency_p50_ms", p95 * 0.45),
        ("latency_p95_ms", p95),
        ("latency_p99_ms", p95 * 1.9),
        ("wait_p95_ms", p95 * 0.3),
        ("work_p95_ms", p95 * 0.8),
        ("error_rate", if place == 4 { 0.21 } else { 0.0 }),
        ("total_cpu_units", cpu),
        ("total_mem_gb", memory),
        ("rps_per_cpu_unit", goodput / cpu),
        ("rps_per_gb_mem", goodput / memory),
    ]
    .into_iter()
    .map(|(key, mean)| (key.to_owned(), three(mean)))
    .collect();
    let mut guards = Vec::new();
    let at = format!("{label}, users {users}");
    if place == 0 {
        metrics.entry("latency_p99_ms".to_owned()).and_modify(|estimate| estimate.thin = Some(812));
        guards.push(guard("too-few-ops", &["latency_p99"], &at, "812 requests behind p99", "measure for longer"));
    }
    if place == 1 {
        guards.push(guard(
            "client-bound",
            &["throughput", "efficiency", "crossover"],
            &at,
            "throughput is 97 % of what 16 users with 20 ms of think time can ask for",
            "more users, or less think time: this level says nothing about the system's limit",
        ));
    }
    if place == 1 && no_memory_at_16 {
        let none = Estimate {
            null_reason: Some("the process ended before its second sample".to_owned()),
            ..Estimate::default()
        };
        metrics.insert("total_mem_gb".to_owned(), none.clone());
        metrics.insert("rps_per_gb_mem".to_owned(), none);
    }
    let invalid = usize::from(label == MONOLITH && place == 4);
    let levels = levels(label, users);
    CellSummary { x: users, levels, valid: 3 - invalid, invalid, metrics, guards, stream: None, recovery: None }
}

fn guard(id: &str, touches: &[&str], at: &str, what: &str, advice: &str) -> Guard {
    Guard {
        id: id.to_owned(),
        touches: touches.iter().map(|touched| (*touched).to_owned()).collect(),
        at: at.to_owned(),
        what: what.to_owned(),
        advice: advice.to_owned(),
    }
}

fn crossovers() -> Vec<Crossover> {
    let crossover = |metric: &str, at: f64, low: f64, high: f64| Crossover {
        metric: metric.to_owned(),
        a: MONOLITH.to_owned(),
        b: MICROSERVICES.to_owned(),
        at: Some(Interval { estimate: at, low, high }),
        probability: 0.99,
        statement: format!(
            "{metric}: {MICROSERVICES} is better from {at} users on (95 %: {low}–{high}), over 3 trials a level."
        ),
        unknown: None,
        shown: Vec::new(),
        left_out: Vec::new(),
    };
    vec![crossover("latency_p95_ms", 83.0, 71.0, 97.0), crossover("goodput_rps", 68.0, 59.0, 79.0)]
}

fn trials(curves: &[Curve]) -> Vec<TrialSummary> {
    let cells = curves.iter().flat_map(|curve| curve.cells.iter().map(move |cell| (&curve.label, cell)));
    let repeated = cells.flat_map(|(label, cell)| (0..3).map(move |repetition| (label, cell, repetition)));
    repeated.enumerate().map(|(index, (label, cell, repetition))| trial(index, label, cell, repetition)).collect()
}

fn trial(index: usize, label: &str, cell: &CellSummary, repetition: u32) -> TrialSummary {
    let valid = !(cell.invalid > 0 && repetition == 2);
    let value =
        |key: &str| cell.metrics.get(key).and_then(|estimate| estimate.values.get(repetition as usize).copied());
    let goodput = value("goodput_rps").unwrap_or_default();
    let spread = |p95: Option<f64>| Spread {
        p50: p95.map(|p| p * 0.45),
        p95,
        p99: p95.map(|p| p * 1.9),
        avg: p95.map(|p| p * 0.5),
        max: p95.map(|p| p * 3.0),
        ..Spread::default()
    };
    let latency = spread(value("latency_p95_ms"));
    let requests = (goodput * 10.0) as u64;
    let kind = |kind: &str, share: u64, failed: u64| KindSummary {
        kind: kind.to_owned(),
        requests: requests / share,
        ok: requests / share - failed,
        failed,
        latency: latency.clone(),
        errors: if failed > 0 {
            BTreeMap::from([("503 Service Unavailable".to_owned(), failed)])
        } else {
            BTreeMap::new()
        },
        ..KindSummary::default()
    };
    let second = |second: u32| SecondSummary {
        second,
        measured: second >= 2,
        offered: goodput as u64,
        ok: (goodput * (1.0 + 0.04 * f64::from(second * 7 % 5) - 0.08) * f64::from((second + 1).min(3)) / 3.0) as u64,
        latency: spread(value("latency_p95_ms").map(|p| p * (1.0 + 0.06 * f64::from(second * 5 % 7) - 0.18))),
        ..SecondSummary::default()
    };
    TrialSummary {
        index,
        name: format!("{index:03}_{}_u{}_r{repetition}", label.split(' ').next().unwrap_or_default(), cell.x),
        levels: cell.levels.clone(),
        repetition,
        seed: 7_000 + index as u64,
        valid,
        invalid: (!valid).then(|| "task-service ended with signal 9 in second 6".to_owned()),
        measured_s: 10.0,
        users: Some(cell.x as u32),
        throughput_rps: value("throughput_rps"),
        goodput_rps: value("goodput_rps"),
        offered_rps: None,
        latency_p50_ms: latency.p50,
        latency_p95_ms: latency.p95,
        latency_p99_ms: latency.p99,
        latency_p90_ms: latency.p90,
        latency_p999_ms: latency.p999,
        latency_count: requests,
        latency_avg_ms: latency.avg,
        latency_max_ms: latency.max,
        wait: latency.clone(),
        work: latency.clone(),
        lag: Spread::default(),
        error_rate: value("error_rate"),
        total_requests: requests,
        total_failures: 3,
        failed: 2,
        unknown: 1,
        wrong: 0,
        total_cpu_units: value("total_cpu_units"),
        total_mem_gb: value("total_mem_gb"),
        rps_per_cpu_unit: value("rps_per_cpu_unit"),
        rps_per_gb_mem: value("rps_per_gb_mem"),
        kinds: vec![kind("GET /api/tasks", 2, 0), kind("POST /api/tasks", 3, 2), kind("GET /api/stats", 6, 1)],
        replicas: Vec::new(),
        seconds: (0..12).map(second).collect(),
        guards: cell.guards.clone(),
        null_reasons: BTreeMap::new(),
        stream: None,
        recovery: None,
        lost: None,
    }
}

/// A study of streams, as a run would have summarised it.
fn of_streams(
    experiment: Experiment,
    trials: Vec<TrialSummary>,
    journals: crate::report::Journals,
    deployment: &str,
) -> Fixture {
    let study = crate::measure::summarize_study(&experiment, &trials);
    let verdict = serde_json::to_value(crate::verdict::judge(&experiment, &study, 0)).unwrap();
    Fixture {
        planned: trials.len(),
        environment: json!({ "cpus": 2, "version": "0.1.0", "deployment": deployment }),
        notes: Vec::new(),
        experiment,
        study,
        trials,
        verdict,
        journals,
        tries: BTreeMap::new(),
    }
}

fn stable_slo(mut experiment: Experiment) -> Experiment {
    experiment.slo = vec![Slo::try_from("stable".to_owned()).unwrap()];
    experiment
}

/// One stream that falls behind, or keeps up.
pub fn stream(processing_ms: f64, warm_up_ms: f64) -> Fixture {
    let mut made = MadeStream::of(processing_ms);
    let shake = |place: usize, took: f64| took * (1.0 + 0.01 * ((place * 7 % 5) as f64 - 2.0));
    made.processing = made.processing.iter().enumerate().map(|(place, took)| shake(place, *took)).collect();
    made.processing[0] = warm_up_ms;
    let trial = made.trial(0, &[]);
    let journals = [(trial.name.clone(), made.journal())].into();
    of_streams(stable_slo(stream_experiment(&[])), vec![trial], journals, "processes")
}

/// Three trials of a stream, cut in the middle of a batch, of which the first twenty seconds were not measured.
pub fn warmed_up() -> Fixture {
    let (mut trials, mut journals) = (Vec::new(), crate::report::Journals::new());
    for (index, took) in [2_531.0, 2_400.0, 2_700.0].into_iter().enumerate() {
        let made = MadeStream::of(took);
        let mut trial = made.trial(index, &[]);
        trial.seconds.iter_mut().for_each(|second| second.measured = second.second >= 20);
        let ended = |entry: &kit::batch::Entry| match entry {
            kit::batch::Entry::Batch(batch) => {
                batch.started_ms.unwrap_or(0.0).max(batch.ended_ms.unwrap_or(0.0)) < 112e3
            }
            _ => true,
        };
        journals.insert(trial.name.clone(), made.journal().into_iter().filter(ended).collect());
        trials.push(trial);
    }
    of_streams(stable_slo(stream_experiment(&[])), trials, journals, "processes")
}

/// Processing as the published job has it: 15 ms a record on the slots that receivers leave, and 0.384 s.
fn published(rate: i64, cores: i64, interval_ms: f64, shake: f64) -> MadeStream {
    let records = rate as f64 * interval_ms / 1e3;
    let processing = shake * (384.0 + 15.0 * records / (cores as f64 - 1.0));
    let short = MadeStream { seconds: 60, ..MadeStream::of(processing) };
    MadeStream { rate: rate as f64, cores: cores as u32, interval_ms, ..short }
}

/// The rate over two numbers of cores, three trials each.
pub fn stream_sweep() -> Fixture {
    let (rates, cores) = ([80, 120, 160, 200], [4]);
    let mut experiment = stable_slo(stream_experiment(&[("rate", &rates), ("cores", &cores)]));
    experiment.trials = 3;
    let mut trials = Vec::new();
    for rate in rates {
        for shake in [0.98, 1.0, 1.02] {
            trials.push(published(rate, 4, 2_000.0, shake).trial(trials.len(), &[("rate", rate), ("cores", 4)]));
        }
    }
    of_streams(experiment, trials, Default::default(), "processes")
}

/// The batch interval, one trial each, simulated.
pub fn stream_intervals() -> Fixture {
    let intervals = [500, 1_000, 2_000, 4_000];
    let mut trials: Vec<TrialSummary> = Vec::new();
    for interval in intervals {
        let made = MadeStream { seconds: 60, processing: vec![0.0; 56], ..published(143, 4, interval as f64, 1.0) };
        let took = 384.0 + 15.0 * 143.0 * interval as f64 / 1e3 / 3.0;
        let made = MadeStream { processing: vec![took; 120], ..made };
        trials.push(made.trial(trials.len(), &[("batch_interval_ms", interval)]));
    }
    let experiment = stable_slo(stream_experiment(&[("batch_interval_ms", &intervals)]));
    of_streams(experiment, trials, Default::default(), "simulated")
}

/// Rate and cores.
pub fn stream_map() -> Fixture {
    let (rates, cores) = ([60, 120, 180, 240, 300], [2, 3, 4, 6, 8]);
    let mut trials: Vec<TrialSummary> = Vec::new();
    for rate in rates {
        for cores in cores {
            trials.push(published(rate, cores, 2_000.0, 1.0).trial(trials.len(), &[("rate", rate), ("cores", cores)]));
        }
    }
    let experiment = stable_slo(stream_experiment(&[("rate", &rates), ("cores", &cores)]));
    of_streams(experiment, trials, Default::default(), "simulated")
}

/// The highest rate of [`published`] at an interval of 2 s.
pub fn published_rate(levels: &Levels) -> Option<f64> {
    Some((2_000.0 - 384.0) * (levels.get("cores")?.as_f64()? - 1.0) / 15.0 / 2.0)
}

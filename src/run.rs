//! The spine: plan → each trial → save → judge → report. The only module that orders effects.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use crate::archive::Archive;
use crate::database::Server;
use crate::deploy::in_process::InProcess;
use crate::deploy::processes::Processes;
use crate::deploy::trial::{self, Ended, Site};
use crate::deploy::{Deployment, pinning};
use crate::error::input;
use crate::experiment::{DeploymentKind, Experiment, Levels, Trial};
use crate::faults::journal::Journal;
use crate::faults::{self, FaultKind, heal, leftovers, possible};
use crate::interrupt::Interrupt;
use crate::load::Scenario;
use crate::measure::{self, StudySummary, TrialSummary};
use crate::progress::Progress;
use crate::report::{self, ReportInput};
use crate::verdict::{self, Verdict};
use crate::{dashboard, environment, schedule, systems};

/// How to run, beside the experiment.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where archives go.
    pub out: PathBuf,
    /// A database server's URL; a secret, so not part of the experiment.
    pub database_url: Option<String>,
    /// Do not ask external systems whether they are there.
    pub skip_health_check: bool,
    /// Where the dashboard is served; none for no dashboard.
    pub ui: Option<std::net::SocketAddr>,
    /// Measure and save, but draw no report and print no summary: for a caller that reads the archive.
    pub quiet: bool,
}

/// Runs an experiment from the start; gives back the exit code.
///
/// # Errors
/// Wrong input, or surroundings that refuse something before or between trials.
pub fn run(experiment: &Experiment, options: &Options) -> anyhow::Result<u8> {
    check_cpus(experiment)?;
    check_memory(experiment)?;
    check_whole(experiment, "write it into the file, which is one that an archive keeps")?;
    let archive = Archive::create(&options.out, experiment, &environment::stamp())?;
    go_on(experiment, &archive, options)
}

/// Goes on with an archive that was interrupted. Secrets that it has left out are taken from the experiment that it was
/// started with, where that is `given` again.
///
/// # Errors
/// As [`run`]; and when a secret is missing, or `given` is another experiment, as input.
pub fn resume(archive: &Archive, given: Option<&Experiment>, options: &Options) -> anyhow::Result<u8> {
    let mut experiment = archive.experiment()?;
    if let Some(given) = given {
        if given.scenario.as_ref().map(Scenario::without_secrets) != experiment.scenario {
            let folder = archive.folder().display();
            return Err(input(format!(
                "the steps of {} are not those of {folder}; give the file of that run",
                given.name
            )));
        }
        experiment.scenario.clone_from(&given.scenario);
    }
    check_memory(&experiment)?;
    check_whole(&experiment, "give the file of that run as well (scalelab run FILE --resume DIR), or start it anew")?;
    go_on(&experiment, archive, options)
}

/// Whether everything that is to be sent is known.
fn check_whole(experiment: &Experiment, way_out: &str) -> anyhow::Result<()> {
    match experiment.scenario.as_ref().and_then(Scenario::left_out) {
        Some(what) => Err(input(format!("{what}, which an archive keeps in place of a secret; {way_out}"))),
        None => Ok(()),
    }
}

fn go_on(experiment: &Experiment, archive: &Archive, options: &Options) -> anyhow::Result<u8> {
    let _lock = archive.lock()?;
    kit::host::raise_open_files();
    let interrupt = Interrupt::listen("stopping; what is measured is kept")?;
    let system = systems::find(&experiment.system).ok_or_else(|| input("unknown system"))?;
    let budget = budget(experiment);
    let mut results = archive.results()?;
    let mut planned = schedule::initial(experiment, &archive.plan()?);
    archive.write_plan(&planned)?;
    if archive.environment()?.is_null() {
        archive.write_environment(&environment::describe(experiment, &budget))?;
    }
    if !options.skip_health_check {
        environment::check_external(experiment)?;
    }
    if !options.quiet {
        let of_faults = faults::check::notes(experiment, system);
        for note in system.warnings(experiment).into_iter().chain(of_faults).chain(heal::left_behind()) {
            eprintln!("note: {note}");
        }
    }
    let dashboard = options.ui.map(|addr| dashboard::serve(archive.folder(), addr)).transpose()?;
    if let Some(dashboard) = &dashboard {
        eprintln!("live page: {}", dashboard.url());
    }
    let processes = Processes::this_program()?;
    let (deployment, load_deployment): (&dyn Deployment, &dyn Deployment) = match experiment.deployment {
        DeploymentKind::InProcess => (&InProcess, &InProcess),
        // A simulation starts nothing.
        DeploymentKind::Processes | DeploymentKind::External | DeploymentKind::Simulated => (&processes, &processes),
    };
    let backend = experiment.backends.get("database").map_or("sqlite", String::as_str);
    let databases = Server::find(backend, options.database_url.as_deref())?;
    let run = environment::run_name(archive.folder());
    // A role that waits for its configuration is a child that can be stopped and killed.
    let look = || possible::Machine::look(Command::new(&processes.program).args(["serve", "lab", "load"]));
    let machine = (!experiment.faults.is_empty()).then(look);
    let journal = Arc::new(journal(experiment, &run, archive)?);
    let progress = Progress::new((!options.quiet).then(|| archive.folder()), planned.len(), results.len());

    let (mut broken, mut cut_short) = (None, None);
    let mut set_up = SetUp::default();
    while let Some(trial) = schedule::next(experiment, &mut planned, &results) {
        archive.write_plan(&planned)?;
        progress.begin(&trial, planned.len());
        let told = |what: &str, share: f64| progress.tell(what, share);
        let site = Site {
            experiment,
            system,
            deployment,
            load_deployment,
            processes: &processes,
            databases: &databases,
            budget: &budget,
            run: &run,
            machine: machine.as_ref(),
            journal: &journal,
            interrupt: &interrupt,
            progress: &told,
        };
        let ended = run_trial(&site, &trial, archive, &mut set_up);
        let left = leftovers::check(&journal.recorded());
        if !left.is_empty() {
            eprintln!("trial {}: {}", trial.name, leftovers::in_words(&[], &left));
        }
        match ended {
            Ok(Some(summary)) => {
                progress.end(&summary);
                results.push(summary);
            }
            Ok(None) => {
                cut_short = Some(trial);
                break;
            }
            Err(error) => {
                broken = Some(error);
                break;
            }
        }
    }
    progress.finish();
    if !options.quiet && experiment.deployment != DeploymentKind::Simulated {
        let started = journal.recorded();
        eprintln!("{}", leftovers::in_words(&started, &leftovers::check(&started)));
    }
    drop(journal);
    let left = planned.len().saturating_sub(results.len());
    if let Some(error) = broken {
        if !results.is_empty() {
            report(archive)?;
            eprintln!("{left} trials are left: scalelab run --resume {}", archive.folder().display());
        }
        // What broke off is told either way, and is the smaller trouble of the two.
        if verdict::exit_code_so_far(&results) == 1 {
            eprintln!("error: {error:#}");
            return Ok(1);
        }
        return Err(error);
    }
    set_up.say();
    if options.quiet {
        let all_well = !interrupt.is_asked() && results.iter().all(|trial| trial.valid);
        return Ok(if all_well { 0 } else { 3 });
    }
    let (study, verdict) = report(archive)?;
    print!("{}", text(archive, &study, &verdict)?);
    eprintln!("\nreport: {}", archive.report_page().display());
    if let Some(trial) = cut_short {
        say_so_far(experiment, archive, &trial)?;
    }
    if interrupt.is_asked() {
        eprintln!("interrupted; {left} trials are left: scalelab run --resume {}", archive.folder().display());
        return Ok(verdict::exit_code_so_far(&results));
    }
    Ok(verdict::exit_code(&verdict, results.iter().any(|trial| !trial.valid)))
}

/// Where it is written down what has to be undone. Without faults everything ends with the lab by itself, however it ends,
/// but what it has made stays: then a run goes on where nothing can be written down.
fn journal(experiment: &Experiment, run: &str, archive: &Archive) -> anyhow::Result<Journal> {
    if experiment.deployment == DeploymentKind::Simulated {
        return Ok(Journal::nowhere());
    }
    match Journal::open(run, archive.folder()) {
        Err(error) if experiment.faults.is_empty() => {
            eprintln!("note: {error:#}; should this run be killed, scalelab heal knows nothing of it");
            Ok(Journal::nowhere())
        }
        opened => opened,
    }
}

/// What a stream that was cut short came to, from what it told until then.
fn say_so_far(experiment: &Experiment, archive: &Archive, trial: &Trial) -> anyhow::Result<()> {
    let told = archive.journal(&trial.name)?;
    if !told.is_empty() {
        let window = experiment.window(&experiment.load.at(&trial.levels));
        let until = measure::stream::last_second(&told).clamp(window.start, window.end);
        println!("{}", measure::stream::summarize(&told, window.start..until).why);
    }
    Ok(())
}

/// Runs one trial and saves it; none when it was interrupted.
fn run_trial(
    site: &Site<'_>,
    trial: &Trial,
    archive: &Archive,
    set_up: &mut SetUp,
) -> anyhow::Result<Option<TrialSummary>> {
    let mut files = archive.begin_trial(trial)?;
    let ended = match site.experiment.deployment {
        DeploymentKind::Simulated => trial::simulate(site, trial, &mut files)?,
        _ => trial::run(site, trial, &mut files)?,
    };
    let Ended::Done(record) = ended else { return Ok(None) };
    let took_s = record.series.iter().find(|sample| sample.name == trial::SET_UP).and_then(|sample| sample.value);
    set_up.seconds += took_s.unwrap_or(0.0);
    set_up.trial_seconds += f64::from(record.window.end) + took_s.unwrap_or(0.0);
    let summary = measure::summarize_trial(&record);
    archive.write_failure(site.experiment, &record, &summary)?;
    archive.append_result(&summary)?;
    Ok(Some(summary))
}

/// How much of the time went into accounts and data.
#[derive(Default)]
struct SetUp {
    seconds: f64,
    trial_seconds: f64,
}

impl SetUp {
    /// More than a tenth is worth a word.
    fn say(&self) {
        if self.seconds > self.trial_seconds / 10.0 {
            eprintln!(
                "set-up took {:.0} s of {:.0} s; measure longer, or start with fewer accounts and data",
                self.seconds, self.trial_seconds
            );
        }
    }
}

/// Whether the CPUs that roles are given are there, before anything is written.
fn check_cpus(experiment: &Experiment) -> anyhow::Result<()> {
    let allowed = pinning::allowed();
    for (role, limits) in &experiment.roles {
        let cpus = limits.cpus.as_deref().map(crate::units::parse_cpus).transpose().map_err(input)?;
        if let Some(cpu) = cpus.iter().flatten().find(|cpu| !allowed.contains(cpu)) {
            let there = pinning::show(&allowed);
            let message =
                format!("role {role} is to run on CPU {cpu}, which is not there; this machine allows {there}");
            return Err(crate::error::surroundings(message));
        }
    }
    Ok(())
}

/// Whether what faults take of the memory is there, before anything is written.
fn check_memory(experiment: &Experiment) -> anyhow::Result<()> {
    let hogs = experiment.faults.iter().flat_map(|fault| &fault.kinds);
    let takes_memory = hogs.into_iter().any(|kind| matches!(kind, FaultKind::MemoryHog { .. }));
    let Some(system) = systems::find(&experiment.system).filter(|_| takes_memory) else { return Ok(()) };
    // Without a number nothing is taken: the fault will be skipped, and says so.
    let Ok(available) = possible::available_memory() else { return Ok(()) };
    faults::check::memory(experiment, system, available).map_err(|problem| input(problem.to_string()))
}

/// External systems are neither started nor pinned, so the generator may use everything.
fn budget(experiment: &Experiment) -> pinning::Budget {
    match experiment.deployment {
        DeploymentKind::External | DeploymentKind::Simulated => pinning::Budget { system: None, load: None },
        _ => pinning::budget(&pinning::allowed()),
    }
}

/// Summarises, judges and draws an archive, from the archive alone.
///
/// # Errors
/// When the archive is damaged, as input.
pub fn report(archive: &Archive) -> anyhow::Result<(StudySummary, Verdict)> {
    let experiment = archive.experiment()?;
    let trials = archive.results()?;
    let study = measure::summarize_study(&experiment, &trials);
    let missing = archive.plan()?.len().saturating_sub(trials.len());
    let verdict = verdict::judge(&experiment, &study, missing).with_writes(&trials, !experiment.faults.is_empty());
    archive.write_conclusions(&study, &verdict)?;
    with_input(archive, &study, &verdict, |input| {
        for file in report::render(input)? {
            archive.write(&file.path, &file.bytes)?;
        }
        Ok(())
    })?;
    Ok((study, verdict))
}

fn text(archive: &Archive, study: &StudySummary, verdict: &Verdict) -> anyhow::Result<String> {
    with_input(archive, study, verdict, |input| Ok(report::text_summary(input)))
}

fn with_input<T>(
    archive: &Archive,
    study: &StudySummary,
    verdict: &Verdict,
    body: impl FnOnce(&ReportInput<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let experiment = archive.experiment()?;
    let (trials, plan) = (archive.results()?, archive.plan()?);
    let system = systems::find(&experiment.system);
    let notes = system.map(|system| system.notes(&experiment)).unwrap_or_default();
    let model = |levels: &Levels| system?.highest_stable_rate(&experiment, levels);
    let journals = journals(archive, study, &trials)?;
    let tries = tries(archive, &trials)?;
    body(&ReportInput {
        experiment: &experiment,
        study,
        trials: &trials,
        verdict: &serde_json::to_value(verdict)?,
        environment: &archive.environment()?,
        planned: plan.len(),
        notes: &notes,
        journals: &journals,
        tries: &tries,
        highest_stable_rate: Some(&model),
    })
}

/// How often the roles of trials with faults tried at their upstreams, where they tell it.
fn tries(archive: &Archive, trials: &[TrialSummary]) -> anyhow::Result<report::Gauges> {
    let with_faults = trials.iter().filter(|trial| trial.recovery.is_some());
    with_faults.map(|trial| Ok((trial.name.clone(), archive.gauge(&trial.name, "tries")?))).collect()
}

/// What the engines of a stream told, where the report shows it over time: in a study of one cell.
fn journals(archive: &Archive, study: &StudySummary, trials: &[TrialSummary]) -> anyhow::Result<report::Journals> {
    let over_time = study.x.is_none() && study.is_stream();
    let of_streams = trials.iter().filter(|trial| over_time && trial.stream.is_some());
    of_streams.map(|trial| Ok((trial.name.clone(), archive.journal(&trial.name)?))).collect()
}

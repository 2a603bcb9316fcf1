//! Runs one trial somewhere and gives back its record.
//!
//! The order is always the same: databases, roles (each after its peers), generators with their set-up, a common start,
//! sampling each interval, stop, drain, last read, end. Whatever happens, what was started is ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kit::{OpsRecord, RoleConfig};

use super::{Deployment, Launch, Replica, pinning};
use crate::archive::TrialFiles;
use crate::database::{Databases, Server};
use crate::error::surroundings;
use crate::experiment::{DeploymentKind, Experiment, LoadPlan, Trial};
use crate::interrupt::Interrupt;
use crate::load::LoadSettings;
use crate::measure::{OpsLog, Participant, Sample, TrialRecord};
use crate::report::csv;
use crate::systems::{Assembly, Part, Simulation, System};
use crate::units;

/// What a trial needs beside the experiment.
pub struct Site<'a> {
    /// The experiment.
    pub experiment: &'a Experiment,
    /// The system under test.
    pub system: &'a dyn System,
    /// Where its roles run.
    pub deployment: &'a dyn Deployment,
    /// Where the generators run.
    pub load_deployment: &'a dyn Deployment,
    /// Where databases are made.
    pub databases: &'a Server,
    /// Who gets which CPUs.
    pub budget: &'a pinning::Budget,
    /// The run's name, part of every name it makes.
    pub run: &'a str,
    /// Ctrl-C.
    pub interrupt: &'a Interrupt,
    /// Told what is going on, with the share of the trial that is done.
    pub progress: &'a dyn Fn(&str, f64),
}

/// What came of a trial.
pub enum Ended {
    /// Its record.
    Done(Box<TrialRecord>),
    /// It was interrupted; what it had measured is in its files.
    Interrupted,
}

/// A replica that was started, with what the report says of it.
struct Started {
    participant: Participant,
    replica: Box<dyn Replica>,
    /// Whether it is told start and stop, and measures operations itself.
    measures: bool,
    /// The last reading: when, and CPU seconds.
    last: Option<(u64, f64)>,
}

/// All replicas, generators last. Dropped, all are ended.
struct Running {
    started: Vec<Started>,
    databases: Option<Databases>,
    /// Removed when dropped, after the replicas; a simulation has none.
    #[expect(dead_code, reason = "kept for its end")]
    scratch: Option<tempfile::TempDir>,
}

/// The longest one operation may take, in time-outs: connecting, the exchange, and both again after a lost connection.
pub const TIMEOUTS_OF_AN_OPERATION: u32 = 4;

/// The gauge that says how long accounts and data took to make, in seconds, before anything was measured.
pub const SET_UP: &str = "set_up_s";

/// A role that is not ready by then does not come up.
pub const READY_WITHIN: Duration = Duration::from_secs(60);

/// The same for a generator, which makes its users' accounts before.
pub const SET_UP_WITHIN: Duration = Duration::from_secs(900);

/// How often the lab looks whether a drain is over.
const LOOK: Duration = Duration::from_millis(20);

/// From the start signal to the first second, so that every generator has heard it.
const LEAD: Duration = Duration::from_millis(150);

/// Runs one trial.
///
/// # Errors
/// When something could not be started, or a replica could not be read, as surroundings.
pub fn run(site: &Site<'_>, trial: &Trial, files: &mut TrialFiles) -> anyhow::Result<Ended> {
    let assembly = site.system.assemble(site.experiment, &trial.levels);
    let plan = site.experiment.load.at(&trial.levels);
    (site.progress)("starting", 0.0);
    let mut running = start_system(site, trial, &assembly, files)?;
    if site.interrupt.is_asked() {
        return Ok(Ended::Interrupted);
    }
    let window = site.experiment.window(&plan);
    let mut collected = Collected::new(site.system.counted_kind())?;
    if let Some(entry) = assembly.entry {
        (site.progress)("setting up", 0.0);
        let clock = kit::Clock::real();
        let before_ns = clock.now_ns();
        start_load(site, trial, entry, &plan, files, &mut running)?;
        let set_up_s = (clock.now_ns() - before_ns) as f64 / 1e9;
        let set_up =
            Sample { t_s: 0.0, name: SET_UP.to_owned(), role: "load".to_owned(), replica: 1, value: Some(set_up_s) };
        files.series(std::slice::from_ref(&set_up))?;
        collected.series.push(set_up);
    }
    let failure = measure(site, trial, &plan, window.clone(), &mut running, files, &mut collected)?;
    let problems = running.stop();
    if site.interrupt.is_asked() {
        return Ok(Ended::Interrupted);
    }
    let failure = failure.or_else(|| problems.into_iter().next());
    let participants = running.started.iter().map(|started| started.participant.clone()).collect();
    Ok(Ended::Done(Box::new(collected.record(trial, plan, window, participants, failure))))
}

/// Runs one trial on a virtual clock: the same record from the system's model, without replicas.
///
/// # Errors
/// When what was measured cannot be kept.
pub fn simulate(site: &Site<'_>, trial: &Trial, files: &mut TrialFiles) -> anyhow::Result<Ended> {
    let assembly = site.system.assemble(site.experiment, &trial.levels);
    let plan = site.experiment.load.at(&trial.levels);
    let window = site.experiment.window(&plan);
    let until = Duration::from_secs(u64::from(window.end));
    let (clock, hand) = kit::Clock::manual();
    let admin = kit::admin::Admin::of_simulation(clock);
    let mut collected = Collected::new(site.system.counted_kind())?;
    let replica = Box::new(Elsewhere(super::AdminClient::Direct(Box::new(admin.clone()))));
    let participants: Vec<_> = assembly.parts.iter().map(simulated).collect();
    let Some(studied) = participants.iter().rfind(|participant| participant.under_test).cloned() else {
        anyhow::bail!("{} has no role to simulate", site.experiment.system);
    };
    let running = Running {
        started: vec![Started { participant: studied, replica, measures: true, last: None }],
        databases: None,
        scratch: None,
    };
    let mut passed_ns = 0;
    let mut each_second = |now_ns: u64| {
        hand.advance(Duration::from_nanos(now_ns.saturating_sub(passed_ns)));
        passed_ns = passed_ns.max(now_ns);
        if site.interrupt.is_asked() {
            anyhow::bail!("interrupted");
        }
        collected.read(&running, 0, 0.0, files)
    };
    let simulation = Simulation {
        until,
        recorder: &admin.recorder,
        series: &admin.series,
        journal: &admin.journal,
        each_second: &mut each_second,
    };
    let simulated = site.system.simulate(site.experiment, trial, simulation);
    if site.interrupt.is_asked() {
        return Ok(Ended::Interrupted);
    }
    simulated?;
    admin.control.set_drained();
    collected.read(&running, 0, 0.0, files)?;
    collected.finish(site, trial, &window, 0.0, files)?;
    Ok(Ended::Done(Box::new(collected.record(trial, plan, window, participants, None))))
}

/// Stands for a role in a simulation, which uses nothing.
fn simulated(part: &Part) -> Participant {
    let reason = Some("it was simulated".to_owned());
    Participant {
        role: part.role.to_owned(),
        replica: 1,
        under_test: part.under_test,
        cpus: None,
        no_memory: reason.clone(),
        no_cpu: reason,
    }
}

fn start_system(site: &Site<'_>, trial: &Trial, assembly: &Assembly, files: &TrialFiles) -> anyhow::Result<Running> {
    let scratch = tempfile::Builder::new().prefix("scalelab-").tempdir();
    let scratch =
        scratch.map_err(|error| surroundings(format!("cannot make a scratch folder: {error}; set TMPDIR")))?;
    let folder = scratch.path().to_owned();
    let mut running = Running { started: Vec::new(), databases: None, scratch: Some(scratch) };
    if site.experiment.deployment == DeploymentKind::External {
        return Ok(running);
    }
    let names: Vec<_> = assembly.parts.iter().filter_map(|part| part.database).collect();
    let unique = format!("{}_{}", site.run, trial.index);
    running.databases = Some(site.databases.make(&names, &folder, &unique)?);
    let secret = kit::secret()?;
    let admin_token = kit::secret()?;
    for part in &assembly.parts {
        for replica in 1..=part.replicas {
            if site.interrupt.is_asked() {
                return Ok(running);
            }
            let config = role_config(site, trial, part, replica, &running, &secret, &admin_token);
            let share = if part.under_test { &site.budget.system } else { &site.budget.load };
            let cpus = cpus_of(site, part.role, share.as_deref())?;
            launch(site, site.deployment, site.system.name(), part, config, cpus, files, &mut running)?;
        }
    }
    Ok(running)
}

fn role_config(
    site: &Site<'_>,
    trial: &Trial,
    part: &Part,
    replica: u32,
    running: &Running,
    secret: &str,
    admin_token: &str,
) -> RoleConfig {
    let mut config = RoleConfig::new(part.role);
    config.run = format!("{}-{}", site.run, trial.index);
    config.replica = replica;
    config.seed = trial.seed;
    config.admin_token = admin_token.to_owned();
    config.settings = site.system.role_settings(site.experiment, &trial.levels);
    config.secrets.insert("jwt_key".to_owned(), secret.to_owned());
    let url = part.database.and_then(|name| running.databases.as_ref()?.url(name));
    if let Some(url) = url {
        config.secrets.insert("database_url".to_owned(), url.to_owned());
    }
    for peer in part.peers {
        config.peers.insert((*peer).to_owned(), running.addresses(peer));
    }
    config
}

/// The CPUs of a role: its own in the experiment, or its side's share.
fn cpus_of(site: &Site<'_>, role: &str, share: Option<&[usize]>) -> anyhow::Result<Option<Vec<usize>>> {
    match site.experiment.roles.get(role).and_then(|limits| limits.cpus.as_deref()) {
        Some(cpus) => units::parse_cpus(cpus).map(Some).map_err(crate::error::input),
        None => Ok(share.map(<[usize]>::to_vec)),
    }
}

#[expect(clippy::too_many_arguments, reason = "one call of Deployment::launch, with what is kept of it")]
fn launch(
    site: &Site<'_>,
    deployment: &dyn Deployment,
    system: &str,
    part: &Part,
    config: RoleConfig,
    cpus: Option<Vec<usize>>,
    files: &TrialFiles,
    running: &mut Running,
) -> anyhow::Result<()> {
    let Part { role, under_test, measures, .. } = *part;
    let number = config.replica;
    let replica = deployment.launch(&Launch {
        system,
        role: crate::systems::find_role(system, role)?,
        config,
        cpus: cpus.as_deref(),
        log: &files.log(role, number),
        ready_within: if role == LOAD.role { SET_UP_WITHIN } else { READY_WITHIN },
        interrupted: &|| site.interrupt.is_asked(),
    });
    let replica = match replica {
        Ok(replica) => replica,
        // What was being started is gone; the caller sees the interruption.
        Err(_) if site.interrupt.is_asked() => return Ok(()),
        Err(error) => return Err(error),
    };
    let participant = Participant {
        role: role.to_owned(),
        replica: number,
        under_test,
        cpus: cpus.as_deref().map(pinning::show),
        no_memory: replica.no_memory().map(str::to_owned),
        no_cpu: None,
    };
    running.started.push(Started { participant, replica, measures, last: None });
    Ok(())
}

fn start_load(
    site: &Site<'_>,
    trial: &Trial,
    entry: &str,
    plan: &LoadPlan,
    files: &TrialFiles,
    running: &mut Running,
) -> anyhow::Result<()> {
    let experiment = site.experiment;
    let base_url =
        (experiment.deployment == DeploymentKind::External).then(|| external_url(experiment, trial)).flatten();
    let settings = LoadSettings {
        scenario: site.system.scenario(experiment, &trial.levels),
        plan: plan.clone(),
        workers: experiment.load_workers,
        timeout: experiment.timeout,
        ..LoadSettings::new(base_url)
    };
    let admin_token = kit::secret()?;
    for replica in 1..=experiment.load_workers {
        let mut config = RoleConfig::new("load");
        // Part of the names of accounts: short, and new for every trial.
        config.run = format!("{}-{}", site.run, trial.index);
        config.replica = replica;
        config.seed = trial.seed;
        config.admin_token.clone_from(&admin_token);
        config.settings = serde_json::to_value(&settings)?;
        config.peers.insert("target".to_owned(), running.addresses(entry));
        let cpus = cpus_of(site, "load", site.budget.load.as_deref())?;
        launch(site, site.load_deployment, "lab", &LOAD, config, cpus, files, running)?;
        if site.interrupt.is_asked() {
            return Ok(());
        }
    }
    if experiment.deployment == DeploymentKind::External {
        running.started.insert(0, Started::external());
    }
    Ok(())
}

/// The lab's own generator, as a part of every cell whose system has an entry for it.
const LOAD: Part =
    Part { role: "load", replicas: 1, peers: &[], database: None, port: 0, under_test: false, measures: true };

/// Where the system of a trial is, when it runs elsewhere.
pub fn external_url(experiment: &Experiment, trial: &Trial) -> Option<String> {
    let named =
        trial.levels.get("architecture").and_then(|architecture| experiment.external.get(&architecture.to_string()));
    named.or_else(|| experiment.external.get("default")).or_else(|| experiment.external.values().next()).cloned()
}

/// What was read so far.
struct Collected {
    ops: OpsLog,
    series: Vec<Sample>,
    journal: Vec<kit::batch::Entry>,
    /// Everything up to the last row of the history.
    totals: OpsRecord,
    /// The kind whose operations the history counts, once there is one; all until then.
    counted: Option<&'static str>,
    seen_counted: bool,
    /// Records of seconds whose row of the history is not written yet, by kind.
    waiting: BTreeMap<u32, BTreeMap<String, OpsRecord>>,
    /// The gauge `users` of each generator, by second.
    users: BTreeMap<usize, BTreeMap<u32, f64>>,
    /// What was read last from each: operations, gauges, journal.
    read: BTreeMap<usize, (u64, u64, u64)>,
}

/// Measures until the window has passed; gives back why the trial is not valid, if so.
fn measure(
    site: &Site<'_>,
    trial: &Trial,
    plan: &LoadPlan,
    window: std::ops::Range<u32>,
    running: &mut Running,
    files: &mut TrialFiles,
    collected: &mut Collected,
) -> anyhow::Result<Option<String>> {
    let clock = kit::Clock::real();
    if site.interrupt.is_asked() {
        return Ok(None);
    }
    let origin_ns = clock.now_ns() + LEAD.as_nanos() as u64;
    let start_unix_s = (clock.wall_ns() + LEAD.as_nanos() as u64) as f64 / 1e9;
    for started in running.measuring() {
        let admin = started.replica.admin();
        let before = clock.now_ns();
        let reading = admin.clock()?;
        let here = before.midpoint(clock.now_ns());
        // On one machine the offset is the error of reading it; elsewhere it is what makes the start common.
        let offset = i128::from(reading.monotonic_ns) - i128::from(here);
        admin.start(u64::try_from(i128::from(origin_ns) + offset).unwrap_or(0))?;
    }
    let interval = site.experiment.sample_interval.as_nanos() as u64;
    let end_ns = origin_ns + u64::from(window.end) * 1_000_000_000;
    let mut next = origin_ns;
    let mut failure = None;
    loop {
        let now = clock.now_ns();
        if now < next && site.interrupt.wait(Duration::from_nanos(next - now)) {
            break;
        }
        sample(running, origin_ns, &clock, collected, files)?;
        let read = collected.read(running, origin_ns, start_unix_s, files);
        // What has ended by itself is the reason why it could not be read.
        failure = running.ended().or_else(|| read.err().map(|error| format!("{error:#}")));
        if failure.is_some() {
            break;
        }
        if next >= end_ns {
            break;
        }
        let done = (next - origin_ns) as f64 / (end_ns - origin_ns) as f64;
        (site.progress)(phase(plan, site.experiment.warmup, done * f64::from(window.end)), done);
        next = (next + interval).min(end_ns);
    }
    (site.progress)("draining", 1.0);
    if failure.is_none() && !site.interrupt.is_asked() {
        match drain(site, trial, origin_ns, start_unix_s, running, files, collected) {
            Ok(problem) => failure = problem,
            Err(error) => failure = Some(format!("{error:#}")),
        }
    }
    if let Err(error) = collected.read(running, origin_ns, start_unix_s, files) {
        failure = failure.or_else(|| running.ended()).or_else(|| Some(format!("{error:#}")));
    }
    collected.finish(site, trial, &window, start_unix_s, files)?;
    Ok(failure)
}

fn phase(plan: &LoadPlan, warmup: Duration, at_s: f64) -> &'static str {
    let ramp_s = plan.ramp().as_secs_f64();
    if at_s < ramp_s {
        "users start"
    } else if at_s < ramp_s + warmup.as_secs_f64() {
        "warming up"
    } else {
        "measuring"
    }
}

/// The HTTP method of a kind of operation, for the tables.
fn method_of(site: &Site<'_>, trial: &Trial, kind: &str) -> String {
    let scenario = site.system.scenario(site.experiment, &trial.levels);
    let step = scenario.steps.iter().find(|step| step.name.as_deref() == Some(kind));
    step.map_or_else(String::new, |step| step.method.clone())
}

/// Readings of every replica, at the same place of every interval.
fn sample(
    running: &mut Running,
    origin_ns: u64,
    clock: &kit::Clock,
    collected: &mut Collected,
    files: &mut TrialFiles,
) -> anyhow::Result<()> {
    let mut samples = Vec::new();
    for started in &mut running.started {
        let usage = started.replica.usage();
        let now = clock.now_ns();
        let t_s = (now.saturating_sub(origin_ns)) as f64 / 1e9;
        let cpu = match (usage.cpu_s, started.last) {
            (Some(cpu_s), Some((then, before))) if now > then => Some((cpu_s - before) / ((now - then) as f64 / 1e9)),
            _ => None,
        };
        let first = started.last.is_none();
        started.last = usage.cpu_s.map(|cpu_s| (now, cpu_s));
        let Participant { role, replica, .. } = &started.participant;
        let mut push = |name: &str, value: Option<f64>| {
            samples.push(Sample { t_s, name: name.to_owned(), role: role.clone(), replica: *replica, value });
        };
        if !first {
            push("cpu", cpu);
        }
        push("rss_bytes", usage.rss_bytes.map(|bytes| bytes as f64));
        push("open_files", usage.open_files.map(|files| files as f64));
        push("threads", usage.threads.map(|threads| threads as f64));
    }
    files.series(&samples)?;
    collected.series.append(&mut samples);
    Ok(())
}

impl Collected {
    fn new(counted: Option<&'static str>) -> anyhow::Result<Self> {
        Ok(Self {
            counted,
            seen_counted: false,
            ops: OpsLog::new()?,
            series: Vec::new(),
            journal: Vec::new(),
            totals: OpsRecord::default(),
            waiting: BTreeMap::new(),
            users: BTreeMap::new(),
            read: BTreeMap::new(),
        })
    }

    /// Takes what was measured since the last read: operations, gauges, journal.
    fn read(
        &mut self,
        running: &Running,
        origin_ns: u64,
        start_unix_s: f64,
        files: &mut TrialFiles,
    ) -> anyhow::Result<()> {
        let mut open_from = u32::MAX;
        let mut samples = Vec::new();
        for (index, started) in running.started.iter().enumerate().filter(|(_, started)| started.measures) {
            let (mut ops_read, mut series_read, mut journal_read) = self.read.get(&index).copied().unwrap_or_default();
            let admin = started.replica.admin();
            for line in admin.ops(ops_read)?.lines() {
                let record = self.ops.add(line)?;
                if record.open {
                    // The seconds from the oldest open one on are not complete.
                    open_from = open_from.min(record.second);
                } else {
                    pass(&mut ops_read, record.seq, "seconds of operations", started)?;
                    self.seen_counted |= self.counted == Some(record.kind.as_str());
                    let of_second = self.waiting.entry(record.second).or_default();
                    of_second.entry(record.kind.clone()).or_default().merge(&record);
                }
            }
            let Participant { role, replica, .. } = &started.participant;
            for line in admin.series(series_read)?.lines() {
                let point: kit::series::Point = serde_json::from_str(line)?;
                pass(&mut series_read, point.seq, "gauges", started)?;
                let t_s = point.at_ns.saturating_sub(origin_ns) as f64 / 1e9;
                if point.name == "users" {
                    self.users.entry(index).or_default().insert(t_s as u32, point.value.unwrap_or(0.0));
                }
                let (role, replica) = (role.clone(), *replica);
                samples.push(Sample { t_s, name: point.name, role, replica, value: point.value });
            }
            let told = admin.journal(journal_read)?;
            for line in told.lines() {
                let line: kit::journal::Line<kit::batch::Entry> = serde_json::from_str(line)?;
                pass(&mut journal_read, line.seq, "entries of the journal", started)?;
                self.journal.push(line.entry);
            }
            files.journal(&told)?;
            self.read.insert(index, (ops_read, series_read, journal_read));
        }
        files.series(&samples)?;
        self.series.append(&mut samples);
        self.write_history(open_from, start_unix_s, files)
    }

    /// Writes what is written whole once the trial has ended.
    fn finish(
        &mut self,
        site: &Site<'_>,
        trial: &Trial,
        window: &std::ops::Range<u32>,
        start_unix_s: f64,
        files: &mut TrialFiles,
    ) -> anyhow::Result<()> {
        self.write_history(u32::MAX, start_unix_s, files)?;
        let measured_s = f64::from(window.end - window.start);
        files.finish(&self.ops, window.clone(), measured_s, &|kind| method_of(site, trial, kind), start_unix_s)
    }

    fn record(
        self,
        trial: &Trial,
        load: LoadPlan,
        window: std::ops::Range<u32>,
        participants: Vec<Participant>,
        failure: Option<String>,
    ) -> TrialRecord {
        let Self { ops, series, journal, .. } = self;
        let trial = trial.clone();
        TrialRecord {
            trial,
            load,
            ops,
            series,
            journal,
            window,
            measured_s: None,
            participants,
            failure,
            faults: Vec::new(),
            lost: None,
            users: BTreeMap::new(),
            repeatable: BTreeSet::new(),
        }
    }

    /// How many users all generators had in a second.
    fn users_at(&self, second: u32) -> u32 {
        let last = |gauge: &BTreeMap<u32, f64>| gauge.range(..=second).next_back().map_or(0.0, |(_, users)| *users);
        self.users.values().map(last).sum::<f64>() as u32
    }

    /// Writes the rows of complete seconds before `until`.
    fn write_history(&mut self, until: u32, start_unix_s: f64, files: &mut TrialFiles) -> anyhow::Result<()> {
        while let Some(entry) = self.waiting.first_entry() {
            // A second of another generator may still be on its way: rows lag one second behind the newest.
            if *entry.key() >= until {
                break;
            }
            let (second, kinds) = entry.remove_entry();
            let mut record = OpsRecord::default();
            let counts = |kind: &str| !self.seen_counted || self.counted == Some(kind);
            kinds.iter().filter(|(kind, _)| counts(kind)).for_each(|(_, of_kind)| record.merge(of_kind));
            self.totals.merge(&record);
            let unix_s = (start_unix_s + f64::from(second)) as u64;
            files.history(&csv::history_row(unix_s, self.users_at(second), &record, &self.totals))?;
        }
        Ok(())
    }
}

/// Passes on to the next of what a role tells in a row. It keeps what nobody has read for a while and no longer, and a
/// trial that lacks some of it must not look whole.
fn pass(read: &mut u64, seq: u64, what: &str, started: &Started) -> anyhow::Result<()> {
    let lost = seq.saturating_sub(*read + 1);
    *read = seq;
    let Participant { role, replica, .. } = &started.participant;
    anyhow::ensure!(
        lost == 0,
        "{lost} {what} of {role} {replica} are lost, because they were not read in time; give the lab more CPU time, or \
         have fewer told (a longer batch interval, a lower rate)"
    );
    Ok(())
}

/// Stops what makes the load, then what measures beside it, and waits until what they had begun has ended, or been
/// given up; gives back why not, if so. Sampling and reading go on meanwhile, because draining may take a while.
fn drain(
    site: &Site<'_>,
    trial: &Trial,
    origin_ns: u64,
    start_unix_s: f64,
    running: &mut Running,
    files: &mut TrialFiles,
    collected: &mut Collected,
) -> anyhow::Result<Option<String>> {
    let at_most = site.system.drain_within(site.experiment, &trial.levels);
    let at_most = at_most.unwrap_or(site.experiment.timeout * TIMEOUTS_OF_AN_OPERATION) + Duration::from_secs(2);
    let interval = site.experiment.sample_interval.as_nanos() as u64;
    let clock = kit::Clock::real();
    for under_test in [false, true] {
        let begun_ns = clock.now_ns();
        let mut next_ns = begun_ns + interval;
        running.stop_measuring(under_test);
        while let Some(problem) = running.undrained(under_test) {
            let now_ns = clock.now_ns();
            if now_ns > begun_ns + at_most.as_nanos() as u64 {
                let waited_s = at_most.as_secs();
                return Ok(Some(format!("{problem} within {waited_s} s; its last seconds are missing")));
            }
            if let Some(ended) = running.ended() {
                return Ok(Some(ended));
            }
            if now_ns >= next_ns {
                next_ns += interval;
                sample(running, origin_ns, &clock, collected, files)?;
                collected.read(running, origin_ns, start_unix_s, files)?;
            }
            if site.interrupt.wait(LOOK) {
                return Ok(None);
            }
        }
    }
    Ok(None)
}

impl Started {
    /// Stands for the system when it runs elsewhere, so that what is not measured has a name and a reason.
    fn external() -> Self {
        let reason = Some("the system runs elsewhere".to_owned());
        let participant = Participant {
            role: "external".to_owned(),
            replica: 1,
            under_test: true,
            cpus: None,
            no_memory: reason.clone(),
            no_cpu: reason,
        };
        let replica = Box::new(Elsewhere(super::AdminClient::http("", "")));
        Self { participant, replica, measures: false, last: None }
    }
}

/// A replica that nobody here started.
struct Elsewhere(super::AdminClient);

impl Replica for Elsewhere {
    fn addr(&self) -> String {
        String::new()
    }
    fn admin(&self) -> &super::AdminClient {
        &self.0
    }
    fn usage(&mut self) -> kit::usage::Usage {
        kit::usage::Usage::default()
    }
    fn no_memory(&self) -> Option<&'static str> {
        Some("the system runs elsewhere")
    }
    fn ended(&mut self) -> Option<String> {
        None
    }
    fn stop(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
    fn pid(&self) -> Option<u32> {
        None
    }
}

impl Running {
    fn addresses(&self, role: &str) -> Vec<String> {
        let of_role = self.started.iter().filter(|started| started.participant.role == role);
        of_role.map(|started| started.replica.addr()).collect()
    }

    fn measuring(&self) -> impl Iterator<Item = &Started> {
        self.started.iter().filter(|started| started.measures)
    }

    /// Tells those that measure to begin nothing new.
    fn stop_measuring(&self, under_test: bool) {
        for started in self.measuring().filter(|started| started.participant.under_test == under_test) {
            if let Err(error) = started.replica.admin().stop() {
                // It may have died, which the caller sees.
                eprintln!("stopping {}: {error:#}", started.participant.role);
            }
        }
    }

    /// One that measures and has not ended what it had begun, in words.
    fn undrained(&self, under_test: bool) -> Option<String> {
        let mut asked = self.measuring().filter(|started| started.participant.under_test == under_test);
        asked.find_map(|started| {
            let role = &started.participant.role;
            match started.replica.admin().health() {
                Ok(health) if health.drained => None,
                Ok(_) => Some(format!("{role} did not end")),
                Err(error) => Some(format!("{role} could not be asked whether it has ended ({error:#})")),
            }
        })
    }

    fn ended(&mut self) -> Option<String> {
        self.started.iter_mut().find_map(|started| started.replica.ended())
    }

    /// Ends all, generators first and every role before its peers; gives back what went wrong.
    fn stop(&mut self) -> Vec<String> {
        let ended = self.started.iter_mut().rev().filter_map(|started| started.replica.stop().err());
        ended.map(|error| format!("{error:#}")).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for started in self.started.iter_mut().rev() {
            let _ = started.replica.stop();
        }
        // Databases are dropped once nobody uses them.
        self.started.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_role_forgot_before_it_was_read_is_told() {
        let (mut read, of) = (4, Started::external());
        assert!([5, 6, 7].iter().all(|seq| pass(&mut read, *seq, "gauges", &of).is_ok()));
        let error = pass(&mut read, 11, "gauges", &of).unwrap_err().to_string();
        assert!(error.starts_with("3 gauges of") && error.contains("were not read in time"), "{error}");
        assert!(pass(&mut read, 12, "gauges", &of).is_ok());
    }
}

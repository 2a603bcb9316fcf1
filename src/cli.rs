//! The command line: parse, call, exit code. Data goes to standard output, talk to standard error.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::archive::Archive;
use crate::error::{self, input};
use crate::experiment::{DeploymentKind, Experiment, Level, Levels, LoadPlan, RoleLimits, file};
use crate::faults::heal;
use crate::run::{self, Options};
use crate::verdict::Slo;
use crate::{compare, dashboard, doctor, exercise, listing, load_url, selftest, systems, units, up, workloads};

mod fail;
mod proxy;
mod stream;

/// What happens when it grows? Runs systems under load, measures them, and explains the result.
#[derive(Parser)]
#[command(name = "scalelab", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run an experiment: a file, or the name of one that comes along
    Run(RunArgs),
    /// Load any HTTP or HTTPS address
    Load(load_url::LoadUrlArgs),
    /// The task tracker, as a monolith or as microservices
    #[command(subcommand)]
    Arch(Arch),
    /// A stream in micro-batches: its phases, or its source alone
    #[command(subcommand)]
    Stream(stream::Stream),
    /// Learn by doing: a file with blanks, a goal, and a checker
    #[command(subcommand)]
    Exercise(exercise::ExerciseVerb),
    /// Stand between any TCP client and its server, and break the link on purpose, until Ctrl-C
    Proxy(proxy::ProxyArgs),
    /// Start a system to use by hand, until Ctrl-C
    Up(up::UpArgs),
    /// Name the systems, where they run, and the experiments that come along
    List,
    /// Show the trials of an experiment without running them
    Plan(PlanArgs),
    /// Draw the report of an archive again, from the archive alone
    Report(ReportArgs),
    /// Show a live page of a run, or of an archive that is there, until Ctrl-C
    Watch(WatchArgs),
    /// Compare two archives: improved, regressed or inconclusive
    Compare(CompareArgs),
    /// Say what this machine can run and break, and how to get the rest
    Doctor,
    /// Undo what runs that were killed have left: processes, folders, databases
    Heal(HealArgs),
    /// Prove the instrument against a server whose answers are known
    Selftest(selftest::SelftestArgs),
    /// Run one role as this process (the lab does this; by hand, give --config)
    Serve(ServeArgs),
}

#[derive(Args)]
struct RunArgs {
    /// A TOML file, or a name such as task-tracker/demo-local
    #[arg(required_unless_present = "resume")]
    experiment: Option<String>,
    /// Go on with an archive that was interrupted; with the file too, secrets of its steps come from there
    #[arg(long, value_name = "DIR")]
    resume: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// Flags of every verb that makes an archive.
#[derive(Args, Clone, Default)]
struct Common {
    /// Where archives go
    #[arg(long, value_name = "ROOT", default_value = "runs", aliases = ["outdir", "output", "output-dir", "run-dir"])]
    out: PathBuf,
    /// in-process, processes, simulated or external
    #[arg(long)]
    deployment: Option<DeploymentKind>,
    /// Repetitions of each cell; intervals need at least two
    #[arg(long, value_name = "N")]
    trials: Option<u32>,
    /// Where every random decision starts
    #[arg(long)]
    seed: Option<u64>,
    /// Measured for each trial (10s, 1m30s; a bare number is seconds)
    #[arg(long, value_parser = units::parse_duration, alias = "duration-seconds")]
    duration: Option<Duration>,
    /// Discarded at the start of each trial, after the last user has started
    #[arg(long, value_parser = units::parse_duration, alias = "warmup-seconds")]
    warmup: Option<Duration>,
    /// Between two samples of CPU and memory
    #[arg(long, value_parser = units::parse_duration)]
    sample_interval: Option<Duration>,
    /// Replicas of the load generator
    #[arg(long, value_name = "N")]
    load_workers: Option<u32>,
    /// sqlite, postgres (server in SCALELAB_POSTGRES_URL), or a postgres:// URL
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,
    /// A system that runs already, instead of starting one (deployment external)
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// What must hold, such as 'p95 <= 250ms'; repeat for more
    #[arg(long, value_name = "SLO", value_parser = load_url::parse_slo)]
    slo: Vec<Slo>,
    /// Where the live page is served: a port, ADDRESS:PORT, or off
    #[arg(long, value_name = "PORT")]
    ui: Option<Ui>,
    /// Print the experiment that the flags make, and stop
    #[arg(long)]
    print_experiment: bool,
    /// Do not ask external systems whether they are there
    #[arg(long)]
    skip_health_check: bool,
}

/// Whether and where the live page is served. On loopback, unless an address says otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ui {
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

impl Default for Ui {
    fn default() -> Self {
        Self::At(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4040))
    }
}

impl Ui {
    /// Where; none for off.
    pub fn addr(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(addr) => Some(addr),
        }
    }
}

impl std::str::FromStr for Ui {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let port = text.parse().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
        port.or_else(|_| text.parse())
            .map(Self::At)
            .map_err(|_| format!("{text:?} is no place for a page; write 4040, 0.0.0.0:4040, or off"))
    }
}

#[derive(Args)]
struct PlanArgs {
    /// A TOML file, or a name such as task-tracker/demo-local
    experiment: String,
}

#[derive(Args)]
struct ReportArgs {
    /// The archive
    #[arg(default_value = "runs/latest")]
    archive: PathBuf,
}

#[derive(Args)]
struct WatchArgs {
    /// An archive, a folder of runs, or a link to the latest
    #[arg(default_value = "runs/latest")]
    archive: PathBuf,
    /// Where the page is served: a port, or ADDRESS:PORT
    #[arg(long, value_name = "PORT", default_value = "4040")]
    ui: Ui,
}

#[derive(Args)]
struct CompareArgs {
    /// The archive to compare with
    before: PathBuf,
    /// The archive that may be better or worse
    after: PathBuf,
    /// Exit with 1 when something regressed
    #[arg(long)]
    fail_on_regression: bool,
    /// Differences below this are none
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0)]
    least_effect: f64,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct HealArgs {
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
struct ServeArgs {
    /// The system, or lab
    system: String,
    /// The role
    role: String,
    /// Its configuration; without, one line on standard input
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Arch {
    /// Compare the architectures over a range of users
    Sweep(SweepArgs),
    /// Let one service fail under steady load: how long do users suffer, and is anything lost?
    Fail(fail::FailArgs),
}

#[derive(Args)]
struct SweepArgs {
    /// Which architectures
    #[arg(long, value_enum, default_value = "both")]
    arch: Architectures,
    /// Numbers of users
    #[arg(long, value_delimiter = ',', default_value = "10,25,50,100,200", value_name = "N,N,…")]
    concurrency_levels: Vec<i64>,
    /// Users that start a second
    #[arg(long, default_value_t = 100.0)]
    spawn_rate: f64,
    /// Mean think time of a user
    #[arg(long, value_parser = units::parse_duration, default_value = "20ms")]
    think: Duration,
    /// Replicas of each service behind the gateway; several are compared (1,3)
    #[arg(long, value_delimiter = ',', default_value = "1", value_name = "N,N,…")]
    replicas: Vec<u32>,
    /// A monolith that runs already; with it the deployment is external
    #[arg(long, value_name = "URL")]
    base_url_monolith: Option<String>,
    /// A gateway that runs already; with it the deployment is external
    #[arg(long, value_name = "URL")]
    base_url_micro: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, ValueEnum)]
enum Architectures {
    Both,
    Monolith,
    Microservices,
}

/// Parses the command line, calls, and turns the result into an exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match call(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(error::exit_code(&error))
        }
    }
}

fn call(command: Command) -> anyhow::Result<ExitCode> {
    let code = match command {
        Command::Run(args) => run_verb(&args)?,
        Command::Load(args) => load_url::run(&args)?,
        Command::Arch(Arch::Sweep(args)) => start(sweep(&args)?, &args.common)?,
        Command::Arch(Arch::Fail(args)) => start(args.experiment()?, &args.common())?,
        Command::Stream(verb) => stream::run(&verb)?,
        Command::Exercise(verb) => exercise::run(&verb)?,
        Command::Proxy(args) => proxy::run(&args)?,
        Command::Up(args) => up::run(&args)?,
        Command::List => say(&listing::systems()),
        Command::Plan(args) => say(&listing::plan(&find_experiment(&args.experiment)?)),
        Command::Report(args) => redraw(&args.archive)?,
        Command::Watch(args) => watch(&args)?,
        Command::Compare(args) => compare_verb(&args)?,
        Command::Doctor => say(&doctor::report()),
        Command::Heal(args) => heal_verb(&args)?,
        Command::Selftest(args) => selftest::run(&args)?,
        Command::Serve(args) => return Ok(serve(args)),
    };
    Ok(ExitCode::from(code))
}

/// Prints to standard output; a reader that has had enough (`| head`) is no error.
fn say(text: &str) -> u8 {
    let _ = std::io::stdout().write_all(text.as_bytes());
    0
}

fn serve(args: ServeArgs) -> ExitCode {
    let source = args.config.map_or(kit::host::ConfigSource::Stdin, kit::host::ConfigSource::File);
    let ServeArgs { system, role, .. } = args;
    kit::host::run_process(
        |configured| {
            if configured != role {
                return Err(input(format!(
                    "the configuration is for role {configured:?}, the command line says {role:?}"
                )));
            }
            systems::find_role(&system, &role)
        },
        source,
    )
}

fn run_verb(args: &RunArgs) -> anyhow::Result<u8> {
    if let Some(folder) = &args.resume {
        let archive = Archive::open(folder)?;
        let is_postgres = archive.experiment()?.backends.get("database").is_some_and(|backend| backend == "postgres");
        if let Some(flag) = changes_the_plan(&args.common, is_postgres) {
            let why = "has no place beside --resume: the run goes on as it was planned";
            return Err(input(format!("{flag} {why}; start a new run with it")));
        }
        let given = args.experiment.as_deref().map(find_experiment).transpose()?;
        return run::resume(&archive, given.as_ref(), &options(&args.common));
    }
    start(find_experiment(args.experiment.as_deref().unwrap_or_default())?, &args.common)
}

/// A flag that would make a resumed run another one.
fn changes_the_plan(common: &Common, is_postgres: bool) -> Option<&'static str> {
    let given = [
        ("--deployment", common.deployment.is_some()),
        ("--trials", common.trials.is_some()),
        ("--seed", common.seed.is_some()),
        ("--duration", common.duration.is_some()),
        ("--warmup", common.warmup.is_some()),
        ("--sample-interval", common.sample_interval.is_some()),
        ("--load-workers", common.load_workers.is_some()),
        ("--base-url", common.base_url.is_some()),
        ("--slo", !common.slo.is_empty()),
        // The server's URL is a secret, which the archive does not hold.
        ("--database", common.database.as_deref().is_some_and(|database| !(is_postgres && is_url(database)))),
        ("--print-experiment", common.print_experiment),
    ];
    given.into_iter().find_map(|(flag, is_given)| is_given.then_some(flag))
}

/// A file when there is one, otherwise an experiment that comes along.
fn find_experiment(name: &str) -> anyhow::Result<Experiment> {
    if let Some((workload, text)) = workloads::find(name)
        && !Path::new(name).is_file()
    {
        let short = workload.rsplit('/').next().unwrap_or(workload);
        return file::parse(text, workload, short);
    }
    file::read(Path::new(name))
}

/// Applies the flags that every verb has, and runs.
fn start(mut experiment: Experiment, common: &Common) -> anyhow::Result<u8> {
    apply(&mut experiment, common);
    experiment.check().map_err(|problem| input(format!("{problem}")))?;
    if common.print_experiment {
        return Ok(say(&experiment.to_toml()));
    }
    run::run(&experiment, &options(common))
}

fn apply(experiment: &mut Experiment, common: &Common) {
    let Common { deployment, trials, seed, duration, warmup, .. } = common;
    let Common { sample_interval, load_workers, database, base_url, slo, .. } = common;
    experiment.deployment = deployment.unwrap_or(experiment.deployment);
    experiment.trials = trials.unwrap_or(experiment.trials);
    experiment.seed = seed.unwrap_or(experiment.seed);
    experiment.duration = duration.unwrap_or(experiment.duration);
    experiment.warmup = warmup.unwrap_or(experiment.warmup);
    experiment.sample_interval = sample_interval.unwrap_or(experiment.sample_interval);
    experiment.load_workers = load_workers.unwrap_or(experiment.load_workers);
    experiment.slo.extend(slo.iter().cloned());
    if let Some(url) = base_url {
        experiment.deployment = DeploymentKind::External;
        experiment.external.insert("default".to_owned(), url.clone());
    }
    if let Some(database) = database {
        let backend = if is_url(database) { "postgres" } else { database };
        experiment.backends.insert("database".to_owned(), backend.to_owned());
    }
}

fn is_url(database: &str) -> bool {
    database.starts_with("postgres://") || database.starts_with("postgresql://")
}

fn options(common: &Common) -> Options {
    Options {
        out: common.out.clone(),
        database_url: common.database.clone().filter(|database| is_url(database)),
        skip_health_check: common.skip_health_check,
        ui: common.ui.and_then(Ui::addr),
        ..Options::default()
    }
}

fn sweep(args: &SweepArgs) -> anyhow::Result<Experiment> {
    let architectures: &[&str] = match args.arch {
        Architectures::Both => &["monolith", "microservices"],
        Architectures::Monolith => &["monolith"],
        Architectures::Microservices => &["microservices"],
    };
    let external: BTreeMap<String, String> =
        [("monolith", &args.base_url_monolith), ("microservices", &args.base_url_micro)]
            .into_iter()
            .filter_map(|(name, url)| Some((name.to_owned(), url.clone()?)))
            .collect();
    let text = |name: &&str| Level::Text((*name).to_owned());
    let mut experiment = Experiment {
        question: "How do the architectures of the task tracker compare as users grow?".to_owned(),
        name: "arch-sweep".to_owned(),
        system: "task-tracker".to_owned(),
        deployment: if external.is_empty() { DeploymentKind::Processes } else { DeploymentKind::External },
        factors: BTreeMap::from([
            ("architecture".to_owned(), architectures.iter().map(text).collect()),
            ("users".to_owned(), args.concurrency_levels.iter().copied().map(Level::Int).collect()),
        ]),
        load: LoadPlan::Closed { users: 0, think: args.think, spawn_rate: args.spawn_rate },
        settings: serde_json::json!({"argon2": "minimum"}),
        external,
        ..Experiment::empty()
    };
    set_replicas(&mut experiment, &args.replicas, architectures);
    Ok(experiment)
}

/// One number is a setting of the services; several are a factor. The monolith takes part with one process alone, so it
/// has the level 1, which the services have only where it was asked for.
fn set_replicas(experiment: &mut Experiment, replicas: &[u32], architectures: &[&str]) {
    if !architectures.contains(&"microservices") {
        return;
    }
    if let [one] = replicas {
        if *one != 1 {
            for role in ["user-service", "task-service", "stats-service"] {
                experiment.roles.insert(role.to_owned(), RoleLimits { replicas: Some(*one), ..RoleLimits::default() });
            }
        }
        return;
    }
    let mut counts = replicas.to_vec();
    let mut exclude = |architecture: &str, count: u32| {
        experiment.exclude.push(Levels::from([
            ("architecture".to_owned(), Level::Text(architecture.to_owned())),
            ("replicas".to_owned(), Level::Int(count.into())),
        ]));
    };
    if architectures.contains(&"monolith") {
        replicas.iter().filter(|count| **count != 1).for_each(|count| exclude("monolith", *count));
        if !replicas.contains(&1) {
            counts.insert(0, 1);
            exclude("microservices", 1);
        }
    }
    let levels = counts.into_iter().map(|count| Level::Int(count.into())).collect();
    experiment.factors.insert("replicas".to_owned(), levels);
}

fn compare_verb(args: &CompareArgs) -> anyhow::Result<u8> {
    let results = |folder: &Path| -> anyhow::Result<Vec<_>> {
        let results = Archive::open(folder)?.results()?;
        match results.is_empty() {
            true => {
                Err(input(format!("{}: no trial has ended in this archive; run it, or resume it", folder.display())))
            }
            false => Ok(results),
        }
    };
    let comparison = compare::compare_with(&results(&args.before)?, &results(&args.after)?, args.least_effect / 100.0);
    let text = if args.json { serde_json::to_string_pretty(&comparison)? + "\n" } else { comparison.table() };
    say(&text);
    Ok(u8::from(args.fail_on_regression && comparison.regressed()))
}

fn heal_verb(args: &HealArgs) -> anyhow::Result<u8> {
    let healed = heal::heal(args.dry_run)?;
    healed.could_not.iter().for_each(|why| eprintln!("not undone: {why}"));
    let did: String = healed.did.iter().map(|did| format!("{did}\n")).collect();
    match (did.is_empty(), healed.could_not.is_empty()) {
        (true, true) => Ok(say("nothing to heal\n")),
        (_, all_well) => {
            say(&did);
            Ok(if all_well { 0 } else { 4 })
        }
    }
}

fn watch(args: &WatchArgs) -> anyhow::Result<u8> {
    let addr = args.ui.addr().ok_or_else(|| input("--ui off leaves nothing to watch; give a port"))?;
    dashboard::watch(&args.archive, addr)
}

fn redraw(folder: &Path) -> anyhow::Result<u8> {
    let archive = Archive::open(folder)?;
    run::report(&archive)?;
    Ok(say(&format!("{}\n", archive.report_page().display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monolith_of_a_sweep_is_one_process_and_the_services_have_the_replicas_that_were_asked_for() {
        for (arch, replicas, expected) in [
            ("both", "3,6", &["monolith 1", "microservices 3", "microservices 6"][..]),
            ("both", "3,1", &["monolith 1", "microservices 1", "microservices 3"]),
            ("both", "1,3", &["monolith 1", "microservices 1", "microservices 3"]),
            ("microservices", "3,6", &["microservices 3", "microservices 6"]),
            ("monolith", "3,6", &["monolith -"]),
            ("both", "3", &["monolith -", "microservices -"]),
        ] {
            let line =
                ["scalelab", "arch", "sweep", "--arch", arch, "--replicas", replicas, "--concurrency-levels", "5"];
            let Command::Arch(Arch::Sweep(args)) = Cli::try_parse_from(line).unwrap().command else { unreachable!() };
            let experiment = sweep(&args).unwrap();
            experiment.check().unwrap();
            let of = |cell: &Levels, factor: &str| cell.get(factor).map_or_else(|| "-".to_owned(), Level::to_string);
            let words = |cell: &Levels| format!("{} {}", of(cell, "architecture"), of(cell, "replicas"));
            let mut cells: Vec<_> = crate::experiment::cells(&experiment).iter().map(words).collect();
            let mut expected = expected.to_vec();
            cells.sort();
            expected.sort_unstable();
            assert_eq!(cells, expected, "{arch} {replicas}");
        }
    }
}

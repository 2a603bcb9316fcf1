//! `load URL`: loads any HTTP or HTTPS address from this process, and says what it found.
//!
//! The one rule: it is the role `load`, hosted here. What this module adds is flags, a progress line and a summary.

mod output;
mod result;

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use kit::{Clock, OpsRecord, RoleConfig};

pub use output::{csv, json, text};
pub use result::{Collected, LoadResult, Second};

use crate::archive::{Archive, TrialFiles};
use crate::deploy::pinning::Budget;
use crate::environment;
use crate::experiment::{DeploymentKind, Experiment, LoadPlan};
use crate::load::scenario::Origin;
use crate::load::schedule::{parse_stages, total_duration};
use crate::load::{Check, LEFT_OUT, LoadSettings, Scenario, Stage, Step};
use crate::measure::{self, TrialRecord, TrialSummary};
use crate::units::parse_duration;
use crate::verdict::{self, Slo, Word};

/// Load any HTTP or HTTPS address, and measure it.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Without --rate or --stages the loop is closed: each connection sends its next request when its \
answer has come. With them it is open: requests are due at times that do not depend on answers, and the time that they \
wait for a free connection counts.\n\nStages hold their rate: 30s:100,1m:500 is 100 a second for 30 s, then 500 a second \
for a minute. A ~ before a rate ramps to it from the one before: 30s:~100,1m:100.\n\nPercentiles count every request, \
failed ones too, as other tools do; objectives (--slo) leave failed ones out, because a refusal is fast. An archive \
(--out) holds *** in place of bodies, and of the values of headers and parameters that look secret.\n\nURL, headers and body may hold \
{{n}}, {{user}}, {{uuid}} and {{random:1-100}}.\n\nExit codes: 0 done, 1 an objective was missed, 2 a wrong flag, URL or \
file, 3 an objective could not be decided or nothing was answered, 4 the target cannot be reached."
)]
pub struct LoadUrlArgs {
    /// http://host:port/path or https://…
    #[arg(required_unless_present = "urls_from_file")]
    pub url: Option<String>,
    /// A file with a URL a line, requested in turn.
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    pub urls_from_file: Option<PathBuf>,
    /// Connections, each with one request at a time.
    #[arg(short, long, visible_alias = "concurrency", default_value = "50", value_parser = parse_connections)]
    pub connections: u32,
    /// End after this many requests (10k, 1m).
    #[arg(short = 'n', long, value_parser = parse_count)]
    pub requests: Option<u64>,
    /// End after this time (30s, 1m30s) [default: 10s, without -n and --stages].
    #[arg(short, long, short_alias = 'z', value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Requests a second, sent on time (open loop).
    #[arg(short, long, short_alias = 'q', value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// How requests of an open loop are spread.
    #[arg(long, value_enum, default_value_t = Arrivals::Constant)]
    pub arrivals: Arrivals,
    /// Rates over time (open loop): 30s:100,1m:500.
    #[arg(long, conflicts_with = "rate")]
    pub stages: Option<String>,
    /// The method [default: GET, or POST with a body].
    #[arg(short, long)]
    pub method: Option<String>,
    /// A header, such as 'accept: text/html'. Repeatable.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    pub headers: Vec<(String, String)>,
    /// The body; @FILE reads it from a file.
    #[arg(short, long)]
    pub body: Option<String>,
    /// The content type of the body.
    #[arg(short = 'T', long)]
    pub content_type: Option<String>,
    /// A request without an answer for this long is given up.
    #[arg(short, long, default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// A new connection for every request.
    #[arg(long)]
    pub disable_keepalive: bool,
    /// Accept any certificate.
    #[arg(long)]
    pub insecure: bool,
    /// Threads [default: one a CPU].
    #[arg(long)]
    pub threads: Option<usize>,
    /// Where random decisions start.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Not measured, before the rest (whole seconds).
    #[arg(long, default_value = "0", value_parser = parse_duration)]
    pub warmup: Duration,
    /// The form of the summary; csv has a line a second.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub output_format: OutputFormat,
    /// What must hold, such as 'p95 <= 250ms' or 'errors <= 1%'. Repeatable.
    #[arg(long = "slo", value_name = "SLO", value_parser = parse_slo)]
    pub slo: Vec<Slo>,
    /// Archive the measurement under this folder.
    #[arg(long, value_name = "ROOT", visible_alias = "output-dir")]
    pub out: Option<PathBuf>,
}

/// How requests of an open loop are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arrivals {
    /// Evenly.
    Constant,
    /// As independent users would.
    Poisson,
}

/// The form of the summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    Text,
    /// For programs, with oha's names.
    Json,
    /// A line a second.
    Csv,
    /// None.
    Quiet,
}

/// Whether the objectives hold; none when there are none.
pub type Judged = Option<Judgement>;

/// Whether objectives hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// All do.
    Pass,
    /// Those that do not.
    Fail(Vec<String>),
    /// It could not be decided, and why.
    Unknown(String),
}

/// What was measured, and what it means. What is printed, judged and archived comes from here, so that it agrees.
#[derive(Clone, Debug)]
pub struct Findings {
    /// What was measured.
    pub result: LoadResult,
    /// The same, as the record of a trial.
    pub record: TrialRecord,
    /// Its numbers, with what touches them.
    pub summary: TrialSummary,
    /// Whether the objectives hold.
    pub judged: Judged,
}

impl Findings {
    /// Summarises what was measured, and judges it.
    pub fn new(result: LoadResult, slos: &[Slo]) -> Self {
        let record = result.trial_record();
        let summary = measure::summarize_trial(&record);
        let judged = (!slos.is_empty()).then(|| judge(&summary, slos));
        Self { result, record, summary, judged }
    }
}

/// Runs the verb; says the exit code. What is wrong with the input or the surroundings goes to standard error.
///
/// # Errors
/// When the generator breaks, or the archive cannot be written.
pub fn run(args: &LoadUrlArgs) -> anyhow::Result<u8> {
    if let Some(slo) = args.slo.iter().find(|slo| measure::stream::is_key(&slo.key)) {
        let error =
            anyhow::anyhow!("--slo {:?} is asked of streams; of a URL ask p95 <= 250ms or errors <= 1%", slo.text);
        return Ok(complain(&error, 2));
    }
    let settings = match settings(args) {
        Ok(settings) => settings,
        Err(error) => return Ok(complain(&error, 2)),
    };
    let target = args.url.clone().unwrap_or_else(|| settings.base_url.clone().unwrap_or_default());
    // Before the load: a folder that cannot be written must not cost a measurement.
    let claimed = args.out.as_ref().map(|root| Claimed::new(root, args, &settings, &target)).transpose()?;
    let progress = Progress::new(args, &settings);
    let interrupts = interrupts()?;
    let result = match load(settings, args.seed, args.warmup, &target, &progress, &interrupts) {
        Ok(result) => result,
        Err(error) => return Ok(complain(&error, 4)),
    };
    progress.clear();
    let findings = Findings::new(result, &args.slo);
    match args.output_format {
        OutputFormat::Text => print!("{}", text(&findings)),
        OutputFormat::Json => println!("{:#}", json(&findings)),
        OutputFormat::Csv => print!("{}", csv(&findings.result)),
        OutputFormat::Quiet => {}
    }
    if let Some(claimed) = claimed {
        let folder = claimed.fill(&findings)?;
        eprintln!("archive: {}", folder.display());
    }
    Ok(exit_code(&findings.result, &findings.judged))
}

fn complain(error: &anyhow::Error, code: u8) -> u8 {
    eprintln!("error: {error:#}");
    code
}

fn exit_code(result: &LoadResult, judged: &Judged) -> u8 {
    if let Some(why) = result.unreachable() {
        return complain(&anyhow::anyhow!("cannot reach {}: {why}", kit::redacted(&result.target)), 4);
    }
    match judged {
        Some(Judgement::Fail(_)) => 1,
        Some(Judgement::Unknown(_)) => 3,
        _ if result.answered() == 0 => 3,
        _ => 0,
    }
}

/// Whether the objectives hold.
fn judge(summary: &TrialSummary, slos: &[Slo]) -> Judgement {
    let verdict = verdict::judge_one(slos, summary);
    match verdict.verdict {
        Word::Pass => Judgement::Pass,
        Word::Fail => Judgement::Fail(verdict.which),
        Word::Unknown | Word::None => Judgement::Unknown(verdict.why),
    }
}

/// The archive of a load that has not begun.
struct Claimed {
    archive: Archive,
    files: TrialFiles,
    experiment: Experiment,
    /// Of the first step.
    method: String,
    _lock: std::fs::File,
}

impl Claimed {
    /// Claims a folder under `root`.
    ///
    /// # Errors
    /// When it cannot be written.
    fn new(root: &Path, args: &LoadUrlArgs, settings: &LoadSettings, target: &str) -> anyhow::Result<Self> {
        let experiment = experiment(settings, args, target);
        let archive = Archive::create(root, &experiment, &environment::stamp())?;
        let lock = archive.lock()?;
        archive.write_environment(&environment::describe(&experiment, &Budget { system: None, load: None }))?;
        let trial = result::trial(args.seed);
        archive.write_plan(std::slice::from_ref(&trial))?;
        let files = archive.begin_trial(&trial)?;
        let method = settings.scenario.steps.first().map_or_else(String::new, |step| step.method.clone());
        Ok(Self { archive, files, experiment, method, _lock: lock })
    }

    /// Archives the measurement, with a report; says where.
    ///
    /// # Errors
    /// When it cannot be written.
    fn fill(mut self, findings: &Findings) -> anyhow::Result<PathBuf> {
        let Findings { result, record, summary, .. } = findings;
        // A load that counts requests lasts as long as it takes.
        self.experiment.duration = Duration::from_secs((record.window.end - record.window.start).into());
        self.archive.write_experiment(&self.experiment)?;
        self.files.series(&record.series)?;
        write_history(record, result.start_unix_s, &mut self.files)?;
        let measured_s = record.measured_s.unwrap_or_else(|| f64::from(record.window.end - record.window.start));
        let method = |_: &str| self.method.clone();
        self.files.finish(&record.ops, record.window.clone(), measured_s, &method, result.start_unix_s)?;
        self.archive.append_result(summary)?;
        crate::run::report(&self.archive)?;
        Ok(self.archive.folder().to_owned())
    }
}

/// A row a second, those of the warm-up too.
fn write_history(record: &TrialRecord, start_unix_s: f64, files: &mut TrialFiles) -> anyhow::Result<()> {
    // All of them work from the beginning to the end.
    let (LoadPlan::Closed { users, .. } | LoadPlan::Open { connections: users, .. }) = record.load;
    let mut running = OpsRecord::default();
    let mut records = record.ops.briefs().peekable();
    while let Some(mut second) = records.next() {
        while let Some(more) = records.next_if(|next| next.second == second.second) {
            second.merge(&more);
        }
        running.merge(&second);
        let unix_s = (start_unix_s + f64::from(second.second)) as u64;
        files.history(&crate::report::csv::history_row(unix_s, users, &second, &running))?;
    }
    Ok(())
}

/// The scenario as it may be kept. Nothing here comes from a step before, so whatever may be secret is.
fn without_secrets(scenario: &Scenario) -> Scenario {
    let mut scenario = scenario.clone();
    for step in &mut scenario.steps {
        step.path = kit::redacted(&step.path);
        step.body = step.body.as_ref().map(|_| LEFT_OUT.to_owned());
        let secret = step.headers.iter_mut().filter(|(name, _)| kit::is_secret(name));
        secret.for_each(|(_, value)| LEFT_OUT.clone_into(value));
    }
    scenario
}

/// The same load as an experiment, so that its archive is one like any other and can be run again.
fn experiment(settings: &LoadSettings, args: &LoadUrlArgs, target: &str) -> Experiment {
    let mut load = settings.plan.clone();
    if let LoadPlan::Closed { spawn_rate, .. } = &mut load {
        // All at once, as a rate.
        *spawn_rate = 1e9;
    }
    let warmup = whole_seconds(args.warmup);
    let length = settings.duration.map_or(Duration::ZERO, |length| whole_seconds(length.saturating_sub(warmup)));
    Experiment {
        question: format!("How does {} behave under this load?", kit::redacted(target)),
        name: "load".to_owned(),
        system: "http".to_owned(),
        deployment: DeploymentKind::External,
        seed: args.seed,
        trials: 1,
        warmup,
        duration: length.max(Duration::from_secs(1)),
        slo: args.slo.clone(),
        load,
        timeout: settings.timeout,
        external: [("default".to_owned(), settings.base_url.clone().unwrap_or_default())].into(),
        scenario: Some(without_secrets(&settings.scenario)),
        ..Experiment::empty()
    }
}

/// The settings of the role, from the flags.
///
/// # Errors
/// When a flag, a URL or a file is wrong.
pub fn settings(args: &LoadUrlArgs) -> anyhow::Result<LoadSettings> {
    let urls = urls(args)?;
    let (first, _) = Origin::parse(&urls[0]).map_err(anyhow::Error::msg)?;
    let scheme = if first.https { "https" } else { "http" };
    let body = args.body.as_deref().map(body).transpose()?;
    let headers = headers(args)?;
    let steps = urls.into_iter().map(|url| step(args, url, &headers, body.as_ref())).collect::<anyhow::Result<_>>()?;
    let (plan, length) = plan(args)?;
    Ok(LoadSettings {
        base_url: Some(format!("{scheme}://{}", first.authority)),
        scenario: Scenario { setup: Vec::new(), steps, in_turn: true },
        plan,
        workers: 1,
        timeout: args.timeout,
        disable_keepalive: args.disable_keepalive,
        requests: args.requests,
        duration: length.map(|length| length + whole_seconds(args.warmup)),
        threads: args.threads,
        insecure: args.insecure,
        history: false,
    })
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs_f64().ceil() as u64)
}

fn urls(args: &LoadUrlArgs) -> anyhow::Result<Vec<String>> {
    let Some(path) = &args.urls_from_file else {
        return Ok(vec![args.url.clone().context("no URL; give one, or --urls-from-file")?]);
    };
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let urls: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    anyhow::ensure!(!urls.is_empty(), "{} holds no URL; write one a line", path.display());
    Ok(urls)
}

fn body(text: &str) -> anyhow::Result<String> {
    match text.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("reading the body from {path}")),
        None => Ok(text.to_owned()),
    }
}

/// The headers, each name once: of two, one would silently be left out.
fn headers(args: &LoadUrlArgs) -> anyhow::Result<BTreeMap<String, String>> {
    let content_type = args.content_type.iter().map(|value| ("content-type".to_owned(), value.clone()));
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in args.headers.iter().cloned().chain(content_type) {
        anyhow::ensure!(
            !headers.keys().any(|known| known.eq_ignore_ascii_case(&name)),
            "header {name} is given twice; give it once, with both values where it may have several ('accept: a, b')"
        );
        headers.insert(name, value);
    }
    Ok(headers)
}

fn step(
    args: &LoadUrlArgs,
    url: String,
    headers: &BTreeMap<String, String>,
    body: Option<&String>,
) -> anyhow::Result<Step> {
    // Read here for the message; the role reads it again.
    Origin::parse(&url).map_err(anyhow::Error::msg)?;
    let method = args.method.clone().unwrap_or_else(|| if body.is_some() { "POST" } else { "GET" }.to_owned());
    Ok(Step {
        name: Some(method.clone()),
        method,
        path: url,
        headers: headers.clone(),
        body: body.cloned(),
        weight: 1,
        repeat: 1,
        think: None,
        extract: Default::default(),
        check: Check::default(),
        track: None,
    })
}

/// The plan, and how long it lasts without its warm-up; none when requests are counted.
fn plan(args: &LoadUrlArgs) -> anyhow::Result<(LoadPlan, Option<Duration>)> {
    let poisson = args.arrivals == Arrivals::Poisson;
    let open = |stages| LoadPlan::Open { stages, poisson, connections: args.connections };
    let length = args.duration.or_else(|| args.requests.is_none().then_some(Duration::from_secs(10)));
    if let Some(text) = &args.stages {
        let stages = parse_stages(text).map_err(anyhow::Error::msg)?;
        anyhow::ensure!(args.warmup.is_zero(), "--warmup goes with --rate; make the first stage the warm-up instead");
        // Whichever ends first: after the last stage nothing is offered.
        let length = args.duration.into_iter().chain(total_duration(&stages)).min();
        return Ok((open(stages), length));
    }
    if let Some(rate) = args.rate {
        return Ok((open(vec![Stage { duration: None, from_per_s: rate, to_per_s: rate }]), length));
    }
    anyhow::ensure!(!poisson, "--arrivals poisson needs --rate or --stages");
    Ok((LoadPlan::Closed { users: args.connections, think: Duration::ZERO, spawn_rate: 0.0 }, length))
}

/// Loads as the settings say, and collects what was measured. A message in `interrupts`, whose other end must live,
/// ends it early, and well; a second one ends the process.
///
/// # Errors
/// When the generator cannot start or breaks.
pub fn load(
    settings: LoadSettings,
    seed: u64,
    warmup: Duration,
    target: &str,
    progress: &Progress,
    interrupts: &Receiver<()>,
) -> anyhow::Result<LoadResult> {
    let warmup = whole_seconds(warmup);
    let mut config = RoleConfig::new("load");
    config.seed = seed;
    config.settings = serde_json::to_value(&settings)?;
    let mut hosted = kit::host::start(crate::load::ROLES[0], config, Clock::real())?;
    if !hosted.wait_until_started() {
        hosted.join()?;
        anyhow::bail!("the load generator ended before it had begun");
    }
    let admin = hosted.admin.clone();
    let origin_ns = admin.clock.now_ns() + 1_000_000;
    let start_unix_s = admin.clock.wall_ns() as f64 / 1e9;
    admin.control.start(origin_ns);

    let mut collected = Collected::new()?;
    let (mut series, mut stopped_ns) = (Vec::new(), None);
    let mut tick = 0_u32;
    while !admin.health().drained && !hosted.has_ended() {
        match interrupts.recv_timeout(Duration::from_millis(50)) {
            Ok(()) if stopped_ns.is_none() => {
                stopped_ns = Some(admin.clock.now_ns());
                admin.control.stop();
            }
            // Asked twice: at once.
            Ok(()) => std::process::exit(130),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        let second = (admin.clock.now_ns().saturating_sub(origin_ns) / 1_000_000_000) as u32;
        if second > tick {
            tick = second;
            collected.take(&admin.ops(collected.seq), warmup.as_secs() as u32, false)?;
            series.extend(admin.series.after(series.last().map_or(0, |point: &kit::series::Point| point.seq)));
        }
        progress.show(second, collected.last(), admin.recorder.totals());
    }
    if hosted.has_ended() {
        hosted.join()?;
    }
    collected.take(&admin.ops(collected.seq), warmup.as_secs() as u32, true)?;
    series.extend(admin.series.after(series.last().map_or(0, |point: &kit::series::Point| point.seq)));
    hosted.request_stop();
    hosted.join()?;

    let drained_ns = series.last().map_or_else(|| admin.clock.now_ns(), |point| point.at_ns);
    let end_ns = end_ns(&settings, origin_ns, drained_ns).min(stopped_ns.unwrap_or(u64::MAX));
    let (ops, seconds, records) = collected.finish();
    Ok(LoadResult {
        target: target.to_owned(),
        plan: settings.plan,
        requests: settings.requests,
        seed,
        warmup,
        elapsed: Duration::from_nanos(end_ns.saturating_sub(origin_ns)).saturating_sub(warmup),
        ops,
        records,
        seconds,
        series,
        origin_ns,
        start_unix_s,
        interrupted: stopped_ns.is_some(),
    })
}

/// When the measured stretch ended by itself. A schedule lasts as long as was asked for, although its last request is
/// answered a little earlier; what is counted ends with its last answer.
fn end_ns(settings: &LoadSettings, origin_ns: u64, drained_ns: u64) -> u64 {
    let Some(length) = settings.duration else { return drained_ns };
    let planned_ns = origin_ns + length.as_nanos() as u64;
    let scheduled = matches!(settings.plan, LoadPlan::Open { .. }) && settings.requests.is_none();
    if scheduled { planned_ns } else { planned_ns.min(drained_ns) }
}

/// A message for each Ctrl-C.
fn interrupts() -> anyhow::Result<Receiver<()>> {
    let (tell, told) = channel();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || hear(&tell))
        .context("starting a thread for signals")?;
    Ok(told)
}

fn hear(tell: &Sender<()>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    loop {
        runtime.block_on(kit::host::termination());
        if tell.send(()).is_err() {
            return;
        }
    }
}

/// A line that moves on a terminal, a line a second elsewhere, nothing when quiet. All of it on standard error.
pub struct Progress {
    bar: Option<ProgressBar>,
    lines: bool,
    last: std::cell::Cell<u32>,
}

impl Progress {
    /// None at all.
    pub fn silent() -> Self {
        Self { bar: None, lines: false, last: std::cell::Cell::new(0) }
    }

    fn new(args: &LoadUrlArgs, settings: &LoadSettings) -> Self {
        if args.output_format == OutputFormat::Quiet {
            return Self::silent();
        }
        if !std::io::stderr().is_terminal() {
            return Self { lines: true, ..Self::silent() };
        }
        let bar = ProgressBar::new(settings.duration.map_or(0, |duration| duration.as_secs()).max(1));
        // indicatif honours NO_COLOR.
        if let Ok(style) = ProgressStyle::with_template("{bar:30.cyan} {pos:>3}/{len} s  {msg}") {
            bar.set_style(style);
        }
        Self { bar: Some(bar), ..Self::silent() }
    }

    fn show(&self, second: u32, last: Option<Second>, totals: [u64; 4]) {
        if second <= self.last.replace(second) {
            return;
        }
        let [ok, failed, unknown, wrong] = totals;
        let rate = last.as_ref().map_or(0, Second::count);
        let p99 =
            last.and_then(|last| last.latency).map_or_else(String::new, |latency| format!(", p99 {:.2?}", latency[3]));
        let message = format!("{rate}/s{p99}, ok {ok}, failed {failed}, unknown {unknown}, wrong {wrong}");
        if let Some(bar) = &self.bar {
            bar.set_position(u64::from(second));
            bar.set_message(message);
        } else if self.lines {
            eprintln!("{second:>4} s  {message}");
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Reads an objective; for flags.
pub(crate) fn parse_slo(text: &str) -> Result<Slo, String> {
    Slo::try_from(text.to_owned()).map_err(|error| error.to_string())
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as 'name: value'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn parse_connections(text: &str) -> Result<u32, String> {
    let count = parse_count(text)?;
    u32::try_from(count).ok().filter(|count| *count > 0).ok_or_else(|| format!("{text:?} is not from 1 to 4 billion"))
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = parse_number(text)?;
    if rate > 0.0 { Ok(rate) } else { Err(format!("{text:?} is not a rate above 0")) }
}

fn parse_count(text: &str) -> Result<u64, String> {
    let count = parse_number(text)?;
    if count.fract() == 0.0 { Ok(count as u64) } else { Err(format!("{text:?} is not a whole number")) }
}

/// Reads `5000`, `10k`, `1.5m`.
fn parse_number(text: &str) -> Result<f64, String> {
    let (digits, times) = match text.to_ascii_lowercase() {
        text if text.ends_with('k') => (text.trim_end_matches('k').to_owned(), 1e3),
        text if text.ends_with('m') => (text.trim_end_matches('m').to_owned(), 1e6),
        text => (text, 1.0),
    };
    let number: Option<f64> = digits.parse().ok();
    number
        .map(|number| number * times)
        .filter(|number| number.is_finite() && *number >= 0.0)
        .ok_or_else(|| format!("{text:?} is not a number such as 5000, 10k or 1m"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use kit::{Op, OpsRecord, Outcome};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: LoadUrlArgs,
    }

    fn args(line: &str) -> Result<LoadUrlArgs, String> {
        let words = std::iter::once("load").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.args).map_err(|error| error.to_string())
    }

    fn result() -> LoadResult {
        let mut ops = OpsRecord::default();
        for (ms, outcome, status) in [(10, Outcome::Ok, 200), (20, Outcome::Ok, 200), (30, Outcome::Failed, 503)] {
            ops.record(&Op {
                intended_ns: 0,
                released_ns: 0,
                started_ns: 1_000_000,
                finished_ns: ms * 1_000_000,
                outcome,
                status,
                units: 1,
                bytes: 100,
            });
        }
        ops.errors.insert("HTTP 503".to_owned(), 1);
        let records = [ops.clone()].into_iter().collect();
        LoadResult {
            target: "http://x/".to_owned(),
            plan: LoadPlan::Closed { users: 1, think: Duration::ZERO, spawn_rate: 0.0 },
            requests: None,
            seed: 0,
            warmup: Duration::ZERO,
            elapsed: Duration::from_secs(2),
            ops,
            records,
            seconds: Vec::new(),
            series: Vec::new(),
            origin_ns: 0,
            start_unix_s: 0.0,
            interrupted: false,
        }
    }

    #[test]
    fn flags_become_the_settings_of_the_role() {
        let closed = settings(&args("http://h:1/p?q -c 8 -n 10k -H a:b").unwrap()).unwrap();
        assert_eq!(
            (closed.requests, closed.duration, closed.base_url.as_deref()),
            (Some(10_000), None, Some("http://h:1"))
        );
        assert_eq!(closed.plan, LoadPlan::Closed { users: 8, think: Duration::ZERO, spawn_rate: 0.0 });
        assert_eq!(closed.scenario.steps[0].headers["a"], "b");

        let open = settings(&args("http://h/ -q 5k -z 1m30s --warmup 2s --arrivals poisson -b x").unwrap()).unwrap();
        assert_eq!(open.duration, Some(Duration::from_secs(92)));
        assert_eq!(open.scenario.steps[0].method, "POST");
        assert!(matches!(&open.plan, LoadPlan::Open { stages, poisson: true, .. } if stages[0].from_per_s == 5000.0));

        let staged = settings(&args("http://h/ --stages 30s:100,1m:~500").unwrap()).unwrap();
        assert_eq!(staged.duration, Some(Duration::from_secs(90)));
        let cut = settings(&args("http://h/ --stages 30s:100 -d 10s").unwrap()).unwrap();
        let short = settings(&args("http://h/ --stages 3s:100 -d 10s").unwrap()).unwrap();
        assert_eq!([cut.duration, short.duration], [10, 3].map(|s| Some(Duration::from_secs(s))));
    }

    #[test]
    fn wrong_flags_and_urls_are_refused_with_the_way_out() {
        for (line, part) in [
            ("", "required"),
            ("http://h/ -d soon", "not a duration; write 250ms"),
            ("http://h/ -r 0", "not a rate above 0"),
            ("http://h/ -c 0", "is not from 1"),
            ("http://h/ -n 1.5", "not a whole number"),
            ("http://h/ -r 5 --stages 1s:5", "cannot be used with"),
            ("h:80", "write http://host:port/path"),
            ("ftp://h/", "unknown scheme"),
            ("http://h:x/", "is not a URL"),
            ("http://u@h/", "give a header authorization"),
            ("http://h/ --stages 5", "30s:100,1m:500"),
            ("http://h/ --arrivals poisson", "needs --rate"),
            ("http://h/ -b @/no/such/file", "reading the body from"),
            ("http://h/ -H accept:a -H Accept:b", "header Accept is given twice"),
            ("http://h/ -H content-type:a -T b", "header content-type is given twice"),
            ("--urls-from-file /no/such/file", "reading /no/such/file"),
        ] {
            let error = args(line).and_then(|args| settings(&args).map(|_| ()).map_err(|error| format!("{error:#}")));
            let error = error.unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn the_json_has_the_names_of_the_field_and_null_for_what_was_not_measured() {
        let json = json(&Findings::new(result(), &[]));
        for (pointer, expect) in [
            ("/summary/successRate", serde_json::json!(1.0)),
            ("/summary/requestsPerSec", serde_json::json!(1.5)),
            ("/summary/totalData", serde_json::json!(300)),
            ("/statusCodeDistribution/503", serde_json::json!(1)),
            ("/errorDistribution", serde_json::json!({})),
            ("/details/DNSLookup/average", serde_json::Value::Null),
            ("/details/firstByte/fastest", serde_json::Value::Null),
            ("/rps/mean", serde_json::Value::Null),
            ("/scalelab/outcomes/failed", serde_json::json!(1)),
            ("/scalelab/verdict", serde_json::Value::Null),
        ] {
            assert_eq!(json.pointer(pointer), Some(&expect), "{pointer}");
        }
        // The refused request counts in the latency, as in every tool of the field.
        let slowest = json.pointer("/summary/slowest").and_then(serde_json::Value::as_f64).unwrap();
        assert!((slowest - 0.03).abs() < 1e-4, "{slowest}");
        let p50 = json.pointer("/latencyPercentiles/p50").and_then(serde_json::Value::as_f64).unwrap();
        assert!((p50 - 0.02).abs() < 1e-4, "{p50}");
    }

    #[test]
    fn the_text_has_the_sections_of_the_field_in_order() {
        let judged = Some(Judgement::Fail(vec!["p95 <= 1ms".to_owned()]));
        let text = text(&Findings { judged, ..Findings::new(result(), &[]) });
        let sections = [
            "Summary:",
            "Response time histogram:",
            "Response time distribution:",
            "of all 3 requests, 1 of which failed; objectives look at the other 2",
            "Details",
            "Status code distribution:",
            "[503] 1 responses",
            "Verdict: fail (p95 <= 1ms)",
        ];
        let places: Vec<_> = sections.iter().map(|section| text.find(section)).collect();
        assert!(places.is_sorted() && places[0] == Some(0), "{places:?}\n{text}");
    }

    /// Records of the requests that were intended in a second, each answered after a millisecond.
    fn answered(count: u64, second: u32) -> OpsRecord {
        let mut ops = OpsRecord { second, ..OpsRecord::default() };
        let op = Op {
            intended_ns: 0,
            released_ns: 0,
            started_ns: 0,
            finished_ns: 1_000_000,
            outcome: Outcome::Ok,
            status: 200,
            units: 1,
            bytes: 10,
        };
        (0..count).for_each(|_| ops.record(&op));
        ops
    }

    fn collected(elapsed_ms: u64, plan: LoadPlan, requests: Option<u64>, counts: &[u64]) -> LoadResult {
        let mut collected = Collected::new().unwrap();
        for (second, count) in counts.iter().enumerate() {
            let line = serde_json::to_string(&answered(*count, second as u32)).unwrap();
            collected.take(&line, 0, true).unwrap();
        }
        let (ops, seconds, records) = collected.finish();
        let elapsed = Duration::from_millis(elapsed_ms);
        LoadResult { elapsed, plan, requests, ops, seconds, records, ..result() }
    }

    fn open(rate: f64) -> LoadPlan {
        let stages = vec![Stage { duration: None, from_per_s: rate, to_per_s: rate }];
        LoadPlan::Open { stages, poisson: false, connections: 9 }
    }

    #[test]
    fn what_was_recorded_waits_on_disk_however_long_a_load_is() {
        let result = collected(2000, result().plan, None, &[500, 500]);
        assert!(result.records.is_on_disk());
        assert_eq!(result.trial_record().ops.iter().map(|record| record.ok).collect::<Vec<_>>(), [500, 500]);
    }

    #[test]
    fn rates_are_over_what_was_measured_and_every_operation_is_in_the_window() {
        for (elapsed_ms, counts, window, rate) in [
            (200, &[1000][..], 0..1, 5000.0),
            (2600, &[1000, 1000, 600], 0..3, 1000.0),
            (2000, &[500, 500], 0..2, 500.0),
        ] {
            let result = collected(elapsed_ms, result().plan, None, counts);
            let printed = result.rate_per_s();
            let findings = Findings::new(result, &[]);
            assert_eq!(findings.record.window, window);
            assert_eq!(findings.summary.total_requests, counts.iter().sum::<u64>());
            assert_eq!(findings.summary.measured_s, elapsed_ms as f64 / 1e3);
            assert_eq!((findings.summary.throughput_rps, printed), (Some(rate), rate), "{elapsed_ms} ms");
        }
    }

    #[test]
    fn a_schedule_that_ended_as_it_should_was_kept() {
        for (elapsed_ms, requests, counts) in [
            (500, Some(100), &[100][..]),
            // The target was slow: the schedule was over long before.
            (4500, Some(100), &[100]),
            (2600, None, &[200, 200, 120]),
        ] {
            let findings = Findings::new(collected(elapsed_ms, open(200.0), requests, counts), &[]);
            let ids: Vec<_> = findings.summary.guards.iter().map(|guard| guard.id.as_str()).collect();
            assert!(!ids.contains(&"generator-limited"), "{elapsed_ms} ms: {:?}", findings.summary.guards);
        }
        let less = Findings::new(collected(2000, open(200.0), None, &[100, 100]), &[]);
        assert_eq!(less.summary.guards[0].what, "50.0 % of the planned 400 operations were started");
        assert!(text(&less).contains("generator-limited: 50.0 %"), "what is shown is what is judged");
    }

    #[test]
    fn a_schedule_lasts_as_long_as_was_asked_for_and_a_count_until_its_last_answer() {
        let of = |line: &str| settings(&args(line).unwrap()).unwrap();
        for (line, drained_ns, end) in [
            ("http://h/ -r 200 -d 1s", 995_000_000, 1_000_000_000),
            ("http://h/ -r 200 -d 1s", 3_000_000_000, 1_000_000_000),
            ("http://h/ -r 200 -n 100 -d 1s", 495_000_000, 495_000_000),
            ("http://h/ -n 100", 200_000_000, 200_000_000),
            ("http://h/ -d 1s", 1_200_000_000, 1_000_000_000),
        ] {
            assert_eq!(end_ns(&of(line), 0, drained_ns), end, "{line}");
        }
    }

    #[test]
    fn what_looks_secret_is_archived_without_its_value() {
        let line = "http://h/?token=S -z 2500ms --warmup 1s -b S{{n}} -H Authorization:a -H cookie:b -H X-Api-Key:{{n}} -H my-token:d -H accept:e";
        let args = args(line).unwrap();
        let settings = settings(&args).unwrap();
        let kept = experiment(&settings, &args, "http://h/?token=S");
        assert_eq!((kept.warmup, kept.duration), (Duration::from_secs(1), Duration::from_secs(3)));
        assert_eq!(kept.question, "How does http://h/?token=*** behave under this load?");
        let step = &kept.scenario.unwrap().steps[0];
        let values: Vec<_> = step.headers.values().map(String::as_str).collect();
        assert_eq!(values, ["***", "***", "e", "***", "***"]);
        assert_eq!((step.path.as_str(), step.body.as_deref()), ("http://h/?token=***", Some("***")));
        let sent = &settings.scenario.steps[0];
        assert_eq!((sent.headers["Authorization"].as_str(), sent.path.as_str()), ("a", "http://h/?token=S"));
    }

    #[test]
    fn the_exit_code_says_what_happened() {
        let nothing = || LoadResult { ops: OpsRecord::default(), ..result() };
        let mut refused = nothing();
        refused.ops.failed = 3;
        refused.ops.errors.insert("connection refused".to_owned(), 3);
        for (result, judged, code) in [
            (result(), None, 0),
            (result(), Some(Judgement::Pass), 0),
            (result(), Some(Judgement::Fail(Vec::new())), 1),
            (result(), Some(Judgement::Unknown("why".to_owned())), 3),
            (nothing(), None, 3),
            (refused, None, 4),
        ] {
            assert_eq!(exit_code(&result, &judged), code, "{judged:?}");
        }
    }
}

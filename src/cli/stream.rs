//! `scalelab stream`: the phases of a lesson, each a workload with flags laid over it, and the source alone.
//!
//! The one rule: a phase is nothing but its workload file. A flag changes a key of it, and `--print-experiment` shows
//! the file that the flags make.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use kit::RoleConfig;
use kit::series::Point;
use serde_json::json;

use super::{Common, Ui, say};
use crate::deploy::pinning;
use crate::error::{input, surroundings};
use crate::experiment::{DeploymentKind, Experiment, LoadPlan, Problem};
use crate::interrupt::Interrupt;
use crate::load::Stage;
use crate::load::schedule::parse_stages;
use crate::{systems, units};

const SYSTEM: &str = "socket-stream";

/// `scalelab stream`.
#[derive(Subcommand)]
pub enum Stream {
    /// The source alone, until Ctrl-C: lines of words for any program that reads a socket
    Source(SourceArgs),
    /// Four cores, no cost: every batch is done long before the next
    Baseline(PhaseArgs),
    /// 4 ms a word on four cores: processing time just above the interval
    SlowMap(PhaseArgs),
    /// The same on eight cores and eight partitions: below it again
    Parallelism(PhaseArgs),
    /// 15 ms a line on four cores: the delay grows by half a second with each batch
    Before(PhaseArgs),
    /// 5 ms a line on eight cores: no delay
    After(PhaseArgs),
    /// Anything else, to say what there is.
    #[command(external_subcommand)]
    Unknown(Vec<String>),
}

/// A phase, and what is different from its workload.
#[derive(Args)]
pub struct PhaseArgs {
    /// How much time a batch collects
    #[arg(long, value_parser = units::parse_duration, value_name = "DURATION")]
    batch_interval: Option<Duration>,
    /// Slots; each receiver holds one
    #[arg(long, value_name = "N")]
    cores: Option<u32>,
    /// Tasks that share the lines of a batch; 0 leaves lines in their blocks
    #[arg(long, value_name = "N")]
    partitions: Option<u32>,
    /// Partitions the counts end up in [default: as many as partitions]
    #[arg(long, value_name = "N")]
    reduce_partitions: Option<u32>,
    /// Lines a second
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_rate)]
    rate: Option<f64>,
    /// How long a line or a word holds a slot
    #[arg(long, value_parser = units::parse_duration, value_name = "DURATION")]
    cost: Option<Duration>,
    /// What has that cost
    #[arg(long, value_enum)]
    cost_per: Option<CostPer>,
    /// What it is spent on: sleep holds the slot, burn uses a CPU
    #[arg(long, value_enum)]
    work: Option<Work>,
    /// Whose overhead a job and a task have: Spark's, or none but ours
    #[arg(long, value_enum)]
    like: Option<Like>,
    /// Let the engine slow its receivers down when it falls behind
    #[arg(long)]
    backpressure: bool,
    /// Jobs that may run at a time
    #[arg(long, value_name = "N")]
    concurrent_jobs: Option<u32>,
    /// Receivers, each with a connection and a stream of its own
    #[arg(long, value_name = "N")]
    receivers: Option<u32>,
    /// Read lines from here instead of the system's own source
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_source)]
    source: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, ValueEnum)]
enum CostPer {
    Line,
    Word,
}

#[derive(Clone, Copy, ValueEnum)]
enum Work {
    Sleep,
    Burn,
}

#[derive(Clone, Copy, ValueEnum)]
enum Like {
    Spark,
    None,
}

/// `scalelab stream source`.
#[derive(Args)]
pub struct SourceArgs {
    /// Where it listens; 0 is any port
    #[arg(long, default_value_t = 9999)]
    port: u16,
    /// The address it listens on; 0.0.0.0 lets other machines connect
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,
    /// Lines a second, to each client
    #[arg(long, value_name = "PER_SECOND", default_value_t = 150.0, value_parser = parse_rate)]
    rate: f64,
    /// Rates over time instead, such as 30s:100,1m:~500
    #[arg(long, conflicts_with = "rate")]
    stages: Option<String>,
    /// Lines at random moments (Poisson) instead of evenly spaced
    #[arg(long)]
    poisson: bool,
    /// Words in a line
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    words: u32,
    /// How many different words there are
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    vocabulary: u32,
    /// How much more often the first words come (Zipf's exponent); 0 is all alike
    #[arg(long, default_value_t = 0.0, value_parser = parse_skew)]
    skew: f64,
    /// Where every random decision starts
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs a phase or the source; gives back the exit code.
///
/// # Errors
/// Wrong input, or surroundings that refuse something.
pub fn run(verb: &Stream) -> anyhow::Result<u8> {
    match verb {
        Stream::Source(args) => source(args),
        Stream::Baseline(args) => phase("baseline", args),
        Stream::SlowMap(args) => phase("slow-map", args),
        Stream::Parallelism(args) => phase("parallelism", args),
        Stream::Before(args) => phase("before", args),
        Stream::After(args) => phase("after", args),
        Stream::Unknown(words) => Err(input(format!(
            "unknown phase {:?}; there are baseline, slow-map, parallelism, before, after, and source for the source \
             alone",
            words.first().map_or("", String::as_str)
        ))),
    }
}

fn phase(name: &str, args: &PhaseArgs) -> anyhow::Result<u8> {
    let mut experiment = super::find_experiment(&format!("{SYSTEM}/{name}"))?;
    args.lay_over(&mut experiment);
    experiment.check().map_err(|problem| input(in_flags(&problem)))?;
    let mut common = args.common.clone();
    experiment.deployment = common.deployment.unwrap_or(experiment.deployment);
    let is_live = experiment.deployment != DeploymentKind::Simulated;
    if is_live {
        common.ui = common.ui.or(Some(Ui::default()));
        if let Some(warning) = burn_warning(&experiment.settings, pinning::allowed().len()) {
            eprintln!("{warning}");
        }
    }
    super::start(experiment, &common)
}

impl PhaseArgs {
    /// Puts what the flags say in the place of what the workload says.
    fn lay_over(&self, experiment: &mut Experiment) {
        let Self { batch_interval, cores, partitions, reduce_partitions, cost, cost_per, .. } = self;
        let Self { work, like, backpressure, concurrent_jobs, receivers, source, .. } = self;
        let time = |duration: &Option<Duration>| duration.map(|duration| json!(units::format_duration(duration)));
        let given = [
            ("batch_interval", time(batch_interval)),
            ("cores", cores.map(|count| json!(count))),
            ("partitions", partitions.map(|count| json!(count))),
            ("reduce_partitions", reduce_partitions.map(|count| json!(count))),
            ("cost", time(cost)),
            ("cost_per", cost_per.map(word)),
            ("work", work.map(word)),
            ("like", like.map(word)),
            ("backpressure", backpressure.then(|| json!(true))),
            ("concurrent_jobs", concurrent_jobs.map(|count| json!(count))),
            ("receivers", receivers.map(|count| json!(count))),
            ("source", source.as_ref().map(|source| json!(source))),
        ];
        for (key, value) in given {
            if let Some(value) = value {
                experiment.settings[key] = value;
            }
        }
        if let (Some(rate), LoadPlan::Open { stages, .. }) = (self.rate, &mut experiment.load) {
            *stages = vec![constant(rate)];
        }
    }
}

/// The name that a choice has on the command line, which is its name in a file.
fn word(choice: impl ValueEnum) -> serde_json::Value {
    json!(choice.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned()))
}

fn constant(rate_per_s: f64) -> Stage {
    Stage { duration: None, from_per_s: rate_per_s, to_per_s: rate_per_s }
}

/// A problem with a setting, named as the flag that gave it.
fn in_flags(problem: &Problem) -> String {
    match problem.at.strip_prefix("settings.") {
        Some(key) => format!("--{}: {}", key.replace('_', "-"), problem.message),
        None => problem.to_string(),
    }
}

/// Slots that sleep can be more than there are CPUs, slots that burn cannot: the engine says so too, in its notes.
fn burn_warning(settings: &serde_json::Value, cpus: usize) -> Option<String> {
    let settings: socket_stream::Settings = serde_json::from_value(settings.clone()).ok()?;
    settings.cores_to_compute(cpus).map(|cores| {
        format!(
            "warning: work = \"burn\" in {} slots, but this machine has {cpus} CPUs: tasks will take turns, and \
             processing time will be that of {cpus}; use --cores {cores}, --work sleep, or --deployment simulated",
            settings.slots()
        )
    })
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.trim_end_matches("/s").parse::<f64>().ok().filter(|rate| *rate > 0.0 && rate.is_finite());
    rate.ok_or_else(|| format!("{text:?} is not a rate; write lines a second, above 0, such as 150"))
}

fn parse_skew(text: &str) -> Result<f64, String> {
    let skew = text.parse::<f64>().ok().filter(|skew| *skew >= 0.0 && skew.is_finite());
    skew.ok_or_else(|| format!("{text:?} is not a skew; write 0 for none, or more, such as 1.1"))
}

fn parse_source(text: &str) -> Result<String, String> {
    let parts = text.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
    match parts {
        Some((host, Ok(port))) if !host.is_empty() && port > 0 => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is not where a source can be; write HOST:PORT, such as localhost:9999")),
    }
}

/// Between two lines about the source.
const TELL_EVERY: u32 = 10;

/// How long it takes at most until the end of the source is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(500);

fn source(args: &SourceArgs) -> anyhow::Result<u8> {
    let stages = match &args.stages {
        Some(text) => parse_stages(text).map_err(|message| input(format!("--stages: {message}")))?,
        None => vec![constant(args.rate)],
    };
    let mut config = RoleConfig::new("source");
    config.bind = SocketAddr::new(args.bind, args.port);
    config.seed = args.seed;
    config.settings = json!({
        "words_per_line": args.words,
        "vocabulary": args.vocabulary,
        "skew": args.skew,
        "stages": stages,
        "poisson": args.poisson,
    });
    let role = systems::find_role(SYSTEM, "source")?;
    let interrupt = Interrupt::listen("stopping")?;
    let clock = kit::Clock::real();
    let mut hosted = kit::host::start(role, config, clock.clone())
        .map_err(|error| surroundings(format!("{error:#}; choose another place with --port or --bind")))?;
    if !hosted.wait_until_started() {
        hosted.join()?;
        return Err(surroundings("the source ended before it had started"));
    }
    let started_ns = clock.now_ns();
    hosted.admin.control.start(started_ns);
    let addr = hosted.addr;
    say(&format!("source on {addr}, until Ctrl-C; to look at its lines: nc {} {}\n", addr.ip(), addr.port()));
    let mut seen = Seen::default();
    let mut looks = 0;
    while !interrupt.wait(LOOK_EVERY) {
        if hosted.has_ended() {
            hosted.join()?;
            return Err(surroundings("the source ended by itself"));
        }
        looks += 1;
        if looks % TELL_EVERY == 0 {
            seen.add(hosted.admin.series.after(seen.seq));
            let running = Duration::from_nanos(clock.now_ns().saturating_sub(started_ns));
            say(&seen.line(running));
        }
    }
    hosted.admin.control.stop();
    hosted.request_stop();
    hosted.join()?;
    Ok(0)
}

/// The source's gauges as they were told last.
#[derive(Default)]
struct Seen {
    seq: u64,
    values: BTreeMap<String, f64>,
}

impl Seen {
    fn add(&mut self, points: Vec<Point>) {
        for Point { seq, name, value, .. } in points {
            self.seq = seq;
            if let Some(value) = value {
                self.values.insert(name, value);
            }
        }
    }

    fn line(&self, running: Duration) -> String {
        let value = |name: &str| self.values.get(name).copied().unwrap_or(0.0);
        let clients = value("clients") as u64;
        let mut line = format!("{:>6.0} s  {:>10.0} lines sent", running.as_secs_f64(), value("sent_lines"));
        let _ = match clients {
            0 => writeln!(line, "  no client"),
            1 => writeln!(line, "  1 client  blocked {:.1} s", value("blocked_s")),
            _ => writeln!(line, "  {clients} clients  blocked {:.1} s", value("blocked_s")),
        };
        line
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        verb: Stream,
    }

    fn phase_args(flags: &[&str]) -> PhaseArgs {
        match Line::try_parse_from([&["x", "before"][..], flags].concat()).map(|line| line.verb) {
            Ok(Stream::Before(args)) => args,
            Ok(_) => unreachable!("before was asked for"),
            Err(error) => panic!("{flags:?}: {error}"),
        }
    }

    #[test]
    fn a_flag_takes_the_place_of_a_key() {
        for (flags, expected) in [
            (&["--batch-interval", "500ms"][..], json!({"batch_interval": "500ms"})),
            (&["--batch-interval", "3"], json!({"batch_interval": "3s"})),
            (&["--cores", "8", "--partitions", "0"], json!({"cores": 8, "partitions": 0})),
            (&["--cost", "5ms", "--cost-per", "word"], json!({"cost": "5ms", "cost_per": "word"})),
            (&["--work", "burn", "--like", "none"], json!({"work": "burn", "like": "none"})),
            (&["--backpressure", "--receivers", "2"], json!({"backpressure": true, "receivers": 2})),
            (&["--source", "localhost:9999"], json!({"source": "localhost:9999"})),
            (
                &["--concurrent-jobs", "3", "--reduce-partitions", "2"],
                json!({"concurrent_jobs": 3, "reduce_partitions": 2}),
            ),
            (&["--duration", "30s"], json!({})),
        ] {
            let mut experiment = Experiment::empty();
            phase_args(flags).lay_over(&mut experiment);
            assert_eq!(experiment.settings, expected, "{flags:?}");
        }
    }

    #[test]
    fn a_rate_takes_the_place_of_the_stages_and_leaves_the_rest() {
        let mut experiment = Experiment {
            load: LoadPlan::Open { stages: vec![constant(150.0)], poisson: true, connections: 7 },
            ..Experiment::empty()
        };
        phase_args(&["--rate", "20/s"]).lay_over(&mut experiment);
        assert_eq!(experiment.load, LoadPlan::Open { stages: vec![constant(20.0)], poisson: true, connections: 7 });
    }

    #[test]
    fn a_flag_that_makes_no_sense_is_refused_with_what_does() {
        for (flags, expected) in [
            (&["before", "--rate", "0"][..], "above 0"),
            (&["before", "--rate", "many"], "lines a second"),
            (&["before", "--cost=-5ms"], "250ms"),
            (&["before", "--source", "localhost"], "HOST:PORT"),
            (&["before", "--source", ":9999"], "HOST:PORT"),
            (&["before", "--like", "flink"], "spark"),
            (&["before", "--ui", "everywhere"], "0.0.0.0:4040, or off"),
            (&["source", "--words", "0"], "1.."),
            (&["source", "--skew=-1"], "not a skew"),
            (&["source", "--rate", "5", "--stages", "1s:5"], "cannot be used with"),
        ] {
            let error = Line::try_parse_from([&["x"][..], flags].concat()).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(expected), "{flags:?}: {error}");
        }
    }

    #[test]
    fn a_page_is_on_loopback_unless_an_address_is_given() {
        for (text, addr) in [
            ("off", None),
            ("4040", Some("127.0.0.1:4040")),
            ("0.0.0.0:80", Some("0.0.0.0:80")),
            ("[::1]:5000", Some("[::1]:5000")),
        ] {
            let ui: Ui = text.parse().unwrap();
            assert_eq!(ui.addr(), addr.map(|addr| addr.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn burning_in_more_slots_than_there_are_cpus_is_warned_of() {
        let burns = json!({"work": "burn", "cores": 4, "cost": "4ms"});
        let warning = burn_warning(&burns, 2).unwrap();
        assert!(warning.contains("in 3 slots, but this machine has 2") && warning.contains("--cores 3"), "{warning}");
        assert_eq!(burn_warning(&burns, 3), None, "the receiver's core computes nothing");
        assert_eq!(burn_warning(&json!({"work": "sleep", "cores": 4, "cost": "4ms"}), 2), None);
        assert_eq!(burn_warning(&json!({"work": "burn", "cores": 4}), 2), None);
    }

    #[test]
    fn a_problem_with_a_setting_names_its_flag() {
        let named = |at: &str| in_flags(&Problem::new(at, "it is 0"));
        assert_eq!(named("settings.batch_interval"), "--batch-interval: it is 0");
        assert_eq!(named("duration"), "duration: it is 0");
    }

    #[test]
    fn the_source_says_what_it_sent_to_whom_and_how_long_it_was_held_up() {
        let point = |seq, name: &str, value| Point { seq, at_ns: 0, name: name.to_owned(), value };
        let mut seen = Seen::default();
        assert_eq!(seen.line(Duration::from_secs(5)), "     5 s           0 lines sent  no client\n");
        seen.add(vec![
            point(1, "sent_lines", Some(700.0)),
            point(2, "clients", Some(1.0)),
            point(3, "blocked_s", None),
        ]);
        seen.add(vec![point(4, "sent_lines", Some(1450.0)), point(5, "blocked_s", Some(0.26))]);
        assert_eq!(seen.seq, 5);
        assert_eq!(seen.line(Duration::from_secs(10)), "    10 s        1450 lines sent  1 client  blocked 0.3 s\n");
    }
}

//! Exercises: a workload file with blanks, a goal, and a checker that runs what was filled in.
//!
//! The one rule: a file is judged by what its run recorded, read back from the archive, and only when everything but
//! the blanks is as it was given. What is wrong is named with its line; the answer never is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use kit::batch::{Batch, Entry};

use crate::archive::Archive;
use crate::cli::Ui;
use crate::environment;
use crate::error::{input, surroundings};
use crate::experiment::{DeploymentKind, Experiment, LoadPlan, file};
use crate::run::{self, Options};
use crate::units;

mod judge;

use judge::{Goal, Judgement, Shape};

/// What stands where something is to be filled in.
const BLANK: &str = "___";

/// One exercise.
struct Exercise {
    /// Its name, which its file states too.
    name: &'static str,
    /// What it teaches.
    about: &'static str,
    /// Its file.
    text: &'static str,
    /// What is to be reached.
    goal: Goal,
    /// What may be filled in. Everything else stays as it is in the file.
    free: &'static [(&'static str, Within)],
}

/// What a filled-in value may be.
#[derive(Clone, Copy)]
enum Within {
    /// A duration, from one text to another.
    Time(&'static str, &'static str),
    /// A whole number, from one to another.
    Count(u64, u64),
}

const EXERCISES: &[Exercise] = &[
    Exercise {
        name: "fill-gaps",
        about: "make a stream fall behind: processing time against batch interval",
        text: include_str!("../workloads/socket-stream/exercises/fill-gaps.toml"),
        goal: Goal::FallBehind,
        free: &[
            ("settings.batch_interval", Within::Time("1s", "5s")),
            ("settings.cost", Within::Time("1ms", "30ms")),
            ("settings.partitions", Within::Count(1, 16)),
            ("settings.reduce_partitions", Within::Count(1, 16)),
        ],
    },
    Exercise {
        name: "fix-delay",
        about: "get an overloaded stream back on time: slots, tasks and waves",
        text: include_str!("../workloads/socket-stream/exercises/fix-delay.toml"),
        goal: Goal::CatchUp,
        free: &[
            ("settings.cost", Within::Time("5ms", "15ms")),
            ("settings.cores", Within::Count(1, 8)),
            ("settings.partitions", Within::Count(1, 16)),
            ("settings.reduce_partitions", Within::Count(1, 16)),
        ],
    },
];

/// Where a run takes place is not part of an exercise: the checker chooses it.
const ANYWHERE: &str = "deployment";

/// `scalelab exercise`.
#[derive(Subcommand)]
pub enum ExerciseVerb {
    /// Name the exercises
    List,
    /// Write the file of an exercise into this folder
    Start {
        /// Its name
        name: String,
    },
    /// Say what is still open in a file, or run it and judge it
    Check(CheckArgs),
}

/// `scalelab exercise check`.
#[derive(Args)]
pub struct CheckArgs {
    /// The file that was filled in
    file: PathBuf,
    /// Run it for real, as processes, with the live page; without, in simulated time
    #[arg(long)]
    live: bool,
    /// Where the live page is served: a port, ADDRESS:PORT, or off [default: 4040]
    #[arg(long, value_name = "PORT", requires = "live")]
    ui: Option<Ui>,
    /// Keep the archive and its report here; without, the run leaves nothing
    #[arg(long, value_name = "ROOT", aliases = ["outdir", "output", "output-dir", "run-dir"])]
    out: Option<PathBuf>,
}

/// Does what is asked; gives back the exit code.
///
/// # Errors
/// Wrong input, or surroundings that refuse something.
pub fn run(verb: &ExerciseVerb) -> anyhow::Result<u8> {
    match verb {
        ExerciseVerb::List => Ok(say(&list())),
        ExerciseVerb::Start { name } => start(name, Path::new("")),
        ExerciseVerb::Check(args) => check(args),
    }
}

fn say(text: &str) -> u8 {
    let _ = std::io::stdout().write_all(text.as_bytes());
    0
}

fn list() -> String {
    let mut text = String::new();
    for Exercise { name, about, goal, .. } in EXERCISES {
        let _ = writeln!(text, "{name:<12} {about}\n{:<12} goal: {}", "", goal.text());
    }
    text.push_str("\nbegin with: scalelab exercise start NAME\n");
    text
}

fn names() -> String {
    EXERCISES.iter().map(|exercise| exercise.name).collect::<Vec<_>>().join(", ")
}

fn find(name: &str) -> Option<&'static Exercise> {
    EXERCISES.iter().find(|exercise| exercise.name == name)
}

fn start(name: &str, folder: &Path) -> anyhow::Result<u8> {
    let exercise = find(name).ok_or_else(|| input(format!("unknown exercise {name:?}; there are {}", names())))?;
    let path = folder.join(format!("{name}.toml"));
    let shown = path.display();
    let mut file = std::fs::File::create_new(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => input(format!(
            "{shown} is there already and stays as it is; check it with `scalelab exercise check {shown}`, or move \
             it away"
        )),
        _ => surroundings(format!("cannot write {shown}: {error}; go to a folder that can be written")),
    })?;
    file.write_all(exercise.text.as_bytes()).map_err(|error| surroundings(format!("cannot write {shown}: {error}")))?;
    let mut text = format!("{shown} is written. Goal: {}.\nOpen in it:\n", exercise.goal.text());
    for (line, key) in blanks(exercise.text) {
        let _ = writeln!(text, "  {shown}:{line}: {key}");
    }
    let _ = writeln!(text, "Fill them in, then: scalelab exercise check {shown}");
    Ok(say(&text))
}

/// Line and key of every blank outside comments.
fn blanks(text: &str) -> Vec<(usize, &str)> {
    let lines = text.lines().map(without_comment).enumerate();
    let open = lines.filter(|(_, line)| line.contains(BLANK));
    open.map(|(index, line)| (index + 1, line.split('=').next().unwrap_or_default().trim())).collect()
}

/// A line up to a `#` that is not within quotes.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    for (at, character) in line.char_indices() {
        match (character, quote) {
            ('#', None) => return &line[..at],
            ('"' | '\'', None) => quote = Some(character),
            (_, Some(open)) if character == open => quote = None,
            _ => {}
        }
    }
    line
}

fn check(args: &CheckArgs) -> anyhow::Result<u8> {
    let shown = args.file.display().to_string();
    let text = std::fs::read_to_string(&args.file).map_err(|error| {
        input(format!("{shown}: {error}; `scalelab exercise start NAME` writes the file of an exercise"))
    })?;
    let open = blanks(&text);
    if !open.is_empty() {
        let lines = open.iter().map(|(line, key)| format!("{shown}:{line}: {key} is still open; replace {BLANK}\n"));
        say(&lines.collect::<String>());
        return Ok(1);
    }
    let stem = args.file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let mut experiment = file::parse(&text, &shown, &stem)?;
    let exercise = find(&experiment.name).ok_or_else(|| {
        let line = file::line_of_path(&text, "name");
        input(format!("{shown}:{line}: {:?} is no exercise; name is one of {}", experiment.name, names()))
    })?;
    let broken = exercise.broken_rules(&text);
    if !broken.is_empty() {
        say(&broken.iter().map(|(line, what)| format!("{shown}:{line}: {what}\n")).collect::<String>());
        return Ok(1);
    }
    experiment.deployment = if args.live { DeploymentKind::Processes } else { DeploymentKind::Simulated };
    experiment.check().map_err(|problem| input(format!("{shown}: {problem}")))?;
    run_and_judge(exercise, &experiment, args)
}

fn run_and_judge(exercise: &Exercise, experiment: &Experiment, args: &CheckArgs) -> anyhow::Result<u8> {
    let scratch = tempfile::Builder::new().prefix("scalelab-exercise-").tempdir()?;
    let options = Options {
        out: args.out.clone().unwrap_or_else(|| scratch.path().to_owned()),
        ui: if args.live { args.ui.unwrap_or_default().addr() } else { None },
        quiet: args.out.is_none(),
        ..Options::default()
    };
    let archive = Archive::create(&options.out, experiment, &environment::stamp())?;
    let code = run::resume(&archive, None, &options)?;
    let results = archive.results()?;
    let shape = shape(experiment);
    // Without a slot nothing is ever done, which no lab calls a valid trial, and which is what there is to learn.
    let Some(trial) = results.first().filter(|trial| trial.valid || shape.slots() == 0) else {
        let why = results.first().and_then(|trial| trial.invalid.clone());
        eprintln!("{}: cannot be judged: {}", exercise.name, why.unwrap_or_else(|| "the run did not end".to_owned()));
        return Ok(code.max(3));
    };
    let batches = latest(archive.journal(&trial.name)?);
    let window = experiment.window(&experiment.load);
    let window_ms = f64::from(window.start) * 1000.0..f64::from(window.end) * 1000.0;
    let judgement = judge::judge(exercise.goal, &batches, shape.interval_ms, window_ms);
    say(&verdict(exercise, &judgement, &shape));
    Ok(u8::from(!judgement.met))
}

/// Each batch once, as it was told last, in the order of their numbers.
fn latest(entries: Vec<Entry>) -> Vec<Batch> {
    let mut batches = BTreeMap::new();
    for entry in entries {
        if let Entry::Batch(batch) = entry {
            batches.insert(batch.batch, batch);
        }
    }
    batches.into_values().collect()
}

fn verdict(exercise: &Exercise, Judgement { met, figures }: &Judgement, shape: &Shape) -> String {
    let (name, goal) = (exercise.name, exercise.goal);
    let word = if *met { "met" } else { "not met yet" };
    let mut text = format!("{name}: {word} ({})\n{}", goal.text(), judge::describe(figures, shape));
    if !met {
        let _ = writeln!(text, "hint: {}", judge::hint(goal, figures, shape));
    }
    text
}

/// How the settings of a checked experiment divide a batch. Where they are silent, the engine's defaults hold.
fn shape(experiment: &Experiment) -> Shape {
    let ms = |key: &str, default: f64| match experiment.settings.get(key).and_then(|value| value.as_str()) {
        Some(text) => units::parse_duration(text).map_or(default, |duration| duration.as_secs_f64() * 1000.0),
        None => default,
    };
    let count = |key: &str, default: u32| {
        let given = experiment.settings.get(key).and_then(serde_json::Value::as_u64);
        given.and_then(|count| u32::try_from(count).ok()).unwrap_or(default)
    };
    let rate_per_s = match &experiment.load {
        LoadPlan::Open { stages, .. } => stages.first().map_or(0.0, |stage| stage.from_per_s),
        LoadPlan::Closed { .. } => 0.0,
    };
    let interval_ms = ms("batch_interval", 1000.0);
    Shape {
        interval_ms,
        lines: rate_per_s * interval_ms / 1000.0,
        cost_ms: ms("cost", 0.0),
        partitions: count("partitions", 4),
        cores: count("cores", 4),
        receivers: count("receivers", 1),
    }
}

impl Exercise {
    /// Line and message of everything that is not as the exercise gives or allows it. The text is TOML without blanks.
    fn broken_rules(&self, text: &str) -> Vec<(usize, String)> {
        let (given, found) = (self.given(), values(text));
        let free = |path: &str| self.free.iter().find(|(free, _)| *free == path).map(|(_, within)| *within);
        let fixed = |path: &String| free(path).is_none() && path != ANYWHERE;
        let mut broken = Vec::new();
        let mut tell = |path: &str, what: String| broken.push((file::line_of_path(text, path), what));
        for path in given.keys().chain(found.keys().filter(|path| !given.contains_key(*path))) {
            let key = path.rsplit('.').next().unwrap_or(path);
            match (given.get(path), found.get(path)) {
                (Some(given), None) if path != ANYWHERE => {
                    tell(path, format!("{key} is missing; it belongs here: {key} = {given}"))
                }
                (Some(given), Some(found)) if fixed(path) && given != found => {
                    tell(path, format!("{key} is {found}; this exercise gives {key} = {given}, put it back"));
                }
                (None, Some(_)) if fixed(path) => {
                    tell(path, format!("{key} is not part of this exercise; take it out"));
                }
                (_, Some(found)) => {
                    if let Some(why) = free(path).and_then(|within| within.refuses(key, found)) {
                        tell(path, why);
                    }
                }
                _ => {}
            }
        }
        broken
    }

    /// The values of the exercise as it is handed out; what stands for a blank is not looked at.
    fn given(&self) -> BTreeMap<String, toml::Value> {
        let filled = self.text.replace(&format!(" {BLANK}"), " 0");
        let mut given = values(&filled);
        for (path, _) in self.free {
            // The place of a free key is shown when it is missing.
            given.insert((*path).to_owned(), toml::Value::String(BLANK.to_owned()));
        }
        given
    }
}

impl Within {
    /// Why a value is not allowed; none when it is.
    fn refuses(self, key: &str, found: &toml::Value) -> Option<String> {
        match self {
            Self::Time(least, most) => {
                let time = |text: &str| units::parse_duration(text).ok();
                let given = found.as_str().and_then(time);
                let fits = given.is_some_and(|given| time(least) <= Some(given) && Some(given) <= time(most));
                (!fits).then(|| format!("{key} is {found}; in this exercise it is from \"{least}\" to \"{most}\""))
            }
            Self::Count(least, most) => {
                let given = found.as_integer().and_then(|count| u64::try_from(count).ok());
                let fits = given.is_some_and(|given| (least..=most).contains(&given));
                (!fits).then(|| format!("{key} is {found}; in this exercise it is from {least} to {most}"))
            }
        }
    }
}

/// Every value of a file by its path, `settings.cores`; nothing of a file that is not TOML.
fn values(text: &str) -> BTreeMap<String, toml::Value> {
    let mut found = BTreeMap::new();
    flatten("", toml::from_str(text).unwrap_or_default(), &mut found);
    found
}

fn flatten(at: &str, table: toml::Table, into: &mut BTreeMap<String, toml::Value>) {
    for (key, value) in table {
        let path = if at.is_empty() { key } else { format!("{at}.{key}") };
        match value {
            toml::Value::Table(table) => flatten(&path, table, into),
            value => {
                into.insert(path, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SOLUTIONS: [(&str, &[(&str, &str)]); 2] = [
        (
            "fill-gaps",
            &[("batch_interval", "\"2s\""), ("cost", "\"15ms\""), ("partitions", "4"), ("reduce_partitions", "4")],
        ),
        ("fix-delay", &[("cost", "\"5ms\""), ("cores", "8"), ("partitions", "8"), ("reduce_partitions", "8")]),
    ];

    /// The file of an exercise with its published answers, and then `instead` of some of them.
    fn filled(name: &str, instead: &[(&str, &str)]) -> String {
        let answers = SOLUTIONS.iter().find(|(exercise, _)| *exercise == name).unwrap().1;
        let line = |line: &str| {
            let key = line.split('=').next().unwrap().trim();
            let of = |values: &[(&str, &str)]| {
                values.iter().find(|(wanted, _)| *wanted == key).map(|(_, value)| (*value).to_owned())
            };
            of(instead).or_else(|| of(answers)).map_or_else(|| line.to_owned(), |value| format!("{key} = {value}"))
        };
        find(name).unwrap().text.lines().map(|text| line(text) + "\n").collect()
    }

    fn broken(name: &str, instead: &[(&str, &str)]) -> Vec<String> {
        let broken = find(name).unwrap().broken_rules(&filled(name, instead));
        broken.into_iter().map(|(line, what)| format!("{line}: {what}")).collect()
    }

    #[test]
    fn every_blank_of_an_exercise_is_found_and_is_what_may_be_changed() {
        for exercise in EXERCISES {
            let open: BTreeSet<_> =
                blanks(exercise.text).into_iter().map(|(_, key)| format!("settings.{key}")).collect();
            let free: BTreeSet<_> = exercise.free.iter().map(|(path, _)| (*path).to_owned()).collect();
            assert_eq!(open, free, "{}", exercise.name);
            let (line, key) = blanks(exercise.text)[0];
            assert!(exercise.text.lines().nth(line - 1).unwrap().starts_with(key));
        }
    }

    #[test]
    fn a_blank_in_a_comment_or_behind_a_value_is_none() {
        for (line, open) in [
            ("a = ___", true),
            ("a = \"___\" # here", true),
            ("a = 4 # was ___", false),
            ("# a = ___", false),
            ("a = \"# ___\"", true),
            ("a = 'it''s' # ___", false),
        ] {
            assert_eq!(!blanks(line).is_empty(), open, "{line}");
        }
    }

    #[test]
    fn the_published_answers_are_allowed() {
        for (name, _) in SOLUTIONS {
            assert_eq!(broken(name, &[]), [""; 0], "{name}");
            assert!(blanks(&filled(name, &[])).is_empty());
        }
    }

    #[test]
    fn what_is_given_stays_as_it_is_and_what_is_free_has_limits() {
        let line = |name: &str, key: &str| {
            filled(name, &[]).lines().position(|line| line.split('=').next().unwrap().trim() == key).unwrap() + 1
        };
        for (name, key, value, expected) in [
            ("fix-delay", "rate", "0", "rate is 0; this exercise gives rate = 143, put it back"),
            ("fix-delay", "batch_interval", "\"1h\"", "this exercise gives batch_interval = \"2s\""),
            ("fix-delay", "cost", "\"0s\"", "cost is \"0s\"; in this exercise it is from \"5ms\" to \"15ms\""),
            ("fix-delay", "cores", "64", "cores is 64; in this exercise it is from 1 to 8"),
            ("fix-delay", "partitions", "0", "partitions is 0; in this exercise it is from 1 to 16"),
            ("fix-delay", "like", "\"none\"", "this exercise gives like = \"spark\""),
            ("fix-delay", "duration", "\"1s\"", "this exercise gives duration = \"1m\""),
            ("fill-gaps", "cores", "1", "this exercise gives cores = 4"),
            ("fill-gaps", "batch_interval", "\"1ms\"", "it is from \"1s\" to \"5s\""),
            ("fill-gaps", "cost", "15", "cost is 15; in this exercise it is from \"1ms\" to \"30ms\""),
        ] {
            let found = broken(name, &[(key, value)]);
            let [one] = found.as_slice() else { panic!("{key}: {found:?}") };
            assert!(one.starts_with(&format!("{}: ", line(name, key))), "{one}");
            assert!(one.contains(expected), "{one}");
        }
    }

    #[test]
    fn what_is_added_or_left_out_is_named() {
        let exercise = find("fix-delay").unwrap();
        let added = filled("fix-delay", &[]) + "receivers = 0\n";
        let [(_, what)] = exercise.broken_rules(&added).try_into().unwrap();
        assert_eq!(what, "receivers is not part of this exercise; take it out");
        let without = |key: &str| -> String {
            filled("fix-delay", &[])
                .lines()
                .filter(|line| !line.starts_with(key))
                .map(|line| format!("{line}\n"))
                .collect()
        };
        let [(_, what)] = exercise.broken_rules(&without("seed")).try_into().unwrap();
        assert_eq!(what, "seed is missing; it belongs here: seed = 32");
        assert_eq!(exercise.broken_rules(&without("deployment")), [], "where it runs is for the checker to say");
    }

    #[test]
    fn a_batch_is_as_it_was_told_last() {
        let told = |batch: u64, records: u64| Entry::Batch(Batch { batch, records, ..Batch::default() });
        let batches = latest(vec![told(1, 5), told(0, 3), Entry::Engine(kit::batch::Engine::default()), told(1, 7)]);
        assert_eq!(batches.iter().map(|batch| (batch.batch, batch.records)).collect::<Vec<_>>(), [(0, 3), (1, 7)]);
    }

    #[test]
    fn a_file_is_written_once_and_never_over_another() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(start("fill-gaps", folder.path()).unwrap(), 0);
        let written = folder.path().join("fill-gaps.toml");
        std::fs::write(&written, "mine").unwrap();
        let refused = start("fill-gaps", folder.path()).unwrap_err();
        assert_eq!(crate::error::exit_code(&refused), 2);
        assert!(refused.to_string().contains("stays as it is"), "{refused}");
        assert_eq!(std::fs::read_to_string(written).unwrap(), "mine");
        assert!(start("fill-gap", folder.path()).unwrap_err().to_string().contains("fill-gaps, fix-delay"));
    }
}

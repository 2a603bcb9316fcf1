//! Follows an archive: what the page shows, kept up with the files.
//!
//! The one rule: nothing here is more than a cache of files. A link that moves leads to another run, which is read from
//! its start; so is a trial that is begun again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kit::Clock;
use serde::Deserialize;
use serde_json::Value;

use super::stream::Stream;
use super::timeline::{Fold, Key, Timeline};
use crate::archive::follow::{Growing, Tail, Whole};
use crate::experiment::{Experiment, Levels, Trial, file};
use crate::report::csv::HISTORY_HEADER;

/// Bytes that one look reads of a file, so that a poll stays quick however large the archive is.
const BUDGET: u64 = 4 << 20;

/// How many trials are kept read.
const KEPT: usize = 4;

/// Follows what a path leads to.
pub struct Follower {
    path: PathBuf,
    run: Option<Run>,
    /// Another number after every change, and in every process.
    version: u64,
}

/// One run.
pub struct Run {
    growing: Growing,
    files: RunFiles,
    /// What it is.
    pub about: About,
    /// The experiment, where this version knows its system.
    pub experiment: Option<Experiment>,
    /// Planned trials, in order.
    pub plan: Vec<Trial>,
    /// Final trials, by name.
    pub results: BTreeMap<String, Value>,
    /// What the results mean, once the run has ended.
    pub verdict: Option<Value>,
    /// Trials that have begun, by name.
    pub begun: Vec<String>,
    /// Whether a lab that is alive writes to it.
    pub is_written: bool,
    /// The trials that were looked at last.
    trials: Vec<Followed>,
}

struct RunFiles {
    experiment: Whole,
    environment: Whole,
    plan: Whole,
    verdict: Whole,
    results: Tail,
}

/// What an archive says of its run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct About {
    /// The question it answers.
    pub question: String,
    /// The experiment's name.
    pub name: String,
    /// The system.
    pub system: String,
    /// Where it runs.
    pub deployment: String,
    /// When it was started, in words.
    pub started_at: Option<String>,
    /// Faults that the plan wants, in each trial.
    pub planned_faults: Vec<Mark>,
}

/// Something that happened at one time, or for a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Seconds since the start of the schedule.
    pub from_s: f64,
    /// None while it lasts, or where it has no length.
    pub to_s: Option<f64>,
    /// What.
    pub label: String,
}

/// One trial that has begun.
pub struct Followed {
    /// Its name.
    pub name: String,
    series_file: Tail,
    history_file: Tail,
    batches_file: Tail,
    faults_file: Tail,
    recovery_file: Whole,
    /// Gauges of the series.
    pub series: Timeline,
    /// Operations by second.
    pub history: History,
    /// What a stream told; none where the system is no stream.
    pub stream: Option<Stream>,
    /// Faults as they happened, once the trial has ended.
    pub faults: Vec<Mark>,
    /// The same while it runs, by their places.
    live: BTreeMap<u64, Mark>,
    /// Bytes that were not read yet.
    pub left: u64,
}

/// Operations by second, with Locust's columns as gauges of no role.
#[derive(Default)]
pub struct History {
    /// Rates, percentiles and users.
    pub gauges: Timeline,
    /// Operations until now.
    pub requests: u64,
    /// Those that did not end well.
    pub failures: u64,
    /// When the first second was, and which was the last.
    seconds: Option<(u64, u64)>,
}

impl Follower {
    /// Follows `path`, which need not be there yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), run: None, version: Clock::real().wall_ns() / 1_000_000 }
    }

    /// Looks at the files that concern a whole run, and gives the run; none while there is none.
    pub fn look(&mut self) -> Option<&mut Run> {
        let growing = Growing::at(&self.path);
        let is_same = match (&growing, &self.run) {
            (Some(growing), Some(run)) => growing.folder() == run.growing.folder(),
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            self.run = growing.map(Run::new);
            self.version += 1;
        }
        let run = self.run.as_mut()?;
        if run.look() {
            self.version += 1;
        }
        Some(run)
    }

    /// Looks at a run and one of its trials: the one of this name, otherwise the last that has begun.
    pub fn look_at(&mut self, trial: Option<&str>) -> Option<(&Run, Option<&Followed>)> {
        let run = self.look()?;
        let name = trial.filter(|name| run.begun.iter().any(|begun| begun == name));
        let name = name.or_else(|| run.latest()).map(str::to_owned);
        let changed = name.as_deref().is_some_and(|name| run.look_at(name));
        if changed {
            self.version += 1;
        }
        let run = self.run.as_ref()?;
        Some((run, name.and_then(|name| run.trial(&name))))
    }

    /// Another number after every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Where it looks.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Run {
    fn new(growing: Growing) -> Self {
        let files = RunFiles {
            experiment: growing.experiment(),
            environment: growing.environment(),
            plan: growing.plan(),
            verdict: growing.verdict(),
            results: growing.results(),
        };
        Self {
            growing,
            files,
            about: About::default(),
            experiment: None,
            plan: Vec::new(),
            results: BTreeMap::new(),
            verdict: None,
            begun: Vec::new(),
            is_written: false,
            trials: Vec::new(),
        }
    }

    /// The name of its folder, which is when it was started.
    pub fn stamp(&self) -> String {
        self.growing.folder().file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    /// Whether every planned trial is final and the conclusion is drawn.
    pub fn has_ended(&self) -> bool {
        self.verdict.is_some() && !self.plan.is_empty() && self.results.len() >= self.plan.len()
    }

    /// Whether it runs on a virtual clock.
    pub fn is_simulated(&self) -> bool {
        self.about.deployment == "simulated"
    }

    /// The measured seconds of a trial; none where this version does not know them.
    pub fn window(&self, name: &str) -> Option<std::ops::Range<u32>> {
        let experiment = self.experiment.as_ref()?;
        let levels = self.plan.iter().find(|trial| trial.name == name).map(|trial| &trial.levels)?;
        Some(experiment.window(&experiment.load.at(levels)))
    }

    /// The final record of a trial.
    pub fn result(&self, name: &str) -> Option<&Value> {
        self.results.get(name)
    }

    /// The levels of a trial.
    pub fn levels(&self, name: &str) -> Levels {
        self.plan.iter().find(|trial| trial.name == name).map_or_else(Levels::new, |trial| trial.levels.clone())
    }

    fn latest(&self) -> Option<&str> {
        self.begun.last().map(String::as_str)
    }

    fn trial(&self, name: &str) -> Option<&Followed> {
        self.trials.iter().find(|trial| trial.name == name)
    }

    /// Whether anything has changed.
    fn look(&mut self) -> bool {
        let mut changed = false;
        if let Some(text) = self.files.experiment.changed() {
            self.take_experiment(&text);
            changed = true;
        }
        if let Some(text) = self.files.environment.changed() {
            let environment: Value = serde_json::from_str(&text).unwrap_or_default();
            self.about.started_at = environment["started_at"].as_str().map(str::to_owned);
            changed = true;
        }
        if let Some(text) = self.files.plan.changed() {
            #[derive(Deserialize, Default)]
            struct Plan {
                trials: Vec<Trial>,
            }
            self.plan = serde_json::from_str::<Plan>(&text).unwrap_or_default().trials;
            changed = true;
        }
        if let Some(text) = self.files.verdict.changed() {
            self.verdict = serde_json::from_str(&text).ok();
            changed = true;
        }
        let results = self.files.results.look(BUDGET);
        if results.anew {
            self.results.clear();
        }
        self.results.extend(results.lines.lines().filter_map(result));
        changed |= results.anew || !results.lines.is_empty();
        let begun = self.growing.begun();
        // Once all is said nobody writes, and a finished archive is not to be touched again and again.
        let is_written = !self.has_ended() && self.growing.is_written();
        changed |= begun != self.begun || is_written != self.is_written;
        (self.begun, self.is_written) = (begun, is_written);
        changed
    }

    fn take_experiment(&mut self, text: &str) {
        // Also read where this version does not know the system, or a key: the page then says less.
        let table: toml::Table = toml::from_str(text).unwrap_or_default();
        let word = |key: &str| table.get(key).and_then(toml::Value::as_str).unwrap_or_default().to_owned();
        let question = text.lines().next().and_then(|line| line.strip_prefix('#')).unwrap_or_default().trim();
        self.about = About {
            question: if question.is_empty() { word("name") } else { question.to_owned() },
            name: word("name"),
            system: word("system"),
            deployment: word("deployment"),
            started_at: self.about.started_at.take(),
            planned_faults: planned_faults(&table),
        };
        self.experiment = file::parse(text, "experiment.toml", &self.about.name).ok();
    }

    /// Whether anything has changed in a trial.
    fn look_at(&mut self, name: &str) -> bool {
        let place = self.trials.iter().position(|trial| trial.name == name);
        let is_new = place.is_none();
        let mut trial = match place {
            Some(place) => self.trials.remove(place),
            None => Followed::new(&self.growing, name),
        };
        let changed = trial.look();
        self.trials.push(trial);
        if self.trials.len() > KEPT {
            self.trials.remove(0);
        }
        changed || is_new
    }
}

impl Followed {
    fn new(growing: &Growing, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            series_file: growing.series(name),
            history_file: growing.history(name),
            batches_file: growing.batches(name),
            faults_file: growing.faults(name),
            recovery_file: growing.recovery(name),
            series: Timeline::default(),
            history: History::default(),
            stream: None,
            faults: Vec::new(),
            live: BTreeMap::new(),
            left: 0,
        }
    }

    /// The last instant of anything, in seconds since the start of the schedule.
    pub fn end_s(&self) -> f64 {
        let stream_s = self.stream.as_ref().map_or(0.0, |stream| stream.end_ms() / 1000.0);
        self.series.end_s().max(self.history.gauges.end_s()).max(stream_s)
    }

    /// The faults that were seen.
    pub fn seen(&self) -> Vec<Mark> {
        if self.faults.is_empty() { self.live.values().cloned().collect() } else { self.faults.clone() }
    }

    fn look(&mut self) -> bool {
        let batches = self.batches_file.look(BUDGET);
        if batches.anew {
            self.stream = None;
        }
        for line in batches.lines.lines() {
            self.stream.get_or_insert_default().take(line);
        }
        let series = self.series_file.look(BUDGET);
        if series.anew {
            self.series = Timeline::default();
        }
        series.lines.lines().filter_map(sample).for_each(|(key, t_s, value)| {
            let fold = fold(&key.name);
            self.series.push(key, fold, t_s, value);
        });
        let history = self.history_file.look(BUDGET);
        if history.anew {
            self.history = History::default();
        }
        let start_s = self.stream.as_ref().and_then(start_s);
        history.lines.lines().for_each(|line| self.history.take(line, start_s));
        let live = self.faults_file.look(BUDGET);
        if live.anew {
            self.live.clear();
        }
        self.live.extend(live.lines.lines().filter_map(live_fault));
        let recovery = self.recovery_file.changed();
        if let Some(text) = &recovery {
            self.faults = faults(text);
        }
        self.left = batches.left + series.left + history.left;
        let looks = [batches, series, history, live];
        recovery.is_some() || looks.iter().any(|added| added.anew || !added.lines.is_empty())
    }
}

/// The whole second in which the schedule of a stream began; none when it is simulated, where seconds count from 0.
fn start_s(stream: &Stream) -> Option<u64> {
    let start_ms = stream.engine.as_ref()?.start_unix_ms;
    Some((start_ms / 1000.0) as u64)
}

/// A row of the series.
fn sample(line: &str) -> Option<(Key, f64, Option<f64>)> {
    let mut fields = line.split(',');
    let t_s = fields.next()?.parse().ok()?;
    let (name, role) = (fields.next()?.to_owned(), fields.next()?.to_owned());
    let replica = fields.next()?.parse().ok()?;
    let value = fields.next()?.parse().ok();
    Some((Key { name, role, replica }, t_s, value))
}

/// Counts that only grow keep their last value.
fn fold(name: &str) -> Fold {
    match name {
        "sent_lines" | "due_lines" | "received_records" | "blocked_s" | "receiver_blocked_s" => Fold::Last,
        _ => Fold::Mean,
    }
}

impl History {
    /// Takes a row; `start_s` is the second in which the schedule began, otherwise the first row's is.
    fn take(&mut self, line: &str, start_s: Option<u64>) {
        let fields: Vec<_> = line.split(',').collect();
        let field =
            |name: &str| HISTORY_HEADER.split(',').position(|column| column == name).and_then(|at| fields.get(at));
        let number = |name: &str| field(name).and_then(|text| text.parse::<f64>().ok());
        let Some(unix_s) = field("Timestamp").and_then(|text| text.parse::<u64>().ok()) else { return };
        if fields.len() < HISTORY_HEADER.split(',').count() || field("Name") != Some(&"Aggregated") {
            return;
        }
        let (first, last) = self.seconds.unwrap_or_else(|| {
            let first = start_s.filter(|start_s| *start_s <= unix_s).unwrap_or(unix_s);
            (first, first.wrapping_sub(1))
        });
        // A second without operations has no row.
        let empty = last.wrapping_add(1)..unix_s;
        if empty.end.saturating_sub(empty.start) < 100_000 {
            empty.for_each(|second| self.push((second - first) as f64, Some(0.0), Some(0.0), [None; 3], None));
        }
        self.seconds = Some((first, unix_s));
        let percentiles = ["50%", "95%", "99%"].map(number);
        let t_s = unix_s.saturating_sub(first) as f64;
        self.push(t_s, number("Requests/s"), number("Failures/s"), percentiles, number("User Count"));
        self.requests = number("Total Request Count").map_or(self.requests, |count| count as u64);
        self.failures = number("Total Failure Count").map_or(self.failures, |count| count as u64);
    }

    fn push(
        &mut self,
        t_s: f64,
        requests: Option<f64>,
        failures: Option<f64>,
        percentiles: [Option<f64>; 3],
        users: Option<f64>,
    ) {
        let good = requests.zip(failures).map(|(requests, failures)| requests - failures);
        let share = requests.zip(failures).filter(|(requests, _)| *requests > 0.0);
        let share = share.map(|(requests, failures)| failures / requests * 100.0);
        let [p50, p95, p99] = percentiles;
        let mut push = |name: &str, fold, value| {
            self.gauges.push(Key { name: name.to_owned(), role: String::new(), replica: 0 }, fold, t_s, value);
        };
        push("offered", Fold::Mean, requests);
        push("good", Fold::Mean, good);
        push("errors", Fold::Mean, share);
        push("p50", Fold::Max, p50);
        push("p95", Fold::Max, p95);
        push("p99", Fold::Max, p99);
        if users.is_some() {
            push("users", Fold::Mean, users);
        }
    }
}

/// A final trial's name and numbers, without its seconds, which the page has from the history.
fn result(line: &str) -> Option<(String, Value)> {
    let mut result: serde_json::Map<String, Value> = serde_json::from_str(line).ok()?;
    result.retain(|key, _| !matches!(key.as_str(), "seconds" | "kinds"));
    Some((result.get("name")?.as_str()?.to_owned(), result.into()))
}

/// `[[fault]]` of an experiment, as marks.
fn planned_faults(table: &toml::Table) -> Vec<Mark> {
    let faults = table.get("fault").and_then(toml::Value::as_array).map_or(&[][..], Vec::as_slice);
    let marks = |fault: &toml::Value| {
        let word = |key: &str| fault.get(key).and_then(toml::Value::as_str);
        let seconds = |text: &str| Some(crate::units::parse_duration(text).ok()?.as_secs_f64());
        // Of a time that is drawn, the earliest.
        let at = seconds(word("at")?.split("..").next()?.trim())?;
        let number = |key: &str| fault.get(key).and_then(toml::Value::as_integer);
        let replica = number("replica").map_or_else(String::new, |replica| format!(" {replica}"));
        let kinds: Vec<&str> = match fault.get("kind")? {
            toml::Value::Array(kinds) => kinds.iter().filter_map(toml::Value::as_str).collect(),
            kind => kind.as_str().into_iter().collect(),
        };
        let label = format!("{} {}{replica}", kinds.join(" or "), word("role").unwrap_or_default());
        let (every, times) = (word("every").and_then(seconds).unwrap_or(0.0), number("times").unwrap_or(1));
        let downtime = word("downtime").and_then(seconds);
        let mark = move |place: i64| {
            let from_s = at + every * place as f64;
            Mark { from_s, to_s: downtime.map(|long_s| from_s + long_s), label: label.clone() }
        };
        Some((0..times.clamp(1, 100)).map(mark).collect::<Vec<_>>())
    };
    faults.iter().filter_map(marks).flatten().collect()
}

/// The faults of a trial: from the effect that was seen until all was ready again.
fn faults(text: &str) -> Vec<Mark> {
    let recovery: Value = serde_json::from_str(text).unwrap_or_default();
    let faults = recovery["faults"].as_array().map_or(&[][..], Vec::as_slice);
    faults.iter().filter_map(mark).collect()
}

/// A line of the file that tells faults while they last: the fault's place, and what it is by now.
fn live_fault(line: &str) -> Option<(u64, Mark)> {
    let fault: Value = serde_json::from_str(line).ok()?;
    Some((fault["place"].as_u64()?, mark(&fault)?))
}

fn mark(fault: &Value) -> Option<Mark> {
    let second = |key: &str| fault[key].as_f64();
    let from_s = second("effect_s").or_else(|| second("command_s"))?;
    let replica = fault["replica"].as_u64().map_or_else(String::new, |replica| format!(" {replica}"));
    let label = format!("{} {}{replica}", fault["kind"].as_str()?, fault["role"].as_str().unwrap_or_default());
    Some(Mark { from_s, to_s: second("ready_s"), label })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = ",Aggregated,140,14,10,11,12,13,14,95,98,99,99.9,99.99,100,1000,20,1,1,1,1,1";

    #[test]
    fn a_second_without_a_row_had_no_operation() {
        let mut history = History::default();
        for (second, users) in [(1_000, 3), (1_002, 4)] {
            history.take(&format!("{second},{users},{ROW}"), Some(999));
        }
        assert_eq!(
            history.gauges.sum("offered", None),
            [(0.0, Some(0.0)), (1.0, Some(140.0)), (2.0, Some(0.0)), (3.0, Some(140.0))]
        );
        assert_eq!(history.gauges.sum("p95", None)[1..3], [(1.0, Some(95.0)), (2.0, None)]);
        assert_eq!(history.gauges.sum("errors", None)[1], (1.0, Some(10.0)));
        assert_eq!((history.requests, history.failures), (1000, 20));
    }

    #[test]
    fn an_empty_value_is_unknown_and_a_damaged_row_is_left_out() {
        let value = |line: &str| sample(line).map(|(key, t_s, value)| (key.name, t_s, value));
        assert_eq!(value("1.5,cpu,engine,1,0.25"), Some(("cpu".to_owned(), 1.5, Some(0.25))));
        assert_eq!(value("1.5,rate_limit,engine,1,"), Some(("rate_limit".to_owned(), 1.5, None)));
        assert_eq!(value("t_s,name,role,replica,value"), None);
        assert_eq!(value("1.5,cpu"), None);
    }

    #[test]
    fn faults_are_marked_from_effect_to_ready() {
        let text = r#"{"faults": [{"kind": "kill", "role": "engine", "replica": 1, "command_s": 3.9, "effect_s": 4.0, "repair_s": 6.0, "ready_s": 6.5}]}"#;
        assert_eq!(faults(text), [Mark { from_s: 4.0, to_s: Some(6.5), label: "kill engine 1".to_owned() }]);
        assert_eq!(faults("{"), []);
    }

    #[test]
    fn a_fault_is_marked_while_it_lasts() {
        let begun =
            r#"{"place": 1, "kind": "pause", "role": "engine", "replica": 2, "command_s": 3.9, "effect_s": 4.0}"#;
        let mark = Mark { from_s: 4.0, to_s: None, label: "pause engine 2".to_owned() };
        assert_eq!(live_fault(begun), Some((1, mark)));
        assert_eq!(live_fault(r#"{"place": 1, "kind": "pau"#), None);
    }
}

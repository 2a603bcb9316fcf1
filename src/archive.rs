//! The archive of a run: the only module that knows file names.
//!
//! A folder is claimed atomically before the first trial. `series.csv`, `stats_history.csv`, `batches.jsonl`,
//! `history.jsonl`, `faults.jsonl` and logs grow while a trial runs; everything else is written whole, beside its place and
//! then moved there, so a reader never sees half a file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kit::batch::Entry;
use kit::journal::Line;
use serde::{Deserialize, Serialize};

use crate::error::{input, surroundings};
use crate::experiment::{Experiment, Trial, file};
use crate::faults::Injection;
use crate::load::Scenario;
use crate::measure::{OpsLog, Sample, StudySummary, TrialRecord, TrialSummary};
use crate::report::{csv, hlog};
use crate::verdict::Verdict;

mod failure;
pub mod follow;

/// What the engine of a stream tells during a trial.
const JOURNAL: &str = "batches.jsonl";

/// What users did during a trial, a line an operation.
const OPERATIONS: &str = "history.jsonl";

/// What was injected into a trial, while it runs.
const FAULTS: &str = "faults.jsonl";

/// A line of it: an injection as far as it has come. Of lines with the same place the last one holds.
#[derive(Serialize, Deserialize)]
struct FaultLine {
    /// Its place among the injections of the trial, from 0.
    place: usize,
    #[serde(flatten)]
    injection: Injection,
}

/// An archive on disk.
#[derive(Clone, Debug)]
pub struct Archive {
    folder: PathBuf,
}

/// `plan.json`.
#[derive(Serialize, Deserialize)]
struct PlanFile {
    trials: Vec<Trial>,
}

impl Archive {
    /// Claims a new folder `ROOT/<experiment>/<YYYYMMDD_HHMMSS>` and points `ROOT/latest` at it.
    ///
    /// # Errors
    /// When it cannot be written, as surroundings.
    pub fn create(root: &Path, experiment: &Experiment, stamp: &str) -> anyhow::Result<Self> {
        let refused = |path: &Path, error: std::io::Error| {
            surroundings(format!("cannot write {}: {error}; choose another folder with --out", path.display()))
        };
        let parent = root.join(&experiment.name);
        fs::create_dir_all(&parent).map_err(|error| refused(&parent, error))?;
        let mut attempt = 1;
        let folder = loop {
            let name = if attempt == 1 { stamp.to_owned() } else { format!("{stamp}_{attempt}") };
            let folder = parent.join(name);
            match fs::create_dir(&folder) {
                Ok(()) => break folder,
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && attempt < 1_000 => attempt += 1,
                Err(error) => return Err(refused(&folder, error)),
            }
        };
        let archive = Self { folder };
        fs::create_dir(archive.folder.join("trials")).map_err(|error| refused(&archive.folder, error))?;
        archive.write_experiment(experiment)?;
        archive.write("results.jsonl", b"")?;
        archive.point_latest(root);
        Ok(archive)
    }

    /// A link is a convenience: where links are not to be had, the run goes on without.
    fn point_latest(&self, root: &Path) {
        let Ok(target) = self.folder.strip_prefix(root) else { return };
        let (link, fresh) = (root.join("latest"), root.join(format!(".latest-{}", std::process::id())));
        let _ = std::os::unix::fs::symlink(target, &fresh).and_then(|()| fs::rename(&fresh, &link));
    }

    /// Opens an archive.
    ///
    /// # Errors
    /// When the folder is none, as input.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let archive = Self { folder: folder.to_owned() };
        if !folder.is_dir() {
            return Err(input(format!(
                "{}: no such folder; an archive is runs/EXPERIMENT/TIME, or runs/latest",
                folder.display()
            )));
        }
        for name in ["experiment.toml", "results.jsonl"] {
            if !folder.join(name).is_file() {
                return Err(input(format!(
                    "{} is no archive: it has no {name}; an archive is runs/EXPERIMENT/TIME, or runs/latest",
                    folder.display()
                )));
            }
        }
        Ok(archive)
    }

    /// Claims the archive for writing, until what this gives back is dropped.
    ///
    /// # Errors
    /// When a lab that is alive writes to it, as surroundings.
    pub fn lock(&self) -> anyhow::Result<File> {
        let path = self.folder.join(".lock");
        let file = File::create(&path).map_err(|error| refused(&path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(_) => Err(surroundings(format!(
                "{} is being written by a run that is alive; wait for its end, or stop it",
                self.folder.display()
            ))),
        }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a file whole.
    ///
    /// # Errors
    /// When the disk refuses, as surroundings.
    pub fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        write_whole(&self.folder.join(name), bytes)
    }

    /// Writes the resolved experiment, without the secrets of its steps.
    ///
    /// # Errors
    /// As [`Archive::write`].
    pub fn write_experiment(&self, experiment: &Experiment) -> anyhow::Result<()> {
        self.write("experiment.toml", without_secrets(experiment).to_toml().as_bytes())
    }

    /// Writes the machine and the conditions of the run.
    ///
    /// # Errors
    /// As [`Archive::write`].
    pub fn write_environment(&self, environment: &serde_json::Value) -> anyhow::Result<()> {
        self.write_json("environment.json", environment)
    }

    /// Writes the summary of all trials, and what it means for the objectives.
    ///
    /// # Errors
    /// As [`Archive::write`].
    pub fn write_conclusions(&self, study: &StudySummary, verdict: &Verdict) -> anyhow::Result<()> {
        self.write_json("summary.json", study)?;
        self.write_json("verdict.json", verdict)
    }

    /// Where the report is.
    pub fn report_page(&self) -> PathBuf {
        self.folder.join("report.html")
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec_pretty(value).with_context(|| format!("writing {name}"))?;
        text.push(b'\n');
        self.write(name, &text)
    }

    /// Writes the plan.
    ///
    /// # Errors
    /// As [`Archive::write`].
    pub fn write_plan(&self, trials: &[Trial]) -> anyhow::Result<()> {
        self.write_json("plan.json", &PlanFile { trials: trials.to_vec() })
    }

    /// The resolved experiment.
    ///
    /// # Errors
    /// When it is damaged, as input.
    pub fn experiment(&self) -> anyhow::Result<Experiment> {
        file::read(&self.folder.join("experiment.toml"))
    }

    /// The planned trials; none yet when the run was ended before it had planned.
    ///
    /// # Errors
    /// When the file is damaged, as input.
    pub fn plan(&self) -> anyhow::Result<Vec<Trial>> {
        let path = self.folder.join("plan.json");
        if !path.exists() {
            return Ok(Vec::new());
        }
        let plan: PlanFile = parse(&path, &read(&path)?)?;
        Ok(plan.trials)
    }

    /// The final trials, in the order in which they ended. A last line without its end was being written when the lab
    /// was killed; it is left out, and its trial is run again.
    ///
    /// # Errors
    /// When a line is damaged, as input.
    pub fn results(&self) -> anyhow::Result<Vec<TrialSummary>> {
        let path = self.folder.join("results.jsonl");
        parse_lines(&path, &read(&path)?)
    }

    /// What the engine of a stream told during a trial, in the order of telling; nothing of a trial without one. A last
    /// line without its end was being written; it is left out.
    ///
    /// # Errors
    /// When a line is damaged, as input.
    pub fn journal(&self, trial: &str) -> anyhow::Result<Vec<Entry>> {
        let path = self.folder.join("trials").join(trial).join(JOURNAL);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let lines: Vec<Line<Entry>> = parse_lines(&path, &read(&path)?)?;
        Ok(lines.into_iter().map(|line| line.entry).collect())
    }

    /// What was injected into a trial, each as far as it has come, by its place; nothing of a trial without faults. A last
    /// line without its end was being written; it is left out.
    ///
    /// # Errors
    /// When a line is damaged, as input.
    pub fn faults(&self, trial: &str) -> anyhow::Result<Vec<Injection>> {
        let path = self.folder.join("trials").join(trial).join(FAULTS);
        if path.exists() { injections(&path, &read(&path)?) } else { Ok(Vec::new()) }
    }

    /// One gauge of a trial, of all replicas that have it, in the order of time; nothing where there are no gauges.
    ///
    /// # Errors
    /// When a line is damaged, as input.
    pub fn gauge(&self, trial: &str, name: &str) -> anyhow::Result<Vec<Sample>> {
        let path = self.folder.join("trials").join(trial).join("series.csv");
        if !path.exists() {
            return Ok(Vec::new());
        }
        let text = read(&path)?;
        let complete = text.rfind('\n').map_or("", |end| &text[..=end]);
        let wanted = |line: &str| line.split(',').nth(1) == Some(name);
        let lines = complete.lines().enumerate().filter(|(_, line)| wanted(line));
        lines
            .map(|(index, line)| {
                sample(line).ok_or_else(|| input(format!("{}:{}: damaged", path.display(), index + 1)))
            })
            .collect()
    }

    /// The machine and the conditions of the run, null when they were not written yet.
    ///
    /// # Errors
    /// When the file is damaged, as input.
    pub fn environment(&self) -> anyhow::Result<serde_json::Value> {
        let path = self.folder.join("environment.json");
        if path.exists() { parse(&path, &read(&path)?) } else { Ok(serde_json::Value::Null) }
    }

    /// Adds the line of a final trial, and rewrites `all_results.json`.
    ///
    /// # Errors
    /// As [`Archive::write`].
    pub fn append_result(&self, summary: &TrialSummary) -> anyhow::Result<()> {
        let path = self.folder.join("results.jsonl");
        // Whatever a killed lab left half written goes.
        let kept = read(&path)?;
        let end = kept.rfind('\n').map_or(0, |end| end + 1);
        let mut text = kept[..end].to_owned();
        text.push_str(&serde_json::to_string(summary).context("writing a result")?);
        text.push('\n');
        write_whole(&path, text.as_bytes())?;
        self.write_json(&format!("trials/{}/summary.json", summary.name), summary)?;
        self.write_json("all_results.json", &self.results()?)
    }

    /// Writes what faults did to a trial: `recovery.json` where there were some or its writes were checked, and
    /// `failure_results.json`, everything over time, where there were some.
    ///
    /// # Errors
    /// As [`Archive::write`].
    pub fn write_failure(
        &self,
        experiment: &Experiment,
        record: &TrialRecord,
        summary: &TrialSummary,
    ) -> anyhow::Result<()> {
        let folder = format!("trials/{}", summary.name);
        if !record.faults.is_empty() || summary.lost.is_some() {
            self.write_json(&format!("{folder}/recovery.json"), &failure::recovery(record, summary))?;
        }
        if !record.faults.is_empty() {
            let results = failure::results(experiment, record, summary)?;
            self.write_json(&format!("{folder}/failure_results.json"), &results)?;
        }
        Ok(())
    }

    /// Starts the folder of a trial, empty even when an earlier attempt left something.
    ///
    /// # Errors
    /// As [`Archive::write`].
    pub fn begin_trial(&self, trial: &Trial) -> anyhow::Result<TrialFiles> {
        let folder = self.folder.join("trials").join(&trial.name);
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(|error| refused(&folder, &error))?;
        }
        fs::create_dir_all(folder.join("logs")).map_err(|error| refused(&folder, &error))?;
        let grow = |name: &str, header: &str| -> anyhow::Result<BufWriter<File>> {
            let path = folder.join(name);
            let mut file = BufWriter::new(File::create(&path).map_err(|error| refused(&path, &error))?);
            writeln!(file, "{header}").map_err(|error| refused(&path, &error))?;
            Ok(file)
        };
        Ok(TrialFiles {
            series: grow("series.csv", "t_s,name,role,replica,value")?,
            history: grow("stats_history.csv", csv::HISTORY_HEADER)?,
            journal: None,
            operations: None,
            faults: None,
            folder,
        })
    }
}

/// As an archive keeps it.
fn without_secrets(experiment: &Experiment) -> Experiment {
    let scenario = experiment.scenario.as_ref().map(Scenario::without_secrets);
    Experiment { scenario, ..experiment.clone() }
}

/// The files of a trial that grow while it runs.
pub struct TrialFiles {
    folder: PathBuf,
    series: BufWriter<File>,
    history: BufWriter<File>,
    /// Only streams have one.
    journal: Option<File>,
    /// Only trials whose writes are checked have one.
    operations: Option<File>,
    /// Only trials with faults have one.
    faults: Option<File>,
}

impl TrialFiles {
    /// Where the log of a replica goes.
    pub fn log(&self, role: &str, replica: u32) -> PathBuf {
        self.folder.join("logs").join(if replica == 1 {
            format!("{role}.log")
        } else {
            format!("{role}-{replica}.log")
        })
    }

    /// Adds gauges.
    ///
    /// # Errors
    /// When the disk refuses, as surroundings.
    pub fn series(&mut self, samples: &[Sample]) -> anyhow::Result<()> {
        for Sample { t_s, name, role, replica, value } in samples {
            let value = value.map_or_else(String::new, |value| value.to_string());
            writeln!(self.series, "{t_s:.3},{name},{role},{replica},{value}")
                .map_err(|error| refused(&self.folder, &error))?;
        }
        self.series.flush().map_err(|error| refused(&self.folder, &error))
    }

    /// Adds a row of the history.
    ///
    /// # Errors
    /// As [`TrialFiles::series`].
    pub fn history(&mut self, row: &str) -> anyhow::Result<()> {
        writeln!(self.history, "{}", row.trim_end())
            .and_then(|()| self.history.flush())
            .map_err(|error| refused(&self.folder, &error))
    }

    /// Adds lines of a journal as they were read, each with its end; the first ones make the file.
    ///
    /// # Errors
    /// As [`TrialFiles::series`].
    pub fn journal(&mut self, lines: &str) -> anyhow::Result<()> {
        grow(&self.folder.join(JOURNAL), &mut self.journal, lines)
    }

    /// Adds lines of the history of operations as they were read, each with its end; the first ones make the file.
    ///
    /// # Errors
    /// As [`TrialFiles::series`].
    pub fn operations(&mut self, lines: &str) -> anyhow::Result<()> {
        grow(&self.folder.join(OPERATIONS), &mut self.operations, lines)
    }

    /// Tells an injection as far as it has come; `place` is its own among those of the trial, from 0. Told again with every
    /// instant, so that whoever looks on sees the fault while it lasts.
    ///
    /// # Errors
    /// As [`TrialFiles::series`].
    pub fn fault(&mut self, place: usize, injection: &Injection) -> anyhow::Result<()> {
        let line = FaultLine { place, injection: injection.clone() };
        let line = serde_json::to_string(&line).context("writing a fault")? + "\n";
        grow(&self.folder.join(FAULTS), &mut self.faults, &line)
    }

    /// Writes what is written whole once the trial has ended: the interval log, and the tables by kind.
    /// `measured_s` is how long was measured, `method` gives the HTTP method of a kind, `start_unix_s` is when the schedule began.
    ///
    /// # Errors
    /// As [`TrialFiles::series`].
    pub fn finish(
        &self,
        ops: &OpsLog,
        window: Range<u32>,
        measured_s: f64,
        method: &dyn Fn(&str) -> String,
        start_unix_s: f64,
    ) -> anyhow::Result<()> {
        let write = |name: &str, bytes: &[u8]| write_whole(&self.folder.join(name), bytes);
        write("ops.hlog", &hlog::interval_log(ops, start_unix_s)?)?;
        write("stats.csv", csv::stats_csv(ops, window.clone(), method, measured_s).as_bytes())?;
        write("failures.csv", csv::failures_csv(ops, window, method, start_unix_s as u64).as_bytes())
    }
}

/// Adds lines to a file, which the first ones make.
fn grow(path: &Path, file: &mut Option<File>, lines: &str) -> anyhow::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let file = match file {
        Some(file) => file,
        none => none.insert(File::create(path).map_err(|error| refused(path, &error))?),
    };
    file.write_all(lines.as_bytes()).map_err(|error| refused(path, &error))
}

/// The injections of a trial by their places, each as its last line has it.
fn injections(path: &Path, text: &str) -> anyhow::Result<Vec<Injection>> {
    let lines: Vec<FaultLine> = parse_lines(path, text)?;
    let last: BTreeMap<usize, Injection> = lines.into_iter().map(|line| (line.place, line.injection)).collect();
    Ok(last.into_values().collect())
}

/// A row of `series.csv`; an empty value is unknown.
fn sample(line: &str) -> Option<Sample> {
    let mut fields = line.split(',');
    let (t_s, name, role) = (fields.next()?.parse().ok()?, fields.next()?.to_owned(), fields.next()?.to_owned());
    let (replica, value) = (fields.next()?.parse().ok()?, fields.next()?);
    let value = if value.is_empty() { None } else { Some(value.parse().ok()?) };
    Some(Sample { t_s, name, role, replica, value })
}

/// One value a line; a last line without its end is left out.
fn parse_lines<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> anyhow::Result<Vec<T>> {
    let complete = text.rfind('\n').map_or("", |end| &text[..=end]);
    let parse = |(index, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| input(format!("{}:{}: damaged: {error}", path.display(), index + 1)))
    };
    complete.lines().enumerate().map(parse).collect()
}

fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let beside = path.with_file_name(format!(".{name}.new"));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| refused(parent, &error))?;
    }
    fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, path)).map_err(|error| refused(path, &error))
}

fn refused(path: &Path, error: &std::io::Error) -> anyhow::Error {
    surroundings(format!("cannot write {}: {error}", path.display()))
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).map_err(|error| input(format!("{}: {error}", path.display())))
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> anyhow::Result<T> {
    serde_json::from_str(text).map_err(|error| input(format!("{}:{}: damaged: {error}", path.display(), error.line())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::samples::{MadeStream, stream_experiment};

    #[test]
    fn a_fault_is_read_back_as_far_as_it_has_come() {
        let root = tempfile::tempdir().unwrap();
        let archive = Archive::create(root.path(), &stream_experiment(&[]), "20260105_100000").unwrap();
        let trial = Trial::new(0, Default::default(), 0, 1);
        let mut files = archive.begin_trial(&trial).unwrap();
        assert!(archive.faults(&trial.name).unwrap().is_empty(), "nothing was injected, so there is no file");
        let begun = Injection { kind: "kill".to_owned(), command_s: Some(3.0), ..Injection::default() };
        let other = Injection { kind: "pause".to_owned(), command_s: Some(3.0), ..Injection::default() };
        let struck = Injection { effect_s: Some(3.1), ..begun.clone() };
        for (place, injection) in [(0, &begun), (1, &other), (0, &struck)] {
            files.fault(place, injection).unwrap();
        }
        assert_eq!(archive.faults(&trial.name).unwrap(), [struck, other]);
    }

    #[test]
    fn a_gauge_is_read_back_with_what_could_not_be_measured() {
        let root = tempfile::tempdir().unwrap();
        let archive = Archive::create(root.path(), &stream_experiment(&[]), "20260105_100000").unwrap();
        let trial = Trial::new(0, Default::default(), 0, 1);
        let sample = |name: &str, value| Sample {
            t_s: 1.5,
            name: name.to_owned(),
            role: "gateway".to_owned(),
            replica: 2,
            value,
        };
        let told = [sample("tries", Some(7.0)), sample("cpu", Some(0.5)), sample("tries", None)];
        archive.begin_trial(&trial).unwrap().series(&told).unwrap();
        assert_eq!(archive.gauge(&trial.name, "tries").unwrap(), [told[0].clone(), told[2].clone()]);
    }

    #[test]
    fn a_journal_is_read_back_as_it_was_told_and_a_damaged_line_is_named() {
        let root = tempfile::tempdir().unwrap();
        let experiment = stream_experiment(&[]);
        let archive = Archive::create(root.path(), &experiment, "20260105_100000").unwrap();
        let trial = Trial::new(0, Default::default(), 0, 1);
        let mut files = archive.begin_trial(&trial).unwrap();
        files.journal("").unwrap();
        assert!(archive.journal(&trial.name).unwrap().is_empty(), "nothing was told, so there is no file");
        let told = MadeStream::default().journal();
        let line = |(place, entry): (usize, &Entry)| {
            let line = Line { seq: place as u64 + 1, entry };
            serde_json::to_string(&line).unwrap() + "\n"
        };
        for lines in told.iter().enumerate().map(line).collect::<Vec<_>>().chunks(50) {
            files.journal(&lines.concat()).unwrap();
        }
        files.journal("{\"seq\":170,\"entry\":\"bat").unwrap();
        assert_eq!(archive.journal(&trial.name).unwrap(), told, "half a line is left out");
        files.journal("\n").unwrap();
        let error = archive.journal(&trial.name).unwrap_err().to_string();
        assert!(error.contains("batches.jsonl:170: damaged"), "{error}");
    }
}

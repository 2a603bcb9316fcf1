//! Two hundred faults of every kind in a row, on SQLite and on Postgres at the same time: no acknowledged write is lost,
//! nothing is left, nothing hangs, and open files and memory of the lab itself stay flat. A trial's record grows with it,
//! so what is compared are many trials: the last third of the time with the first, once the lab has what it needs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::Value;

use super::median;
use super::postgres::Postgres;

const EXPERIMENT: &str = "task-tracker/fault-soak";

/// How many injections it has.
const INJECTIONS: usize = 200;

/// With fewer acknowledged writes nothing is shown.
const LEAST_WRITES: u64 = 1_000;

/// It has hung when it takes longer.
const AT_MOST_S: u64 = 15 * 60;

/// Between two looks at the lab.
const LOOK: Duration = Duration::from_secs(1);

/// Until then, two trials, the lab grows into what it needs.
const FROM_S: f64 = 130.0;

/// How much more the last third may have than the first.
const BAND: f64 = 0.05;

/// Open files that come and go.
const FILES: f64 = 4.0;

/// One lab at work.
struct Lab {
    database: &'static str,
    child: Child,
    out: PathBuf,
    open_files: Vec<f64>,
    rss_bytes: Vec<f64>,
    /// Every process that it was seen to have, with its start, because ids are used again.
    started: BTreeSet<(u32, u64)>,
    ended: bool,
}

/// Runs it; says whether all is well.
pub fn soak() -> bool {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let given = std::env::var("SCALELAB_POSTGRES_URL").ok();
    let own = if given.is_some() { None } else { Postgres::start() };
    let postgres = given.or_else(|| own.as_ref().map(|server| server.url("postgres")));
    let mut labs = vec![Lab::start("sqlite", "sqlite", folder.path())];
    match &postgres {
        Some(url) => labs.push(Lab::start("postgres", url, folder.path())),
        None => {
            eprintln!("postgres: no initdb on PATH; set SCALELAB_POSTGRES_URL or install postgresql");
            return false;
        }
    }
    let clock = kit::Clock::real();
    let begun_ns = clock.now_ns();
    while !labs.iter().all(|lab| lab.ended) {
        let t_s = (clock.now_ns() - begun_ns) as f64 / 1e9;
        let late = t_s > AT_MOST_S as f64;
        labs.iter_mut().for_each(|lab| lab.look(t_s, late));
        std::thread::park_timeout(LOOK);
    }
    let is_well: Vec<_> = labs.into_iter().map(Lab::ends_well).collect();
    is_well.into_iter().all(|well| well)
}

impl Lab {
    fn start(name: &'static str, database: &str, folder: &Path) -> Self {
        let out = folder.join(name);
        let child = Command::new(env!("CARGO_BIN_EXE_scalelab"))
            .args(["run", EXPERIMENT, "--ui", "off", "--database", database, "--out"])
            .arg(&out)
            .spawn()
            .expect("the program starts");
        let (open_files, rss_bytes, started) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self { database: name, child, out, open_files, rss_bytes, started, ended: false }
    }

    /// Looks at the lab while it runs; ends it when it is late.
    fn look(&mut self, t_s: f64, late: bool) {
        self.ended = self.ended || self.child.try_wait().expect("the program is there").is_some();
        if self.ended {
            return;
        }
        if late {
            eprintln!("{}: hangs; {AT_MOST_S} s have passed", self.database);
            let _ = self.child.kill();
        }
        let id = self.child.id();
        self.started.extend(children_of(id));
        let files = std::fs::read_dir(format!("/proc/{id}/fd")).map(Iterator::count).ok();
        let pages = std::fs::read_to_string(format!("/proc/{id}/statm")).ok();
        let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<f64>().ok());
        if let (Some(files), Some(pages), true) = (files, pages, t_s >= FROM_S) {
            self.open_files.push(files as f64);
            self.rss_bytes.push(pages * rustix::param::page_size() as f64);
        }
    }

    fn ends_well(mut self) -> bool {
        let status = self.child.wait().expect("the program ends");
        let mut problems = Vec::new();
        if !status.success() {
            problems.push(format!("it ended with {status}"));
        }
        let left: Vec<_> = self.started.iter().filter(|(id, start)| is_alive(*id, *start)).collect();
        if !left.is_empty() {
            problems.push(format!("processes are left: {left:?}"));
        }
        problems.extend(self.judge());
        problems.extend(growth("open files", &self.open_files, FILES));
        problems.extend(growth("memory", &self.rss_bytes, 0.0));
        problems.iter().for_each(|problem| eprintln!("{}: {problem}", self.database));
        problems.is_empty()
    }

    /// What is wrong with what its trials left.
    fn judge(&self) -> Vec<String> {
        let trials = recoveries(&self.out);
        let mut problems = Vec::new();
        let sum = |key: &str| -> u64 {
            trials.iter().map(|trial| trial[key].as_u64().unwrap_or(u64::MAX)).fold(0, u64::saturating_add)
        };
        for key in ["lost", "duplicated", "resurrected", "phantom", "wrong_totals", "not_linearizable"] {
            if sum(key) != 0 {
                problems.push(format!("{key}: {}", sum(key)));
            }
        }
        let unchecked = trials.iter().filter(|trial| trial["unchecked"].is_string()).count();
        if trials.is_empty() || unchecked > 0 {
            problems.push(format!("of {} trials {unchecked} were not checked", trials.len()));
        }
        let faults: Vec<_> = trials.iter().filter_map(|trial| trial["faults"].as_array()).flatten().collect();
        let instants = ["command_s", "effect_s", "repair_s", "ready_s"];
        let seen = |fault: &&&Value| instants.iter().all(|instant| fault[instant].is_number());
        let skipped = faults.iter().filter(|fault| fault["skipped"].is_string()).count();
        let whole = faults.iter().filter(seen).count();
        // What this machine cannot do is no failure of a run, and none of these is such.
        if skipped > 0 {
            problems.push(format!("{skipped} injections were skipped"));
        }
        if sum("acknowledged") < LEAST_WRITES {
            problems.push(format!("only {} writes were acknowledged: too few to lose one", sum("acknowledged")));
        }
        if (faults.len(), whole + skipped) != (INJECTIONS, INJECTIONS) {
            let missing = faults.iter().filter(|fault| !seen(fault));
            problems.push(format!("of {} injections {whole} have all four instants", faults.len()));
            problems.extend(missing.map(|fault| fault.to_string()));
        }
        println!(
            "{}: {whole} injections, {skipped} skipped; {} creates, {} acknowledged, {} unknown, {} lost",
            self.database,
            sum("attempted"),
            sum("acknowledged"),
            sum("unknown"),
            sum("lost")
        );
        problems
    }
}

/// Prints how much the lab had in the first and in the last third of the time, and says when that has grown.
fn growth(what: &str, values: &[f64], slack: f64) -> Option<String> {
    let third = values.len() / 3;
    if third == 0 {
        return Some(format!("{what}: it ended before there was anything to compare"));
    }
    let (first, last) = (median(values[..third].to_vec()), median(values[values.len() - third..].to_vec()));
    println!("{what:<12} {first:>12.0} {last:>12.0}");
    (last > first * (1.0 + BAND) + slack).then(|| format!("{what} of the lab grew from {first:.0} to {last:.0}"))
}

fn recoveries(out: &Path) -> Vec<Value> {
    let trials = std::fs::read_dir(out.join("latest/trials")).into_iter().flatten().flatten();
    let texts = trials.filter_map(|trial| std::fs::read_to_string(trial.path().join("recovery.json")).ok());
    texts.filter_map(|text| serde_json::from_str(&text).ok()).collect()
}

/// What the system says of a process that is there.
struct Stat {
    state: char,
    parent: u32,
    start: u64,
}

fn stat(id: u32) -> Option<Stat> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields: Vec<_> = stat.rsplit_once(") ")?.1.split(' ').collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

fn children_of(parent: u32) -> Vec<(u32, u64)> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| stat(id).filter(|stat| stat.parent == parent).map(|stat| (id, stat.start))).collect()
}

fn is_alive(id: u32, start: u64) -> bool {
    stat(id).is_some_and(|stat| stat.start == start && !matches!(stat.state, 'Z' | 'X'))
}

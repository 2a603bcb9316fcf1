//! Two hundred faults of every kind in a row, on SQLite and on Postgres at the same time: no acknowledged write is lost,
//! nothing is left, nothing hangs, and open files and memory of the lab itself stay flat.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::Value;

use super::flat::Flat;
use super::postgres::Postgres;

const EXPERIMENT: &str = "task-tracker/fault-soak";

/// How many injections it has.
const INJECTIONS: usize = 200;

/// It has hung when it takes longer.
const AT_MOST_S: u64 = 15 * 60;

/// Between two looks at the lab.
const LOOK: Duration = Duration::from_secs(1);

/// Until then the lab grows into what it needs.
const FROM_S: f64 = 200.0;

/// One lab at work.
struct Lab {
    database: &'static str,
    child: Child,
    out: PathBuf,
    flat: Flat,
    /// Every process that it was seen to have.
    started: BTreeSet<u32>,
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
        None => println!("postgres: skipped, no initdb on PATH; set SCALELAB_POSTGRES_URL or install postgresql"),
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
        Self { database: name, child, out, flat: Flat::default(), started: BTreeSet::new(), ended: false }
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
        let who = format!("lab, {}", self.database);
        if let (Some(files), Some(pages), true) = (files, pages, t_s >= FROM_S) {
            self.flat.add(&who, "open_files", t_s, files as f64);
            self.flat.add(&who, "rss_bytes", t_s, pages * rustix::param::page_size() as f64);
        }
    }

    fn ends_well(mut self) -> bool {
        let status = self.child.wait().expect("the program ends");
        let mut problems = Vec::new();
        if !status.success() {
            problems.push(format!("it ended with {status}"));
        }
        let left: Vec<_> = self.started.iter().filter(|id| is_alive(**id)).collect();
        if !left.is_empty() {
            problems.push(format!("processes are left: {left:?}"));
        }
        match recovery(&self.out) {
            Some(found) => problems.extend(self.judge(&found)),
            None => problems.push("it left no recovery.json".to_owned()),
        }
        let flat = self.flat.holds();
        problems.iter().for_each(|problem| eprintln!("{}: {problem}", self.database));
        problems.is_empty() && flat
    }

    fn judge(&self, found: &Value) -> Vec<String> {
        let count = |key: &str| found[key].as_u64().unwrap_or(u64::MAX);
        let mut problems = Vec::new();
        for key in ["lost", "duplicated", "resurrected", "phantom"] {
            if count(key) != 0 {
                problems.push(format!("{key}: {}", found[key]));
            }
        }
        if count("acknowledged") == 0 {
            problems.push("no write was acknowledged".to_owned());
        }
        let faults = found["faults"].as_array().map_or(&[][..], Vec::as_slice);
        let seen = |fault: &&Value| {
            ["command_s", "effect_s", "repair_s", "ready_s"].iter().all(|instant| fault[instant].is_number())
        };
        let skipped = faults.iter().filter(|fault| fault["skipped"].is_string()).count();
        let whole = faults.iter().filter(seen).count();
        if (faults.len(), whole + skipped) != (INJECTIONS, INJECTIONS) {
            problems
                .push(format!("of {} injections {whole} have all four instants, {skipped} were skipped", faults.len()));
        }
        println!(
            "{}: {whole} injections, {} creates, {} acknowledged, {} unknown, {} lost",
            self.database, found["attempted"], found["acknowledged"], found["unknown"], found["lost"]
        );
        problems
    }
}

fn recovery(out: &Path) -> Option<Value> {
    let trial = std::fs::read_dir(out.join("latest/trials")).ok()?.flatten().next()?;
    serde_json::from_str(&std::fs::read_to_string(trial.path().join("recovery.json")).ok()?).ok()
}

/// State and parent of a process that is there.
fn stat(id: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn children_of(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| stat(*id).is_some_and(|(_, of)| of == parent)).collect()
}

fn is_alive(id: u32) -> bool {
    stat(id).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

//! `scalelab heal`: undoes what a lab that was killed has left, from its journal.
//!
//! The one rule: exactly what the journal names is touched, and nothing of a lab that still runs. Undoing is idempotent,
//! so healing twice, or at the same time, is once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use super::identity::{Held, boot_id, stat};
use super::journal::{self, Intent, Record};
use super::leftovers;
use crate::database;

/// How long a killed process may take to go.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// The scratch folders of the lab begin with this.
const SCRATCH: &str = "scalelab-";

/// What healing is given of its surroundings.
pub struct Healer<'a> {
    /// The folder of journals.
    pub journals: &'a Path,
    /// Scratch folders lie here, and nothing outside is removed.
    pub temp: &'a Path,
    /// The database server, where one is known.
    pub postgres: Option<&'a str>,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

/// What healing did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Healed {
    /// A sentence for each thing.
    pub did: Vec<String>,
    /// What could not be undone, and the way out.
    pub could_not: Vec<String>,
}

/// Heals this machine, in the surroundings of the user.
///
/// # Errors
/// When the journals cannot be looked for, as surroundings.
pub fn heal(dry_run: bool) -> anyhow::Result<Healed> {
    let postgres = std::env::var(database::POSTGRES_URL).ok();
    let (journals, temp) = (journal::folder()?, std::env::temp_dir());
    Healer { journals: &journals, temp: &temp, postgres: postgres.as_deref(), dry_run }.heal()
}

/// What labs that were killed have left, in one sentence; none where there is nothing, or nobody knows.
pub fn left_behind() -> Option<String> {
    in_words(&journal::folder().ok()?)
}

fn in_words(journals: &Path) -> Option<String> {
    let dead: Vec<_> = journal::files(journals)
        .ok()?
        .iter()
        .filter_map(|path| journal::read(path).ok().flatten())
        .filter(|record| !record.lab.is_elsewhere() && !record.lab.is_alive())
        .collect();
    let left: Vec<Intent> = dead.iter().flat_map(still_there).collect();
    let (run, was) = if dead.len() == 1 { ("an earlier run", "was") } else { ("earlier runs", "were") };
    let ends = if left.len() == 1 { "it" } else { "them" };
    match (dead.is_empty(), leftovers::counts(&left)) {
        (true, _) => None,
        (false, counts) if counts.is_empty() => {
            Some(format!("{run} {was} killed and left nothing but a journal; scalelab heal removes it"))
        }
        (false, counts) => Some(format!("{run} {was} killed and left {counts}; scalelab heal ends {ends}")),
    }
}

/// What of a journal is still there; a database is asked nothing here.
fn still_there(record: &Record) -> Vec<Intent> {
    let is_this_boot = record.lab.boot_id == boot_id();
    let is_there = |intent: &&Intent| match intent {
        Intent::Process { pid, start_time, .. } => {
            is_this_boot && stat(*pid).is_some_and(|stat| stat.start_time == *start_time)
        }
        Intent::Folder { path } => path.exists(),
        Intent::Database { .. } => true,
        // Counted as the process that is held, or nothing to undo.
        Intent::Paused { .. } | Intent::Address { .. } => false,
    };
    record.open.iter().filter(is_there).cloned().collect()
}

/// What came of one thing: a sentence, or nothing where it had gone already.
type Undone = Result<Option<String>, String>;

impl Healer<'_> {
    /// Undoes what is in the journals of dead labs.
    ///
    /// # Errors
    /// When the folder of journals cannot be read, as surroundings.
    pub fn heal(&self) -> anyhow::Result<Healed> {
        let mut healed = Healed::default();
        let found: Vec<_> =
            journal::files(self.journals)?.into_iter().map(|path| (journal::read(&path), path)).collect();
        let in_use: Vec<Intent> = found
            .iter()
            .filter_map(|(read, _)| read.as_ref().ok()?.as_ref())
            .filter(|record| record.lab.is_alive())
            .flat_map(|record| record.open.iter().cloned())
            .collect();
        for (read, path) in found {
            match read {
                Ok(Some(record)) if record.lab.is_elsewhere() => healed.could_not.push(format!(
                    "the journal {} is of a run in another container; heal there, or remove it when that has gone",
                    path.display()
                )),
                Ok(Some(record)) if record.lab.is_alive() => {}
                Ok(Some(record)) => self.undo_all(&record, &in_use, &mut healed),
                // Its run has ended meanwhile, or somebody else has healed it.
                Ok(None) => {}
                Err(error) => healed.could_not.push(format!(
                    "the journal {} is damaged: {error:#}; look for processes named scalelab, then remove it",
                    path.display()
                )),
            }
        }
        Ok(healed)
    }

    fn undo_all(&self, record: &Record, in_use: &[Intent], healed: &mut Healed) {
        let is_this_boot = record.lab.boot_id == boot_id();
        let before = healed.could_not.len();
        // Backwards: what is held goes on before it is ended, and is ended before its folder goes.
        for intent in record.open.iter().rev() {
            let undone = match intent {
                // A run that was gone on with uses the same names.
                _ if in_use.contains(intent) => Ok(None),
                // Whatever has its id since another boot is somebody else.
                Intent::Process { .. } | Intent::Paused { .. } if !is_this_boot => Ok(None),
                Intent::Process { pid, start_time, role, replica } => {
                    self.end(*pid, *start_time, &format!("{role} {replica} (process {pid})"))
                }
                Intent::Paused { pid, start_time } => self.let_go_on(*pid, *start_time),
                Intent::Folder { path } => self.remove_folder(path),
                Intent::Database { server_host, name } => self.drop_database(server_host, name),
                Intent::Address { .. } => Ok(None),
            };
            match undone {
                Ok(did) => healed.did.extend(did),
                Err(why) => healed.could_not.push(why),
            }
        }
        let (path, archive) = (record.path.display(), record.lab.archive.display());
        if healed.could_not.len() > before {
            return;
        }
        match self.dry_run {
            true => healed.did.push(format!("would remove the journal {path} of the run in {archive}")),
            false => match std::fs::remove_file(&record.path) {
                Ok(()) => healed.did.push(format!("removed the journal {path} of the run in {archive}")),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => healed.could_not.push(format!("the journal {path} cannot be removed: {error}")),
            },
        }
    }

    fn end(&self, pid: u32, start_time: u64, name: &str) -> Undone {
        let refused = |error| format!("{name} cannot be ended: {error}; do it as its user: kill -KILL {pid}");
        let Some(held) = Held::open(pid, start_time).map_err(refused)? else { return Ok(None) };
        if self.dry_run {
            return Ok(Some(format!("would end {name}")));
        }
        held.signal(Signal::CONT).and_then(|()| held.signal(Signal::KILL)).map_err(refused)?;
        match held.wait(GONE_WITHIN) {
            true => Ok(Some(format!("ended {name}"))),
            false => Err(format!("{name} was killed and is still there; wait for the disk it may be writing to")),
        }
    }

    fn let_go_on(&self, pid: u32, start_time: u64) -> Undone {
        let refused = |error| format!("process {pid} cannot be let go on: {error}; as its user: kill -CONT {pid}");
        let Some(held) = Held::open(pid, start_time).map_err(refused)? else { return Ok(None) };
        if stat(pid).is_none_or(|stat| stat.state != 'T') {
            return Ok(None);
        }
        if self.dry_run {
            return Ok(Some(format!("would let process {pid} go on")));
        }
        held.signal(Signal::CONT).map_err(refused)?;
        Ok(Some(format!("let process {pid} go on")))
    }

    fn remove_folder(&self, path: &Path) -> Undone {
        let shown = path.display();
        let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(None) };
        let is_scratch = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SCRATCH));
        if !found.is_dir() || !is_scratch || path.parent().map(real) != Some(real(self.temp)) {
            let temp = self.temp.display();
            return Err(format!(
                "{shown} is no scratch folder in {temp}; where it is one, set TMPDIR to the folder that it is in"
            ));
        }
        if self.dry_run {
            return Ok(Some(format!("would remove the folder {shown}")));
        }
        match std::fs::remove_dir_all(path) {
            Ok(()) => Ok(Some(format!("removed the folder {shown}"))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("the folder {shown} cannot be removed: {error}; remove it as its owner")),
        }
    }

    fn drop_database(&self, server_host: &str, name: &str) -> Undone {
        let server = self.postgres.filter(|url| database::host(url).is_ok_and(|host| host == server_host));
        let Some(server) = server else {
            let variable = database::POSTGRES_URL;
            return Err(format!(
                "database {name} may be on {server_host}; set {variable} to that server and heal again"
            ));
        };
        if self.dry_run {
            return Ok(Some(format!("would drop the database {name} on {server_host}, if it is there")));
        }
        database::remove(server, name).map_err(|error| format!("database {name} is left: {error:#}"))?;
        Ok(Some(format!("dropped the database {name} on {server_host}")))
    }
}

/// A folder by its real name; one that is not there by the name it was given.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::super::journal::{Journal, Lab};
    use super::*;

    /// A child that waits, stopped by a signal, as a lab leaves one when it is killed in mid-fault.
    struct Stopped(Child);

    impl Stopped {
        fn start() -> Self {
            let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            let stopped = Self(child);
            Held::open(stopped.pid(), stopped.start_time()).unwrap().unwrap().signal(Signal::STOP).unwrap();
            while stopped.state() != 'T' {
                std::thread::yield_now();
            }
            stopped
        }

        fn pid(&self) -> u32 {
            self.0.id()
        }

        fn start_time(&self) -> u64 {
            stat(self.pid()).unwrap().start_time
        }

        fn state(&self) -> char {
            stat(self.pid()).unwrap().state
        }

        fn intent(&self) -> Intent {
            Intent::process(self.pid(), "task-service", 1).unwrap()
        }
    }

    impl Drop for Stopped {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A lab that has ended.
    fn dead() -> Lab {
        let mut child = Command::new("true").spawn().unwrap();
        let start_time = stat(child.id()).unwrap().start_time;
        child.wait().unwrap();
        let pid_namespace = super::super::identity::pid_namespace();
        Lab { pid: child.id(), start_time, boot_id: boot_id(), pid_namespace, archive: "/runs/x".into() }
    }

    fn living() -> Lab {
        let pid = std::process::id();
        Lab { pid, start_time: stat(pid).unwrap().start_time, ..dead() }
    }

    /// Writes a journal as somebody who is killed then.
    fn write(state: &Path, lab: &Lab, intents: &[Intent]) {
        let journal = Journal::open_in(state, "run", lab).unwrap();
        intents.iter().for_each(|intent| drop(journal.intend(intent.clone()).unwrap()));
        std::mem::forget(journal);
    }

    fn healer<'a>(state: &'a Path, temp: &'a Path) -> Healer<'a> {
        Healer { journals: state, temp, postgres: None, dry_run: false }
    }

    #[test]
    fn a_stopped_orphan_is_ended_and_its_folder_removed_and_nothing_else_is_touched() {
        let (state, temp) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (orphan, other) = (Stopped::start(), Stopped::start());
        let scratch = temp.path().join("scalelab-abc");
        std::fs::create_dir_all(scratch.join("inner")).unwrap();
        let folder = Intent::Folder { path: scratch.clone() };
        write(state.path(), &dead(), &[folder, orphan.intent(), Intent::paused(orphan.pid()).unwrap()]);
        assert_eq!(
            in_words(state.path()).unwrap(),
            "an earlier run was killed and left 1 process, 1 scratch folder; scalelab heal ends them"
        );

        let dry = Healer { dry_run: true, ..healer(state.path(), temp.path()) }.heal().unwrap();
        assert_eq!(dry.did.len(), 4, "{dry:?}");
        assert!(dry.did.iter().all(|did| did.starts_with("would ")), "{dry:?}");
        assert_eq!((orphan.state(), scratch.exists()), ('T', true), "nothing is done dry");

        let healed = healer(state.path(), temp.path()).heal().unwrap();
        assert_eq!(healed.could_not, [""; 0]);
        let pid = orphan.pid();
        assert_eq!(
            healed.did[..3],
            [
                format!("let process {pid} go on"),
                format!("ended task-service 1 (process {pid})"),
                format!("removed the folder {}", scratch.display())
            ]
        );
        assert_eq!((orphan.state(), scratch.exists()), ('Z', false));
        assert_eq!(other.state(), 'T', "what no journal names is left alone");
        assert_eq!(healer(state.path(), temp.path()).heal().unwrap(), Healed::default(), "twice is once");
        assert_eq!(in_words(state.path()), None);
    }

    #[test]
    fn what_is_not_exactly_what_was_recorded_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let alive = Stopped::start();
        let recycled = Intent::Process {
            pid: alive.pid(),
            start_time: alive.start_time() - 1,
            role: "task-service".to_owned(),
            replica: 1,
        };
        let another_boot = Lab { boot_id: "another".to_owned(), ..living() };
        for (what, lab, intent, stays) in [
            ("a journal of a lab that lives", living(), alive.intent(), true),
            ("a process that has the id of one that has gone", dead(), recycled, false),
            ("a process with the same numbers since another boot", another_boot, alive.intent(), false),
            ("an address, which is nothing to undo", dead(), Intent::Address { addr: "127.0.0.1:1".into() }, false),
        ] {
            let state = tempfile::tempdir().unwrap();
            write(state.path(), &lab, &[intent]);
            let healed = healer(state.path(), temp.path()).heal().unwrap();
            assert_eq!(alive.state(), 'T', "{what}");
            assert_eq!(healed.could_not, [""; 0], "{what}");
            assert_eq!(!journal::files(state.path()).unwrap().is_empty(), stays, "{what}");
            assert_eq!(healed.did.len(), usize::from(!stays), "{what}: the journal alone goes: {healed:?}");
        }
    }

    #[test]
    fn what_cannot_be_undone_keeps_its_journal_and_says_the_way_out() {
        let (elsewhere, temp) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let of_another = elsewhere.path().join("scalelab-abc");
        let precious = temp.path().join("precious");
        let link = temp.path().join("scalelab-link");
        std::fs::create_dir(&of_another).unwrap();
        std::fs::create_dir(&precious).unwrap();
        std::os::unix::fs::symlink(&precious, &link).unwrap();
        let on_server = |name: &str| Intent::Database { server_host: "127.0.0.1:1".to_owned(), name: name.to_owned() };
        let folder = |path: &Path| Intent::Folder { path: path.to_owned() };
        let url = "postgres://u:hunter2@127.0.0.1:1/postgres";
        for (intent, postgres, expected) in [
            (folder(&of_another), None, "set TMPDIR"),
            (folder(&precious), None, "no scratch folder"),
            (folder(&link), None, "no scratch folder"),
            (on_server("scalelab_x"), None, "set SCALELAB_POSTGRES_URL"),
            (on_server("scalelab_x"), Some("postgres://u@other:1/postgres"), "set SCALELAB_POSTGRES_URL"),
            (on_server("scalelab_x"), Some(url), "127.0.0.1 refuses"),
            (on_server("x; DROP DATABASE y"), Some(url), "not one of the lab's"),
        ] {
            let state = tempfile::tempdir().unwrap();
            write(state.path(), &dead(), std::slice::from_ref(&intent));
            let healed = Healer { postgres, ..healer(state.path(), temp.path()) }.heal().unwrap();
            assert_eq!(healed.did, [""; 0], "{intent:?}");
            let [why] = healed.could_not.as_slice() else { panic!("{healed:?}") };
            assert!(why.contains(expected) && !why.contains("hunter2"), "{why}");
            assert_eq!(journal::files(state.path()).unwrap().len(), 1, "{intent:?}");
        }
        assert!(of_another.exists() && precious.exists() && link.exists());
    }

    #[test]
    fn a_journal_of_another_container_is_told_and_left() {
        let (state, temp) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = temp.path().join("scalelab-abc");
        std::fs::create_dir(&folder).unwrap();
        let elsewhere = Lab { pid_namespace: "pid:[1]".to_owned(), ..dead() };
        write(state.path(), &elsewhere, &[Intent::Folder { path: folder.clone() }]);
        let healed = healer(state.path(), temp.path()).heal().unwrap();
        assert!(healed.could_not[0].contains("in another container"), "{healed:?}");
        assert!(folder.exists());
        assert_eq!(in_words(state.path()), None, "it may be alive");
    }

    #[test]
    fn a_damaged_journal_is_told_and_left() {
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join("x.jsonl"), "what?\n").unwrap();
        let healed = healer(state.path(), state.path()).heal().unwrap();
        assert!(healed.could_not[0].contains("is damaged: line 1"), "{healed:?}");
        assert_eq!(healer(Path::new("/nothing/here"), state.path()).heal().unwrap(), Healed::default());
    }
}

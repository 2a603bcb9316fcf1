//! The journal of intents: what would have to be undone if the lab were killed now.
//!
//! The one rule: a line is on disk before the thing is done, so that whatever a dead lab left is in a journal. The
//! journal goes with the run that ends clean; [`super::heal`] reads those that stayed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::identity;
use crate::error::surroundings;

/// Something that has to be undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Intent {
    /// A replica's process, to be ended.
    Process {
        /// Its id.
        pid: u32,
        /// When it started, in ticks since the boot.
        start_time: u64,
        /// Its role.
        role: String,
        /// Which copy, from 1.
        replica: u32,
    },
    /// A process that is held, to be let go on.
    Paused {
        /// Its id.
        pid: u32,
        /// When it started, in ticks since the boot.
        start_time: u64,
    },
    /// A scratch folder, to be removed.
    Folder {
        /// Where.
        path: PathBuf,
    },
    /// A database on a server, to be dropped.
    Database {
        /// The server, as [`crate::database::host`] has it: its URL may hold a password.
        server_host: String,
        /// The database.
        name: String,
    },
    /// Where something is served; nothing to undo, but something to look at when all is over.
    Address {
        /// `host:port`.
        addr: String,
    },
}

impl Intent {
    /// A replica's process, as it runs now; none when it has gone.
    pub fn process(pid: u32, role: &str, replica: u32) -> Option<Self> {
        let start_time = identity::stat(pid)?.start_time;
        Some(Self::Process { pid, start_time, role: role.to_owned(), replica })
    }

    /// A process that is about to be held; none when it has gone.
    pub fn paused(pid: u32) -> Option<Self> {
        Some(Self::Paused { pid, start_time: identity::stat(pid)?.start_time })
    }
}

/// The lab that writes a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lab {
    /// Its process.
    pub pid: u32,
    /// When it started, in ticks since the boot.
    pub start_time: u64,
    /// The boot in which it did.
    pub boot_id: String,
    /// Where its process id counts; empty where that is not known.
    #[serde(default)]
    pub pid_namespace: String,
    /// Where what it measures goes.
    pub archive: PathBuf,
}

impl Lab {
    /// This process.
    fn own(archive: &Path) -> Self {
        let pid = std::process::id();
        let start_time = identity::stat(pid).map_or(0, |stat| stat.start_time);
        let archive = std::path::absolute(archive).unwrap_or_else(|_| archive.to_owned());
        Self { pid, start_time, boot_id: identity::boot_id(), pid_namespace: identity::pid_namespace(), archive }
    }

    /// Whether it runs, or ran, where its process ids mean nothing here: in a container of this machine.
    pub fn is_elsewhere(&self) -> bool {
        let own = identity::pid_namespace();
        let is_known = !self.pid_namespace.is_empty() && !own.is_empty();
        is_known && self.pid_namespace != own && self.boot_id == identity::boot_id()
    }

    /// Whether it still runs; of one elsewhere nobody knows.
    pub fn is_alive(&self) -> bool {
        let same = |stat: identity::Stat| stat.start_time == self.start_time && !matches!(stat.state, 'Z' | 'X');
        self.boot_id == identity::boot_id() && identity::stat(self.pid).is_some_and(same)
    }
}

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Lab(Lab),
    Intend { id: u64, intent: Intent },
    Done { id: u64 },
}

/// What was intended, to be given back when it is undone.
#[must_use = "what is intended has to be marked done once it is undone"]
#[derive(Debug, PartialEq, Eq)]
pub struct Token(u64);

/// The journal of one run. Shared by reference between threads; dropped, it is removed if all is undone.
pub struct Journal(Mutex<Inner>);

struct Inner {
    /// None for a journal that is written nowhere.
    file: Option<(PathBuf, File)>,
    /// What is not undone, by number.
    open: BTreeMap<u64, Intent>,
    /// All that was ever intended.
    recorded: Vec<Intent>,
}

/// The folder of journals: `$XDG_STATE_HOME/scalelab`.
///
/// # Errors
/// When no folder of the user's is known, as surroundings.
pub fn folder() -> anyhow::Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("scalelab")).ok_or_else(|| {
        surroundings("there is no folder for the journal of what must be undone; set XDG_STATE_HOME to one")
    })
}

impl Journal {
    /// Begins the journal of a run whose archive is there.
    ///
    /// # Errors
    /// When it cannot be written, as surroundings.
    pub fn open(run: &str, archive: &Path) -> anyhow::Result<Self> {
        Self::open_in(&folder()?, run, &Lab::own(archive))
    }

    /// A journal that is written nowhere: for what starts nothing, and for tests.
    pub fn nowhere() -> Self {
        Self(Mutex::new(Inner { file: None, open: BTreeMap::new(), recorded: Vec::new() }))
    }

    /// Begins a journal in a folder, in the name of a lab.
    pub(super) fn open_in(folder: &Path, run: &str, lab: &Lab) -> anyhow::Result<Self> {
        let begun = begin(folder, run, lab).map_err(|error| {
            let shown = folder.display();
            surroundings(format!(
                "the journal of what must be undone cannot be written to {shown}: {error}; set XDG_STATE_HOME to a \
                 folder that can"
            ))
        })?;
        Ok(Self(Mutex::new(Inner { file: Some(begun), open: BTreeMap::new(), recorded: Vec::new() })))
    }

    /// Writes down that something is about to be done. When this returns, it is on disk.
    ///
    /// # Errors
    /// When it cannot be written, as surroundings: then the thing must not be done.
    pub fn intend(&self, intent: Intent) -> anyhow::Result<Token> {
        let mut inner = self.lock();
        let id = inner.recorded.len() as u64;
        inner.write(&Line::Intend { id, intent: intent.clone() }, true)?;
        inner.recorded.push(intent.clone());
        inner.open.insert(id, intent);
        Ok(Token(id))
    }

    /// Writes down that something is undone. Undoing is idempotent, so a line that is missing does no harm.
    pub fn done(&self, token: Token) {
        let mut inner = self.lock();
        inner.open.remove(&token.0);
        let _ = inner.write(&Line::Done { id: token.0 }, false);
    }

    /// All that was ever intended, in order: what [`super::leftovers`] looks for.
    pub fn recorded(&self) -> Vec<Intent> {
        self.lock().recorded.clone()
    }

    /// What is not undone.
    pub fn not_undone(&self) -> Vec<Intent> {
        self.lock().open.values().cloned().collect()
    }

    /// Ends it: removed when all is undone, otherwise left, and said so. Dropping does the same.
    pub fn close(self) {
        drop(self);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn write(&mut self, line: &Line, now: bool) -> anyhow::Result<()> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        let before = file.metadata().map(|metadata| metadata.len());
        let written = file.write_all(text.as_bytes()).and_then(|()| if now { file.sync_data() } else { Ok(()) });
        if let (Err(_), Ok(before)) = (&written, before) {
            // Half a line would make the next one unreadable.
            let _ = file.set_len(before).and_then(|()| file.seek(SeekFrom::Start(before)));
        }
        written.map_err(|error| {
            surroundings(format!("what must be undone cannot be written to {}: {error}; make room", path.display()))
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some((path, _)) = self.file.take() else { return };
        // An address is nothing to undo.
        let left = self.open.values().filter(|intent| !matches!(intent, Intent::Address { .. })).count();
        match left {
            0 => drop(std::fs::remove_file(path)),
            _ => eprintln!("{left} things are not undone; scalelab heal undoes them"),
        }
    }
}

/// Makes the file, whole with its first line, so that nobody ever sees a journal of nobody.
fn begin(folder: &Path, run: &str, lab: &Lab) -> std::io::Result<(PathBuf, File)> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    let line = serde_json::to_string(&Line::Lab(lab.clone()))? + "\n";
    file.write_all(line.as_bytes())?;
    file.as_file().sync_data()?;
    let mut path = folder.join(format!("{run}.jsonl"));
    let file = match file.persist_noclobber(&path) {
        Ok(file) => file,
        Err(taken) if taken.error.kind() == std::io::ErrorKind::AlreadyExists => {
            path = folder.join(format!("{run}-{}.jsonl", std::process::id()));
            taken.file.persist_noclobber(&path).map_err(|error| error.error)?
        }
        Err(error) => return Err(error.error),
    };
    // The name too is to be there after a crash of the machine.
    File::open(folder)?.sync_all()?;
    Ok((path, file))
}

/// A journal that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its file.
    pub path: PathBuf,
    /// Who wrote it.
    pub lab: Lab,
    /// What is not undone, in the order in which it was intended.
    pub open: Vec<Intent>,
}

/// Reads a journal; none when it went meanwhile.
///
/// # Errors
/// Which line is damaged. The last one may be cut short: its writer was killed before it did what it says.
pub fn read(path: &Path) -> anyhow::Result<Option<Record>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let (mut lab, mut open) = (None, BTreeMap::new());
    for (index, line) in text.split_inclusive('\n').enumerate().filter(|(_, line)| line.ends_with('\n')) {
        let line = serde_json::from_str(line).map_err(|error| anyhow::anyhow!("line {}: {error}", index + 1))?;
        match line {
            Line::Lab(found) => lab = Some(found),
            Line::Intend { id, intent } => drop(open.insert(id, intent)),
            Line::Done { id } => drop(open.remove(&id)),
        }
    }
    let lab = lab.ok_or_else(|| anyhow::anyhow!("line 1: it does not say whose it is"))?;
    Ok(Some(Record { path: path.to_owned(), lab, open: open.into_values().collect() }))
}

/// The journals of a folder, by name; none where there is no folder.
///
/// # Errors
/// When the folder cannot be read, as surroundings.
pub fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(surroundings(format!("{}: {error}", folder.display()))),
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder_of(number: u32) -> Intent {
        Intent::Folder { path: format!("/tmp/scalelab-{number}").into() }
    }

    #[test]
    fn what_is_not_undone_is_read_back_however_its_writer_ended() {
        let state = tempfile::tempdir().unwrap();
        let journal = Journal::open_in(state.path(), "run", &Lab::own(Path::new("runs/x"))).unwrap();
        let all = [
            Intent::process(std::process::id(), "task-service", 2).unwrap(),
            Intent::paused(std::process::id()).unwrap(),
            folder_of(1),
            Intent::Database { server_host: "127.0.0.1:5432".to_owned(), name: "scalelab_x".to_owned() },
            Intent::Address { addr: "127.0.0.1:1".to_owned() },
        ];
        let mut tokens: Vec<_> = all.iter().map(|intent| journal.intend(intent.clone()).unwrap()).collect();
        journal.done(tokens.remove(2));
        // Its writer is killed, in the middle of a line.
        std::mem::forget(journal);
        let path = &files(state.path()).unwrap()[0];
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut text = std::fs::read_to_string(path).unwrap();
        text.push_str(r#"{"intend":{"id":5,"intent":{"what":"folder","pa"#);
        std::fs::write(path, text).unwrap();
        let record = read(path).unwrap().unwrap();
        assert!(record.lab.is_alive());
        assert!(record.lab.archive.is_absolute());
        let open: Vec<_> = all.into_iter().filter(|intent| *intent != folder_of(1)).collect();
        assert_eq!(record.open, open);
    }

    #[test]
    fn a_journal_goes_when_all_is_undone_and_stays_otherwise() {
        let state = tempfile::tempdir().unwrap();
        for (undone, left) in [(true, 0), (false, 1)] {
            let journal = Journal::open_in(state.path(), "run", &Lab::own(Path::new("x"))).unwrap();
            let _of_no_weight = journal.intend(Intent::Address { addr: "127.0.0.1:1".to_owned() }).unwrap();
            let token = journal.intend(folder_of(2)).unwrap();
            if undone {
                journal.done(token);
            }
            journal.close();
            assert_eq!(files(state.path()).unwrap().len(), left);
        }
    }

    #[test]
    fn two_runs_of_one_name_have_two_journals() {
        let state = tempfile::tempdir().unwrap();
        let lab = Lab::own(Path::new("x"));
        let both = [(); 2].map(|()| Journal::open_in(state.path(), "run", &lab).unwrap());
        assert_eq!(files(state.path()).unwrap().len(), 2);
        both.into_iter().for_each(Journal::close);
        assert_eq!(files(state.path()).unwrap().len(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_the_surroundings_matter() {
        let error = Journal::open_in(Path::new("/proc/nowhere"), "run", &Lab::own(Path::new("x"))).err().unwrap();
        assert!(error.to_string().contains("XDG_STATE_HOME"), "{error}");
        assert_eq!(crate::error::exit_code(&error), 4);
    }

    #[test]
    fn a_damaged_journal_says_where() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("x.jsonl");
        for (text, expected) in [("", "line 1"), ("{\"done\":{\"id\":1}}\nwhat?\n", "line 2"), ("torn", "line 1")] {
            std::fs::write(&path, text).unwrap();
            assert!(read(&path).unwrap_err().to_string().contains(expected), "{text}");
        }
        assert_eq!(read(&state.path().join("none.jsonl")).unwrap(), None);
    }
}

//! An archive as it grows: what was added since the last look, and never half a line.
//!
//! The one rule: everything read here is a cache that can be rebuilt. A file that was cut, or replaced by one that
//! begins differently, is read anew.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The files of one archive, each at its place.
#[derive(Clone, Debug)]
pub struct Growing {
    folder: PathBuf,
}

impl Growing {
    /// The archive that `path` leads to now; none while there is none. A link may lead elsewhere later.
    pub fn at(path: &Path) -> Option<Self> {
        let folder = path.canonicalize().ok()?;
        folder.join("experiment.toml").is_file().then_some(Self { folder })
    }

    /// Where it is, without links.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The resolved experiment.
    pub fn experiment(&self) -> Whole {
        Whole::new(self.folder.join("experiment.toml"))
    }

    /// The planned trials.
    pub fn plan(&self) -> Whole {
        Whole::new(self.folder.join("plan.json"))
    }

    /// The machine and the conditions.
    pub fn environment(&self) -> Whole {
        Whole::new(self.folder.join("environment.json"))
    }

    /// What the results mean, once the run has ended.
    pub fn verdict(&self) -> Whole {
        Whole::new(self.folder.join("verdict.json"))
    }

    /// The final trials, a line each.
    pub fn results(&self) -> Tail {
        Tail::new(self.folder.join("results.jsonl"))
    }

    /// The trials that have begun, by name.
    pub fn begun(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.folder.join("trials")) else { return Vec::new() };
        let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut names: Vec<_> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        names
    }

    /// The gauges of a trial.
    pub fn series(&self, trial: &str) -> Tail {
        Tail::new(self.folder.join("trials").join(trial).join("series.csv"))
    }

    /// The operations of a trial by second.
    pub fn history(&self, trial: &str) -> Tail {
        Tail::new(self.folder.join("trials").join(trial).join("stats_history.csv"))
    }

    /// What the stream of a trial told.
    pub fn batches(&self, trial: &str) -> Tail {
        Tail::new(self.folder.join("trials").join(trial).join("batches.jsonl"))
    }

    /// The faults of a trial while it runs.
    pub fn faults(&self, trial: &str) -> Tail {
        Tail::new(self.folder.join("trials").join(trial).join(super::FAULTS))
    }

    /// The faults of a trial and its recovery from them.
    pub fn recovery(&self, trial: &str) -> Whole {
        Whole::new(self.folder.join("trials").join(trial).join("recovery.json"))
    }

    /// Whether a lab that is alive writes to it.
    pub fn is_written(&self) -> bool {
        let Ok(file) = File::open(self.folder.join(".lock")) else { return false };
        matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
    }
}

/// A file that is written whole, and read again when it has changed.
#[derive(Debug)]
pub struct Whole {
    path: PathBuf,
    /// Inode, size, and time of change when it was read last.
    seen: Option<(u64, u64, i64, i64)>,
}

impl Whole {
    fn new(path: PathBuf) -> Self {
        Self { path, seen: None }
    }

    /// Its text when that has changed since the last call, otherwise none; empty once it is gone.
    pub fn changed(&mut self) -> Option<String> {
        let stamp = fs::metadata(&self.path).ok().map(|meta| (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()));
        if stamp == self.seen {
            return None;
        }
        self.seen = stamp;
        Some(fs::read_to_string(&self.path).unwrap_or_default())
    }
}

/// A file of lines that grows.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    /// Everything before was given.
    offset: u64,
    /// The bytes before `offset`, at most [`Tail::MARK`]: where they differ, the file is another one.
    mark: Vec<u8>,
    /// Inside a line that is too long to be one; the rest of it is skipped.
    is_skipping: bool,
}

/// What one look at a [`Tail`] found.
#[derive(Debug, Default)]
pub struct Added {
    /// Whether the file was cut or replaced: what was read before counts no more.
    pub anew: bool,
    /// Whole lines.
    pub lines: String,
    /// Bytes that are left for the next look.
    pub left: u64,
}

impl Tail {
    const MARK: usize = 256;

    fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, mark: Vec::new(), is_skipping: false }
    }

    /// Whole lines that were added since the last look, in at most `budget` bytes. A file that cannot be read is as
    /// good as none.
    pub fn look(&mut self, budget: u64) -> Added {
        let opened = File::open(&self.path).and_then(|file| Ok((file.metadata()?, file)));
        let Ok((meta, mut file)) = opened else {
            let anew = self.offset > 0;
            *self = Self::new(std::mem::take(&mut self.path));
            return Added { anew, ..Added::default() };
        };
        let mut added = Added { anew: !self.continues(&meta, &mut file), ..Added::default() };
        if added.anew {
            added.anew = self.offset > 0;
            *self = Self::new(std::mem::take(&mut self.path));
        }
        let mut bytes = Vec::new();
        let read = file.seek(SeekFrom::Start(self.offset)).and_then(|_| file.take(budget).read_to_end(&mut bytes));
        if read.is_ok() {
            added.lines = self.take_lines(&bytes, budget);
        }
        // At the end of the file only the beginning of a line can be left, which is no work until it is whole.
        if bytes.len() as u64 == budget {
            added.left = meta.len().saturating_sub(self.offset);
        }
        added
    }

    /// Whether the file still begins with what was read of it, whichever file it is: results are written whole, with
    /// one more line each time.
    fn continues(&self, meta: &fs::Metadata, file: &mut File) -> bool {
        if meta.len() < self.offset {
            return false;
        }
        let mut mark = vec![0; self.mark.len()];
        let start = self.offset - mark.len() as u64;
        file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut mark)).is_ok() && mark == self.mark
    }

    fn take_lines(&mut self, bytes: &[u8], budget: u64) -> String {
        let Some(end) = memchr::memrchr(b'\n', bytes).map(|end| end + 1) else {
            if bytes.len() as u64 == budget {
                self.is_skipping = true;
                self.pass(bytes);
            }
            return String::new();
        };
        let whole = &bytes[..end];
        self.pass(whole);
        let skipped =
            if std::mem::take(&mut self.is_skipping) { memchr::memchr(b'\n', whole).map_or(0, |at| at + 1) } else { 0 };
        String::from_utf8_lossy(&whole[skipped..]).into_owned()
    }

    fn pass(&mut self, bytes: &[u8]) {
        self.offset += bytes.len() as u64;
        self.mark.extend_from_slice(&bytes[bytes.len().saturating_sub(Self::MARK)..]);
        self.mark.drain(..self.mark.len().saturating_sub(Self::MARK));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const ALL: u64 = 1 << 20;

    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        (folder, path)
    }

    fn append(path: &Path, text: &str) {
        fs::OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn look(tail: &mut Tail, budget: u64) -> (bool, String) {
        let added = tail.look(budget);
        (added.anew, added.lines)
    }

    #[test]
    fn each_look_gives_what_was_added_and_half_a_line_waits_for_its_end() {
        let (_folder, path) = file();
        let mut tail = Tail::new(path.clone());
        assert_eq!(look(&mut tail, ALL), (false, String::new()), "no file yet");
        append(&path, "one\ntw");
        assert_eq!(look(&mut tail, ALL), (false, "one\n".to_owned()));
        assert_eq!(look(&mut tail, ALL), (false, String::new()));
        append(&path, "o\nthree\n");
        assert_eq!(look(&mut tail, ALL), (false, "two\nthree\n".to_owned()));
        assert_eq!(look(&mut tail, ALL), (false, String::new()));
    }

    #[test]
    fn a_file_that_was_cut_or_replaced_is_read_anew() {
        let (_folder, path) = file();
        let mut tail = Tail::new(path.clone());
        append(&path, "one\ntwo\n");
        tail.look(ALL);
        fs::write(&path, "new\n").unwrap();
        assert_eq!(look(&mut tail, ALL), (true, "new\n".to_owned()), "cut");
        fs::write(&path, "longer than before\n").unwrap();
        assert_eq!(look(&mut tail, ALL), (true, "longer than before\n".to_owned()), "written over");
        let beside = path.with_extension("beside");
        fs::write(&beside, "quite another one\nand more\n").unwrap();
        fs::rename(&beside, &path).unwrap();
        assert_eq!(look(&mut tail, ALL), (true, "quite another one\nand more\n".to_owned()), "replaced");
        fs::write(&beside, "quite another one\nand more\nand yet more\n").unwrap();
        fs::rename(&beside, &path).unwrap();
        assert_eq!(look(&mut tail, ALL), (false, "and yet more\n".to_owned()), "replaced by one that goes on");
        fs::remove_file(&path).unwrap();
        assert_eq!(look(&mut tail, ALL), (true, String::new()), "gone");
        assert_eq!(look(&mut tail, ALL), (false, String::new()));
    }

    #[test]
    fn a_long_file_is_read_in_pieces_and_a_line_longer_than_a_piece_is_skipped() {
        let (_folder, path) = file();
        let mut tail = Tail::new(path.clone());
        append(&path, "one\ntwo\n0123456789abcdef\nthree\n");
        let mut seen = Vec::new();
        for _ in 0..10 {
            let added = tail.look(7);
            seen.push(added.lines);
            if added.left == 0 {
                break;
            }
        }
        assert_eq!(seen.concat(), "one\ntwo\nthree\n");
    }

    #[test]
    fn a_whole_file_is_given_once_each_time_it_changes() {
        let (_folder, path) = file();
        let mut whole = Whole::new(path.clone());
        assert_eq!(whole.changed(), None);
        fs::write(&path, "a").unwrap();
        assert_eq!(whole.changed().as_deref(), Some("a"));
        assert_eq!(whole.changed(), None);
        fs::write(&path, "bc").unwrap();
        assert_eq!(whole.changed().as_deref(), Some("bc"));
        fs::remove_file(&path).unwrap();
        assert_eq!(whole.changed().as_deref(), Some(""));
    }
}

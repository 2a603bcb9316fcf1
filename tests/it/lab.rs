//! Runs the program, and looks at what it leaves.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// The program under test.
pub fn scalelab() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scalelab"));
    command.stdin(Stdio::null()).env_remove("SCALELAB_POSTGRES_URL").env("NO_COLOR", "1");
    // Journals of the tests' runs stay apart from those of whoever runs the tests.
    command.env("XDG_STATE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command
}

/// What a call left: exit code, standard output, standard error.
pub struct Called {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Called {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Calls the program and waits for its end.
pub fn call(arguments: &[&str]) -> Called {
    scalelab().args(arguments).output().expect("the program starts").into()
}

/// A folder that goes with the test.
pub fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("scalelab-it-").tempdir().expect("a scratch folder")
}

/// An experiment in a file of its own.
pub fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("the scratch folder can be written");
    path
}

/// Waits until `condition` holds; fails after a minute.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if condition() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("waited a minute in vain: {what}");
}

/// Starts the program without waiting.
pub fn begin(arguments: &[&str]) -> Child {
    scalelab().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

/// Processes that were started by `parent`, by id.
pub fn children_of(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let fields: Vec<_> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
        fields.get(1).and_then(|parent| parent.parse().ok()) == Some(parent)
    })
    .collect()
}

/// Whether a process is there and not merely waiting to be reaped.
pub fn is_alive(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Sends a signal by the name that `kill` knows.
pub fn signal(id: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &id.to_string()]).status().expect("kill is there");
    assert!(status.success(), "kill -{name} {id}");
}

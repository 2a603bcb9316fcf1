//! A Postgres of a test's own, from the machine's binaries. The lab's soak uses this file too.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A server on a socket in a folder of its own. Dropped, it ends.
pub struct Postgres {
    folder: TempDir,
    binaries: PathBuf,
    user: Option<u32>,
}

impl Postgres {
    /// None where the machine has no Postgres.
    pub fn start() -> Option<Self> {
        let server = Self { folder: TempDir::new().unwrap(), binaries: binaries()?, user: other_user() };
        if let Some(user) = server.user {
            std::os::unix::fs::chown(server.folder.path(), Some(user), None).unwrap();
        }
        let (data, folder) = (server.data(), server.folder.path().display().to_string());
        server.run("initdb", &["-D", &data, "-U", "postgres", "-A", "trust", "--no-sync"]);
        let options = format!("-k {folder} -c listen_addresses= -c fsync=off");
        let log = format!("{folder}/log");
        server.run("pg_ctl", &["-D", &data, "-w", "-l", &log, "-o", &options, "start"]);
        Some(server)
    }

    /// The URL of a database, made when it is not there yet.
    pub fn url(&self, name: &str) -> String {
        let folder = self.folder.path().display().to_string();
        // The second replica finds it there.
        let _ = self.command("createdb", &["-h", &folder, "-U", "postgres", name]).output();
        format!("postgres://postgres:unused@localhost/{name}?host={folder}")
    }

    fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    fn run(&self, binary: &str, arguments: &[&str]) {
        // Not its output: the server would inherit the pipe and hold it open.
        let status = self.command(binary, arguments).stdout(std::process::Stdio::null()).status().unwrap();
        assert!(status.success(), "{binary} {arguments:?}: {status}");
    }

    /// The server refuses to run as root.
    fn command(&self, binary: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.binaries.join(binary));
        if let Some(user) = self.user {
            command = Command::new("setpriv");
            command.args([&format!("--reuid={user}"), "--clear-groups"]).arg(self.binaries.join(binary));
        }
        command.args(arguments).current_dir("/").env("LC_ALL", "C");
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.command("pg_ctl", &["-D", &self.data(), "-w", "-m", "immediate", "stop"]).output();
    }
}

fn binaries() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut debian: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    debian.sort();
    let complete = |folder: &Path| ["initdb", "pg_ctl", "createdb"].iter().all(|name| folder.join(name).is_file());
    debian.into_iter().rev().chain(std::env::split_paths(&path)).find(|folder| complete(folder))
}

/// Root needs another user; anyone else is one.
fn other_user() -> Option<u32> {
    let id = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().ok()?;
        String::from_utf8_lossy(&output.stdout).trim().parse::<u32>().ok()
    };
    if id(&["-u"]) == Some(0) { id(&["-u", "postgres"]).or(Some(65_534)) } else { None }
}

//! What this machine can run, and the one line that brings the rest.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::database::POSTGRES_URL;
use crate::deploy::pinning;
use crate::faults::check::ABLE;
use crate::faults::possible::{self, Machine};

/// One thing that was looked at.
struct Finding {
    what: &'static str,
    /// Whether it is there, and what was seen.
    seen: Result<String, String>,
    /// What it is for.
    for_what: &'static str,
    /// The line that brings it.
    bring: &'static str,
}

/// A line for each thing; nothing here is needed for everything.
pub fn report() -> String {
    let findings = [cpus(), open_files(), scratch(), postgres_server(), postgres_binaries(), wrk(), nginx()];
    let lines = findings.into_iter().map(|Finding { what, seen, for_what, bring }| match seen {
        Ok(seen) => format!("ok       {what:<20} {seen}\n"),
        Err(missing) => format!("missing  {what:<20} {missing}\n         for {for_what}: {bring}\n"),
    });
    lines.chain([faults()]).collect()
}

/// A line for each kind of fault: where it can be done, and why not where it cannot.
fn faults() -> String {
    let mut text = String::from("\nFAULTS (a fault that cannot be done is skipped, and said so)\n");
    // A role that waits for its configuration is a child that can be stopped and killed.
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("scalelab"));
    let machine = Machine::look(Command::new(program).args(["serve", "lab", "load"]));
    for (kind, _) in possible::kinds() {
        let against = ABLE.map(|deployment| (deployment, machine.against(kind, deployment)));
        let able: Vec<_> = against.iter().filter(|(_, why)| why.is_none()).map(|(at, _)| at.to_string()).collect();
        if !able.is_empty() {
            text.push_str(&format!("ok       {kind:<20} {}\n", able.join(", ")));
        }
        for (deployment, why) in against {
            let Some(why) = why else { continue };
            text.push_str(&format!("skipped  {kind:<20} {deployment}: {why}\n"));
        }
    }
    text
}

fn cpus() -> Finding {
    let allowed = pinning::allowed();
    let seen = match pinning::budget(&allowed) {
        pinning::Budget { system: Some(system), load: Some(load) } => Ok(format!(
            "{}: {} for the system, {} for the load generator",
            allowed.len(),
            pinning::show(&system),
            pinning::show(&load)
        )),
        _ => Err("one CPU: system and load generator have to share it".to_owned()),
    };
    Finding {
        what: "CPUs",
        seen,
        for_what: "results that the generator does not disturb",
        bring: "use a machine with two",
    }
}

fn open_files() -> Finding {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let seen = if hard >= 10_500 { Ok(format!("up to {hard}")) } else { Err(format!("at most {hard}")) };
    Finding {
        what: "open files",
        seen,
        for_what: "10000 users on this machine",
        bring: "ulimit -Hn 65536 (as root), or nofile in limits.conf",
    }
}

fn scratch() -> Finding {
    let folder = std::env::temp_dir();
    let seen = tempfile::Builder::new()
        .prefix("scalelab-")
        .tempdir()
        .map(|_| folder.display().to_string())
        .map_err(|error| format!("{}: {error}", folder.display()));
    Finding {
        what: "scratch folder",
        seen,
        for_what: "databases of trials",
        bring: "export TMPDIR=/a/folder/you/may/write",
    }
}

fn postgres_server() -> Finding {
    let seen =
        std::env::var(POSTGRES_URL).map(|url| kit::redacted(&url)).map_err(|_| format!("{POSTGRES_URL} is not set"));
    Finding {
        what: "Postgres server",
        seen,
        for_what: "--database postgres",
        bring: "export SCALELAB_POSTGRES_URL=postgres://USER:PASSWORD@127.0.0.1/postgres",
    }
}

fn postgres_binaries() -> Finding {
    let debian =
        std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let found = debian.chain(path_folders()).map(|folder| folder.join("initdb")).find(|path| path.is_file());
    program("Postgres binaries", found, "the database tests against Postgres", "apt-get install postgresql")
}

fn wrk() -> Finding {
    program("wrk", in_path("wrk"), "make bench", "apt-get install wrk")
}

fn nginx() -> Finding {
    program("nginx", in_path("nginx"), "make bench", "apt-get install nginx-light")
}

fn program(what: &'static str, found: Option<PathBuf>, for_what: &'static str, bring: &'static str) -> Finding {
    let seen = found.map(|path| path.display().to_string()).ok_or_else(|| "not found".to_owned());
    Finding { what, seen, for_what, bring }
}

fn path_folders() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// A program by name.
pub fn in_path(name: &str) -> Option<PathBuf> {
    path_folders()
        .iter()
        .map(|folder| folder.join(name))
        .chain([Path::new("/usr/sbin").join(name)])
        .find(|path| path.is_file())
}

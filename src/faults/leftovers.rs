//! Whether anything is left of what was started: looked at in the machine, not in the lab's own books.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::identity;
use super::journal::Intent;

/// Long enough for a connection to this machine.
const CONNECT: Duration = Duration::from_millis(500);

/// What is left of what was recorded, each in words; empty when nothing is.
pub fn check(recorded: &[Intent]) -> Vec<String> {
    let mut left: Vec<String> = Vec::new();
    for intent in recorded {
        let words = still_there(intent, recorded).filter(|words| !left.contains(words));
        left.extend(words);
    }
    left
}

/// One line for the end of a run.
pub fn in_words(recorded: &[Intent], left: &[String]) -> String {
    if !left.is_empty() {
        return format!("left behind: {}; scalelab heal ends what is still known of it", left.join("; "));
    }
    let counts = counts(recorded);
    match counts.is_empty() {
        true => "nothing is left: nothing was started".to_owned(),
        false => format!("nothing is left: {counts}, all gone"),
    }
}

/// `7 processes, 1 folder`: what of it weighs something.
pub fn counts(recorded: &[Intent]) -> String {
    let of = |one: &str, several: &str, is: fn(&Intent) -> bool| {
        let count = recorded.iter().filter(|intent| is(intent)).count();
        let what = if count == 1 { one } else { several };
        (count > 0).then(|| format!("{count} {what}"))
    };
    let kinds = [
        of("process", "processes", |intent| matches!(intent, Intent::Process { .. })),
        of("address", "addresses", |intent| matches!(intent, Intent::Address { .. })),
        of("scratch folder", "scratch folders", |intent| matches!(intent, Intent::Folder { .. })),
        of("database", "databases", |intent| matches!(intent, Intent::Database { .. })),
    ];
    kinds.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn still_there(intent: &Intent, recorded: &[Intent]) -> Option<String> {
    match intent {
        Intent::Process { pid, start_time, role, replica } => {
            let stat = identity::stat(*pid).filter(|stat| stat.start_time == *start_time)?;
            let how = match stat.state {
                'T' => "is stopped",
                'Z' | 'X' => "has ended and was not waited for",
                _ => "is alive",
            };
            Some(format!("{role} {replica} (process {pid}) {how}"))
        }
        Intent::Paused { pid, start_time } => {
            let stat = identity::stat(*pid).filter(|stat| stat.start_time == *start_time && stat.state == 'T');
            let is_named =
                recorded.iter().any(|other| matches!(other, Intent::Process { pid: named, .. } if named == pid));
            stat.filter(|_| !is_named).map(|_| format!("process {pid} is stopped"))
        }
        Intent::Folder { path } => path.exists().then(|| format!("the folder {} is there", path.display())),
        Intent::Address { addr } => {
            let parsed: SocketAddr = addr.parse().ok()?;
            let stream = TcpStream::connect_timeout(&parsed, CONNECT).ok()?;
            if stream.local_addr().ok() == stream.peer_addr().ok() {
                // Nobody listens: it has met itself.
                return None;
            }
            is_ours(parsed, recorded).then(|| format!("{addr} still accepts connections"))
        }
        // Who dropped it has said whether that worked.
        Intent::Database { .. } => None,
    }
}

/// Whether what listens there is the lab or something recorded. A port that is free may be another program's at once;
/// where nobody can be named it counts as ours.
fn is_ours(addr: SocketAddr, recorded: &[Intent]) -> bool {
    let Some(socket) = listening_socket(addr) else { return true };
    let mut ours = vec![std::process::id()];
    ours.extend(recorded.iter().filter_map(|intent| match intent {
        Intent::Process { pid, start_time, .. } => {
            identity::stat(*pid).filter(|stat| stat.start_time == *start_time).map(|_| *pid)
        }
        _ => None,
    }));
    ours.into_iter().any(|pid| has_socket(pid, &socket))
}

/// The socket that listens on an IPv4 address, as the kernel links it: `socket:[INODE]`.
fn listening_socket(addr: SocketAddr) -> Option<String> {
    const LISTEN: &str = "0A";
    let SocketAddr::V4(addr) = addr else { return None };
    let port = format!(":{:04X}", addr.port());
    let host = format!("{:08X}", u32::from_ne_bytes(addr.ip().octets()));
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let mut rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| {
        let local = row.get(1).and_then(|local| local.strip_suffix(port.as_str()));
        row.get(3) == Some(&LISTEN) && local.is_some_and(|local| local == host || local == "00000000")
    })?;
    row.get(9).map(|inode| format!("socket:[{inode}]"))
}

fn has_socket(pid: u32, socket: &str) -> bool {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|link| link.to_string_lossy() == socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(state_of: u64) -> Intent {
        let pid = std::process::id();
        let start_time = identity::stat(pid).unwrap().start_time + state_of;
        Intent::Process { pid, start_time, role: "task-service".to_owned(), replica: 2 }
    }

    #[test]
    fn what_is_there_is_named_and_what_has_gone_is_not() {
        let folder = tempfile::Builder::new().prefix("scalelab-").tempdir().unwrap();
        #[expect(clippy::disallowed_methods, reason = "what is looked for is a real socket")]
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let there = Intent::Folder { path: folder.path().to_owned() };
        let gone = Intent::Folder { path: folder.path().join("scalelab-none") };
        for (recorded, expected) in [
            (vec![], None),
            (vec![own(0)], Some("task-service 2 (process")),
            (vec![own(1)], None),
            (vec![there], Some("is there")),
            (vec![gone], None),
            (vec![Intent::Address { addr }], Some("still accepts")),
            (vec![Intent::Address { addr: "127.0.0.1:1".to_owned() }], None),
        ] {
            let left = check(&recorded);
            assert_eq!(left.len(), usize::from(expected.is_some()), "{recorded:?}: {left:?}");
            assert!(left.iter().all(|words| words.contains(expected.unwrap())), "{left:?}");
        }
    }

    #[test]
    fn the_end_of_a_run_is_one_line() {
        let recorded = [own(1), own(2), Intent::Address { addr: "127.0.0.1:1".to_owned() }];
        assert_eq!(in_words(&recorded, &[]), "nothing is left: 2 processes, 1 address, all gone");
        assert_eq!(in_words(&recorded[..1], &[]), "nothing is left: 1 process, all gone");
        assert_eq!(in_words(&[], &[]), "nothing is left: nothing was started");
        assert_eq!(
            in_words(&recorded, &["a".to_owned(), "b".to_owned()]),
            "left behind: a; b; scalelab heal ends what is still known of it"
        );
    }
}

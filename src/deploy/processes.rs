//! Replicas as child processes: one `scalelab serve SYSTEM ROLE` each, told on standard input.
//!
//! A child ends when its standard input closes, so none outlives the lab, however the lab dies. It leads a group of
//! its own, so a Ctrl-C at the terminal reaches the lab alone, which then ends its children in order.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use kit::host::ReadyLine;
use kit::shutdown::HARD_DEADLINE;
use kit::usage::{self, Usage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};

use super::{AdminClient, Deployment, Launch, Replica, pinning};
use crate::error::surroundings;

/// The deployment.
pub struct Processes {
    /// The program to run; this one.
    pub program: PathBuf,
}

struct Process {
    name: String,
    child: Child,
    /// Closed, it ends the child.
    stdin: Option<ChildStdin>,
    addr: String,
    admin: AdminClient,
    log: PathBuf,
    reaped: bool,
    /// Whether it was stopped by a signal: it hears nothing until it goes on.
    paused: bool,
}

/// How long the last child's shutdown may take beyond its own hard deadline.
const GRACE: Duration = Duration::from_secs(2);

impl Processes {
    /// Runs this very program.
    ///
    /// # Errors
    /// When it cannot find itself.
    pub fn this_program() -> anyhow::Result<Self> {
        Ok(Self { program: std::env::current_exe().context("finding the program itself")? })
    }
}

impl Deployment for Processes {
    fn launch(&self, launch: &Launch<'_>) -> anyhow::Result<Box<dyn Replica>> {
        let name = format!("{} {}", launch.role.name, launch.config.replica);
        let log = OpenOptions::new().create(true).append(true).open(launch.log);
        let log = log.with_context(|| format!("creating {}", launch.log.display()))?;
        let mut command = Command::new(&self.program);
        command
            .args(["serve", launch.system, launch.role.name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0);
        let mut child = pinning::pinned(launch.cpus, || command.spawn())?
            .map_err(|error| surroundings(format!("role {name} did not start: {}: {error}", self.program.display())))?;
        let stdout = child.stdout.take();
        let mut stdin = child.stdin.take();
        let mut process = Process {
            name,
            child,
            stdin: None,
            addr: String::new(),
            admin: AdminClient::http("", ""),
            log: launch.log.to_owned(),
            reaped: false,
            paused: false,
        };
        let line = serde_json::to_string(&launch.config)?;
        if let Some(stdin) = &mut stdin {
            // A child that has ended already says why in its log, which is read below.
            let _ = writeln!(stdin, "{line}");
        }
        process.stdin = stdin;
        let ready = stdout.map_or(Waited::Ended, |stdout| first_line(stdout, launch));
        let ready = match ready {
            Waited::Ready(ready) => ready,
            Waited::Interrupted => return Err(surroundings("interrupted")),
            Waited::Ended => {
                process.end_now();
                return Err(surroundings(format!("role {} did not start: {}", process.name, last_words(&process.log))));
            }
            Waited::TooLong => {
                let (name, waited_s, said) = (&process.name, launch.ready_within.as_secs(), last_words(&process.log));
                return Err(surroundings(format!(
                    "role {name} was not ready within {waited_s} s; the last it said: {said}"
                )));
            }
        };
        process.addr = ready.ready_addr.to_string();
        process.admin = AdminClient::http(&ready.admin_addr.to_string(), &launch.config.admin_token);
        Ok(Box::new(process))
    }
}

/// How waiting for the first line ended.
enum Waited {
    Ready(ReadyLine),
    /// The child ended, or printed something else.
    Ended,
    Interrupted,
    TooLong,
}

/// Waits for the first line.
fn first_line(stdout: std::process::ChildStdout, launch: &Launch<'_>) -> Waited {
    let clock = kit::Clock::real();
    let deadline_ns = clock.now_ns() + launch.ready_within.as_nanos() as u64;
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = String::new();
        let read = reader.read_line(&mut line);
        let _ = send.send(read.map(|_| line));
        // Whatever else is printed is taken, so that the child never blocks on it.
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
    });
    loop {
        match receive.recv_timeout(Duration::from_millis(100)) {
            Ok(Ok(line)) => return serde_json::from_str(&line).map_or(Waited::Ended, Waited::Ready),
            Ok(Err(_)) | Err(mpsc::RecvTimeoutError::Disconnected) => return Waited::Ended,
            Err(mpsc::RecvTimeoutError::Timeout) if (launch.interrupted)() => return Waited::Interrupted,
            Err(mpsc::RecvTimeoutError::Timeout) if clock.now_ns() > deadline_ns => return Waited::TooLong,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
    }
}

/// The end of a log, for a message.
fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

impl Process {
    fn pid_fd(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()).ok()?)
    }

    /// Waits for the end without reaping, so that the id stays this child's.
    fn wait_for_end(&self, at_most: Duration) -> bool {
        let Some(fd) = self.pid_fd().and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else { return true };
        let clock = kit::Clock::real();
        let deadline_ns = clock.now_ns() + at_most.as_nanos() as u64;
        loop {
            let left = Duration::from_nanos(deadline_ns.saturating_sub(clock.now_ns()));
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let mut fds = [PollFd::new(&fd, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => {}
                polled => return matches!(polled, Ok(count) if count > 0),
            }
        }
    }

    /// Sends a signal to it and all that it started. Until it is reaped, the id is this child's and nobody else's.
    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        anyhow::ensure!(!self.reaped, "role {} has ended", self.name);
        let pid = self.pid_fd().context("its process has no id")?;
        kill_process_group(pid, signal).with_context(|| format!("sending {signal:?} to role {}", self.name))
    }

    /// Kills what is left of it; says how it ended, unless that was said before.
    fn end_now(&mut self) -> Option<ExitStatus> {
        if self.reaped {
            return None;
        }
        if let Some(pid) = self.pid_fd() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let status = self.child.wait().ok();
        self.reaped = true;
        status
    }
}

impl Replica for Process {
    fn addr(&self) -> String {
        self.addr.clone()
    }

    fn admin(&self) -> &AdminClient {
        &self.admin
    }

    fn usage(&mut self) -> Usage {
        usage::of_process(self.child.id())
    }

    fn no_memory(&self) -> Option<&'static str> {
        None
    }

    fn ended(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(Some(status)) => {
                self.reaped = true;
                Some(format!("role {} ended ({status}): {}", self.name, last_words(&self.log)))
            }
            _ => None,
        }
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        if self.reaped {
            return Ok(());
        }
        if let Some(pid) = self.pid_fd() {
            let _ = kill_process(pid, Signal::TERM);
        }
        if self.paused {
            let _ = self.resume();
        }
        let in_time = self.wait_for_end(HARD_DEADLINE + GRACE);
        let (name, log) = (self.name.clone(), self.log.clone());
        match self.end_now() {
            _ if !in_time => {
                anyhow::bail!("role {name} did not stop in time and was killed; its log is {}", log.display())
            }
            Some(status) if !status.success() => {
                anyhow::bail!("role {name} ended with an error when it was stopped ({status}): {}", last_words(&log))
            }
            _ => Ok(()),
        }
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        self.end_now();
        Ok(())
    }

    fn pause(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)?;
        self.paused = true;
        Ok(())
    }

    fn resume(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)?;
        self.paused = false;
        Ok(())
    }

    fn pid(&self) -> Option<u32> {
        Some(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end_now();
    }
}

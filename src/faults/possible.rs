//! Which faults this machine can do: found out by trying on a child of one's own, never on anything else.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

use super::OWN_KINDS;
use super::identity::{Held, stat};
use crate::deploy::pinning;
use crate::experiment::DeploymentKind;
use crate::proxy;

/// What the machine lets the lab do, or why not.
pub struct Machine {
    signals: Result<(), String>,
    loopback: Result<(), String>,
    cpus: usize,
    /// In bytes.
    memory: Result<u64, String>,
}

/// Less memory than this is nobody's load.
const LEAST_MEMORY: u64 = 64 << 20;

/// Long enough for a signal to arrive.
const SOON: Duration = Duration::from_secs(2);

impl Machine {
    /// Looks, with a child that waits for its standard input to close.
    pub fn look(child: &mut Command) -> Self {
        Self {
            signals: try_signals(child).map_err(|error| format!("signals to a child do not work: {error}")),
            loopback: try_loopback().map_err(|error| format!("the proxy cannot listen on 127.0.0.1: {error}")),
            cpus: pinning::allowed().len(),
            memory: available_memory(),
        }
    }

    /// Why a kind of fault cannot be done, where that is so.
    pub fn against(&self, kind: &str, deployment: DeploymentKind) -> Option<String> {
        let own_process = deployment == DeploymentKind::Processes;
        match kind {
            "restart" | "stop-start" | "kill" | "pause" if own_process => self.signals.clone().err(),
            // In the lab's own process these act on the role's runtime, without a signal.
            "restart" | "stop-start" | "kill" | "pause" => None,
            "cpu-burn" if self.cpus < 2 => Some("one CPU: what burns it would burn the load generator's".to_owned()),
            "cpu-burn" => self.signals.clone().err(),
            "memory-hog" => match &self.memory {
                Ok(bytes) if bytes / 2 < LEAST_MEMORY => {
                    Some(format!("only {} MiB of memory are available", bytes >> 20))
                }
                Ok(_) => self.signals.clone().err(),
                Err(why) => Some(why.clone()),
            },
            _ => self.loopback.clone().err(),
        }
    }
}

/// All kinds by name, with what each does.
pub fn kinds() -> impl Iterator<Item = (&'static str, &'static str)> {
    OWN_KINDS.iter().copied().chain(proxy::KINDS.iter().map(|kind| (kind.name, kind.about)))
}

/// The memory that can be had without taking anybody's, in bytes: of the machine, or of the group that limits it.
///
/// # Errors
/// When the kernel does not tell.
pub fn available_memory() -> Result<u64, String> {
    let text = std::fs::read_to_string("/proc/meminfo").map_err(|error| format!("/proc/meminfo: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    let machine = kib.ok_or("/proc/meminfo does not say MemAvailable")? << 10;
    Ok(left_of_group().map_or(machine, |left| left.min(machine)))
}

/// What the limit of the control group leaves, where there is one.
fn left_of_group() -> Option<u64> {
    const FILES: [(&str, &str); 2] = [
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ];
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    FILES.iter().find_map(|(limit, used)| Some(number(limit)?.saturating_sub(number(used)?)))
}

/// Stops a child, sees that it is stopped, lets it go on, and kills it.
fn try_signals(child: &mut Command) -> std::io::Result<()> {
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let tried = stop_and_go(child.id());
    // Whatever came of it, the child goes.
    child.kill()?;
    child.wait()?;
    tried
}

fn stop_and_go(pid: u32) -> std::io::Result<()> {
    let other = |what: &str| std::io::Error::other(what.to_owned());
    let gone = || other("it ended at once");
    let held = Held::open(pid, stat(pid).ok_or_else(gone)?.start_time)?.ok_or_else(gone)?;
    held.signal(Signal::STOP)?;
    let id = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
    // Looked at and left: its end is waited for by whoever started it.
    let look = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let stopped = waitid(WaitId::Pid(id), look)?.is_some_and(|status| status.stopped());
    held.signal(Signal::CONT)?;
    if !stopped {
        return Err(other("it could not be stopped"));
    }
    held.signal(Signal::KILL)?;
    if held.wait(SOON) { Ok(()) } else { Err(other("it could not be killed")) }
}

#[expect(clippy::disallowed_methods, reason = "whether a port can be had is what is looked at")]
fn try_loopback() -> std::io::Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    std::net::TcpStream::connect_timeout(&listener.local_addr()?, SOON).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_lacks_something_says_so_for_the_kinds_that_need_it() {
        let able = || Machine { signals: Ok(()), loopback: Ok(()), cpus: 2, memory: Ok(1 << 30) };
        let (threads, processes) = (DeploymentKind::InProcess, DeploymentKind::Processes);
        for (kind, _) in kinds() {
            assert_eq!(able().against(kind, threads), None, "{kind}");
            assert_eq!(able().against(kind, processes), None, "{kind}");
        }
        let no_signals = Machine { signals: Err("no signals".to_owned()), ..able() };
        let no_loopback = Machine { loopback: Err("no port".to_owned()), ..able() };
        let one_cpu = Machine { cpus: 1, ..able() };
        let little = Machine { memory: Ok(100 << 20), ..able() };
        for (machine, kind, deployment, expected) in [
            (&no_signals, "kill", processes, Some("no signals")),
            (&no_signals, "kill", threads, None),
            (&no_signals, "cpu-burn", threads, Some("no signals")),
            (&no_loopback, "latency", threads, Some("no port")),
            (&no_loopback, "kill", processes, None),
            (&one_cpu, "cpu-burn", processes, Some("one CPU")),
            (&little, "memory-hog", processes, Some("only 100 MiB")),
        ] {
            let against = machine.against(kind, deployment);
            assert_eq!(against.is_some(), expected.is_some(), "{kind}: {against:?}");
            assert!(against.is_none_or(|why| why.contains(expected.unwrap())), "{kind}");
        }
    }

    #[test]
    fn a_child_is_stopped_and_killed_and_one_that_does_not_wait_is_told() {
        assert!(try_signals(&mut Command::new("cat")).is_ok());
        assert!(try_signals(&mut Command::new("/nothing/here")).is_err());
        assert!(available_memory().unwrap() > 0);
        assert!(try_loopback().is_ok());
    }
}

//! Faults of a process: stopped, killed or held, and brought back where it was.
//!
//! An end is seen when the replica has exited, or refuses its first connection, whichever is first. It is ready again
//! after three good answers in a row, and a connection. A role that measures is not connected to: that would be a client.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use super::Planned;
use super::inject::{Applied, Effect, PROBE, SEEN_WITHIN, Stage};
use crate::deploy::Replica;
use crate::deploy::running::Slot;

/// Good answers in a row that make a replica ready.
const GOOD_ANSWERS: u32 = 3;

/// A connection on this machine that takes longer is not made.
const CONNECTED_WITHIN: Duration = Duration::from_millis(250);

/// Asks a replica to stop.
pub(super) fn stop<'s>(stage: &'s Stage<'_>, planned: &Planned) -> anyhow::Result<Effect<'s>> {
    end(stage, planned, |replica| replica.stop())
}

/// Kills a replica.
pub(super) fn kill<'s>(stage: &'s Stage<'_>, planned: &Planned) -> anyhow::Result<Effect<'s>> {
    end(stage, planned, |replica| replica.kill())
}

fn end<'s>(
    stage: &'s Stage<'_>,
    planned: &Planned,
    how: impl FnOnce(&mut dyn Replica) -> anyhow::Result<()>,
) -> anyhow::Result<Effect<'s>> {
    let slot = stage.running.slot(&planned.role, planned.replica)?;
    let mut alive = slot.take()?;
    // From here on it comes back, whatever happens.
    let mut down = Down { stage, slot, port: None, healed: false, ready_ns: None };
    let command_ns = stage.clock.now_ns();
    let has_ended = AtomicBool::new(false);
    let (ended, ended_ns, refused_ns) = thread::scope(|scope| {
        let refusal = scope.spawn(|| first_refusal(stage, slot, &has_ended));
        let ended = how(&mut *alive.replica);
        let ended_ns = stage.clock.now_ns();
        has_ended.store(true, Ordering::Release);
        (ended, ended_ns, refusal.join().ok().flatten())
    });
    // What is left of it, where it could not be ended in order.
    drop(alive);
    down.port = hold_port(&slot.addr);
    let seen_ns = Some(refused_ns.map_or(ended_ns, |refused_ns| refused_ns.min(ended_ns)));
    let problem = ended.err().map(|error| format!("{error:#}"));
    Ok(Effect { applied: Box::new(down), command_ns, seen_ns, problem })
}

/// When the first connection was refused, if that was before the replica's end.
fn first_refusal(stage: &Stage<'_>, slot: &Slot<'_>, has_ended: &AtomicBool) -> Option<u64> {
    while !slot.measures && !has_ended.load(Ordering::Acquire) {
        if matches!(connect(&slot.addr), Connected::Refused) {
            return Some(stage.clock.now_ns());
        }
        if stage.interrupt.wait(PROBE) {
            return None;
        }
    }
    None
}

enum Connected {
    Yes,
    Refused,
    /// Neither, in time.
    Unknown,
}

fn connect(addr: &str) -> Connected {
    let Ok(addr) = addr.parse::<SocketAddr>() else { return Connected::Unknown };
    match TcpStream::connect_timeout(&addr, CONNECTED_WITHIN) {
        // A socket may find its own port while nobody listens there.
        Ok(stream) if stream.local_addr().ok() == stream.peer_addr().ok() => Connected::Refused,
        Ok(_) => Connected::Yes,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Connected::Refused,
        Err(_) => Connected::Unknown,
    }
}

/// Keeps a port from being given to somebody's outgoing connection while nobody listens there: bound, but deaf, so that
/// connections are still refused, and a listener can be bound beside it. Where it cannot be had, the start tries longer.
fn hold_port(addr: &str) -> Option<OwnedFd> {
    let addr: SocketAddr = addr.parse().ok()?;
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).ok()?;
    sockopt::set_socket_reuseaddr(&socket, true).ok()?;
    bind(&socket, &addr).ok()?;
    Some(socket)
}

/// A replica that was ended.
struct Down<'s> {
    stage: &'s Stage<'s>,
    slot: &'s Slot<'s>,
    port: Option<OwnedFd>,
    healed: bool,
    ready_ns: Option<u64>,
}

impl Applied for Down<'_> {
    fn heal(&mut self) -> anyhow::Result<()> {
        if std::mem::replace(&mut self.healed, true) {
            return Ok(());
        }
        // Nothing is started any more once the run was interrupted: what is down is ended already.
        if !self.stage.interrupt.is_asked() {
            self.slot.start_again(&self.stage.clock, self.stage.origin_ns, self.stage.interrupt)?;
            self.port = None;
            self.ready_ns = ready(self.stage, self.slot);
        }
        Ok(())
    }

    fn ready_ns(&self) -> Option<u64> {
        self.ready_ns
    }
}

impl Drop for Down<'_> {
    fn drop(&mut self) {
        // Why not is known to the slot, and ends the trial.
        let _ = self.heal();
    }
}

/// When a replica was seen to be ready; none when it was not.
pub(super) fn ready(stage: &Stage<'_>, slot: &Slot<'_>) -> Option<u64> {
    let mut good = 0;
    stage.probe(SEEN_WITHIN, || {
        good = if slot.admin().is_some_and(|admin| admin.is_ready()) { good + 1 } else { 0 };
        good >= GOOD_ANSWERS && (slot.measures || matches!(connect(&slot.addr), Connected::Yes))
    })
}

/// Holds a replica.
pub(super) fn pause<'s>(stage: &'s Stage<'_>, planned: &Planned) -> anyhow::Result<Effect<'s>> {
    let slot = stage.running.slot(&planned.role, planned.replica)?;
    let command_ns = slot.hold(&stage.clock)?;
    let held = Held { stage, slot, healed: false, ready_ns: None };
    let seen_ns = match slot.pid() {
        Some(pid) => stage.probe(planned.downtime + SEEN_WITHIN, || kit::usage::is_stopped(pid)),
        // Its threads said so themselves.
        None => Some(stage.clock.now_ns()),
    };
    Ok(Effect { applied: Box::new(held), command_ns, seen_ns, problem: None })
}

/// A replica that is held.
struct Held<'s> {
    stage: &'s Stage<'s>,
    slot: &'s Slot<'s>,
    healed: bool,
    ready_ns: Option<u64>,
}

impl Applied for Held<'_> {
    fn heal(&mut self) -> anyhow::Result<()> {
        if std::mem::replace(&mut self.healed, true) {
            return Ok(());
        }
        self.slot.let_go()?;
        self.ready_ns = ready(self.stage, self.slot);
        Ok(())
    }

    fn ready_ns(&self) -> Option<u64> {
        self.ready_ns
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // It may have gone meanwhile, which the trial sees.
        let _ = self.heal();
    }
}

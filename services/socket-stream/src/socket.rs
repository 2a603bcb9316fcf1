//! Waiting for a socket, at most so long: what a thread that serves one connection does between two looks at what it
//! was told.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

/// The longest that a thread waits before it looks whether it should stop.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// Waits until one of `events` has come, or the time has passed; gives what has come.
pub(crate) fn wait(socket: &impl AsFd, events: PollFlags, at_most: Duration) -> io::Result<PollFlags> {
    let mut watched = [PollFd::new(socket, events)];
    let timeout = Timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: i64::from(at_most.subsec_nanos()) };
    match poll(&mut watched, Some(&timeout)) {
        Ok(_) => Ok(watched[0].revents()),
        // A signal: the caller looks around and comes back.
        Err(rustix::io::Errno::INTR) => Ok(PollFlags::empty()),
        Err(error) => Err(error.into()),
    }
}

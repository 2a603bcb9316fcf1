//! Which process is meant. An id alone may be another process by now; an id with its start time and boot is not.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// What the kernel says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `T` for stopped, `Z` for ended and not reaped.
    pub state: char,
    /// When it started, in ticks since the boot.
    pub start_time: u64,
}

/// What the kernel says of a process; none when it is not there.
pub fn stat(pid: u32) -> Option<Stat> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name may hold spaces and brackets, so the fields are counted from its end.
fn parse(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    Some(Stat { state, start_time: fields.nth(18)?.parse().ok()? })
}

/// Names this boot of the machine; empty where the kernel does not tell.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Names the space in which process ids count: a container has one of its own. Empty where the kernel does not tell.
pub fn pid_namespace() -> String {
    std::fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A process held fast: whatever happens to its id, a signal reaches this one or nobody.
pub struct Held(OwnedFd);

impl Held {
    /// Takes hold of the process with this id that started then; none when it is gone, whoever has its id now.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(pid: u32, start_time: u64) -> std::io::Result<Option<Self>> {
        let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let fd = match pidfd_open(id, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Looked at only now: what has this id and this start time is what is held, as a later one would be younger.
        let is_it = stat(pid).is_some_and(|stat| stat.start_time == start_time && !matches!(stat.state, 'Z' | 'X'));
        Ok(is_it.then_some(Self(fd)))
    }

    /// Sends a signal; one that has ended meanwhile is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&self, signal: Signal) -> std::io::Result<()> {
        match pidfd_send_signal(&self.0, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for its end; says whether it came.
    pub fn wait(&self, at_most: Duration) -> bool {
        let clock = kit::Clock::real();
        let deadline_ns = clock.now_ns() + at_most.as_nanos() as u64;
        loop {
            let left = Duration::from_nanos(deadline_ns.saturating_sub(clock.now_ns()));
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => {}
                polled => return matches!(polled, Ok(count) if count > 0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_it_is_called() {
        let tail = "T 1 2 3 0 -1 4194304 1 0 0 0 2 3 0 0 20 0 1 0 4711 1000 99 18446744073709551615";
        for name in ["cat", "a b", "(x) y) ", ") Z 1"] {
            let read = parse(&format!("42 ({name}) {tail}"));
            assert_eq!(read, Some(Stat { state: 'T', start_time: 4711 }), "{name}");
        }
        assert_eq!(parse("42 (cat) S 1"), None);
    }

    #[test]
    fn only_the_process_that_started_then_is_held() {
        let own = std::process::id();
        let start_time = stat(own).unwrap().start_time;
        assert!(Held::open(own, start_time).unwrap().is_some());
        assert!(Held::open(own, start_time + 1).unwrap().is_none(), "another process had this id");
        assert!(Held::open(u32::MAX, start_time).unwrap().is_none(), "no process has such an id");
        assert!(!boot_id().is_empty());
    }
}

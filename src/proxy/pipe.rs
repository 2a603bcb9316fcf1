//! A pipe of the kernel, through which bytes go from one socket to another without being copied to this process.
//!
//! The one rule: it is filled only when it is empty, so that order is kept.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// What it holds.
const SIZE: usize = 256 * 1024;

/// A pipe, and what is in it.
pub struct Pipe {
    exit: OwnedFd,
    entry: OwnedFd,
    /// Bytes that went in and not out.
    pub held: usize,
}

impl Pipe {
    /// An empty one.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub fn new() -> io::Result<Self> {
        let (exit, entry) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // A smaller one works too.
        let _ = fcntl_setpipe_size(&entry, SIZE);
        Ok(Self { exit, entry, held: 0 })
    }

    /// Takes in what a socket has; none at its end.
    ///
    /// # Errors
    /// The socket's.
    pub fn fill(&mut self, source: impl AsFd) -> io::Result<usize> {
        let taken = through(source, &self.entry)?;
        self.held += taken;
        Ok(taken)
    }

    /// Gives to a socket what it takes.
    ///
    /// # Errors
    /// The socket's.
    pub fn empty(&mut self, sink: impl AsFd) -> io::Result<usize> {
        let given = through(&self.exit, sink)?;
        self.held -= given.min(self.held);
        Ok(given)
    }

    /// Takes everything out.
    ///
    /// # Errors
    /// When the kernel has lost it.
    pub fn drain(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.held];
        let mut read = 0;
        while read < bytes.len() {
            match rustix::io::read(&self.exit, &mut bytes[read..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => read += more,
            }
        }
        self.held = 0;
        Ok(bytes)
    }
}

fn through(from: impl AsFd, to: impl AsFd) -> io::Result<usize> {
    loop {
        match splice(&from, None, &to, None, SIZE, SpliceFlags::MOVE | SpliceFlags::NONBLOCK) {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

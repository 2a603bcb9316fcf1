//! One direction of a link: read, hold as long as the faults want, write.
//!
//! The one rule: order is kept, of the bytes and of the end behind them; and while no fault touches the link, bytes go
//! from one socket to the other without being kept.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead as _, AsyncWrite as _, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::effects::Effects;
use super::lane::Lane;
use super::pipe::Pipe;

/// What is held at most while everything is late: the throughput under latency is this much in each latency.
const HELD_DELAYED: usize = 4 << 20;
/// What is held at most otherwise, so that a sender notices that its bytes do not pass.
const HELD: usize = 64 << 10;
/// Less than this at a time is better copied than sent through a pipe.
const BULK: usize = 16 << 10;
/// How often a pipe is filled before other connections have their turn.
const TURNS: usize = 16;
/// What a chunk costs besides its bytes.
const CHUNK_OVERHEAD: usize = 64;

/// One direction of a link.
#[derive(Default)]
pub struct Way {
    /// What faults do to it.
    pub effects: Effects,
    queue: VecDeque<Chunk>,
    /// The memory of the queue.
    held: usize,
    last_due_ns: u64,
    /// In use while much comes at a time and no fault touches it; the queue is empty then.
    pipe: Option<Pipe>,
    /// Whether the kernel has refused to move bytes through one.
    no_pipe: bool,
    end: Option<End>,
    /// Whether the end was passed on.
    ended: bool,
    /// Whether there is nobody to write to any more.
    sink_gone: bool,
    /// Whether the source's other half is known to be broken, so that its end is a reset.
    source_broken: bool,
}

/// Whether the kernel does not do this at all, as under some sandboxes, which says nothing of the connection.
fn is_refused(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::PermissionDenied)
}

struct Chunk {
    bytes: Box<[u8]>,
    written: usize,
    arrived_ns: u64,
    due_ns: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    Closed,
    Reset,
}

struct End {
    how: How,
    arrived_ns: u64,
    due_ns: u64,
}

/// Why a way does not go on.
#[derive(Debug, PartialEq)]
pub enum Broken {
    /// There is nobody to write to.
    Sink,
    /// The source's reset is to be passed on.
    Reset,
    /// A limit of a fault is reached.
    Spent,
}

/// What a pump works on.
pub struct Pump<'a, 'c> {
    /// The task.
    pub context: &'a mut Context<'c>,
    /// The thread.
    pub lane: &'a Lane,
    /// Counts what is written.
    pub bytes: &'a AtomicU64,
    /// When to look again, if nothing happens before.
    pub wake_ns: &'a mut u64,
}

impl Way {
    /// Whether its end was passed on, or cannot be.
    pub fn is_over(&self) -> bool {
        self.ended || self.sink_gone
    }

    /// The other way found that this one's source cannot be written to. What was sent before that is still passed on;
    /// then it is a reset.
    pub fn source_broke(&mut self, now_ns: u64) {
        self.source_broken = true;
        let ended = std::mem::take(&mut self.ended);
        match &mut self.end {
            Some(_) if ended => {
                let due_ns = self.effects.due_ns(now_ns);
                self.end = Some(End { how: How::Reset, arrived_ns: now_ns, due_ns });
            }
            Some(end) => end.how = How::Reset,
            // It is read until it has no more.
            None => {}
        }
    }

    /// Faults touch it from now on: what is in the pipe goes to the queue.
    ///
    /// # Errors
    /// When the kernel has lost it.
    pub fn leave_pipe(&mut self) -> std::io::Result<()> {
        if let Some(mut pipe) = self.pipe.take()
            && pipe.held > 0
        {
            self.hold(&pipe.drain()?, 0, 0);
        }
        Ok(())
    }

    /// Lets go what is held for longer than the faults that are left would have it.
    pub fn hasten(&mut self) {
        let latest = |arrived_ns: u64, due_ns: u64| due_ns.min(self.effects.latest_due_ns(arrived_ns));
        for chunk in &mut self.queue {
            chunk.due_ns = latest(chunk.arrived_ns, chunk.due_ns);
        }
        if let Some(end) = &mut self.end {
            end.due_ns = latest(end.arrived_ns, end.due_ns);
        }
        self.last_due_ns = self.queue.back().map_or(0, |chunk| chunk.due_ns);
    }

    /// Passes on what can be, from one socket to the other.
    ///
    /// # Errors
    /// When it cannot go on.
    pub fn pump(
        &mut self,
        source: &mut TcpStream,
        sink: &mut TcpStream,
        pump: &mut Pump<'_, '_>,
    ) -> Result<(), Broken> {
        if self.is_over() {
            return Ok(());
        }
        loop {
            self.write_due(sink, pump)?;
            if self.effects.blackhole {
                return Ok(());
            }
            if self.end.is_some() {
                return self.pass_end(sink, pump);
            }
            if self.held >= self.room() {
                return Ok(());
            }
            let read = match self.pipe {
                Some(_) => self.splice(source, sink, pump)?,
                None => self.read(source, sink, pump)?,
            };
            if read.is_pending() {
                return Ok(());
            }
        }
    }

    fn room(&self) -> usize {
        if self.effects.is_none() {
            // Nothing is read while something waits.
            1
        } else if self.effects.delays() {
            HELD_DELAYED
        } else {
            HELD
        }
    }

    fn write_due(&mut self, sink: &mut TcpStream, pump: &mut Pump<'_, '_>) -> Result<(), Broken> {
        while !self.effects.blackhole
            && let Some(chunk) = self.queue.front_mut()
        {
            let mut wanted = chunk.bytes.len() - chunk.written;
            if !self.effects.is_none() {
                let now_ns = pump.lane.now_ns();
                let allowed = match chunk.due_ns > now_ns {
                    true => Err(chunk.due_ns),
                    false => self.effects.allowance(wanted, now_ns),
                };
                match allowed {
                    Ok(allowed) => wanted = allowed,
                    Err(at_ns) => {
                        *pump.wake_ns = at_ns.min(*pump.wake_ns);
                        return Ok(());
                    }
                }
            }
            let bytes = &chunk.bytes[chunk.written..chunk.written + wanted];
            let Poll::Ready(written) = Pin::new(&mut *sink).poll_write(pump.context, bytes) else { return Ok(()) };
            let written = written.map_err(|_| self.lose_sink())?;
            let Some(chunk) = self.queue.front_mut() else { return Ok(()) };
            chunk.written += written;
            if chunk.written == chunk.bytes.len() {
                self.held -= chunk.bytes.len() + CHUNK_OVERHEAD;
                self.queue.pop_front();
            }
            pump.bytes.fetch_add(written as u64, Relaxed);
            self.effects.passed(written);
            if self.effects.is_spent() {
                return Err(Broken::Spent);
            }
        }
        Ok(())
    }

    fn lose_sink(&mut self) -> Broken {
        self.sink_gone = true;
        self.queue = VecDeque::new();
        self.held = 0;
        self.pipe = None;
        Broken::Sink
    }

    fn pass_end(&mut self, sink: &mut TcpStream, pump: &mut Pump<'_, '_>) -> Result<(), Broken> {
        let Some(end) = self.end.as_ref().filter(|_| self.queue.is_empty()) else { return Ok(()) };
        let at_ns = end.due_ns.saturating_add(self.effects.close_delay_ns);
        if at_ns > pump.lane.now_ns() {
            *pump.wake_ns = at_ns.min(*pump.wake_ns);
            return Ok(());
        }
        if end.how == How::Reset {
            return Err(Broken::Reset);
        }
        // What cannot be closed any more is closed.
        let _ = Pin::new(sink).poll_shutdown(pump.context);
        self.ended = true;
        Ok(())
    }

    /// Reads once; writes at once what no fault and nothing before it holds.
    fn read(
        &mut self,
        source: &mut TcpStream,
        sink: &mut TcpStream,
        pump: &mut Pump<'_, '_>,
    ) -> Result<Poll<()>, Broken> {
        let mut scratch = pump.lane.scratch.borrow_mut();
        let scratch_size = scratch.len();
        let mut buffer = ReadBuf::new(&mut scratch);
        let Poll::Ready(result) = Pin::new(source).poll_read(pump.context, &mut buffer) else {
            return Ok(Poll::Pending);
        };
        let bytes = buffer.filled();
        if result.is_err() || bytes.is_empty() {
            self.note_end(result.is_err(), pump.lane);
            return Ok(Poll::Ready(()));
        }
        if !self.effects.is_none() {
            let arrived_ns = pump.lane.now_ns();
            let due_ns = self.effects.due_ns(arrived_ns).max(self.last_due_ns);
            self.last_due_ns = due_ns;
            self.hold(bytes, arrived_ns, due_ns);
            return Ok(Poll::Ready(()));
        }
        if bytes.len() == scratch_size && !self.no_pipe {
            // Without one it is copied on.
            self.pipe = Pipe::new().ok();
        }
        let mut written = 0;
        while written < bytes.len() {
            let Poll::Ready(more) = Pin::new(&mut *sink).poll_write(pump.context, &bytes[written..]) else { break };
            written += more.map_err(|_| self.lose_sink())?;
        }
        pump.bytes.fetch_add(written as u64, Relaxed);
        if written < bytes.len() {
            self.hold(&bytes[written..], 0, 0);
        }
        Ok(Poll::Ready(()))
    }

    /// Passes on through the pipe, until there is nothing, or not much, at a time.
    fn splice(&mut self, source: &TcpStream, sink: &TcpStream, pump: &mut Pump<'_, '_>) -> Result<Poll<()>, Broken> {
        for _ in 0..TURNS {
            let Some(pipe) = &mut self.pipe else { return Ok(Poll::Ready(())) };
            while pipe.held > 0 {
                let Poll::Ready(ready) = sink.poll_write_ready(pump.context) else { return Ok(Poll::Pending) };
                let given = ready.and_then(|()| sink.try_io(Interest::WRITABLE, || pipe.empty(sink)));
                match given {
                    Ok(given) => pump.bytes.fetch_add(given as u64, Relaxed),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(error) if is_refused(&error) => {
                        self.no_pipe = true;
                        self.leave_pipe().map_err(|_| Broken::Reset)?;
                        return Ok(Poll::Ready(()));
                    }
                    Err(_) => return Err(self.lose_sink()),
                };
            }
            let Poll::Ready(ready) = source.poll_read_ready(pump.context) else { return Ok(Poll::Pending) };
            let taken = ready.and_then(|()| source.try_io(Interest::READABLE, || pipe.fill(source)));
            match taken {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(taken) if taken >= BULK => {}
                Ok(taken) if taken > 0 => {
                    // The queue passes it on, and copying goes on.
                    self.leave_pipe().map_err(|_| Broken::Reset)?;
                    return Ok(Poll::Ready(()));
                }
                Err(error) if is_refused(&error) => {
                    // Nothing was taken: it is copied on.
                    self.no_pipe = true;
                    self.pipe = None;
                    return Ok(Poll::Ready(()));
                }
                ended => {
                    self.pipe = None;
                    self.note_end(ended.is_err(), pump.lane);
                    return Ok(Poll::Ready(()));
                }
            }
        }
        pump.context.waker().wake_by_ref();
        Ok(Poll::Pending)
    }

    fn note_end(&mut self, is_reset: bool, lane: &Lane) {
        let how = if is_reset || self.source_broken { How::Reset } else { How::Closed };
        let arrived_ns = lane.now_ns();
        let due_ns = self.effects.due_ns(arrived_ns).max(self.last_due_ns);
        self.end = Some(End { how, arrived_ns, due_ns });
    }

    fn hold(&mut self, bytes: &[u8], arrived_ns: u64, due_ns: u64) {
        self.held += bytes.len() + CHUNK_OVERHEAD;
        self.queue.push_back(Chunk { bytes: bytes.into(), written: 0, arrived_ns, due_ns });
    }
}

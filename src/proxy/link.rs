//! A connection of a client and the one that passes it on, as one task.
//!
//! The one rule: before anything passes, the task looks whether the faults have changed.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use super::alarm::Wait;
use super::effects::{Effects, LinkId};
use super::faults::Active;
use super::lane::Lane;
use super::way::{Broken, Pump, Way};
use super::{Direction, LinkKind};

/// How long a closed connection is read on, so that what was passed before is not lost to a reset.
const LINGER_NS: u64 = 1_000_000_000;

/// What a link is told by the end of its task.
#[derive(Debug, PartialEq)]
enum Over {
    /// Both ways have ended.
    Closed,
    /// Both ends are reset.
    Reset,
    /// Both ends are closed, whatever they have to say.
    Cut,
}

struct Link<'l> {
    lane: &'l Lane,
    id: LinkId,
    accepted_ns: u64,
    client: TcpStream,
    server: TcpStream,
    up: Way,
    down: Way,
    /// The version of the faults that it obeys; none before the first look.
    version: Option<u64>,
    /// The last fault that it has considered.
    considered: u64,
    reset_at_ns: u64,
    wait: Wait,
}

/// Carries a link to its end.
pub async fn carry(lane: &Rc<Lane>, client: TcpStream, server: TcpStream, number: u64, accepted_ns: u64) {
    let mut link = Link {
        lane,
        id: LinkId { seed: lane.shared.seed, number },
        accepted_ns,
        client,
        server,
        up: Way::default(),
        down: Way::default(),
        version: None,
        considered: 0,
        reset_at_ns: u64::MAX,
        wait: lane.alarm.wait(),
    };
    let over = poll_fn(|context| link.poll(context)).await;
    match over {
        Over::Closed => {}
        Over::Reset => reset(&[&link.client, &link.server]),
        Over::Cut => link.cut().await,
    }
}

/// Resets a client that cannot be passed on; not before it may learn anything.
pub async fn refuse(lane: &Rc<Lane>, client: &TcpStream, number: u64) {
    let id = LinkId { seed: lane.shared.seed, number };
    poll_fn(|context| {
        lane.remember(number, context.waker());
        match effects(&touching(lane, id), id, Direction::Down).blackhole {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    })
    .await;
    reset(&[client]);
}

/// Closing them from now on is a reset.
pub fn reset(streams: &[&TcpStream]) {
    for stream in streams {
        // One that is gone already has nobody to tell.
        let _ = stream.set_zero_linger();
    }
}

fn touching(lane: &Lane, id: LinkId) -> Vec<std::sync::Arc<Active>> {
    lane.set().iter().filter(|active| active.touches(id.seed, id.number)).cloned().collect()
}

fn effects(faults: &[std::sync::Arc<Active>], id: LinkId, way: Direction) -> Effects {
    Effects::of(id, way, faults, Effects::default())
}

impl Link<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Over> {
        if self.version != Some(self.lane.version()) {
            self.obey(context);
        }
        let mut wake_ns = self.reset_at_ns;
        if wake_ns != u64::MAX && wake_ns <= self.lane.now_ns() {
            return Poll::Ready(Over::Reset);
        }
        if let Some(over) = self.pump(context, &mut wake_ns) {
            return Poll::Ready(over);
        }
        match wake_ns {
            u64::MAX => self.wait.clear(),
            at_ns => self.wait.wake_at(at_ns, context.waker()),
        }
        Poll::Pending
    }

    /// Takes over the faults as they are now.
    fn obey(&mut self, context: &Context<'_>) {
        if self.version.is_none() {
            self.lane.remember(self.id.number, context.waker());
        }
        self.version = Some(self.lane.version());
        let faults = touching(self.lane, self.id);
        for active in &faults {
            // The others are counted where they act.
            let acts_here = !active.fault.is_http() && !matches!(active.fault.kind, LinkKind::FailFirst { .. });
            if active.id > self.considered && acts_here {
                active.count();
            }
        }
        self.considered = self.lane.set().last().map_or(self.considered, |active| active.id.max(self.considered));
        for (way, direction) in [(&mut self.up, Direction::Up), (&mut self.down, Direction::Down)] {
            way.effects = Effects::of(self.id, direction, &faults, std::mem::take(&mut way.effects));
            way.hasten();
            if !way.effects.is_none() && way.leave_pipe().is_err() {
                // Bytes that are lost cannot be passed over in silence.
                self.reset_at_ns = 0;
                return;
            }
        }
        let resets = faults.iter().filter_map(|active| match active.fault.kind {
            LinkKind::Reset { after } => {
                Some(active.since_ns.max(self.accepted_ns).saturating_add(after.as_nanos() as u64))
            }
            _ => None,
        });
        self.reset_at_ns = resets.min().unwrap_or(u64::MAX);
    }

    fn pump(&mut self, context: &mut Context<'_>, wake_ns: &mut u64) -> Option<Over> {
        let Self { lane, client, server, up, down, .. } = self;
        let counters = &lane.shared.counters;
        loop {
            // Towards the client first: what the server sent before it broke is passed on.
            let mut pump = Pump { context, lane, bytes: &counters.bytes_down, wake_ns };
            let downwards = down.pump(server, client, &mut pump);
            let mut pump = Pump { context, lane, bytes: &counters.bytes_up, wake_ns };
            let upwards = up.pump(client, server, &mut pump);
            for broken in [&downwards, &upwards].into_iter().filter_map(|result| result.as_ref().err()) {
                match broken {
                    Broken::Reset => return Some(Over::Reset),
                    Broken::Spent => return Some(Over::Cut),
                    Broken::Sink => {}
                }
            }
            if downwards.is_err() {
                up.source_broke(lane.now_ns());
            }
            if upwards.is_err() {
                down.source_broke(lane.now_ns());
            }
            if downwards.is_ok() && upwards.is_ok() {
                return (up.is_over() && down.is_over()).then_some(Over::Closed);
            }
        }
    }

    /// Closes both ends, and reads on for a while: closing a socket with something unread would be a reset.
    async fn cut(mut self) {
        let until_ns = self.lane.now_ns().saturating_add(LINGER_NS);
        let mut open = [true, true];
        poll_fn(|context| {
            for (stream, open) in [&mut self.client, &mut self.server].into_iter().zip(&mut open) {
                let _ = std::pin::Pin::new(&mut *stream).poll_shutdown(context);
                *open = *open && discard(stream, context, self.lane);
            }
            if open == [false, false] || self.lane.now_ns() >= until_ns {
                return Poll::Ready(());
            }
            self.wait.wake_at(until_ns, context.waker());
            Poll::Pending
        })
        .await;
    }
}

/// Reads what there is; says whether more may come.
fn discard(stream: &mut TcpStream, context: &mut Context<'_>, lane: &Lane) -> bool {
    let mut scratch = lane.scratch.borrow_mut();
    loop {
        let mut buffer = ReadBuf::new(&mut scratch);
        match std::pin::Pin::new(&mut *stream).poll_read(context, &mut buffer) {
            Poll::Pending => return true,
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
            Poll::Ready(_) => return false,
        }
    }
}

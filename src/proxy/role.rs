//! The role `proxy`: accepts connections, deals them out to its threads, and tells what it counts.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use kit::Env;
use kit::role::BoxFuture;
use rustix::net::SocketFlags;
use serde::Deserialize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{self, UnboundedSender};

use super::LinkFault;
use super::admin::Admin;
use super::faults::{Faults, Refused};
use super::lane::{self, Accepted, Counters, Order, Shared};

const SECOND_NS: u64 = 1_000_000_000;

/// The settings of the role. It finds the server under the peer name `upstream`; of several, each connection takes the
/// next.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxySettings {
    /// Whether it reads requests, for `error-rate` and `slow`, instead of passing bytes, for the others.
    pub http: bool,
    /// Faults that are active from the start.
    pub faults: Vec<LinkFault>,
}

pub(super) fn run(env: Env) -> BoxFuture<anyhow::Result<()>> {
    Box::pin(serve(env))
}

async fn serve(mut env: Env) -> anyhow::Result<()> {
    let settings: ProxySettings = env.config.settings()?;
    let listener = env.listener();
    let upstreams = resolve(env.config.peers("upstream")?, listener.local_addr()?).await?;
    let counters = Arc::new(Counters::default());
    let shared =
        Shared { clock: env.clock.clone(), seed: env.config.seed, http: settings.http, counters: counters.clone() };
    let (lanes, threads) = start_lanes(&env, &shared)?;
    let faults = Faults::new(env.clock.clone(), settings.http, lanes.clone());
    let admin = Arc::new(Admin { faults, counters, accepted: AtomicU64::new(0) });
    for fault in settings.faults {
        admin.faults.add(fault).map_err(|(Refused::Wrong(why) | Refused::Unknown(why) | Refused::Stuck(why))| {
            anyhow::anyhow!("settings of role proxy: {why}")
        })?;
    }
    let asked = admin.clone();
    env.extension.handle(move |request| asked.answer(request));
    listener.set_nonblocking(true)?;
    // SAFETY: a listener is the same open descriptor as long as it lives, and AsyncFd owns it until it has
    // deregistered it.
    let listener = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) }?;
    env.ready();
    let mut tick_ns = env.clock.now_ns();
    loop {
        tokio::select! {
            biased;
            () = env.shutdown.requested() => break,
            accepted = accept(&listener) => match accepted {
                Ok(client) => {
                    if !deal(&env, &admin, client, &upstreams, &lanes) {
                        break;
                    }
                }
                // Out of file descriptors, or a client that left before it was accepted: wait and go on.
                Err(error) => {
                    eprintln!("accept: {error}");
                    env.clock.sleep(Duration::from_millis(50)).await;
                }
            },
            () = env.clock.sleep_until(tick_ns) => {
                tell(&env, &admin);
                tick_ns += SECOND_NS;
            }
        }
    }
    tell(&env, &admin);
    drop(listener);
    // The admin endpoint still answers; the threads end because they are told to.
    lanes.iter().for_each(|lane| drop(lane.send(Order::End)));
    tokio::task::spawn_blocking(move || join(threads)).await?
}

async fn accept(listener: &AsyncFd<std::net::TcpListener>) -> std::io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    listener.async_io(Interest::READABLE, |listener| Ok(rustix::net::accept_with(listener, flags)?)).await
}

/// Gives a connection to a thread, unless it is one of the first that fail. Says whether the thread is there.
fn deal(env: &Env, admin: &Admin, client: OwnedFd, upstreams: &[SocketAddr], lanes: &[UnboundedSender<Order>]) -> bool {
    let number = admin.accepted.fetch_add(1, Relaxed) + 1;
    if admin.faults.fails_first() {
        // Closing it now is a reset.
        let _ = rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO));
        return true;
    }
    let upstream = upstreams[(number - 1) as usize % upstreams.len()];
    let accepted = Accepted { client, upstream, number, at_ns: env.clock.now_ns() };
    lanes[number as usize % lanes.len()].send(Order::Open(accepted)).is_ok()
}

fn tell(env: &Env, admin: &Admin) {
    let now_ns = env.clock.now_ns();
    let push = |name: &str, value: u64| env.series.push(now_ns, name, Some(value as f64));
    push("connections", admin.counters.open.load(Relaxed));
    push("accepted", admin.accepted.load(Relaxed));
    push("refused", admin.counters.refused.load(Relaxed));
    push("bytes_up", admin.counters.bytes_up.load(Relaxed));
    push("bytes_down", admin.counters.bytes_down.load(Relaxed));
    let faults = admin.faults.current();
    push("faults", faults.len() as u64);
    for active in &*faults {
        push(&format!("touched_{}", active.id), active.touched());
    }
}

async fn resolve(addresses: &[String], own: SocketAddr) -> anyhow::Result<Vec<SocketAddr>> {
    let mut found = Vec::new();
    for address in addresses {
        let first = match tokio::net::lookup_host(address).await {
            Ok(mut all) => all.next(),
            Err(error) => anyhow::bail!("upstream {address:?} is not known: {error}; write HOST:PORT of a server"),
        };
        let first = first.with_context(|| format!("upstream {address:?} has no address"))?;
        anyhow::ensure!(first != own, "upstream {address} is the proxy itself; write the server's address");
        found.push(first);
    }
    Ok(found)
}

type Threads = Vec<thread::JoinHandle<anyhow::Result<()>>>;

fn start_lanes(env: &Env, shared: &Shared) -> anyhow::Result<(Vec<UnboundedSender<Order>>, Threads)> {
    let (mut lanes, mut threads) = (Vec::new(), Vec::new());
    for number in 0..env.cpus.max(1) {
        let (lane, orders) = mpsc::unbounded_channel();
        let shared = shared.clone();
        let thread = thread::Builder::new()
            .name(env.thread_name(&format!("link{number}")))
            .spawn(move || lane::run(shared, orders))
            .context("starting a thread for connections")?;
        lanes.push(lane);
        threads.push(thread);
    }
    Ok((lanes, threads))
}

fn join(threads: Threads) -> anyhow::Result<()> {
    for thread in threads {
        match thread.join() {
            Ok(result) => result?,
            Err(_) => anyhow::bail!("a thread of the proxy panicked; its log says where"),
        }
    }
    Ok(())
}

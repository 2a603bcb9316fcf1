//! Replicas on threads of the lab's own process: for tests, lessons and quick looks.
//!
//! CPU time is attributed by thread name; memory cannot be told apart.

use std::collections::BTreeMap;
use std::io::Write as _;

use anyhow::Context as _;
use kit::usage::{self, Usage};
use kit::{Clock, host};

use super::{AdminClient, Deployment, Launch, Replica, pinning};
use crate::error::surroundings;

/// The deployment.
pub struct InProcess;

struct Threads {
    name: String,
    hosted: host::Hosted,
    admin: AdminClient,
    /// CPU seconds by thread, kept after a thread has ended.
    cpu_s: BTreeMap<u32, f64>,
}

const LOG: &[u8] = b"this role ran on threads of the lab; its messages went to the lab's standard error\n";

impl Deployment for InProcess {
    fn launch(&self, launch: &Launch<'_>) -> anyhow::Result<Box<dyn Replica>> {
        let name = format!("{} {}", launch.role.name, launch.config.replica);
        let started = pinning::pinned(launch.cpus, || host::start(launch.role, launch.config.clone(), Clock::real()))?;
        let mut hosted = started.map_err(|error| surroundings(format!("role {name} did not start: {error:#}")))?;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(launch.log);
        log.and_then(|mut log| log.write_all(LOG)).with_context(|| format!("writing {}", launch.log.display()))?;
        let clock = Clock::real();
        let deadline_ns = clock.now_ns() + launch.ready_within.as_nanos() as u64;
        while !hosted.has_ended() {
            match hosted.wait_until_started_for(std::time::Duration::from_millis(100)) {
                Some(true) => {
                    let admin = AdminClient::Direct(Box::new(hosted.admin.clone()));
                    return Ok(Box::new(Threads { name, hosted, admin, cpu_s: BTreeMap::new() }));
                }
                Some(false) => break,
                None if (launch.interrupted)() => break,
                None if clock.now_ns() > deadline_ns => {
                    let waited_s = launch.ready_within.as_secs();
                    return Err(surroundings(format!("role {name} was not ready within {waited_s} s")));
                }
                None => {}
            }
        }
        if (launch.interrupted)() {
            return Err(surroundings("interrupted"));
        }
        let reason = hosted.join().err().map_or_else(|| "it ended at once".to_owned(), |error| format!("{error:#}"));
        Err(surroundings(format!("role {name} did not start: {reason}")))
    }
}

impl Replica for Threads {
    fn addr(&self) -> String {
        self.hosted.addr.to_string()
    }

    fn admin(&self) -> &AdminClient {
        &self.admin
    }

    fn usage(&mut self) -> Usage {
        for (thread, cpu_s) in usage::of_threads(&self.hosted.thread_prefix) {
            self.cpu_s.insert(thread, cpu_s);
        }
        let cpu_s = (!self.cpu_s.is_empty()).then(|| self.cpu_s.values().sum());
        Usage { cpu_s, ..Usage::default() }
    }

    fn no_memory(&self) -> Option<&'static str> {
        Some("it shares the lab's process")
    }

    fn ended(&mut self) -> Option<String> {
        if !self.hosted.has_ended() {
            return None;
        }
        let reason =
            self.hosted.join().err().map_or_else(|| "ended by itself".to_owned(), |error| format!("{error:#}"));
        Some(format!("role {}: {reason}", self.name))
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        self.hosted.request_stop();
        self.hosted.join().with_context(|| format!("role {} ended with an error when it was stopped", self.name))
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        self.hosted.kill();
        Ok(())
    }

    fn pause(&mut self) -> anyhow::Result<()> {
        self.hosted.hold().with_context(|| format!("holding role {}", self.name))
    }

    fn resume(&mut self) -> anyhow::Result<()> {
        self.hosted.let_go();
        Ok(())
    }

    fn pid(&self) -> Option<u32> {
        None
    }
}

//! Deployments: where the replicas of a system run.
//!
//! A deployment starts a replica and hands back a [`Replica`]; everything else (readiness, clocks, start, operations)
//! goes through the replica's admin endpoint and is the same everywhere. No system's name appears here.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use kit::admin::{ClockReading, Health, Start};
use kit::usage::Usage;
use kit::{Role, RoleConfig};

mod collect;
mod history;
pub mod in_process;
pub mod pinning;
pub mod processes;
pub mod running;
mod simulated;
mod start;
pub mod trial;

/// Starts replicas somewhere.
pub trait Deployment: Sync {
    /// Starts one replica and waits until it is ready.
    ///
    /// # Errors
    /// Why it did not come up, as surroundings.
    fn launch(&self, launch: &Launch<'_>) -> anyhow::Result<Box<dyn Replica>>;
}

/// One replica to start.
pub struct Launch<'a> {
    /// The system it belongs to, as `serve` knows it.
    pub system: &'a str,
    /// The role.
    pub role: Role,
    /// What it is told.
    pub config: RoleConfig,
    /// The CPUs it may use; all when none.
    pub cpus: Option<&'a [usize]>,
    /// Where its log goes, after what is there.
    pub log: &'a Path,
    /// How long it may take until it is ready.
    pub ready_within: Duration,
    /// Whether the run was interrupted while waiting.
    pub interrupted: &'a dyn Fn() -> bool,
}

/// A replica that runs. Dropped, it is ended without waiting for its work.
pub trait Replica: Send {
    /// Where it serves, `host:port`.
    fn addr(&self) -> String;
    /// Its admin endpoint.
    fn admin(&self) -> &AdminClient;
    /// What it uses; none where that cannot be known.
    fn usage(&mut self) -> Usage;
    /// Why its memory cannot be known, where that is so.
    fn no_memory(&self) -> Option<&'static str>;
    /// Why it has ended, when it has ended by itself.
    fn ended(&mut self) -> Option<String>;
    /// Asks it to finish what it has begun, and waits, up to the hard deadline.
    ///
    /// # Errors
    /// When it had to be killed, or ended with an error.
    fn stop(&mut self) -> anyhow::Result<()>;
    /// Ends it at once, without a word.
    ///
    /// # Errors
    /// When it cannot be.
    fn kill(&mut self) -> anyhow::Result<()> {
        anyhow::bail!("this replica cannot be killed")
    }
    /// Holds everything that it does, until [`Replica::resume`].
    ///
    /// # Errors
    /// When it cannot be held.
    fn pause(&mut self) -> anyhow::Result<()> {
        anyhow::bail!("this replica cannot be paused")
    }
    /// Lets it go on.
    ///
    /// # Errors
    /// When it is not there any more.
    fn resume(&mut self) -> anyhow::Result<()> {
        anyhow::bail!("this replica cannot be paused")
    }
    /// Its process, where it has one of its own.
    fn pid(&self) -> Option<u32>;
}

/// The admin endpoint of a replica: functions in this process, or HTTP. Cheap to clone.
#[derive(Clone)]
pub enum AdminClient {
    /// A role on threads of this process.
    Direct(Box<kit::admin::Admin>),
    /// A role elsewhere.
    Http {
        /// `http://host:port`.
        base: String,
        /// The run's token.
        token: String,
        /// Keeps the connection.
        agent: ureq::Agent,
    },
}

/// How long a role may take to answer where the lab does not wait for it.
const SOON: Duration = Duration::from_secs(1);

impl AdminClient {
    /// An endpoint over HTTP.
    pub fn http(addr: &str, token: &str) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10))).build();
        Self::Http { base: format!("http://{addr}"), token: token.to_owned(), agent: config.into() }
    }

    fn get(&self, path: &str) -> anyhow::Result<String> {
        // Once more, because a kept connection may have gone stale; reading changes nothing.
        self.get_once(path, None).or_else(|_| self.get_once(path, None))
    }

    /// As [`AdminClient::get`], but not again, and with a time of its own where one is given.
    fn get_once(&self, path: &str, within: Option<Duration>) -> anyhow::Result<String> {
        let Self::Http { base, token, agent } = self else { anyhow::bail!("no HTTP here") };
        let request = agent.get(format!("{base}{path}")).header("authorization", format!("Bearer {token}"));
        let answer = match within {
            None => request.call(),
            Some(within) => request.config().timeout_global(Some(within)).build().call(),
        };
        let mut answer = answer.with_context(|| format!("asking {base}{path}"))?;
        answer.body_mut().with_config().limit(1 << 30).read_to_string().with_context(|| format!("reading {base}{path}"))
    }

    fn post(&self, path: &str, body: &str) -> anyhow::Result<()> {
        let Self::Http { base, token, agent } = self else { anyhow::bail!("no HTTP here") };
        agent
            .post(format!("{base}{path}"))
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .send(body)
            .with_context(|| format!("telling {base}{path}"))?;
        Ok(())
    }

    /// Asks what only this role understands; gives back its answer.
    ///
    /// # Errors
    /// When it does not answer, or refuses, with its reason.
    pub fn extension(&self, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
        let (status, answer) = match self {
            Self::Direct(admin) => {
                let answer = admin.extension.call(kit::extension::Request { method, path, body });
                (answer.status, answer.body)
            }
            Self::Http { base, token, agent } => {
                let request = http::Request::builder()
                    .method(method)
                    .uri(format!("{base}{path}"))
                    .header("authorization", format!("Bearer {token}"))
                    .body(body.to_owned())?;
                let request = agent.configure_request(request).http_status_as_error(false).build();
                let mut answer = agent.run(request).with_context(|| format!("asking {base}{path}"))?;
                (answer.status().as_u16(), answer.body_mut().read_to_string()?)
            }
        };
        anyhow::ensure!((200..300).contains(&status), "{method} {path}: {}", answer.trim());
        Ok(answer)
    }

    /// The history after a sequence number, newline-delimited.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn history(&self, after: u64) -> anyhow::Result<String> {
        match self {
            Self::Direct(admin) => Ok(admin.history(after)),
            Self::Http { .. } => self.get(&format!("/history?after={after}")),
        }
    }

    /// How the role is.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn health(&self) -> anyhow::Result<Health> {
        match self {
            Self::Direct(admin) => Ok(admin.health()),
            Self::Http { .. } => Ok(serde_json::from_str(&self.get("/healthz")?)?),
        }
    }

    /// Whether the role says, and soon, that it can do its work.
    pub fn is_ready(&self) -> bool {
        match self {
            Self::Direct(admin) => admin.status.phase() == kit::role::Phase::Ready,
            Self::Http { .. } => self.get_once("/readyz", Some(SOON)).is_ok(),
        }
    }

    /// The role's clocks.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn clock(&self) -> anyhow::Result<ClockReading> {
        match self {
            Self::Direct(admin) => Ok(admin.clock()),
            Self::Http { .. } => Ok(serde_json::from_str(&self.get("/clock")?)?),
        }
    }

    /// Starts a generator, at a time of its own clock.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn start(&self, at_ns: u64) -> anyhow::Result<()> {
        match self {
            Self::Direct(admin) => {
                admin.control.start(at_ns);
                Ok(())
            }
            Self::Http { .. } => self.post("/start", &serde_json::to_string(&Start { at_ns })?),
        }
    }

    /// Stops a generator.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn stop(&self) -> anyhow::Result<()> {
        match self {
            Self::Direct(admin) => {
                admin.control.stop();
                Ok(())
            }
            Self::Http { .. } => self.post("/stop", "{}"),
        }
    }

    /// Operations after a sequence number, newline-delimited.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn ops(&self, after: u64) -> anyhow::Result<String> {
        match self {
            Self::Direct(admin) => Ok(admin.ops(after)),
            Self::Http { .. } => self.get(&format!("/ops?after={after}")),
        }
    }

    /// Gauges after a sequence number, newline-delimited.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn series(&self, after: u64) -> anyhow::Result<String> {
        match self {
            Self::Direct(admin) => Ok(admin.series(after)),
            Self::Http { .. } => self.get(&format!("/series?after={after}")),
        }
    }

    /// As [`AdminClient::series`], from a role that must not keep the lab waiting.
    ///
    /// # Errors
    /// When it does not answer soon.
    pub fn series_now(&self, after: u64) -> anyhow::Result<String> {
        match self {
            Self::Direct(admin) => Ok(admin.series(after)),
            Self::Http { .. } => self.get_once(&format!("/series?after={after}"), Some(SOON)),
        }
    }

    /// The journal after a sequence number, newline-delimited.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn journal(&self, after: u64) -> anyhow::Result<String> {
        match self {
            Self::Direct(admin) => Ok(admin.journal(after)),
            Self::Http { .. } => self.get(&format!("/journal?after={after}")),
        }
    }
}

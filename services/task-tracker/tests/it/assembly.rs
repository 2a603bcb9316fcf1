//! The two assemblies, hosted on threads of the test.

use std::net::SocketAddr;

use kit::host::{self, Hosted};
use kit::{Clock, RoleConfig};
use serde_json::{Value, json};
use task_tracker::ROLES;

use crate::client::send;

/// Running roles and the address that clients use. Dropped, they end.
pub struct Assembly {
    pub name: String,
    pub addr: SocketAddr,
    /// What the role at the address promises.
    pub document: Value,
    pub roles: Vec<Hosted>,
}

/// Where a database's URL comes from, by the database's name.
pub type Url<'a> = &'a dyn Fn(&str) -> String;

pub fn monolith(name: &str, url: Url) -> Assembly {
    let role = start(config("monolith", Some(url("monolith"))));
    Assembly { name: format!("monolith on {name}"), addr: role.addr, document: document(&role), roles: vec![role] }
}

/// A gateway and its services; the tasks have two replicas, which start at once on one database.
pub fn microservices(name: &str, url: Url) -> Assembly {
    let tasks = [1, 2].map(|replica| begin(RoleConfig { replica, ..config("task-service", Some(url("tasks"))) }));
    let tasks = tasks.map(started);
    let users = start(config("user-service", Some(url("users"))));
    let stats = start(with_peers(config("stats-service", None), &[("task-service", &addrs(&tasks))]));
    let peers = [
        ("user-service", vec![users.addr.to_string()]),
        ("task-service", addrs(&tasks)),
        ("stats-service", vec![stats.addr.to_string()]),
    ];
    let peers: Vec<_> = peers.iter().map(|(name, addrs)| (*name, addrs.as_slice())).collect();
    let gateway = start(with_peers(config("gateway", None), &peers));
    let assembly = Assembly {
        name: format!("microservices on {name}"),
        addr: gateway.addr,
        document: document(&gateway),
        roles: [gateway, users, stats].into_iter().chain(tasks).collect(),
    };
    until("the gateway is ready", || send(assembly.addr, "GET", "/readyz", &[], "").is_ok_and(|a| a.status == 200));
    assembly
}

fn document(role: &Hosted) -> Value {
    send(role.addr, "GET", "/openapi.json", &[], "").unwrap().body
}

/// A configuration that is quick to log in with.
pub fn config(role: &str, database_url: Option<String>) -> RoleConfig {
    let mut config = RoleConfig::new(role);
    config.seed = 7;
    config.settings = json!({ "argon2": "minimum" });
    config.secrets.insert("jwt_key".into(), "a key for tests".into());
    config.secrets.extend(database_url.map(|url| ("database_url".to_owned(), url)));
    config
}

pub fn with_peers(mut config: RoleConfig, peers: &[(&str, &[String])]) -> RoleConfig {
    config.peers = peers.iter().map(|(name, addrs)| ((*name).to_owned(), addrs.to_vec())).collect();
    config
}

pub fn with_settings(mut config: RoleConfig, settings: Value) -> RoleConfig {
    config.settings = settings;
    config
}

/// Starts a role and waits until it is ready.
pub fn start(config: RoleConfig) -> Hosted {
    started(begin(config))
}

/// Starts a role without waiting.
pub fn begin(config: RoleConfig) -> Hosted {
    let role = *ROLES.iter().find(|role| role.name == config.role).expect("a role of the table");
    host::start(role, config, Clock::real()).unwrap()
}

fn started(mut role: Hosted) -> Hosted {
    if !role.wait_until_started() {
        panic!("a role ended at its start: {:?}", role.join());
    }
    role
}

fn addrs(roles: &[Hosted]) -> Vec<String> {
    roles.iter().map(|role| role.addr.to_string()).collect()
}

/// Waits for a condition, at most ten seconds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let clock = Clock::real();
    let deadline_ns = clock.now_ns() + 10_000_000_000;
    while !condition() {
        assert!(clock.now_ns() < deadline_ns, "waited 10 s in vain until {what}");
        std::thread::yield_now();
    }
}

/// The value of a counter in a role's metrics.
pub fn counter(role: &Hosted, name: &str) -> u64 {
    let text = role.admin.metrics();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in\n{text}"))
}

impl Drop for Assembly {
    fn drop(&mut self) {
        self.roles.iter().for_each(Hosted::request_stop);
        for role in &mut self.roles {
            let ended = role.join();
            assert!(ended.is_ok() || std::thread::panicking(), "{}: {ended:?}", self.name);
        }
    }
}

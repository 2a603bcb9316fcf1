//! What a role is told when it starts: one JSON object, on one line of standard input or in a file.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The configuration of one replica of one role. Holds secrets: never in argv, environment, archive or log.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleConfig {
    /// The run this replica belongs to; part of every name it makes.
    #[serde(default)]
    pub run: String,
    /// The role's name, as in the system's table.
    pub role: String,
    /// Which replica this is, from 1.
    #[serde(default = "first")]
    pub replica: u32,
    /// Where every random decision of this replica starts.
    #[serde(default)]
    pub seed: u64,
    /// Where the role listens; port 0 is any.
    #[serde(default = "any_loopback_port")]
    pub bind: SocketAddr,
    /// Where the admin endpoint listens; port 0 is any.
    #[serde(default = "any_loopback_port")]
    pub admin_bind: SocketAddr,
    /// The bearer token the admin endpoint asks for; empty asks for none.
    #[serde(default)]
    pub admin_token: String,
    /// Addresses (`host:port`) of the replicas of the roles this one talks to.
    #[serde(default)]
    pub peers: BTreeMap<String, Vec<String>>,
    /// The role's own settings, which it checks itself.
    #[serde(default)]
    pub settings: serde_json::Value,
    /// Keys and passwords.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
}

impl RoleConfig {
    /// A configuration with nothing but the role's name: any loopback port, no peers, no settings.
    pub fn new(role: &str) -> Self {
        Self {
            run: String::new(),
            role: role.to_owned(),
            replica: 1,
            seed: 0,
            bind: any_loopback_port(),
            admin_bind: any_loopback_port(),
            admin_token: String::new(),
            peers: BTreeMap::new(),
            settings: serde_json::Value::Null,
            secrets: BTreeMap::new(),
        }
    }

    /// The settings as the role's own type.
    ///
    /// # Errors
    /// When a key is unknown or a value has the wrong type; the message names the role.
    pub fn settings<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        let settings = match &self.settings {
            serde_json::Value::Null => serde_json::Value::Object(serde_json::Map::new()),
            settings => settings.clone(),
        };
        serde_json::from_value(settings).map_err(|error| anyhow::anyhow!("settings of role {}: {error}", self.role))
    }

    /// The addresses of a peer role.
    ///
    /// # Errors
    /// When there is none.
    pub fn peers(&self, role: &str) -> anyhow::Result<&[String]> {
        match self.peers.get(role) {
            Some(peers) if !peers.is_empty() => Ok(peers),
            _ => anyhow::bail!("role {} was given no address of its peer {role}", self.role),
        }
    }

    /// A secret by name.
    ///
    /// # Errors
    /// When it was not given.
    pub fn secret(&self, name: &str) -> anyhow::Result<&str> {
        match self.secrets.get(name) {
            Some(secret) => Ok(secret),
            None => anyhow::bail!("role {} was given no secret {name:?}", self.role),
        }
    }
}

fn first() -> u32 {
    1
}

/// Loopback, any port.
pub fn any_loopback_port() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}

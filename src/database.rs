//! Fresh databases for a trial: SQLite files in a scratch folder, or databases on a Postgres server, dropped afterwards.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Executor};

use crate::error::surroundings;
use crate::faults::journal::Intent;

/// Where databases are made.
#[derive(Clone)]
pub enum Server {
    /// One file each.
    Sqlite,
    /// One database each on this server; the URL may hold a password.
    Postgres(String),
}

/// The environment variable that names a Postgres server.
pub const POSTGRES_URL: &str = "SCALELAB_POSTGRES_URL";

/// Databases that are dropped with this.
#[must_use = "dropped, it drops the databases"]
pub struct Databases {
    urls: BTreeMap<String, String>,
    /// The server and the names to drop there.
    on_server: Option<(String, Vec<String>)>,
}

impl Server {
    /// The server of a backend. `given` is a URL from a flag.
    ///
    /// # Errors
    /// When Postgres is asked for and nobody said where it is, as surroundings.
    pub fn find(backend: &str, given: Option<&str>) -> anyhow::Result<Self> {
        if backend != "postgres" {
            return Ok(Self::Sqlite);
        }
        let url = given.map(str::to_owned).or_else(|| std::env::var(POSTGRES_URL).ok());
        url.map(Self::Postgres).ok_or_else(|| {
            surroundings(format!(
                "where is Postgres? give --database postgres://USER:PASSWORD@HOST/postgres or set {POSTGRES_URL}"
            ))
        })
    }

    /// What making databases will have to undo: to be written down before [`Server::make`].
    pub fn intents(&self, names: &[&str], unique: &str) -> Vec<Intent> {
        let Self::Postgres(server) = self else { return Vec::new() };
        let server_host = host(server).unwrap_or_default();
        let of = |name: &&str| Intent::Database { server_host: server_host.clone(), name: database_name(unique, name) };
        names.iter().map(of).collect()
    }

    /// Makes one database for each name.
    ///
    /// # Errors
    /// When the server refuses, as surroundings; passwords are left out.
    pub fn make(&self, names: &[&str], scratch: &Path, unique: &str) -> anyhow::Result<Databases> {
        match self {
            Self::Sqlite => {
                let url = |name: &str| format!("sqlite:{}", scratch.join(format!("{name}.db")).display());
                let urls = names.iter().map(|name| ((*name).to_owned(), url(name))).collect();
                Ok(Databases { urls, on_server: None })
            }
            Self::Postgres(server) => {
                let mut databases = Databases { urls: BTreeMap::new(), on_server: Some((server.clone(), Vec::new())) };
                for name in names {
                    let database = database_name(unique, name);
                    command(server, &format!("CREATE DATABASE {database}"))?;
                    databases.urls.insert((*name).to_owned(), with_database(server, &database)?);
                    if let Some((_, made)) = &mut databases.on_server {
                        made.push(database);
                    }
                }
                Ok(databases)
            }
        }
    }
}

impl Databases {
    /// The URL of a database.
    pub fn url(&self, name: &str) -> Option<&str> {
        self.urls.get(name).map(String::as_str)
    }

    /// Drops those that are on a server, once; says whether none is left there.
    pub fn remove(&mut self) -> bool {
        let Some((server, names)) = self.on_server.take() else { return true };
        let mut all = true;
        for name in names {
            if let Err(error) = remove(&server, &name) {
                eprintln!("database {name} is left on the server: {error:#}");
                all = false;
            }
        }
        all
    }
}

impl Drop for Databases {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The databases of the lab begin with this.
const PREFIX: &str = "scalelab_";

fn database_name(unique: &str, name: &str) -> String {
    format!("{PREFIX}{unique}_{name}").replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}

/// `host:port` of a server, or the folder of its socket, without anything secret.
///
/// # Errors
/// When the URL is none, as surroundings.
pub fn host(server: &str) -> anyhow::Result<String> {
    let options = PgConnectOptions::from_str(server)
        .map_err(|error| surroundings(format!("the Postgres URL is none: {error}")))?;
    Ok(match options.get_socket() {
        Some(folder) => folder.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    })
}

/// Drops a database of the lab's, whoever is connected to it.
///
/// # Errors
/// When it is not the lab's, or the server refuses, as surroundings.
pub fn remove(server: &str, name: &str) -> anyhow::Result<()> {
    let is_ours = name.starts_with(PREFIX) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_ours {
        return Err(surroundings(format!("database {name:?} is not one of the lab's")));
    }
    command(server, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
}

fn with_database(server: &str, database: &str) -> anyhow::Result<String> {
    let (base, query) = server.split_once('?').map_or((server, None), |(base, query)| (base, Some(query)));
    let after_scheme = base.find("://").map_or(0, |at| at + 3);
    let end = base[after_scheme..].find('/').map_or(base.len(), |at| after_scheme + at);
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    Ok(format!("{}/{database}{query}", &base[..end]))
}

fn command(server: &str, sql: &str) -> anyhow::Result<()> {
    let options = PgConnectOptions::from_str(server)
        .map_err(|error| surroundings(format!("the Postgres URL is none: {error}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let host = options.get_host().to_owned();
    runtime.block_on(async {
        let refused = |error: sqlx::Error| surroundings(format!("Postgres at {host} refuses: {error}"));
        let mut connection = PgConnection::connect_with(&options).await.map_err(refused)?;
        connection.execute(sqlx::AssertSqlSafe(sql.to_owned())).await.map_err(refused)?;
        connection.close().await.map_err(refused)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_a_url_is_replaced_and_the_rest_kept() {
        for (server, expected) in [
            ("postgres://u:p@h:5433/postgres", "postgres://u:p@h:5433/x"),
            ("postgres://u@h", "postgres://u@h/x"),
            ("postgres:///postgres?host=/tmp/s&user=u", "postgres:///x?host=/tmp/s&user=u"),
        ] {
            assert_eq!(with_database(server, "x").unwrap(), expected);
        }
    }

    #[test]
    fn what_making_databases_undoes_is_known_before_and_holds_no_secret() {
        let postgres = |url: &str| Server::Postgres(url.to_owned());
        for (server, expected) in [
            (Server::Sqlite, None),
            (postgres("postgres://u:hunter2@h:5433/postgres"), Some("h:5433")),
            (postgres("postgres://u@h"), Some("h:5432")),
            (postgres("postgres:///postgres?host=/tmp/s&user=u"), Some("/tmp/s")),
        ] {
            let intents = server.intents(&["tasks"], "20260102-1_0");
            let of = |host: &str| Intent::Database {
                server_host: host.to_owned(),
                name: "scalelab_20260102_1_0_tasks".into(),
            };
            assert_eq!(intents, expected.map(of).into_iter().collect::<Vec<_>>());
        }
        for name in ["postgres", "scalelab_x; DROP DATABASE y", ""] {
            let error = remove("postgres://u@127.0.0.1:1/postgres", name).unwrap_err();
            assert!(error.to_string().contains("not one of the lab's"), "{error}");
        }
    }
}

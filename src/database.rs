//! Fresh databases for a trial: SQLite files in a scratch folder, or databases on a Postgres server, dropped afterwards.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Executor};

use crate::error::surroundings;

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
                    let database =
                        format!("scalelab_{unique}_{name}").replace(|c: char| !c.is_ascii_alphanumeric(), "_");
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
}

impl Drop for Databases {
    fn drop(&mut self) {
        let Some((server, names)) = &self.on_server else { return };
        for name in names {
            if let Err(error) = command(server, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")) {
                eprintln!("database {name} is left on the server: {error:#}");
            }
        }
    }
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
}

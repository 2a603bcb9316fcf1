//! The database of a role: SQLite in a file, or Postgres.
//!
//! The one rule: one SQL text serves both. What differs (how it is opened, how it is migrated) ends here.
//!
//! SQLite in WAL mode has one writer and any number of readers, so there is one connection that writes and a few that
//! read. A connection that waits for the file's lock then never keeps a reader waiting.

use std::str::FromStr as _;
use std::time::Duration;

use anyhow::Context as _;
use kit::{Clock, Env};
use sqlx::migrate::Migrator;
use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Database};

/// How long a request waits for a connection, and a writer for another process's lock.
const WAIT: Duration = Duration::from_secs(3);

/// How long a writer leaves it to SQLite to wait for another process's lock. SQLite waits longer and longer, up to
/// 100 ms at a time, and so starves beside a busy writer; asked anew after a few milliseconds it gets its turn.
const LOCK_WAIT: Duration = Duration::from_millis(4);

/// How long opening may take, other replicas' migrations included.
const OPENING: Duration = Duration::from_secs(20);

/// An open and migrated database. Cheap to clone.
#[derive(Clone)]
pub enum Store {
    /// A file, read and written through connections of their own.
    Sqlite {
        /// Readers.
        read: SqlitePool,
        /// The one writer.
        write: SqlitePool,
        /// Bounds its wait for another process.
        clock: Clock,
    },
    /// A server.
    Postgres(PgPool),
}

/// The migrations of one domain, for either database.
pub struct Migrations {
    /// For SQLite.
    pub sqlite: Migrator,
    /// For Postgres.
    pub postgres: Migrator,
}

/// Runs an expression with the pool to read from, whichever database it is of.
macro_rules! reading {
    ($store:expr, $pool:ident => $query:expr) => {
        match &$store {
            $crate::store::Store::Sqlite { read: $pool, .. } => $query,
            $crate::store::Store::Postgres($pool) => $query,
        }
    };
}

/// Runs an expression with the pool to write to, whichever database it is of; again while another process has the
/// file's lock, so its first statement must be one that writes.
macro_rules! writing {
    ($store:expr, $pool:ident => $query:expr) => {{
        let store = &$store;
        let patience = store.patience();
        loop {
            let result: Result<_, sqlx::Error> = match store {
                $crate::store::Store::Sqlite { write: $pool, .. } => $query,
                $crate::store::Store::Postgres($pool) => $query,
            };
            match result {
                Err(error) if store.may_try_again(&error, patience) => {}
                result => break result,
            }
        }
    }};
}

pub(crate) use {reading, writing};

impl Store {
    /// Opens the database that the role was given, and brings it up to date.
    ///
    /// # Errors
    /// When none was given, or it cannot be opened; the message names it, without its password.
    pub async fn open(env: &Env, migrations: &[&Migrations], connections: Option<u32>) -> anyhow::Result<Self> {
        let Some(url) = env.config.secrets.get("database_url") else {
            anyhow::bail!(
                "role {} was given no database; give it a secret database_url, sqlite:/path/file.db or postgres://user@host/name",
                env.config.role
            );
        };
        let opening = retry_until_open(env, url, migrations, connections);
        match tokio::time::timeout(OPENING + WAIT, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(anyhow::anyhow!("no answer in {} s", (OPENING + WAIT).as_secs())),
        }
        .with_context(|| format!("role {} cannot use its database {}", env.config.role, kit::redacted(url)))
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// The reason why it does not.
    pub async fn check(&self) -> Result<(), String> {
        let answer = async { reading!(*self, pool => sqlx::query("SELECT 1").execute(pool).await.map(|_| ())) };
        match tokio::time::timeout(Duration::from_secs(1), answer).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("the database answers: {error}")),
            Err(_) => Err("the database does not answer within 1 s".into()),
        }
    }

    /// Until when a write that begins now may be tried again.
    pub(crate) fn patience(&self) -> u64 {
        match self {
            Self::Sqlite { clock, .. } => clock.now_ns() + WAIT.as_nanos() as u64,
            Self::Postgres(_) => 0,
        }
    }

    /// Whether a write failed only because another process had the lock, and there is time left.
    pub(crate) fn may_try_again(&self, error: &sqlx::Error, until_ns: u64) -> bool {
        let Self::Sqlite { clock, .. } = self else { return false };
        // SQLITE_BUSY and its two variants.
        let code = error.as_database_error().and_then(|error| error.code());
        matches!(code.as_deref(), Some("5" | "261" | "517")) && clock.now_ns() < until_ns
    }

    /// Closes every connection.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { read, write, .. } => {
                read.close().await;
                write.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// Several replicas may create and migrate one file at once; whoever comes second finds it locked or half done, and
/// the work done when it looks again. Postgres has a lock for this, SQLite has not.
async fn retry_until_open(
    env: &Env,
    url: &str,
    migrations: &[&Migrations],
    connections: Option<u32>,
) -> anyhow::Result<Store> {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return open_postgres(url, migrations, connections).await;
    }
    anyhow::ensure!(url.starts_with("sqlite:"), "its URL starts neither with sqlite: nor with postgres://");
    let mut rng = env.rng("open database");
    let deadline_ns = env.clock.now_ns() + OPENING.as_nanos() as u64;
    loop {
        match open_sqlite(env, url, migrations, connections).await {
            Err(error) if is_contention(&error) && env.clock.now_ns() < deadline_ns => {
                let wait = rand::RngExt::random_range(&mut rng, 5..50);
                env.clock.sleep(Duration::from_millis(wait)).await;
            }
            opened => return opened,
        }
    }
}

fn is_contention(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    ["locked", "busy", "already exists", "UNIQUE constraint"].iter().any(|sign| text.contains(sign))
}

async fn open_sqlite(
    env: &Env,
    url: &str,
    migrations: &[&Migrations],
    connections: Option<u32>,
) -> anyhow::Result<Store> {
    let name = env.thread_name("sql");
    let options = SqliteConnectOptions::from_str(url)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // An acknowledged write survives a power cut.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(WAIT)
        // Pages are read into a cache of fixed size; mapped, they would count as this process's memory as data grows.
        .pragma("cache_size", "-4096")
        // CPU time is attributed by the start of a thread's name, and a driver starts its own.
        .thread_name(move |id| format!("{name}{id}"))
        .disable_statement_logging();
    let write = pool(1).connect_with(options.clone().busy_timeout(LOCK_WAIT)).await?;
    for migrations in migrations {
        with_others_ignored(&migrations.sqlite).run(&write).await?;
    }
    let readers = connections.unwrap_or(DEFAULT_READERS).max(1);
    let read = pool(readers).connect_with(options).await?;
    Ok(Store::Sqlite { read, write, clock: env.clock.clone() })
}

/// Enough that one reader's way to its thread and back hides behind another's work, also on one CPU.
const DEFAULT_READERS: u32 = 4;

async fn open_postgres(url: &str, migrations: &[&Migrations], connections: Option<u32>) -> anyhow::Result<Store> {
    let options = PgConnectOptions::from_str(url)?.application_name("task-tracker").disable_statement_logging();
    let pool = pool(connections.unwrap_or(8).max(1)).connect_with(options).await?;
    for migrations in migrations {
        with_others_ignored(&migrations.postgres).run(&pool).await?;
    }
    Ok(Store::Postgres(pool))
}

fn pool<DB: Database>(connections: u32) -> PoolOptions<DB> {
    PoolOptions::new()
        .max_connections(connections)
        .min_connections(connections)
        .acquire_timeout(WAIT)
        .idle_timeout(None)
        .max_lifetime(None)
        // A broken connection shows itself at its next query; asking first would double the round trips.
        .test_before_acquire(false)
}

/// The monolith keeps both domains in one database, so each finds the other's migrations there.
fn with_others_ignored(migrator: &Migrator) -> Migrator {
    let mut migrator = Migrator { migrations: migrator.migrations.clone(), ..Migrator::DEFAULT };
    migrator.set_ignore_missing(true);
    migrator
}

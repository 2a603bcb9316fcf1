//! The databases that the suite runs on: a file, and a Postgres of the test's own.

use tempfile::TempDir;

use crate::assembly::{microservices, monolith};
use crate::conforms::conforms;
use crate::postgres::Postgres;

#[test]
fn the_monolith_conforms_on_sqlite() {
    let folder = TempDir::new().unwrap();
    conforms(&monolith("SQLite", &sqlite(&folder)));
}

#[test]
fn the_microservices_conform_on_sqlite() {
    let folder = TempDir::new().unwrap();
    conforms(&microservices("SQLite", &sqlite(&folder)));
}

#[test]
fn both_assemblies_conform_on_postgres() {
    let Some(postgres) = Postgres::start() else {
        let why = "skipped: no initdb on PATH or below /usr/lib/postgresql; install the package postgresql";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
        println!("{why}");
        return;
    };
    let url = |name: &str| postgres.url(name);
    conforms(&monolith("Postgres", &url));
    conforms(&microservices("Postgres", &url));
}

/// URLs of files in a folder.
pub fn sqlite(folder: &TempDir) -> impl Fn(&str) -> String + use<> {
    let folder = folder.path().to_owned();
    move |name| format!("sqlite:{}/{name}.db", folder.display())
}

//! How roles start, and how they refuse to.

use tempfile::TempDir;

use crate::assembly::{begin, config, start, until, with_settings};
use crate::client::send;
use crate::databases::sqlite;
use serde_json::json;

fn refusal(config: kit::RoleConfig) -> String {
    let mut role = begin(config);
    assert!(!role.wait_until_started());
    format!("{:#}", role.join().unwrap_err())
}

#[test]
fn a_role_that_cannot_start_says_why_and_what_to_do() {
    let database = |url: &str| Some(url.to_owned());
    for (config, expected) in [
        (config("monolith", None), "give it a secret database_url"),
        (config("monolith", database("mysql://x")), "starts neither with sqlite: nor with postgres://"),
        (
            config("task-service", database("sqlite:/no/such/folder/x.db")),
            "cannot use its database sqlite:/no/such/folder/x.db",
        ),
        (config("user-service", database("postgres://me:secret@127.0.0.1:1/db")), "postgres://me:***@127.0.0.1:1/db"),
        (with_settings(config("monolith", None), json!({ "speed": 1 })), "unknown field `speed`"),
        (config("stats-service", None), "was given no address of its peer task-service"),
        (config("gateway", None), "was given no address of its peer user-service"),
    ] {
        let message = refusal(config);
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains("secret@"), "{message}");
    }
}

#[test]
fn replicas_that_start_at_once_share_one_database() {
    let folder = TempDir::new().unwrap();
    let url = sqlite(&folder)("shared");
    let mut roles: Vec<_> = (0..4).map(|_| begin(config("task-service", Some(url.clone())))).collect();
    for role in &mut roles {
        assert!(role.wait_until_started(), "{:?}", role.join());
        assert_eq!(send(role.addr, "GET", "/readyz", &[], "").unwrap().status, 200);
    }
}

#[test]
fn a_role_ends_when_it_is_told_although_a_connection_lies_idle() {
    let folder = TempDir::new().unwrap();
    let mut role = start(config("monolith", Some(sqlite(&folder)("app"))));
    let _idle = std::net::TcpStream::connect(role.addr).unwrap();
    role.request_stop();
    until("it has ended", || role.has_ended());
    role.join().unwrap();
}

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
fn replicas_that_write_at_once_all_get_their_turn() {
    let folder = TempDir::new().unwrap();
    let url = sqlite(&folder)("shared");
    let roles = [1, 2].map(|_| start(config("task-service", Some(url.clone()))));
    let token = task_tracker::tokens::Tokens::new("a key for tests", kit::Clock::real(), 30).issue(1).unwrap();
    let headers = [("Authorization", &*format!("Bearer {token}")), ("Content-Type", "application/json")];
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let write = |addr| {
            move || {
                (0..40)
                    .map(|_| send(addr, "POST", "/api/v1/tasks/", &headers, r#"{"title":"x"}"#).unwrap().status)
                    .collect()
            }
        };
        let writers: Vec<_> = roles.iter().cycle().take(6).map(|role| scope.spawn(write(role.addr))).collect();
        writers.into_iter().flat_map(|writer: std::thread::ScopedJoinHandle<Vec<u16>>| writer.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| *status == 201), "{statuses:?}");
    let stats = send(roles[0].addr, "GET", "/api/v1/tasks/stats", &headers, "").unwrap();
    assert_eq!(stats.body["total"], 240);
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

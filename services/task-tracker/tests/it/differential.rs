//! The same operations, drawn from a seed, against both assemblies: the same answers.

use std::collections::BTreeMap;

use rand::RngExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::assembly::{Assembly, microservices, monolith};
use crate::client::send;
use crate::databases::sqlite;
use crate::promised::is_promised;

const SEED: u64 = 20_260_117;
const OPERATIONS: usize = 600;

#[test]
fn both_assemblies_give_the_same_answers_to_the_same_operations() {
    let folder = TempDir::new().unwrap();
    let url = sqlite(&folder);
    let (one, other) = (monolith("SQLite", &url), microservices("SQLite", &url));
    let mut rng = kit::rng(SEED, "operations");
    let mut tokens = [BTreeMap::new(), BTreeMap::new()];
    for number in 0..OPERATIONS {
        let operation = draw(&mut rng, number);
        let [first, second] =
            [(&one, 0), (&other, 1)].map(|(assembly, side)| run(assembly, &operation, &mut tokens[side]));
        assert_eq!(first, second, "seed {SEED}, operation {number}: {operation:?}");
    }
}

#[derive(Debug)]
struct Operation {
    user: u32,
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: String,
}

const USERS: u32 = 4;

fn draw(rng: &mut kit::Rng, number: usize) -> Operation {
    let user = rng.random_range(0..USERS);
    let id = rng.random_range(0..60);
    let task = format!("/api/v1/tasks/{id}");
    let mut headers = Vec::new();
    if rng.random_range(0..4) == 0 {
        headers.push(("If-Match", format!("\"{}\"", rng.random_range(1..4))));
    }
    // Everyone is there and logged in before the rest is drawn.
    let kind = if number < 2 * USERS as usize { 100 + number as u32 } else { rng.random_range(0..14) };
    let (method, path, body) = match kind {
        100.. if number < USERS as usize => ("POST", "/api/v1/auth/register".into(), registration(number as u32)),
        100.. => ("POST", "/api/v1/auth/login".into(), login(number as u32 - USERS, true)),
        0 => ("POST", "/api/v1/auth/register".into(), registration(rng.random_range(0..2 * USERS))),
        1 => ("POST", "/api/v1/auth/login".into(), login(user, rng.random_range(0..2) == 0)),
        2 => ("GET", "/api/v1/auth/me".into(), String::new()),
        3..=5 => {
            if rng.random_range(0..3) == 0 {
                headers.push(("Idempotency-Key", format!("key-{}", rng.random_range(0..5))));
            }
            ("POST", "/api/v1/tasks/".into(), task_body(rng))
        }
        6 | 7 => ("GET", listing(rng), String::new()),
        8 => ("GET", task, String::new()),
        9 => ("PUT", task, task_body(rng)),
        10 => ("PATCH", format!("{task}/{}", ["complete", "incomplete", "x"][rng.random_range(0..3)]), String::new()),
        11 => ("DELETE", task, String::new()),
        12 => ("GET", "/api/v1/tasks/stats".into(), String::new()),
        _ => ("GET", "/api/v1/stats/".into(), String::new()),
    };
    let user = if number >= 2 * USERS as usize && rng.random_range(0..20) == 0 { USERS } else { user };
    Operation { user, method, path, headers, body }
}

fn registration(user: u32) -> String {
    let email = if user % 5 == 4 { "not an address".into() } else { format!("u{user}@example.org") };
    json!({ "email": email, "username": format!("u{user}"), "password": format!("p{user}") }).to_string()
}

fn login(user: u32, right: bool) -> String {
    json!({ "username": format!("u{user}"), "password": if right { format!("p{user}") } else { "wrong".into() } })
        .to_string()
}

fn listing(rng: &mut kit::Rng) -> String {
    let query = [
        "",
        "?limit=3",
        "?skip=1&limit=2",
        "?status=done",
        "?priority=low&status=todo",
        "?limit=0",
        "?skip=x",
        "?status=%ff",
    ];
    format!("/api/v1/tasks/{}", query[rng.random_range(0..query.len())])
}

fn task_body(rng: &mut kit::Rng) -> String {
    let mut pick = |values: &[Value]| values[rng.random_range(0..values.len())].clone();
    let mut body = serde_json::Map::new();
    for (field, values) in [
        (
            "title",
            vec![
                json!("short"),
                json!("a \"b\" ü"),
                json!("x".repeat(255)),
                json!("x".repeat(256)),
                json!(1),
                Value::Null,
            ],
        ),
        ("description", vec![json!("words"), json!(""), Value::Null, json!("nul \0")]),
        ("status", vec![json!("todo"), json!("in_progress"), json!("done"), json!("done"), json!("never")]),
        ("priority", vec![json!("low"), json!("medium"), json!("high"), json!(3)]),
        (
            "due_date",
            vec![json!("2026-01-02T03:04:05"), json!("2026-01-02T03:04:05+02:00"), Value::Null, json!("soon")],
        ),
    ] {
        // Good values are at the front and drawn more often.
        let good = values.iter().take(2).cloned().collect::<Vec<_>>();
        match pick(&[json!(0), json!(1), json!(1), json!(2), json!(3)]).as_u64() {
            Some(0) if field != "title" => {}
            Some(3) => drop(body.insert(field.into(), pick(&values))),
            _ => drop(body.insert(field.into(), pick(&good))),
        }
    }
    let body = Value::Object(body).to_string();
    if rng.random_range(0..30) == 0 {
        body[..body.len() / 2].trim_end_matches(|c: char| !c.is_ascii()).to_owned()
    } else {
        body
    }
}

/// The answer without what differs from run to run: times, and tokens, which hold one.
fn run(assembly: &Assembly, operation: &Operation, tokens: &mut BTreeMap<u32, String>) -> (u16, String, Value) {
    let bearer = tokens.get(&operation.user).map(|token| format!("Bearer {token}"));
    let mut headers: Vec<_> = operation.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    headers.push(("Content-Type", "application/json"));
    headers.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
    let mut answer = send(assembly.addr, operation.method, &operation.path, &headers, &operation.body).unwrap();
    is_promised(&assembly.document, operation.method, &operation.path, &answer);
    if let Some(token) = answer.body.get("access_token").and_then(Value::as_str) {
        let user: Value = serde_json::from_str(&operation.body).unwrap();
        let user = user["username"].as_str().and_then(|name| name[1..].parse().ok()).unwrap();
        tokens.insert(user, token.to_owned());
    }
    let etag = answer.header("etag").to_owned();
    without_times(&mut answer.body);
    (answer.status, etag, answer.body)
}

fn without_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if ["created_at", "updated_at", "access_token"].contains(&name.as_str()) {
                    *value = json!("…");
                }
                without_times(value);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(without_times),
        _ => {}
    }
}

//! A service that lies about what it has done is found out, and the operations are named.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::lab::{call, scratch, write};

/// What a service does to one in five of its writes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    /// Nothing.
    None,
    /// Says that a task was created, and forgets it.
    Forgets,
    /// Creates a task twice.
    Repeats,
    /// Says that a task was deleted, and keeps it.
    Keeps,
    /// Says that it cannot create a task now, and creates it.
    Denies,
    /// Says that a task was changed, and forgets the change.
    Reverts,
    /// Says nothing, and did it or not: that is legal.
    IsSilent,
    /// Counts one task too many.
    Miscounts,
    /// Does not let anybody log in a second time.
    Locks,
}

#[derive(Default)]
struct Tasks {
    by_user: BTreeMap<String, BTreeMap<u64, Value>>,
    logins: BTreeMap<String, u32>,
    made: u64,
    writes: u64,
}

/// Answers as a task tracker does; none is no answer.
fn answer(tasks: &mut Tasks, lie: Lie, method: &str, path: &str, user: &str, body: &Value) -> Option<(u16, Value)> {
    let path = path.split('?').next().unwrap_or_default().trim_end_matches('/');
    let parts: Vec<&str> = path.trim_start_matches("/api/v1/").split('/').collect();
    if method != "GET" && parts[0] == "tasks" {
        tasks.writes += 1;
    }
    let lie =
        if lie == Lie::Miscounts || lie == Lie::Locks || tasks.writes.is_multiple_of(5) { lie } else { Lie::None };
    let mine = tasks.by_user.entry(user.to_owned()).or_default();
    let done = |mine: &BTreeMap<u64, Value>| mine.values().filter(|task| task["status"] == "done").count();
    Some(match (method, parts.as_slice()) {
        ("POST", ["auth", "register"]) => (201, json!({ "id": 1 })),
        ("POST", ["auth", "login"]) => {
            let name = body["username"].as_str().unwrap_or_default();
            let logins = tasks.logins.entry(name.to_owned()).or_default();
            *logins += 1;
            match lie == Lie::Locks && *logins > 1 {
                true => (403, json!({ "detail": "not any more" })),
                false => (200, json!({ "access_token": name })),
            }
        }
        (_, ["auth", "me"]) => (200, json!({ "id": 1, "username": user })),
        (_, ["stats"]) => {
            let more = usize::from(lie == Lie::Miscounts);
            (
                200,
                json!({ "total_tasks": mine.len() + more, "completed_tasks": done(mine), "completed_percentage": 0.0 }),
            )
        }
        ("GET", ["tasks"]) => {
            let all: Vec<&Value> = mine.values().rev().collect();
            (200, json!({ "tasks": all, "total": all.len(), "skip": 0, "limit": 1000 }))
        }
        ("POST", ["tasks"]) => {
            for _ in 0..if lie == Lie::Repeats { 2 } else { 1 } {
                tasks.made += 1;
                let task = json!({
                    "id": tasks.made, "title": body["title"], "description": body["description"], "status": "todo",
                    "is_completed": false, "version": 1,
                });
                mine.insert(tasks.made, task);
            }
            let task = mine[&tasks.made].clone();
            match lie {
                Lie::Forgets => drop(mine.remove(&tasks.made)),
                Lie::Denies => return Some((503, json!({ "detail": "not now" }))),
                Lie::IsSilent => return None,
                _ => {}
            }
            (201, task)
        }
        (_, ["tasks", id, rest @ ..]) => {
            let id: u64 = id.parse().unwrap();
            let Some(task) = mine.get_mut(&id) else { return Some((404, json!({ "detail": "task not found" }))) };
            let before = task.clone();
            match (method, rest) {
                ("GET", _) => return Some((200, before)),
                ("DELETE", _) => {
                    if lie != Lie::Keeps {
                        mine.remove(&id);
                    }
                    return Some((204, Value::Null));
                }
                (_, ["complete"]) => task["status"] = "done".into(),
                (_, ["incomplete"]) => task["status"] = "todo".into(),
                _ => task["title"] = body["title"].clone(),
            }
            task["version"] = (before["version"].as_u64().unwrap() + 1).into();
            let changed = task.clone();
            if lie == Lie::Reverts {
                *task = before;
            }
            (200, changed)
        }
        _ => (404, json!({ "detail": "not found" })),
    })
}

/// Serves one connection, request after request.
fn converse(stream: TcpStream, lie: Lie, tasks: &Mutex<Tasks>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            (reader.read_until(b'\n', &mut head).ok()? > 0).then_some(())?;
        }
        let head = String::from_utf8(head).ok()?;
        let header = |name: &str| {
            let named = |line: &&str| line.split(':').next().is_some_and(|known| known.eq_ignore_ascii_case(name));
            head.lines().skip(1).find(named).and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim())
        };
        let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
        reader.read_exact(&mut body).ok()?;
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let mut line = head.split(' ');
        let (method, path) = (line.next()?, line.next()?);
        let user = header("authorization").trim_start_matches("Bearer ");
        // Closes the connection where there is no answer.
        let (status, value) = answer(&mut tasks.lock().unwrap(), lie, method, path, user, &body)?;
        let text = if value.is_null() { String::new() } else { value.to_string() };
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{text}", text.len());
        reader.get_mut().write_all(answer.as_bytes()).ok()?;
    }
}

/// Where it serves; ends with the test's process.
fn serve(lie: Lie) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let tasks: Arc<Mutex<Tasks>> = Arc::default();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let tasks = tasks.clone();
            thread::spawn(move || converse(stream, lie, &tasks));
        }
    });
    url
}

#[test]
fn a_service_that_lies_is_found_out_and_an_honest_one_is_not() {
    let rows: [(Lie, i32, &str, &str); 9] = [
        (Lie::None, 0, "pass", "no acknowledged write was lost ("),
        (Lie::IsSilent, 0, "pass", " were found)"),
        (Lie::Forgets, 1, "fail", "acknowledged and not there (create "),
        (Lie::Repeats, 1, "fail", "there more than once (create "),
        (Lie::Keeps, 1, "fail", "is there after delete "),
        (Lie::Denies, 1, "fail", "there and never asked for, or surely refused ("),
        (Lie::Reverts, 1, "fail", "reads that missed an acknowledged write ("),
        (Lie::Miscounts, 1, "fail", "owners with totals that do not add up (total_tasks of user "),
        (
            Lie::Locks,
            0,
            "pass",
            "whether an acknowledged write was lost is unknown: what 4 of 4 users wrote could not be read back",
        ),
    ];
    thread::scope(|scope| {
        for (lie, code, word, why) in rows {
            scope.spawn(move || judged(lie, code, word, why));
        }
    });
}

fn judged(lie: Lie, code: i32, word: &str, why: &str) {
    let folder = scratch();
    // Set-up is honest: its steps must succeed, and a service that is silent would end it.
    let text = format!(
        "# lies?\nsystem = \"task-tracker\"\ndeployment = \"external\"\ntrials = 1\nwarmup = \"0s\"\nduration = \"2s\"\n\
         timeout = \"2s\"\n[external]\ndefault = \"{}\"\n[load]\nusers = 4\nthink = \"4ms\"\n[settings]\n\
         tasks_per_user = 0\ncheck_writes = true\n",
        serve(lie)
    );
    let file = write(folder.path(), "lies.toml", &text);
    let out = folder.path().join("runs");
    let called = call(&["run", file.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    let verdict = called.stdout.lines().find(|line| line.starts_with("verdict:")).unwrap_or_default().to_owned();
    assert_eq!(called.code, Some(code), "{lie:?}: {}{}", called.stdout, called.stderr);
    assert!(verdict.starts_with(&format!("verdict: {word}")) && verdict.contains(why), "{lie:?}: {verdict}");
    let trial = std::fs::read_dir(out.join("latest/trials")).unwrap().flatten().next().unwrap().path();
    let recovery: Value = serde_json::from_slice(&std::fs::read(trial.join("recovery.json")).unwrap()).unwrap();
    assert!(recovery["acknowledged"].as_u64().unwrap() > 0 && recovery["faults"] == json!([]), "{recovery}");
    let history = std::fs::read_to_string(trial.join("history.jsonl")).unwrap();
    assert!(history.lines().all(|line| serde_json::from_str::<Value>(line).unwrap()["op"].is_string()));
}

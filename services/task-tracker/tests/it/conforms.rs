//! What the API does, as data: one row a request, in order, on a database that was empty.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::assembly::Assembly;
use crate::client::{Answer, send};
use crate::promised::is_promised;

/// Runs the suite against an assembly on an empty database.
pub fn conforms(assembly: &Assembly) {
    let mut tokens = BTreeMap::new();
    for user in ["ann", "bob"] {
        tokens.insert(user, register_and_log_in(assembly, user));
    }
    for (sentence, request, body, status, expected) in steps() {
        let answer = ask(assembly, &tokens, request, body);
        let place = format!("{}: {sentence}: {request} {body:.200}", assembly.name);
        assert_eq!(answer.status, status, "{place}\n{}", answer.body);
        assert!(contains(&answer.body, &expected), "{place}\n answered {}\n expected {expected}", answer.body);
        if status >= 400 {
            assert!(!answer.body["detail"].is_null(), "{place}: no detail");
        }
    }
    tokens_and_users(assembly, &tokens["ann"]);
    versions(assembly, &tokens);
    another_origin(assembly);
    a_body_that_nobody_asked_for(assembly, &tokens);
    the_document_is_served(assembly);
}

type Step = (&'static str, &'static str, &'static str, u16, Value);

/// A request is `who METHOD path`, then headers after bars. A long body is made where the row says so.
fn steps() -> Vec<Step> {
    let names = |place: &str, field: &str| json!({ "detail": [{ "loc": [place, field] }] });
    let any = json!({});
    vec![
        ("it lives", "- GET /health", "", 200, json!({ "status": "ok" })),
        ("it is ready", "- GET /readyz", "", 200, any.clone()),
        ("an unknown path is 404", "- GET /api/v1/nothing", "", 404, any.clone()),
        ("and so is one below a known one", "ann GET /api/v1/tasks/1/2/3", "", 404, any.clone()),
        ("a wrong method is 405", "ann PATCH /api/v1/tasks/", "", 405, any.clone()),
        // Users.
        (
            "a taken username is 400",
            "- POST /api/v1/auth/register",
            r#"{"email":"x@example.org","username":"ann","password":"pw"}"#,
            400,
            any.clone(),
        ),
        (
            "a taken email is 400",
            "- POST /api/v1/auth/register",
            r#"{"email":"ann@example.org","username":"anna","password":"pw"}"#,
            400,
            any.clone(),
        ),
        (
            "what is no email is named",
            "- POST /api/v1/auth/register",
            r#"{"email":"here","username":"x","password":"pw"}"#,
            422,
            names("body", "email"),
        ),
        (
            "a missing password is named",
            "- POST /api/v1/auth/register",
            r#"{"email":"x@example.org","username":"x"}"#,
            422,
            names("body", "password"),
        ),
        (
            "a NUL is refused before a database sees it",
            "- POST /api/v1/auth/register",
            r#"{"email":"x@example.org","username":"a\u0000b","password":"pw"}"#,
            422,
            names("body", "username"),
        ),
        (
            "a full name is optional and kept",
            "- POST /api/v1/auth/register",
            r#"{"email":"c@example.org","username":"cy","password":"pw","full_name":"Cy \"the\" Ü"}"#,
            201,
            json!({ "username": "cy", "full_name": "Cy \"the\" Ü", "is_active": true, "is_superuser": false }),
        ),
        (
            "a wrong password is 401",
            "- POST /api/v1/auth/login",
            r#"{"username":"ann","password":"no"}"#,
            401,
            any.clone(),
        ),
        (
            "an unknown user is 401",
            "- POST /api/v1/auth/login",
            r#"{"username":"who","password":"no"}"#,
            401,
            any.clone(),
        ),
        (
            "a token says who one is",
            "ann GET /api/v1/auth/me",
            "",
            200,
            json!({ "email": "ann@example.org", "username": "ann", "full_name": null }),
        ),
        // Tokens.
        ("no token is 401", "- GET /api/v1/tasks/", "", 401, any.clone()),
        ("a bad token is 401", "- GET /api/v1/tasks/ | Authorization: Bearer x.y.z", "", 401, any.clone()),
        ("another scheme is 401", "- GET /api/v1/stats/ | Authorization: Basic eDp5", "", 401, any.clone()),
        ("no token comes before a bad body", "- POST /api/v1/tasks/", "{", 401, any.clone()),
        // Create.
        (
            "a title is enough",
            "ann POST /api/v1/tasks/",
            r#"{"title":"one"}"#,
            201,
            json!({ "id": 1, "title": "one", "description": null, "status": "todo", "priority": "medium",
                "is_completed": false, "due_date": null, "version": 1 }),
        ),
        (
            "everything can be given",
            "ann POST /api/v1/tasks",
            r#"{"title":"two \"quoted\" \\ \n ü 🦀","description":"d","status":"done","priority":"high","due_date":"2026-01-02T03:04:05.123456"}"#,
            201,
            json!({ "id": 2, "title": "two \"quoted\" \\ \n ü 🦀", "description": "d", "status": "done",
                "priority": "high", "is_completed": true, "due_date": "2026-01-02T03:04:05.123456Z" }),
        ),
        (
            "an offset is turned into UTC",
            "ann POST /api/v1/tasks/",
            r#"{"title":"three","status":"in_progress","due_date":"2026-01-02 03:04:05+01:00"}"#,
            201,
            json!({ "id": 3, "due_date": "2026-01-02T02:04:05.000000Z" }),
        ),
        (
            "an unknown field is ignored",
            "bob POST /api/v1/tasks/",
            r#"{"title":"his","id":99}"#,
            201,
            json!({ "id": 4 }),
        ),
        ("an empty title is named", "ann POST /api/v1/tasks/", r#"{"title":""}"#, 422, names("body", "title")),
        ("a long title is named", "ann POST /api/v1/tasks/", "TITLE*256", 422, names("body", "title")),
        ("255 characters are not too long", "bob POST /api/v1/tasks/", "TITLE*255", 201, json!({ "id": 5 })),
        ("a title that is no text is named", "ann POST /api/v1/tasks/", r#"{"title":7}"#, 422, names("body", "title")),
        (
            "every wrong field is named",
            "ann POST /api/v1/tasks/",
            r#"{"title":"x","status":"later","priority":null}"#,
            422,
            json!({ "detail": [{ "loc": ["body", "status"] }, { "loc": ["body", "priority"] }] }),
        ),
        (
            "a bad date is named",
            "ann POST /api/v1/tasks/",
            r#"{"title":"x","due_date":"soon"}"#,
            422,
            names("body", "due_date"),
        ),
        ("what is no JSON is 422", "ann POST /api/v1/tasks/", "{", 422, json!({ "detail": [{ "loc": ["body"] }] })),
        ("what is no object is 422", "ann POST /api/v1/tasks/", "[1]", 422, any.clone()),
        ("no body is 422", "ann POST /api/v1/tasks/", "", 422, any.clone()),
        ("half a surrogate is 422", "ann POST /api/v1/tasks/", r#"{"title":"\ud800"}"#, 422, any.clone()),
        (
            "another content type is 422",
            "ann POST /api/v1/tasks/ | Content-Type: text/plain",
            r#"{"title":"x"}"#,
            422,
            names("header", "Content-Type"),
        ),
        ("too long a body is 413", "ann POST /api/v1/tasks/", "TITLE*200000", 413, any.clone()),
        // Create once.
        (
            "a key creates once",
            "ann POST /api/v1/tasks/ | Idempotency-Key: k1",
            r#"{"title":"keyed"}"#,
            201,
            json!({ "id": 6, "title": "keyed" }),
        ),
        (
            "the same key and body give the same answer",
            "ann POST /api/v1/tasks/ | Idempotency-Key: k1",
            r#"{"title":"keyed"}"#,
            201,
            json!({ "id": 6, "title": "keyed", "version": 1 }),
        ),
        (
            "the same key with another body is 422",
            "ann POST /api/v1/tasks/ | Idempotency-Key: k1",
            r#"{"title":"other"}"#,
            422,
            names("header", "Idempotency-Key"),
        ),
        (
            "keys are each user's own",
            "bob POST /api/v1/tasks/ | Idempotency-Key: k1",
            r#"{"title":"his keyed"}"#,
            201,
            json!({ "title": "his keyed" }),
        ),
        ("an empty key is 422", "ann POST /api/v1/tasks/ | Idempotency-Key:", r#"{"title":"x"}"#, 422, any.clone()),
        // Read.
        ("one's own task is there", "ann GET /api/v1/tasks/1", "", 200, json!({ "id": 1, "title": "one" })),
        ("someone else's is not", "ann GET /api/v1/tasks/4", "", 404, any.clone()),
        ("nor is one that never was", "ann GET /api/v1/tasks/999", "", 404, any.clone()),
        ("an id that is no number is named", "ann GET /api/v1/tasks/x", "", 422, names("path", "task_id")),
        ("nor is one of 65 bits", "ann GET /api/v1/tasks/9223372036854775808", "", 422, names("path", "task_id")),
        ("an id with bad encoding is 422", "ann GET /api/v1/tasks/%ff%zz", "", 422, any.clone()),
        // List.
        (
            "the newest come first",
            "ann GET /api/v1/tasks/",
            "",
            200,
            json!({ "tasks": [{ "id": 6 }, { "id": 3 }, { "id": 2 }, { "id": 1 }], "total": 4, "skip": 0, "limit": 100 }),
        ),
        (
            "with or without a slash",
            "ann GET /api/v1/tasks?limit=1",
            "",
            200,
            json!({ "tasks": [{ "id": 6 }], "total": 4, "limit": 1 }),
        ),
        (
            "a page may begin anywhere",
            "ann GET /api/v1/tasks/?skip=2&limit=1",
            "",
            200,
            json!({ "tasks": [{ "id": 2 }], "skip": 2 }),
        ),
        (
            "also behind the end",
            "ann GET /api/v1/tasks/?skip=9223372036854775807",
            "",
            200,
            json!({ "tasks": [], "total": 4 }),
        ),
        (
            "by status",
            "ann GET /api/v1/tasks/?status=in_progress",
            "",
            200,
            json!({ "tasks": [{ "id": 3 }], "total": 1 }),
        ),
        ("by priority", "ann GET /api/v1/tasks/?priority=high", "", 200, json!({ "tasks": [{ "id": 2 }], "total": 1 })),
        ("by both", "ann GET /api/v1/tasks/?priority=high&status=todo", "", 200, json!({ "tasks": [], "total": 0 })),
        ("a limit of 0 is named", "ann GET /api/v1/tasks/?limit=0", "", 422, names("query", "limit")),
        ("a limit of 1001 is named", "ann GET /api/v1/tasks/?limit=1001", "", 422, names("query", "limit")),
        ("a negative skip is named", "ann GET /api/v1/tasks/?skip=-1", "", 422, names("query", "skip")),
        (
            "a skip of 64 bits is named",
            "ann GET /api/v1/tasks/?skip=9223372036854775808",
            "",
            422,
            names("query", "skip"),
        ),
        ("an unknown status is named", "ann GET /api/v1/tasks/?status=%00", "", 422, names("query", "status")),
        ("bad encoding is no status", "ann GET /api/v1/tasks/?priority=%zz", "", 422, names("query", "priority")),
        // Change.
        (
            "what is not sent stays",
            "ann PUT /api/v1/tasks/2",
            r#"{"title":"renamed"}"#,
            200,
            json!({ "title": "renamed", "description": "d", "status": "done", "due_date": "2026-01-02T03:04:05.123456Z", "version": 2 }),
        ),
        (
            "null clears what may be empty",
            "ann PUT /api/v1/tasks/2",
            r#"{"description":null,"due_date":null}"#,
            200,
            json!({ "title": "renamed", "description": null, "due_date": null }),
        ),
        ("but not a title", "ann PUT /api/v1/tasks/2", r#"{"title":null}"#, 422, names("body", "title")),
        (
            "a status decides whether it is completed",
            "ann PUT /api/v1/tasks/2",
            r#"{"status":"todo"}"#,
            200,
            json!({ "status": "todo", "is_completed": false }),
        ),
        ("nothing sent is a change of nothing", "ann PUT /api/v1/tasks/2", "{}", 200, json!({ "title": "renamed" })),
        ("someone else's is not changed", "ann PUT /api/v1/tasks/4", r#"{"title":"mine"}"#, 404, any.clone()),
        (
            "completing sets done",
            "ann PATCH /api/v1/tasks/1/complete",
            "",
            200,
            json!({ "status": "done", "is_completed": true }),
        ),
        ("twice is once", "ann PATCH /api/v1/tasks/1/complete", "", 200, json!({ "status": "done" })),
        (
            "reopening sets todo",
            "ann PATCH /api/v1/tasks/1/incomplete",
            "",
            200,
            json!({ "status": "todo", "is_completed": false }),
        ),
        ("someone else's is not completed", "ann PATCH /api/v1/tasks/4/complete", "", 404, any.clone()),
        // Count.
        (
            "counts by status and priority",
            "ann GET /api/v1/tasks/stats",
            "",
            200,
            json!({ "total": 4, "todo": 3, "in_progress": 1, "done": 0, "completed": 0, "low": 0, "medium": 3, "high": 1 }),
        ),
        (
            "nothing is done",
            "ann GET /api/v1/stats/",
            "",
            200,
            json!({ "total_tasks": 4, "completed_tasks": 0, "completed_percentage": 0.0 }),
        ),
        ("something gets done", "ann PATCH /api/v1/tasks/3/complete", "", 200, any.clone()),
        (
            "and shows",
            "ann GET /api/v1/stats",
            "",
            200,
            json!({ "total_tasks": 4, "completed_tasks": 1, "completed_percentage": 25.0 }),
        ),
        // Delete.
        ("someone else's is not deleted", "ann DELETE /api/v1/tasks/4", "", 404, any.clone()),
        ("one's own is", "ann DELETE /api/v1/tasks/3", "", 204, json!(null)),
        ("once", "ann DELETE /api/v1/tasks/3", "", 404, any.clone()),
        ("the other's are all there", "bob GET /api/v1/tasks/", "", 200, json!({ "total": 3 })),
        // Deadlines.
        (
            "work whose caller has given up is not begun",
            "ann GET /api/v1/tasks/ | x-deadline-ms: 0",
            "",
            504,
            any.clone(),
        ),
        ("a deadline that is none is none", "ann GET /api/v1/tasks/ | x-deadline-ms: soon", "", 200, any),
    ]
}

fn register_and_log_in(assembly: &Assembly, user: &str) -> String {
    let body = json!({ "email": format!("{user}@example.org"), "username": user, "password": format!("{user}'s") });
    let answer = ask(assembly, &BTreeMap::new(), "- POST /api/v1/auth/register", &body.to_string());
    assert_eq!(answer.status, 201, "{}: {}", assembly.name, answer.body);
    let keys: Vec<_> = answer.body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        ["id", "email", "username", "full_name", "is_active", "is_superuser", "created_at", "updated_at"],
        "the hash is never shown"
    );
    let body = json!({ "username": user, "password": format!("{user}'s") });
    let answer = ask(assembly, &BTreeMap::new(), "- POST /api/v1/auth/login", &body.to_string());
    assert_eq!((answer.status, &answer.body["token_type"]), (200, &json!("bearer")), "{}", assembly.name);
    answer.body["access_token"].as_str().unwrap().to_owned()
}

fn ask(assembly: &Assembly, tokens: &BTreeMap<&str, String>, request: &str, body: &str) -> Answer {
    let mut parts = request.split(" | ");
    let mut words = parts.next().unwrap_or_default().split(' ');
    let (who, method, path) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let mut headers: Vec<(&str, &str)> =
        parts.filter_map(|header| header.split_once(':')).map(|(n, v)| (n, v.trim())).collect();
    let bearer = tokens.get(who).map(|token| format!("Bearer {token}"));
    headers.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
    if !headers.iter().any(|(name, _)| *name == "Content-Type") {
        headers.push(("Content-Type", "application/json"));
    }
    let body = match body.strip_prefix("TITLE*") {
        Some(length) => json!({ "title": "x".repeat(length.parse().unwrap()) }).to_string(),
        None => body.to_owned(),
    };
    let answer = send(assembly.addr, method, path, &headers, &body).unwrap();
    is_promised(&assembly.document, method, path, &answer);
    answer
}

/// Whether `found` has everything of `expected`: in objects the given keys, in arrays every element.
fn contains(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            expected.iter().all(|(key, value)| found.get(key).is_some_and(|found| contains(found, value)))
        }
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len()
                && found.iter().zip(expected).all(|(found, expected)| contains(found, expected))
        }
        _ => found == expected,
    }
}

fn tokens_and_users(assembly: &Assembly, token: &str) {
    let none = BTreeMap::new();
    let wrong = ask(assembly, &none, "- POST /api/v1/auth/login", r#"{"username":"ann","password":"x"}"#);
    assert_eq!(wrong.header("www-authenticate"), "Bearer", "{}", assembly.name);
    assert_eq!(ask(assembly, &none, "- GET /api/v1/stats/", "").header("www-authenticate"), "Bearer");
    // One changed character of the signature.
    let at = token.len() - 10;
    let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
    let forged = format!("- GET /api/v1/auth/me | Authorization: Bearer {}{other}{}", &token[..at], &token[at + 1..]);
    assert_eq!(ask(assembly, &none, &forged, "").status, 401, "{}", assembly.name);
    let wrong_method = ask(assembly, &none, "- DELETE /api/v1/auth/login", "");
    assert_eq!((wrong_method.status, wrong_method.header("allow")), (405, "POST"), "{}", assembly.name);
}

fn versions(assembly: &Assembly, tokens: &BTreeMap<&str, String>) {
    let created = ask(assembly, tokens, "ann POST /api/v1/tasks/", r#"{"title":"versions"}"#);
    assert_eq!(created.header("etag"), "\"1\"", "{}", assembly.name);
    let task = format!("/api/v1/tasks/{}", created.body["id"]);
    for (request, body, status, tag) in [
        (format!("ann PUT {task} | If-Match: \"2\""), r#"{"title":"no"}"#, 412, ""),
        (format!("ann PUT {task} | If-Match: W/\"1\""), r#"{"title":"no"}"#, 412, ""),
        (format!("ann PUT {task} | If-Match: \"1\""), r#"{"title":"yes"}"#, 200, "\"2\""),
        (format!("ann PUT {task} | If-Match: \"1\""), r#"{"title":"late"}"#, 412, ""),
        (format!("ann PATCH {task}/complete | If-Match: \"9\", \"2\""), "", 200, "\"3\""),
        (format!("ann PATCH {task}/incomplete | If-Match: \"2\""), "", 412, ""),
        (format!("ann GET {task}"), "", 200, "\"3\""),
        (format!("bob PUT {task} | If-Match: *"), r#"{"title":"his"}"#, 404, ""),
        (format!("ann DELETE {task} | If-Match: \"1\""), "", 412, ""),
        (format!("ann DELETE {task} | If-Match: *"), "", 204, ""),
        (format!("ann DELETE {task} | If-Match: \"3\""), "", 404, ""),
    ] {
        let answer = ask(assembly, tokens, &request, body);
        assert_eq!((answer.status, answer.header("etag")), (status, tag), "{}: {request}", assembly.name);
    }
}

fn another_origin(assembly: &Assembly) {
    let none = BTreeMap::new();
    for (origin, allowed) in [("http://localhost:3000", "http://localhost:3000"), ("https://example.org", "")] {
        let request = format!(
            "- OPTIONS /api/v1/tasks/ | Origin: {origin} | Access-Control-Request-Method: POST | Access-Control-Request-Headers: authorization"
        );
        let preflight = ask(assembly, &none, &request, "");
        assert_eq!(preflight.header("access-control-allow-origin"), allowed, "{}: {origin}", assembly.name);
        let answer = ask(assembly, &none, &format!("- GET /api/v1/tasks/ | Origin: {origin}"), "");
        let given: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "access-control-allow-origin").collect();
        assert_eq!(given.len(), usize::from(!allowed.is_empty()), "{}: {origin}", assembly.name);
    }
}

/// A gateway reads it all the same, and refuses what does not arrive whole; a service leaves it alone.
fn a_body_that_nobody_asked_for(assembly: &Assembly, tokens: &BTreeMap<&str, String>) {
    for path in ["/api/v1/auth/me", "/api/v1/tasks/stats", "/api/v1/stats/", "/api/v1/tasks/"] {
        let request = format!("ann GET {path} | Transfer-Encoding: chunked");
        let expected = if assembly.roles.len() > 1 { 422 } else { 200 };
        // No length of a chunk.
        let answer = ask(assembly, tokens, &request, "zz\r\n");
        assert_eq!(answer.status, expected, "{}: {request}\n{}", assembly.name, answer.body);
    }
}

fn the_document_is_served(assembly: &Assembly) {
    for role in &assembly.roles {
        let document = send(role.addr, "GET", "/openapi.json", &[], "").unwrap();
        assert_eq!((document.status, &document.body["openapi"]), (200, &json!("3.1.0")), "{}", assembly.name);
        assert_eq!(send(role.addr, "GET", "/health", &[], "").unwrap().status, 200);
    }
}

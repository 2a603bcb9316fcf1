//! Tasks: create, list, read, change, delete, count.
//!
//! The one rule: a task belongs to its owner; to anyone else it does not exist. Every statement says so itself.
//!
//! The database builds each answer as JSON text, so a page of tasks crosses from the database's thread as one value in
//! one row, and is sent as it is.

use std::sync::Arc;

use axum::http::header::{ETAG, IF_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;

use crate::datetime;
use crate::fields::{self, Change, Fields};
use crate::refusal::{Problem, Refusal};
use crate::service::{Call, Service, json, no_content};
use crate::store::{Migrations, Store, reading, writing};

/// The tables of this domain.
pub static MIGRATIONS: Migrations = Migrations {
    sqlite: sqlx::migrate!("migrations/tasks/sqlite"),
    postgres: sqlx::migrate!("migrations/tasks/postgres"),
};

/// What a task's status may be.
pub const STATUSES: &[&str] = &["todo", "in_progress", "done"];
/// What a task's priority may be.
pub const PRIORITIES: &[&str] = &["low", "medium", "high"];
/// The longest title, in characters.
pub const LONGEST_TITLE: usize = 255;
/// The longest description, in characters.
pub const LONGEST_DESCRIPTION: usize = 10_000;
/// The longest idempotency key, in bytes.
pub const LONGEST_KEY: usize = 255;

/// A task as JSON text. `is_completed` is what the status says, so the two cannot disagree.
macro_rules! task_json {
    () => {
        r#"format('{"id":%s,"title":%s,"description":%s,"status":"%s","priority":"%s","is_completed":%s,"due_date":%s,"owner_id":%s,"version":%s,"created_at":"%s","updated_at":"%s"}',
            id, json_quote(title), json_quote(description), status, priority,
            CASE status WHEN 'done' THEN 'true' ELSE 'false' END, json_quote(due_date), owner_id, version,
            created_at, updated_at)"#
    };
}

/// A page as JSON text, of the tasks that a condition selects. $1 owner, $2 skip, $3 limit.
///
/// The casts are for SQLite: it plans a statement again whenever a bare parameter of LIMIT is bound, and planning takes
/// as long as the rest.
macro_rules! page_json {
    ($condition:literal) => {
        concat!(
            r#"SELECT format('{"tasks":[%s],"total":%s,"skip":%s,"limit":%s}',
                (SELECT string_agg(task, ',') FROM (SELECT "#,
            task_json!(),
            " AS task FROM tasks WHERE ",
            $condition,
            " ORDER BY created_at DESC, id DESC LIMIT CAST($3 AS BIGINT) OFFSET CAST($2 AS BIGINT)) AS page),
                (SELECT count(*) FROM tasks WHERE ",
            $condition,
            "), $2, $3)"
        )
    };
}

/// `GET /tasks/`
pub async fn list(service: Arc<Service>, call: Call) -> Result<Response, Refusal> {
    let query = call.query.as_str();
    let mut problems = Vec::new();
    let mut check = |number: Result<i64, Problem>| number.map_err(|problem| problems.push(problem)).unwrap_or(0);
    let skip = check(fields::query_number(query, "skip", 0, (0, i64::MAX)));
    let limit = check(fields::query_number(query, "limit", 100, (1, 1000)));
    let mut check = |word: Result<_, Problem>| word.map_err(|problem| problems.push(problem)).unwrap_or(None);
    let status: Option<&str> = check(fields::query_word(query, "status", STATUSES));
    let priority: Option<&str> = check(fields::query_word(query, "priority", PRIORITIES));
    if !problems.is_empty() {
        return Err(Refusal::Invalid(problems));
    }
    let store = service.store()?;
    let page = if status.is_none() && priority.is_none() {
        page(store, call.user, skip, limit).await?
    } else {
        filtered_page(store, call.user, skip, limit, status, priority).await?
    };
    Ok(json(StatusCode::OK, page))
}

/// `POST /tasks/`
pub async fn create(service: Arc<Service>, call: Call) -> Result<Response, Refusal> {
    let mut fields = Fields::of_body(&call.body)?;
    let title = fields.text("title", 1, LONGEST_TITLE);
    let task = NewTask {
        owner: call.user,
        title,
        description: fields.optional_text("description", LONGEST_DESCRIPTION).value().cloned(),
        status: fields.word("status", STATUSES).unwrap_or("todo"),
        priority: fields.word("priority", PRIORITIES).unwrap_or("medium"),
        due_date: fields.date_time("due_date").value().cloned(),
        now: datetime::from_wall_ns(service.clock.wall_ns()),
    };
    fields.done()?;
    let store = service.store()?;
    let created = match idempotency_key(&call.headers)? {
        None => writing!(*store, pool => insert_task!(task, pool))?,
        Some(key) => create_once(store, &task, key).await?,
    };
    with_version(StatusCode::CREATED, Some((1, created)))
}

/// `GET /tasks/{task_id}`
pub async fn read(service: Arc<Service>, call: Call) -> Result<Response, Refusal> {
    let sql = concat!("SELECT version, ", task_json!(), " FROM tasks WHERE id = $1 AND owner_id = $2");
    let task = reading!(*service.store()?, pool => {
        sqlx::query_as(sql).bind(call.id).bind(call.user).fetch_optional(pool).await
    })?;
    with_version(StatusCode::OK, task)
}

/// `PUT /tasks/{task_id}`: what was not sent stays; null clears what may be empty.
pub async fn update(service: Arc<Service>, call: Call) -> Result<Response, Refusal> {
    let mut fields = Fields::of_body(&call.body)?;
    let change = TaskChange {
        title: fields.text_if_sent("title", 1, LONGEST_TITLE),
        description: fields.optional_text("description", LONGEST_DESCRIPTION),
        status: fields.word("status", STATUSES),
        priority: fields.word("priority", PRIORITIES),
        due_date: fields.date_time("due_date"),
    };
    fields.done()?;
    change_task(&service, &call, change).await
}

/// `PATCH /tasks/{task_id}/complete`
pub async fn complete(service: Arc<Service>, call: Call) -> Result<Response, Refusal> {
    change_task(&service, &call, TaskChange::status("done")).await
}

/// `PATCH /tasks/{task_id}/incomplete`
pub async fn incomplete(service: Arc<Service>, call: Call) -> Result<Response, Refusal> {
    change_task(&service, &call, TaskChange::status("todo")).await
}

/// `DELETE /tasks/{task_id}`
pub async fn delete(service: Arc<Service>, call: Call) -> Result<Response, Refusal> {
    let store = service.store()?;
    let expected = expected_version(store, &call).await?;
    let sql = "DELETE FROM tasks WHERE id = $1 AND owner_id = $2 AND ($3 = 0 OR version = $3)";
    let deleted = writing!(*store, pool => {
        sqlx::query(sql).bind(call.id).bind(call.user).bind(expected).execute(pool).await.map(|done| done.rows_affected())
    })?;
    match deleted {
        0 if expected != 0 => Err(PRECONDITION_FAILED),
        0 => Err(NO_SUCH_TASK),
        _ => Ok(no_content()),
    }
}

/// `GET /tasks/stats`
pub async fn stats(service: Arc<Service>, call: Call) -> Result<Response, Refusal> {
    let sql = r#"SELECT format('{"total":%s,"completed":%s,"todo":%s,"in_progress":%s,"done":%s,"low":%s,"medium":%s,"high":%s}',
        count(*), count(*) FILTER (WHERE status = 'done'), count(*) FILTER (WHERE status = 'todo'),
        count(*) FILTER (WHERE status = 'in_progress'), count(*) FILTER (WHERE status = 'done'),
        count(*) FILTER (WHERE priority = 'low'), count(*) FILTER (WHERE priority = 'medium'),
        count(*) FILTER (WHERE priority = 'high')) FROM tasks WHERE owner_id = $1"#;
    let counts: String =
        reading!(*service.store()?, pool => sqlx::query_scalar(sql).bind(call.user).fetch_one(pool).await)?;
    Ok(json(StatusCode::OK, counts))
}

/// How many tasks a user has, and how many of them are completed.
///
/// # Errors
/// When the database does not answer.
pub async fn totals(store: &Store, user: i64) -> Result<(i64, i64), sqlx::Error> {
    let sql = "SELECT count(*), count(*) FILTER (WHERE status = 'done') FROM tasks WHERE owner_id = $1";
    reading!(*store, pool => sqlx::query_as(sql).bind(user).fetch_one(pool).await)
}

/// Forgets idempotency keys of before `instant`.
///
/// # Errors
/// When the database does not answer.
pub async fn forget_keys_before(store: &Store, instant: &str) -> Result<(), sqlx::Error> {
    let sql = "DELETE FROM idempotency_keys WHERE created_at < $1";
    writing!(*store, pool => sqlx::query(sql).bind(instant).execute(pool).await.map(|_| ()))
}

const NO_SUCH_TASK: Refusal = Refusal::NotFound("task not found");
const PRECONDITION_FAILED: Refusal =
    Refusal::Status(StatusCode::PRECONDITION_FAILED, "the task has another version than If-Match asks for");

struct NewTask {
    owner: i64,
    title: String,
    description: Option<String>,
    status: &'static str,
    priority: &'static str,
    due_date: Option<String>,
    now: String,
}

struct TaskChange {
    title: Option<String>,
    description: Change<String>,
    status: Option<&'static str>,
    priority: Option<&'static str>,
    due_date: Change<String>,
}

impl TaskChange {
    fn status(status: &'static str) -> Self {
        Self { title: None, description: Change::Keep, status: Some(status), priority: None, due_date: Change::Keep }
    }
}

async fn page(store: &Store, user: i64, skip: i64, limit: i64) -> Result<String, sqlx::Error> {
    let sql = page_json!("owner_id = $1");
    reading!(*store, pool => sqlx::query_scalar(sql).bind(user).bind(skip).bind(limit).fetch_one(pool).await)
}

async fn filtered_page(
    store: &Store,
    user: i64,
    skip: i64,
    limit: i64,
    status: Option<&str>,
    priority: Option<&str>,
) -> Result<String, sqlx::Error> {
    let sql = page_json!(
        "owner_id = $1 AND (CAST($4 AS TEXT) IS NULL OR status = $4) AND (CAST($5 AS TEXT) IS NULL OR priority = $5)"
    );
    reading!(*store, pool => {
        sqlx::query_scalar(sql).bind(user).bind(skip).bind(limit).bind(status).bind(priority).fetch_one(pool).await
    })
}

/// Inserts a task through a pool or a transaction; gives its JSON.
macro_rules! insert_task {
    ($task:expr, $executor:expr) => {
        sqlx::query_scalar::<_, String>(INSERT)
            .bind($task.owner)
            .bind(&$task.title)
            .bind($task.description.as_deref())
            .bind($task.status)
            .bind($task.priority)
            .bind($task.due_date.as_deref())
            .bind(&$task.now)
            .fetch_one($executor)
            .await
    };
}
use insert_task;

const INSERT: &str = concat!(
    "INSERT INTO tasks (owner_id, title, description, status, priority, due_date, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $7) RETURNING ",
    task_json!()
);

/// Creates a task unless this key has created one: then it gives the answer it gave before. The key is written first,
/// so of two tries at once the second waits for the first and finds its answer.
async fn create_once(store: &Store, task: &NewTask, key: &str) -> Result<String, Refusal> {
    let request = task.fingerprint();
    let answer = writing!(*store, pool => async {
        let mut transaction = pool.begin().await?;
        let taken = sqlx::query(INSERT_KEY)
            .bind(task.owner)
            .bind(key)
            .bind(&request)
            .bind(&task.now)
            .execute(&mut *transaction)
            .await?
            .rows_affected()
            == 0;
        if taken {
            let (first, answer): (String, String) =
                sqlx::query_as(FIND_KEY).bind(task.owner).bind(key).fetch_one(&mut *transaction).await?;
            transaction.rollback().await?;
            return Ok((first == request).then_some(answer));
        }
        let answer = insert_task!(task, &mut *transaction)?;
        sqlx::query(ANSWER_KEY).bind(task.owner).bind(key).bind(&answer).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(Some(answer))
    }
    .await)?;
    answer.ok_or_else(key_reused)
}

const INSERT_KEY: &str = "INSERT INTO idempotency_keys (owner_id, key, request, created_at) VALUES ($1, $2, $3, $4)
    ON CONFLICT DO NOTHING";
const FIND_KEY: &str = "SELECT request, answer FROM idempotency_keys WHERE owner_id = $1 AND key = $2";
const ANSWER_KEY: &str = "UPDATE idempotency_keys SET answer = $3 WHERE owner_id = $1 AND key = $2";

impl NewTask {
    /// What was asked for, to tell a repeated request from another one with the same key.
    fn fingerprint(&self) -> String {
        serde_json::json!([self.title, self.description, self.status, self.priority, self.due_date]).to_string()
    }
}

fn key_reused() -> Refusal {
    Problem::new("header", "Idempotency-Key", "value_error", "was used for another request").into()
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=LONGEST_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Some(key))
        }
        _ => Err(Problem::new(
            "header",
            "Idempotency-Key",
            "value_error",
            "must be 1 to 255 visible ASCII characters without spaces",
        )),
    }
}

async fn change_task(service: &Service, call: &Call, change: TaskChange) -> Result<Response, Refusal> {
    let store = service.store()?;
    let expected = expected_version(store, call).await?;
    let sql = concat!(
        "UPDATE tasks SET title = COALESCE($4, title), status = COALESCE($5, status), priority = COALESCE($6, priority),
            description = CASE WHEN $7 THEN CAST($8 AS TEXT) ELSE description END,
            due_date = CASE WHEN $9 THEN CAST($10 AS TEXT) ELSE due_date END,
            updated_at = $11, version = version + 1
         WHERE id = $1 AND owner_id = $2 AND ($3 = 0 OR version = $3) RETURNING version, ",
        task_json!()
    );
    let now = datetime::from_wall_ns(service.clock.wall_ns());
    let task = writing!(*store, pool => {
        sqlx::query_as(sql)
            .bind(call.id)
            .bind(call.user)
            .bind(expected)
            .bind(change.title.as_deref())
            .bind(change.status)
            .bind(change.priority)
            .bind(change.description.is_change())
            .bind(change.description.value().map(String::as_str))
            .bind(change.due_date.is_change())
            .bind(change.due_date.value().map(String::as_str))
            .bind(&now)
            .fetch_optional(pool)
            .await
    })?;
    match task {
        None if expected != 0 => Err(PRECONDITION_FAILED),
        task => with_version(StatusCode::OK, task),
    }
}

/// The version that the statement must find, 0 for any: the present one, if `If-Match` allows it.
async fn expected_version(store: &Store, call: &Call) -> Result<i64, Refusal> {
    let Some(allowed) = AllowedVersions::of(&call.headers) else { return Ok(0) };
    let sql = "SELECT version FROM tasks WHERE id = $1 AND owner_id = $2";
    let version: Option<i64> =
        reading!(*store, pool => sqlx::query_scalar(sql).bind(call.id).bind(call.user).fetch_optional(pool).await)?;
    match version {
        None => Err(NO_SUCH_TASK),
        Some(_) if allowed == AllowedVersions::Any => Ok(0),
        Some(version) if allowed.contains(version) => Ok(version),
        Some(_) => Err(PRECONDITION_FAILED),
    }
}

/// What `If-Match` allows.
#[derive(Debug, PartialEq)]
enum AllowedVersions {
    Any,
    These(Vec<i64>),
}

impl AllowedVersions {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(IF_MATCH).iter().peekable();
        values.peek()?;
        let tags: Vec<&str> =
            values.filter_map(|value| value.to_str().ok()).flat_map(|tags| tags.split(',')).map(str::trim).collect();
        if tags == ["*"] {
            return Some(Self::Any);
        }
        // What is no tag of ours (weak ones among them) matches no version.
        let version = |tag: &str| tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok();
        Some(Self::These(tags.into_iter().filter_map(version).collect()))
    }

    fn contains(&self, version: i64) -> bool {
        match self {
            Self::Any => true,
            Self::These(versions) => versions.contains(&version),
        }
    }
}

fn with_version(status: StatusCode, task: Option<(i64, String)>) -> Result<Response, Refusal> {
    let (version, task) = task.ok_or(NO_SUCH_TASK)?;
    let mut response = json(status, task);
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(ETAG, tag);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_allows_any_some_or_no_version() {
        for (value, allowed) in [
            ("*", AllowedVersions::Any),
            ("\"3\"", AllowedVersions::These(vec![3])),
            ("\"3\", \"5\"", AllowedVersions::These(vec![3, 5])),
            ("W/\"3\"", AllowedVersions::These(vec![])),
            ("3", AllowedVersions::These(vec![])),
            ("", AllowedVersions::These(vec![])),
        ] {
            let mut headers = HeaderMap::new();
            assert_eq!(AllowedVersions::of(&headers), None);
            headers.insert(IF_MATCH, value.parse().unwrap());
            assert_eq!(AllowedVersions::of(&headers), Some(allowed), "{value}");
        }
    }
}

//! Users: register, log in, who am I.
//!
//! The one rule: a password hash leaves the database only to be checked, never in an answer.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;

use crate::datetime;
use crate::fields::{Change, Fields};
use crate::refusal::Refusal;
use crate::service::{Call, Service, json};
use crate::store::{Migrations, Store, reading, writing};

/// The tables of this domain.
pub static MIGRATIONS: Migrations = Migrations {
    sqlite: sqlx::migrate!("migrations/users/sqlite"),
    postgres: sqlx::migrate!("migrations/users/postgres"),
};

/// A user as JSON text, built by the database.
macro_rules! user_json {
    () => {
        r#"format('{"id":%s,"email":%s,"username":%s,"full_name":%s,"is_active":%s,"is_superuser":%s,"created_at":"%s","updated_at":"%s"}',
            id, json_quote(email), json_quote(username), json_quote(full_name),
            CASE WHEN is_active THEN 'true' ELSE 'false' END, CASE WHEN is_superuser THEN 'true' ELSE 'false' END,
            created_at, updated_at)"#
    };
}

/// `POST /auth/register`
pub async fn register(service: Arc<Service>, call: Call) -> Result<Response, Refusal> {
    let mut fields = Fields::of_body(&call.body)?;
    let email = fields.text("email", 3, 254);
    if !email.is_empty() && !is_email(&email) {
        fields.problem("email", "value_error", "must be an e-mail address");
    }
    let username = fields.text("username", 1, 64);
    let password = fields.text("password", 1, 128);
    let full_name = fields.optional_text("full_name", 255);
    fields.done()?;

    let store = service.store()?;
    if let Some(taken) = taken(store, &email, &username).await? {
        return Err(taken);
    }
    let hash = service.passwords.hash(password).await?;
    let now = datetime::from_wall_ns(service.clock.wall_ns());
    let user = insert(store, &email, &username, &hash, full_name, &now).await?;
    match user {
        Some(user) => Ok(json(StatusCode::CREATED, user)),
        // Someone took it while the password was hashed.
        None => Err(taken_by_now(store, &email, &username).await?),
    }
}

/// `POST /auth/login`
pub async fn login(service: Arc<Service>, call: Call) -> Result<Response, Refusal> {
    let mut fields = Fields::of_body(&call.body)?;
    let username = fields.text("username", 1, 64);
    let password = fields.text("password", 1, 128);
    fields.done()?;

    let sql = "SELECT id, password_hash FROM users WHERE username = $1 AND is_active";
    let user: Option<(i64, String)> =
        reading!(*service.store()?, pool => sqlx::query_as(sql).bind(&username).fetch_optional(pool).await)?;
    let (id, hash) = user.unzip();
    match (service.passwords.matches(password, hash).await?, id) {
        (true, Some(id)) => {
            let token = service.tokens.issue(id)?;
            Ok(json(StatusCode::OK, format!(r#"{{"access_token":"{token}","token_type":"bearer"}}"#)))
        }
        _ => Err(Refusal::Unauthorized("incorrect username or password")),
    }
}

/// `GET /auth/me`
pub async fn me(service: Arc<Service>, call: Call) -> Result<Response, Refusal> {
    let sql = concat!("SELECT ", user_json!(), " FROM users WHERE id = $1 AND is_active");
    let user: Option<String> =
        reading!(*service.store()?, pool => sqlx::query_scalar(sql).bind(call.user).fetch_optional(pool).await)?;
    match user {
        Some(user) => Ok(json(StatusCode::OK, user)),
        None => Err(Refusal::Unauthorized("the user of this token is gone")),
    }
}

async fn insert(
    store: &Store,
    email: &str,
    username: &str,
    hash: &str,
    full_name: Change<String>,
    now: &str,
) -> Result<Option<String>, sqlx::Error> {
    let sql = concat!(
        "INSERT INTO users (email, username, password_hash, full_name, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT DO NOTHING RETURNING ",
        user_json!()
    );
    writing!(*store, pool => {
        sqlx::query_scalar(sql)
            .bind(email)
            .bind(username)
            .bind(hash)
            .bind(full_name.value().map(String::as_str))
            .bind(now)
            .fetch_optional(pool)
            .await
    })
}

async fn taken(store: &Store, email: &str, username: &str) -> Result<Option<Refusal>, sqlx::Error> {
    let sql = "SELECT CAST(MAX(CASE WHEN email = $1 THEN 1 ELSE 0 END) AS BIGINT) FROM users WHERE email = $1 OR username = $2";
    let email_taken: Option<i64> =
        reading!(*store, pool => sqlx::query_scalar(sql).bind(email).bind(username).fetch_one(pool).await)?;
    Ok(email_taken.map(|email_taken| match email_taken {
        1 => Refusal::Status(StatusCode::BAD_REQUEST, "this email is already registered"),
        _ => Refusal::Status(StatusCode::BAD_REQUEST, "this username is already taken"),
    }))
}

async fn taken_by_now(store: &Store, email: &str, username: &str) -> Result<Refusal, sqlx::Error> {
    let taken = taken(store, email, username).await?;
    Ok(taken.unwrap_or(Refusal::Status(StatusCode::BAD_REQUEST, "this email or username is already taken")))
}

/// One `@` with something on both sides and no white space: the rest is for a mail server to say.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    let clean = !text.chars().any(|char| char.is_whitespace() || char.is_control());
    clean && !local.is_empty() && !domain.is_empty() && !domain.contains('@')
}

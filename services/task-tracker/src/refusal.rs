//! Every answer that is not the one asked for, as a value.
//!
//! The one rule: each has a JSON body with a `detail`, says what is wrong, and none of them is a 500. A 4xx and a 503 say
//! that nothing was done; where that is not known, it is a 502 or a 504.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;

/// Why a request is not answered with what it asked for.
#[derive(Debug)]
pub enum Refusal {
    /// 401: no token, or none of ours, or a wrong password.
    Unauthorized(&'static str),
    /// 404.
    NotFound(&'static str),
    /// 405, with the methods that the path has.
    WrongMethod(String),
    /// 422: which values are wrong and why.
    Invalid(Vec<Problem>),
    /// 503: more under way than this replica takes on.
    Shed,
    /// 503: something this answer needs cannot be had now.
    Unavailable(Cow<'static, str>),
    /// Any other status.
    Status(StatusCode, &'static str),
}

/// One wrong value, in the form that clients of Python frameworks know.
#[derive(Debug, PartialEq, Serialize)]
pub struct Problem {
    /// Where: `body`, `query`, `path` or `header`, then the field.
    pub loc: Vec<Cow<'static, str>>,
    /// What is wrong with it.
    pub msg: Cow<'static, str>,
    /// The kind of mistake.
    #[serde(rename = "type")]
    pub kind: &'static str,
}

impl Problem {
    /// A problem of one field.
    pub fn new(
        place: &'static str,
        field: &'static str,
        kind: &'static str,
        msg: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { loc: vec![place.into(), field.into()], msg: msg.into(), kind }
    }

    /// A problem of the body as a whole.
    pub fn of_body(kind: &'static str, msg: impl Into<Cow<'static, str>>) -> Self {
        Self { loc: vec!["body".into()], msg: msg.into(), kind }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Invalid(vec![problem])
    }
}

/// A database that cannot answer is a service that is unavailable, not one that is broken; unless it broke off over a
/// statement, which it may have carried out.
impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        eprintln!("database: {error}");
        match was_refused(&error) {
            true => Self::Unavailable("the database did not answer; try again".into()),
            false => Self::Status(StatusCode::BAD_GATEWAY, "the database broke off before it had answered"),
        }
    }
}

/// Whether a database has surely not carried out what it was asked.
fn was_refused(error: &sqlx::Error) -> bool {
    match error {
        // A server that is being stopped (class 57) says so in the middle of a commit too.
        sqlx::Error::Database(error) => error.code().is_none_or(|code| code.len() != 5 || !code.starts_with("57")),
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::BeginFailed => true,
        sqlx::Error::Configuration(_) | sqlx::Error::Tls(_) | sqlx::Error::Encode(_) => true,
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        _ => false,
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        eprintln!("request: {error:#}");
        Self::Unavailable("the service cannot do this now; try again".into())
    }
}

impl Refusal {
    /// The status it answers with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::WrongMethod(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Shed | Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Status(status, _) => *status,
        }
    }

    /// The answer.
    pub fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match &self {
            Self::Unauthorized(_) => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::WrongMethod(allowed) => {
                if let Ok(allowed) = HeaderValue::from_str(allowed) {
                    headers.insert(ALLOW, allowed);
                }
            }
            Self::Shed => {
                headers.insert(SHED, HeaderValue::from_static("1"));
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Unavailable(_) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }

    fn body(&self) -> String {
        let detail = match self {
            Self::Unauthorized(detail) | Self::NotFound(detail) | Self::Status(_, detail) => serde_json::json!(detail),
            Self::WrongMethod(_) => serde_json::json!("method not allowed"),
            Self::Invalid(problems) => serde_json::json!(problems),
            Self::Shed => serde_json::json!("too many requests under way; try again"),
            Self::Unavailable(detail) => serde_json::json!(detail),
        };
        serde_json::json!({ "detail": detail }).to_string()
    }
}

/// Marks a 503 of a replica that refused work before it began.
pub const SHED: axum::http::HeaderName = axum::http::HeaderName::from_static("x-shed");

/// What is left of the caller's deadline, in milliseconds from when the request was sent: no clock is shared.
pub const DEADLINE: axum::http::HeaderName = axum::http::HeaderName::from_static("x-deadline-ms");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_database_that_surely_did_nothing_is_unavailable() {
        let io = |kind| sqlx::Error::Io(std::io::Error::from(kind));
        for (error, status) in [
            (sqlx::Error::PoolTimedOut, 503),
            (sqlx::Error::PoolClosed, 503),
            (io(std::io::ErrorKind::ConnectionRefused), 503),
            (io(std::io::ErrorKind::ConnectionReset), 502),
            (io(std::io::ErrorKind::UnexpectedEof), 502),
            (sqlx::Error::Protocol("cut short".to_owned()), 502),
            (sqlx::Error::WorkerCrashed, 502),
        ] {
            let text = error.to_string();
            assert_eq!(Refusal::from(error).status().as_u16(), status, "{text}");
        }
    }
}

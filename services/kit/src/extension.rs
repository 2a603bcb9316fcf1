//! What a role's admin endpoint does beyond what every role's does: requests that only this role understands.
//!
//! A role registers one function; the admin endpoint hands it every request whose path it does not know itself, over
//! HTTP behind the run's token, or directly where the role shares the lab's process.

use std::sync::{Arc, OnceLock};

/// A request to a role: method, path, body.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `GET`, `POST`, `DELETE`.
    pub method: &'a str,
    /// The path, from its first slash.
    pub path: &'a str,
    /// The body.
    pub body: &'a str,
}

/// What a role answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// A status code of HTTP.
    pub status: u16,
    /// JSON, or a line of text that says what is wrong.
    pub body: String,
}

type Handler = Box<dyn Fn(Request<'_>) -> Answer + Send + Sync>;

/// Where a role registers its function. Cheap to clone.
#[derive(Clone, Default)]
pub struct Extension(Arc<OnceLock<Handler>>);

impl Extension {
    /// Registers the role's function; a second one is not heard.
    pub fn handle(&self, handler: impl Fn(Request<'_>) -> Answer + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(handler));
    }

    /// Asks the role; 404 where it has registered nothing.
    pub fn call(&self, request: Request<'_>) -> Answer {
        match self.0.get() {
            Some(handler) => handler(request),
            None => Answer { status: 404, body: format!("this role has no {} {}\n", request.method, request.path) },
        }
    }
}

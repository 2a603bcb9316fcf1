//! The API, one row an operation: who answers it, with what, and what may go wrong.
//!
//! The one rule: routing and the OpenAPI document are both read from this table, so neither can say what the other
//! does not.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::Method;
use axum::response::Response;
use kit::role::BoxFuture;

use crate::refusal::Refusal;
use crate::service::{self, Call, Service};
use crate::{stats, tasks, users};

/// The part of the application that an operation belongs to: in the microservices assembly, the service that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Users and tokens.
    Users,
    /// Tasks.
    Tasks,
    /// Statistics.
    Stats,
    /// Every role answers it for itself.
    Every,
}

/// Answers one call.
pub type Handle = fn(Arc<Service>, Call) -> BoxFuture<Result<Response, Refusal>>;

/// One operation of the API.
pub struct Operation {
    /// Its name in the OpenAPI document.
    pub id: &'static str,
    /// Its method.
    pub method: Method,
    /// Its path; `{task_id}` is a whole number. With or without a slash at the end, both answer.
    pub path: &'static str,
    /// Who has it.
    pub part: Part,
    /// Whether it needs a token.
    pub token: bool,
    /// The schema of its body.
    pub body: Option<&'static str>,
    /// The status and the schema of its answer; no schema is no body.
    pub answer: (u16, Option<&'static str>),
    /// What else it may answer for reasons of its own; see [`Operation::refusals`].
    pub own_refusals: &'static [u16],
    /// The names of its parameters, as in the OpenAPI document's components.
    pub parameters: &'static [&'static str],
    /// Answers it.
    pub handle: Handle,
}

impl Operation {
    /// What else it may answer, in order: its own refusals, those of a token and of a body, and those of every part that
    /// works on something.
    pub fn refusals(&self) -> BTreeSet<u16> {
        let mut refusals = BTreeSet::from_iter(self.own_refusals.iter().copied());
        refusals.extend(self.token.then_some(401));
        refusals.extend(self.body.iter().flat_map(|_| [413, 422]));
        if self.part != Part::Every {
            refusals.extend([502, 503, 504]);
        }
        refusals
    }
}

macro_rules! handle {
    ($function:path) => {
        |service, call| Box::pin($function(service, call))
    };
}

/// The API. A path without a parameter comes before one that would match it too.
pub static OPERATIONS: &[Operation] = &[
    Operation {
        id: "register",
        method: Method::POST,
        path: "/api/v1/auth/register",
        part: Part::Users,
        token: false,
        body: Some("Registration"),
        answer: (201, Some("User")),
        own_refusals: &[400],
        parameters: &[],
        handle: handle!(users::register),
    },
    Operation {
        id: "login",
        method: Method::POST,
        path: "/api/v1/auth/login",
        part: Part::Users,
        token: false,
        body: Some("Credentials"),
        answer: (200, Some("Token")),
        own_refusals: &[401],
        parameters: &[],
        handle: handle!(users::login),
    },
    Operation {
        id: "me",
        method: Method::GET,
        path: "/api/v1/auth/me",
        part: Part::Users,
        token: true,
        body: None,
        answer: (200, Some("User")),
        own_refusals: &[],
        parameters: &[],
        handle: handle!(users::me),
    },
    Operation {
        id: "list_tasks",
        method: Method::GET,
        path: "/api/v1/tasks/",
        part: Part::Tasks,
        token: true,
        body: None,
        answer: (200, Some("Page")),
        own_refusals: &[422],
        parameters: &["skip", "limit", "status", "priority"],
        handle: handle!(tasks::list),
    },
    Operation {
        id: "create_task",
        method: Method::POST,
        path: "/api/v1/tasks/",
        part: Part::Tasks,
        token: true,
        body: Some("NewTask"),
        answer: (201, Some("Task")),
        own_refusals: &[],
        parameters: &["idempotency_key"],
        handle: handle!(tasks::create),
    },
    Operation {
        id: "task_stats",
        method: Method::GET,
        path: "/api/v1/tasks/stats",
        part: Part::Tasks,
        token: true,
        body: None,
        answer: (200, Some("TaskCounts")),
        own_refusals: &[],
        parameters: &[],
        handle: handle!(tasks::stats),
    },
    Operation {
        id: "read_task",
        method: Method::GET,
        path: "/api/v1/tasks/{task_id}",
        part: Part::Tasks,
        token: true,
        body: None,
        answer: (200, Some("Task")),
        own_refusals: &[404, 422],
        parameters: &["task_id"],
        handle: handle!(tasks::read),
    },
    Operation {
        id: "update_task",
        method: Method::PUT,
        path: "/api/v1/tasks/{task_id}",
        part: Part::Tasks,
        token: true,
        body: Some("TaskChange"),
        answer: (200, Some("Task")),
        own_refusals: &[404, 412],
        parameters: &["task_id", "if_match"],
        handle: handle!(tasks::update),
    },
    Operation {
        id: "delete_task",
        method: Method::DELETE,
        path: "/api/v1/tasks/{task_id}",
        part: Part::Tasks,
        token: true,
        body: None,
        answer: (204, None),
        own_refusals: &[404, 412, 422],
        parameters: &["task_id", "if_match"],
        handle: handle!(tasks::delete),
    },
    Operation {
        id: "complete_task",
        method: Method::PATCH,
        path: "/api/v1/tasks/{task_id}/complete",
        part: Part::Tasks,
        token: true,
        body: None,
        answer: (200, Some("Task")),
        own_refusals: &[404, 412, 422],
        parameters: &["task_id", "if_match"],
        handle: handle!(tasks::complete),
    },
    Operation {
        id: "reopen_task",
        method: Method::PATCH,
        path: "/api/v1/tasks/{task_id}/incomplete",
        part: Part::Tasks,
        token: true,
        body: None,
        answer: (200, Some("Task")),
        own_refusals: &[404, 412, 422],
        parameters: &["task_id", "if_match"],
        handle: handle!(tasks::incomplete),
    },
    Operation {
        id: "stats",
        method: Method::GET,
        path: "/api/v1/stats/",
        part: Part::Stats,
        token: true,
        body: None,
        answer: (200, Some("Stats")),
        own_refusals: &[],
        parameters: &[],
        handle: handle!(stats::stats),
    },
    Operation {
        id: "health",
        method: Method::GET,
        path: "/health",
        part: Part::Every,
        token: false,
        body: None,
        answer: (200, Some("Health")),
        own_refusals: &[],
        parameters: &[],
        handle: handle!(service::health),
    },
    Operation {
        id: "ready",
        method: Method::GET,
        path: "/readyz",
        part: Part::Every,
        token: false,
        body: None,
        answer: (200, Some("Health")),
        own_refusals: &[503],
        parameters: &[],
        handle: handle!(service::ready),
    },
    Operation {
        id: "openapi",
        method: Method::GET,
        path: "/openapi.json",
        part: Part::Every,
        token: false,
        body: None,
        answer: (200, Some("Document")),
        own_refusals: &[],
        parameters: &[],
        handle: handle!(service::openapi),
    },
];

/// What a method and a path ask for.
pub enum Found<'a> {
    /// This operation, with what stands where its path has `{task_id}`.
    Operation(&'static Operation, Option<&'a str>),
    /// A path that answers to these methods only.
    WrongMethod(String),
    /// Nothing of ours.
    Nothing,
}

/// Finds an operation among those of a role. A path that is named in full is not also one with a parameter.
pub fn find<'a>(operations: &[&'static Operation], method: &Method, path: &'a str) -> Found<'a> {
    let mut allowed = Vec::new();
    let mut named = false;
    for operation in operations {
        let Some(id) = matches(operation.path, path) else { continue };
        if named && id.is_some() {
            continue;
        }
        if operation.method == *method {
            return Found::Operation(operation, id);
        }
        named |= id.is_none();
        allowed.push(operation.method.as_str());
    }
    if allowed.is_empty() { Found::Nothing } else { Found::WrongMethod(allowed.join(", ")) }
}

/// None: another path. Otherwise what stands for its parameter, if it has one.
fn matches<'a>(pattern: &str, path: &'a str) -> Option<Option<&'a str>> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let pattern = pattern.strip_suffix('/').unwrap_or(pattern);
    let Some((before, after)) = pattern.split_once("{task_id}") else {
        return (pattern == path).then_some(None);
    };
    let id = path.strip_prefix(before)?.strip_suffix(after)?;
    (!id.is_empty() && !id.contains('/')).then_some(Some(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_finds_its_operation_with_and_without_a_slash_at_the_end() {
        let all: Vec<_> = OPERATIONS.iter().collect();
        for (method, path, expected) in [
            (Method::GET, "/api/v1/tasks", "list_tasks"),
            (Method::GET, "/api/v1/tasks/", "list_tasks"),
            (Method::GET, "/api/v1/tasks/stats", "task_stats"),
            (Method::GET, "/api/v1/tasks/7", "read_task 7"),
            (Method::GET, "/api/v1/tasks/x%20y/", "read_task x%20y"),
            (Method::PATCH, "/api/v1/tasks/7/complete", "complete_task 7"),
            (Method::PATCH, "/api/v1/tasks/7", "only GET, PUT, DELETE"),
            (Method::PUT, "/api/v1/tasks/stats", "only GET"),
            (Method::GET, "/api/v1/tasks/7/8", "nothing"),
            (Method::GET, "/api/v1/tasks//", "nothing"),
            (Method::GET, "/", "nothing"),
            (Method::GET, "", "nothing"),
        ] {
            let found = match find(&all, &method, path) {
                Found::Operation(operation, None) => operation.id.to_owned(),
                Found::Operation(operation, Some(id)) => format!("{} {id}", operation.id),
                Found::WrongMethod(allowed) => format!("only {allowed}"),
                Found::Nothing => "nothing".to_owned(),
            };
            assert_eq!(found, expected, "{method} {path}");
        }
    }
}

//! How much of a user's work is done.
//!
//! The one rule: numbers that cannot be had are a 503, never zeros.

use std::sync::Arc;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;

use crate::gateway::upstream::{Forward, Reply, Upstream};
use crate::refusal::Refusal;
use crate::service::{Call, Service, deadline_ms, json};
use crate::tasks;

/// Where the counts come from: what sets the two assemblies apart.
pub enum Counts {
    /// This role's own database.
    Store,
    /// The task service, asked with the caller's token.
    TaskService(Upstream),
    /// This role has no statistics.
    None,
}

/// `GET /stats/`
pub async fn stats(service: Arc<Service>, call: Call) -> Result<Response, Refusal> {
    let (total, completed) = match &service.counts {
        Counts::Store => tasks::totals(service.store()?, call.user).await?,
        Counts::TaskService(upstream) => ask(upstream, &call).await?,
        Counts::None => return Err(Refusal::NotFound("not found")),
    };
    let body = serde_json::json!({
        "total_tasks": total,
        "completed_tasks": completed,
        "completed_percentage": percentage(completed, total),
    });
    Ok(json(StatusCode::OK, body.to_string()))
}

#[derive(Deserialize)]
struct TaskCounts {
    total: i64,
    completed: i64,
}

async fn ask(upstream: &Upstream, call: &Call) -> Result<(i64, i64), Refusal> {
    let mut headers = HeaderMap::new();
    if let Some(token) = call.headers.get(AUTHORIZATION) {
        headers.insert(AUTHORIZATION, token.clone());
    }
    let request = Forward {
        method: Method::GET,
        target: "/api/v1/tasks/stats".into(),
        headers,
        body: Bytes::new(),
        repeatable: false,
    };
    match upstream.send(&request, deadline_ms(&call.headers)).await {
        Ok(Reply { status: StatusCode::OK, body, .. }) => match serde_json::from_slice::<TaskCounts>(&body) {
            Ok(counts) => Ok((counts.total, counts.completed)),
            Err(error) => Err(unavailable(format!("the task service's answer is not one: {error}"))),
        },
        Ok(Reply { status: StatusCode::UNAUTHORIZED, .. }) => Err(Refusal::Unauthorized("no valid token")),
        Ok(reply) => Err(unavailable(format!("the task service answered {}", reply.status))),
        Err(failure) => Err(unavailable(failure.to_string())),
    }
}

fn unavailable(reason: String) -> Refusal {
    Refusal::Unavailable(format!("no statistics now: {reason}").into())
}

/// With two decimals; of nothing, nothing is done.
fn percentage(completed: i64, total: i64) -> f64 {
    if total == 0 { 0.0 } else { (completed as f64 / total as f64 * 10_000.0).round() / 100.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_have_two_decimals_and_of_nothing_is_zero() {
        for (completed, total, expected) in [(0, 0, 0.0), (0, 3, 0.0), (1, 3, 33.33), (2, 3, 66.67), (3, 3, 100.0)] {
            assert_eq!(percentage(completed, total), expected);
        }
    }
}

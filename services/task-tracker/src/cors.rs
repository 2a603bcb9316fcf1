//! Lets a web front end on another port use the API.
//!
//! The one rule: unless told otherwise, only pages from this machine may.

use std::time::Duration;

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use crate::refusal::SHED;

/// The layer for the configured origins; none: any on loopback.
///
/// # Errors
/// When an origin cannot be sent in a header.
pub fn layer(origins: Option<&[String]>) -> anyhow::Result<CorsLayer> {
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, IF_MATCH, HeaderName::from_static("idempotency-key")])
        .expose_headers([ETAG, RETRY_AFTER, WWW_AUTHENTICATE, SHED])
        .max_age(Duration::from_secs(600));
    Ok(match origins {
        None => layer.allow_origin(AllowOrigin::predicate(|origin, _| is_loopback(origin))),
        Some(origins) if origins.iter().any(|origin| origin == "*") => layer.allow_origin(Any),
        Some(origins) => layer.allow_origin(AllowOrigin::list(values(origins)?)),
    })
}

fn values(origins: &[String]) -> anyhow::Result<Vec<HeaderValue>> {
    let value = |origin: &String| {
        origin
            .parse()
            .map_err(|_| anyhow::anyhow!("settings.cors_origins: {origin:?} is no origin; give http://host:port"))
    };
    origins.iter().map(value).collect()
}

fn is_loopback(origin: &HeaderValue) -> bool {
    let Some((_, host)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else { return false };
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(host, |(name, _)| name);
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_this_machine_are_loopback() {
        for (origin, expected) in [
            ("http://localhost:3000", true),
            ("http://localhost", true),
            ("https://127.0.0.1:8443", true),
            ("http://[::1]:5173", true),
            ("http://localhost.evil.example", false),
            ("http://evil.example:80", false),
            ("http://10.0.0.1:3000", false),
            ("null", false),
        ] {
            assert_eq!(is_loopback(&HeaderValue::from_static(origin)), expected, "{origin}");
        }
    }
}

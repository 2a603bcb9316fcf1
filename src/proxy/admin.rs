//! What the proxy's admin endpoint understands: `/faults` and `/links`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use kit::extension::{Answer, Request};
use serde_json::json;

use super::faults::{Faults, Refused};
use super::lane::Counters;

/// The paths, for whoever asks for another.
const PATHS: &str = "GET, POST and DELETE /faults, DELETE /faults/ID, GET /links";

/// What can be asked of a proxy.
pub struct Admin {
    /// Its faults.
    pub faults: Faults,
    /// Its counts.
    pub counters: Arc<Counters>,
    /// Connections it has accepted.
    pub accepted: AtomicU64,
}

impl Admin {
    /// Answers a request.
    pub fn answer(&self, request: Request<'_>) -> Answer {
        let path = request.path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(request.path);
        let result = match (request.method, path) {
            ("GET", "/faults") => Ok(self.list()),
            ("POST", "/faults") => self.add(request.body),
            ("DELETE", "/faults") => self.lift(None),
            ("GET", "/links") => Ok(self.links()),
            ("DELETE", path) if path.starts_with("/faults/") => match path["/faults/".len()..].parse() {
                Ok(id) => self.lift(Some(id)),
                Err(_) => Err(Refused::Wrong(format!("{path:?} names no fault; write /faults/1"))),
            },
            (method, path) => {
                let known = path == "/faults" || path == "/links" || path.starts_with("/faults/");
                let status = if known { 405 } else { 404 };
                return Answer { status, body: format!("a proxy has no {method} {path}; it has {PATHS}\n") };
            }
        };
        match result {
            Ok(json) => Answer { status: 200, body: format!("{json}\n") },
            Err(Refused::Wrong(why)) => Answer { status: 400, body: format!("{why}\n") },
            Err(Refused::Unknown(why)) => Answer { status: 404, body: format!("{why}\n") },
            Err(Refused::Stuck(why)) => Answer { status: 503, body: format!("{why}\n") },
        }
    }

    fn list(&self) -> serde_json::Value {
        let set = self.faults.current();
        let faults = set.iter().map(|active| {
            json!({
                "id": active.id,
                "fault": active.fault,
                "since_ns": active.since_ns,
                "touched": active.touched(),
            })
        });
        faults.collect()
    }

    fn add(&self, text: &str) -> Result<serde_json::Value, Refused> {
        let fault = text.trim().parse().map_err(Refused::Wrong)?;
        let (id, applied_ns) = self.faults.add(fault)?;
        Ok(json!({"id": id, "applied_ns": applied_ns}))
    }

    fn lift(&self, id: Option<u64>) -> Result<serde_json::Value, Refused> {
        Ok(json!({"lifted_ns": self.faults.lift(id)?}))
    }

    fn links(&self) -> serde_json::Value {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        json!({
            "open": count(&self.counters.open),
            "total": count(&self.accepted),
            "refused": count(&self.counters.refused),
            "bytes_up": count(&self.counters.bytes_up),
            "bytes_down": count(&self.counters.bytes_down),
        })
    }
}

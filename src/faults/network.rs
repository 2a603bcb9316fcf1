//! Faults of a link: told to the proxies in it, which act on open connections too.

use serde::Deserialize;

use super::Planned;
use super::inject::{Applied, Effect, Stage};
use crate::deploy::AdminClient;
use crate::proxy::LinkFault;

/// Breaks a link, or, where nobody is named, the links of all who talk to the role.
pub(super) fn break_link<'s>(stage: &'s Stage<'_>, planned: &Planned, fault: &LinkFault) -> anyhow::Result<Effect<'s>> {
    let is_meant = |link: &&crate::deploy::running::Link| {
        let caller = planned.from.as_deref();
        link.role == planned.role
            && link.replica == planned.replica
            && link.http == fault.is_http()
            && caller.is_none_or(|caller| caller == link.from)
    };
    let mut broken = Broken { stage, applied: Vec::new(), ready_ns: None };
    let command_ns = stage.clock.now_ns();
    for link in stage.running.links.iter().filter(is_meant) {
        let admin = stage.running.slots[link.slot].admin();
        let admin = admin.ok_or_else(|| anyhow::anyhow!("the proxy from {} to {} is gone", link.from, link.role))?;
        let answer = admin.extension("POST", "/faults", &fault.to_string())?;
        let Acknowledged { id } = serde_json::from_str(&answer)?;
        broken.applied.push((admin, id));
    }
    anyhow::ensure!(!broken.applied.is_empty(), "there is no such link");
    let seen_ns = Some(stage.clock.now_ns());
    Ok(Effect { applied: Box::new(broken), command_ns, seen_ns, problem: None })
}

/// What a proxy answers once a fault acts.
#[derive(Deserialize)]
struct Acknowledged {
    id: u64,
}

/// Links that are broken.
struct Broken<'s> {
    stage: &'s Stage<'s>,
    /// The fault's number at each proxy.
    applied: Vec<(AdminClient, u64)>,
    ready_ns: Option<u64>,
}

impl Applied for Broken<'_> {
    fn heal(&mut self) -> anyhow::Result<()> {
        // All of them, also when one does not answer; that one is tried again.
        let mut refused = None;
        self.applied.retain(|(admin, id)| {
            let lifted = lift(admin, *id).or_else(|_| lift(admin, *id));
            lifted.map_err(|error| refused = Some(error)).is_err()
        });
        refused.map_or(Ok(()), Err)?;
        self.ready_ns.get_or_insert(self.stage.clock.now_ns());
        Ok(())
    }

    fn ready_ns(&self) -> Option<u64> {
        self.ready_ns
    }
}

fn lift(admin: &AdminClient, id: u64) -> anyhow::Result<()> {
    admin.extension("DELETE", &format!("/faults/{id}"), "").map(drop)
}

impl Drop for Broken<'_> {
    fn drop(&mut self) {
        // A proxy that does not answer ends with the trial, and the fault with it.
        let _ = self.heal();
    }
}

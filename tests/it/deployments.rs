//! What every deployment does alike with a role that does not behave.

use std::path::Path;
use std::process::Command;

use kit::{Env, Role, RoleConfig};
use scalelab::deploy::in_process::InProcess;
use scalelab::deploy::processes::Processes;
use scalelab::deploy::trial::READY_WITHIN;
use scalelab::deploy::{Deployment, Launch};

use super::lab::scratch;

const LAST_WORDS: &str = "the database could not be closed";

/// Ready at once; asked to stop, it ends with an error.
async fn fails_at_its_end(env: Env) -> anyhow::Result<()> {
    env.ready();
    env.shutdown.requested().await;
    anyhow::bail!(LAST_WORDS)
}

/// The same as a program.
const PROGRAM: &str = r#"#!/bin/sh
trap 'echo "error: the database could not be closed" >&2; exit 4' TERM
read config
echo '{"ready_addr":"127.0.0.1:1","admin_addr":"127.0.0.1:1","pid":1}'
while read more; do :; done
"#;

/// Written by another process: a file that this one has open for writing cannot be run by a child of a test beside it.
fn program(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("role");
    let write = "printf %s \"$1\" > \"$2\" && chmod 700 \"$2\"";
    let status = Command::new("sh").args(["-c", write, "sh", PROGRAM]).arg(&path).status().unwrap();
    assert!(status.success());
    path
}

#[test]
fn a_role_that_ends_with_an_error_when_it_is_stopped_says_so_in_every_deployment() {
    let folder = scratch();
    let processes = Processes { program: program(folder.path()) };
    let deployments: [(&str, &dyn Deployment); 2] = [("in-process", &InProcess), ("processes", &processes)];
    for (name, deployment) in deployments {
        let role = Role { name: "last", about: "fails at its end", run: |env| Box::pin(fails_at_its_end(env)) };
        let launch = Launch {
            system: "none",
            role,
            config: RoleConfig::new("last"),
            cpus: None,
            log: &folder.path().join(format!("{name}.log")),
            ready_within: READY_WITHIN,
            interrupted: &|| false,
        };
        let mut replica = deployment.launch(&launch).unwrap();
        let error = format!("{:#}", replica.stop().expect_err(name));
        assert!(error.contains("role last 1 ended with an error when it was stopped"), "{name}: {error}");
        assert!(error.ends_with(LAST_WORDS), "{name}: {error}");
        assert!(replica.stop().is_ok(), "{name}: it is said once");
    }
}

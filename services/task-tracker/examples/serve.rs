//! Serves one role by hand: `serve FILE`, or `serve` with one line of configuration on standard input.
//!
//! The lab has a command for this; here it is without the lab, for measuring a role alone.

use std::path::PathBuf;
use std::process::ExitCode;

use kit::host::{ConfigSource, run_process};
use task_tracker::ROLES;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let source = std::env::args_os().nth(1).map_or(ConfigSource::Stdin, |path| ConfigSource::File(PathBuf::from(path)));
    let find = |name: &str| {
        let role = ROLES.iter().find(|role| role.name == name).copied();
        role.ok_or_else(|| {
            let known: Vec<_> = ROLES.iter().map(|role| role.name).collect();
            anyhow::anyhow!("there is no role {name}; there are {}", known.join(", "))
        })
    };
    run_process(find, source)
}

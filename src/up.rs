//! Starts a system as processes, to use by hand, until Ctrl-C.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use kit::RoleConfig;

use crate::database::Server;
use crate::deploy::processes::Processes;
use crate::deploy::trial::READY_WITHIN;
use crate::deploy::{Deployment, Launch, Replica};
use crate::error::{input, surroundings};
use crate::experiment::{Level, Levels, RoleLimits, file};
use crate::interrupt::Interrupt;
use crate::systems;

/// `scalelab up`.
#[derive(Args)]
pub struct UpArgs {
    /// The system
    system: String,
    /// monolith or microservices
    #[arg(long, default_value = "monolith")]
    arch: String,
    /// Replicas of each service behind the gateway, or of the monolith
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    replicas: u32,
    /// sqlite, postgres (server in SCALELAB_POSTGRES_URL), or a postgres:// URL
    #[arg(long, default_value = "sqlite")]
    database: String,
    /// Where the entry is served [default: monolith 9000, gateway 8000]
    #[arg(long)]
    port: Option<u16>,
    /// Keep data in this folder, and use what is there; without, data is fresh and goes when it ends
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Starts, waits for Ctrl-C, and ends everything.
///
/// # Errors
/// When something could not be started, as surroundings.
pub fn run(args: &UpArgs) -> anyhow::Result<u8> {
    let system = systems::find(&args.system).filter(|system| !system.roles().is_empty()).ok_or_else(|| {
        input(format!("there is nothing to start for {:?}; `scalelab list` names the systems", args.system))
    })?;
    let text = format!("system = {:?}\n[load]\nusers = 1\n[factors]\narchitecture = [{:?}]\n", args.system, args.arch);
    let mut experiment = file::parse(&text, "--arch", "up")?;
    for role in system.roles().iter().filter(|role| role.name != "gateway") {
        experiment
            .roles
            .insert(role.name.to_owned(), RoleLimits { replicas: Some(args.replicas), ..RoleLimits::default() });
    }
    let levels = Levels::from([("architecture".to_owned(), Level::Text(args.arch.clone()))]);
    let assembly = system.assemble(&experiment, &levels);
    let Some(entry) = assembly.entry else {
        return Err(input(format!(
            "{} has no address to talk to; start its source by hand with `scalelab stream source`",
            args.system
        )));
    };
    let interrupt = Interrupt::listen("stopping")?;
    let scratch = tempfile::Builder::new().prefix("scalelab-up-").tempdir()?;
    let data = args.data.clone().unwrap_or_else(|| scratch.path().to_owned());
    std::fs::create_dir_all(&data).map_err(|error| surroundings(format!("cannot make {}: {error}", data.display())))?;
    let url = args.database.contains("://").then_some(args.database.as_str());
    let server = Server::find(if url.is_some() { "postgres" } else { &args.database }, url)?;
    let names: Vec<_> = assembly.parts.iter().filter_map(|part| part.database).collect();
    let databases = server.make(&names, &data, &format!("up{:x}", std::process::id()))?;
    let secret = keep_secret(&data)?;
    let admin_token = kit::secret()?;
    let processes = Processes::this_program()?;
    let mut started: Vec<(&str, Box<dyn Replica>)> = Vec::new();
    'starting: for part in &assembly.parts {
        for replica in 1..=part.replicas {
            if interrupt.is_asked() {
                break 'starting;
            }
            let port = if part.role == entry { args.port.unwrap_or(part.port) } else { part.port };
            let mut config = RoleConfig::new(part.role);
            config.replica = replica;
            config.run = "up".to_owned();
            config.admin_token.clone_from(&admin_token);
            config.bind.set_port(if replica == 1 { port } else { 0 });
            config.settings = system.role_settings(&experiment, &levels);
            config.secrets.insert("jwt_key".to_owned(), secret.clone());
            if let Some(url) = part.database.and_then(|name| databases.url(name)) {
                config.secrets.insert("database_url".to_owned(), url.to_owned());
            }
            for peer in part.peers {
                let addrs = started.iter().filter(|(role, _)| role == peer).map(|(_, replica)| replica.addr());
                config.peers.insert((*peer).to_owned(), addrs.collect());
            }
            let log = scratch.path().join(format!("{}-{replica}.log", part.role));
            let interrupted = || interrupt.is_asked();
            let role = systems::find_role(system.name(), part.role)?;
            let launch = Launch {
                system: system.name(),
                role,
                config,
                cpus: None,
                log: &log,
                ready_within: READY_WITHIN,
                interrupted: &interrupted,
            };
            let running = match processes.launch(&launch) {
                Ok(running) => running,
                // What was being started is gone; what runs is stopped below.
                Err(_) if interrupt.is_asked() => break 'starting,
                Err(error) => return Err(error),
            };
            println!("{:<14} http://{}", part.role, running.addr());
            started.push((part.role, running));
        }
    }
    if let Some((_, entry)) = started.iter().find(|(role, _)| *role == entry) {
        println!("\ntry:  curl http://{}/health", entry.addr());
        println!("API:  http://{}/openapi.json", entry.addr());
        println!(
            "stop with Ctrl-C; data {}",
            if args.data.is_some() { format!("stays in {}", data.display()) } else { "goes then".to_owned() }
        );
    }
    let ended = loop {
        if interrupt.wait(Duration::from_millis(500)) {
            break None;
        }
        if let Some(reason) = started.iter_mut().find_map(|(_, replica)| replica.ended()) {
            break Some(reason);
        }
    };
    for (_, replica) in started.iter_mut().rev() {
        if let Err(error) = replica.stop() {
            eprintln!("{error:#}");
        }
    }
    drop(started);
    drop(databases);
    ended.map_or(Ok(0), |reason| Err(surroundings(reason)))
}

/// Kept with the data, so that tokens given out before still hold.
fn keep_secret(data: &std::path::Path) -> anyhow::Result<String> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = data.join("jwt.key");
    if let Ok(secret) = std::fs::read_to_string(&path) {
        return Ok(secret);
    }
    let secret = kit::secret()?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    std::io::Write::write_all(&mut file, secret.as_bytes())?;
    Ok(secret)
}

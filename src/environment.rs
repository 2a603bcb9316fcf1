//! The machine a run runs on, and the names that a run makes.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::deploy::pinning::{self, Budget};
use crate::error::surroundings;
use crate::experiment::{DeploymentKind, Experiment};
use crate::load::LEFT_OUT;

/// `20260102_030405`, local time.
pub fn stamp() -> String {
    now().strftime("%Y%m%d_%H%M%S").to_string()
}

fn now() -> jiff::Zoned {
    let ns = i128::from(kit::Clock::real().wall_ns());
    let timestamp = jiff::Timestamp::from_nanosecond(ns).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    timestamp.to_zoned(jiff::tz::TimeZone::system())
}

/// A short name for a run, unique on this machine: part of the names of accounts, databases and processes.
pub fn run_name(folder: &Path) -> String {
    let stamp = folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    format!("{}{:x}", stamp.replace('_', ""), std::process::id())
}

/// What `environment.json` says: flat, and without anything secret.
pub fn describe(experiment: &Experiment, budget: &Budget) -> serde_json::Value {
    let cpu_model = read_field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned());
    let memory_kib =
        read_field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started_at": now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        "command": command_line(std::env::args()),
        "cpu_model": cpu_model,
        "cpus": pinning::allowed().len(),
        "memory_gib": memory_kib.map(|kib| (kib as f64 / 1024.0 / 1024.0 * 10.0).round() / 10.0),
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()).ok(),
        "os": read_field_eq("/etc/os-release", "PRETTY_NAME"),
        "deployment": experiment.deployment.to_string(),
        "budget": budget_sentence(experiment, budget),
    })
}

/// The command line without the passwords of URLs, the values of secret headers and parameters, and bodies.
fn command_line(words: impl Iterator<Item = String>) -> String {
    let mut is_body = false;
    let shown = words.enumerate().map(|(index, word)| {
        if index == 0 {
            return Path::new(&word).file_name().map_or(word.clone(), |name| name.to_string_lossy().into_owned());
        }
        if std::mem::replace(&mut is_body, matches!(word.as_str(), "-b" | "--body")) {
            return body(&word).to_owned();
        }
        match ["--body=", "-b"].into_iter().find_map(|flag| Some((flag, word.strip_prefix(flag)?))) {
            Some((flag, value)) if !value.is_empty() => format!("{flag}{}", body(value)),
            _ => without_secrets(&word),
        }
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// A body may hold anything; the name of its file is no secret.
fn body(text: &str) -> &str {
    if text.starts_with('@') { text } else { LEFT_OUT }
}

fn without_secrets(word: &str) -> String {
    match word.split_once(':') {
        Some((name, value)) if !value.starts_with("//") && kit::is_secret(name) => format!("{name}: ***"),
        _ => kit::redacted(word),
    }
}

fn budget_sentence(experiment: &Experiment, budget: &Budget) -> String {
    match (experiment.deployment, &budget.system, &budget.load) {
        (DeploymentKind::External, ..) => {
            "The system runs elsewhere; the lab neither started nor limited it.".to_owned()
        }
        (DeploymentKind::Simulated, ..) => {
            "Nothing ran: every number comes from the system's model on a virtual clock.".to_owned()
        }
        (_, Some(system), Some(load)) => {
            let own = experiment.roles.iter().filter_map(|(role, limits)| Some((role, limits.cpus.as_ref()?)));
            let own: String = own.map(|(role, cpus)| format!(" But {role} has CPU {cpus}.")).collect();
            format!(
                "All roles of an architecture together share CPU {}; the load generator is on CPU {}.{own} \
                 Memory is not limited; every architecture has the machine's.",
                pinning::show(system),
                pinning::show(load)
            )
        }
        _ => "This machine has one CPU: system and load generator share it, so compare with care.".to_owned(),
    }
}

fn read_field(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn read_field_eq(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once('=')?.1.trim_matches('"').to_owned())
}

/// Whether external systems answer at all.
///
/// # Errors
/// Which does not, as surroundings.
pub fn check_external(experiment: &Experiment) -> anyhow::Result<()> {
    if experiment.deployment != DeploymentKind::External {
        return Ok(());
    }
    for (name, url) in &experiment.external {
        reach(url).map_err(|error| {
            surroundings(format!("{name}: nothing answers at {url}: {error}; start it, or give --skip-health-check"))
        })?;
    }
    Ok(())
}

/// Opens a connection to the server of a URL, and closes it.
fn reach(url: &str) -> Result<(), String> {
    use std::net::{TcpStream, ToSocketAddrs};
    let uri: http::Uri = url.parse().map_err(|error| format!("{error}"))?;
    let host = uri.host().ok_or("the URL names no host")?;
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let addrs = (host.trim_matches(['[', ']']), port).to_socket_addrs().map_err(|error| error.to_string())?;
    let mut last = "the name has no address".to_owned();
    for addr in addrs {
        match TcpStream::connect_timeout(&addr, Duration::from_secs(5)) {
            Ok(_) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_of_a_command_line_is_archived() {
        for (word, shown) in [
            ("postgres://u:secret@h:5/d", "postgres://u:***@h:5/d"),
            ("--database=postgres://u:secret@h/d", "--database=postgres://u:***@h/d"),
            ("Authorization: Bearer abc", "Authorization: ***"),
            ("x-api-key: abc", "x-api-key: ***"),
            ("accept: text/html", "accept: text/html"),
            ("http://h:80/a", "http://h:80/a"),
        ] {
            assert_eq!(without_secrets(word), shown);
        }
    }

    #[test]
    fn no_body_of_a_command_line_is_archived() {
        for (words, shown) in [
            ("/usr/bin/scalelab load http://h/?token=S -n 3", "scalelab load http://h/?token=*** -n 3"),
            ("scalelab load -b S http://h/", "scalelab load -b *** http://h/"),
            ("scalelab load --body S http://h/", "scalelab load --body *** http://h/"),
            ("scalelab load --body=S http://h/", "scalelab load --body=*** http://h/"),
            ("scalelab load -bS http://h/", "scalelab load -b*** http://h/"),
            ("scalelab load -b @file http://h/", "scalelab load -b @file http://h/"),
            ("scalelab run --base-url http://h/ x", "scalelab run --base-url http://h/ x"),
        ] {
            assert_eq!(command_line(words.split(' ').map(str::to_owned)), shown);
        }
    }
}

//! `scalelab proxy`: the role `proxy` in this process, for any TCP service, with its admin endpoint to use by hand.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::Args;
use kit::RoleConfig;
use serde_json::json;

use super::say;
use crate::error::{input, surroundings};
use crate::interrupt::Interrupt;
use crate::proxy::{KINDS, LinkFault, suits};
use crate::systems;

/// `scalelab proxy`.
#[derive(Args)]
#[command(after_help = kinds())]
pub struct ProxyArgs {
    /// Where clients connect: a port of this machine, or ADDRESS:PORT; port 0 is any
    #[arg(long, value_name = "ADDRESS", value_parser = parse_place)]
    listen: SocketAddr,
    /// The server; repeat for several, of which each connection takes the next
    #[arg(long, value_name = "HOST:PORT", required = true, value_parser = parse_upstream)]
    upstream: Vec<String>,
    /// A fault that is active from the start, such as latency=50ms; repeat for more
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<LinkFault>,
    /// Where faults are added and lifted: a port of this machine, or ADDRESS:PORT, which then asks for a token
    #[arg(long, value_name = "ADDRESS", default_value = "0", value_parser = parse_place)]
    admin: SocketAddr,
    /// Read requests instead of passing bytes, for error-rate and slow
    #[arg(long)]
    http: bool,
    /// Where every random decision starts
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Carries connections until Ctrl-C; gives back the exit code.
///
/// # Errors
/// Faults that need two proxies, as input; an address that cannot be had, as surroundings.
pub fn run(args: &ProxyArgs) -> anyhow::Result<u8> {
    let http = args.http || args.faults.iter().any(LinkFault::is_http);
    for fault in &args.faults {
        suits(fault, http).map_err(|why| input(format!("--fault {fault}: {why}")))?;
    }
    let mut config = RoleConfig::new("proxy");
    config.bind = args.listen;
    config.seed = args.seed;
    config.peers.insert("upstream".to_owned(), args.upstream.clone());
    config.settings = json!({"http": http, "faults": args.faults});
    let role = systems::find_role("lab", "proxy")?;
    let interrupt = Interrupt::listen("stopping")?;
    kit::host::raise_open_files();
    let mut hosted = kit::host::start(role, config, kit::Clock::real())
        .map_err(|error| surroundings(format!("{error:#}; choose another place with --listen")))?;
    if !hosted.wait_until_started() {
        hosted.join().map_err(|error| surroundings(format!("{error:#}")))?;
        return Err(surroundings("the proxy ended before it had started"));
    }
    let token = match args.admin.ip().is_loopback() {
        true => String::new(),
        false => kit::secret()?,
    };
    let admin = kit::host::open_admin(hosted.admin.clone(), args.admin, &token)
        .map_err(|error| surroundings(format!("{error:#}; choose another place with --admin")))?;
    say(&greeting(hosted.addr, admin, &token, args, http));
    while !interrupt.wait(Duration::from_millis(500)) {
        if hosted.has_ended() {
            hosted.join()?;
            return Err(surroundings("the proxy ended by itself"));
        }
    }
    let request = kit::extension::Request { method: "GET", path: "/links", body: "" };
    let links = hosted.admin.extension.call(request).body;
    hosted.request_stop();
    hosted.join()?;
    say(&format!("carried {links}"));
    Ok(0)
}

fn greeting(addr: SocketAddr, admin: SocketAddr, token: &str, args: &ProxyArgs, http: bool) -> String {
    let example = KINDS.iter().find(|kind| kind.is_http() == http).map_or("", |kind| kind.example);
    let mut text = format!("proxy on {addr} to {}, until Ctrl-C\n", args.upstream.join(", "));
    for fault in &args.faults {
        let _ = writeln!(text, "fault {fault}");
    }
    let header = if token.is_empty() { String::new() } else { format!("-H 'authorization: Bearer {token}' ") };
    let _ = writeln!(text, "admin on http://{admin}");
    for (what, request) in [
        ("add a fault ", format!("-d {example} ")),
        ("what is active", String::new()),
        ("lift them all ", "-X DELETE ".to_owned()),
    ] {
        let _ = writeln!(text, "  {what:<15} curl {header}{request}http://{admin}/faults");
    }
    let _ = writeln!(text, "  {:<15} curl {header}http://{admin}/links", "what was carried");
    text
}

/// The faults, for the help.
fn kinds() -> String {
    KINDS.iter().fold("Faults:\n".to_owned(), |mut text, kind| {
        let mode = if kind.is_http() { " (with --http)" } else { "" };
        let _ = writeln!(text, "  {:<28} {}{mode}", kind.example, kind.about);
        text
    }) + "and direction=up|down|both (default down, towards the client) and share=10% (of the connections)"
}

fn parse_place(text: &str) -> Result<SocketAddr, String> {
    let port = text.parse().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    port.or_else(|_| text.parse())
        .map_err(|_| format!("{text:?} is no place to listen at; write 7000, 127.0.0.1:7000 or 0.0.0.0:7000"))
}

fn parse_upstream(text: &str) -> Result<String, String> {
    match text.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>())) {
        Some((host, Ok(port))) if !host.is_empty() && port > 0 => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is not where a server can be; write HOST:PORT, such as localhost:5432")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ProxyArgs,
    }

    #[test]
    fn a_flag_that_makes_no_sense_is_refused_with_what_does() {
        for (flags, expected) in [
            (&["--listen", "7000"][..], "--upstream"),
            (&["--upstream", "a:1"], "--listen"),
            (&["--listen", "here", "--upstream", "a:1"], "0.0.0.0:7000"),
            (&["--listen", "0", "--upstream", "localhost"], "HOST:PORT"),
            (&["--listen", "0", "--upstream", ":80"], "HOST:PORT"),
            (&["--listen", "0", "--upstream", "a:1", "--fault", "lag=3"], "write one of latency=50ms"),
            (&["--listen", "0", "--upstream", "a:1", "--fault", "latency=0"], "above 0"),
        ] {
            let error = Line::try_parse_from([&["x"][..], flags].concat()).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(expected), "{flags:?}: {error}");
        }
    }

    #[test]
    fn the_help_names_every_fault() {
        let text = kinds();
        assert!(KINDS.iter().all(|kind| text.contains(kind.example) && text.contains(kind.about)), "{text}");
    }

    #[test]
    fn an_address_that_others_can_reach_gets_a_token_in_its_example() {
        let line = Line::parse_from(["x", "--listen", "0", "--upstream", "a:1", "--fault", "reset=1s"]);
        let addr = "127.0.0.1:7".parse().unwrap();
        let greet = |token: &str, http| greeting(addr, addr, token, &line.args, http);
        assert!(greet("", false).contains("curl -d latency=50ms,jitter=5ms http://127.0.0.1:7/faults"));
        assert!(greet("", false).contains("fault reset=1s\n"));
        assert!(greet("abc", true).contains("curl -H 'authorization: Bearer abc' -d error-rate=10%"));
    }
}

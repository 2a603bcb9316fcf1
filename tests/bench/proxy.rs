//! The proxy against toxiproxy and against no proxy, between the same nginx and the same client.
//!
//! Neither proxy is pinned: with two CPUs, the server has one and the client the other, and a proxy takes what it gets.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::peers::{Nginx, Wrk, free_port, in_path, median, median_us, post, wait_for};
use crate::{Figure, SECONDS, at_least, at_most};

/// Rounds: more than of other comparisons, because three programs share two CPUs.
const ROUNDS: usize = 7;
/// The latency that is asked for.
const LATENCY_US: f64 = 10_000.0;

/// A proxy that was started, and where it listens.
struct Through {
    child: Child,
    port: u16,
}

impl Through {
    fn ours(nginx: &Nginx, flags: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_scalelab"))
            .args(["proxy", "--listen", "0", "--upstream", &format!("127.0.0.1:{}", nginx.port)])
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("it says where it listens");
        let addr = line.strip_prefix("proxy on ").and_then(|rest| rest.split(' ').next()).expect("an address");
        let port = addr.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
        Self { child, port }
    }

    fn toxiproxy(nginx: &Nginx, program: PathBuf) -> Self {
        let (port, api) = (free_port(), free_port());
        let child = Command::new(program)
            .args(["-host", "127.0.0.1", "-port", &api.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("toxiproxy-server starts");
        wait_for(api);
        let link = serde_json::json!({
            "name": "nginx", "listen": format!("127.0.0.1:{port}"),
            "upstream": format!("127.0.0.1:{}", nginx.port), "enabled": true,
        });
        post(api, "/proxies", &link.to_string(), None);
        wait_for(port);
        Self { child, port }
    }
}

impl Drop for Through {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a hop costs that breaks nothing, and whether a latency is what was asked for.
pub fn against_toxiproxy(figures: &mut Vec<Figure>) {
    let nginx = Nginx::start();
    let ours = Through::ours(&nginx, &[]);
    let toxiproxy = installed().map(|program| Through::toxiproxy(&nginx, program));
    if toxiproxy.is_none() {
        println!("toxiproxy-server is neither on the PATH nor in GOPATH/bin: its rows are left out");
    }
    let mut all = [vec![], vec![], vec![], vec![], vec![], vec![], vec![]];
    for round in 0..ROUNDS {
        let [rate, added, bulk, peer_rate, peer_added, peer_bulk, against] = &mut all;
        let direct = Seen::at(nginx.port);
        let through = Seen::at(ours.port);
        rate.push(through.rate / direct.rate);
        added.push(through.median_us - direct.median_us);
        bulk.push(through.bulk / direct.bulk);
        println!("  round {round}: direct {direct}, ours {through}");
        if let Some(toxiproxy) = &toxiproxy {
            let peer = Seen::at(toxiproxy.port);
            println!("           toxiproxy {peer}");
            peer_rate.push(peer.rate / direct.rate);
            peer_added.push(peer.median_us - direct.median_us);
            peer_bulk.push(peer.bulk / direct.bulk);
            against.push(through.rate / peer.rate);
        }
    }
    let [rate, added, bulk, peer_rate, peer_added, peer_bulk, against] = &mut all;
    at_most(figures, "proxy without faults: added to a request, median, µs", median(added), 50.0);
    at_least(figures, "proxy without faults / direct, requests a second (64 connections)", median(rate), 0.5);
    at_least(figures, "proxy without faults / direct, bytes a second of one download", median(bulk), 0.5);
    if toxiproxy.is_some() {
        at_least(figures, "proxy / toxiproxy, requests a second (64 connections)", median(against), 1.0);
        println!(
            "for scale, toxiproxy: added {:.0} µs, requests {:.3} and bytes {:.3} of direct",
            median(peer_added),
            median(peer_rate),
            median(peer_bulk)
        );
    }
    drop((ours, toxiproxy));
    let late = Through::ours(&nginx, &["--fault", &format!("latency={LATENCY_US}us")]);
    let mut off: Vec<_> = (0..ROUNDS)
        .map(|_| (median_us(&url(late.port), &[]) - median_us(&url(nginx.port), &[]) - LATENCY_US).abs() / 1e3)
        .collect();
    at_most(figures, "latency of 10 ms: off by, median, ms", median(&mut off), 1.0);
}

/// What a client sees at a port.
struct Seen {
    rate: f64,
    median_us: f64,
    bulk: f64,
}

impl Seen {
    fn at(port: u16) -> Self {
        let rate = Wrk::run(&url(port), &[], 64, SECONDS).rate;
        Self { rate, median_us: median_us(&url(port), &[]), bulk: download(port) }
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0}/s {:.0} µs {:.2} GB/s", self.rate, self.median_us, self.bulk / 1e9)
    }
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}/file")
}

/// Bytes a second of the large file, on one connection.
fn download(port: u16) -> f64 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("it reads");
    let mut buffer = vec![0; 256 * 1024];
    let (started, mut seen) = (Instant::now(), 0);
    loop {
        match stream.read(&mut buffer).expect("it answers") {
            0 => break,
            bytes => seen += bytes,
        }
    }
    assert!(seen as u64 > Nginx::LARGE, "{seen} bytes are not the file");
    seen as f64 / started.elapsed().as_secs_f64()
}

fn installed() -> Option<PathBuf> {
    in_path("toxiproxy-server").or_else(|| {
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join("go"));
        let program = std::env::var_os("GOPATH").map(PathBuf::from).or_else(home)?.join("bin/toxiproxy-server");
        program.is_file().then_some(program)
    })
}

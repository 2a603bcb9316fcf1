//! Speeds, each as a ratio to a peer that is measured in the same run, because absolute times drift.
//!
//! `make bench` prints them and stores them in `target/bench.json`. A peer that is not installed is named, not guessed.
#![expect(clippy::disallowed_methods, reason = "a benchmark takes real time and real ports")]

mod peers;
mod proxy;
mod stream;

use std::process::ExitCode;

use peers::{Nginx, Tracker, Wrk, generator, in_path, median, open_loop};

/// Rounds of a comparison: the two take turns, and the median of the pairwise ratios is quoted.
const ROUNDS: usize = 5;
/// Seconds of one measurement.
const SECONDS: u32 = 3;

fn main() -> ExitCode {
    // `cargo bench` hands its own flags on; there is nothing to choose here.
    let missing: Vec<_> = ["wrk", "nginx"].into_iter().filter(|program| in_path(program).is_none()).collect();
    if !missing.is_empty() {
        eprintln!("missing: {}; apt-get install wrk nginx-light", missing.join(", "));
        return ExitCode::from(4);
    }
    let mut figures = Vec::new();
    against_wrk(&mut figures);
    on_schedule(&mut figures);
    against_nginx(&mut figures);
    proxy::against_toxiproxy(&mut figures);
    the_price_of_services(&mut figures);
    ten_thousand_users(&mut figures);
    a_stream(&mut figures);
    let mut met = true;
    println!("\n{:<66} {:>10} {:>12}", "FIGURE", "MEASURED", "TO REACH");
    for Figure { what, measured, target, at_least } in &figures {
        let reached = if *at_least { measured >= target } else { measured <= target };
        met &= reached;
        let sign = if *at_least { "≥" } else { "≤" };
        println!("{what:<66} {measured:>10.3} {sign:>4} {target:>7.3} {}", if reached { "" } else { "MISSED" });
    }
    let json: Vec<_> = figures
        .iter()
        .map(|figure| serde_json::json!({"figure": figure.what, "measured": figure.measured, "target": figure.target}))
        .collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench.json");
    if let Err(error) = std::fs::write(path, serde_json::to_string_pretty(&json).unwrap_or_default()) {
        eprintln!("{path}: {error}");
    }
    println!(
        "stored in target/bench.json; {}",
        if met { "every figure is reached" } else { "not every figure is reached" }
    );
    ExitCode::SUCCESS
}

/// One figure and what it should be.
pub struct Figure {
    what: String,
    measured: f64,
    target: f64,
    at_least: bool,
}

fn at_least(figures: &mut Vec<Figure>, what: &str, measured: f64, target: f64) {
    println!("{what}: {measured:.3}");
    figures.push(Figure { what: what.to_owned(), measured, target, at_least: true });
}

fn at_most(figures: &mut Vec<Figure>, what: &str, measured: f64, target: f64) {
    println!("{what}: {measured:.3}");
    figures.push(Figure { what: what.to_owned(), measured, target, at_least: false });
}

/// The generator against wrk: same server, one core each, 64 connections, a fixed GET, recording on.
fn against_wrk(figures: &mut Vec<Figure>) {
    let nginx = Nginx::start();
    let (mut rates, mut per_cpu) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let wrk = Wrk::run(&nginx.url(), &[], 64, SECONDS);
        let ours = generator(&nginx.url(), &["-c", "64"], SECONDS);
        println!(
            "  round {round}: wrk {:.0}/s {:.0}/CPU-s, ours {:.0}/s {:.0}/CPU-s",
            wrk.rate,
            wrk.per_cpu_second(),
            ours.rate,
            ours.per_cpu_second()
        );
        rates.push(ours.rate / wrk.rate);
        per_cpu.push(ours.per_cpu_second() / wrk.per_cpu_second());
    }
    at_least(figures, "generator / wrk, requests a second (64 connections, 1 kB file)", median(&mut rates), 0.9);
    at_least(figures, "generator / wrk, requests a CPU-second", median(&mut per_cpu), 0.9);
    if in_path("oha").is_some() {
        let mut ratios: Vec<_> = (0..ROUNDS)
            .map(|_| peers::oha(&nginx.url(), SECONDS).rate / Wrk::run(&nginx.url(), &[], 64, SECONDS).rate)
            .collect();
        println!("for scale: oha / wrk, requests a second: {:.3}", median(&mut ratios));
    } else {
        println!("for scale, oha: not installed (cargo install oha)");
    }
}

/// Open loop at 5000/s: how late requests leave, and whether all of them do.
fn on_schedule(figures: &mut Vec<Figure>) {
    let nginx = Nginx::start();
    let (mut medians, mut tails, mut achieved) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let seen = open_loop(&nginx.url(), 5_000, SECONDS);
        medians.push(seen.lag_p50_us);
        tails.push(seen.lag_p99_us);
        achieved.push(seen.achieved);
    }
    at_most(figures, "open loop at 5000/s: lag, median, µs", median(&mut medians), 100.0);
    at_most(figures, "open loop at 5000/s: lag, 99th percentile, µs", median(&mut tails), 1_000.0);
    at_least(figures, "open loop at 5000/s: achieved / offered", median(&mut achieved), 0.999);
}

/// The monolith on SQLite against nginx with a 1 kB file, both on the same core and driven by wrk from the other.
fn against_nginx(figures: &mut Vec<Figure>) {
    let nginx = Nginx::start();
    let tracker = Tracker::start("monolith");
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let file = Wrk::run(&nginx.url(), &[], 64, SECONDS);
        let list = Wrk::run(&tracker.list_url(), &tracker.headers(), 64, SECONDS);
        println!("  round {round}: nginx {:.0}/s, monolith {:.0}/s", file.rate, list.rate);
        ratios.push(list.rate / file.rate);
    }
    at_least(figures, "monolith, GET /tasks/?limit=20 on SQLite / nginx, 1 kB file", median(&mut ratios), 0.06);
}

/// Microservices against the monolith on the same core, and what the gateway's hop costs at low load.
fn the_price_of_services(figures: &mut Vec<Figure>) {
    let monolith = Tracker::start("monolith");
    let services = Tracker::start("microservices");
    let (mut ratios, mut hops) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let one = Wrk::run(&monolith.list_url(), &monolith.headers(), 64, SECONDS);
        let many = Wrk::run(&services.list_url(), &services.headers(), 64, SECONDS);
        let direct = services.median_us(&services.direct_list_url());
        let through = services.median_us(&services.list_url());
        println!(
            "  round {round}: monolith {:.0}/s, microservices {:.0}/s; direct {direct:.0} µs, through the gateway {through:.0} µs",
            one.rate, many.rate
        );
        ratios.push(many.rate / one.rate);
        hops.push(through - direct);
    }
    at_least(figures, "microservices / monolith, requests a second, same CPU", median(&mut ratios), 0.35);
    at_most(figures, "gateway hop at low load, median, µs", median(&mut hops), 150.0);
}

/// The word count against a plain loop that reads the same socket, and batches with nothing or little to do.
fn a_stream(figures: &mut Vec<Figure>) {
    let mut ratios = Vec::new();
    for round in 0..3 {
        let plain = stream::plain_loop(SECONDS);
        let held = stream::highest_held(0.3 * plain, 1.5 * plain, 6);
        println!("  round {round}: plain loop {plain:.0} lines/s, stream {held:.0} lines/s");
        ratios.push(held / plain);
    }
    at_least(figures, "word count of a stream / plain loop, lines a second, 2 CPUs", median(&mut ratios), 0.6);
    at_most(figures, "an hour of stream at 150 lines/s, simulated and saved, s", stream::simulated_hour_s(), 1.0);
    at_most(figures, "processing time of an empty batch, ms", stream::word_count(0.001, 6).processing_ms, 2.0);
    at_most(figures, "processing time of a batch of 290 records, ms", stream::word_count(290.0, 6).processing_ms, 5.0);
}

/// Ten thousand users on one machine, started and measured, each with its own account, tasks and connection.
fn ten_thousand_users(figures: &mut Vec<Figure>) {
    const USERS: u32 = 10_000;
    const THINK_S: u32 = 5;
    let experiment = format!(
        "# Are ten thousand users served on one machine?\nsystem = \"task-tracker\"\ntrials = 1\nwarmup = \"6s\"\n\
         duration = \"10s\"\n[factors]\narchitecture = [\"monolith\"]\nusers = [{USERS}]\n\
         [load]\nthink = \"{THINK_S}s\"\nspawn_rate = 2000\n[settings]\nargon2 = \"minimum\"\ntasks_per_user = 2\n"
    );
    let peers::Trial { summary, most_users } = peers::trial(&experiment);
    assert_eq!((&summary["valid"], most_users), (&true.into(), USERS), "{}", summary["invalid"]);
    assert_eq!(summary["error_rate"], 0.0, "{}", summary["kinds"]);
    let good = summary["goodput_rps"].as_f64().expect("goodput");
    println!("  {good:.0} good requests/s, p95 {} ms", summary["latency_p95_ms"]);
    at_least(figures, "10,000 users: goodput / asked for", good / f64::from(USERS / THINK_S), 0.95);
}

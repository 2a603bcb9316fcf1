//! `selftest`: proves the instrument on this machine, against a server whose behaviour is known in advance.
//!
//! The one rule: what must be found is written down before it is measured. A server that answers at once, but holds
//! everything that arrives in a fifth of each second until that fifth is over, gives an open loop a total time of zero
//! for four requests in five and one spread evenly from 0 to 200 ms for the fifth: so p90 is 100 ms and p99 190 ms,
//! however many connections there are. A generator that waits for answers before it sends (coordinated omission) finds
//! next to nothing.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use kit::shutdown::{self, Shutdown, Stopper};
use kit::{Clock, OpsRecord};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::experiment::LoadPlan;
use crate::load::pacer::{Pacer, Sleeper};
use crate::load::{LoadSettings, Scenario, Stage};
use crate::load_url::{LoadResult, Progress, load};

/// Prove the instrument: known stalls, delays and errors must be found as they are.
#[derive(Args, Clone, Debug, Default)]
pub struct SelftestArgs {
    /// Where random decisions start.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was looked at.
    pub what: String,
    /// What was found.
    pub measured: String,
    /// What must be found, with its tolerance; empty where it depends on the machine.
    pub expected: String,
    /// Whether it was.
    pub pass: bool,
}

/// Runs the verb, prints its table; says the exit code: 0, or 3 when the instrument failed.
///
/// # Errors
/// When the server or the generator cannot start.
pub fn run(args: &SelftestArgs) -> anyhow::Result<u8> {
    let rows = prove(args.seed, |name| eprintln!("{name} …"))?;
    print!("{}", table(&rows));
    let failed = rows.iter().filter(|row| !row.pass).count();
    if failed == 0 {
        println!("\nThe instrument measures what is there.");
        return Ok(0);
    }
    println!("\n{failed} of {} are off; if the machine was busy, try again when it is not.", rows.len());
    Ok(3)
}

fn table(rows: &[Row]) -> String {
    let width = |of: fn(&Row) -> &str| rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0);
    let (what, measured, expected) =
        (width(|row| &row.what), width(|row| &row.measured).max(8), width(|row| &row.expected).max(8));
    let mut text = format!("{:what$}  {:>measured$}  {:expected$}\n", "", "measured", "expected");
    for row in rows {
        let verdict = match (row.pass, row.expected.is_empty()) {
            (_, true) => "",
            (true, _) => "pass",
            (false, _) => "FAIL",
        };
        let line = format!("{:what$}  {:>measured$}  {:expected$}  {verdict}", row.what, row.measured, row.expected);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Every proof, in order.
///
/// # Errors
/// When the server or the generator cannot start.
pub fn prove(seed: u64, tell: impl Fn(&str)) -> anyhow::Result<Vec<Row>> {
    let server = Server::start()?;
    let bench = Bench { server: &server, seed };
    let mut rows = Vec::new();
    tell("stalls");
    for connections in [400, 8] {
        rows.extend(stalls(&bench, connections)?);
    }
    tell("a fixed delay");
    rows.push(delay(&bench)?);
    tell("errors");
    rows.extend(errors(&bench)?);
    tell("timer");
    for rate_per_s in [1000, 5000] {
        rows.extend(timer(&bench, rate_per_s)?);
    }
    tell("ceiling");
    rows.extend(ceiling(&bench)?);
    Ok(rows)
}

struct Bench<'a> {
    server: &'a Server,
    seed: u64,
}

impl Bench<'_> {
    fn load(
        &self,
        method: &str,
        path: &str,
        plan: LoadPlan,
        change: impl Fn(&mut LoadSettings),
    ) -> anyhow::Result<LoadResult> {
        let step = serde_json::json!({ "method": method, "path": path, "check": { "json": { "/ok": "=true" } } });
        let mut settings = LoadSettings {
            scenario: Scenario { steps: vec![serde_json::from_value(step)?], ..Scenario::default() },
            plan,
            timeout: Duration::from_secs(5),
            threads: Some(1),
            ..LoadSettings::new(Some(format!("http://{}", self.server.addr)))
        };
        change(&mut settings);
        // Held, so that nothing comes out of the other end.
        let (_never, interrupts) = std::sync::mpsc::channel();
        load(settings, self.seed, Duration::ZERO, path, &Progress::silent(), &interrupts)
    }

    fn open(&self, path: &str, rate_per_s: u32, seconds: u64, connections: u32) -> anyhow::Result<LoadResult> {
        let duration = Some(Duration::from_secs(seconds));
        let stages = vec![Stage { duration, from_per_s: rate_per_s.into(), to_per_s: rate_per_s.into() }];
        self.load("GET", path, LoadPlan::Open { stages, poisson: false, connections }, |_| {})
    }
}

fn closed(users: u32) -> LoadPlan {
    LoadPlan::Closed { users, think: Duration::ZERO, spawn_rate: 0.0 }
}

fn stalls(bench: &Bench<'_>, connections: u32) -> anyhow::Result<Vec<Row>> {
    let result = bench.open("/stall", 1000, 3, connections)?;
    let ms = |quantile| result.ops.total.quantile(quantile).unwrap_or_default().as_secs_f64() * 1e3;
    let row = |name: &str, quantile, expected: f64, tolerance: f64| {
        let measured = ms(quantile);
        Row {
            what: format!("stall of 200 ms a second, {connections} connections: {name}"),
            measured: format!("{measured:.1} ms"),
            expected: format!("{expected:.0} ± {tolerance:.0} ms"),
            pass: (measured - expected).abs() <= tolerance,
        }
    };
    let sent = Row {
        what: format!("stall of 200 ms a second, {connections} connections: requests"),
        measured: result.ops.ok.to_string(),
        expected: "3000".to_owned(),
        pass: result.ops.ok == 3000 && result.ops.count() == 3000,
    };
    Ok(vec![sent, row("p50", 0.5, 0.0, 10.0), row("p90", 0.9, 100.0, 10.0), row("p99", 0.99, 190.0, 10.0)])
}

fn delay(bench: &Bench<'_>) -> anyhow::Result<Row> {
    let result = bench.open("/delay", 200, 1, 50)?;
    let measured = result.ops.work.quantile(0.5).unwrap_or_default().as_secs_f64() * 1e3;
    Ok(Row {
        what: "delay of 20 ms: work at p50".to_owned(),
        measured: format!("{measured:.2} ms"),
        expected: "20 to 22 ms".to_owned(),
        pass: (20.0..=22.0).contains(&measured),
    })
}

/// Of ten requests one is refused, one is answered wrongly, one loses its connection and one is never answered.
fn errors(bench: &Bench<'_>) -> anyhow::Result<Vec<Row>> {
    let result = bench.load("POST", "/mixed", closed(4), |settings| {
        settings.requests = Some(200);
        settings.timeout = Duration::from_millis(100);
    })?;
    let ops = &result.ops;
    let reason =
        |start: &str| ops.errors.iter().filter(|(why, _)| why.starts_with(start)).map(|(_, count)| *count).sum::<u64>();
    let row = |name: &str, measured: u64, expected: u64| Row {
        what: format!("of 200 scripted requests: {name}"),
        measured: measured.to_string(),
        expected: expected.to_string(),
        pass: measured == expected,
    };
    Ok(vec![
        row("ok", ops.ok, 120),
        row("failed (HTTP 503)", reason("HTTP 503"), 20),
        row("wrong (its check says so)", ops.wrong, 20),
        row("unknown (connection lost)", reason("connection"), 20),
        row("unknown (timed out)", reason("timed out"), 20),
    ])
}

fn timer(bench: &Bench<'_>, rate_per_s: u32) -> anyhow::Result<Vec<Row>> {
    const SECONDS: u64 = 2;
    let result = bench.open("/fast", rate_per_s, SECONDS, 50)?;
    Ok(timer_rows(rate_per_s, SECONDS, &result.ops))
}

/// A timer that sent nothing was late for everything.
fn timer_rows(rate_per_s: u32, seconds: u64, ops: &OpsRecord) -> Vec<Row> {
    let what = |name: &str| format!("timer at {rate_per_s}/s: {name}");
    let expected = u64::from(rate_per_s) * seconds;
    let sent = Row {
        what: what("requests"),
        measured: ops.ok.to_string(),
        expected: format!("{expected}, at least 99.9 % of them"),
        pass: ops.ok as f64 >= 0.999 * expected as f64,
    };
    let row = |name: &str, quantile, most_us: f64| {
        let measured = ops.lag.quantile(quantile).map(|lag| lag.as_secs_f64() * 1e6);
        Row {
            what: what(&format!("late at {name}")),
            measured: measured.map_or_else(|| "nothing".to_owned(), |us| format!("{us:.0} µs")),
            expected: format!("≤ {most_us:.0} µs (idle machine: 100 µs, 1000 µs)"),
            pass: measured.is_some_and(|us| us <= most_us),
        }
    };
    vec![sent, row("p50", 0.5, 500.0), row("p99", 0.99, 5000.0)]
}

fn ceiling(bench: &Bench<'_>) -> anyhow::Result<Vec<Row>> {
    let result = bench.load("GET", "/fast", closed(64), |settings| settings.duration = Some(Duration::from_secs(2)))?;
    let busy: Vec<f64> =
        result.series.iter().filter(|point| point.name == "thread_busy").filter_map(|point| point.value).collect();
    let busy = busy.iter().sum::<f64>() / busy.len().max(1) as f64;
    let told =
        |what: &str, measured: String| Row { what: what.to_owned(), measured, expected: String::new(), pass: true };
    let mut rows = vec![told("ceiling of one thread, the server beside it", format!("{:.0}/s", result.rate_per_s()))];
    if busy > 0.0 {
        rows.push(told("ceiling of one thread, a second of its CPU", format!("{:.0}", result.rate_per_s() / busy)));
    }
    Ok(rows)
}

/// The scripted server, on a thread of its own until it is dropped.
struct Server {
    addr: SocketAddr,
    _stopper: Stopper,
}

impl Server {
    fn start() -> anyhow::Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "it is its own server, and hosted by nobody")]
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("listening on 127.0.0.1")?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let (stopper, shutdown) = shutdown::channel();
        std::thread::Builder::new().name("scripted".to_owned()).spawn(move || serve(listener, &shutdown))?;
        Ok(Self { addr, _stopper: stopper })
    }
}

fn serve(listener: std::net::TcpListener, shutdown: &Shutdown) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build_local(Default::default())?;
    runtime.block_on(async {
        let pacer = Pacer::new(Clock::real())?;
        let timer = pacer.clone();
        tokio::task::spawn_local(async move { timer.run().await });
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let count = Rc::new(Cell::new(0));
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let script = Script { pacer: pacer.clone(), sleeper: Sleeper::new(), count: count.clone() };
                    tokio::task::spawn_local(script.converse(accepted?.0));
                }
                () = shutdown.requested() => return Ok(()),
            }
        }
    })
}

/// What the server does on one connection.
struct Script {
    pacer: Rc<Pacer>,
    sleeper: Rc<Sleeper>,
    /// Requests of the mixed kind so far, on all connections.
    count: Rc<Cell<u64>>,
}

const RIGHT: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"ok\":true}";
const WRONG: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{\"ok\":false}";
const REFUSED: &[u8] = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";
const SECOND_NS: u64 = 1_000_000_000;
const STALL_NS: u64 = 200_000_000;

impl Script {
    async fn converse(self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        // A request of this test arrives in one piece: it is small, and written at once.
        let mut buffer = [0; 4096];
        loop {
            let count = stream.read(&mut buffer).await?;
            let Some(answer) = self.answer(&buffer[..count]).await else { return Ok(()) };
            stream.write_all(answer).await?;
        }
    }

    /// None closes the connection.
    async fn answer(&self, request: &[u8]) -> Option<&'static [u8]> {
        let path = request.split(|byte| *byte == b' ').nth(1)?;
        let now_ns = self.pacer.now_ns();
        match path {
            b"/stall" if now_ns % SECOND_NS < STALL_NS => self.wait_until(now_ns - now_ns % SECOND_NS + STALL_NS).await,
            b"/delay" => self.wait_until(now_ns + 20_000_000).await,
            b"/mixed" => return self.mixed().await,
            _ => {}
        }
        Some(RIGHT)
    }

    async fn mixed(&self) -> Option<&'static [u8]> {
        let count = self.count.get();
        self.count.set(count + 1);
        match count % 10 {
            0 => Some(REFUSED),
            1 => Some(WRONG),
            2 => None,
            3 => std::future::pending().await,
            _ => Some(RIGHT),
        }
    }

    async fn wait_until(&self, at_ns: u64) {
        self.pacer.doze_until(at_ns, &self.sleeper).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripted_errors_are_counted_exactly() {
        let server = Server::start().unwrap();
        let rows = errors(&Bench { server: &server, seed: 0 }).unwrap();
        assert!(rows.iter().all(|row| row.pass), "{rows:#?}");
    }

    #[test]
    fn a_timer_that_sent_nothing_or_not_all_was_not_on_time() {
        let passes = |ops: &OpsRecord| timer_rows(1000, 2, ops).iter().map(|row| row.pass).collect::<Vec<_>>();
        assert_eq!(passes(&OpsRecord::default()), [false, false, false]);
        let mut ops = OpsRecord { ok: 1_997, ..OpsRecord::default() };
        ops.lag.record_many(50_000, 1_997);
        assert_eq!(passes(&ops), [false, true, true]);
        ops.ok += 1;
        assert_eq!(passes(&ops), [true, true, true]);
    }

    #[test]
    fn a_row_that_depends_on_the_machine_has_no_verdict() {
        let row =
            |expected: &str, pass| Row { what: "x".into(), measured: "1".into(), expected: expected.into(), pass };
        let text = table(&[row("", true), row("2", false), row("1", true)]);
        let ends: Vec<&str> = text.lines().skip(1).map(|line| line.split_whitespace().last().unwrap()).collect();
        assert_eq!(ends, ["1", "FAIL", "pass"]);
    }
}

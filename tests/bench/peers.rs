//! The programs that are compared: started, pinned, run, and asked for their CPU time.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The CPU of the server and that of the client.
const SERVER_CPU: &str = "0";
const CLIENT_CPU: &str = "1";

/// A program by name.
pub fn in_path(name: &str) -> Option<PathBuf> {
    scalelab::doctor::in_path(name)
}

/// The middle value.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What a client reached.
pub struct Reached {
    pub rate: f64,
    pub requests: f64,
    pub cpu_s: f64,
}

impl Reached {
    pub fn per_cpu_second(&self) -> f64 {
        self.requests / self.cpu_s
    }
}

/// Runs a command to its end; gives back what it printed and the CPU seconds it used.
fn run(command: &mut Command) -> (String, f64) {
    let before = children_cpu_s();
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8_lossy(&output.stdout).into_owned(), children_cpu_s() - before)
}

/// CPU seconds of all children that have ended and were waited for.
fn children_cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc");
    let fields: Vec<_> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
    let ticks: f64 = fields[13].parse::<f64>().expect("cutime") + fields[14].parse::<f64>().expect("cstime");
    ticks / 100.0
}

fn pinned(cpu: &str, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", cpu, program]);
    command
}

/// wrk, one thread.
pub struct Wrk;

impl Wrk {
    pub fn run(url: &str, headers: &[String], connections: u32, seconds: u32) -> Reached {
        let mut command = pinned(CLIENT_CPU, "wrk");
        command.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")]);
        for header in headers {
            command.args(["-H", header]);
        }
        let (text, cpu_s) = run(command.arg(url));
        let number = |line: &str, word: usize| -> f64 {
            line.split_whitespace().nth(word).and_then(|number| number.parse().ok()).expect("wrk prints a number")
        };
        assert!(!text.contains("Non-2xx"), "{text}");
        let rate = number(text.lines().find(|line| line.starts_with("Requests/sec")).expect("a rate"), 1);
        let requests = number(text.lines().find(|line| line.contains(" requests in ")).expect("a count"), 0);
        Reached { rate, requests, cpu_s }
    }
}

/// oha, one thread.
pub fn oha(url: &str, seconds: u32) -> Reached {
    let mut command = pinned(CLIENT_CPU, "oha");
    let (text, cpu_s) = run(command.env("TOKIO_WORKER_THREADS", "1").args([
        "--no-tui",
        "--output-format",
        "json",
        "-c",
        "64",
        "-z",
        &format!("{seconds}s"),
        url,
    ]));
    reached_of_json(&text, cpu_s)
}

/// This project's generator, one thread.
pub fn generator(url: &str, flags: &[&str], seconds: u32) -> Reached {
    let (text, cpu_s) = load(url, flags, seconds);
    reached_of_json(&text, cpu_s)
}

fn load(url: &str, flags: &[&str], seconds: u32) -> (String, f64) {
    let mut command = pinned(CLIENT_CPU, env!("CARGO_BIN_EXE_scalelab"));
    command.args(["load", url, "-d", &format!("{seconds}s"), "--threads", "1", "--output-format", "json"]).args(flags);
    run(&mut command)
}

fn reached_of_json(text: &str, cpu_s: f64) -> Reached {
    let json: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let summary = &json["summary"];
    let rate = summary["requestsPerSec"].as_f64().expect("a rate");
    Reached { rate, requests: rate * summary["total"].as_f64().expect("seconds"), cpu_s }
}

/// How an open loop kept its schedule.
pub struct Schedule {
    pub lag_p50_us: f64,
    pub lag_p99_us: f64,
    pub achieved: f64,
}

pub fn open_loop(url: &str, rate: u32, seconds: u32) -> Schedule {
    let (text, _) = load(url, &["-c", "64", "-r", &rate.to_string()], seconds);
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let lag = &json["scalelab"]["lag"];
    let reached = json["summary"]["requestsPerSec"].as_f64().expect("a rate");
    Schedule {
        lag_p50_us: lag["p50"].as_f64().expect("a median") * 1e6,
        lag_p99_us: lag["p99"].as_f64().expect("a percentile") * 1e6,
        achieved: reached / f64::from(rate),
    }
}

/// Median latency of one connection.
pub fn median_us(url: &str, flags: &[&str]) -> f64 {
    let (text, _) = load(url, &[&["-c", "1"], flags].concat(), 2);
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    json["latencyPercentiles"]["p50"].as_f64().expect("a median") * 1e6
}

/// nginx with a 1 kB file and a large one, one worker.
pub struct Nginx {
    child: Child,
    pub port: u16,
    _folder: tempfile::TempDir,
}

impl Nginx {
    /// The size of the file `large`, which takes no room on the disk.
    pub const LARGE: u64 = 1 << 30;

    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let port = free_port();
        let root = folder.path().display();
        let config = format!(
            "daemon off; worker_processes 1; pid {root}/pid; error_log {root}/error.log;\n\
             events {{ worker_connections 2048; }}\n\
             http {{ access_log off; keepalive_requests 1000000000; sendfile on; tcp_nodelay on; open_file_cache max=10;\n\
             server {{ listen 127.0.0.1:{port} backlog=2048; location / {{ root {root}; }} }} }}\n"
        );
        std::fs::write(folder.path().join("nginx.conf"), config).expect("the scratch folder can be written");
        std::fs::write(folder.path().join("file"), vec![b'x'; 1024]).expect("the scratch folder can be written");
        let large = std::fs::File::create(folder.path().join("large"));
        large.and_then(|file| file.set_len(Self::LARGE)).expect("the scratch folder can be written");
        open_to_all(folder.path());
        let nginx = in_path("nginx").expect("looked for before");
        let child = pinned(SERVER_CPU, nginx.to_str().expect("a path"))
            .args(["-e", "stderr", "-c"])
            .arg(folder.path().join("nginx.conf"))
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx starts");
        wait_for(port);
        Self { child, port, _folder: folder }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/file", self.port)
    }
}

/// nginx serves as another user when it is started by root.
fn open_to_all(folder: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("the folder is ours");
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// The task tracker on one core, with a user who has twenty tasks.
pub struct Tracker {
    child: Child,
    entry: String,
    task_service: Option<String>,
    token: String,
}

impl Tracker {
    pub fn start(arch: &str) -> Self {
        let port = free_port();
        let mut child = pinned(SERVER_CPU, env!("CARGO_BIN_EXE_scalelab"))
            .args(["up", "task-tracker", "--arch", arch, "--port", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let mut task_service = None;
        for line in lines.by_ref() {
            if line.starts_with("task-service") {
                task_service = line.split_whitespace().last().map(str::to_owned);
            }
            if line.starts_with("stop with") {
                break;
            }
        }
        std::thread::spawn(move || lines.for_each(drop));
        let entry = format!("http://127.0.0.1:{port}");
        let token = account_with_tasks(port);
        Self { child, entry, task_service, token }
    }

    pub fn list_url(&self) -> String {
        format!("{}/api/v1/tasks/?limit=20", self.entry)
    }

    /// The same answer from the service behind the gateway.
    pub fn direct_list_url(&self) -> String {
        format!("{}/api/v1/tasks/?limit=20", self.task_service.as_ref().expect("microservices"))
    }

    pub fn headers(&self) -> Vec<String> {
        vec![format!("authorization: Bearer {}", self.token)]
    }

    /// Median latency of one user at a time.
    pub fn median_us(&self, url: &str) -> f64 {
        median_us(url, &["-H", &self.headers().remove(0)])
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// The one trial of an experiment.
pub struct Trial {
    /// Its line of the results.
    pub summary: serde_json::Value,
    /// The most users that its history has in a second.
    pub most_users: u32,
}

/// Runs an experiment of one trial, on the CPUs that the lab gives it.
pub fn trial(experiment: &str) -> Trial {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let (file, out) = (folder.path().join("bench.toml"), folder.path().join("runs"));
    std::fs::write(&file, experiment).expect("the scratch folder can be written");
    run(Command::new(env!("CARGO_BIN_EXE_scalelab")).arg("run").arg(&file).arg("--out").arg(&out));
    let read = |path: PathBuf| std::fs::read_to_string(path).expect("the archive has it");
    let summary: serde_json::Value = serde_json::from_str(&read(out.join("latest/results.jsonl"))).expect("one trial");
    let name = summary["name"].as_str().expect("a name");
    let history = read(out.join("latest/trials").join(name).join("stats_history.csv"));
    let mut rows = history.lines().map(|row| row.split(',').collect::<Vec<_>>());
    let column = rows.next().and_then(|names| names.iter().position(|name| *name == "User Count")).expect("its column");
    let most_users = rows.filter_map(|row| row.get(column)?.parse().ok()).max().unwrap_or(0);
    Trial { summary, most_users }
}

fn account_with_tasks(port: u16) -> String {
    let account = r#"{"email":"b@example.org","username":"bench","password":"correct horse"}"#;
    post(port, "/api/v1/auth/register", account, None);
    let login = post(port, "/api/v1/auth/login", r#"{"username":"bench","password":"correct horse"}"#, None);
    let token = login["access_token"].as_str().expect("a token").to_owned();
    for number in 0..20 {
        let task =
            format!(r#"{{"title":"task {number}","description":"something to be done before the end of the week"}}"#);
        post(port, "/api/v1/tasks/", &task, Some(&token));
    }
    token
}

pub fn post(port: u16, path: &str, body: &str, token: Option<&str>) -> serde_json::Value {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the tracker listens");
    let bearer = token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n{bearer}content-length: {length}\r\n\r\n{body}"
    )
    .expect("the tracker reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the tracker answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 20"), "{answer}");
    serde_json::from_str(body).expect("JSON")
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

pub fn wait_for(port: u16) {
    for _ in 0..500 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("nothing listens on {port}");
}

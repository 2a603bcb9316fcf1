//! The live page and its API, on archives that a test writes.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use expect_test::{Expect, expect};
use kit::batch::{Batch, Engine, Entry, Receiver, Status};
use scalelab::dashboard::{self, Dashboard};
use scalelab::error;

use super::lab::{scratch, until};
use super::page::chromium;

/// The start of every schedule here: 2026-11-21 12:00:00.250 UTC, so the first tick of 2 s comes after 1.75 s.
const START_UNIX_MS: f64 = 1_795_262_400_250.0;

const TRIAL: &str = "000_rate140_r0";

/// An archive of a stream, with `name` as its question.
struct Archive {
    folder: PathBuf,
    seq: u64,
}

impl Archive {
    fn new(folder: PathBuf) -> Self {
        std::fs::create_dir_all(folder.join("trials").join(TRIAL)).unwrap();
        let archive = Self { folder, seq: 0 };
        let experiment =
            "# When does it fall behind?\nsystem = \"socket-stream\"\nname = \"before\"\ndeployment = \"processes\"\n";
        archive.append("experiment.toml", experiment);
        let plan = serde_json::json!({"trials": [{"index": 0, "name": TRIAL, "levels": {"rate": 140}, "repetition": 0, "seed": 7}]});
        archive.append("plan.json", &plan.to_string());
        archive.append("results.jsonl", "");
        archive.append(&trial_file("series.csv"), "t_s,name,role,replica,value\n");
        archive.append(&trial_file("stats_history.csv"), &format!("{}\n", scalelab::report::csv::HISTORY_HEADER));
        archive
    }

    /// One with an engine and a receiver.
    fn of_stream(folder: PathBuf) -> Self {
        let mut archive = Self::new(folder);
        archive.tell(&Entry::Engine(Engine {
            name: "word count".to_owned(),
            start_unix_ms: START_UNIX_MS,
            batch_interval_ms: 2000.0,
            block_interval_ms: 200.0,
            cores: 4,
            receivers: 1,
            partitions: 4,
            concurrent_jobs: 1,
            predicted_processing_ms: Some(2531.0),
            notes: Vec::new(),
        }));
        archive.tell(&Entry::Receiver(Receiver {
            active: true,
            source: "127.0.0.1:9999".to_owned(),
            restarts: 1,
            last_error: Some("the source closed the connection".to_owned()),
            last_error_ms: Some(500.0),
            ..Receiver::default()
        }));
        archive
    }

    fn append(&self, name: &str, text: &str) {
        let path = self.folder.join(name);
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn tell(&mut self, entry: &Entry) {
        self.seq += 1;
        let line = kit::journal::Line { seq: self.seq, entry };
        self.append(&trial_file("batches.jsonl"), &format!("{}\n", serde_json::to_string(&line).unwrap()));
    }

    /// A batch in all its states up to `status`; each takes 2.5 s of every 2 s.
    fn batch(&mut self, number: u64, status: Status) {
        let time_ms = 1750.0 + 2000.0 * number as f64;
        let started_ms = 1751.4 + 2500.0 * number as f64;
        let queued = Batch {
            batch: number,
            time_ms,
            submitted_ms: time_ms + 0.7,
            records: 280,
            blocks: 10,
            output_ops: 1,
            ..Batch::default()
        };
        let processing = Batch { status: Status::Processing, started_ms: Some(started_ms), ..queued.clone() };
        let completed = Batch {
            status: Status::Completed,
            ended_ms: Some(started_ms + 2500.0),
            output_ops_done: 1,
            jobs: 1,
            tasks: 15,
            output: vec![format!("('word{number}', 12)")],
            ..processing.clone()
        };
        let states: &[Batch] = match status {
            Status::Queued => &[queued],
            Status::Processing => &[queued, processing],
            _ => &[queued, processing, completed],
        };
        states.iter().for_each(|batch| self.tell(&Entry::Batch(batch.clone())));
    }
}

fn trial_file(name: &str) -> String {
    format!("trials/{TRIAL}/{name}")
}

fn serve(folder: &Path) -> Dashboard {
    dashboard::serve(folder, any_port()).unwrap()
}

fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// Status and body.
fn get(dashboard: &Dashboard, path: &str) -> (u16, String) {
    let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().http_status_as_error(false).build());
    let mut answer = agent.get(format!("http://{}{path}", dashboard.addr())).call().unwrap();
    (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
}

fn json(dashboard: &Dashboard, path: &str) -> serde_json::Value {
    let (status, body) = get(dashboard, path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

fn check(dashboard: &Dashboard, path: &str, expected: Expect) {
    let (status, body) = get(dashboard, path);
    let value: serde_json::Value = serde_json::from_str(&body).unwrap();
    expected.assert_eq(&format!("{status} {value:#}"));
}

#[test]
fn a_stream_answers_with_the_field_names_of_spark() {
    let folder = scratch();
    let mut archive = Archive::of_stream(folder.path().join("20261121_120000"));
    (0..3).for_each(|number| archive.batch(number, Status::Completed));
    archive.batch(3, Status::Processing);
    archive.batch(4, Status::Queued);
    let dashboard = serve(&archive.folder);
    let streaming = format!("/api/v1/applications/20261121_120000-{TRIAL}/streaming");
    check(
        &dashboard,
        "/api/v1/applications",
        expect![[r#"
        200 [
          {
            "id": "20261121_120000-000_rate140_r0",
            "name": "before"
          }
        ]"#]],
    );
    check(
        &dashboard,
        &format!("{streaming}/statistics"),
        expect![[r#"
        200 {
          "startTime": "2026-11-21T12:00:00.250GMT",
          "batchDuration": 2000,
          "numReceivers": 1,
          "numActiveReceivers": 1,
          "numInactiveReceivers": 0,
          "numTotalCompletedBatches": 3,
          "numRetainedCompletedBatches": 3,
          "numActiveBatches": 2,
          "numProcessedRecords": 840,
          "numReceivedRecords": 1120,
          "avgInputRate": 140.0,
          "avgSchedulingDelay": 751,
          "avgProcessingTime": 2500,
          "avgTotalDelay": 3001
        }"#]],
    );
    check(
        &dashboard,
        &format!("{streaming}/batches?status=PROCESSING&status=queued"),
        expect![[r#"
        200 [
          {
            "batchId": 1795262410000,
            "batchTime": "2026-11-21T12:00:10.000GMT",
            "status": "QUEUED",
            "batchDuration": 2000,
            "inputSize": 280,
            "numActiveOutputOps": 0,
            "numCompletedOutputOps": 0,
            "numFailedOutputOps": 0,
            "numTotalOutputOps": 1
          },
          {
            "batchId": 1795262408000,
            "batchTime": "2026-11-21T12:00:08.000GMT",
            "status": "PROCESSING",
            "batchDuration": 2000,
            "inputSize": 280,
            "schedulingDelay": 1501,
            "numActiveOutputOps": 1,
            "numCompletedOutputOps": 0,
            "numFailedOutputOps": 0,
            "numTotalOutputOps": 1
          }
        ]"#]],
    );
    check(
        &dashboard,
        &format!("{streaming}/batches/1795262404000"),
        expect![[r#"
        200 {
          "batchId": 1795262404000,
          "batchTime": "2026-11-21T12:00:04.000GMT",
          "status": "COMPLETED",
          "batchDuration": 2000,
          "inputSize": 280,
          "schedulingDelay": 501,
          "processingTime": 2500,
          "totalDelay": 3001,
          "numActiveOutputOps": 0,
          "numCompletedOutputOps": 1,
          "numFailedOutputOps": 0,
          "numTotalOutputOps": 1
        }"#]],
    );
    check(
        &dashboard,
        &format!("{streaming}/receivers/0"),
        expect![[r#"
        200 {
          "streamId": 0,
          "streamName": "SocketReceiver-0",
          "isActive": true,
          "lastErrorTime": "2026-11-21T12:00:00.750GMT",
          "lastErrorMessage": "the source closed the connection",
          "lastError": "the source closed the connection",
          "avgEventRate": 140.0,
          "eventRates": [
            [
              1795262402000,
              140.0
            ],
            [
              1795262404000,
              140.0
            ],
            [
              1795262406000,
              140.0
            ],
            [
              1795262408000,
              140.0
            ],
            [
              1795262410000,
              140.0
            ]
          ]
        }"#]],
    );
    let all = json(&dashboard, &format!("{streaming}/batches"));
    let ids: Vec<_> = all.as_array().unwrap().iter().map(|batch| batch["batchId"].as_u64().unwrap()).collect();
    assert!(ids.len() == 5 && ids.is_sorted_by(|a, b| a > b), "the newest first: {ids:?}");
    assert_eq!(
        json(&dashboard, &format!("{streaming}/receivers"))[0],
        json(&dashboard, &format!("{streaming}/receivers/0"))
    );
}

#[test]
fn what_is_not_there_is_said_as_json() {
    let folder = scratch();
    let archive = Archive::of_stream(folder.path().join("run"));
    let plain = Archive::new(folder.path().join("plain"));
    let (dashboard, of_plain) = (serve(&archive.folder), serve(&plain.folder));
    let streaming = format!("/api/v1/applications/run-{TRIAL}/streaming");
    for path in ["/api/v1/applications/nobody", "/api/v1/applications/nobody/streaming/statistics"] {
        check(
            &dashboard,
            path,
            expect![[r#"
            404 {
              "error": "no such app: nobody"
            }"#]],
        );
    }
    check(
        &dashboard,
        &format!("{streaming}/batches/17"),
        expect![[r#"
        404 {
          "error": "unknown batch: 17"
        }"#]],
    );
    check(
        &dashboard,
        &format!("{streaming}/receivers/x"),
        expect![[r#"
        404 {
          "error": "unknown receiver: x"
        }"#]],
    );
    check(
        &dashboard,
        &format!("{streaming}/batches?status=LOST"),
        expect![[r#"
        400 {
          "error": "unknown status \"LOST\": COMPLETED, QUEUED, PROCESSING"
        }"#]],
    );
    check(
        &dashboard,
        &format!("{streaming}/operations"),
        expect![[r#"
        404 {
          "error": "no such page: / is the page, /api/v1/applications and /metrics are for programs"
        }"#]],
    );
    check(
        &of_plain,
        &format!("/api/v1/applications/plain-{TRIAL}/streaming/statistics"),
        expect![[r#"
        404 {
          "error": "no stream in plain-000_rate140_r0"
        }"#]],
    );
    assert_eq!(get(&dashboard, &format!("/api/v1/applications/..%2F..%2Fetc-{TRIAL}/streaming/statistics")).0, 404);
}

#[test]
fn what_is_added_to_the_archive_is_seen_and_half_a_line_is_not() {
    let folder = scratch();
    let mut archive = Archive::of_stream(folder.path().join("run"));
    let dashboard = serve(&archive.folder);
    let completed = || json(&dashboard, "/api/state")["stream"]["completed"].as_u64();
    assert_eq!(completed(), Some(0));
    archive.batch(0, Status::Completed);
    assert_eq!(completed(), Some(1));

    let version = json(&dashboard, "/api/state")["version"].as_u64().unwrap();
    assert_eq!(get(&dashboard, &format!("/api/state?version={version}")), (204, String::new()), "nothing is new");

    let line = r#"{"seq":9,"entry":"batch","batch":1,"time_ms":3750.0,"records":280,"blocks":10,"status":"completed","submitted_ms":3751.0,"started_ms":4251.0,"ended_ms":6751.0,"output_ops":1,"output_ops_done":1,"jobs":1,"tasks":15,"reason":null}"#;
    let (half, rest) = line.split_at(100);
    archive.append(&trial_file("batches.jsonl"), half);
    assert_eq!(get(&dashboard, &format!("/api/state?version={version}")).0, 204, "half a line is nothing yet");
    archive.append(&trial_file("batches.jsonl"), rest);
    assert_eq!(completed(), Some(1), "a line ends with its line break");
    archive.append(&trial_file("batches.jsonl"), "\n");
    assert_eq!(completed(), Some(2));

    archive
        .append(&trial_file("series.csv"), "0.000,cpu,engine,1,0.25\n1.000,cpu,engine,1,\n1.000,cpu,engine,2,0.5\n2.0");
    let state = json(&dashboard, "/api/state");
    let cpu = state["charts"].as_array().unwrap().iter().find(|chart| chart["id"] == "cpu").unwrap();
    assert_eq!(
        cpu["lines"],
        serde_json::json!([{"label": "engine", "t": [0.0, 1.0], "v": [0.25, null], "wide": false}]),
        "a reading is missing"
    );

    std::fs::write(archive.folder.join(trial_file("batches.jsonl")), "").unwrap();
    assert_eq!(json(&dashboard, "/api/state")["stream"], serde_json::Value::Null, "a trial that is begun again");
}

#[test]
fn a_link_that_moves_leads_to_the_new_run() {
    let folder = scratch();
    let link = folder.path().join("latest");
    let dashboard = serve(&link);
    assert_eq!(json(&dashboard, "/api/state")["run"], serde_json::Value::Null);
    assert_eq!(json(&dashboard, "/api/v1/applications"), serde_json::json!([]));
    for (run, batches) in [("first", 3), ("second", 1)] {
        let mut archive = Archive::of_stream(folder.path().join(run));
        (0..batches).for_each(|number| archive.batch(number, Status::Completed));
        let beside = folder.path().join("beside");
        std::os::unix::fs::symlink(run, &beside).unwrap();
        std::fs::rename(beside, &link).unwrap();
        let state = json(&dashboard, "/api/state");
        assert_eq!((&state["run"]["id"], &state["stream"]["completed"]), (&run.into(), &batches.into()));
    }
}

#[test]
fn a_page_on_loopback_is_for_names_of_loopback_only() {
    let folder = scratch();
    let archive = Archive::of_stream(folder.path().join("run"));
    let dashboard = serve(&archive.folder);
    let port = dashboard.addr().port();
    for (host, expected) in [
        (format!("localhost:{port}"), 200),
        (format!("127.0.0.1:{port}"), 200),
        (format!("[::1]:{port}"), 200),
        ("localhost".to_owned(), 200),
        (format!("evil.example:{port}"), 403),
        ("127.0.0.1.evil.example".to_owned(), 403),
        (String::new(), 403),
    ] {
        let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().http_status_as_error(false).build());
        let asked = agent.get(format!("http://{}/api/state", dashboard.addr())).header("host", &host).call();
        assert_eq!(asked.unwrap().status().as_u16(), expected, "{host:?}");
    }
}

#[test]
fn a_port_in_use_is_named_with_the_way_out() {
    let folder = scratch();
    let first = serve(folder.path());
    let port = first.addr().port();
    let refused = dashboard::serve(folder.path(), first.addr()).err().unwrap();
    assert_eq!(error::exit_code(&refused), 4);
    let other = port.checked_add(1).unwrap_or(dashboard::PORT);
    assert_eq!(
        refused.to_string(),
        format!(
            "cannot show the page on 127.0.0.1:{port}: port {port} is in use; choose another port (--ui {other}), or none (--ui off)"
        )
    );
    let addr = first.addr();
    drop(first);
    drop(dashboard::serve(folder.path(), addr).expect("a page that was dropped has let go of its port"));
}

#[test]
fn metrics_have_the_names_of_spark_and_leave_out_what_is_not_known() {
    let folder = scratch();
    let mut archive = Archive::of_stream(folder.path().join("run"));
    let dashboard = serve(&archive.folder);
    let (_, text) = get(&dashboard, "/metrics");
    assert!(text.contains("streaming_waitingBatches{trial=\"000_rate140_r0\"} 0.0\n"), "{text}");
    assert!(!text.contains("lastCompletedBatch_totalDelay{"), "{text}");
    archive.batch(0, Status::Completed);
    archive.append(&trial_file("series.csv"), "1.000,rss_bytes,engine,1,1048576\n1.000,rss_bytes,engine,2,1048576\n");
    let row = "1795262401,64,,Aggregated,1288,8,0.287,0.381,0.47,0.513,0.656,0.887,3.113,5.399,11.37,11.469,11.469,1960,8,0.289,0.457,0.134,11.469,1097.376\n";
    archive.append(&trial_file("stats_history.csv"), row);
    let (_, text) = get(&dashboard, "/metrics");
    for line in [
        "streaming_lastCompletedBatch_processingDelay{trial=\"000_rate140_r0\"} 2500.0\n",
        "scalelab_operations_total{trial=\"000_rate140_r0\"} 1960\n",
        "scalelab_failed_operations_total{trial=\"000_rate140_r0\"} 8\n",
        "scalelab_latency_seconds{trial=\"000_rate140_r0\",quantile=\"0.95\"} 0.000887\n",
        "scalelab_resident_memory_bytes{trial=\"000_rate140_r0\",role=\"engine\"} 2097152.0\n",
        "# EOF\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
}

/// A process that does not outlive its test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_page_has_four_timelines_that_move_while_the_archive_grows() {
    let Some(chromium) = chromium() else {
        assert!(std::env::var_os("CI").is_none(), "CI has no Chromium; .ci/run installs it");
        eprintln!("skipped: no Chromium; apt-get install chromium");
        return;
    };
    let folder = scratch();
    let mut archive = Archive::of_stream(folder.path().join("run"));
    // A source may send anything, and what it sends must stay text.
    archive.tell(&Entry::Receiver(Receiver {
        active: true,
        source: "127.0.0.1:9999".to_owned(),
        last_error: Some("<img src=x onerror=console.error(1)>".to_owned()),
        last_error_ms: Some(500.0),
        ..Receiver::default()
    }));
    (0..3).for_each(|number| archive.batch(number, Status::Completed));
    let dashboard = serve(&archive.folder);
    let (out, log) = (folder.path().join("dom.html"), folder.path().join("log"));
    let profile = folder.path().join("profile");
    let browser = std::process::Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"])
        .args(["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--v=0"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(["--virtual-time-budget=15000", "--dump-dom"])
        .arg(format!("http://{}/", dashboard.addr()))
        .stdin(std::process::Stdio::null())
        .stdout(std::fs::File::create(&out).unwrap())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .expect("Chromium starts");
    let mut browser = Ended(browser);
    // The stream goes on as long as the browser looks at it.
    let mut number = 3;
    until("the browser ends", || {
        archive.batch(number, Status::Completed);
        let (t_s, value) = (number as f64 * 2.0, number % 7);
        archive.append(&trial_file("series.csv"), &format!("{t_s:.3},cpu,engine,1,0.{value}\n"));
        number += 1;
        browser.0.try_wait().unwrap().is_some()
    });
    let (dom, log) = (std::fs::read_to_string(&out).unwrap(), std::fs::read_to_string(&log).unwrap());
    for id in ["input-rate", "scheduling-delay", "processing-time", "total-delay", "cpu"] {
        let chart = dom.split("<svg ").find(|svg| svg.contains(&format!("data-chart=\"{id}\""))).expect(id);
        let head = &chart[..chart.find('>').unwrap()];
        let number = |key: &str| -> u32 {
            head.split(&format!("{key}=\"")).nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
        };
        assert!(number("data-moved") >= 3, "{id} moves: {head}");
        assert!(number("data-points") > 3, "{id} shows what was added: {head}");
        assert!(head.contains("aria-label") && head.contains("tabindex"), "{id} can be focused and read: {head}");
        assert!(chart.contains("class=\"curve"), "{id} is drawn");
    }
    for text in [
        "Falls behind:",
        "When does it fall behind?",
        "stable below the interval, 2 s",
        "Completed batches (last",
        "&lt;img src=x",
    ] {
        assert!(dom.contains(text), "{text}");
    }
    let errors: Vec<_> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(errors.is_empty(), "{errors:?}");
    for outside in ["src=\"http", "href=\"http", "url(http"] {
        assert!(!dom.contains(outside), "the page loads nothing from elsewhere: {outside}");
    }
}

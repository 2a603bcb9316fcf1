//! Every input can be wrong: the message says what, where, and the way out, and the exit code says whose turn it is.

use super::lab::{call, scratch, write};

fn refuses(what: &str, text: &str, expected: &[&str]) {
    let folder = scratch();
    let file = write(folder.path(), "x.toml", text);
    let out = folder.path().join("runs");
    let called = call(&["run", file.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert_eq!(called.code, Some(2), "{what}: {}", called.stderr);
    for part in expected {
        assert!(called.stderr.contains(part), "{what}: {part:?} is not in {:?}", called.stderr);
    }
    assert!(!out.exists(), "{what}: nothing is written for an experiment that is refused");
}

const HEAD: &str = "# why?\nsystem = \"task-tracker\"\n";

#[test]
fn a_wrong_experiment_is_refused_with_its_line_and_what_is_allowed() {
    let with = |rest: &str| format!("{HEAD}{rest}");
    refuses("unknown key", &with("userz = 3\n"), &["x.toml:3:", "userz"]);
    refuses("wrong type", &with("trials = \"three\"\n"), &["x.toml:3:", "a whole number"]);
    refuses("no duration", &with("duration = \"soon\"\n"), &["x.toml:3:", "soon", "10s"]);
    refuses("zero users", &with("[factors]\nusers = [4, 0]\n"), &["x.toml:4:", "users = 0", "from 1"]);
    refuses("no users at all", &with("[load]\nthink = \"1s\"\n"), &["x.toml:3:", "zero users"]);
    refuses("unknown factor", &with("[factors]\nusres = [1]\n"), &["x.toml:4:", "usres", "architecture, users"]);
    refuses(
        "unknown level",
        &with("[factors]\nusers = [1]\narchitecture = [\"monolit\"]\n"),
        &["x.toml:5:", "monolit", "monolith, microservices"],
    );
    refuses("level twice", &with("[factors]\nusers = [1, 1]\n"), &["x.toml:4:", "twice"]);
    refuses(
        "unknown role",
        &with("[factors]\nusers = [1]\n[roles.usre]\nreplicas = 2\n"),
        &["x.toml:5:", "usre", "gateway"],
    );
    refuses(
        "a role that no cell has",
        &with("[factors]\nusers = [1]\n[roles.gateway]\nreplicas = 2\n"),
        &["x.toml:5:", "no cell"],
    );
    refuses(
        "unknown backend",
        &with("[factors]\nusers = [1]\n[backends]\ndatabase = \"oracle\"\n"),
        &["x.toml:6:", "oracle", "sqlite"],
    );
    refuses("unknown setting", &with("[factors]\nusers = [1]\n[settings]\nargon = 1\n"), &["x.toml:", "argon"]);
    refuses(
        "unknown deployment",
        &with("deployment = \"cloud\"\n[factors]\nusers = [1]\n"),
        &["x.toml:3:", "cloud", "in-process"],
    );
    refuses("rate under closed load", &with("[factors]\nrate = [1]\n"), &["x.toml:4:", "open"]);
    refuses(
        "an objective of streams",
        &with("slo = [\"errors <= 1%\", \"stable\"]\n[factors]\nusers = [1]\n"),
        &["x.toml:3:", "stable", "task-tracker is none", "p95 <= 250ms"],
    );
    refuses(
        "a search without an objective",
        &with("[search]\nfactor = \"users\"\nfind = \"capacity\"\nbetween = [1, 9]\n"),
        &["x.toml:3:", "slo"],
    );
    refuses(
        "an objective nobody can read",
        &with("slo = [\"fast enough\"]\n[factors]\nusers = [1]\n"),
        &["x.toml:3:", "p95"],
    );
    refuses("unknown system", "system = \"todo\"\n", &["x.toml:1:", "todo", "task-tracker"]);
    refuses("not TOML", "system = \n", &["x.toml:1:"]);
}

#[test]
fn a_wrong_flag_or_file_is_exit_2_and_says_the_way_out() {
    let resumed = scratch();
    write(resumed.path(), "experiment.toml", "# why?\nsystem = \"task-tracker\"\n[factors]\nusers = [1]\n");
    write(resumed.path(), "results.jsonl", "");
    let resumed = resumed.path().to_str().unwrap();
    for (arguments, expected) in [
        (&["run", "nothing-here.toml"][..], "scalelab list"),
        (&["run", "task-tracker/demo-local", "--duration", "soon"], "10s"),
        (&["run", "task-tracker/demo-local", "--duration", "1500ms"], "whole seconds"),
        (&["run", "task-tracker/demo-local", "--deployment", "cloud"], "in-process"),
        (&["run", "task-tracker/demo-local", "--slo", "quick"], "p95"),
        (&["run", "--resume", "/nothing/here"], "no such folder"),
        (&["run", "--resume", resumed, "--trials", "9"], "--trials has no place beside --resume"),
        (&["run", "--resume", resumed, "--print-experiment"], "--print-experiment has no place"),
        (&["run", "--resume", resumed, "--database", "postgres"], "--database has no place"),
        (&["run", "--resume", resumed, "--database", "postgres://h/d"], "--database has no place"),
        (&["report", "/"], "no archive"),
        (&["report", "/nothing/here"], "no such folder"),
        (&["compare", resumed, resumed], "no trial has ended"),
        (&["up", "nothing"], "scalelab list"),
        (&["up", "task-tracker", "--arch", "soa"], "monolith, microservices"),
        (&["arch", "sweep", "--concurrency-levels", "0"], "from 1"),
    ] {
        let called = call(arguments);
        assert_eq!(called.code, Some(2), "{arguments:?}: {}", called.stderr);
        assert!(called.stderr.contains(expected), "{arguments:?}: {expected:?} is not in {:?}", called.stderr);
    }
}

#[test]
fn a_role_that_cannot_be_configured_says_so_and_ends() {
    let folder = scratch();
    let no_such_role = write(folder.path(), "a.json", r#"{"role":"nothing"}"#);
    let no_secret = write(folder.path(), "b.json", r#"{"role":"monolith"}"#);
    let no_json = write(folder.path(), "c.json", "role = monolith");
    for (role, file, expected) in [
        ("nothing", &no_such_role, "monolith, gateway"),
        ("gateway", &no_secret, "the command line says"),
        ("monolith", &no_secret, "secret"),
        ("monolith", &no_json, "c.json"),
    ] {
        let called = call(&["serve", "task-tracker", role, "--config", file.to_str().unwrap()]);
        assert_eq!(called.code, Some(4), "{role}: {}", called.stderr);
        assert!(called.stderr.contains(expected), "{role}: {expected:?} is not in {:?}", called.stderr);
    }
}

#[test]
fn an_output_folder_that_cannot_be_written_is_exit_4_before_anything_starts() {
    let called = call(&["run", "task-tracker/demo-local", "--out", "/proc/nowhere"]);
    assert_eq!(called.code, Some(4), "{}", called.stderr);
    assert!(called.stderr.contains("--out"), "{}", called.stderr);
}

#[test]
fn a_port_in_use_is_exit_4_and_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let called = call(&["up", "task-tracker", "--port", &port]);
    assert_eq!(called.code, Some(4), "{}", called.stderr);
    assert!(called.stderr.contains(&port) && called.stderr.contains("monolith"), "{}", called.stderr);
}

#[test]
fn a_database_that_cannot_be_reached_is_exit_4_without_its_password() {
    let folder = scratch();
    let out = folder.path().to_str().unwrap();
    let url = "postgres://somebody:hunter2@127.0.0.1:1/db";
    let called = call(&["run", "task-tracker/demo-local", "--database", url, "--out", out]);
    assert_eq!(called.code, Some(4), "{}", called.stderr);
    assert!(called.stderr.contains("127.0.0.1"), "{}", called.stderr);
    let archived = std::fs::read_to_string(folder.path().join("latest/environment.json")).unwrap();
    assert!(!called.stderr.contains("hunter2") && !archived.contains("hunter2"));
}

#[test]
fn an_external_system_that_is_not_there_is_exit_4() {
    let folder = scratch();
    let out = folder.path().to_str().unwrap();
    let called =
        call(&["arch", "sweep", "--arch", "monolith", "--base-url-monolith", "http://127.0.0.1:1", "--out", out]);
    assert_eq!(called.code, Some(4), "{}", called.stderr);
    assert!(called.stderr.contains("nothing answers"), "{}", called.stderr);
}

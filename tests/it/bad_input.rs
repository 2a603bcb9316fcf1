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
fn a_fault_that_cannot_be_is_refused_before_anything_runs() {
    let cells = "[factors]\nusers = [5]\narchitecture = [\"microservices\"]\n[roles.task-service]\nreplicas = 2\n";
    // Line 8 begins the first fault.
    let with = |top: &str, faults: &str| format!("# why?\nsystem = \"task-tracker\"\n{top}{cells}{faults}");
    let fault = |keys: &str| format!("[[fault]]\n{}\n", keys.replace('\'', "\""));
    let one = |keys: &str| with("", &fault(keys));
    for (what, text, expected) in [
        (
            "a role that nobody has",
            one("role = 'monolith'\nat = '4s'\nkind = 'kill'\ndowntime = '2s'"),
            &["x.toml:9:", "no cell of the plan has the role monolith", "task-service", "or add the cell"][..],
        ),
        (
            "a role that is none",
            one("role = 'task'\nat = '4s'\nkind = 'kill'\ndowntime = '2s'"),
            &["x.toml:9:", "unknown role \"task\"", "user-service, task-service"],
        ),
        (
            "the instrument",
            one("role = 'load'\nat = '4s'\nkind = 'pause'\ndowntime = '2s'"),
            &["x.toml:9:", "the load is the instrument", "from = \"load\""],
        ),
        (
            "a replica too high",
            one("replica = 3\nrole = 'task-service'\nat = '4s'\nkind = 'kill'\ndowntime = '2s'"),
            &["x.toml:9:", "no cell of the plan has task-service 3; 2 is the last", "replicas = 3"],
        ),
        (
            "a link that nobody has",
            one("from = 'stats-service'\nrole = 'user-service'\nat = '4s'\nkind = 'blackhole'\ndowntime = '2s'"),
            &["x.toml:9:", "no cell of the plan has a link from stats-service to user-service", "from gateway"],
        ),
        (
            "a link of a fault that breaks none",
            one("from = 'gateway'\nrole = 'task-service'\nat = '4s'\nkind = 'kill'\ndowntime = '2s'"),
            &["x.toml:9:", "kill breaks none; take from out"],
        ),
        (
            "a downtime past the end",
            one("downtime = '10s'\nrole = 'gateway'\nat = '4s'\nkind = 'kill'"),
            &["x.toml:9:", "is over at 14s", "users 5 at 13s", "duration = \"11s\""],
        ),
        (
            "a beginning past the end",
            one("at = '5m'\nrole = 'gateway'\nkind = 'restart'"),
            &["x.toml:9:", "begin earlier"],
        ),
        (
            "a repetition past the end",
            one("times = 9\nevery = '3s'\nrole = 'gateway'\nat = '4s'\nkind = 'kill'\ndowntime = '2s'"),
            &["x.toml:9:", "is over at 30s"],
        ),
        (
            "a repetition before the repair",
            one("every = '1s'\ntimes = 3\nrole = 'gateway'\nat = '4s'\nkind = 'kill'\ndowntime = '2s'"),
            &["x.toml:9:", "before the last is over; write 2s or more"],
        ),
        (
            "a restart with a downtime",
            one("downtime = '2s'\nrole = 'gateway'\nat = '4s'\nkind = 'restart'"),
            &["x.toml:9:", "a restart has no downtime; use stop-start"],
        ),
        (
            "no downtime at all",
            one("downtime = '0s'\nrole = 'gateway'\nat = '4s'\nkind = 'kill'"),
            &["x.toml:9:", "above 0, or use restart"],
        ),
        (
            "two that contradict each other",
            with(
                "",
                &[
                    fault("at = '4s'\nrole = 'task-service'\nkind = 'stop-start'\nreplica = 'random'\ndowntime = '3s'"),
                    fault("at = '6s'\nrole = 'task-service'\nkind = 'kill'\nreplica = 2\ndowntime = '3s'"),
                ]
                .concat(),
            ),
            &["x.toml:15:", "kill of task-service 2 at 6s contradicts stop-start of task-service random at 4s"],
        ),
        (
            "a hog above half",
            one("memory = '4000GiB'\nrole = 'gateway'\nat = '4s'\nkind = 'memory-hog'\ndowntime = '2s'"),
            &["fault.0.memory", "at most half of that"],
        ),
        (
            "a system that runs elsewhere",
            with(
                "deployment = \"external\"\nexternal.default = \"http://127.0.0.1:1\"\n",
                &fault("at = '4s'\nrole = 'gateway'\nkind = 'kill'"),
            ),
            &["x.toml:10:", "breaks nothing that it has not started", "in-process or processes"],
        ),
        (
            "a simulation",
            "# why?\nsystem = \"socket-stream\"\ndeployment = \"simulated\"\n[load]\nmode = \"open\"\nrate = 9\n\
             [[fault]]\nat = 3\nrole = \"source\"\nkind = \"pause\"\n"
                .to_owned(),
            &["x.toml:7:", "deployment simulated", "run it in-process or processes"],
        ),
        (
            "HTTP on a stream",
            "# why?\nsystem = \"socket-stream\"\n[load]\nmode = \"open\"\nrate = 9\n\
             [[fault]]\nat = 3\nrole = \"source\"\ndowntime = 1\nshare = 0.1\nkind = \"error-rate\"\n"
                .to_owned(),
            &["x.toml:11:", "carry no HTTP requests"],
        ),
        (
            "an unreadable reason to abort",
            with("abort_when = \"it burns\"\n", ""),
            &["x.toml:3:", "errors > 50% for 30s"],
        ),
    ] {
        refuses(what, &text, expected);
    }
}

#[test]
fn faults_that_do_not_meet_are_planned_and_those_that_meet_only_on_links_too() {
    let folder = scratch();
    let file = write(
        folder.path(),
        "x.toml",
        "# why?\nsystem = \"task-tracker\"\nduration = \"30s\"\ntrials = 1\n[factors]\nusers = [5]\n\
         architecture = [\"monolith\", \"microservices\"]\n\
         [[fault]]\nat = \"10s\"\nkind = \"kill\"\nrole = \"task-service\"\ndowntime = \"5s\"\nevery = \"5s\"\ntimes = 2\n\
         [[fault]]\nat = \"20s\"\nkind = \"restart\"\nrole = \"task-service\"\n\
         [[fault]]\nat = \"10s\"\nkind = \"blackhole\"\nrole = \"task-service\"\ndowntime = \"5s\"\n\
         [[fault]]\nat = \"11s\"\nkind = \"latency\"\nlatency = \"50ms\"\nrole = \"task-service\"\nfrom = \"gateway\"\n",
    );
    let called = call(&["plan", file.to_str().unwrap()]);
    assert_eq!(called.code, Some(0), "{}", called.stderr);
    let injections: Vec<_> = called.stdout.lines().filter(|line| line.starts_with("    at ")).collect();
    assert_eq!(
        injections,
        [
            "    at  10.000 s  kill of task-service 1, for 5s",
            "    at  10.000 s  blackhole of task-service 1, for 5s",
            "    at  11.000 s  latency=50ms of task-service 1 from gateway, for 10s",
            "    at  15.000 s  kill of task-service 1, for 5s",
            "    at  20.000 s  restart of task-service 1, back at once",
        ],
        "the monolith has none of them"
    );
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

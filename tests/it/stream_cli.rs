//! The phases of a stream on the command line, and its source alone.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::time::Duration;

use super::lab::{Called, begin, call, scratch, signal, write};

/// A phase in simulated time, with its archive in a folder that goes.
fn simulated(phase: &str, flags: &[&str]) -> Called {
    let out = scratch();
    let mut arguments = vec!["stream", phase, "--deployment", "simulated", "--out", out.path().to_str().unwrap()];
    arguments.extend(flags);
    call(&arguments)
}

#[test]
fn a_phase_is_its_workload_with_the_flags_laid_over_it() {
    for (arguments, expected) in [
        (&["baseline"][..], &["rate = 150", "cores = 4", "like = \"spark\"", "deployment = \"processes\""][..]),
        (&["slow-map"], &["cost = \"4ms\"", "cost_per = \"word\"", "partitions = 4"]),
        (&["parallelism"], &["cores = 8", "partitions = 8", "cost = \"4ms\""]),
        (&["before"], &["rate = 143", "cost = \"15ms\"", "duration = \"2m\"", "trials = 1"]),
        (&["after"], &["rate = 141", "cost = \"5ms\"", "cores = 8"]),
        (&["before", "--cost", "5ms", "--rate", "20"], &["cost = \"5ms\"", "rate = 20", "cores = 4"]),
        (&["before", "--batch-interval", "4", "--like", "none"], &["batch_interval = \"4s\"", "like = \"none\""]),
        (&["before", "--source", "localhost:9999"], &["source = \"localhost:9999\""]),
        (&["before", "--duration-seconds", "30", "--deployment", "simulated"], &["duration = \"30s\"", "simulated"]),
    ] {
        let called = call(&[&["stream"][..], arguments, &["--print-experiment"]].concat());
        assert_eq!(called.code, Some(0), "{arguments:?}: {}", called.stderr);
        for part in expected {
            assert!(called.stdout.contains(part), "{arguments:?}: {part:?} is not in {}", called.stdout);
        }
    }
}

#[test]
fn each_phase_shows_in_simulated_time_what_it_is_there_to_show() {
    for (phase, flags, expected) in [
        ("baseline", &[][..], "stable"),
        ("slow-map", &[], "falls behind"),
        ("slow-map", &["--like", "none"], "stable"),
        ("parallelism", &[], "stable"),
        ("before", &[], "falls behind"),
        ("before", &["--partitions", "3"], "stable"),
        ("after", &[], "stable"),
    ] {
        let called = simulated(phase, flags);
        assert_eq!(called.code, Some(0), "{phase} {flags:?}: {}", called.stderr);
        let last = called.stdout.trim_end().lines().last().unwrap_or_default();
        assert!(last.starts_with(&format!("{expected}: ")), "{phase} {flags:?}: not {expected:?}: {}", called.stdout);
    }
}

#[test]
fn backpressure_does_not_make_a_stream_that_falls_behind_a_stable_one() {
    // Within two minutes it is too close to tell; after ten its delay looks level.
    for duration in ["2m", "10m"] {
        let called = simulated("before", &["--backpressure", "--duration", duration]);
        let last = called.stdout.trim_end().lines().last().unwrap_or_default();
        assert!(last.starts_with("unknown: the receiver took"), "{duration}: {}", called.stdout);
        for part in ["receiver-held", "Whether the stream keeps up cannot be told: the receiver took"] {
            assert!(called.stdout.contains(part), "{duration}: {part:?} is not in {}", called.stdout);
        }
    }
    let called = simulated("before", &["--backpressure", "--duration", "10m", "--slo", "stable"]);
    assert_eq!(called.code, Some(3), "{}", called.stdout);
    // What keeps up does so under backpressure too.
    let called = simulated("before", &["--backpressure", "--partitions", "3"]);
    assert!(called.stdout.contains("stable: ") && !called.stdout.contains("receiver-held"), "{}", called.stdout);
}

#[test]
fn a_stream_without_a_slot_says_so_at_once() {
    let called = simulated("before", &["--cores", "1", "--duration", "10s"]);
    let said = called.stdout + &called.stderr;
    assert!(said.contains("no slot is left"), "{said}");
}

#[test]
fn a_wrong_flag_of_a_stream_is_exit_2_and_named() {
    for (arguments, expected) in [
        (&["before", "--batch-interval", "0"][..], &["--batch-interval"][..]),
        (&["before", "--cost=-5ms"], &["--cost", "-5ms"]),
        (&["before", "--reduce-partitions", "0"], &["--reduce-partitions"]),
        (&["before", "--cores", "0"], &["--cores"]),
        (&["before", "--rate", "0"], &["--rate", "above 0"]),
        (&["before", "--source", "nowhere"], &["HOST:PORT"]),
        (&["before", "--ui", "here"], &["0.0.0.0:4040, or off"]),
        (&["before", "--duration", "1500ms"], &["whole seconds"]),
        (&["during"], &["during", "before"]),
        (&["source", "--stages", "soon"], &["--stages", "duration:rate"]),
    ] {
        let called = call(&[&["stream"][..], arguments].concat());
        assert_eq!(called.code, Some(2), "{arguments:?}: {}", called.stderr);
        for part in expected {
            assert!(called.stderr.contains(part), "{arguments:?}: {part:?} is not in {}", called.stderr);
        }
    }
}

#[test]
fn a_wrong_setting_of_a_stream_is_refused_with_its_line() {
    for (setting, expected) in [
        ("batch_interval = \"0s\"", "batch_interval"),
        ("cost = \"-4ms\"", "negative"),
        ("reduce_partitions = 0", "reduce_partitions"),
        ("cores = 0", "cores"),
        ("speed = 3", "speed"),
    ] {
        let folder = scratch();
        let text =
            format!("# why?\nsystem = \"socket-stream\"\n[load]\nmode = \"open\"\nrate = 1\n[settings]\n{setting}\n");
        let file = write(folder.path(), "x.toml", &text);
        let out = folder.path().join("runs");
        let called = call(&["run", file.to_str().unwrap(), "--out", out.to_str().unwrap()]);
        assert_eq!(called.code, Some(2), "{setting}: {}", called.stderr);
        assert!(called.stderr.contains("x.toml:7:"), "{setting}: {}", called.stderr);
        assert!(called.stderr.contains(expected), "{setting}: {}", called.stderr);
        assert!(!out.exists(), "{setting}: nothing is written for an experiment that is refused");
    }
}

#[test]
fn the_source_alone_sends_lines_to_anybody_until_it_is_asked_to_end() {
    let mut source = begin(&["stream", "source", "--port", "0", "--rate", "500", "--words", "2", "--vocabulary", "5"]);
    let mut said = String::new();
    let mut stdout = BufReader::new(source.stdout.take().unwrap());
    stdout.read_line(&mut said).unwrap();
    let addr = said.split_whitespace().find_map(|word| word.trim_end_matches(',').parse::<std::net::SocketAddr>().ok());
    let client = TcpStream::connect(addr.unwrap_or_else(|| panic!("no address in {said:?}"))).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    for line in BufReader::new(client).lines().take(20) {
        let line = line.unwrap();
        let words: Vec<_> = line.split(' ').collect();
        let known = |word: &str| word.strip_prefix("word").is_some_and(|n| n.parse().is_ok_and(|n: u32| n < 5));
        assert!(words.len() == 2 && words.iter().all(|word| known(word)), "{line:?}");
    }
    signal(source.id(), "INT");
    assert_eq!(source.wait().unwrap().code(), Some(0));
}

#[test]
fn a_source_whose_port_is_in_use_is_exit_4_and_says_the_way_out() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let called = call(&["stream", "source", "--port", &port]);
    assert_eq!(called.code, Some(4), "{}", called.stderr);
    assert!(called.stderr.contains(&port) && called.stderr.contains("--port"), "{}", called.stderr);
}

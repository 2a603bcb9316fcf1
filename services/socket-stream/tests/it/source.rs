//! The source and its clients.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::json;
use socket_stream::words::Lines;

use crate::hosting::{SEED, drain, end, series, settings, source, stages, start, until};

fn connect(addr: SocketAddr) -> BufReader<TcpStream> {
    BufReader::new(TcpStream::connect(addr).unwrap())
}

fn next_line(client: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    assert_eq!(line.pop(), Some('\n'));
    line
}

#[test]
fn several_clients_are_several_streams_which_end_whole_at_the_stop() {
    let given = json!({ "stages": stages(2_000.0, 60) });
    let source = source(&given);
    let mut clients = [connect(source.addr), connect(source.addr)];
    // Without a start nothing is sent; what a client says is not heard.
    clients[0].get_mut().write_all(b"hello\n").unwrap();
    start(&[&source]);
    for (stream, client) in (0..).zip(&mut clients) {
        let lines = Lines::new(&settings(&given), SEED, stream);
        (0..500).for_each(|n| assert_eq!(next_line(client), lines.line(n), "line {n} of stream {stream}"));
    }
    drain(&source);
    for (stream, client) in (0..).zip(&mut clients) {
        let lines = Lines::new(&settings(&given), SEED, stream);
        let mut rest = String::new();
        client.read_to_string(&mut rest).unwrap();
        assert!(rest.ends_with('\n'));
        (500..).zip(rest.lines()).for_each(|(n, line)| assert_eq!(line, lines.line(n)));
    }
    let last = |name| series(&source, name).last().copied().flatten().unwrap();
    assert!(last("sent_lines") >= 1_000.0 && last("sent_lines") == last("due_lines"));
    end(source);
}

#[test]
fn a_client_that_leaves_and_returns_gets_its_stream_anew() {
    let given = json!({ "stages": stages(1_000.0, 60) });
    let lines = Lines::new(&settings(&given), SEED, 0);
    let source = source(&given);
    let mut client = connect(source.addr);
    start(&[&source]);
    (0..50).for_each(|n| assert_eq!(next_line(&mut client), lines.line(n)));
    drop(client);
    // Its number is free again as soon as the source has noticed.
    let mut again = None;
    until("the source has noticed", || {
        let mut client = connect(source.addr);
        let found = next_line(&mut client) == lines.line(0);
        again = found.then_some(client);
        found
    });
    let mut client = again.unwrap();
    (1..50).for_each(|n| assert_eq!(next_line(&mut client), lines.line(n)));
    end(source);
}

#[test]
fn a_client_that_goes_before_the_start_leaves_its_place() {
    let given = json!({ "stages": stages(1_000.0, 60) });
    let source = source(&given);
    drop(connect(source.addr));
    let staying = connect(source.addr);
    start(&[&source]);
    until("only one client is left", || series(&source, "clients").last() == Some(&Some(1.0)));
    drop(staying);
    end(source);
}

#[test]
fn the_schedule_does_not_wait_for_a_slow_client() {
    // 10 MB/s: more than sockets hold.
    let given = json!({ "stages": stages(500_000.0, 60), "graceful_stop_timeout": "100ms" });
    let source = source(&given);
    let client = connect(source.addr);
    start(&[&source]);
    let last = |name| series(&source, name).last().copied().flatten().unwrap_or(0.0);
    until("the source was blocked", || last("blocked_s") > 0.5);
    assert!(last("due_lines") > last("sent_lines") + 100_000.0);
    // It ends all the same, without what the client does not read.
    drain(&source);
    drop(client);
    end(source);
}

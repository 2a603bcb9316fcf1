//! That the proxy leaves every byte as it is, with no fault and after faults.

use super::*;

/// What one end does: sends chunks of these sizes, then closes its half.
type Plan = Vec<usize>;

fn plan() -> impl Strategy<Value = Plan> {
    let size = prop_oneof![4 => 1..200_usize, 2 => 1_000..20_000_usize, 1 => 60_000..400_000_usize];
    prop::collection::vec(size, 0..12)
}

fn content(seed: u8, plan: &Plan) -> Vec<u8> {
    let length: usize = plan.iter().sum();
    (0..length).map(|at| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0] ^ seed).collect()
}

/// Sends everything and reads everything, at the same time.
fn exchange(stream: TcpStream, seed: u8, plan: Plan) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut sending = stream.try_clone().unwrap();
        let sender = std::thread::spawn(move || {
            let bytes = content(seed, &plan);
            let mut rest = bytes.as_slice();
            for size in plan {
                sending.write_all(&rest[..size]).unwrap();
                rest = &rest[size..];
            }
            sending.shutdown(Shutdown::Write).unwrap();
        });
        let mut seen = Vec::new();
        let mut stream = stream;
        stream.read_to_end(&mut seen).unwrap();
        sender.join().unwrap();
        seen
    })
}

fn unchanged(proxy: &Proxy, meanwhile: &[&str], up: Plan, down: Plan) {
    let (client, server) = proxy.link();
    let (sent_up, sent_down) = (content(1, &up), content(2, &down));
    let at_client = exchange(client, 1, up);
    let at_server = exchange(server, 2, down);
    for fault in meanwhile {
        let id = proxy.add(fault);
        proxy.lift(id);
    }
    // Whole vectors are too much for a message.
    assert!(at_server.join().unwrap() == sent_up, "towards the server");
    assert!(at_client.join().unwrap() == sent_down, "towards the client");
}

const ALL: [&str; 7] = [
    "latency=2ms,jitter=2ms,direction=both",
    "bandwidth=50MB,direction=both",
    "blackhole,direction=both",
    "slow-close=1ms,direction=both",
    "limit-data=1GB,direction=both",
    "reset=1h",
    "fail-first=1",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_and_both_ends_pass_unchanged(up in plan(), down in plan()) {
        unchanged(&Proxy::start(&[]), &[], up, down);
    }

    #[test]
    fn a_fault_that_touches_no_connection_changes_nothing(up in plan(), down in plan()) {
        let faults = ALL[..6].iter().map(|fault| format!("{fault},share=0.000000001"));
        unchanged(&Proxy::with(json!({"faults": faults.collect::<Vec<_>>()}), 1), &[], up, down);
    }

    #[test]
    fn faults_that_come_and_go_meanwhile_change_no_byte(up in plan(), down in plan()) {
        let proxy = Proxy::start(&[]);
        unchanged(&proxy, &ALL, up, down);
        assert_eq!(proxy.json("GET", "/faults", ""), json!([]));
    }

    #[test]
    fn faults_that_only_take_time_change_no_byte(up in plan(), down in plan()) {
        unchanged(&Proxy::start(&ALL[..2]), &[], up, down);
    }
}

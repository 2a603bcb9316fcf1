//! temporary
use std::time::Duration;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let rate: f64 = args[1].parse().unwrap();
    let (cores, p, cost) = (args[2].parse().unwrap(), args[3].parse().unwrap(), args[4].parse().unwrap());
    let mode = args[5].as_str();
    let settings = socket_stream::Settings {
        batch_interval: Duration::from_secs(2),
        cores,
        partitions: p,
        cost: Duration::from_millis(cost),
        like: socket_stream::Like::Spark,
        stages: vec![kit::Stage { duration: None, from_per_s: rate, to_per_s: rate }],
        poisson: mode.contains('p'),
        ..Default::default()
    };
    let (r, s, j) = (kit::Recorder::default(), kit::series::Series::default(), kit::Journal::default());
    let (mut bytes, mut seq, mut sseq, mut jseq) = (0, 0u64, 0u64, 0u64);
    socket_stream::simulate(&settings, 7, Duration::from_secs(3600), &r, &s, &j, &mut |now| {
        if mode.contains('n') {
            return Ok(());
        }
        let t = r.after(seq, now);
        bytes += t.len();
        for l in t.lines() {
            if !l.contains("\"open\":true") {
                let x: u64 = l[7..l.find(',').unwrap()].parse().unwrap();
                seq = x;
            }
        }
        let pts = s.after(sseq);
        if let Some(p) = pts.last() {
            sseq = p.seq;
        }
        let t = j.after(jseq);
        bytes += t.len();
        if let Some(l) = t.lines().last() {
            jseq = l[7..l.find(',').unwrap()].parse().unwrap();
        }
        Ok(())
    })
    .unwrap();
    println!("{bytes} bytes {:?}", r.totals());
}

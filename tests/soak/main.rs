//! Fifteen minutes of load: from minute five on, memory and open files of every replica stay flat. The median of each
//! minute is within ±5 % of the median of all, so that a buffer that comes and goes within a second is no leak, and a
//! leak is not hidden. `SOAK_MINUTES` shortens it, and then the first third is left out.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};

/// How far a value may be from the median.
const BAND: f64 = 0.05;

fn main() -> ExitCode {
    let minutes: u32 = std::env::var("SOAK_MINUTES").ok().and_then(|minutes| minutes.parse().ok()).unwrap_or(15);
    let folder = tempfile::tempdir().expect("a scratch folder");
    let status = Command::new(env!("CARGO_BIN_EXE_scalelab"))
        .args(["run", "task-tracker/soak", "--duration", &format!("{minutes}m"), "--out"])
        .arg(folder.path())
        .status()
        .expect("the program starts");
    if !status.success() {
        eprintln!("the run failed: {status}");
        return ExitCode::FAILURE;
    }
    let trials = folder.path().join("latest/trials");
    let trial = std::fs::read_dir(trials).expect("trials").flatten().next().expect("one trial");
    let series = std::fs::read_to_string(trial.path().join("series.csv")).expect("a series");
    let from_s = f64::from(minutes) * 60.0 / 3.0;
    let mut values: BTreeMap<(String, String), BTreeMap<u32, Vec<f64>>> = BTreeMap::new();
    for line in series.lines().skip(1) {
        let fields: Vec<_> = line.split(',').collect();
        let [t_s, name, role, replica, value] = fields[..] else { continue };
        let (Ok(t_s), Ok(value)) = (t_s.parse::<f64>(), value.parse::<f64>()) else { continue };
        if t_s >= from_s && matches!(name, "rss_bytes" | "open_files") {
            let minutes = values.entry((format!("{role} {replica}"), name.to_owned())).or_default();
            minutes.entry((t_s / 60.0) as u32).or_default().push(value);
        }
    }
    let mut flat = !values.is_empty();
    for ((who, what), minutes) in values {
        let mut medians: Vec<f64> = minutes.into_values().map(median).collect();
        let middle = median(medians.clone());
        medians.sort_by(f64::total_cmp);
        let (low, high) = (medians[0], medians[medians.len() - 1]);
        // A pool keeps the connections of its busiest moment: a handful more or less is no leak.
        let slack = if what == "open_files" { 4.0 } else { 0.0 };
        let ok = high <= middle * (1.0 + BAND) + slack && low >= middle * (1.0 - BAND) - slack;
        flat &= ok;
        println!(
            "{who:<18} {what:<11} {low:>12.0} {middle:>12.0} {high:>12.0}  {}",
            if ok { "flat" } else { "NOT FLAT" }
        );
    }
    if flat { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

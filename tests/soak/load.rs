//! Fifteen minutes of load, on the task tracker and on a stream at the same time: from minute five on, memory and open
//! files of every replica stay flat. The median of each minute is within ±5 % of the median of all, so that a buffer that
//! comes and goes within a second is no leak, and a leak is not hidden. `SOAK_MINUTES` shortens it, and then the first third
//! is left out.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command};

use super::median;

/// What is soaked.
const EXPERIMENTS: [&str; 2] = ["task-tracker/soak", "socket-stream/soak"];

/// Runs it; says whether all is well.
pub fn soak() -> bool {
    let minutes: u32 = std::env::var("SOAK_MINUTES").ok().and_then(|minutes| minutes.parse().ok()).unwrap_or(15);
    let folder = tempfile::tempdir().expect("a scratch folder");
    let start = |experiment: &&str| -> (String, Child) {
        let child = Command::new(env!("CARGO_BIN_EXE_scalelab"))
            .args(["run", experiment, "--duration", &format!("{minutes}m"), "--out"])
            .arg(folder.path().join(experiment))
            .spawn()
            .expect("the program starts");
        ((*experiment).to_owned(), child)
    };
    let running: Vec<_> = EXPERIMENTS.iter().map(start).collect();
    let mut flat = true;
    for (experiment, mut child) in running {
        let status = child.wait().expect("the program ends");
        if !status.success() {
            eprintln!("{experiment} failed: {status}");
            flat = false;
            continue;
        }
        flat &= is_flat(&folder.path().join(experiment), f64::from(minutes) * 60.0 / 3.0);
    }
    flat
}

fn is_flat(runs: &Path, from_s: f64) -> bool {
    let trial = std::fs::read_dir(runs.join("latest/trials")).expect("trials").flatten().next().expect("one trial");
    let series = std::fs::read_to_string(trial.path().join("series.csv")).expect("a series");
    let mut flat = Flat::default();
    for line in series.lines().skip(1) {
        let fields: Vec<_> = line.split(',').collect();
        let [t_s, name, role, replica, value] = fields[..] else { continue };
        let (Ok(t_s), Ok(value)) = (t_s.parse::<f64>(), value.parse::<f64>()) else { continue };
        if t_s >= from_s && matches!(name, "rss_bytes" | "open_files") {
            flat.add(&format!("{role} {replica}"), name, t_s, value);
        }
    }
    flat.holds()
}

/// How far a value may be from the median.
const BAND: f64 = 0.05;

/// Values by who has them and what they are, minute for minute.
#[derive(Default)]
struct Flat(BTreeMap<(String, String), BTreeMap<u32, Vec<f64>>>);

impl Flat {
    fn add(&mut self, who: &str, what: &str, t_s: f64, value: f64) {
        let minutes = self.0.entry((who.to_owned(), what.to_owned())).or_default();
        minutes.entry((t_s / 60.0) as u32).or_default().push(value);
    }

    /// Prints each, and says whether all of them stayed.
    fn holds(self) -> bool {
        let mut flat = !self.0.is_empty();
        for ((who, what), minutes) in self.0 {
            let mut medians: Vec<f64> = minutes.into_values().map(median).collect();
            let middle = median(medians.clone());
            medians.sort_by(f64::total_cmp);
            let (low, high) = (medians[0], medians[medians.len() - 1]);
            // Of few files, a twentieth is less than one: a handful more or less is no leak.
            let slack = if what == "open_files" { 4.0 } else { 0.0 };
            let ok = high <= middle * (1.0 + BAND) + slack && low >= middle * (1.0 - BAND) - slack;
            flat &= ok;
            println!(
                "{who:<18} {what:<11} {low:>12.0} {middle:>12.0} {high:>12.0}  {}",
                if ok { "flat" } else { "NOT FLAT" }
            );
        }
        flat
    }
}

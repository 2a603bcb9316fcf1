//! What shows only after a while: fifteen minutes of load, then two hundred faults in a row. `-- load` or `-- faults`
//! does one of them.

use std::process::ExitCode;

mod faults;
mod load;
#[path = "../../services/task-tracker/tests/it/postgres.rs"]
mod postgres;

fn main() -> ExitCode {
    let asked: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wants = |part: &str| asked.is_empty() || asked.iter().any(|argument| argument == part);
    let mut well = true;
    if wants("load") {
        well &= load::soak();
    }
    if wants("faults") {
        well &= faults::soak();
    }
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

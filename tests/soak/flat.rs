//! Whether values stay where they are. The median of each minute is within ±5 % of the median of all, so that a buffer
//! that comes and goes within a second is no leak, and a leak is not hidden.

use std::collections::BTreeMap;

/// How far a value may be from the median.
const BAND: f64 = 0.05;

/// Values by who has them and what they are, minute for minute.
#[derive(Default)]
pub struct Flat(BTreeMap<(String, String), BTreeMap<u32, Vec<f64>>>);

impl Flat {
    pub fn add(&mut self, who: &str, what: &str, t_s: f64, value: f64) {
        let minutes = self.0.entry((who.to_owned(), what.to_owned())).or_default();
        minutes.entry((t_s / 60.0) as u32).or_default().push(value);
    }

    /// Prints each, and says whether all of them stayed.
    pub fn holds(self) -> bool {
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

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

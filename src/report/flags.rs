//! Names of instants and stretches above a panel, where they cover no data: flags on stems.
//!
//! The one rule: a stem never crosses the text of another flag. Texts stand to the right of their stems, and of two that
//! would touch the left one stands higher.

use crate::report::figure::{Along, Panel};

/// A name above a panel.
#[derive(Clone, Debug, PartialEq)]
pub struct Flag<'a> {
    /// Where on the x axis.
    pub at: f64,
    /// What it says.
    pub text: &'a str,
    /// Its place in the palette; none for the figure's own ink.
    pub color: Option<usize>,
    /// Whether a line leads to it: an instant has one, a stretch begins there.
    pub has_stem: bool,
    /// Whether its text stands to the left of its place, because there is no room to the right.
    pub is_left: bool,
}

/// Whether the lines of a panel have flags: where stretches are coloured, as faults are. Otherwise their names stand beside them.
pub fn has(panel: &Panel) -> bool {
    panel.bands.iter().any(|band| band.color.is_some())
        || panel.lines.iter().filter(|line| line.along == Along::X && !line.label.is_empty()).count() > 2
}

/// The flags of a panel with their rows, from the panel upwards. `x` and `width` give pixels; nothing stands beyond `right`.
pub fn placed<'a>(
    panel: &'a Panel,
    x: &dyn Fn(f64) -> f64,
    width: &dyn Fn(&str) -> f64,
    right: f64,
) -> Vec<(Flag<'a>, usize)> {
    const GAP: f64 = 16.0;
    if !has(panel) {
        return Vec::new();
    }
    let mut flags = all(panel);
    flags.sort_by(|a, b| b.at.total_cmp(&a.at));
    let mut placed: Vec<(Flag, usize)> = Vec::new();
    let mut rows: Vec<(f64, f64)> = Vec::new();
    for mut flag in flags {
        let (at, wide) = (x(flag.at), width(flag.text) + GAP);
        flag.is_left = at + wide > right;
        let (from, to) = if flag.is_left { (at - wide, at) } else { (at, at + wide) };
        // Whatever stands to the right and reaches back over this place must be lower, whatever begins within this text too.
        let above = rows.iter().zip(&placed).filter(|((other, end), _)| *other < to && from < *end);
        let row = above.map(|(_, (_, row))| row + 1).max().unwrap_or(0);
        rows.push((from, to));
        placed.push((flag, row));
    }
    placed
}

fn all(panel: &Panel) -> Vec<Flag<'_>> {
    let flag = |at, text, color, has_stem| Flag { at, text, color, has_stem, is_left: false };
    let coloured = panel.bands.iter().filter(|band| band.color.is_some() && !band.label.is_empty());
    let bands = coloured.map(|band| flag(band.from, band.label.as_str(), band.color, false));
    let named = panel.lines.iter().filter(|line| line.along == Along::X && !line.label.is_empty());
    bands.chain(named.map(|line| flag(line.at, line.label.as_str(), line.color, true))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::figure::{Axis, Band, Line};

    #[test]
    fn of_two_flags_that_would_touch_the_left_one_stands_higher() {
        let line =
            |at: f64, label: &str| Line { along: Along::X, at, interval: None, label: label.to_owned(), color: None };
        let panel = Panel {
            x: Axis::linear("Time", "s"),
            y: Axis::linear("Goodput", "requests/s"),
            curves: Vec::new(),
            lines: vec![line(30.0, "command"), line(40.5, "ready"), line(41.0, "recovered"), line(95.0, "the end")],
            bands: vec![Band { from: 30.1, to: 40.5, label: "down".to_owned(), color: Some(1) }],
            words: None,
        };
        let placed = placed(&panel, &|at| at * 10.0, &|text| 10.0 * text.len() as f64, 1_000.0);
        let told: Vec<(&str, usize, bool)> = placed.iter().map(|(flag, row)| (flag.text, *row, flag.is_left)).collect();
        let expected = [
            ("the end", 0, true),
            ("recovered", 0, false),
            ("ready", 1, false),
            ("down", 0, false),
            ("command", 1, false),
        ];
        assert_eq!(told, expected);
    }
}

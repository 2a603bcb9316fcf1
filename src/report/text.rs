//! The report as a terminal shows it at the end of a run.
//!
//! The one rule: it fits a screen. The answer first, one line a cell, one line a kind of guard, the verdict last; of a
//! stream, whether it keeps up closes.

use crate::measure::keeps_up;
use crate::report::figures::{SIMULATED, is_simulated};
use crate::report::tables::{self, GuardGroup, Table};
use crate::report::{ReportInput, fault_words, faults, number};

/// Answer, table, guards with their advice, verdict.
pub fn text_summary(input: &ReportInput) -> String {
    let mut out = String::new();
    if is_simulated(input) {
        out.push_str(SIMULATED);
        out.push('\n');
    }
    out.push_str(&format!("{}\n{}\n\n", input.experiment.question, input.study.answer));
    out.push_str(&aligned(&tables::cells(input, false)));
    let search = tables::search(input);
    if !search.rows.is_empty() {
        out.push_str(&format!("\n{}\n{}", search.caption, aligned(&search)));
    }
    if faults::is_fault_study(input) {
        out.push('\n');
        out.extend(fault_words::lines(input).into_iter().map(|line| line + "\n"));
    }
    // Percentiles of batches stand in the report; here are none of them.
    let is_stream = input.study.is_stream();
    let guards = tables::guards(input).into_iter().filter(|group| !(is_stream && group.id == "too-few-ops"));
    let guards: Vec<GuardGroup> = guards.collect();
    if !guards.is_empty() {
        out.push('\n');
        guards.iter().for_each(|group| out.push_str(&guard_line(group)));
    }
    if let Some(incomplete) = tables::incomplete(input) {
        out.push_str(&format!("\n{incomplete}\n"));
    }
    let (word, why) = tables::verdict(input);
    let why = if why.is_empty() { why } else { format!(" ({why})") };
    out.push_str(&format!("\nverdict: {word}{why}\n"));
    out.extend(keeps_up::closing(input.study, input.experiment).map(|line| line + "\n"));
    out
}

fn guard_line(group: &GuardGroup) -> String {
    let first = group.seen.first().map_or("", String::as_str);
    let more = match group.seen.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    let mark = if group.mark.is_empty() { "!" } else { &group.mark };
    format!("{mark} {}: {first}{more}\n  {}\n", group.id, group.advice)
}

/// Columns as wide as their widest text; the first is aligned left, numbers right.
fn aligned(table: &Table) -> String {
    let width = |column: usize| {
        let cells = table.rows.iter().map(|row| &row[column]).chain([&table.head[column]]);
        cells.map(|text| text.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..table.head.len()).map(width).collect();
    let mut out = String::new();
    for row in [&table.head].into_iter().chain(&table.rows) {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (text, width))| {
            let pad = " ".repeat(width - text.chars().count());
            if column == 0 { format!("{text}{pad}") } else { format!("{pad}{text}") }
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    if table.rows.is_empty() {
        out.push_str(&format!("{}\n", number::NONE));
    }
    out
}

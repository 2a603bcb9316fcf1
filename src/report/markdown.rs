//! The report in Markdown, with links to the PNG files beside it.
//!
//! The one rule: the same order as the page: question, answer, verdict, lead plot; then figures, tables, guards, machine.

use crate::report::figure::Figure;
use crate::report::figures::{SIMULATED, is_simulated, lead};
use crate::report::tables::{self, Table};
use crate::report::{ReportInput, fault_tables, fault_words, faults, html};

/// The whole page.
pub fn page(input: &ReportInput, figures: &[Figure]) -> String {
    let (word, why) = tables::verdict(input);
    let mut out = format!("# {}\n\n", escape(&input.experiment.question));
    if is_simulated(input) {
        out.push_str(&format!("> **{SIMULATED}**\n\n"));
    }
    out.push_str(&format!("**{}**\n\n", escape(&input.study.answer)));
    let why = if why.is_empty() { why } else { format!(" – {}", escape(&why)) };
    out.push_str(&format!("Verdict: **{}**{why}\n\n", escape(&word)));
    if let Some(incomplete) = tables::incomplete(input) {
        out.push_str(&format!("> {incomplete}\n\n"));
    }
    let lead = lead(input);
    let (first, rest): (Vec<&Figure>, Vec<&Figure>) = figures.iter().partition(|figure| figure.id == lead);
    first.iter().for_each(|figure| out.push_str(&picture(figure)));
    out.push_str(&faults(input));
    out.push_str("## Numbers\n\n");
    out.push_str(&table(&tables::cells(input, true)));
    out.push_str(&table(&tables::search(input)));
    out.push_str(&table(&tables::scaling(input)));
    out.push_str(&table(&tables::stream(input)));
    out.push_str(&guards(input));
    if !rest.is_empty() {
        out.push_str("## Figures\n\n");
    }
    rest.iter().for_each(|figure| out.push_str(&picture(figure)));
    out.push_str("## Details\n\n");
    out.push_str(&table(&tables::kinds(input)));
    out.push_str(&table(&tables::trials(input)));
    out.push_str(&table(&tables::environment(input)));
    input.notes.iter().for_each(|note| out.push_str(&format!("- {}\n", escape(note))));
    out.push_str(&format!("\n## Do it again\n\n```sh\n{}\n```\n", html::COMMANDS));
    out
}

fn faults(input: &ReportInput) -> String {
    if !faults::is_fault_study(input) {
        return String::new();
    }
    let tables: String = fault_tables::all(input).iter().map(table).collect();
    format!(
        "## What the faults did\n\n{tables}{}\n\n<details><summary>What these words mean</summary>\n\n{}\n\n</details>\n\n",
        escape(fault_words::DISK),
        escape(fault_words::DEFINITIONS)
    )
}

fn picture(figure: &Figure) -> String {
    let notes: String = figure.notes.iter().map(|note| format!("- {}\n", escape(note))).collect();
    let title = escape(&figure.title);
    format!("### {title}\n\n![{title}](plots/{}.png)\n\n{}\n\n{notes}\n", figure.id, escape(&figure.caption))
}

fn guards(input: &ReportInput) -> String {
    let groups = tables::guards(input);
    if groups.is_empty() {
        return String::new();
    }
    let mut out = "## What to keep in mind\n\n".to_owned();
    for group in groups {
        let id = format!("{} {}", group.mark, group.id);
        out.push_str(&format!("- **{}** – {}\n", escape(id.trim()), escape(&group.advice)));
        group.seen.iter().for_each(|seen| out.push_str(&format!("  - {}\n", escape(seen))));
    }
    out.push('\n');
    out
}

fn table(table: &Table) -> String {
    if table.rows.is_empty() {
        return String::new();
    }
    let row = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| escape(cell)).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule = vec!["---".to_owned(); table.head.len()];
    let mut out = format!("**{}**\n\n{}| {} |\n", escape(&table.caption), row(&table.head), rule.join(" | "));
    table.rows.iter().for_each(|cells| out.push_str(&row(cells)));
    out.push('\n');
    out
}

/// Text that means itself in Markdown: no markup, no HTML, on one line.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\r' => out.push(' '),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '|' | '*' | '`' | '[' | ']' | '\\' => {
                out.push('\\');
                out.push(letter);
            }
            _ => out.push(letter),
        }
    }
    out
}

//! One look at the proxy as text, for files, mails and terminals that are none.

use std::fmt::Write as _;

use super::{
    facts::Facts,
    table::{Subject, Table},
};

/// Everything, whatever its width.
pub(super) fn text(facts: &Facts, address: &str) -> String {
    let mut text = format!("{}\n\n", facts.heading(address));
    let lines = [("requests", facts.requests()), ("refused", facts.refusals())].into_iter().chain(facts.state());
    for (label, words) in lines {
        line(&mut text, &format!("{label:<10}{words}"));
    }
    for subject in Subject::ALL {
        text.push('\n');
        line(&mut text, subject.title());
        write_table(&mut text, &subject.table(facts, subject.sorted_by()));
    }
    text
}

fn write_table(text: &mut String, table: &Table) {
    let widths = table.widths(usize::MAX - 1);
    let row = |cells: Vec<String>| {
        let mut row = String::new();
        for (place, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            // Writing to a string cannot fail.
            let _ = if table.is_of_text(place) { write!(row, "  {cell:<width$}") } else { write!(row, "  {cell:>width$}") };
        }
        row
    };
    line(text, &row(table.columns.clone()));
    for cells in &table.rows {
        line(text, &row(cells.iter().map(ToString::to_string).collect()));
    }
}

/// Adds a line; what a client calls itself must not steer the terminal.
fn line(text: &mut String, line: &str) {
    text.extend(line.trim_end().chars().filter(|character| !character.is_control()));
    text.push('\n');
}

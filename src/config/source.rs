//! From TOML to a tree in which every value knows its place, and the laying of one tree over another.
//!
//! The tree is the config crate's; its builder is not used, because it reads a top-level key that holds a dot as a path and
//! forgets where a table stood.

use std::{collections::BTreeSet, fs::File, io::Read, iter, path::Path};

use config::{Value, ValueKind};
use toml::{
    Spanned,
    de::{DeArray, DeString, DeTable, DeValue, Error},
};

use super::report::Report;

/// A text under its name, for telling where in it something stands.
struct Document<'a> {
    name: &'a str,
    text: &'a str,
    /// Offset of the first byte of each line.
    lines: Vec<usize>,
}

/// What `text` says, with every mistake in its grammar reported; what can be understood beside one is.
pub(super) fn toml(name: &str, text: &str, report: &mut Report<'_>) -> Value {
    let document = Document::new(name, text);
    // The parser reads on after every mistake but one: a key with nothing behind it. What follows shows only without it.
    let (_, mut errors) = DeTable::parse_recoverable(document.text);
    errors.retain(|error| error.message().ends_with("expected `=`"));
    let cleared = document.without_lines(errors.iter().filter_map(Error::span).map(|span| span.start));
    let (table, more_errors) = DeTable::parse_recoverable(&cleared);
    for error in errors.into_iter().chain(more_errors) {
        let span = error.span().unwrap_or_default();
        let problem = match document.text.get(span.clone()) {
            Some(key) if error.message() == "duplicate key" => format!("expected {key:?} only once"),
            _ => error.message().to_owned(),
        };
        report.wrong_at(&document.place(span.start), "", None, problem);
    }
    Value::new(None, document.table(table.into_inner()))
}

/// The text of a file of at most `limit` bytes, or what is wrong with it.
pub(super) fn read_file(path: &Path, limit: u64) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_string(&mut text));
    match read {
        Ok(length) if length as u64 <= limit => Ok(text),
        Ok(_) => Err(format!("cannot be read: it is larger than {limit} bytes")),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

/// Lays `upper` over `lower`: tables merge, anything else replaces. A table keeps the place where it was first given.
pub(super) fn overlay(lower: &mut Value, upper: Value) {
    match (&mut lower.kind, upper) {
        (ValueKind::Table(lower), Value { kind: ValueKind::Table(upper), .. }) => {
            for (key, value) in upper {
                match lower.get_mut(&key) {
                    Some(below) => overlay(below, value),
                    None => drop(lower.insert(key, value)),
                }
            }
        }
        (_, upper) => *lower = upper,
    }
}

// === impl Document ===

impl<'a> Document<'a> {
    fn new(name: &'a str, text: &'a str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = iter::once(0).chain(text.match_indices('\n').map(|(end, _)| end + 1)).collect();
        Self { name, text, lines }
    }

    /// The text with the lines at `offsets` cleared, and everything else where it was.
    fn without_lines(&self, offsets: impl Iterator<Item = usize>) -> String {
        let cleared: BTreeSet<usize> = offsets.map(|offset| self.line(offset)).collect();
        let lines = self.text.split_inclusive('\n').enumerate();
        let clear = |(index, line): (usize, &str)| {
            if cleared.contains(&(index + 1)) { " ".repeat(line.len() - 1) + "\n" } else { line.to_owned() }
        };
        lines.map(clear).collect()
    }

    /// The line of the byte at `offset`, counted from 1.
    fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }

    /// Name, line and column (in characters) of the byte at `offset`, counted from 1.
    fn place(&self, offset: usize) -> String {
        let line = self.line(offset);
        let start = self.lines[line - 1];
        let column = self.text[start..].char_indices().take_while(|(index, _)| start + index < offset).count() + 1;
        format!("{}:{line}:{column}", self.name)
    }

    fn value(&self, offset: usize, value: DeValue<'_>) -> Value {
        let kind = match value {
            DeValue::String(text) => ValueKind::String(text.into_owned()),
            // What does not fit is kept as a decimal, which is no whole number and outside every range.
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(integer) => ValueKind::I64(integer),
                Err(_) => ValueKind::Float(integer.as_str().parse().unwrap_or(f64::INFINITY)),
            },
            DeValue::Float(decimal) => ValueKind::Float(decimal.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(boolean) => ValueKind::Boolean(boolean),
            // No key takes one, and there is nothing in the tree that stands for it.
            DeValue::Datetime(_) => ValueKind::Nil,
            DeValue::Array(array) => ValueKind::Array(self.array(array)),
            DeValue::Table(table) => ValueKind::Table(self.table(table)),
        };
        Value::new(Some(&self.place(offset)), kind)
    }

    /// A value in a table stands where its key does.
    fn table(&self, table: DeTable<'_>) -> config::Map<String, Value> {
        let entry = |(key, value): (Spanned<DeString<'_>>, Spanned<_>)| {
            let value = self.value(key.span().start, value.into_inner());
            (key.into_inner().into_owned(), value)
        };
        table.into_iter().map(entry).collect()
    }

    fn array(&self, array: DeArray<'_>) -> Vec<Value> {
        array.into_iter().map(|element| self.value(element.span().start, element.into_inner())).collect()
    }
}

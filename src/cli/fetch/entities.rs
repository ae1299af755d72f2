//! The entities of a page, one a line. Pure.
//!
//! Promised: what an entity is written with stays as it is, byte for byte, numbers and their digits included; only line
//! breaks between its parts go, with the indentation behind them, so that an entity is one line.

use std::collections::HashMap;

use serde_json::value::RawValue;

/// Where the list of entities stands in a page: names separated by dots, or `.` alone where the page itself is the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field(Vec<String>);

/// Entities as they are written out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lines {
    /// Each with a line end behind it.
    pub(super) text: Vec<u8>,
    /// How many there are.
    pub(super) count: u64,
}

/// Why a page has no entities, not even none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoEntities {
    #[error("it is not JSON ({0})")]
    NotJson(String),
    #[error("it has no \"{0}\"")]
    Missing(String),
    #[error("its \"{0}\" is no list")]
    NoList(String),
    #[error("its \"{0}\" is no object")]
    NoObject(String),
}

// === impl Field ===

impl Field {
    /// Reads `a.b.c`, or `.`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == "." {
            return Ok(Self(Vec::new()));
        }
        if text.split('.').any(str::is_empty) {
            return Err("names separated by dots were expected, as in data.items, or . for the page itself".to_owned());
        }
        Ok(Self(text.split('.').map(str::to_owned).collect()))
    }

    /// The entities in `page`.
    pub(super) fn lines(&self, page: &[u8]) -> Result<Lines, NoEntities> {
        let mut value: &RawValue = serde_json::from_slice(page).map_err(|error| NoEntities::NotJson(position(&error)))?;
        for (depth, name) in self.0.iter().enumerate() {
            let no_object = || NoEntities::NoObject(self.name(depth));
            let mut object: HashMap<String, &RawValue> = serde_json::from_str(value.get()).map_err(|_| no_object())?;
            value = object.remove(name).ok_or_else(|| NoEntities::Missing(self.name(depth + 1)))?;
        }
        let list: Vec<&RawValue> =
            serde_json::from_str(value.get()).map_err(|_| NoEntities::NoList(self.name(self.0.len())))?;
        let mut lines = Lines { text: Vec::with_capacity(value.get().len()), count: list.len() as u64 };
        for entity in list {
            write_on_one_line(entity.get(), &mut lines.text);
        }
        Ok(lines)
    }

    fn name(&self, depth: usize) -> String {
        if depth == 0 { "page".to_owned() } else { self.0[..depth].join(".") }
    }
}

/// Where the mistake is; what stands there is nobody's business.
fn position(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Eof => "it ends too early".to_owned(),
        _ => format!("line {}, column {}", error.line(), error.column()),
    }
}

/// A line break in JSON stands between tokens: inside of a string it would be written `\n`.
fn write_on_one_line(entity: &str, text: &mut Vec<u8>) {
    let mut pieces = entity.split(['\n', '\r']);
    text.extend_from_slice(pieces.next().unwrap_or_default().as_bytes());
    for piece in pieces {
        text.extend_from_slice(piece.trim_start_matches([' ', '\t']).as_bytes());
    }
    text.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(field: &str, page: &str) -> Result<(String, u64), NoEntities> {
        let lines = Field::parse(field).unwrap().lines(page.as_bytes())?;
        Ok((String::from_utf8(lines.text).unwrap(), lines.count))
    }

    #[test]
    fn entities_stay_as_they_are_written() {
        for (field, page, expected, count) in [
            ("entities", r#"{"entities":[]}"#, "", 0),
            ("entities", r#"{"page":1,"entities":[{"id": 1},{"id" :2}]}"#, "{\"id\": 1}\n{\"id\" :2}\n", 2),
            (
                "entities",
                r#"{"entities":[0.1000, 1e400, 123456789012345678901234567890]}"#,
                "0.1000\n1e400\n123456789012345678901234567890\n",
                3,
            ),
            (
                "entities",
                "{\"entities\":[{\n  \"a\": \"x\\n  y\",\r\n\t\"b\": [1,\n 2]\n}, null]}",
                "{\"a\": \"x\\n  y\",\"b\": [1,2]}\nnull\n",
                2,
            ),
            ("a.b", r#"{"a":{"b":["\u00e9é"]}}"#, "\"\\u00e9é\"\n", 1),
            (".", " [1 , \"2\"] ", "1\n\"2\"\n", 2),
        ] {
            assert_eq!(lines(field, page), Ok((expected.to_owned(), count)), "{page}");
        }
    }

    #[test]
    fn a_page_without_entities_says_what_it_lacks() {
        let text = str::to_owned;
        for (field, page, expected) in [
            ("entities", "", NoEntities::NotJson(text("it ends too early"))),
            ("entities", r#"{"entities":["#, NoEntities::NotJson(text("it ends too early"))),
            ("entities", "<html>", NoEntities::NotJson(text("line 1, column 1"))),
            ("entities", r#"{"entities":[]} x"#, NoEntities::NotJson(text("line 1, column 17"))),
            ("entities", "{}", NoEntities::Missing(text("entities"))),
            ("a.b", r#"{"a":{}}"#, NoEntities::Missing(text("a.b"))),
            ("a.b", r#"{"a":[]}"#, NoEntities::NoObject(text("a"))),
            ("entities", "[]", NoEntities::NoObject(text("page"))),
            ("entities", r#"{"entities":{}}"#, NoEntities::NoList(text("entities"))),
            ("entities", r#"{"entities":null}"#, NoEntities::NoList(text("entities"))),
            (".", "{}", NoEntities::NoList(text("page"))),
        ] {
            assert_eq!(lines(field, page), Err(expected), "{page}");
        }
        assert!(Field::parse("entities").unwrap().lines(b"{\"entities\":[\"\xff\"]}").is_err());
        assert!(["", "a.", ".a", "a..b"].into_iter().all(|field| Field::parse(field).is_err()));
    }

    proptest::proptest! {
        #[test]
        fn every_line_is_its_entity_however_the_page_is_laid_out(texts in proptest::collection::vec(".*", 0..5), pretty: bool) {
            let entities: Vec<_> = texts.iter().map(|text| serde_json::json!({"a": [text, {text.as_str(): 1}]})).collect();
            let page = serde_json::json!({"before": texts, "entities": entities});
            let written = if pretty { serde_json::to_vec_pretty(&page) } else { serde_json::to_vec(&page) };
            let lines = Field::parse("entities").unwrap().lines(&written.unwrap()).unwrap();
            let text = String::from_utf8(lines.text).unwrap();
            let read: Vec<serde_json::Value> = text.split_terminator('\n').map(|line| serde_json::from_str(line).unwrap()).collect();
            proptest::prop_assert_eq!(read, entities);
        }
    }
}

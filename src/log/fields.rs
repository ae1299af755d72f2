//! The fields of a line in JSON, and what they are called.
//!
//! Promised: an object is one line whatever its texts hold, and holds nothing that a terminal obeys.

use std::fmt::{Debug, Write as _};

use tracing::field::{Field, Visit};

/// Whose names fields bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fields {
    /// Our own.
    Cxgate,
    /// The Elastic Common Schema's; what it has no name for stands below `cxgate.`.
    Ecs,
}

/// The fields that the Elastic Common Schema (8.11) has a name for: our name, its name, and by what our number is multiplied
/// to be in its unit.
pub const ECS: [(&str, &str, u64); 20] = [
    ("timestamp", "@timestamp", 1),
    ("level", "log.level", 1),
    ("target", "log.logger", 1),
    ("message", "message", 1),
    ("event", "event.action", 1),
    ("request_id", "http.request.id", 1),
    ("trace_id", "trace.id", 1),
    ("client_id", "client.user.id", 1),
    ("address", "client.address", 1),
    ("method", "http.request.method", 1),
    ("host", "url.domain", 1),
    ("path", "url.path", 1),
    ("status", "http.response.status_code", 1),
    ("bytes", "http.response.body.bytes", 1),
    ("duration_ms", "event.duration", 1_000_000),
    ("duration_us", "event.duration", 1000),
    ("limit", "rule.name", 1),
    ("code", "error.code", 1),
    ("error", "error.message", 1),
    ("user_agent", "user_agent.original", 1),
];

/// A JSON object in the making.
pub struct Object {
    text: String,
    fields: Fields,
    /// The module that spoke by the `log` crate, whose events all have the same target.
    speaker: Option<String>,
}

// === impl Object ===

impl Object {
    /// An object with what stands in every line.
    pub fn new(fields: Fields) -> Self {
        let mut text = String::with_capacity(512);
        text.push('{');
        if fields == Fields::Ecs {
            text.push_str(r#""ecs.version":"8.11.0","service.name":"cxgate""#);
        }
        Self { text, fields, speaker: None }
    }

    /// Adds a text.
    pub fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        self.text.push('"');
        escape(value, &mut self.text);
        self.text.push('"');
    }

    /// Adds a whole number.
    pub fn number(&mut self, name: &str, value: u64) {
        let factor = self.name(name);
        let _ = write!(self.text, "{}", value.saturating_mul(factor));
    }

    /// Adds what JSON writes as Rust does.
    fn plain(&mut self, name: &str, value: impl Debug) {
        self.name(name);
        let _ = write!(self.text, "{value:?}");
    }

    /// Adds a decimal; what JSON has no number for is a text.
    pub fn decimal(&mut self, name: &str, value: f64) {
        if value.is_finite() { self.plain(name, value) } else { self.text(name, &value.to_string()) }
    }

    /// Adds texts of free names, as an object of its own.
    pub fn texts(&mut self, name: &str, values: &[(String, String)]) {
        self.name(name);
        for (position, (name, value)) in values.iter().enumerate() {
            self.text.push_str(if position == 0 { "{\"" } else { ",\"" });
            escape(name, &mut self.text);
            self.text.push_str("\":\"");
            escape(value, &mut self.text);
            self.text.push('"');
        }
        self.text.push_str(if values.is_empty() { "{}" } else { "}" });
    }

    /// Who spoke, where it was not the module that the event names.
    pub fn speaker(&mut self) -> Option<String> {
        self.speaker.take()
    }

    /// The object, whole.
    pub fn finish(mut self) -> String {
        self.text.push('}');
        self.text
    }

    /// Begins a field, and says by what its number is multiplied.
    fn name(&mut self, name: &str) -> u64 {
        let known = ECS.iter().find(|(ours, ..)| *ours == name).filter(|_| self.fields == Fields::Ecs);
        let (prefix, name, factor) = match known {
            Some((_, theirs, factor)) => ("", *theirs, *factor),
            None if self.fields == Fields::Ecs => ("cxgate.", name, 1),
            None => ("", name, 1),
        };
        if self.text.len() > 1 {
            self.text.push(',');
        }
        self.text.push('"');
        self.text.push_str(prefix);
        escape(name, &mut self.text);
        self.text.push_str("\":");
        factor
    }
}

impl Visit for Object {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "log.target" => self.speaker = Some(value.to_owned()),
            name if name.starts_with("log.") => {}
            name => self.text(name, value),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if !field.name().starts_with("log.") {
            self.number(field.name(), value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        match u64::try_from(value) {
            Ok(value) => self.number(field.name(), value),
            Err(_) => self.plain(field.name(), value),
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.decimal(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field.name(), value);
    }
}

/// Writes `text` as it may stand between the quotes of a JSON string.
fn escape(text: &str, output: &mut String) {
    for character in text.chars() {
        match character {
            '"' => output.push_str("\\\""),
            '\\' => output.push_str("\\\\"),
            character if is_unsafe(character) => {
                let _ = write!(output, "\\u{:04x}", u32::from(character));
            }
            character => output.push(character),
        }
    }
}

/// Control characters (C0, DEL, C1), line and paragraph separators, and what turns the direction of text.
pub(super) fn is_unsafe(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(fields: Fields) -> serde_json::Value {
        let mut object = Object::new(fields);
        object.text("event", "rate_limit_violation");
        object.text("client_id", "a\"\\\n\u{202e}é");
        object.number("duration_ms", 3);
        object.text("route", "guest-webchat");
        object.decimal("factor", 0.5);
        serde_json::from_str(&object.finish()).unwrap()
    }

    #[test]
    fn fields_bear_our_names_or_those_of_the_schema() {
        let ours = object(Fields::Cxgate);
        assert_eq!((&ours["event"], &ours["duration_ms"]), (&"rate_limit_violation".into(), &3.into()));
        assert_eq!(ours["client_id"], "a\"\\\n\u{202e}é");
        assert_eq!(ours.as_object().unwrap().len(), 5);
        let theirs = object(Fields::Ecs);
        assert_eq!(
            (&theirs["event.action"], &theirs["event.duration"]),
            (&"rate_limit_violation".into(), &3_000_000.into())
        );
        assert_eq!((&theirs["client.user.id"], &theirs["cxgate.route"]), (&ours["client_id"], &ours["route"]));
        assert_eq!(theirs["ecs.version"], "8.11.0");
    }

    #[test]
    fn whatever_stands_in_a_text_the_object_is_one_harmless_line() {
        let hostile: String = (0..=0x9f).chain(0x2028..=0x202e).chain(0x2066..=0x2069).filter_map(char::from_u32).collect();
        let mut object = Object::new(Fields::Cxgate);
        object.text("text", &hostile);
        let line = object.finish();
        assert!(!line.contains(is_unsafe), "{line:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["text"], hostile);
    }
}

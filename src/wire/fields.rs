//! Fields that are put into words where they are known, so that a head has only to take the words over.

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

/// Field lines (RFC 9112, section 5), each with the CRLF that ends it.
#[derive(Debug, Default)]
pub struct FieldLines(String);

/// A body that may bring fields of its head with it.
pub trait BringsFields {
    /// The fields it brought, which belong beside those of the header map. They say nothing of the connection.
    fn take_fields(&mut self) -> FieldLines {
        FieldLines::default()
    }
}

// === impl FieldLines ===

impl FieldLines {
    /// No lines yet, and room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(String::with_capacity(bytes))
    }

    /// Adds a field; one whose value no line can hold has none.
    pub fn push(&mut self, name: &HeaderName, value: &str) {
        let bad = value.bytes().fold(0, |bad, byte| bad | u8::from(byte.is_ascii_control())) > 0;
        for part in [name.as_str(), ": ", if bad { "" } else { value }, "\r\n"] {
            self.0.push_str(part);
        }
    }

    /// The lines.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Adds the fields to a header map.
    pub fn add_to(&self, headers: &mut HeaderMap) {
        for (name, value) in self.0.split_terminator("\r\n").filter_map(|line| line.split_once(": ")) {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.append(name, value);
            }
        }
    }
}

// === impl BringsFields ===

/// Plain bytes bring none.
impl BringsFields for Full<Bytes> {}

impl<L: BringsFields, R: BringsFields> BringsFields for Either<L, R> {
    fn take_fields(&mut self) -> FieldLines {
        match self {
            Self::Left(body) => body.take_fields(),
            Self::Right(body) => body.take_fields(),
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::{AGE, RETRY_AFTER, VIA};

    use super::*;

    #[test]
    fn lines_hold_what_a_header_map_does_and_no_value_makes_a_line() {
        let mut lines = FieldLines::default();
        lines.push(&RETRY_AFTER, "7");
        lines.push(&VIA, "a: b");
        lines.push(&AGE, "1\r\nset-cookie: x");
        assert_eq!(lines.as_bytes(), b"retry-after: 7\r\nvia: a: b\r\nage: \r\n");
        let mut headers = HeaderMap::new();
        lines.add_to(&mut headers);
        let fields: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(fields, [("retry-after", "7"), ("via", "a: b"), ("age", "")]);
    }
}

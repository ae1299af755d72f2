//! Fields that are put into words where they are known, so that a head has only to take the words over.

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::{
    HeaderMap, Response,
    header::{HeaderName, HeaderValue},
};
use memchr::{memchr, memchr2};

/// Field lines (RFC 9112, section 5), each with the CRLF that ends it.
#[derive(Debug, Default)]
pub struct FieldLines(Vec<u8>);

/// A body that may bring fields of its head with it.
pub trait BringsFields {
    /// The fields it brought, which belong beside those of the header map. They say nothing of the connection.
    fn take_fields(&mut self) -> FieldLines {
        FieldLines::default()
    }
}

/// Has the header map of a response hold the fields that its body brought.
pub fn gather<B: BringsFields>(response: &mut Response<B>) {
    let fields = response.body_mut().take_fields();
    fields.add_to(response.headers_mut());
}

// === impl FieldLines ===

impl FieldLines {
    /// Begins with `lines`, each of which ends with CRLF, and room for so many bytes in all.
    pub fn begin(lines: &'static str, capacity: usize) -> Self {
        let mut begun = Vec::with_capacity(capacity);
        begun.extend_from_slice(lines.as_bytes());
        Self(begun)
    }

    /// Adds a field; one whose value holds more than one line has none.
    pub fn push(&mut self, name: &HeaderName, value: &str) {
        let is_one = memchr2(b'\r', b'\n', value.as_bytes()).is_none();
        self.line(name, if is_one { value.as_bytes() } else { b"" });
    }

    /// Adds a field whose value is a number.
    pub fn push_number(&mut self, name: &HeaderName, number: u64) {
        self.line(name, itoa::Buffer::new().format(number).as_bytes());
    }

    /// Adds a field whose value is known to fit into a line.
    pub fn push_value(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.line(name, value.as_bytes());
    }

    /// The lines.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds the fields to a header map.
    pub fn add_to(&self, headers: &mut HeaderMap) {
        let lines = self.0.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\r\n"));
        for line in lines {
            let colon = memchr(b':', line).unwrap_or(line.len());
            let (name, value) = (&line[..colon], line.get(colon + 2..).unwrap_or_default());
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                headers.append(name, value);
            }
        }
    }

    fn line(&mut self, name: &HeaderName, value: &[u8]) {
        for part in [name.as_str().as_bytes(), b": ", value, b"\r\n"] {
            self.0.extend_from_slice(part);
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
    use hyper::header::{AGE, CONTENT_LENGTH, VIA};

    use super::*;

    #[test]
    fn lines_hold_what_a_header_map_does_and_no_value_makes_a_line() {
        let mut lines = FieldLines::begin("retry-after: 7\r\n", 0);
        lines.push_number(&CONTENT_LENGTH, 10);
        lines.push_value(&VIA, &HeaderValue::from_static("a: b"));
        lines.push(&AGE, "1\r\nset-cookie: x");
        assert_eq!(lines.as_bytes(), b"retry-after: 7\r\ncontent-length: 10\r\nvia: a: b\r\nage: \r\n");
        let mut headers = HeaderMap::new();
        lines.add_to(&mut headers);
        let fields: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(fields, [("retry-after", "7"), ("content-length", "10"), ("via", "a: b"), ("age", "")]);
    }
}

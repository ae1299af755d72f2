//! The lines of a head, of a request or a response: found as they come, and each searched for its end once.

use bytes::{Bytes, BytesMut};
use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use memchr::memchr;

use super::{Fault, Field, Unusable, room};

/// Fields of one head.
const MOST_FIELDS: usize = 100;

/// Room for the fields that a proxy adds, so that adding them moves none.
const ADDED_FIELDS: usize = 10;

/// What is known of the head that is being read.
#[derive(Debug)]
pub(super) struct HeadLines {
    largest: usize,
    /// Where the name and the value of each field lie in the head.
    fields: Vec<Place>,
    /// Where the next line begins.
    next: usize,
    /// How much of that line is known to have no end in it.
    searched: usize,
}

/// A line without its CRLF, and where in the head it begins.
pub(super) struct HeadLine<'a> {
    pub(super) start: usize,
    pub(super) content: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
struct Place {
    name: (usize, usize),
    value: (usize, usize),
}

// === impl HeadLines ===

impl HeadLines {
    /// Of heads that may have so many bytes each.
    pub(super) fn new(largest: usize) -> Self {
        Self { largest, fields: Vec::new(), next: 0, searched: 0 }
    }

    /// The next line of the head that `bytes` begin with; none where it has not ended.
    pub(super) fn next<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<HeadLine<'a>>, Unusable> {
        let (start, from) = (self.next, self.next + self.searched);
        let end = memchr(b'\n', &bytes[from..]).map(|position| from + position);
        if let Some(end) = end.filter(|end| *end < self.largest)
            && let Some(content) = bytes[start..end].strip_suffix(b"\r")
        {
            (self.next, self.searched) = (end + 1, 0);
            return Ok(Some(HeadLine { start, content }));
        }
        let seen = &bytes[..end.unwrap_or(bytes.len()).min(self.largest)];
        // Whoever ends lines so would otherwise be told when his time is up.
        let last = seen.len().saturating_sub(1);
        let bare = memchr(b'\r', &seen[from.saturating_sub(1).max(start).min(last)..last]);
        match end {
            _ if bare.is_some() => Err(Unusable::BareReturn),
            _ if end.unwrap_or(bytes.len()) >= self.largest => Err(Unusable::TooLong),
            Some(_) => Err(Unusable::LineEnd),
            None => {
                self.searched = bytes.len() - start;
                Ok(None)
            }
        }
    }

    /// Reads a line as a field, and remembers where its parts lie.
    pub(super) fn field<'a>(&mut self, line: &HeadLine<'a>) -> Result<Field<'a>, Fault> {
        let field = Field::read(line.content)?;
        if self.fields.len() == MOST_FIELDS {
            return Err(Fault::HeadTooLong);
        }
        self.fields.push(Place::of(line, &field));
        Ok(field)
    }

    /// Takes the lines so far out of `bytes`, with the fields among them. Each is told, and left out where that says false.
    pub(super) fn take(
        &mut self,
        bytes: &mut BytesMut,
        mut tell: impl FnMut(&HeaderName, &HeaderValue) -> Result<bool, Fault>,
    ) -> Result<(Bytes, HeaderMap), Fault> {
        let head = self.pass(bytes).freeze();
        let mut headers = room::take(self.fields.len() + ADDED_FIELDS);
        for Place { name, value } in self.fields.drain(..) {
            let name = HeaderName::from_bytes(&head[name.0..name.1]).map_err(|_| Fault::Field)?;
            let value = HeaderValue::from_maybe_shared(head.slice(value.0..value.1)).map_err(|_| Fault::Field)?;
            if tell(&name, &value)? {
                headers.append(name, value);
            }
        }
        Ok((head, headers))
    }

    /// Takes the lines so far out of `bytes`, and forgets their fields.
    pub(super) fn skip(&mut self, bytes: &mut BytesMut) {
        self.fields.clear();
        self.pass(bytes);
    }

    /// Between two heads: gives its room back.
    pub(super) fn rest(&mut self) {
        self.fields = Vec::new();
    }

    fn pass(&mut self, bytes: &mut BytesMut) -> BytesMut {
        let length = std::mem::take(&mut self.next);
        self.searched = 0;
        bytes.split_to(length)
    }
}

// === impl Place ===

impl Place {
    fn of(line: &HeadLine<'_>, field: &Field<'_>) -> Self {
        let name_end = line.start + field.name.len();
        let blanks = line.content[field.name.len() + 1..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let value = if field.value.is_empty() { name_end } else { name_end + 1 + blanks };
        Self { name: (line.start, name_end), value: (value, value + field.value.len()) }
    }
}

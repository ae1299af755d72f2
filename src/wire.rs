//! HTTP/1 as it comes over the wire, read strictly and once, and what goes out over it (RFC 9112).
//!
//! Nothing is repaired that the RFC lets a recipient repair: bare line feeds, a length beside chunks, a length sent twice. Two
//! readers that repair differently see two different messages, which is how requests are smuggled. Whatever could be read in
//! two ways is refused here; what is read is what is used.
//!
//! Promised: the same verdict however the bytes are cut into reads; no byte is searched twice for the end of its line; nothing is
//! copied but names of fields and a chunk's line that a read cuts, and both are bounded.
//! Not promised: that what passes makes sense. Targets, hosts and values are for others to judge.

use std::borrow::Cow;

use hyper::{HeaderMap, header::CONNECTION};
use memchr::memchr;

pub mod body;
pub mod chunks;
pub mod fields;
mod head;
pub mod request;
pub mod response;
pub mod room;
pub mod writer;

/// Why a message cannot be read in exactly one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A line ends without a carriage return.
    #[error("a line that does not end with CRLF")]
    LineEnd,
    /// The request line is no method, target and known version, each one space apart (RFC 9112, section 3).
    #[error("a malformed request line")]
    RequestLine,
    /// The status line is no version, status and reason (RFC 9112, section 4).
    #[error("a malformed status line")]
    StatusLine,
    /// A field line is no name, colon and value, or goes on in the next line (RFC 9112, section 5).
    #[error("a malformed field")]
    Field,
    /// The length of the body is given twice, in two ways, or not as a number (RFC 9112, section 6).
    #[error("an ambiguous length of the body")]
    Framing,
    /// Not exactly one `Host` (RFC 9112, section 3.2).
    #[error("no Host, or several")]
    Host,
    /// Something other than `100-continue` is expected (RFC 9110, section 10.1.1).
    #[error("an unknown expectation")]
    Expectation,
    /// Bytes follow a request that may turn the connection into a tunnel, before it is answered.
    #[error("bytes after a request to upgrade")]
    Early,
    /// A chunk or a trailer is malformed (RFC 9112, section 7.1).
    #[error("a malformed chunk")]
    Chunk,
    /// A request line is longer than a head may be.
    #[error("a request line beyond the limit")]
    TargetTooLong,
    /// A head is longer than it may be.
    #[error("a head beyond the limit")]
    HeadTooLong,
    /// Bytes came before the request that they could answer was written.
    #[error("an answer before its request")]
    Unsolicited,
    /// More interim responses than any server has reason to send.
    #[error("too many interim responses")]
    Interim,
}

/// Cuts bytes into lines, and keeps the beginning of one whose end has not come.
#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
}

/// A field line, in its parts.
struct Field<'a> {
    name: &'a [u8],
    value: &'a [u8],
}

/// A line, which was so many bytes of what was given.
struct Line<'a> {
    content: Cow<'a, [u8]>,
    taken: usize,
}

// === impl Lines ===

impl Lines {
    /// The first line of `bytes` without its CRLF; none where it has not ended. No more than `longest` bytes are kept.
    fn next<'a>(&mut self, bytes: &'a [u8], longest: usize) -> Result<Option<Line<'a>>, Unusable> {
        let Some(end) = memchr(b'\n', bytes) else {
            if self.begun.len() + bytes.len() > longest {
                return Err(Unusable::TooLong);
            }
            self.begun.extend_from_slice(bytes);
            return Ok(None);
        };
        if self.begun.len() + end >= longest {
            return Err(Unusable::TooLong);
        }
        let content = if self.begun.is_empty() {
            Cow::Borrowed(bytes[..end].strip_suffix(b"\r").ok_or(Unusable::LineEnd)?)
        } else {
            let mut line = std::mem::take(&mut self.begun);
            line.extend_from_slice(&bytes[..end]);
            (line.pop() == Some(b'\r')).then_some(()).ok_or(Unusable::LineEnd)?;
            Cow::Owned(line)
        };
        Ok(Some(Line { content, taken: end + 1 }))
    }
}

// === impl Field ===

impl<'a> Field<'a> {
    /// Reads a line that is neither empty nor goes on from the one before.
    fn read(line: &'a [u8]) -> Result<Self, Fault> {
        let end = line.iter().position(|byte| !TOKEN[usize::from(*byte)]).ok_or(Fault::Field)?;
        let (name, [b':', value @ ..]) = line.split_at(end) else { return Err(Fault::Field) };
        let is_control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
        // Looked at to the end, not to the first, so that it can be done many bytes at a time.
        let bad = value.iter().fold(0, |bad, byte| bad | u8::from(is_control(byte))) > 0;
        if bad || name.is_empty() {
            return Err(Fault::Field);
        }
        Ok(Self { name, value: trim(value) })
    }

    /// Whether it has this name, in lower case. Servers that turn names into variables take `_` for `-`, so that such a
    /// spelling of a name that decides about framing is a fault.
    fn is(&self, name: &[u8]) -> Result<bool, Fault> {
        let same =
            |(byte, expected): (&u8, &u8)| byte.eq_ignore_ascii_case(expected) || (*byte == b'_' && *expected == b'-');
        if self.name.len() != name.len() || !self.name.iter().zip(name).all(same) {
            return Ok(false);
        }
        if self.name.contains(&b'_') { Err(Fault::Field) } else { Ok(true) }
    }
}

/// A line that cannot be used; its reader knows what kind of line it would have been.
enum Unusable {
    TooLong,
    LineEnd,
    /// There is a carriage return in the middle of it.
    BareReturn,
}

/// Most lines of a head are fields.
impl From<Unusable> for Fault {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::TooLong => Self::HeadTooLong,
            Unusable::LineEnd => Self::LineEnd,
            Unusable::BareReturn => Self::Field,
        }
    }
}

/// Whether this is a token (RFC 9110, section 5.6.2).
fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| TOKEN[usize::from(*byte)])
}

/// What a token is made of (RFC 9110, section 5.6.2).
const TOKEN: [bool; 256] = byte_set(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~");

/// Which bytes are among `members`, as a table: to look each byte of a text up costs far less than to compare it with each.
pub const fn byte_set(members: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut place = 0;
    while place < members.len() {
        table[members[place] as usize] = true;
        place += 1;
    }
    table
}

/// Without the spaces and tabs around it.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// What `Connection` says of the connection itself, and which fields it names (RFC 9110, section 7.6.1).
pub fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).iter().map(|value| value.to_str().unwrap_or_default());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// What one value of `Connection` says.
fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim)
}

/// A length in bytes (RFC 9110, section 8.6): digits only, and not so many that it could overflow; else [`Fault::Framing`].
pub fn length(value: &[u8]) -> Result<u64, Fault> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(Fault::Framing);
    }
    Ok(value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
}

//! The heads of one response: interim ones, which are passed over, and the one that counts.
//!
//! Promised: one reading, whose result is what is used, so that nobody can have read another response from the same bytes.
//! A head from which two readers could take two lengths of the body is a fault (RFC 9112, section 6.3). Bodies are not read here.

use bytes::{Bytes, BytesMut};
use hyper::{
    HeaderMap, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING},
};

use super::{Fault, Unusable, head::HeadLines, length, options};

/// Interim responses to one request; more are a flood.
const MOST_INTERIM: u32 = 100;

/// The head that counts.
#[derive(Debug)]
pub struct Head {
    /// 101, or 200 and above.
    pub status: StatusCode,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// As they came, but for a `Connection` that says nothing but whether it stays open.
    pub headers: HeaderMap,
    /// What the status line says after the status, where that is not what is customary.
    pub reason: Option<Bytes>,
    /// How long the body is, if there is one.
    pub framing: Framing,
    /// Whether the connection stays open after the response (RFC 9112, section 9.3).
    pub persists: bool,
}

/// What a head says of the length of its body (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Nothing: it lasts until the connection ends.
    Rest,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunks,
}

/// Reads the heads of one response after the other; between them it keeps only its room.
#[derive(Debug)]
pub struct HeadReader {
    lines: HeadLines,
    /// `None` until the status line of the head has been read.
    status: Option<StatusLine>,
    interim: u32,
}

/// What `Connection` says of the connection itself.
#[derive(Debug, Default)]
struct Stay {
    closes: bool,
    stays: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StatusLine {
    version: Version,
    status: u16,
    /// How long the line is.
    length: usize,
}

// === impl HeadReader ===

impl HeadReader {
    /// A reader of heads that may have so many bytes each.
    pub fn new(largest_head: usize) -> Self {
        Self { lines: HeadLines::new(largest_head), status: None, interim: 0 }
    }

    /// Reads on in `bytes`, which hold what was not taken before and what has come since, and takes the head out of them once it
    /// is whole. After a fault the bytes mean nothing.
    pub fn read(&mut self, bytes: &mut BytesMut) -> Result<Option<Head>, Fault> {
        loop {
            let line = match (self.lines.next(bytes), self.status) {
                (Ok(Some(line)), _) => line,
                (Ok(None), _) => return Ok(None),
                (Err(Unusable::BareReturn), None) => return Err(Fault::StatusLine),
                (Err(unusable), _) => return Err(unusable.into()),
            };
            match self.status {
                None => self.status = Some(self.status_line(line.content)?),
                Some(_) if !line.content.is_empty() => _ = self.lines.field(&line)?,
                Some(line) if line.is_final() => {
                    let head = Head::take(line, &mut self.lines, bytes)?;
                    self.status = None;
                    return Ok(Some(head));
                }
                Some(_) => {
                    self.status = None;
                    self.lines.skip(bytes);
                }
            }
        }
    }

    /// Whether anything of a response was taken already.
    pub fn has_begun(&self) -> bool {
        self.status.is_some() || self.interim > 0
    }

    fn status_line(&mut self, content: &[u8]) -> Result<StatusLine, Fault> {
        let line = StatusLine::read(content)?;
        self.interim = if line.is_final() { 0 } else { self.interim + 1 };
        if self.interim > MOST_INTERIM { Err(Fault::Interim) } else { Ok(line) }
    }
}

// === impl Head ===

impl Head {
    /// Takes a head that is whole out of `bytes`.
    fn take(line: StatusLine, lines: &mut HeadLines, bytes: &mut BytesMut) -> Result<Self, Fault> {
        let status = StatusCode::from_u16(line.status).map_err(|_| Fault::StatusLine)?;
        let (version, mut framing) = (line.version, Framing::Rest);
        let mut stay = Stay::default();
        let note = |name: &HeaderName, value: &HeaderValue| {
            match *name {
                CONTENT_LENGTH => framing = framing.or(Framing::Length(length(value.as_bytes())?))?,
                TRANSFER_ENCODING => framing = framing.or(Framing::coded(value, version)?)?,
                CONNECTION => return Ok(stay.note(value)),
                _ => {}
            }
            Ok(true)
        };
        let (head, headers) = lines.take(bytes, note)?;
        let reason = &head[line.length.min(13)..line.length];
        let is_customary = status.canonical_reason().is_some_and(|customary| customary.as_bytes() == reason);
        let reason = (!is_customary).then(|| head.slice_ref(reason));
        let persists = if version == Version::HTTP_11 { !stay.closes } else { stay.stays };
        Ok(Self { status, version, headers, reason, framing, persists })
    }
}

// === impl Stay ===

impl Stay {
    /// Notes a value of `Connection`; true where it says more than that.
    fn note(&mut self, value: &HeaderValue) -> bool {
        let mut says_more = false;
        for option in options(value.as_bytes()) {
            if option.eq_ignore_ascii_case(b"close") {
                self.closes = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.stays = true;
            } else {
                says_more = true;
            }
        }
        says_more
    }
}

// === impl Framing ===

impl Framing {
    /// What a transfer coding says: chunks alone are what anybody asks for, and HTTP/1.0 has none.
    fn coded(coding: &HeaderValue, version: Version) -> Result<Self, Fault> {
        let chunks = version == Version::HTTP_11 && coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if chunks { Ok(Self::Chunks) } else { Err(Fault::Framing) }
    }

    /// The other, which must be the only one.
    fn or(self, other: Self) -> Result<Self, Fault> {
        if self == Self::Rest { Ok(other) } else { Err(Fault::Framing) }
    }
}

// === impl StatusLine ===

impl StatusLine {
    /// Reads a status line (RFC 9112, section 4). Servers leave out the space before an empty reason, which cannot be misread.
    fn read(line: &[u8]) -> Result<Self, Fault> {
        let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ (b'0' | b'1'), b' ', rest @ ..] = line else {
            return Err(Fault::StatusLine);
        };
        let (status, reason) = rest.split_at_checked(3).ok_or(Fault::StatusLine)?;
        let is_printable = |byte: &u8| (*byte >= b' ' || *byte == b'\t') && *byte != 0x7f;
        let is_reason = reason.is_empty() || reason[0] == b' ';
        if !(b'1'..=b'5').contains(&status[0]) || !status.iter().all(u8::is_ascii_digit) || !is_reason {
            return Err(Fault::StatusLine);
        }
        if !reason.iter().all(is_printable) {
            return Err(Fault::StatusLine);
        }
        let version = if *minor == b'0' { Version::HTTP_10 } else { Version::HTTP_11 };
        let status = status.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
        Ok(Self { version, status, length: line.len() })
    }

    fn is_final(self) -> bool {
        self.status == 101 || self.status >= 200
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reader makes of bytes that come in two pieces: status, fields, and what is left; or the fault.
    fn read(first: &[u8], second: &[u8]) -> Result<Option<(u16, Vec<String>, String)>, Fault> {
        let mut reader = HeadReader::new(1024);
        let mut bytes = BytesMut::new();
        for piece in [first, second] {
            bytes.extend_from_slice(piece);
            if let Some(Head { status, headers, .. }) = reader.read(&mut bytes)? {
                if piece == first {
                    bytes.extend_from_slice(second);
                }
                let fields = headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
                return Ok(Some((status.as_u16(), fields, String::from_utf8_lossy(&bytes).into_owned())));
            }
        }
        Ok(None)
    }

    #[test]
    fn a_response_head_is_read_in_one_way_or_refused() {
        let long = "a".repeat(1024);
        let interim = "HTTP/1.1 103 Early Hints\r\n\r\n";
        let whole = |status, fields: &[&str], rest: &str| {
            Ok(Some((status, fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>(), rest.to_owned())))
        };
        let cases = [
            ("HTTP/1.1 200 OK\r\n\r\nanything\n\0".to_owned(), whole(200, &[], "anything\n\0")),
            ("HTTP/1.0 200 OK\r\nX: y\r\n\r\n".to_owned(), whole(200, &["x=y"], "")),
            ("HTTP/1.1 204\r\n\r\n".to_owned(), whole(204, &[], "")),
            ("HTTP/1.1 204 \r\nA:\r\nB: \t \r\nC: \t c d\t \r\n\r\n".to_owned(), whole(204, &["a=", "b=", "c=c d"], "")),
            (format!("{interim}HTTP/1.1 101 Switching\r\n\r\n\0\n"), whole(101, &[], "\0\n")),
            (format!("{}HTTP/1.1 200 OK\r\n\r\n", interim.repeat(100)), whole(200, &[], "")),
            (interim.repeat(101), Err(Fault::Interim)),
            ("HTTP/1.1 200 OK\nX: y\r\n".to_owned(), Err(Fault::LineEnd)),
            ("HTTP/1.1 200 OK\r\nX: y\n\r\n".to_owned(), Err(Fault::LineEnd)),
            ("HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n".to_owned(), Err(Fault::Field)),
            ("HTTP/1.1 200 OK\r\nX : y\r\n\r\n".to_owned(), Err(Fault::Field)),
            ("HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n".to_owned(), Err(Fault::Field)),
            ("HTTP/2 200 OK\r\n\r\n".to_owned(), Err(Fault::StatusLine)),
            ("HTTP/1.1 20 OK\r\n\r\n".to_owned(), Err(Fault::StatusLine)),
            ("HTTP/1.1 2000\r\n\r\n".to_owned(), Err(Fault::StatusLine)),
            ("HTTP/1.1 +20 OK\r\n\r\n".to_owned(), Err(Fault::StatusLine)),
            ("HTTP/1.1 600 OK\r\n\r\n".to_owned(), Err(Fault::StatusLine)),
            ("HTTP/1.1 200 O\0K\r\n\r\n".to_owned(), Err(Fault::StatusLine)),
            ("\r\nHTTP/1.1 200 OK\r\n\r\n".to_owned(), Err(Fault::StatusLine)),
            (format!("HTTP/1.1 200 OK\r\nX: {long}"), Err(Fault::HeadTooLong)),
            (format!("HTTP/1.1 200 OK\r\n{}", "a:b\r\n".repeat(101)), Err(Fault::HeadTooLong)),
            ("HTTP/1.1 200 OK\r\nX: y\r\n".to_owned(), Ok(None)),
        ];
        for (bytes, expected) in cases {
            for cut in 0..bytes.len() {
                let (first, second) = bytes.as_bytes().split_at(cut);
                assert_eq!(read(first, second), expected, "cut at {cut}: {}", bytes.escape_debug());
            }
        }
    }

    #[test]
    fn a_head_says_once_how_its_body_ends_and_whether_its_connection_does() {
        let chunks = "Transfer-Encoding: Chunked\r\n";
        let cases = [
            ("HTTP/1.1", String::new(), Ok((Framing::Rest, true))),
            ("HTTP/1.1", "Content-Length: 17\r\nConnection: x\r\n".to_owned(), Ok((Framing::Length(17), true))),
            ("HTTP/1.1", format!("{chunks}Connection: x, Close\r\n"), Ok((Framing::Chunks, false))),
            ("HTTP/1.1", "Connection: x\r\nConnection: close\r\n".to_owned(), Ok((Framing::Rest, false))),
            ("HTTP/1.1", "Connection: close\r\nConnection: keep-alive\r\n".to_owned(), Ok((Framing::Rest, false))),
            ("HTTP/1.0", "Content-Length: 0\r\n".to_owned(), Ok((Framing::Length(0), false))),
            ("HTTP/1.0", "Connection: Keep-Alive\r\nConnection: x\r\n".to_owned(), Ok((Framing::Rest, true))),
            ("HTTP/1.0", chunks.to_owned(), Err(Fault::Framing)),
            ("HTTP/1.1", chunks.repeat(2), Err(Fault::Framing)),
            ("HTTP/1.1", "Transfer-Encoding: gzip, chunked\r\n".to_owned(), Err(Fault::Framing)),
            ("HTTP/1.1", format!("{chunks}Content-Length: 1\r\n"), Err(Fault::Framing)),
            ("HTTP/1.1", format!("Content-Length: 1\r\n{chunks}"), Err(Fault::Framing)),
            ("HTTP/1.1", "Content-Length: 1\r\n".repeat(2), Err(Fault::Framing)),
            ("HTTP/1.1", "Content-Length: 1, 1\r\n".to_owned(), Err(Fault::Framing)),
            ("HTTP/1.1", "Content-Length:\r\n".to_owned(), Err(Fault::Framing)),
        ];
        for (version, fields, expected) in cases {
            let mut reader = HeadReader::new(1024);
            let mut bytes = BytesMut::from(format!("{version} 200 OK\r\n{fields}\r\n").as_bytes());
            let said = reader.read(&mut bytes).map(Option::unwrap).map(|head| {
                let connection = head.headers.get_all(CONNECTION).iter().collect::<Vec<_>>();
                assert!(connection.iter().all(|said| said.as_bytes().contains(&b'x')), "{connection:?}");
                (head.framing, head.persists)
            });
            assert_eq!(said, expected, "{version} {fields:?}");
            assert_eq!(reader.has_begun(), expected.is_err(), "what was refused has come all the same: {fields:?}");
        }
    }

    #[test]
    fn a_reader_reads_the_heads_of_one_response_after_another() {
        let mut reader = HeadReader::new(1024);
        for _ in 0..3 {
            let mut bytes = BytesMut::from(&b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not here\r\nA: b\r\n\r\n"[..]);
            let head = reader.read(&mut bytes).unwrap().unwrap();
            assert_eq!((head.status.as_u16(), head.reason.as_deref(), head.headers.len()), (404, Some(&b"Not here"[..]), 1));
            assert!(bytes.is_empty());
        }
    }
}

//! The heads of one response: interim ones, which are passed over, and the one that counts.
//!
//! Promised: one reading, whose result is what is used, so that nobody can have read another response from the same bytes.
//! Bodies are not read here: their framing follows from the head and the request.

use bytes::{Bytes, BytesMut};
use hyper::{HeaderMap, StatusCode, Version};

use super::{Fault, Unusable, head::HeadLines};

/// Interim responses to one request; more are a flood.
const MOST_INTERIM: u32 = 100;

/// The head that counts.
#[derive(Debug)]
pub struct Head {
    /// 101, or 200 and above.
    pub status: StatusCode,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// As they came.
    pub headers: HeaderMap,
    /// What the status line says after the status.
    pub reason: Bytes,
}

/// Reads the heads of one response after the other; between them it keeps only its room.
#[derive(Debug)]
pub struct HeadReader {
    lines: HeadLines,
    /// `None` until the status line of the head has been read.
    status: Option<StatusLine>,
    interim: u32,
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
                Some(line) => {
                    self.status = None;
                    if line.is_final() {
                        return self.head(line, bytes).map(Some);
                    }
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

    fn head(&mut self, line: StatusLine, bytes: &mut BytesMut) -> Result<Head, Fault> {
        let (head, headers) = self.lines.take(bytes)?;
        let status = StatusCode::from_u16(line.status).map_err(|_| Fault::StatusLine)?;
        let reason = head.slice(line.length.min(13)..line.length);
        Ok(Head { status, version: line.version, headers, reason })
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
    fn a_reader_reads_the_heads_of_one_response_after_another() {
        let mut reader = HeadReader::new(1024);
        for _ in 0..3 {
            let mut bytes = BytesMut::from(&b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not here\r\nA: b\r\n\r\n"[..]);
            let head = reader.read(&mut bytes).unwrap().unwrap();
            assert_eq!((head.status.as_u16(), &*head.reason, head.headers.len()), (404, &b"Not here"[..], 1));
            assert!(bytes.is_empty());
        }
    }
}

//! The heads of one response: interim ones, and the one that counts.
//!
//! Bodies are not read here: their framing is decided from the head that the HTTP client hands on, and whatever follows a
//! body ends its connection.

use super::{Fault, Field, Lines, Overlong, Scanned, scan};

/// Interim responses to one request; more are a flood.
const MOST_INTERIM: u32 = 100;

/// Reads the heads of one response.
#[derive(Debug)]
pub struct ResponseScanner {
    largest_head: usize,
    part: Part,
    lines: Lines,
    size: usize,
    interim: u32,
    is_final: bool,
}

#[derive(Debug)]
enum Part {
    StatusLine,
    Fields,
    /// The final head is through; all that follows passes.
    Rest,
    Faulty(Fault),
}

// === impl ResponseScanner ===

impl ResponseScanner {
    /// A scanner for the response to a request that is about to be sent; each head may have so many bytes.
    pub fn new(largest_head: usize) -> Self {
        let (part, lines) = (Part::StatusLine, Lines::default());
        Self { largest_head, part, lines, size: 0, interim: 0, is_final: false }
    }

    /// Reads on. After a fault nothing is clean any more.
    pub fn scan(&mut self, bytes: &[u8]) -> Scanned {
        let scanned = scan(bytes, |rest| self.step(rest));
        if let Some(fault) = scanned.fault {
            self.part = Part::Faulty(fault);
        }
        scanned
    }

    fn step(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        match self.part {
            Part::Rest => return Ok(bytes.len()),
            Part::Faulty(fault) => return Err(fault),
            Part::StatusLine | Part::Fields => {}
        }
        let line = match self.lines.next(bytes, self.largest_head.saturating_sub(self.size)) {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(bytes.len()),
            Err(Overlong::LineEnd) => return Err(Fault::LineEnd),
            Err(Overlong::TooLong) => return Err(Fault::HeadTooLong),
        };
        self.size += line.content.len() + 2;
        match self.part {
            Part::StatusLine => {
                self.status(status_line(&line.content)?)?;
                self.part = Part::Fields;
            }
            _ if line.content.is_empty() => {
                self.part = if self.is_final { Part::Rest } else { Part::StatusLine };
                self.size = 0;
            }
            _ => {
                Field::read(&line.content)?;
            }
        }
        Ok(line.taken)
    }

    fn status(&mut self, status: u16) -> Result<(), Fault> {
        self.is_final = status == 101 || status >= 200;
        self.interim += u32::from(!self.is_final);
        if self.interim > MOST_INTERIM { Err(Fault::Interim) } else { Ok(()) }
    }
}

/// Reads a status line (RFC 9112, section 4). Servers leave out the space before an empty reason, which cannot be misread.
fn status_line(line: &[u8]) -> Result<u16, Fault> {
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', b' ', rest @ ..] = line else {
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
    Ok(status.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_head_is_read_in_one_way_or_refused() {
        let long = "a".repeat(1024);
        let interim = "HTTP/1.1 103 Early Hints\r\n\r\n";
        let cases = [
            ("HTTP/1.1 200 OK\r\n\r\nanything\n\0".to_owned(), None),
            ("HTTP/1.0 200 OK\r\nX: y\r\n\r\n".to_owned(), None),
            ("HTTP/1.1 204\r\n\r\n".to_owned(), None),
            ("HTTP/1.1 204 \r\n\r\n".to_owned(), None),
            (format!("{interim}HTTP/1.1 101 Switching\r\n\r\n\0\n"), None),
            (format!("{}HTTP/1.1 200 OK\r\n\r\n", interim.repeat(100)), None),
            (interim.repeat(101), Some(Fault::Interim)),
            ("HTTP/1.1 200 OK\nX: y\r\n".to_owned(), Some(Fault::LineEnd)),
            ("HTTP/1.1 200 OK\r\nX: y\n\r\n".to_owned(), Some(Fault::LineEnd)),
            ("HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n".to_owned(), Some(Fault::Field)),
            ("HTTP/1.1 200 OK\r\nX : y\r\n\r\n".to_owned(), Some(Fault::Field)),
            ("HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n".to_owned(), Some(Fault::Field)),
            ("HTTP/2 200 OK\r\n\r\n".to_owned(), Some(Fault::StatusLine)),
            ("HTTP/1.1 20 OK\r\n\r\n".to_owned(), Some(Fault::StatusLine)),
            ("HTTP/1.1 2000\r\n\r\n".to_owned(), Some(Fault::StatusLine)),
            ("HTTP/1.1 +20 OK\r\n\r\n".to_owned(), Some(Fault::StatusLine)),
            ("HTTP/1.1 600 OK\r\n\r\n".to_owned(), Some(Fault::StatusLine)),
            ("HTTP/1.1 200 O\0K\r\n\r\n".to_owned(), Some(Fault::StatusLine)),
            ("\r\nHTTP/1.1 200 OK\r\n\r\n".to_owned(), Some(Fault::StatusLine)),
            (format!("HTTP/1.1 200 OK\r\nX: {long}"), Some(Fault::HeadTooLong)),
        ];
        for (bytes, expected) in cases {
            for cut in 0..bytes.len() {
                let mut scanner = ResponseScanner::new(1024);
                let (first, second) = bytes.as_bytes().split_at(cut);
                let fault = scanner.scan(first).fault.or_else(|| scanner.scan(second).fault);
                assert_eq!(fault, expected, "cut at {cut}: {}", bytes.escape_debug());
            }
        }
    }
}

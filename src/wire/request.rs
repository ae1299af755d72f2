//! Requests on one connection, one after the other.

use super::{Fault, Field, Lines, Overlong, Scanned, chunks::ChunkScanner, is_token, length, scan};

/// Longest method. Registered ones have at most 17 letters.
const LONGEST_METHOD: usize = 32;

/// Reads the requests of one connection and finds where each ends.
#[derive(Debug)]
pub struct RequestScanner {
    largest_head: usize,
    part: Part,
    lines: Lines,
    head: Head,
    heads: u64,
}

/// What comes next.
#[derive(Debug)]
enum Part {
    RequestLine,
    Fields,
    Length(u64),
    Chunks(ChunkScanner),
    /// Nothing, before the request is answered: what follows may belong to another protocol.
    Answer,
    Faulty(Fault),
}

/// What is known of a head so far.
#[derive(Debug, Default)]
struct Head {
    size: usize,
    /// An empty line may come before a request line (RFC 9112, section 2.2); one is enough.
    skipped_line: bool,
    http_10: bool,
    switches: bool,
    hosts: u8,
    framing: Option<Framing>,
}

/// How the length of a body is given.
#[derive(Debug)]
enum Framing {
    Length(u64),
    Chunks,
}

// === impl RequestScanner ===

impl RequestScanner {
    /// A scanner for a new connection, whose heads may have so many bytes each, and trailers too.
    pub fn new(largest_head: usize) -> Self {
        Self { largest_head, part: Part::RequestLine, lines: Lines::default(), head: Head::default(), heads: 0 }
    }

    /// Reads on. After a fault nothing is clean any more.
    pub fn scan(&mut self, bytes: &[u8]) -> Scanned {
        let scanned = scan(bytes, |rest| self.step(rest));
        if let Some(fault) = scanned.fault {
            self.part = Part::Faulty(fault);
        }
        scanned
    }

    /// How many heads were read whole.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether the last byte was the last of a request, or there was none yet.
    pub fn is_between_requests(&self) -> bool {
        matches!(self.part, Part::RequestLine | Part::Answer) && self.head.size == 0 && self.lines.begun.is_empty()
    }

    /// The last request was answered, and not by switching protocols: another may follow.
    pub fn answered(&mut self) {
        if matches!(self.part, Part::Answer) {
            self.part = Part::RequestLine;
        }
    }

    /// Reads one line, or what there is of a body, and says how many bytes that were.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        match &mut self.part {
            Part::RequestLine | Part::Fields => self.line(bytes),
            Part::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                if *left == 0 {
                    self.part = Part::RequestLine;
                }
                Ok(taken)
            }
            Part::Chunks(chunks) => {
                let taken = chunks.step(bytes)?;
                if chunks.is_over() {
                    self.part = Part::RequestLine;
                }
                Ok(taken)
            }
            Part::Answer => Err(Fault::Early),
            Part::Faulty(fault) => Err(*fault),
        }
    }

    fn line(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let in_target = matches!(self.part, Part::RequestLine);
        let line = match self.lines.next(bytes, self.largest_head.saturating_sub(self.head.size)) {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(bytes.len()),
            Err(Overlong::LineEnd) => return Err(Fault::LineEnd),
            Err(Overlong::TooLong) => return Err(if in_target { Fault::TargetTooLong } else { Fault::HeadTooLong }),
        };
        self.head.size += line.content.len() + 2;
        match (in_target, line.content.is_empty()) {
            (true, true) if self.head.skipped_line => return Err(Fault::RequestLine),
            (true, true) => self.head.skipped_line = true,
            (true, false) => {
                self.head.http_10 = request_line(&line.content)?;
                self.part = Part::Fields;
            }
            (false, false) => self.head.field(&line.content)?,
            (false, true) => {
                self.part = std::mem::take(&mut self.head).end()?;
                self.heads += 1;
            }
        }
        Ok(line.taken)
    }
}

// === impl Head ===

impl Head {
    fn field(&mut self, line: &[u8]) -> Result<(), Fault> {
        let field = Field::read(line)?;
        match field.name.len() {
            4 if field.is(b"host")? => self.hosts = self.hosts.saturating_add(1),
            6 if field.is(b"expect")? && !field.value.eq_ignore_ascii_case(b"100-continue") => {
                return Err(Fault::Expectation);
            }
            7 if field.is(b"upgrade")? => self.switches = true,
            14 if field.is(b"content-length")? => {
                let length = Framing::Length(length(field.value)?);
                return self.frame(length);
            }
            17 if field.is(b"transfer-encoding")? => {
                let known = !self.http_10 && field.value.eq_ignore_ascii_case(b"chunked");
                return if known { self.frame(Framing::Chunks) } else { Err(Fault::Framing) };
            }
            _ => {}
        }
        Ok(())
    }

    /// The one field that says how the body is framed.
    fn frame(&mut self, framing: Framing) -> Result<(), Fault> {
        self.framing.replace(framing).map_or(Ok(()), |_| Err(Fault::Framing))
    }

    /// What follows a whole head.
    fn end(self) -> Result<Part, Fault> {
        match self.framing {
            _ if self.hosts != 1 => Err(Fault::Host),
            Some(Framing::Chunks) => Ok(Part::Chunks(ChunkScanner::new())),
            Some(Framing::Length(left @ 1..)) => Ok(Part::Length(left)),
            _ if self.switches && !self.http_10 => Ok(Part::Answer),
            _ => Ok(Part::RequestLine),
        }
    }
}

/// Reads a request line (RFC 9112, section 3); true for HTTP/1.0.
fn request_line(line: &[u8]) -> Result<bool, Fault> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(Fault::RequestLine);
    };
    let known_version = matches!(version, b"HTTP/1.1" | b"HTTP/1.0");
    if !known_version || !is_token(method) || method.len() > LONGEST_METHOD || !is_target(method, target) {
        return Err(Fault::RequestLine);
    }
    Ok(version == b"HTTP/1.0")
}

/// Whether a target has one of the four forms that go with the method (RFC 9112, section 3.2).
fn is_target(method: &[u8], target: &[u8]) -> bool {
    let bad = target.iter().fold(0, |bad, byte| bad | u8::from(!byte.is_ascii_graphic() || *byte == b'#')) > 0;
    let is_absolute = |scheme: &[u8]| {
        target.len() > scheme.len() && target[..scheme.len()].eq_ignore_ascii_case(scheme) && target[scheme.len()] != b'/'
    };
    let has_form = match target {
        [] => false,
        // The authority alone; hyper reads it, and the gate refuses the method.
        _ if method == b"CONNECT" => target[0] != b'/',
        [b'/', ..] => true,
        b"*" => method == b"OPTIONS",
        _ => is_absolute(b"http://") || is_absolute(b"https://"),
    };
    has_form && !bad
}

#[cfg(test)]
mod tests;

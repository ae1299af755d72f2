//! The heads of requests on one connection, one after the other.
//!
//! Promised: one reading, whose result is what is used. Bodies are not read here: what a head says of its own comes with it.

use bytes::{Bytes, BytesMut};
use hyper::{HeaderMap, Method, Uri, Version};

use super::{Fault, Field, Unusable, body::Incoming, chunks::ChunkScanner, head::HeadLines, is_token, length, options};

/// Longest method. Registered ones have at most 17 letters.
const LONGEST_METHOD: usize = 32;

/// Longest target that [`Uri`] holds; beyond it a head is refused whatever its size may be.
const LONGEST_TARGET: usize = (u16::MAX - 1) as usize;

/// A request without its body.
#[derive(Debug)]
pub struct Head {
    /// As it came.
    pub method: Method,
    /// As it came, in one of the four forms that go with the method (RFC 9112, section 3.2).
    pub uri: Uri,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// As they came.
    pub headers: HeaderMap,
    /// What follows.
    pub body: Incoming,
    /// Whether the client expects 100 before it sends the body (RFC 9110, section 10.1.1).
    pub expects: bool,
    /// Whether the answer may turn the connection into a tunnel. Nothing may follow before that is decided.
    pub switches: bool,
    /// Whether another request may follow on the connection (RFC 9112, section 9.3).
    pub persists: bool,
}

/// Reads one head after the other; between them it keeps only its room.
#[derive(Debug)]
pub struct HeadReader {
    lines: HeadLines,
    /// An empty line may come before a request line (RFC 9112, section 2.2); one is enough.
    skipped_line: bool,
    /// `None` until the request line has been read.
    request_line: Option<RequestLine>,
    facts: Facts,
}

#[derive(Debug)]
struct RequestLine {
    method: Method,
    /// How long the target is; it lies behind the method.
    target: usize,
    version: Version,
}

/// What the fields so far say that matters here.
#[derive(Debug, Default)]
struct Facts {
    hosts: u8,
    framing: Option<Framing>,
    expects: bool,
    upgrades: bool,
    /// Whether `Connection` says that it stays, or that it does not, which counts more.
    persists: Option<bool>,
}

/// How the length of a body is given.
#[derive(Debug)]
enum Framing {
    Length(u64),
    Chunks,
}

// === impl HeadReader ===

impl HeadReader {
    /// A reader of heads that may have so many bytes each.
    pub fn new(largest_head: usize) -> Self {
        Self { lines: HeadLines::new(largest_head), skipped_line: false, request_line: None, facts: Facts::default() }
    }

    /// Reads on in `bytes`, which hold what was not taken before and what has come since, and takes the head out of them once it
    /// is whole. After a fault the bytes mean nothing.
    pub fn read(&mut self, bytes: &mut BytesMut) -> Result<Option<Head>, Fault> {
        loop {
            // Whoever speaks something else is told at once, not when his first line ends.
            if self.request_line.is_none() && bytes.first().is_some_and(|first| !may_begin(*first)) {
                return Err(Fault::RequestLine);
            }
            let line = match (self.lines.next(bytes), &self.request_line) {
                (Ok(Some(line)), _) => line,
                (Ok(None), _) => return Ok(None),
                (Err(Unusable::TooLong), None) => return Err(Fault::TargetTooLong),
                (Err(Unusable::BareReturn), None) => return Err(Fault::RequestLine),
                (Err(unusable), _) => return Err(unusable.into()),
            };
            match &self.request_line {
                None if line.content.is_empty() => {
                    self.lines.skip(bytes);
                    if std::mem::replace(&mut self.skipped_line, true) {
                        return Err(Fault::RequestLine);
                    }
                }
                None => self.request_line = Some(RequestLine::read(line.content)?),
                Some(request) if !line.content.is_empty() => {
                    let field = self.lines.field(&line)?;
                    self.facts.note(request.version, &field)?;
                }
                Some(_) => return self.head(bytes),
            }
        }
    }

    /// Between two heads: gives its room back.
    pub fn rest(&mut self) {
        self.lines.rest();
    }

    fn head(&mut self, bytes: &mut BytesMut) -> Result<Option<Head>, Fault> {
        let Some(RequestLine { method, target, version }) = self.request_line.take() else { return Ok(None) };
        let Facts { hosts, framing, expects, upgrades, persists } = std::mem::take(&mut self.facts);
        self.skipped_line = false;
        if hosts != 1 {
            return Err(Fault::Host);
        }
        let body = match framing {
            Some(Framing::Chunks) => Incoming::Chunks(Box::new(ChunkScanner::new())),
            Some(Framing::Length(left @ 1..)) => Incoming::Length(left),
            Some(Framing::Length(0)) | None => Incoming::Ended,
        };
        let (head, headers) = self.lines.take(bytes, |_, _| Ok(true))?;
        let uri = uri(&head, method.as_str().len() + 1, target)?;
        let is_newer = version == Version::HTTP_11;
        Ok(Some(Head {
            switches: body.is_over() && upgrades && is_newer,
            expects: expects && is_newer,
            persists: persists.unwrap_or(is_newer),
            method,
            uri,
            version,
            headers,
            body,
        }))
    }
}

/// Whether a request line, or an empty line before it, may begin with this; bare line feeds are for others to refuse.
fn may_begin(first: u8) -> bool {
    matches!(first, b'\r' | b'\n') || is_token(&[first])
}

/// The target of so many bytes that begins there in a head.
fn uri(head: &Bytes, start: usize, length: usize) -> Result<Uri, Fault> {
    Uri::from_maybe_shared(head.slice(start..start + length)).map_err(|_| Fault::RequestLine)
}

// === impl RequestLine ===

impl RequestLine {
    /// Reads a request line (RFC 9112, section 3).
    fn read(line: &[u8]) -> Result<Self, Fault> {
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Fault::RequestLine);
        };
        let version = match version {
            b"HTTP/1.1" => Version::HTTP_11,
            b"HTTP/1.0" => Version::HTTP_10,
            _ => return Err(Fault::RequestLine),
        };
        if !is_token(method) || method.len() > LONGEST_METHOD || !is_target(method, target) {
            return Err(Fault::RequestLine);
        }
        if target.len() > LONGEST_TARGET {
            return Err(Fault::TargetTooLong);
        }
        let method = Method::from_bytes(method).map_err(|_| Fault::RequestLine)?;
        Ok(Self { method, target: target.len(), version })
    }
}

/// Whether a target has one of the four forms that go with the method (RFC 9112, section 3.2).
fn is_target(method: &[u8], target: &[u8]) -> bool {
    let bad = target.iter().fold(0, |bad, byte| bad | u8::from(!byte.is_ascii_graphic() || *byte == b'#')) > 0;
    let is_absolute = |scheme: &[u8]| {
        target.len() > scheme.len() && target[..scheme.len()].eq_ignore_ascii_case(scheme) && target[scheme.len()] != b'/'
    };
    let has_form = match target {
        [] => false,
        // The authority alone; it is read, and the gate refuses the method.
        _ if method == b"CONNECT" => target[0] != b'/',
        [b'/', ..] => true,
        b"*" => method == b"OPTIONS",
        _ => is_absolute(b"http://") || is_absolute(b"https://"),
    };
    has_form && !bad
}

// === impl Facts ===

impl Facts {
    fn note(&mut self, version: Version, field: &Field<'_>) -> Result<(), Fault> {
        match field.name.len() {
            4 if field.is(b"host")? => self.hosts = self.hosts.saturating_add(1),
            6 if field.is(b"expect")? => {
                self.expects = true;
                if !field.value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Fault::Expectation);
                }
            }
            7 if field.is(b"upgrade")? => self.upgrades = true,
            10 if field.is(b"connection")? => {
                for option in options(field.value) {
                    if option.eq_ignore_ascii_case(b"close") {
                        self.persists = Some(false);
                    } else if option.eq_ignore_ascii_case(b"keep-alive") {
                        self.persists.get_or_insert(true);
                    }
                }
            }
            14 if field.is(b"content-length")? => {
                let length = Framing::Length(length(field.value)?);
                return self.frame(length);
            }
            17 if field.is(b"transfer-encoding")? => {
                let known = version == Version::HTTP_11 && field.value.eq_ignore_ascii_case(b"chunked");
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
}

#[cfg(test)]
mod tests;

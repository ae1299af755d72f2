//! A response on its way out: its head, and its body by length, in chunks, or up to the end of the connection (RFC 9112, section
//! 6.3).

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Body;
use hyper::{
    Method, StatusCode, Version,
    ext::ReasonPhrase,
    header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderValue, TRAILER, TRANSFER_ENCODING},
    http::response::Parts,
};
use tokio::sync::oneshot;

use super::{date, link::Link};
use crate::{
    serve::handler::BoxError,
    stream::Tunnel,
    wire::{fields::FieldLines, length, request::Head, writer::MessageWriter},
};

/// Room for most heads.
const USUAL_HEAD: usize = 1024;

/// What of a request its answer depends on.
pub(super) struct Asked {
    asks: Asks,
    version: Version,
    /// Whether another request may follow.
    pub(super) persists: bool,
    /// Where the client's side goes, if the answer makes the connection a tunnel.
    pub(super) switching: Option<oneshot::Sender<Tunnel>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    Head,
    Connect,
    Other,
}

/// A response whose body is not all written yet.
pub(super) struct Reply<B> {
    /// `None` once all of it is with the writer.
    body: Option<B>,
    framing: Framing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// There is no body, and no word of one.
    Bare,
    /// There is no body; there would be one of this length.
    Absent(Option<u64>),
    /// So many bytes are still to come.
    Length(u64),
    Chunks,
    /// Everything up to the end of the connection.
    Rest,
}

/// The client takes no more, or the body failed: what was written must not pass for a whole answer.
pub(super) struct Broken;

// === impl Asked ===

impl Asked {
    pub(super) fn of(head: &Head) -> Self {
        let (asks, is_trusted) = match head.method {
            Method::HEAD => (Asks::Head, true),
            // Whoever sends CONNECT or TRACE to a gate takes it for something else: what follows is not to be trusted.
            Method::CONNECT => (Asks::Connect, false),
            Method::TRACE => (Asks::Other, false),
            _ => (Asks::Other, true),
        };
        Self { asks, version: head.version, persists: head.persists && is_trusted, switching: None }
    }
}

// === impl Reply ===

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Reply<B> {
    /// The answer that begins with `head`.
    pub(super) fn new(asked: &Asked, head: &Parts, body: B) -> Self {
        let framing = Framing::of(asked, head, &body);
        let has_body = !matches!(framing, Framing::Bare | Framing::Absent(_) | Framing::Length(0));
        Self { body: has_body.then_some(body), framing }
    }

    /// Whether the end of the connection is not needed to tell where it ends.
    pub(super) fn has_end(&self) -> bool {
        self.framing != Framing::Rest
    }

    /// Puts the head together. The version is that of this connection (RFC 9110, section 2.5).
    pub(super) fn write_head(&self, asked: &Asked, persists: bool, head: &Parts, fields: &FieldLines, buffer: &mut Vec<u8>) {
        let is_older = asked.version == Version::HTTP_10;
        buffer.reserve(USUAL_HEAD);
        let reason = match head.extensions.get::<ReasonPhrase>() {
            Some(reason) => reason.as_bytes(),
            None => head.status.canonical_reason().unwrap_or_default().as_bytes(),
        };
        let version: &[u8] = if is_older { b"HTTP/1.0 " } else { b"HTTP/1.1 " };
        put(buffer, &[version, head.status.as_str().as_bytes(), b" ", reason, b"\r\n"]);
        let mut has_date = false;
        for (name, value) in &head.headers {
            match *name {
                // What is said of the body, and of the connection, is known better here.
                CONTENT_LENGTH if !matches!(self.framing, Framing::Absent(_)) => continue,
                TRANSFER_ENCODING | TRAILER => continue,
                CONNECTION if is_option(value) => continue,
                DATE => has_date = true,
                _ => {}
            }
            put(buffer, &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
        put(buffer, &[fields.as_bytes()]);
        match (persists, is_older) {
            (true, true) => put(buffer, &[b"connection: keep-alive\r\n"]),
            (false, false) if head.status != StatusCode::SWITCHING_PROTOCOLS => put(buffer, &[b"connection: close\r\n"]),
            _ => {}
        }
        match self.framing {
            Framing::Chunks => put(buffer, &[b"transfer-encoding: chunked\r\n"]),
            Framing::Length(length) => put_length(buffer, length),
            Framing::Absent(Some(length)) if !head.headers.contains_key(CONTENT_LENGTH) => put_length(buffer, length),
            Framing::Absent(_) | Framing::Bare | Framing::Rest => {}
        }
        if !has_date {
            put(buffer, &[b"date: "]);
            date::append(buffer);
            put(buffer, &[b"\r\n"]);
        }
        put(buffer, &[b"\r\n"]);
    }

    /// Writes what there is; ready when all of it is gone.
    pub(super) fn poll(&mut self, link: &mut Link, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            let is_starved = self.gather(&mut link.writer, context)?;
            ready!(link.poll_send(context)).map_err(|_| Broken)?;
            if is_starved {
                return Poll::Pending;
            }
            if self.body.is_none() && link.writer.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Asks the body for pieces, and says whether it has none for now.
    fn gather(&mut self, writer: &mut MessageWriter, context: &mut Context<'_>) -> Result<bool, Broken> {
        while let Some(body) = &mut self.body
            && writer.has_room()
        {
            match Pin::new(&mut *body).poll_frame(context) {
                Poll::Pending => return Ok(true),
                Poll::Ready(None) => self.end(writer)?,
                Poll::Ready(Some(Err(_))) => return Err(Broken),
                Poll::Ready(Some(Ok(frame))) => {
                    let is_last = body.is_end_stream();
                    // Trailers were announced by a field that goes no further (RFC 9110, section 6.5.1).
                    if let Ok(data) = frame.into_data() {
                        self.append(data, writer);
                    }
                    if is_last && self.body.is_some() {
                        self.end(writer)?;
                    }
                }
            }
        }
        Ok(false)
    }

    fn append(&mut self, mut data: Bytes, writer: &mut MessageWriter) {
        match &mut self.framing {
            Framing::Length(left) => {
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data.len() as u64;
                if *left == 0 {
                    self.body = None;
                }
                writer.append(data);
            }
            Framing::Chunks => writer.append_chunk(data),
            Framing::Rest => writer.append(data),
            Framing::Bare | Framing::Absent(_) => {}
        }
    }

    /// The body says that this was all of it.
    fn end(&mut self, writer: &mut MessageWriter) -> Result<(), Broken> {
        self.body = None;
        match self.framing {
            Framing::Length(1..) => Err(Broken),
            Framing::Chunks => {
                writer.end_chunks();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

// === impl Framing ===

impl Framing {
    fn of(asked: &Asked, head: &Parts, body: &impl Body) -> Self {
        let status = head.status;
        let is_bare = status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || asked.asks == Asks::Connect && status.is_success();
        let exact = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
        let announced = || length(head.headers.get(CONTENT_LENGTH)?.as_bytes()).ok();
        match exact {
            _ if is_bare => Self::Bare,
            _ if asked.asks == Asks::Head => Self::Absent(exact.filter(|length| *length > 0)),
            Some(length) => Self::Length(length),
            None => match announced() {
                Some(length) => Self::Length(length),
                None if asked.version == Version::HTTP_10 => Self::Rest,
                None => Self::Chunks,
            },
        }
    }
}

fn put(buffer: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        buffer.extend_from_slice(part);
    }
}

fn put_length(buffer: &mut Vec<u8>, length: u64) {
    put(buffer, &[b"content-length: ", itoa::Buffer::new().format(length).as_bytes(), b"\r\n"]);
}

/// Whether a value of `Connection` says whether it stays.
fn is_option(value: &HeaderValue) -> bool {
    ["close", "keep-alive"].iter().any(|option| value.as_bytes().eq_ignore_ascii_case(option.as_bytes()))
}

//! A request on its way out: its head, and its body by length or in chunks (RFC 9112, sections 3, 6 and 7.1).

use std::{
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::Body;
use hyper::{
    Request,
    header::{CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING},
};
use tokio::io::AsyncWrite;

use crate::{
    body::RequestBody,
    stream::Stream,
    upstream::upload::Upload,
    wire::{fields::FieldLines, writer::MessageWriter},
};

/// The request of the exchange under way.
#[derive(Default)]
pub(super) struct Outgoing {
    state: State,
    writer: MessageWriter,
    /// `None` once all of it is with the writer.
    upload: Option<Upload>,
    /// Whether the body goes out in chunks.
    chunked: bool,
}

#[derive(Default)]
enum State {
    #[default]
    Going,
    /// All of it is on its way.
    Through,
    /// The upstream takes no more of it.
    Untaken(io::Error),
    /// The body itself failed, which no answer can make good.
    Broken,
}

// === impl Outgoing ===

impl Outgoing {
    /// Takes the body of a request for `host`, whose own `Host` and framing go no further, and beside whose head `fields` go;
    /// nothing is written yet. What of an earlier one was left is forgotten.
    pub(super) fn begin(&mut self, head: &Request<RequestBody>, fields: &FieldLines, host: &HeaderValue, upload: Upload) {
        let length = upload.size_hint().exact();
        let bodiless = upload.is_end_stream();
        let mut writer = std::mem::take(&mut self.writer);
        writer.clear();
        *self = Self { writer, chunked: length.is_none(), upload: (!bodiless).then_some(upload), ..Self::default() };
        let buffer = self.writer.buffer();
        let target = head.uri().path_and_query().map_or("/", |target| target.as_str());
        let parts = [head.method().as_str(), " ", target, " HTTP/1.1\r\nhost: "].map(str::as_bytes);
        buffer.reserve(1024);
        for part in parts.into_iter().chain([host.as_bytes(), b"\r\n"]) {
            buffer.extend_from_slice(part);
        }
        for (name, value) in head.headers() {
            // The length of what there is to send is known better here.
            if matches!(*name, HOST | TRANSFER_ENCODING) || (!bodiless && *name == CONTENT_LENGTH) {
                continue;
            }
            let parts = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
            for part in parts {
                buffer.extend_from_slice(part);
            }
        }
        buffer.extend_from_slice(fields.as_bytes());
        match length {
            _ if bodiless => {}
            None => buffer.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            // Writing to memory cannot fail.
            Some(length) => _ = write!(buffer, "content-length: {length}\r\n"),
        }
        buffer.extend_from_slice(b"\r\n");
    }

    /// Gives back the room of a large head.
    pub(super) fn rest(&mut self) {
        self.writer.clear();
    }

    /// Writes what there is to write and the upstream takes. What goes wrong is kept: where the upstream takes no more, its answer
    /// may be there all the same.
    pub(super) fn poll(&mut self, stream: &mut Stream, context: &mut Context<'_>) {
        if !matches!(self.state, State::Going) {
            return;
        }
        match self.poll_write(stream, context) {
            Poll::Ready(Ok(())) => self.state = State::Through,
            Poll::Ready(Err(_)) if matches!(self.state, State::Broken) => {}
            Poll::Ready(Err(error)) => self.state = State::Untaken(error),
            Poll::Pending => {}
        }
    }

    /// Whether all of it is on its way.
    pub(super) fn is_through(&self) -> bool {
        matches!(self.state, State::Through)
    }

    /// Whether not a byte of it was written.
    pub(super) fn is_unwritten(&self) -> bool {
        self.writer.total() == 0
    }

    /// Whether the client's body failed.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.state, State::Broken)
    }

    /// Why the upstream took no more of it.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        match std::mem::take(&mut self.state) {
            State::Untaken(error) => Some(error),
            state => {
                self.state = state;
                None
            }
        }
    }

    fn poll_write(&mut self, stream: &mut Stream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let starved = self.gather(context)?;
            let is_done = self.upload.is_none();
            ready!(self.writer.poll_write(stream, context))?;
            if starved || is_done && self.writer.is_empty() {
                ready!(Pin::new(&mut *stream).poll_flush(context))?;
                return if starved { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
        }
    }

    /// Asks the body for pieces, and says whether more of them have yet to come.
    fn gather(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        while let Some(upload) = &mut self.upload
            && self.writer.has_room()
        {
            match Pin::new(upload).poll_frame(context) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Some(Err(fault))) => {
                    self.state = State::Broken;
                    return Err(io::Error::other(fault));
                }
                // Trailers were announced by a field that went no further (RFC 9110, section 6.5.1).
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if self.chunked => self.writer.append_chunk(data),
                    Ok(data) => self.writer.append(data),
                    Err(_) => {}
                },
                Poll::Ready(None) => {
                    self.upload = None;
                    if self.chunked {
                        self.writer.end_chunks();
                    }
                }
            }
            if !self.chunked && self.upload.as_ref().is_some_and(Body::is_end_stream) {
                self.upload = None;
            }
        }
        Ok(false)
    }
}

//! A request on its way out: its head, and its body by length or in chunks (RFC 9112, sections 3, 6 and 7.1).

use std::{
    io::{self, IoSlice, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::Body;
use hyper::{
    Request,
    header::{CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING},
};
use tokio::io::AsyncWrite;

use crate::{body::RequestBody, stream::Stream, upstream::upload::Upload};

/// Pieces of a body up to this size are copied behind what is written before them; larger ones are written as they are.
const COPIED: usize = 4 * 1024;

/// While so much waits to be written, the body is not asked for more.
const GATHERED: usize = 16 * 1024;

/// The request of the exchange under way.
#[derive(Default)]
pub(super) struct Outgoing {
    state: State,
    buffer: BytesMut,
    /// A piece of the body, behind the buffer.
    piece: Bytes,
    /// `None` once all of it is in the buffer.
    upload: Option<Upload>,
    /// Whether the body goes out in chunks.
    chunked: bool,
    /// Whether a byte of it was written.
    written: bool,
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
    /// Takes the body of a request for `host`, whose own `Host` and framing go no further; nothing is written yet. What of an
    /// earlier one was left is forgotten.
    pub(super) fn begin(&mut self, head: &Request<RequestBody>, host: &HeaderValue, upload: Upload) {
        let length = upload.size_hint().exact();
        let bodiless = upload.is_end_stream();
        let buffer = std::mem::take(&mut self.buffer);
        *self = Self { buffer, chunked: length.is_none(), upload: (!bodiless).then_some(upload), ..Self::default() };
        self.buffer.clear();
        let target = head.uri().path_and_query().map_or("/", |target| target.as_str());
        let parts = [head.method().as_str(), " ", target, " HTTP/1.1\r\nhost: "].map(str::as_bytes);
        self.buffer.reserve(1024);
        for part in parts.into_iter().chain([host.as_bytes(), b"\r\n"]) {
            self.buffer.put_slice(part);
        }
        for (name, value) in head.headers() {
            // The length of what there is to send is known better here.
            if matches!(*name, HOST | TRANSFER_ENCODING) || (!bodiless && *name == CONTENT_LENGTH) {
                continue;
            }
            let parts = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
            for part in parts {
                self.buffer.put_slice(part);
            }
        }
        match length {
            _ if bodiless => {}
            None => self.buffer.put_slice(b"transfer-encoding: chunked\r\n"),
            // Writing to memory cannot fail.
            Some(length) => _ = write!((&mut self.buffer).writer(), "content-length: {length}\r\n"),
        }
        self.buffer.put_slice(b"\r\n");
    }

    /// Gives back the room of a large head.
    pub(super) fn rest(&mut self) {
        if self.buffer.capacity() > GATHERED {
            self.buffer = BytesMut::new();
        }
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
        !self.written
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

    fn poll_write(&mut self, mut stream: &mut Stream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let starved = self.gather(context)?;
            if self.buffer.is_empty() && self.piece.is_empty() {
                ready!(Pin::new(&mut stream).poll_flush(context))?;
                return if starved { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
            let written = if self.piece.is_empty() {
                ready!(Pin::new(&mut stream).poll_write(context, &self.buffer))?
            } else {
                let slices = [IoSlice::new(&self.buffer), IoSlice::new(&self.piece)];
                ready!(Pin::new(&mut stream).poll_write_vectored(context, &slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written = true;
            self.took(written);
        }
    }

    /// The kernel took so many bytes.
    fn took(&mut self, written: usize) {
        let of_buffer = written.min(self.buffer.len());
        self.buffer.advance(of_buffer);
        if !self.piece.is_empty() {
            self.piece.advance(written - of_buffer);
            if self.piece.is_empty() && self.chunked {
                self.buffer.put_slice(b"\r\n");
            }
        }
    }

    /// Asks the body for pieces, and says whether more of them have yet to come.
    fn gather(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        while self.piece.is_empty() && self.buffer.len() < GATHERED {
            let Some(upload) = &mut self.upload else { return Ok(false) };
            match Pin::new(upload).poll_frame(context) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Some(Err(fault))) => {
                    self.state = State::Broken;
                    return Err(io::Error::other(fault));
                }
                // Trailers were announced by a field that went no further (RFC 9110, section 6.5.1).
                Poll::Ready(Some(Ok(frame))) => _ = frame.into_data().map(|data| self.append(data)),
                Poll::Ready(None) => {
                    self.upload = None;
                    if self.chunked {
                        self.buffer.put_slice(b"0\r\n\r\n");
                    }
                }
            }
            if !self.chunked && self.upload.as_ref().is_some_and(Body::is_end_stream) {
                self.upload = None;
            }
        }
        Ok(self.upload.is_some())
    }

    fn append(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        if self.chunked {
            // Writing to memory cannot fail.
            let _ = write!((&mut self.buffer).writer(), "{:x}\r\n", data.len());
        }
        if data.len() > COPIED {
            self.piece = data;
            return;
        }
        self.buffer.put_slice(&data);
        if self.chunked {
            self.buffer.put_slice(b"\r\n");
        }
    }
}

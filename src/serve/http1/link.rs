//! A client's connection in both directions: what was received and not yet taken, and what waits to be written.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::AsyncWrite;

use crate::{
    stream::{Received, Stream},
    wire::writer::MessageWriter,
};

/// The socket with its buffers.
pub(super) struct Link {
    pub(super) stream: Stream,
    pub(super) received: Received,
    pub(super) writer: MessageWriter,
    /// Whether the client has yet to take what was to be sent last.
    pub(super) is_blocked: bool,
}

// === impl Link ===

impl Link {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, received: Received::new(), writer: MessageWriter::default(), is_blocked: false }
    }

    /// Receives something, behind what there is; none is the end.
    pub(super) fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.received.poll(&mut self.stream, context)
    }

    /// Writes all there is.
    pub(super) fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_blocked = true;
        ready!(self.writer.poll_write(&mut self.stream, context))?;
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.is_blocked = false;
        Poll::Ready(Ok(()))
    }

    /// Gives its room back, but for bytes that nobody has taken.
    pub(super) fn rest(&mut self) {
        self.received.rest();
        self.writer.rest();
    }
}

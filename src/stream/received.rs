//! What a peer has sent and nobody has taken yet.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio_util::io::poll_read_buf;

use super::Stream;

/// What is received at once at first; a message that fills it gets twice as much, and so on.
const FIRST_READ: usize = 8 * 1024;

/// The most that is received at once.
const LARGEST_READ: usize = 64 * 1024;

/// The bytes, with room for more of them.
pub(crate) struct Received {
    pub(crate) bytes: BytesMut,
    /// What is received at once; room is made for it where there is less than half of it.
    reading: usize,
}

// === impl Received ===

impl Received {
    /// Nothing, in no room.
    pub(crate) fn new() -> Self {
        Self { bytes: BytesMut::new(), reading: FIRST_READ }
    }

    /// Receives something, behind what there is; none is the end.
    pub(crate) fn poll(&mut self, stream: &mut Stream, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.bytes.capacity() - self.bytes.len() < self.reading / 2 {
            self.bytes.reserve(self.reading);
        }
        let room = self.bytes.capacity() - self.bytes.len();
        let received = ready!(poll_read_buf(Pin::new(stream), context, &mut self.bytes))?;
        if received == room {
            self.reading = (self.reading * 2).min(LARGEST_READ);
        }
        Poll::Ready(Ok(received))
    }

    /// Another message begins: it is received as the first was.
    pub(crate) fn restart(&mut self) {
        self.reading = FIRST_READ;
    }

    /// Keeps no more room than a small message needs, where nothing is in it.
    pub(crate) fn settle(&mut self) {
        if self.bytes.capacity() > FIRST_READ {
            self.rest();
        }
    }

    /// Gives the room back, where nothing is in it.
    pub(crate) fn rest(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
    }
}

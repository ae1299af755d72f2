//! A message on its way out: what of it was gathered, and a piece that goes out behind it as it is.

use std::{
    io::{self, IoSlice, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// Pieces of a body up to this size are copied behind what is written before them; larger ones are written as they are.
const COPIED: usize = 4 * 1024;

/// While so much waits to be written, no more is gathered.
const GATHERED: usize = 16 * 1024;

/// What waits to be written.
#[derive(Debug, Default)]
pub struct MessageWriter {
    buffer: Vec<u8>,
    /// How much of the buffer is written.
    written: usize,
    /// A piece of the body, behind the buffer.
    piece: Bytes,
    /// What follows the piece.
    tail: &'static [u8],
    /// How much was written in all.
    total: u64,
}

// === impl MessageWriter ===

impl MessageWriter {
    /// Where what comes next is put together; no more than one piece may be behind it.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Appends a piece of a body; there must be [room](Self::has_room).
    pub fn append(&mut self, data: Bytes) {
        if data.len() > COPIED {
            self.piece = data;
        } else {
            self.buffer.extend_from_slice(&data);
        }
    }

    /// Appends a piece of a body as a chunk (RFC 9112, section 7.1); there must be [room](Self::has_room). No chunk is empty but
    /// the [last](Self::end_chunks).
    pub fn append_chunk(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        // Writing to memory cannot fail.
        let _ = write!(self.buffer, "{:x}\r\n", data.len());
        self.append(data);
        if self.piece.is_empty() {
            self.buffer.extend_from_slice(b"\r\n");
        } else {
            self.tail = b"\r\n";
        }
    }

    /// Ends a body in chunks.
    pub fn end_chunks(&mut self) {
        if self.piece.is_empty() {
            self.buffer.extend_from_slice(b"0\r\n\r\n");
        } else {
            self.tail = b"\r\n0\r\n\r\n";
        }
    }

    /// Whether there is room for another piece.
    pub fn has_room(&self) -> bool {
        self.piece.is_empty() && self.buffer.len() - self.written < GATHERED
    }

    /// Whether nothing waits to be written.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.piece.is_empty()
    }

    /// How many bytes were written in all, so that it can be seen whether any are taken.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Writes what there is, without a flush; ready when all of it is gone.
    pub fn poll_write(&mut self, stream: &mut (impl AsyncWrite + Unpin), context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let buffer = &self.buffer[self.written..];
            let written = if self.piece.is_empty() {
                ready!(Pin::new(&mut *stream).poll_write(context, buffer))?
            } else {
                let slices = [IoSlice::new(buffer), IoSlice::new(&self.piece)];
                ready!(Pin::new(&mut *stream).poll_write_vectored(context, &slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.took(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Before another message: forgets what waits and how much was written, and gives the room of a large message back.
    pub fn clear(&mut self) {
        self.piece = Bytes::new();
        self.tail = &[];
        (self.written, self.total) = (0, 0);
        self.buffer.clear();
        self.buffer.shrink_to(GATHERED);
    }

    /// Between two messages: gives all room back.
    pub fn rest(&mut self) {
        self.buffer = Vec::new();
    }

    /// The stream took so many bytes.
    fn took(&mut self, written: usize) {
        self.total += written as u64;
        let of_buffer = written.min(self.buffer.len() - self.written);
        self.written += of_buffer;
        self.piece.advance(written - of_buffer);
        if self.written == self.buffer.len() {
            self.written = 0;
            self.buffer.clear();
        }
        if self.piece.is_empty() {
            self.buffer.extend_from_slice(std::mem::take(&mut self.tail));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes so many bytes at a time.
    struct Sips {
        most: usize,
        taken: Vec<u8>,
    }

    impl AsyncWrite for Sips {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let sip = &bytes[..bytes.len().min(self.most)];
            self.taken.extend_from_slice(sip);
            Poll::Ready(Ok(sip.len()))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.poll_write(context, &slices.iter().flat_map(|slice| slice.to_vec()).collect::<Vec<u8>>())
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_is_appended_goes_out_in_order_however_little_is_taken_at_a_time() {
        let large = "x".repeat(COPIED + 1);
        let expected = format!("head 5\r\nsmall\r\n{:x}\r\n{large}\r\n0\r\n\r\nnext", large.len());
        for most in [1, 7, 4096, usize::MAX] {
            let (mut sips, mut writer) = (Sips { most, taken: Vec::new() }, MessageWriter::default());
            writer.buffer().extend_from_slice(b"head ");
            writer.append_chunk("small".into());
            writer.append_chunk(Bytes::new());
            assert!(writer.has_room());
            writer.append_chunk(large.clone().into());
            assert!(!writer.has_room(), "one piece waits behind the buffer");
            writer.end_chunks();
            let context = &mut Context::from_waker(Waker::noop());
            assert!(matches!(writer.poll_write(&mut sips, context), Poll::Ready(Ok(()))));
            writer.append("next".into());
            assert!(matches!(writer.poll_write(&mut sips, context), Poll::Ready(Ok(()))));
            assert_eq!(String::from_utf8(sips.taken).unwrap(), expected, "{most} at a time");
            assert_eq!((writer.total(), writer.is_empty()), (expected.len() as u64, true));
        }
    }
}

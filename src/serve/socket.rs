//! A client's socket: reports to [`Progress`] what moves, and keeps from the client what hyper says on its own.
//!
//! hyper answers a head it cannot read with a bare status line, and shuts the socket down before anyone else could speak.
//! Both are swallowed here; the connection's task, which learns the error from hyper, answers in our own words.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
};

use super::progress::Progress;

/// A client's connection with its place among those that may be open. In a tunnel it is a plain stream.
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    pub(super) progress: Progress,
    _slot: Slot,
}

/// A place among the connections that may be open, and one on the gauge that counts them.
pub(super) struct Slot {
    open: Gauge,
    _place: OwnedSemaphorePermit,
}

// === impl Socket ===

impl Socket {
    pub(super) fn new(stream: TcpStream, slot: Slot) -> Self {
        // Responses are written in whole pieces; waiting to fill a segment would only delay their last one.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        Self { stream, progress: Progress::new(), _slot: slot }
    }

    fn report(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => self.progress.wrote(bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.progress.blocked(),
        }
        written
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.progress.received();
        }
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.progress.is_awaiting_head() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.report(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.progress.is_awaiting_head() {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.report(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            self.progress.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.progress.is_upgraded() {
            return Pin::new(&mut self.stream).poll_shutdown(context);
        }
        Poll::Ready(Ok(()))
    }
}

// === impl Slot ===

impl Slot {
    pub(super) fn new(place: OwnedSemaphorePermit, open: Gauge) -> Self {
        open.inc();
        Self { open, _place: place }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.open.dec();
    }
}

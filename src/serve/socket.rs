//! A client's socket: reports to [`Progress`] what moves, and keeps from the client what hyper says on its own.
//!
//! hyper answers a head it cannot read with a bare status line, and shuts the socket down before anyone else could speak.
//! Both are swallowed here; the connection's task, which learns the error from hyper, answers in our own words.
//! In the other direction hyper gets no byte that a strict reader has not passed.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
};

use super::progress::{Arriving, Progress};
use crate::{
    stream::Stream,
    wire::{Fault, request::RequestScanner},
};

/// A client's connection with its place among those that may be open. In a tunnel it is a plain stream.
pub(super) struct Socket {
    pub(super) stream: Stream,
    pub(super) progress: Progress,
    scanner: RequestScanner,
    /// Once there is one, nothing is read any more.
    fault: Option<Fault>,
    _slot: Slot,
}

/// A place among the connections that may be open, and one on the gauge that counts them.
pub(super) struct Slot {
    open: Gauge,
    _place: OwnedSemaphorePermit,
}

// === impl Socket ===

impl Socket {
    /// A connection whose request heads may have so many bytes each.
    pub(super) fn new(stream: Stream, slot: Slot, largest_head: usize) -> Self {
        let scanner = RequestScanner::new(largest_head);
        Self { stream, progress: Progress::new(), scanner, fault: None, _slot: slot }
    }

    /// Reads what has just arrived, and says how many bytes of it hyper may have.
    fn scan(&mut self, fresh: &[u8]) -> usize {
        match self.progress.received() {
            Arriving::Tunnel => return fresh.len(),
            Arriving::Next => self.scanner.answered(),
            Arriving::Current => {}
        }
        let scanned = self.scanner.scan(fresh);
        if let Some(fault) = scanned.fault {
            tracing::debug!(%fault, "a request is refused");
            self.fault = Some(fault);
            if !fault.is_in_body() {
                self.progress.refuse(self.scanner.heads(), fault);
            }
        }
        scanned.clean
    }

    /// What hyper reads after a fault. A body ends in an error, as does what was to be a tunnel. A head never comes: the
    /// requests before it are answered first, and then the connection's task answers, which sees the refusal.
    fn refused(&self, fault: Fault) -> Poll<io::Result<()>> {
        if fault.is_in_body() || self.progress.is_upgraded() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault)));
        }
        Poll::Pending
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
        if let Some(fault) = self.fault {
            return self.refused(fault);
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            let clean = self.scan(&buffer.filled()[before..]);
            buffer.set_filled(before + clean);
            if let Some(fault) = self.fault
                && clean == 0
            {
                return self.refused(fault);
            }
        } else if polled.is_pending() && self.scanner.is_between_requests() {
            self.progress.drained();
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

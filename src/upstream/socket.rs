//! A connection's socket, plain or TLS, and its place among the connections that may be open.
//!
//! A response head reaches hyper only as far as a strict reader has passed it; what it does not pass is an error.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
};
use tokio_rustls::client::TlsStream;

use super::pool::BUFFER_BYTES;
use crate::wire::{Fault, response::ResponseScanner};

/// Bytes to and from the upstream.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A stream that remembers whether anything has come, and holds its place until it is closed.
pub(super) struct Socket {
    stream: Stream,
    place: Arc<Place>,
    scanner: ResponseScanner,
    fault: Option<Fault>,
}

/// Belongs to the socket and to whoever leases it. The permit is in it while the connection is leased or a tunnel, so that
/// it is given back neither before the socket is closed nor while it rests in the pool.
pub(super) struct Place {
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    answered: AtomicBool,
    open: Gauge,
}

// === impl Socket ===

impl Socket {
    pub(super) fn new(stream: Stream, place: Arc<Place>) -> Self {
        Self { stream, place, scanner: ResponseScanner::new(BUFFER_BYTES), fault: None }
    }

    /// Reads what has just arrived, and says how many bytes of it hyper may have.
    fn scan(&mut self, fresh: &[u8]) -> usize {
        if !self.place.answered.swap(true, Ordering::AcqRel) {
            self.scanner = ResponseScanner::new(BUFFER_BYTES);
        }
        let scanned = self.scanner.scan(fresh);
        self.fault = scanned.fault;
        scanned.clean
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(fault) = self.fault {
            return refused(fault);
        }
        let before = buffer.filled().len();
        let polled = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        if buffer.filled().len() > before {
            let clean = self.scan(&buffer.filled()[before..]);
            buffer.set_filled(before + clean);
            if let Some(fault) = self.fault
                && clean == 0
            {
                return refused(fault);
            }
        }
        polled
    }
}

fn refused(fault: Fault) -> Poll<io::Result<()>> {
    Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault)))
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

// === impl Place ===

impl Place {
    pub(super) fn new(permit: OwnedSemaphorePermit, open: Gauge) -> Self {
        open.inc();
        Self { permit: Mutex::new(Some(permit)), answered: AtomicBool::new(false), open }
    }

    /// The connection is leased again.
    pub(super) fn occupy(&self, permit: OwnedSemaphorePermit) {
        self.answered.store(false, Ordering::Release);
        self.replace(Some(permit));
    }

    /// The connection rests in the pool, from where the next request takes it before another is made.
    pub(super) fn vacate(&self) {
        self.replace(None);
    }

    /// Whether the upstream has sent a byte since the connection was leased.
    pub(super) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire)
    }

    fn replace(&self, permit: Option<OwnedSemaphorePermit>) {
        *self.permit.lock().unwrap_or_else(PoisonError::into_inner) = permit;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

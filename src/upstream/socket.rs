//! A connection's socket, and its place among the connections that may be open.
//!
//! Promised of HTTP/1: a response head reaches hyper only as far as a strict reader has passed it, and nothing that came
//! before the request was written passes for its answer; what does not pass is an error.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
};

use super::stream::Stream;
use crate::wire::{Fault, response::ResponseScanner};

/// Largest response head, and the most that is gathered of one connection in either direction. A head may have 100 fields.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;

/// A stream of HTTP/1 that remembers whether anything has come, and holds its place until it is closed.
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
    asked: AtomicBool,
    answered: AtomicBool,
    _open: Open,
}

/// Counts a connection as open for as long as it lives.
pub(super) struct Open(Gauge);

// === impl Socket ===

impl Socket {
    pub(super) fn new(stream: Stream, place: Arc<Place>) -> Self {
        Self { stream, place, scanner: ResponseScanner::new(BUFFER_BYTES), fault: None }
    }

    /// Reads what has just arrived, and says how many bytes of it hyper may have.
    fn scan(&mut self, fresh: &[u8]) -> usize {
        if !self.place.asked.load(Ordering::Acquire) {
            self.fault = Some(Fault::Unsolicited);
            return 0;
        }
        if !self.place.answered.swap(true, Ordering::AcqRel) {
            self.scanner = ResponseScanner::new(BUFFER_BYTES);
        }
        let scanned = self.scanner.scan(fresh);
        self.fault = scanned.fault;
        scanned.clean
    }

    /// Ready when nothing stands between the last answer and the request that is about to be written. Of TLS something may:
    /// session tickets, which are read here.
    fn poll_ask(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.place.asked.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        while self.stream.has_unread()? {
            let mut bytes = [MaybeUninit::uninit(); 256];
            let mut buffer = ReadBuf::uninit(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                Poll::Ready(Ok(())) => {
                    self.fault = Some(Fault::Unsolicited);
                    return Poll::Ready(Err(refused(Fault::Unsolicited)));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // Either there were only tickets, or the runtime has yet to hear of the bytes, and wakes us then.
                Poll::Pending if self.stream.has_unread()? => return Poll::Pending,
                Poll::Pending => {}
            }
        }
        self.place.asked.store(true, Ordering::Release);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(fault) = self.fault {
            return Poll::Ready(Err(refused(fault)));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            let clean = self.scan(&buffer.filled()[before..]);
            buffer.set_filled(before + clean);
            if let Some(fault) = self.fault
                && clean == 0
            {
                return Poll::Ready(Err(refused(fault)));
            }
        }
        polled
    }
}

fn refused(fault: Fault) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, fault)
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_ask(context))?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_ask(context))?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

// === impl Place ===

impl Place {
    pub(super) fn new(permit: OwnedSemaphorePermit, open: Open) -> Self {
        let (asked, answered) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { permit: Mutex::new(Some(permit)), asked, answered, _open: open }
    }

    /// The connection is leased again.
    pub(super) fn occupy(&self, permit: OwnedSemaphorePermit) {
        self.asked.store(false, Ordering::Release);
        self.answered.store(false, Ordering::Release);
        self.replace(Some(permit));
    }

    /// The connection rests in the pool, from where the next request takes it before another is made.
    pub(super) fn vacate(&self) {
        self.asked.store(false, Ordering::Release);
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

// === impl Open ===

impl Open {
    pub(super) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

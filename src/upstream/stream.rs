//! Bytes to and from an upstream, plain or TLS.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
};

use prometheus_client::metrics::gauge::Gauge;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::wire::Fault;

/// Bytes to and from the upstream.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Counts a connection as open for as long as it lives.
pub(super) struct Open(Gauge);

// === impl Stream ===

impl Stream {
    /// Ready when the upstream has said nothing that nobody has read. Of TLS something may be there: session tickets, which
    /// are read here; and what was decrypted together with the last answer, of which the kernel no longer knows.
    pub(super) fn poll_quiet(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self, Self::Plain(_)) && !self.has_unread()? {
            return Poll::Ready(Ok(()));
        }
        let mut bytes = [MaybeUninit::uninit(); 256];
        let mut buffer = ReadBuf::uninit(&mut bytes);
        match Pin::new(&mut *self).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Poll::Ready(Ok(())) => Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, Fault::Unsolicited))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // The runtime has yet to hear of the bytes, and wakes us then.
            Poll::Pending if self.has_unread()? => Poll::Pending,
            // There were only tickets, if anything.
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    /// Whether the kernel holds bytes for us, or the end of them, whatever the runtime has heard of it so far.
    fn has_unread(&self) -> io::Result<bool> {
        match SockRef::from(self.tcp()).peek(&mut [MaybeUninit::uninit()]) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
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

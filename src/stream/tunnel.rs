//! A connection after it has switched protocols: bytes, and nothing more.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use hyper::http::Extensions;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};

use super::Stream;

/// One side of a tunnel: a client's, or an upstream's.
pub struct Tunnel {
    stream: Stream,
    /// What came together with the head of the response.
    early: BytesMut,
    _held: Box<dyn Send + Sync>,
}

/// Comes with a request whose client offers to switch protocols: gives its side of the tunnel once a response that switches
/// has been written.
#[derive(Clone)]
pub struct Switching(Arc<Mutex<Option<oneshot::Receiver<Tunnel>>>>);

// === impl Tunnel ===

impl Tunnel {
    /// A tunnel that begins with what was received already, and keeps what is `held`, its place among the connections, for as
    /// long as it lives.
    pub(crate) fn new(stream: Stream, early: BytesMut, held: impl Send + Sync + 'static) -> Self {
        Self { stream, early, _held: Box::new(held) }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.early.len().min(buffer.remaining());
        buffer.put_slice(&self.early[..length]);
        self.early.advance(length);
        if self.early.is_empty() {
            self.early = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
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

// === impl Switching ===

impl Switching {
    /// A way for a tunnel.
    pub(crate) fn new() -> (oneshot::Sender<Tunnel>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(Arc::new(Mutex::new(Some(receiver)))))
    }

    /// Takes it from a request, where it is.
    pub fn take(extensions: &mut Extensions) -> Option<Self> {
        extensions.remove()
    }

    /// The client's side; an error where the response does not switch, or is not written.
    pub async fn tunnel(self) -> io::Result<Tunnel> {
        let receiver = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(receiver) = receiver else { return Err(io::ErrorKind::NotFound.into()) };
        receiver.await.map_err(|_| io::ErrorKind::ConnectionAborted.into())
    }
}

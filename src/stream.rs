//! Bytes to and from a peer over TCP, plain or TLS: a client of ours, or an upstream whose client we are.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;

/// A connection once the handshake, where there is one, is done.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Lets every task that is ready go first; awaited before a message is begun to be written.
///
/// Under load many messages are there at once. Written one by one, each between two that are read and decided about, each finds
/// its receiver asleep, and waking another process costs more than writing to it. So all are read first, and then all are
/// written: the first wakes whoever is on the other side, and the next find it awake. Where nothing else is ready, as where there is
/// little to do, it goes on at once.
pub(crate) async fn turn() {
    let mut given = false;
    poll_fn(|context| {
        if mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

// === impl Stream ===

impl Stream {
    /// The connection below.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Resolves when there may be something to read: bytes, an end or an error.
    pub(crate) async fn readable(&self) {
        if let Self::Tls(stream) = self
            && !stream.get_ref().1.wants_read()
        {
            return;
        }
        // An error is for whoever reads to find.
        let _ = self.tcp().readable().await;
    }

    /// Tells a TLS peer that nothing was cut off (RFC 8446, section 6.1), if it takes that at once. The end of a plain
    /// connection says so itself.
    pub(crate) async fn close(&mut self) {
        if let Self::Tls(stream) = self {
            tokio::select! {
                biased;
                _ = stream.shutdown() => {}
                () = std::future::ready(()) => {}
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
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

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn all_who_are_ready_read_before_any_of_them_writes() {
        let done = Arc::new(Mutex::new(Vec::new()));
        let exchange = |done: Arc<Mutex<Vec<&'static str>>>| async move {
            done.lock().unwrap().push("read");
            turn().await;
            done.lock().unwrap().push("written");
        };
        let exchanges = [(); 3].map(|()| tokio::spawn(exchange(Arc::clone(&done))));
        for exchange in exchanges {
            exchange.await.unwrap();
        }
        assert_eq!(*done.lock().unwrap(), ["read", "read", "read", "written", "written", "written"]);
    }
}

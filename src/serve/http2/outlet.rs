//! A connection that says since when its client has taken no byte.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep},
};

use crate::stream::Stream;

/// The connection, on which there is one writer.
pub(super) struct Outlet {
    stream: Stream,
    blocked: Blocked,
}

/// Since when the client has taken no byte that waits for it, if one does.
#[derive(Clone, Default)]
pub(super) struct Blocked(Arc<Mutex<Option<Instant>>>);

// === impl Outlet ===

impl Outlet {
    pub(super) fn new(stream: Stream, blocked: Blocked) -> Self {
        Self { stream, blocked }
    }

    fn report<T>(&self, written: Poll<T>) -> Poll<T> {
        let mut since = self.blocked.lock();
        *since = if written.is_pending() { since.or_else(|| Some(Instant::now())) } else { None };
        written
    }
}

impl AsyncRead for Outlet {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Outlet {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.report(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.report(written)
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

// === impl Blocked ===

impl Blocked {
    /// Resolves when the client has taken no byte for `limit`, or up to a quarter longer.
    pub(super) async fn lasts(&self, limit: Duration) {
        loop {
            sleep(limit / 4).await;
            if self.lock().is_some_and(|since| since.elapsed() >= limit) {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

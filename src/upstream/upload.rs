//! A request's body on its way out, watched so that the wait for a response can tell whose turn it is.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::Instant;

use crate::body::{Fault, RequestBody};

/// The body of a request, as it is sent.
pub(super) struct Upload {
    body: RequestBody,
    watch: Option<UploadWatch>,
}

/// Since when the upstream has had what came of a body; `None` while the client has the next piece. Empty bodies have none: they
/// are gone with the head.
#[derive(Clone)]
pub(super) struct UploadWatch(Arc<Mutex<Option<Instant>>>);

/// Sends a body over a stream of HTTP/2, no faster than the upstream takes it.
pub(super) async fn pour(mut body: Upload, mut pipe: SendStream<Bytes>) {
    while has_room(&mut pipe).await {
        let sent = match body.frame().await {
            None => return drop(pipe.send_data(Bytes::new(), true)),
            Some(Err(_)) => return pipe.send_reset(Reason::CANCEL),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => pipe.send_data(data, body.is_end_stream()).map(|()| body.is_end_stream()),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    pipe.reserve_capacity(0);
                    pipe.send_trailers(trailers).map(|()| true)
                }
            },
        };
        // It fails only where the stream has ended, which whoever waits for its response is told.
        if sent.unwrap_or(true) {
            return;
        }
    }
}

/// Waits until the upstream takes a byte; false when it never will.
async fn has_room(pipe: &mut SendStream<Bytes>) -> bool {
    pipe.reserve_capacity(1);
    while pipe.capacity() == 0 {
        if !matches!(poll_fn(|context| pipe.poll_capacity(context)).await, Some(Ok(_))) {
            return false;
        }
    }
    true
}

// === impl Upload ===

impl Upload {
    pub(super) fn new(body: RequestBody, watch: Option<UploadWatch>) -> Self {
        Self { body, watch }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Some(watch) = &self.watch {
            watch.set(polled.is_ready().then(Instant::now));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// === impl UploadWatch ===

impl UploadWatch {
    /// A watch over `body`, unless it is empty.
    pub(super) fn of(body: &RequestBody) -> Option<Self> {
        (!body.is_empty()).then(|| Self(Arc::new(Mutex::new(Some(Instant::now())))))
    }

    /// Since when the upstream is waited for; `None` while it is the client that is.
    pub(super) fn waited_since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, waited_since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = waited_since;
    }
}

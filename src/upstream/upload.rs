//! A request's body on its way out, watched so that the wait for a response can tell whose turn it is.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep_until};

use crate::body::{Fault, RequestBody};

/// The body of a request, as it is sent; the default is none.
#[derive(Default)]
pub(super) struct Upload {
    body: RequestBody,
    watch: Option<UploadWatch>,
}

/// What has become of a body that is being sent. Empty bodies have none: they are gone with the head.
#[derive(Clone)]
pub(super) struct UploadWatch(Arc<Mutex<State>>);

#[derive(Clone, Copy)]
enum State {
    /// The client has the next piece.
    Client,
    /// The upstream has had a piece since then, and there may be more.
    Upstream(Instant),
    /// The upstream has had the last piece since then.
    Sent(Instant),
}

/// Resolves when the upstream alone has been waited for longer than `limit`, counted from `started` or from the last piece of
/// the body that it took.
pub(super) async fn overdue(watch: Option<&UploadWatch>, started: Instant, limit: Duration) {
    let mut deadline = started + limit;
    loop {
        sleep_until(deadline).await;
        deadline = match watch.map(UploadWatch::state) {
            Some(State::Client) => Instant::now() + limit,
            Some(State::Upstream(since) | State::Sent(since)) if since + limit > Instant::now() => since + limit,
            Some(State::Upstream(_) | State::Sent(_)) | None => return,
        };
    }
}

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

    /// The body, if it was not sent.
    pub(super) fn into_inner(self) -> RequestBody {
        self.body
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Some(watch) = &self.watch {
            match &polled {
                Poll::Pending => watch.set(State::Client),
                Poll::Ready(None) => watch.set(State::Sent(Instant::now())),
                // Nobody asks a body of known length for its end.
                Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => watch.set(State::Sent(Instant::now())),
                Poll::Ready(Some(_)) => watch.set(State::Upstream(Instant::now())),
            }
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
        (!body.is_empty()).then(|| Self(Arc::new(Mutex::new(State::Upstream(Instant::now())))))
    }

    /// Since when the upstream is waited for; `None` while it is the client that is.
    pub(super) fn waited_since(&self) -> Option<Instant> {
        match self.state() {
            State::Client => None,
            State::Upstream(since) | State::Sent(since) => Some(since),
        }
    }

    fn state(&self) -> State {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

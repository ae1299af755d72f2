//! Bodies that can be sent again: what one try has taken of a body is kept for the next, up to a bound.
//!
//! Promised: every try begins at the first byte and goes on where the body's source is; a try that was given up can take
//! nothing more. No more than the limit is kept: a body that turns out larger passes once, and cannot be sent again.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{Fault, FaultHandle, Kind, RequestBody};

/// The one body that all tries of a request send.
pub struct Replay(Arc<Mutex<Shared>>);

/// One try's way through it.
pub(super) struct Cursor {
    shared: Arc<Mutex<Shared>>,
    try_number: u32,
    /// Bytes taken so far.
    position: u64,
}

struct Shared {
    source: RequestBody,
    /// What was taken of the source so far, unless that is lost.
    kept: Vec<u8>,
    limit: usize,
    lost: bool,
    /// The try that may take something.
    try_number: u32,
    /// Length of the whole body, where its source says it.
    length: Option<u64>,
    fault: FaultHandle,
}

// === impl Replay ===

impl Replay {
    /// Keeps up to `limit` bytes of `source`.
    pub fn new(source: RequestBody, limit: usize) -> Self {
        let hint = source.size_hint();
        let lost = hint.lower() > limit as u64;
        let fault = source.fault_handle();
        let shared = Shared { source, kept: Vec::new(), limit, lost, try_number: 0, length: hint.exact(), fault };
        Self(Arc::new(Mutex::new(shared)))
    }

    /// The body of the try that is due.
    pub fn body(&self) -> RequestBody {
        let shared = lock(&self.0);
        if shared.length == Some(0) {
            return RequestBody::default();
        }
        RequestBody(Kind::Replayed(Cursor { shared: Arc::clone(&self.0), try_number: shared.try_number, position: 0 }))
    }

    /// Whether nothing is lost of what was taken so far.
    pub fn is_kept(&self) -> bool {
        !lock(&self.0).lost
    }

    /// Ends the last try, and begins another if nothing of the body is lost.
    #[must_use]
    pub fn rewind(&self) -> bool {
        let mut shared = lock(&self.0);
        if shared.lost {
            return false;
        }
        shared.try_number += 1;
        true
    }
}

// === impl Cursor ===

impl Cursor {
    pub(super) fn fault_handle(&self) -> FaultHandle {
        lock(&self.shared).fault.clone()
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let mut shared = lock(&self.shared);
        if shared.try_number != self.try_number {
            return Poll::Ready(Some(Err(Fault::Broken)));
        }
        if let Some(rest) =
            shared.kept.get(usize::try_from(self.position).unwrap_or(usize::MAX)..).filter(|rest| !rest.is_empty())
        {
            let rest = Bytes::copy_from_slice(rest);
            self.position += rest.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(rest))));
        }
        let polled = Pin::new(&mut shared.source).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            shared.keep(frame);
            self.position += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        polled
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let shared = lock(&self.shared);
        self.position >= shared.kept.len() as u64 && shared.source.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let left = lock(&self.shared).length.and_then(|length| length.checked_sub(self.position));
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

// === impl Shared ===

impl Shared {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let fits = frame.data_ref().filter(|data| self.kept.len() + data.len() <= self.limit);
        match fits {
            Some(data) if !self.lost => self.kept.extend_from_slice(data),
            _ => {
                self.lost = true;
                self.kept = Vec::new();
            }
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn sent(replay: &Replay) -> Bytes {
        replay.body().collect().await.unwrap().to_bytes()
    }

    async fn piece(body: &mut RequestBody) -> Result<Bytes, Fault> {
        body.frame().await.unwrap().map(|frame| frame.into_data().unwrap())
    }

    #[tokio::test]
    async fn every_try_sends_the_whole_body() {
        let replay = Replay::new(RequestBody::whole(Bytes::from_static(b"payload")), 7);
        assert_eq!(sent(&replay).await, "payload");
        for _ in 0..3 {
            assert!(replay.rewind());
            assert_eq!(replay.body().size_hint().exact(), Some(7));
            assert_eq!(sent(&replay).await, "payload");
        }
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_passes_once() {
        let replay = Replay::new(RequestBody::whole(Bytes::from_static(b"payload")), 6);
        assert_eq!(sent(&replay).await, "payload");
        assert!(!replay.rewind());
    }

    #[tokio::test]
    async fn a_try_that_was_given_up_takes_nothing_from_the_next() {
        let replay = Replay::new(RequestBody::whole(Bytes::from_static(b"payload")), 7);
        let mut first = replay.body();
        assert!(replay.rewind());
        assert_eq!(piece(&mut first).await, Err(Fault::Broken));
        assert_eq!(sent(&replay).await, "payload");
    }

    #[tokio::test]
    async fn an_empty_body_can_be_sent_again_under_any_limit() {
        let replay = Replay::new(RequestBody::default(), 0);
        assert!(replay.body().is_empty() && replay.rewind() && replay.body().is_empty());
    }
}

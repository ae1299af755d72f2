//! A body on its way from the connection it comes over to whoever reads it, in whichever task that is.
//!
//! Promised: no more than one piece is held, and but for what came together with the head, none before it is asked for. A body
//! whose connection lets go of it before its end is broken.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::Fault;

/// The connection's side. Dropped before the body has [ended](Self::end), it breaks it.
pub struct Inlet(Arc<Mutex<Shared>>);

/// The reader's side.
pub(super) struct Outlet(Arc<Mutex<Shared>>);

struct Shared {
    state: State,
    piece: Option<Frame<Bytes>>,
    /// Bytes that the reader has yet to get, where that is known.
    left: Option<u64>,
    asked: bool,
    reader: Option<Waker>,
    connection: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// All of it is here.
    Ended,
    Broken,
    /// Nobody reads it.
    Unread,
}

/// A body of `length` bytes, where that is known.
pub(super) fn pipe(length: Option<u64>) -> (Inlet, Outlet) {
    let shared = Shared { state: State::Open, piece: None, left: length, asked: false, reader: None, connection: None };
    let shared = Arc::new(Mutex::new(shared));
    (Inlet(Arc::clone(&shared)), Outlet(shared))
}

// === impl Inlet ===

impl Inlet {
    /// Ready when there is something to do: true when a piece is asked for and none is held, false when nobody reads any more.
    pub fn poll_asked(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        let mut shared = lock(&self.0);
        match shared.state {
            State::Unread => Poll::Ready(false),
            _ if shared.asked && shared.piece.is_none() => Poll::Ready(true),
            _ => {
                shared.connection = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Hands a piece over; there must be none that is held.
    pub fn give(&mut self, piece: Frame<Bytes>) {
        let mut shared = lock(&self.0);
        shared.piece = Some(piece);
        shared.wake_reader();
    }

    /// Says that nothing follows.
    pub fn end(self) {
        self.leave(State::Ended);
    }

    /// Whether nobody reads any more.
    pub fn is_unread(&self) -> bool {
        lock(&self.0).state == State::Unread
    }

    fn leave(&self, state: State) {
        let mut shared = lock(&self.0);
        if shared.state == State::Open {
            shared.state = state;
            shared.wake_reader();
        }
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.leave(State::Broken);
    }
}

// === impl Outlet ===

impl Outlet {
    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let mut shared = lock(&self.0);
        shared.asked = true;
        if shared.state == State::Open {
            // There is room for a piece, or will be.
            if let Some(connection) = shared.connection.take() {
                connection.wake();
            }
        }
        if let Some(piece) = shared.piece.take() {
            let length = piece.data_ref().map_or(0, Bytes::len) as u64;
            shared.left = shared.left.map(|left| left.saturating_sub(length));
            return Poll::Ready(Some(Ok(piece)));
        }
        match shared.state {
            State::Ended => Poll::Ready(None),
            State::Broken => Poll::Ready(Some(Err(Fault::Broken))),
            State::Open | State::Unread => {
                shared.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Whether the reader has had all of it, where the length is known; the end of another has to be asked for.
    pub(super) fn is_end_stream(&self) -> bool {
        lock(&self.0).left == Some(0)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        lock(&self.0).left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let mut shared = lock(&self.0);
        shared.piece = None;
        if shared.state == State::Open {
            shared.state = State::Unread;
            if let Some(connection) = shared.connection.take() {
                connection.wake();
            }
        }
    }
}

// === impl Shared ===

impl Shared {
    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Context};

    use super::*;

    fn asked(inlet: &mut Inlet) -> Poll<bool> {
        inlet.poll_asked(&mut Context::from_waker(Waker::noop()))
    }

    fn piece(outlet: &mut Outlet) -> Poll<Option<Result<Bytes, Fault>>> {
        let polled = outlet.poll_frame(&mut Context::from_waker(Waker::noop()));
        polled.map(|frame| frame.map(|frame| frame.map(|frame| frame.into_data().unwrap())))
    }

    #[test]
    fn a_piece_is_asked_for_before_it_is_given_and_one_is_held() {
        let (mut inlet, mut outlet) = pipe(Some(10));
        assert!(asked(&mut inlet).is_pending(), "nobody has asked");
        assert!(piece(&mut outlet).is_pending());
        assert_eq!(asked(&mut inlet), Poll::Ready(true));
        inlet.give(Frame::data("hello".into()));
        assert!(asked(&mut inlet).is_pending(), "one is held");
        assert_eq!(piece(&mut outlet), Poll::Ready(Some(Ok("hello".into()))));
        assert_eq!((outlet.size_hint().exact(), asked(&mut inlet)), (Some(5), Poll::Ready(true)));
        inlet.give(Frame::data("there".into()));
        inlet.end();
        assert!(!outlet.is_end_stream());
        assert_eq!(piece(&mut outlet), Poll::Ready(Some(Ok("there".into()))));
        assert!(outlet.is_end_stream() && piece(&mut outlet) == Poll::Ready(None));
    }

    #[test]
    fn whoever_lets_go_is_missed() {
        let (mut inlet, outlet) = pipe(None);
        drop(outlet);
        assert_eq!(asked(&mut inlet), Poll::Ready(false));
        let (inlet, mut outlet) = pipe(None);
        drop(inlet);
        assert_eq!(piece(&mut outlet), Poll::Ready(Some(Err(Fault::Broken))));
    }

    #[tokio::test]
    async fn both_sides_are_woken_by_what_they_wait_for() {
        let (mut inlet, mut outlet) = pipe(None);
        let reading = tokio::spawn(async move {
            let mut pieces = 0;
            while poll_fn(|context| outlet.poll_frame(context)).await.transpose().unwrap().is_some() {
                pieces += 1;
            }
            pieces
        });
        for _ in 0..3 {
            assert!(poll_fn(|context| inlet.poll_asked(context)).await);
            inlet.give(Frame::data("piece".into()));
        }
        inlet.end();
        assert_eq!(reading.await.unwrap(), 3);
    }
}

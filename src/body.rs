//! Request bodies: streamed, never gathered (but by [`Replay`], within a bound), held to a size and to steady progress.
//!
//! Promised: a body delivers at most its limit of bytes, and ends with a [`Fault`] when the client makes no progress for
//! the idle time, sends too much, or breaks its framing. The fault can be asked for after the body was handed on, because
//! whoever sends it upstream only learns that "the body failed".

use std::{
    mem,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

mod pipe;
mod replay;

pub use pipe::Inlet;
pub use replay::Replay;

use pipe::{Outlet, pipe};

/// What a client did wrong with its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// More bytes than the limit.
    #[error("the body is larger than the limit")]
    TooLarge,
    /// No progress for the idle time.
    #[error("the body made no progress")]
    Stalled,
    /// Bad chunks, or the client went away in the middle.
    #[error("the body is malformed or cut short")]
    Broken,
}

/// The body of a request. The default is an empty one.
#[derive(Default)]
pub struct RequestBody(Kind);

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Streaming(Box<Streaming>),
    Whole(Bytes),
    Replayed(replay::Cursor),
}

struct Streaming {
    source: Source,
    remaining: u64,
    idle: IdleTimer,
    fault: Arc<OnceLock<Fault>>,
}

/// Where a body comes from.
enum Source {
    Http1(Outlet),
    Http2(Incoming),
}

/// Tells, after a body was handed on, what went wrong with it.
#[derive(Clone, Debug, Default)]
pub struct FaultHandle(Option<Arc<OnceLock<Fault>>>);

/// Measures how long nothing has moved. It costs nothing before the first wait: most small bodies arrive with their head.
#[derive(Debug)]
pub struct IdleTimer {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

// === impl RequestBody ===

impl RequestBody {
    /// The body of a stream of HTTP/2, up to `limit` bytes, waiting at most `idle` for each piece.
    pub fn streaming(incoming: Incoming, limit: u64, idle: Duration) -> Self {
        if incoming.is_end_stream() { Self(Kind::Empty) } else { Self::of(Source::Http2(incoming), limit, idle) }
    }

    /// A body of `length` bytes, where that is known, which are given to the inlet as they come; the same otherwise.
    pub fn piped(length: Option<u64>, limit: u64, idle: Duration) -> (Inlet, Self) {
        let (inlet, outlet) = pipe(length);
        (inlet, Self::of(Source::Http1(outlet), limit, idle))
    }

    fn of(source: Source, limit: u64, idle: Duration) -> Self {
        let idle = IdleTimer::new(idle);
        Self(Kind::Streaming(Box::new(Streaming { source, remaining: limit, idle, fault: Arc::default() })))
    }

    /// A body that is there already.
    pub fn whole(bytes: Bytes) -> Self {
        Self(if bytes.is_empty() { Kind::Empty } else { Kind::Whole(bytes) })
    }

    /// Asks, later, what went wrong.
    pub fn fault_handle(&self) -> FaultHandle {
        match &self.0 {
            Kind::Empty | Kind::Whole(_) => FaultHandle(None),
            Kind::Streaming(streaming) => FaultHandle(Some(Arc::clone(&streaming.fault))),
            Kind::Replayed(cursor) => cursor.fault_handle(),
        }
    }

    /// Whether there is nothing to send, so that a request may be sent twice.
    pub fn is_empty(&self) -> bool {
        matches!(self.0, Kind::Empty)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Streaming(streaming) => streaming.poll(context),
            Kind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(mem::take(bytes))))),
            Kind::Replayed(cursor) => cursor.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Streaming(streaming) => streaming.source.is_end_stream(),
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Replayed(cursor) => cursor.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Streaming(streaming) => streaming.source.size_hint(),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Replayed(cursor) => cursor.size_hint(),
        }
    }
}

// === impl Streaming ===

impl Streaming {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        // A body that has failed stays failed: what follows a fault must not pass for the rest of the body.
        if let Some(fault) = self.fault.get() {
            return Poll::Ready(Some(Err(*fault)));
        }
        let frame = match self.source.poll(context) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(fault))) => return self.fail(fault),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                return match self.idle.poll(context) {
                    Poll::Ready(()) => self.fail(Fault::Stalled),
                    Poll::Pending => Poll::Pending,
                };
            }
        };
        self.idle.moved();
        if let Some(data) = frame.data_ref() {
            match self.remaining.checked_sub(data.len() as u64) {
                Some(remaining) => self.remaining = remaining,
                None => return self.fail(Fault::TooLarge),
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn fail(&mut self, fault: Fault) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let fault = *self.fault.get_or_init(|| fault);
        Poll::Ready(Some(Err(fault)))
    }
}

// === impl Source ===

impl Source {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match self {
            Self::Http1(outlet) => outlet.poll_frame(context),
            Self::Http2(incoming) => Pin::new(incoming).poll_frame(context).map_err(|_| Fault::Broken),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(outlet) => outlet.is_end_stream(),
            Self::Http2(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(outlet) => outlet.size_hint(),
            Self::Http2(incoming) => incoming.size_hint(),
        }
    }
}

// === impl FaultHandle ===

impl FaultHandle {
    /// What went wrong with the body so far.
    pub fn get(&self) -> Option<Fault> {
        self.0.as_ref()?.get().copied()
    }
}

// === impl IdleTimer ===

impl IdleTimer {
    /// A timer that fires when nothing has moved for `limit`.
    pub fn new(limit: Duration) -> Self {
        Self { limit, sleep: None, waiting: false }
    }

    /// Something has moved: the next wait counts from its own beginning.
    pub fn moved(&mut self) {
        self.waiting = false;
    }

    /// To be polled when nothing moves; ready when that has lasted too long.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(limit)));
        if !self.waiting {
            self.waiting = true;
            sleep.as_mut().reset(Instant::now() + limit);
        }
        sleep.as_mut().poll(context)
    }
}

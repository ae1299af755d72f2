//! What comes of a response's body, by HTTP/1 or HTTP/2.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http_body::{Body, Frame, SizeHint};
use hyper::{Response, body, header::CONTENT_LENGTH};

/// What an upstream did wrong with its body. The client must see its connection break, not a short body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResponseFault {
    /// It ended before its end, or in bad chunks.
    #[error("the response broke off")]
    Truncated,
    /// It made no progress for the idle time.
    #[error("the response made no progress")]
    Stalled,
}

/// What comes from the upstream.
pub(super) enum Incoming {
    Http1(body::Incoming),
    Http2(Streamed),
}

/// A body that comes over a stream of HTTP/2.
pub(super) struct Streamed {
    stream: RecvStream,
    /// Bytes that were announced and have not come.
    left: Option<u64>,
}

// === impl Incoming ===

impl Incoming {
    /// The body of a response by HTTP/2.
    pub(super) fn of_stream(response: Response<RecvStream>) -> Response<Self> {
        let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        response.map(|stream| {
            let left = if stream.is_end_stream() { Some(0) } else { length };
            Self::Http2(Streamed { stream, left })
        })
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = ResponseFault;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseFault>>> {
        match &mut *self {
            Self::Http1(incoming) => Pin::new(incoming).poll_frame(context).map_err(|_| ResponseFault::Truncated),
            Self::Http2(streamed) => streamed.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::Http2(streamed) => streamed.stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(incoming) => incoming.size_hint(),
            Self::Http2(streamed) => streamed.left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

// === impl Streamed ===

impl Streamed {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseFault>>> {
        match ready!(self.stream.poll_data(context)) {
            Some(Ok(data)) => {
                // The upstream may send as much again. It fails only where the stream has ended.
                let _ = self.stream.flow_control().release_capacity(data.len());
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => Poll::Ready(self.ended(&error)),
            None => match ready!(self.stream.poll_trailers(context)) {
                Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
                Err(error) => Poll::Ready(self.ended(&error)),
            },
        }
    }

    /// An upstream that wants no more of the request resets a stream whose response is whole (RFC 9113, section 8.1).
    fn ended(&self, error: &h2::Error) -> Option<Result<Frame<Bytes>, ResponseFault>> {
        let whole = error.is_remote() && error.reason() == Some(Reason::NO_ERROR) && self.left.is_none_or(|left| left == 0);
        (!whole).then_some(Err(ResponseFault::Truncated))
    }
}

//! The body of a response that comes over a stream of HTTP/2.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http_body::{Frame, SizeHint};
use hyper::{Response, header::CONTENT_LENGTH};

use crate::{
    upstream::failure::ResponseFault,
    wire::{Fault, length},
};

/// What comes over a stream after the head.
pub(super) struct Streamed {
    stream: RecvStream,
    /// Bytes that were announced and have not come.
    left: Option<u64>,
}

// === impl Streamed ===

impl Streamed {
    /// Takes the body from a response, unless two readers could read two lengths of it; h2 refuses transfer codings.
    pub(super) fn of(response: Response<RecvStream>) -> Result<(Response<()>, Self), Fault> {
        let mut lengths = response.headers().get_all(CONTENT_LENGTH).iter();
        let length = match (lengths.next(), lengths.next()) {
            (None, _) => None,
            (Some(only), None) => Some(length(only.as_bytes())?),
            (Some(_), Some(_)) => return Err(Fault::Framing),
        };
        let (head, stream) = response.into_parts();
        let left = if stream.is_end_stream() { Some(0) } else { length };
        Ok((Response::from_parts(head, ()), Self { stream, left }))
    }

    /// The next piece.
    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseFault>>> {
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

    /// Whether nothing more comes.
    pub(super) fn is_over(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// How much is still to come.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// An upstream that wants no more of the request resets a stream whose response is whole (RFC 9113, section 8.1).
    fn ended(&self, error: &h2::Error) -> Option<Result<Frame<Bytes>, ResponseFault>> {
        let whole = error.is_remote() && error.reason() == Some(Reason::NO_ERROR) && self.left.is_none_or(|left| left == 0);
        (!whole).then_some(Err(ResponseFault::Truncated))
    }
}

//! A body, by the framing that its head announced (RFC 9112, section 6.3).

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use hyper::{Method, StatusCode};

use super::{Fault, chunks::ChunkScanner, response::Framing};

/// What of a body is still to come.
#[derive(Debug)]
pub enum Incoming {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunks(Box<ChunkScanner>),
    /// Everything up to the end of the connection.
    Rest,
    /// Nothing.
    Ended,
}

// === impl Incoming ===

impl Incoming {
    /// What follows the head of an answer to a request with `method`.
    pub fn of_response(method: &Method, status: StatusCode, framing: Framing) -> Self {
        let bodiless = [StatusCode::SWITCHING_PROTOCOLS, StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
        match framing {
            _ if method == Method::HEAD || bodiless.contains(&status) => Self::Ended,
            Framing::Length(0) => Self::Ended,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunks => Self::Chunks(Box::new(ChunkScanner::of_response())),
            Framing::Rest => Self::Rest,
        }
    }

    /// Takes a piece of the body from what was received; none where more has to come, or the body is over.
    pub fn take(&mut self, received: &mut BytesMut) -> Result<Option<Frame<Bytes>>, Fault> {
        match self {
            Self::Ended => Ok(None),
            _ if received.is_empty() => Ok(None),
            Self::Rest => Ok(Some(Frame::data(received.split().freeze()))),
            Self::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(received.len());
                *left -= length as u64;
                if *left == 0 {
                    *self = Self::Ended;
                }
                Ok(Some(Frame::data(received.split_to(length).freeze())))
            }
            Self::Chunks(chunks) => {
                while !chunks.is_over() && !received.is_empty() {
                    let is_data = chunks.is_in_data();
                    let taken = received.split_to(chunks.step(received)?);
                    if is_data {
                        return Ok(Some(Frame::data(taken.freeze())));
                    }
                }
                let trailers = chunks.take_trailers().filter(|_| chunks.is_over());
                if chunks.is_over() {
                    *self = Self::Ended;
                }
                Ok(trailers.map(Frame::trailers))
            }
        }
    }

    /// Whether nothing more comes.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// Whether the end of the connection is the end of the body.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self, Self::Rest)
    }

    /// How much is still to come.
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Chunks(_) | Self::Rest => SizeHint::default(),
            Self::Ended => SizeHint::with_exact(0),
        }
    }
}

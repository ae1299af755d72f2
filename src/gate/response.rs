//! What goes back to the client: an answer of our own, or the upstream's, streamed.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use prometheus_client::metrics::gauge::Gauge;

use super::in_flight::Place;
use crate::{
    upstream,
    wire::fields::{BringsFields, FieldLines},
};

/// A response of the gate.
pub type Response = hyper::Response<ResponseBody>;

/// Its body. Holds on to its [`InFlight`] and its [`Place`] until it is sent or dropped, so that a streamed response counts to its end.
pub struct ResponseBody {
    kind: Kind,
    fields: FieldLines,
    in_flight: Option<InFlight>,
    follower: Option<Box<dyn Follower>>,
    place: Option<Place>,
}

enum Kind {
    Own(Full<Bytes>),
    Upstream(upstream::ResponseBody),
}

/// Hears how a body goes out; dropped when that is over.
pub trait Follower: Send + Sync {
    /// So many more bytes went out.
    fn sent(&mut self, bytes: usize);
}

/// Counts one request in flight, or one socket that is open, for as long as it lives.
pub struct InFlight(Gauge);

// === impl ResponseBody ===

impl ResponseBody {
    /// An answer of our own.
    pub fn own(bytes: impl Into<Bytes>) -> Self {
        Self::new(Kind::Own(Full::new(bytes.into())), FieldLines::default())
    }

    /// The same, with fields of its head.
    pub fn own_with(fields: FieldLines, bytes: impl Into<Bytes>) -> Self {
        Self::new(Kind::Own(Full::new(bytes.into())), fields)
    }

    /// The upstream's answer, with fields that follow those of its head.
    pub fn upstream(body: upstream::ResponseBody, fields: FieldLines) -> Self {
        Self::new(Kind::Upstream(body), fields)
    }

    fn new(kind: Kind, fields: FieldLines) -> Self {
        Self { kind, fields, in_flight: None, place: None, follower: None }
    }

    /// The fields of its head that follow those of the header map.
    pub fn fields(&mut self) -> &mut FieldLines {
        &mut self.fields
    }

    /// Whether the answer is our own.
    pub fn is_own(&self) -> bool {
        matches!(self.kind, Kind::Own(_))
    }

    /// Counts the request until this body is done with, and until then has `follower` hear of it.
    pub fn hold(&mut self, in_flight: InFlight, follower: Option<Box<dyn Follower>>) {
        self.in_flight = Some(in_flight);
        self.follower = follower;
    }

    /// Keeps the request's place until this body is done with.
    pub fn keep(&mut self, place: Place) {
        self.place = Some(place);
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = upstream::ResponseFault;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = match &mut self.kind {
            Kind::Own(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
            Kind::Upstream(body) => Pin::new(body).poll_frame(context),
        };
        if let (Some(follower), Poll::Ready(Some(Ok(frame)))) = (&mut self.follower, &polled) {
            follower.sent(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Own(body) => body.is_end_stream(),
            Kind::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Own(body) => body.size_hint(),
            Kind::Upstream(body) => body.size_hint(),
        }
    }
}

impl BringsFields for ResponseBody {
    fn take_fields(&mut self) -> FieldLines {
        std::mem::take(&mut self.fields)
    }
}

// === impl InFlight ===

impl InFlight {
    /// Counts up, until dropped.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

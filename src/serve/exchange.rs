//! One request and its response, between a connection and the handler.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::{Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Caps, Handler, ListenerMetrics, Permit, Refused, Tell, handler::BoxError, panics::catch_panic, refusal};
use crate::{
    body::RequestBody,
    code::Code,
    metrics::CodeLabels,
    peer::Peer,
    shutdown::Shutdown,
    wire::fields::{BringsFields, FieldLines},
};

/// What the exchanges of all connections share.
pub(super) struct Exchanges<H> {
    pub(super) handler: H,
    pub(super) caps: Caps,
    pub(super) metrics: ListenerMetrics,
    pub(super) permit: Option<Permit>,
    pub(super) tell: Option<Tell>,
    /// The places of requests in service.
    pub(super) in_flight: Arc<Semaphore>,
    pub(super) shutdown: Shutdown,
}

/// Follows a response on its way to its connection; dropped when that has taken all of it, or given up on it.
pub(super) trait Watch {
    /// The next piece is asked for: the client has room for the last one.
    fn asked(&mut self) {}
    /// A piece was given.
    fn gave(&mut self) {}
}

/// A response body that is watched, and a request in service until it ends.
pub(super) struct ServedBody<B, W> {
    body: Either<B, Full<Bytes>>,
    watch: W,
    _in_flight: Option<OwnedSemaphorePermit>,
}

// === impl Exchanges ===

impl<H: Handler> Exchanges<H> {
    /// Answers one request.
    pub(super) async fn respond<W>(
        &self,
        peer: Peer,
        request: Request<RequestBody>,
        watch: W,
    ) -> Response<ServedBody<H::Body, W>> {
        let in_flight = Arc::clone(&self.in_flight).try_acquire_owned().ok();
        let is_too_large = request.body().size_hint().exact().is_some_and(|length| length > self.caps.max_body_bytes);
        let response = match in_flight {
            None => self.refuse(Code::Overloaded, &peer, &request).map(Either::Right),
            Some(_) if is_too_large => self.refuse(Code::BodyTooLarge, &peer, &request).map(Either::Right),
            Some(_) => match self.handle(peer, request).await {
                Some(response) => response.map(Either::Left),
                // Whoever panicked has told of its request.
                None => self.answer_alone(Code::InternalError, &refusal::request_id()).map(Either::Right),
            },
        };
        response.map(|body| ServedBody { body, watch, _in_flight: in_flight })
    }

    /// The handler's answer; `None` where it panicked.
    async fn handle(&self, peer: Peer, request: Request<RequestBody>) -> Option<Response<H::Body>> {
        // The call itself may panic too, so it is made inside the future.
        let handled = async { (self.handler)(peer, request).await };
        catch_panic(handled, self.metrics.panics.clone()).await
    }
}

impl<H> Exchanges<H> {
    /// Refuses a head that cannot be read or did not come: the answer as it goes over the wire.
    pub(super) fn refuse_head(&self, code: Code, peer: &Peer) -> String {
        self.count(code);
        let request_id = refusal::request_id();
        self.tell(Refused { peer, request: None, code, request_id: &request_id });
        refusal::message(code, &request_id)
    }

    /// Refuses a request whose head was read, so that a page it came from may be known.
    fn refuse(&self, code: Code, peer: &Peer, request: &Request<RequestBody>) -> Response<Full<Bytes>> {
        let request_id = refusal::request_id();
        self.tell(Refused { peer, request: Some(request), code, request_id: &request_id });
        let mut response = self.answer_alone(code, &request_id);
        if let Some(permit) = &self.permit {
            permit(request, response.headers_mut());
        }
        response
    }

    fn answer_alone(&self, code: Code, request_id: &str) -> Response<Full<Bytes>> {
        self.count(code);
        refusal::response(code, request_id)
    }

    fn tell(&self, refused: Refused<'_>) {
        if let Some(tell) = &self.tell {
            tell(&refused);
        }
    }

    fn count(&self, code: Code) {
        self.metrics.rejections.get_or_create(&CodeLabels { code: code.as_str() }).inc();
    }
}

// === impl ServedBody ===

impl<B, W> Body for ServedBody<B, W>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    W: Watch + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.watch.asked();
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(Some(Ok(_)))) {
            self.watch.gave();
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

impl<B: BringsFields, W> BringsFields for ServedBody<B, W> {
    fn take_fields(&mut self) -> FieldLines {
        self.body.take_fields()
    }
}

// === impl Watch ===

/// A connection that carries one response at a time is blocked where its response is, and knows it.
impl Watch for () {}

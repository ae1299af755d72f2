//! One request and its response, between hyper and the handler.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::Incoming,
    header::{CONNECTION, HeaderValue, UPGRADE},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Caps, Handler, ListenerMetrics, Permit, Refused, Tell,
    handler::BoxError,
    panics::catch_panic,
    progress::{Exchange, Progress},
    refusal,
};
use crate::{body::RequestBody, code::Code, metrics::CodeLabels, peer::Peer, shutdown::Shutdown, stream::turn};

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

/// Follows a response on its way to hyper; dropped when hyper has taken all of it, or given up on it.
pub(super) trait Watch {
    /// hyper asks for the next piece: the client has room for the last one.
    fn asked(&mut self) {}
    /// hyper was given a piece.
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
    /// Answers one request of an HTTP/1 connection. The exchange begins with the call, not with the first poll: hyper makes
    /// the call as soon as it has a head.
    pub(super) fn answer(
        self: Arc<Self>,
        peer: Peer,
        progress: &Progress,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<ServedBody<H::Body, Exchange>>, Infallible>> {
        let has_body = request.body().size_hint().exact() != Some(0);
        if has_body {
            // A request may be answered by switching protocols before its body is through, and the rest of it would then
            // be the first words of the tunnel. Nobody has to switch (RFC 9110, section 7.8).
            request.headers_mut().remove(UPGRADE);
        }
        let exchange = progress.begin(has_body);
        async move {
            let connect = request.method() == Method::CONNECT;
            let ends = connect || request.method() == Method::TRACE;
            let mut response = self.respond(peer, request, exchange).await;
            turn().await;
            let status = response.status();
            if status == StatusCode::SWITCHING_PROTOCOLS || connect && status.is_success() {
                response.body().watch.upgrade();
            } else if ends || self.shutdown.is_leaving() {
                // Whoever sends CONNECT or TRACE to a gate takes it for something else: what follows is not to be trusted.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            // The version is that of this connection (RFC 9110, section 2.5); hyper lowers it for a client that needs that. In
            // the words of an HTTP/1.0 upstream, the end of a body would be the connection's end, and could not be told from
            // a break.
            *response.version_mut() = Version::HTTP_11;
            Ok(response)
        }
    }

    /// Answers one request.
    pub(super) async fn respond<W>(
        &self,
        peer: Peer,
        request: Request<Incoming>,
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
    async fn handle(&self, peer: Peer, request: Request<Incoming>) -> Option<Response<H::Body>> {
        let caps = &self.caps;
        let request = request.map(|body| RequestBody::streaming(body, caps.max_body_bytes, caps.body_idle_timeout));
        // The call itself may panic too, so it is made inside the future.
        let handled = async { (self.handler)(peer, request).await };
        catch_panic(handled, self.metrics.panics.clone()).await
    }
}

impl<H> Exchanges<H> {
    /// Refuses a head that hyper could not read or did not get: the answer as it goes over the wire.
    pub(super) fn refuse_head(&self, code: Code, peer: &Peer) -> String {
        self.count(code);
        let request_id = refusal::request_id();
        self.tell(Refused { peer, request: None, code, request_id: &request_id });
        refusal::message(code, &request_id)
    }

    /// Refuses a request whose head was read, so that a page it came from may be known.
    fn refuse(&self, code: Code, peer: &Peer, request: &Request<Incoming>) -> Response<Full<Bytes>> {
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

// === impl Watch ===

/// A connection that carries one response at a time is blocked where its response is, and its socket says so.
impl Watch for Exchange {}

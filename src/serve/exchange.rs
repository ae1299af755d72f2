//! One request and its response, between hyper and the handler.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming};

use super::{
    BoxError, Caps, ListenerMetrics,
    panics::catch_panic,
    progress::{Exchange, Progress},
    refusal::Refusal,
};
use crate::{body::RequestBody, metrics::CodeLabels};

/// What the exchanges of all connections share.
pub(super) struct Exchanges<H> {
    pub(super) handler: H,
    pub(super) caps: Caps,
    pub(super) metrics: ListenerMetrics,
}

/// A response body that says when hyper has taken all of it, or given up on it.
pub(super) struct ServedBody<B> {
    body: Either<B, Full<Bytes>>,
    _exchange: Exchange,
}

// === impl Exchanges ===

impl<H, F, B> Exchanges<H>
where
    H: Fn(SocketAddr, Request<RequestBody>) -> F,
    F: Future<Output = Response<B>>,
{
    /// Answers one request. The exchange begins with the call, not with the first poll: hyper makes the call as soon as it
    /// has a head.
    pub(super) fn answer(
        self: Arc<Self>,
        peer: SocketAddr,
        progress: &Progress,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<ServedBody<B>>, Infallible>> {
        let exchange = progress.begin(request.body().size_hint().exact() != Some(0));
        async move {
            let connect = request.method() == Method::CONNECT;
            let response = match self.handle(peer, request).await {
                Ok(response) => response.map(Either::Left),
                Err(refusal) => self.refuse(refusal).map(Either::Right),
            };
            let status = response.status();
            if status == StatusCode::SWITCHING_PROTOCOLS || connect && status.is_success() {
                exchange.upgrade();
            }
            Ok(response.map(|body| ServedBody { body, _exchange: exchange }))
        }
    }

    async fn handle(&self, peer: SocketAddr, request: Request<Incoming>) -> Result<Response<B>, Refusal> {
        let caps = &self.caps;
        if request.body().size_hint().exact().is_some_and(|length| length > caps.max_body_bytes) {
            return Err(Refusal::BodyTooLarge);
        }
        let request = request.map(|body| RequestBody::streaming(body, caps.max_body_bytes, caps.body_idle_timeout));
        // The call itself may panic too, so it is made inside the future.
        let handled = async { (self.handler)(peer, request).await };
        catch_panic(handled, self.metrics.panics.clone()).await.ok_or(Refusal::Panicked)
    }
}

impl<H> Exchanges<H> {
    /// Refuses a head that hyper could not read or did not get: the answer as it goes over the wire.
    pub(super) fn refuse_head(&self, refusal: Refusal) -> String {
        self.count(refusal);
        refusal.message()
    }

    fn refuse(&self, refusal: Refusal) -> Response<Full<Bytes>> {
        self.count(refusal);
        refusal.response()
    }

    fn count(&self, refusal: Refusal) {
        self.metrics.rejections.get_or_create(&CodeLabels { code: refusal.code() }).inc();
    }
}

// === impl ServedBody ===

impl<B> Body for ServedBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

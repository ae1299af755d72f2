//! The client side: sends requests to one upstream over kept connections, and streams both bodies.
//!
//! Promised: path, query and body go out as they came in; every wait is bounded; a response that breaks off or stalls is an
//! error, never a short body. An [`Upstream`] sends a request twice only if its kept connection had died before a byte of an
//! answer, and then only if it was never written, or is idempotent and without a body (RFC 9110, section 9.2.2); or if the
//! upstream says that it has not looked at it, which HTTP/2 can say (RFC 9113, section 8.7). The second time goes over a
//! fresh connection, or another stream. A [`Delivery`] sends one again as its route asks for.
//! Not promised: anything about header fields beyond `Host` and message framing. Hop-by-hop fields are the caller's.
//!
//! The way of a request: `delivery` gives it credentials and decides whether it is sent again; `pool` leases a connection
//! (`http1`) or a stream of one (`multiplexed`), or `connect`s, by `tls` where asked; `spare` keeps what a second try needs,
//! `upload` watches the body go out, and `response` hands the connection back when the response has ended.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use hyper::{
    Request, Response, StatusCode,
    header::{HeaderValue, UPGRADE},
};
use prometheus_client::metrics::{counter::Counter, histogram::Histogram};
use tokio::time::Instant;

use crate::{
    body::{Fault, RequestBody},
    config,
    metrics::{Metrics, UpstreamLabels, UpstreamResultLabels},
    stream::turn,
    tls::TlsSetupError,
    wire::fields::FieldLines,
};

mod connect;
mod delivery;
mod failure;
mod http1;
mod multiplexed;
mod oauth;
mod open;
mod pool;
mod quiet;
mod response;
pub mod retry;
mod spare;
mod stopwatch;
mod tls;
mod upload;

pub use connect::ConnectError;
pub use delivery::{Delivery, DeliveryError, Identity};
pub use failure::ResponseFault;
pub use oauth::Credentials;
pub use response::ResponseBody;
pub use retry::retry_after;
pub use stopwatch::{Attempted, Observer};

use connect::Connector;
use failure::{Failure, Fate};
use pool::{Lease, Pool};
use spare::Spare;
use stopwatch::Stopwatch;
use upload::UploadWatch;

/// A server, and the connections to it.
pub struct Upstream {
    host: HeaderValue,
    response_timeout: Duration,
    body_idle: Duration,
    pool: Arc<Pool>,
    counts: Counts,
}

/// Why there is no response. The status is what a client is to be told.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection could be made: 502.
    #[error("cannot connect: {0}")]
    Connect(#[from] ConnectError),
    /// No connection was made within the connect time-out: 504.
    #[error("connecting took too long")]
    ConnectTimeout,
    /// All connections were in use for the whole connect time-out: 503.
    #[error("all connections are in use")]
    Busy,
    /// The response head did not come in time: 504.
    #[error("the response head took too long")]
    ResponseTimeout,
    /// It says that it has not looked at the request, twice or beyond what was kept of it: 502.
    #[error("the request was turned away unprocessed")]
    Refused,
    /// What came is no response, or the connection ended before its head did: 502.
    #[error("no proper response: {0}")]
    Protocol(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The client's own body failed, which is no fault of the upstream: 413 too large, 408 stalled, 400 broken.
    #[error("the request failed: {0}")]
    Request(Fault),
}

/// Why an upstream cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamSetupError {
    /// The authorities cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
    /// The host can neither be asked for by name nor by address.
    #[error("`{0}` is no host that a certificate could name")]
    Host(String),
}

/// Handles for what is counted at every request.
struct Counts {
    answered: Counter,
    connect: Counter,
    connect_timeout: Counter,
    busy: Counter,
    response_timeout: Counter,
    protocol: Counter,
    refused: Counter,
    request: Counter,
    resends: Counter,
    response: Histogram,
}

// === impl Upstream ===

impl Upstream {
    /// Prepares the upstream `name`; connections are made when requests need them. Bodies may rest for `body_idle`.
    /// Reads the file of certificate authorities, if one is configured.
    pub fn new(
        name: &str,
        config: &config::Upstream,
        body_idle: Duration,
        metrics: &Metrics,
    ) -> Result<Self, UpstreamSetupError> {
        let authority = config.url.authority();
        let labels = UpstreamLabels { upstream: name.to_owned() };
        let open = metrics.upstream_connections.get_or_create_owned(&labels);
        let connector = Connector::new(config)?;
        Ok(Self {
            host: HeaderValue::try_from(&authority).map_err(|_| UpstreamSetupError::Host(authority))?,
            response_timeout: config.response_timeout,
            body_idle,
            pool: Arc::new(Pool::new(connector, config, open)),
            counts: Counts::new(metrics, &labels),
        })
    }

    /// Sends a request and waits for the response head.
    ///
    /// Of the URI only path and query are used; `Host` becomes the upstream's. The response time-out counts while the
    /// upstream is what is waited for: from the last piece of the request that it took, and not while the client's body is
    /// awaited. A response may come before the body is through; the rest of the body is then sent while the response
    /// lasts, and the connection is not used again if that is not long enough.
    ///
    /// After a 101 response, [`ResponseBody::take_tunnel`] gives the upstream's side of the tunnel.
    pub async fn send(&self, mut request: Request<RequestBody>) -> Result<Response<ResponseBody>, UpstreamError> {
        self.send_observed(&mut request, &FieldLines::default(), None).await
    }

    /// The same, of a request whose head is left where it is, and beside which `fields` go. `observer` learns how long the
    /// upstream takes. A connection that is not made in time counts as an answer that is not.
    pub async fn send_observed(
        &self,
        request: &mut Request<RequestBody>,
        fields: &FieldLines,
        observer: Option<&dyn Observer>,
    ) -> Result<Response<ResponseBody>, UpstreamError> {
        let result = self.exchange(request, fields, observer).await;
        self.counts.of(&result).inc();
        if let (Some(observer), Err(UpstreamError::ConnectTimeout)) = (observer, &result) {
            observer.observe(Attempted::TimedOut, self.response_timeout);
        }
        result
    }

    async fn exchange(
        &self,
        request: &mut Request<RequestBody>,
        fields: &FieldLines,
        observer: Option<&dyn Observer>,
    ) -> Result<Response<ResponseBody>, UpstreamError> {
        let switches = request.headers().contains_key(UPGRADE);
        // Before a connection is found silent, so that nothing comes between that and the request, and the runtime can listen.
        turn().await;
        let mut lease = self.pool.lease(switches).await?;
        let spare = Spare::of(request, &lease);
        let fault = request.body().fault_handle();
        let mut answer = self.attempt(&mut lease, request, fields, observer).await;
        if let Err(failure) = &answer
            && fault.get().is_none()
            && spare.restore(request, failure.fate, lease.is_reused())
        {
            self.counts.resends.inc();
            drop(lease);
            lease = Box::pin(self.pool.fresh(switches)).await?;
            answer = self.attempt(&mut lease, request, fields, observer).await;
        }
        let response = answer.map_err(|failure| fault.get().map_or_else(|| failure.into(), UpstreamError::Request))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response.map(|()| ResponseBody::new(lease, self.body_idle)));
        }
        if !switches {
            return Err(UpstreamError::Protocol("an upgrade nobody asked for".into()));
        }
        Ok(response.map(|()| ResponseBody::of_upgrade(lease, self.body_idle)))
    }

    /// Sends the request once, and waits for the response head.
    async fn attempt(
        &self,
        lease: &mut Lease,
        request: &mut Request<RequestBody>,
        fields: &FieldLines,
        observer: Option<&dyn Observer>,
    ) -> Result<Response<()>, Failure> {
        let watch = UploadWatch::of(request.body());
        lease.begin(request, fields, &self.host, watch.clone())?;
        let stopwatch = Stopwatch::start(observer, watch);
        let answered = poll_fn(|context| match lease.poll_response(context) {
            Poll::Ready(answered) => Poll::Ready(Some(answered)),
            Poll::Pending => {
                let deadline = stopwatch.waited_since().unwrap_or_else(Instant::now) + self.response_timeout;
                lease.alarm().poll(deadline, context).map(|()| None)
            }
        });
        match answered.await {
            Some(Ok(response)) => {
                self.counts.response.observe(stopwatch.elapsed().as_secs_f64());
                stopwatch.answered(response.status());
                Ok(response)
            }
            Some(Err(failure)) => {
                stopwatch.discard();
                Err(failure)
            }
            None => {
                stopwatch.timed_out(self.response_timeout);
                Err(Failure { fate: Fate::Overdue, cause: "no answer in time".into() })
            }
        }
    }
}

// === impl Counts ===

impl Counts {
    fn new(metrics: &Metrics, labels: &UpstreamLabels) -> Self {
        let ended = |result| {
            let labels = UpstreamResultLabels { upstream: labels.upstream.clone(), result };
            metrics.upstream_requests.get_or_create_owned(&labels)
        };
        Self {
            answered: ended("answered"),
            connect: ended("connect"),
            connect_timeout: ended("connect_timeout"),
            busy: ended("busy"),
            response_timeout: ended("response_timeout"),
            protocol: ended("protocol"),
            refused: ended("refused"),
            request: ended("request"),
            resends: metrics.upstream_resends.get_or_create_owned(labels),
            response: metrics.upstream_response.get_or_create_owned(labels),
        }
    }

    fn of(&self, result: &Result<Response<ResponseBody>, UpstreamError>) -> &Counter {
        match result {
            Ok(_) => &self.answered,
            Err(UpstreamError::Connect(_)) => &self.connect,
            Err(UpstreamError::ConnectTimeout) => &self.connect_timeout,
            Err(UpstreamError::Busy) => &self.busy,
            Err(UpstreamError::ResponseTimeout) => &self.response_timeout,
            Err(UpstreamError::Protocol(_)) => &self.protocol,
            Err(UpstreamError::Refused) => &self.refused,
            Err(UpstreamError::Request(_)) => &self.request,
        }
    }
}

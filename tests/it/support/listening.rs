//! A listener of our own on a free port, with a handler of the test's.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use cxgate::{
    body::RequestBody,
    metrics::Metrics,
    serve::{Caps, Listener, ListenerMetrics, serve},
    shutdown::Shutdown,
    wire::fields::BringsFields,
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::{Request, Response};

/// A running listener; its connections end with it.
pub struct Listening {
    pub address: SocketAddr,
    pub metrics: Arc<Metrics>,
    pub shutdown: Shutdown,
}

/// A body of any kind, which brings no fields of its head.
struct Plain<B>(B);

/// Caps that no well-behaved test meets.
pub fn wide() -> Caps {
    Caps {
        max_connections: 100,
        max_requests_in_flight: 1000,
        header_timeout: Duration::from_secs(30),
        body_idle_timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(30),
        max_header_bytes: 32 * 1024,
        max_body_bytes: 64 * 1024 * 1024,
        proxies: Vec::new(),
    }
}

/// A 200 with a body of text.
pub fn text(body: impl Into<String>) -> Response<Full<Bytes>> {
    Response::new(Full::from(body.into()))
}

// === impl Listening ===

impl Listening {
    /// Answers requests by HTTP/1.
    pub fn start<H, F, B>(caps: Caps, handler: H) -> Self
    where
        H: Fn(Request<RequestBody>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + Send + 'static,
    {
        Self::speaking(false, caps, handler)
    }

    /// Answers requests by HTTP/1 or HTTP/2, as the client begins.
    pub fn http2<H, F, B>(caps: Caps, handler: H) -> Self
    where
        H: Fn(Request<RequestBody>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + Send + 'static,
    {
        Self::speaking(true, caps, handler)
    }

    fn speaking<H, F, B>(h2c: bool, caps: Caps, handler: H) -> Self
    where
        H: Fn(Request<RequestBody>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + Send + 'static,
    {
        let metrics = Arc::new(Metrics::default());
        let shutdown = Shutdown::default();
        let listener = Listener::bind("127.0.0.1:0".parse().expect("an address"), false).expect("a free port");
        let listener = listener.speaking(None, h2c);
        let address = listener.local_address().expect("a bound socket");
        let counts = ListenerMetrics::new(&metrics, "proxy");
        let handle = move |_, request| {
            let answering = handler(request);
            async move { answering.await.map(Plain) }
        };
        shutdown.spawn(serve(listener, caps, handle, counts, shutdown.clone()));
        Self { address, metrics, shutdown }
    }

    /// Answers every request with its path.
    pub fn echoing_path(caps: Caps) -> Self {
        Self::start(caps, |request| async move { text(request.uri().path()) })
    }

    /// The value of a metric's line, as exported.
    pub fn metric(&self, line: &str) -> u64 {
        metric(&self.metrics, line)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

/// The value on the exported line that begins with `line`; 0 where there is none.
pub fn metric(metrics: &Metrics, line: &str) -> u64 {
    let exported = metrics.export();
    let value = exported.lines().find_map(|exported| exported.strip_prefix(line)?.strip_prefix(' '));
    value.map_or(0, |value| value.trim().parse().expect("a number"))
}

// === impl Plain ===

impl<B: Body + Unpin> Body for Plain<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.0).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl<B> BringsFields for Plain<B> {}

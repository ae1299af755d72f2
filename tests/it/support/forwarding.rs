//! An upstream as the tests use it: by itself, or behind a listener whose handler forwards every request.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use cxgate::{
    body::RequestBody,
    config::{self, Origin},
    metrics::Metrics,
    serve::Caps,
    stream::Switching,
    upstream::{ResponseBody, Upstream, UpstreamError},
};
use http_body_util::{BodyExt, Either, Full};
use hyper::{Request, Response, header::TRANSFER_ENCODING};

use super::listening::{Listening, metric};

/// The client side under test with what it counts.
#[derive(Clone)]
pub struct Forwarding {
    pub upstream: Arc<Upstream>,
    metrics: Arc<Metrics>,
}

/// A configuration that no well-behaved test meets the bounds of.
pub fn to(address: SocketAddr) -> config::Upstream {
    config::Upstream {
        url: Origin { tls: false, host: address.ip().to_string(), port: address.port() },
        connect_timeout: Duration::from_secs(20),
        response_timeout: Duration::from_secs(20),
        idle_timeout: Duration::from_secs(20),
        max_connections: 100,
        http2: config::Http2::Auto,
        ca: None,
        client_certificate: None,
    }
}

/// The same, spoken to by HTTP/2.
pub fn to_http2(address: SocketAddr) -> config::Upstream {
    config::Upstream { http2: config::Http2::PriorKnowledge, ..to(address) }
}

/// A request without a body.
pub fn request(method: &str, path: &str) -> Request<RequestBody> {
    Request::builder().method(method).uri(path).body(RequestBody::default()).expect("a request")
}

// === impl Forwarding ===

impl Forwarding {
    pub fn new(config: &config::Upstream) -> Self {
        Self::with_body_idle(config, Duration::from_secs(20))
    }

    pub fn with_body_idle(config: &config::Upstream, body_idle: Duration) -> Self {
        let metrics = Arc::new(Metrics::default());
        let upstream = Upstream::new("test", config, body_idle, &metrics).expect("a sound configuration");
        Self { upstream: Arc::new(upstream), metrics }
    }

    pub async fn send(&self, request: Request<RequestBody>) -> Result<Response<ResponseBody>, UpstreamError> {
        super::soon(self.upstream.send(request)).await
    }

    /// Sends a GET and reads its response to the end.
    pub async fn get(&self, path: &str) -> Result<String, UpstreamError> {
        let response = self.send(request("GET", path)).await?;
        let body = super::soon(response.into_body().collect()).await.expect("a whole body").to_bytes();
        Ok(String::from_utf8(body.to_vec()).expect("a body of text"))
    }

    /// How many exchanges ended so.
    pub fn ended(&self, result: &str) -> u64 {
        self.metric(&format!(r#"cxgate_upstream_requests_total{{upstream="test",result="{result}"}}"#))
    }

    /// The value on the exported line that begins so.
    pub fn metric(&self, line: &str) -> u64 {
        metric(&self.metrics, line)
    }

    /// Waits until so many connections are open.
    pub async fn open_connections(&self, count: u64) {
        let open = async {
            while self.metric(r#"cxgate_upstream_connections{upstream="test"}"#) != count {
                tokio::task::yield_now().await;
            }
        };
        super::soon(open).await;
    }

    /// A listener that forwards everything, glues tunnels, and answers 599 with the error's form where there is no response.
    pub fn behind_a_listener(&self, caps: Caps) -> Listening {
        let this = self.clone();
        Listening::start(caps, move |request| {
            let this = this.clone();
            async move { this.forward(request).await }
        })
    }

    async fn forward(&self, mut request: Request<RequestBody>) -> Response<Either<ResponseBody, Full<Bytes>>> {
        let downstream = Switching::take(request.extensions_mut());
        request.headers_mut().remove(TRANSFER_ENCODING);
        let mut response = match self.upstream.send(request).await {
            Ok(response) => response,
            Err(error) => {
                let refusal = Response::builder().status(599).body(Either::Right(Full::from(format!("{error:?}"))));
                return refusal.expect("a response");
            }
        };
        if response.status() == 101 {
            let mut upstream = response.body_mut().take_tunnel().expect("the upstream's side");
            tokio::spawn(async move {
                let mut downstream = downstream.expect("an offer").tunnel().await.expect("the client's side");
                // Ends when both sides have closed.
                let _ = tokio::io::copy_bidirectional(&mut upstream, &mut downstream).await;
            });
        }
        response.map(Either::Left)
    }
}

//! The side that faces operators: probes and metrics.
//!
//! | path | answer | who may ask |
//! |---|---|---|
//! | `/livez` | 200 as long as the process runs | anyone |
//! | `/readyz` | 200 when requests are decided, 503 while draining, and while the store is away under `deny`; JSON, more of it for `/readyz?verbose` | anyone |
//! | `/metrics` | everything counted, OpenMetrics text | anyone on a loopback listener, else the bearer token |

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE},
};
use serde_json::json;

use crate::{
    body::RequestBody,
    config::{self, OnFailure, Secret},
    limiter::{Limiter, Status},
    metrics::Metrics,
    shutdown::Shutdown,
};

/// Answers operators. Cheap to clone.
#[derive(Clone)]
pub struct Admin(Arc<Inner>);

struct Inner {
    /// What `/metrics` asks for; `None` on a loopback listener.
    token: Option<Secret>,
    limiter: Arc<Limiter>,
    metrics: Arc<Metrics>,
    /// Tells whether the data plane drains.
    shutdown: Shutdown,
}

const JSON: &str = "application/json";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Admin {
    /// Answers about this limiter and these metrics; not ready once `shutdown` begins.
    pub fn new(config: &config::Admin, limiter: Arc<Limiter>, metrics: Arc<Metrics>, shutdown: Shutdown) -> Self {
        let token = if config.address.ip().is_loopback() { None } else { config.token.clone() };
        Self(Arc::new(Inner { token, limiter, metrics, shutdown }))
    }

    /// Answers a request that came from `_peer`.
    pub fn handle(&self, _peer: SocketAddr, request: &Request<RequestBody>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, JSON, error("method_not_allowed"));
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/livez" => answer(StatusCode::OK, JSON, json!({"status": "alive"}).to_string()),
            "/readyz" => self.0.ready(request.uri().query() == Some("verbose")),
            "/metrics" if !self.0.permits(request.headers()) => {
                let mut response = answer(StatusCode::UNAUTHORIZED, JSON, error("unauthorized"));
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                response
            }
            "/metrics" => answer(StatusCode::OK, OPEN_METRICS, self.0.metrics.export()),
            _ => answer(StatusCode::NOT_FOUND, JSON, error("not_found")),
        }
    }
}

impl Inner {
    fn ready(&self, verbose: bool) -> Response<Full<Bytes>> {
        let (store, decides) = match self.limiter.status() {
            Status::Embedded => ("embedded", true),
            Status::Connected => ("redis", true),
            Status::Disconnected(OnFailure::Local) => ("local", true),
            Status::Disconnected(OnFailure::Allow) => ("allow", true),
            Status::Disconnected(OnFailure::Deny) => ("deny", false),
        };
        let status = match (self.shutdown.is_leaving(), decides) {
            (true, _) => "draining",
            (false, true) => "ready",
            (false, false) => "store_unavailable",
        };
        let code = if status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        if !verbose {
            return answer(code, JSON, json!({"status": status, "store": store}).to_string());
        }
        let report = self.limiter.report();
        let body = json!({
            "status": status,
            "store": store,
            "since_seconds": report.since.as_secs(),
            "replicas": report.replicas,
            "last_failure": report.last_failure.as_deref(),
            "denied": report.denied,
            "debts": report.debts,
            "buckets": report.buckets,
        });
        answer(code, JSON, body.to_string())
    }

    fn permits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let claim = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        claim.is_some_and(|claim| token.matches(claim))
    }
}

fn error(code: &str) -> String {
    json!({ "error": code }).to_string()
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

//! The side that faces operators: probes, metrics, and the API.
//!
//! | path | answer | who may ask |
//! |---|---|---|
//! | `/livez` | 200 as long as the process runs | anyone |
//! | `/readyz` | 200 when requests are decided, 503 while draining, and while the store is away under `deny`; JSON, more of it for `/readyz?verbose` | anyone |
//! | `/metrics` | everything counted, OpenMetrics text | anyone on a loopback listener, else the bearer token |
//! | `/dashboard` | a page that shows all of it, live ([`dashboard`]) | the same; a browser sends the token as a password |
//! | `/api/v1/…`, `/metrics/{tenant}/{action}` | what [`api`] lists | the same; for what changes anything, the token on every listener |

use std::{net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use http_body_util::Either;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::time::Instant;

pub mod access;
pub mod answer;
pub mod api;
mod changes;
pub mod dashboard;
pub mod engine;
pub mod read;
mod status;

use access::{Access, Intent};
use answer::{Answer, Refusal};
use dashboard::{Dashboard, DashboardBody};
use engine::Engine;
use status::Facts;

use crate::{body::RequestBody, clients::Clients, config::Config, limiter::Limiter, metrics::Metrics, shutdown::Shutdown};

/// The description of the API (OpenAPI 3.1).
pub const OPENAPI: &str = include_str!("admin/openapi.json");

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers operators. Cheap to clone.
pub struct Admin<E>(Arc<Inner<E>>);

struct Inner<E> {
    access: Access,
    facts: ArcSwap<Facts>,
    engine: E,
    limiter: Arc<Limiter>,
    clients: Arc<Clients>,
    metrics: Arc<Metrics>,
    dashboard: Dashboard,
    /// Ends what outlives the data plane.
    background: Shutdown,
    /// Tells whether the data plane drains.
    shutdown: Shutdown,
    started: Instant,
}

/// What operators are told about.
pub struct Subjects {
    /// Decides.
    pub limiter: Arc<Limiter>,
    /// Sees who is busy.
    pub clients: Arc<Clients>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Ends the data plane.
    pub shutdown: Shutdown,
    /// Ends what outlives it.
    pub background: Shutdown,
}

impl<E> Clone for Admin<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<E: Engine> Admin<E> {
    /// Answers about these subjects and what `engine` knows; not ready once `shutdown` begins.
    pub fn new(config: &Config, engine: E, subjects: Subjects) -> Self {
        let Subjects { limiter, clients, metrics, shutdown, background } = subjects;
        api::announce(&metrics);
        let (access, facts, started) =
            (Access::new(&config.admin), ArcSwap::from_pointee(Facts::of(config)), Instant::now());
        let dashboard = Dashboard::default();
        Self(Arc::new(Inner { access, facts, engine, limiter, clients, metrics, dashboard, background, shutdown, started }))
    }

    /// Tells of another configuration from now on, and goes by its token.
    pub fn adopt(&self, config: &Config) {
        self.0.facts.store(Arc::new(Facts::of(config)));
        self.0.access.replace_token(config.admin.token.clone());
    }

    /// Answers a request that came from `peer`.
    pub async fn handle(&self, peer: SocketAddr, request: Request<RequestBody>) -> Response<DashboardBody> {
        if dashboard::knows(request.uri().path()) {
            return self.dashboard(peer.ip(), request).await;
        }
        self.tell(peer, request).await.map(Either::Left)
    }

    async fn tell(&self, peer: SocketAddr, request: Request<RequestBody>) -> Answer {
        let path = request.uri().path();
        if api::knows(path) {
            return self.api(peer, request).await;
        }
        if !matches!(path, "/livez" | "/readyz" | "/metrics") {
            return Refusal::not_found().into_answer();
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Refusal::method_not_allowed("GET, HEAD").into_answer();
        }
        match path {
            "/livez" => answer::json(StatusCode::OK, &json!({"status": "alive"})),
            "/readyz" => self.0.ready(request.uri().query() == Some("verbose")),
            _ => match self.0.access.check_token(peer.ip(), request.headers(), Intent::Read, Instant::now()) {
                Ok(()) => answer::text(StatusCode::OK, OPEN_METRICS, self.0.metrics.export()),
                Err(refusal) => refusal.into_answer(),
            },
        }
    }
}

//! The gate without listeners: requests of this process itself pass the same stages as a client's, in-process.
//!
//! Promised: limits, credentials, upstreams and the store are those of the configuration, so that on one Redis a daemon and
//! this share every budget. Two things differ from a daemon's gate. A request is tried once: whoever asks has the route's
//! [`Retry`](config::Retry) at hand and asks again, so that each try is charged like a request of its own, and what the
//! upstream sees stays inside the limits. And every answer of an upstream carries `Server-Timing`, which tells how long the
//! decision took.
//! Not promised: that the store is there already; see [`Egress::store_decides`].

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hyper::Request;
use tokio::time::timeout;

use super::{
    StartError,
    parts::{Generation, Lasting, Parts},
};
use crate::{
    body::RequestBody,
    config::{self, Config, Origin},
    gate::{rejection::Rejection, response::Response},
    limiter::Limiter,
    metrics::Metrics,
    peer::Peer,
    shutdown::Shutdown,
    wire::fields,
};

/// A gate that this process sends requests through.
pub struct Egress {
    generation: Generation,
    lasting: Lasting,
    config: Config,
    tasks: Shutdown,
}

/// What a caller has to know of the route that takes its request.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    /// The route's name.
    pub route: &'a str,
    /// Where its requests go.
    pub upstream: &'a Origin,
    /// When to ask again.
    pub retry: Option<&'a config::Retry>,
}

impl Egress {
    /// Makes the upstreams and begins to connect to the store. Binds nothing.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let (metrics, tasks) = (Arc::<Metrics>::default(), Shutdown::default());
        let parts = Parts::make(&config, None, &metrics)?;
        let limiter = Limiter::start(&config.store, &metrics, &tasks);
        let limiter = Arc::new(limiter.map_err(|cause| StartError::client("store", cause))?);
        let lasting = Lasting::start(limiter, metrics, None, &tasks, &tasks);
        let generation = Generation::begin(tried_once(config.clone()), parts, &lasting);
        Ok(Self { generation, lasting, config, tasks })
    }

    /// Waits, for at most `patience`, until the configured store decides; whether it does. Until then its failure policy does.
    pub async fn store_decides(&self, patience: Duration) -> bool {
        let mut up = self.lasting.limiter.up();
        timeout(patience, up.wait_for(|up| *up)).await.is_ok_and(|up| up.is_ok())
    }

    /// The way that a request would take.
    pub fn way(&self, request: &Request<RequestBody>) -> Result<Way<'_>, Rejection> {
        let name = self.generation.gate.route(request)?;
        let route = self.config.routes.iter().find(|route| route.name == *name).ok_or(Rejection::NoRoute)?;
        let upstream = self.config.upstreams.get(&route.upstream).ok_or(Rejection::NoRoute)?;
        Ok(Way { route: &route.name, upstream: &upstream.url, retry: route.retry.as_ref() })
    }

    /// Sends a request, once; it comes from this machine.
    pub async fn send(&self, request: Request<RequestBody>) -> Response {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        // In a box, so that the futures of those who ask stay small.
        let peer = Peer { address, secure: false, certificate: None };
        let mut response = Box::pin(self.generation.gate.handle(peer, request)).await;
        fields::gather(&mut response);
        response
    }

    /// Ends what runs beside the requests, and hands what this replica held to others.
    pub async fn stop(&self) {
        self.tasks.stop();
        self.tasks.finished().await;
    }
}

fn tried_once(mut config: Config) -> Config {
    for route in &mut config.routes {
        route.retry = None;
        route.server_timing = true;
    }
    config
}

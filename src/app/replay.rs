//! The gate without listeners, upstreams or store: it says what it would ask of a limiter.

use std::{collections::BTreeMap, sync::Arc};

use super::{StartError, parts::Parts};
use crate::{
    config::Config,
    gate::{
        flood::Floods,
        queues::Queues,
        replay::Replay,
        setup::{self, Neighbours},
    },
    limiter::Limiter,
    metrics::Metrics,
    shutdown::Shutdown,
};

/// A replay by the gate that `config` describes. Nothing is connected to, and no certificate read.
pub fn replay(mut config: Config) -> Result<Replay, StartError> {
    config.store.redis = None;
    config.oauth.clear();
    for route in &mut config.routes {
        route.credentials = None;
        route.forward_authorization_as = None;
    }
    for upstream in config.upstreams.values_mut() {
        upstream.url.tls = false;
        (upstream.ca, upstream.client_certificate) = (None, None);
    }
    let (metrics, shutdown) = (Metrics::default(), Shutdown::default());
    let upstreams = Parts::make(&config, None, &metrics)?.upstreams();
    let limiter = Limiter::start(&config.store, &metrics, &shutdown);
    let limiter = Arc::new(limiter.map_err(|cause| StartError::client("store", cause))?);
    let neighbours = Neighbours {
        queues: Arc::new(Queues::new(Arc::clone(&limiter), shutdown.clone())),
        limiter,
        upstreams,
        credentials: BTreeMap::new(),
        measured: BTreeMap::new(),
        floods: Arc::<Floods>::default(),
        clients: Arc::default(),
        shutdown,
        access: None,
    };
    Ok(Replay::new(setup::gate(&config, neighbours, &metrics), &config))
}

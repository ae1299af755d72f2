//! A limiter over a redis-server.

use std::{sync::Arc, time::Duration};

use cxgate::{
    config::{self, Factor, OnFailure},
    limiter::{
        Charge, Limit, Limiter, Terms,
        bucket::{Bucket, MICRO},
        key::{Key, KeyHasher},
    },
    metrics::{CauseLabels, Metrics},
    shutdown::Shutdown,
};
use tokio::time::timeout;

use super::redis_server::RedisServer;

/// The deadline of a limiter that is given none.
pub(crate) const DEADLINE: Duration = Duration::from_millis(50);

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A limiter over a Redis.
pub(crate) struct Rig {
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) metrics: Metrics,
    shutdown: Shutdown,
}

impl Rig {
    pub(crate) fn new(server: &RedisServer, on_failure: OnFailure, deadline: Duration) -> Self {
        Self::at(&server.url(), on_failure, deadline)
    }

    /// The same at any URL.
    pub(crate) fn at(url: &str, on_failure: OnFailure, deadline: Duration) -> Self {
        Self::over(&config::Store { redis: config::Redis::parse(url), deadline, on_failure, ..store() })
    }

    pub(crate) fn over(config: &config::Store) -> Self {
        let (metrics, shutdown) = (Metrics::default(), Shutdown::default());
        let limiter = Arc::new(Limiter::start(config, &metrics, &shutdown).unwrap());
        Self { limiter, metrics, shutdown }
    }

    pub(crate) async fn up(server: &RedisServer, on_failure: OnFailure) -> Self {
        let rig = Self::new(server, on_failure, DEADLINE);
        rig.until(true).await;
        rig
    }

    /// One that waits for Redis however busy the machine is.
    pub(crate) async fn patient(server: &RedisServer, on_failure: OnFailure) -> Self {
        let rig = Self::new(server, on_failure, PATIENCE);
        rig.until(true).await;
        rig
    }

    /// Waits until Redis decides, or does not.
    pub(crate) async fn until(&self, up: bool) {
        let mut changes = self.limiter.up();
        timeout(PATIENCE, changes.wait_for(|now| *now == up)).await.expect("in time").unwrap();
    }

    /// Waits until it counts so many replicas.
    pub(crate) async fn until_replicas(&self, count: u32) {
        super::until(async || self.limiter.report().replicas == count).await;
    }

    pub(crate) fn failures(&self, cause: &'static str) -> u64 {
        self.metrics.store_failures.get_or_create(&CauseLabels { cause }).get()
    }

    pub(crate) async fn stop(self) {
        self.shutdown.stop();
        timeout(PATIENCE, self.shutdown.finished()).await.expect("all tasks end");
    }
}

/// A store without Redis.
pub(crate) fn store() -> config::Store {
    config::Store {
        redis: None,
        sentinel_password: None,
        ca: None,
        deadline: DEADLINE,
        on_failure: OnFailure::Deny,
        key_prefix: "test".to_owned(),
        max_buckets: 100_000,
    }
}

/// A bucket, in micro-tokens, that no load scales.
pub(crate) fn steady(capacity: u64, rate: u64) -> Limit {
    Limit { kind: Bucket { capacity, rate }.into(), scale: None, slowest: Factor::ONE }
}

/// A request of a client that costs one token.
pub(crate) fn token<'a>(limit: &'a Limit, client: &str) -> Charge<'a> {
    Charge { limit, key: key(client), cost: MICRO, terms: Terms::Take }
}

/// The key of a client's bucket.
pub(crate) fn key(name: &str) -> Key {
    KeyHasher::new(None, "test").start("limit").part(name.as_bytes()).finish()
}

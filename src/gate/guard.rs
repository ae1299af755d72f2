//! What guards a route beside its limits: the pause that its upstream asked for, and the number of new identities that one
//! address may bring. Both are asked about in the same store operation as the limits.
//!
//! Promised: rotating names buys nothing beyond the cap, on however many replicas, because an identity is new where the
//! store holds no bucket for it. Not promised: that a client which was away long enough for its bucket to be full is known
//! again; it counts as new.

use std::{sync::Arc, time::SystemTime};

use hyper::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use prometheus_client::metrics::counter::Counter;

use super::client::Client;
use crate::{
    config,
    limiter::{
        Charge, Kind, Limit, Limiter, Terms,
        bucket::MICRO,
        cooldown,
        key::{Key, KeyHasher},
    },
};

/// What a guard is called in answers, logs and metrics, and how often it refused.
pub struct Guard {
    /// Stands in the place of a limit's name.
    pub name: Arc<str>,
    /// Requests it refused.
    pub refused: Counter,
}

/// Keeps requests from an upstream that asked to be left alone.
pub struct Cooldown {
    /// How it is told of.
    pub guard: Guard,
    /// Whether all clients pause together.
    pub whole_route: bool,
    /// Stands in store keys.
    pub id: String,
    /// Pauses begun.
    pub begun: Counter,
}

/// Counts the new identities of an address.
pub struct Newcomers {
    /// How it is told of.
    pub guard: Guard,
    /// Stands in store keys.
    pub id: &'static str,
    /// How many there may be.
    pub limit: Limit,
    /// The place of the limit, among those of the route, whose bucket tells whether an identity is new.
    pub identity: usize,
}

// === impl Cooldown ===

impl Cooldown {
    /// The name of the pauses that concern a client.
    pub fn key(&self, client: &Client, hasher: &KeyHasher) -> Key {
        let mut key = hasher.start(&self.id);
        if self.whole_route { key.finish() } else { client.add_identity(&mut key).finish() }
    }

    /// What a request asks: that no pause under `key` holds it back.
    pub fn charge(&self, key: Key, client: &Client, hasher: &KeyHasher) -> Charge<'static> {
        cooldown::passage(key, client.add_identity(&mut hasher.start("cooldown/ramp")).finish())
    }

    /// Begins the pause that the fields of an upstream's 429 ask for.
    pub async fn begin(&self, key: Key, fields: &HeaderMap, limiter: &Limiter) {
        let text = |name: HeaderName| fields.get(name).and_then(|value| value.to_str().ok());
        let pause = cooldown::pause(text(RETRY_AFTER), text(DATE), SystemTime::now());
        self.begun.inc();
        limiter.pause(key, pause).await;
    }
}

// === impl Newcomers ===

impl Newcomers {
    /// The guard of a route that has such `limits`; `None` where none of them counts by client.
    pub fn new(id: &'static str, bucket: config::TokenBucket, limits: &[config::RouteLimit], guard: Guard) -> Option<Self> {
        let by_client = |limit: &config::RouteLimit| limit.limit.per == [config::Dimension::Client];
        let also_by_client = |limit: &config::RouteLimit| limit.limit.per.contains(&config::Dimension::Client);
        let identity = limits.iter().position(by_client).or_else(|| limits.iter().position(also_by_client))?;
        let limit = Limit { kind: Kind::Bucket(bucket.into()), scale: None, slowest: config::Factor::ONE };
        Some(Self { guard, id, limit, identity })
    }

    /// What a request asks: that its address may bring one more identity, if its own is new. A client that has no name but
    /// its address brings none.
    pub fn charge(&self, client: &Client, hasher: &KeyHasher) -> Option<Charge<'_>> {
        let key = client.add_network(&mut hasher.start(self.id)).finish();
        let terms = Terms::TakeIfNew(self.identity);
        client.identity.is_claimed().then_some(Charge { limit: &self.limit, key, cost: MICRO, terms })
    }
}

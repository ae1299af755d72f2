//! Buckets in Redis, shared by every replica: each operation is one call of one script, by Redis' own clock.
//!
//! Promised: all limits of a request in one atomic call; an answer or an error within the configured deadline; while Redis
//! is away, an error at once. A call whose outcome is unknown is never repeated: the error can only be to admit less.
//! Not promised: that a publication which fails is repeated at once: it is with the next session, or by the publisher.
//!
//! In a Cluster, one call reaches the keys of one slot. Buckets are kept in [groups](Key::group) by the first value that
//! their limit counts by: all limits of a route that begin with the client are in one slot, and that is still one call. (A
//! route's first limit could not lend its slot to the others, for a bucket must be found in the same place from every route
//! that shares it.) What `across` promises for limits in several slots is a little less: see there.
//!
//! [`script`] is what is said, `session` one connection that says it, `batch` what says it for several at once, `link` what
//! keeps one up, `sentinel` and `cluster` know to whom, and `dial` how to get there.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use redis::Value;
use tokio::{sync::watch, time::Instant};

use super::{Charge, MAX_CHARGES, Standings, Store, StoreError, Verdict, key::Key, scale::ScaleName};
use crate::{
    config::{self, Factor, Servers},
    metrics::Metrics,
    shutdown::Shutdown,
    tls::TlsSetupError,
};

mod across;
mod batch;
mod cluster;
mod control;
mod dial;
mod end;
mod eviction;
mod fleet;
mod link;
mod observe;
mod operate;
pub mod places;
pub mod script;
mod sentinel;
mod session;
mod slots;

use cluster::Cluster;
use dial::Dialer;
use end::End;
use link::{Common, Link, Server};
use script::{Change, Decision, Flow, KeySpace};
use sentinel::Sentinels;
use session::{Call, Failure};
use slots::{GROUPS, groups};

/// Buckets in Redis.
pub struct Redis {
    common: Arc<Common>,
    /// By group; one, where all keys are together.
    spaces: Arc<[KeySpace]>,
    links: Links,
    shutdown: Shutdown,
}

/// What is connected to.
#[derive(Clone)]
enum Links {
    /// One server has all keys.
    One(Arc<Link>),
    /// Each primary has some.
    Cluster(Arc<Cluster>),
}

// === impl Redis ===

impl Redis {
    /// Begins to keep connections to `servers` up, until `shutdown` stops. Redis need not be there yet.
    ///
    /// # Errors
    ///
    /// Where TLS is asked for and cannot be set up.
    pub fn start(
        servers: &config::Redis,
        config: &config::Store,
        metrics: &Metrics,
        shutdown: &Shutdown,
    ) -> Result<Self, TlsSetupError> {
        let common = Arc::new(Common {
            dialer: Dialer::new(servers, config)?,
            deadline: config.deadline,
            factors: Mutex::default(),
            last_cause: ArcSwapOption::empty(),
            connects: metrics.store_connects.clone(),
            duration: metrics.store_duration.clone(),
        });
        let gauge = metrics.store_up.clone();
        let together = || vec![KeySpace::new(&config.key_prefix)];
        let one = |server| Links::One(Arc::new(Link::new(common.clone(), server, together(), gauge.clone())));
        let (spaces, links) = match &servers.servers {
            Servers::One(address) => (together().into(), one(Server::Fixed(address.clone()))),
            Servers::Sentinel { sentinels, master } => {
                let dialer = common.dialer.for_sentinels(config.sentinel_password.as_ref());
                let sentinels = Sentinels::new(dialer, sentinels.clone(), master.clone());
                (together().into(), one(Server::Named(sentinels)))
            }
            Servers::Cluster { seeds } => {
                let space = |(_, tag)| KeySpace::tagged(&config.key_prefix, tag);
                let spaces: Arc<[_]> = groups().map(space).collect();
                let cluster = Cluster::new(common.clone(), seeds.clone(), spaces.clone(), gauge.clone());
                (spaces, Links::Cluster(Arc::new(cluster)))
            }
        };
        let (kept, stopping) = (links.clone(), shutdown.clone());
        shutdown.spawn(async move {
            tokio::select! {
                () = kept.keep_up() => {}
                () = stopping.stopped() => kept.fall(),
            }
        });
        Ok(Self { common, spaces, links, shutdown: shutdown.clone() })
    }

    /// Whether it decides now, on all keys, and when that changes.
    pub fn up(&self) -> watch::Receiver<bool> {
        match &self.links {
            Links::One(link) => link.up(),
            Links::Cluster(cluster) => cluster.up(),
        }
    }

    /// Whether it can be asked about a bucket now.
    pub fn reaches(&self, key: Key) -> bool {
        match &self.links {
            Links::One(link) => link.session().is_ok(),
            Links::Cluster(cluster) => cluster.reaches(self.group(key)),
        }
    }

    /// In which of the spaces a bucket is.
    fn group(&self, key: Key) -> u8 {
        if self.spaces.len() < GROUPS { 0 } else { key.group() }
    }

    /// Charges buckets of one group.
    fn charge(&self, group: u8, flow: Flow, charges: &[Charge<'_>], until: Instant) -> Call {
        let keys = self.spaces[usize::from(group)].clone();
        Call::decision(group, keys, Decision::new(flow, charges), until)
    }

    /// Why it stopped deciding the last time.
    pub fn last_cause(&self) -> Option<Arc<String>> {
        self.common.last_cause.load_full()
    }
}

impl Store for Redis {
    async fn reserve(&self, charges: &[Charge<'_>], within: Duration) -> Result<Verdict, StoreError> {
        let Some(first) = charges.first() else {
            return Ok(Verdict { admitted: true, at: 0, standings: Standings::new() });
        };
        bounded(charges)?;
        let group = self.group(first.key);
        if charges.iter().any(|charge| self.group(charge.key) != group) {
            // Rare, and large: others are not to make room for it.
            return Box::pin(self.reserve_across(charges, within)).await;
        }
        let call = self.charge(group, Flow::take(within), charges, self.common.until());
        self.links.call(group, &call, |reply| script::verdict(reply, charges)).await
    }

    async fn refund(&self, charges: &[Charge<'_>], at: u64) -> Result<(), StoreError> {
        bounded(charges)?;
        self.move_across(Flow::Give(at), charges).await.map(drop)
    }

    async fn give_back(&self, charges: &[Charge<'_>], at: u64, ahead: Duration) -> Result<bool, StoreError> {
        bounded(charges)?;
        self.move_across(Flow::GiveBack { at, ahead }, charges).await
    }

    async fn publish(&self, scale: &ScaleName, factor: Factor) -> Result<(), StoreError> {
        self.adopt(scale, factor);
        match &self.links {
            Links::One(link) => link.publish(&link.session()?, scale, factor, Change::Switch).await,
            Links::Cluster(cluster) => cluster.publish(scale, factor).await,
        }
    }
}

// === impl Links ===

impl Links {
    /// Makes a call about keys of `group`, where they are.
    async fn call<T>(&self, group: u8, call: &Call, read: impl Fn(&Value) -> Option<T>) -> Result<T, StoreError> {
        match self {
            Self::One(link) => {
                let session = link.session()?;
                session.call(call, false, read).await.map_err(|failure| {
                    if let Failure::Redirected(redirect) = &failure {
                        session.end_with(End::Moved(redirect.address.clone()));
                    }
                    failure.final_error()
                })
            }
            Self::Cluster(cluster) => cluster.call(group, call, read).await,
        }
    }

    async fn keep_up(&self) {
        match self {
            Self::One(link) => link.keep_up().await,
            Self::Cluster(cluster) => cluster.keep_up().await,
        }
    }

    fn fall(&self) {
        match self {
            Self::One(link) => link.fall(),
            Self::Cluster(cluster) => cluster.fall(),
        }
    }
}

/// Refuses more charges than a decision may have.
fn bounded(charges: &[Charge<'_>]) -> Result<(), StoreError> {
    if charges.len() > MAX_CHARGES { Err(StoreError::Refused) } else { Ok(()) }
}

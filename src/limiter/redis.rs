//! Buckets in Redis, shared by every replica: each operation is one call of one script, by Redis' own clock.
//!
//! Promised: all limits of a request in one atomic call; an answer or an error within the configured deadline; while Redis
//! is away, an error at once. A call whose outcome is unknown is never repeated: the error can only be to admit less.
//! Not promised: that a publication which fails is repeated at once: it is with the next session, or by the publisher.
//!
//! [`script`] is what is said, `session` one connection that says it, `link` what keeps one up.

use std::sync::Arc;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use tokio::sync::watch;

use super::{Charge, MAX_CHARGES, Standings, Store, StoreError, Verdict, scale::ScaleName};
use crate::{
    config::{self, Factor, Secret},
    metrics::Metrics,
    shutdown::Shutdown,
};

mod control;
mod eviction;
mod link;
pub mod script;
mod session;

use link::{Link, LinkMetrics};
use script::{Change, Flow, KeySpace, Script};

/// Buckets in Redis.
pub struct Redis {
    link: Arc<Link>,
}

/// The URL is none that this store can use. It is not shown, for it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("store.redis is not a URL of the form redis://[user:password@]host:port/db")]
pub struct InvalidUrl;

// === impl Redis ===

impl Redis {
    /// Begins to keep a connection to `url` up, until `shutdown` stops. Redis need not be there yet.
    pub fn start(url: &Secret, config: &config::Store, metrics: &Metrics, shutdown: &Shutdown) -> Result<Self, InvalidUrl> {
        let metrics = LinkMetrics {
            up: metrics.store_up.clone(),
            connects: metrics.store_connects.clone(),
            duration: metrics.store_duration.clone(),
        };
        let link = Arc::new(Link::new(parse(url)?, KeySpace::new(&config.key_prefix), config.deadline, metrics));
        let (kept, stopping) = (link.clone(), shutdown.clone());
        shutdown.spawn(async move {
            tokio::select! {
                () = kept.keep_up() => {}
                () = stopping.stopped() => kept.fall(),
            }
        });
        Ok(Self { link })
    }

    /// Whether it decides now, and when that changes.
    pub fn up(&self) -> watch::Receiver<bool> {
        self.link.up()
    }
}

impl Store for Redis {
    async fn decide(&self, charges: &[Charge<'_>]) -> Result<Verdict, StoreError> {
        if charges.is_empty() {
            return Ok(Verdict { admitted: true, standings: Standings::new() });
        }
        bounded(charges)?;
        let make = |digest: &str| self.link.keys.charge(digest, Flow::Take, charges);
        self.link.session()?.call(Script::Charge, make, |reply| script::verdict(reply, charges)).await
    }

    async fn refund(&self, charges: &[Charge<'_>]) -> Result<(), StoreError> {
        if charges.is_empty() {
            return Ok(());
        }
        bounded(charges)?;
        let make = |digest: &str| self.link.keys.charge(digest, Flow::Give, charges);
        self.link.session()?.call(Script::Charge, make, |_| Some(())).await
    }

    async fn publish(&self, scale: &ScaleName, factor: Factor) -> Result<(), StoreError> {
        self.adopt(scale, factor);
        self.link.publish(&*self.link.session()?, scale, factor, Change::Switch).await
    }
}

/// Refuses more charges than a decision may have.
fn bounded(charges: &[Charge<'_>]) -> Result<(), StoreError> {
    if charges.len() > MAX_CHARGES { Err(StoreError::Refused) } else { Ok(()) }
}

fn parse(url: &Secret) -> Result<ConnectionInfo, InvalidUrl> {
    let info = url.expose().into_connection_info().map_err(|_| InvalidUrl)?;
    if matches!(info.addr(), ConnectionAddr::Tcp(..)) { Ok(info) } else { Err(InvalidUrl) }
}

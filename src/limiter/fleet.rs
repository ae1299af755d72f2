//! One truth for many replicas: Redis, and all that stands around it so that every request is decided soon.
//!
//! A decision takes the first of these that answers: what Redis [refused](super::denied) not long ago, Redis itself, the
//! [failure policy](super::fallback). One task counts the replicas, pays debts, and takes note of every change between
//! Redis and the policy.
//!
//! Promised for one limit, with E what was admitted beyond capacity + rate × time over any stretch of time, or beyond the
//! quota in any one window: E is 0 as long as Redis decides, and through an outage for a client that stays with one replica.
//! Where all replicas lose Redis at about the same time and clients move between them, E is at most two capacities, whatever
//! becomes of Redis: what it, the shares together, and it again may admit is each within the limit. (Two quotas, of a
//! window.)
//! Not promised: the same while some replicas reach Redis and some do not: each of those adds its share of the rate, and
//! charges it later.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tokio::{sync::watch, time::Instant};

mod operate;
mod pay;

use super::{
    Charge, Charged, Decision, MAX_CHARGES, RETRY_AFTER, Receipt, Report, Status, Store, StoreError, Verdict,
    amendments::Amended,
    denied::Denied,
    failures::Failures,
    fallback::Fallback,
    key::Key,
    lease::{Answer, Claim},
    measured::Observation,
    places::{LIFETIME, NoPlace, Place, Places},
    redis::Redis,
    replicas::Replicas,
    scale::ScaleName,
};
use crate::{
    config::{self, Factor, OnFailure},
    metrics::Metrics,
    shutdown::Shutdown,
    tls::TlsSetupError,
};

/// Redis, and who decides in its place.
pub(super) struct Fleet {
    redis: Redis,
    up: watch::Receiver<bool>,
    fallback: Fallback,
    denied: Denied,
    replicas: Replicas,
    places: Arc<Places>,
    failures: Failures,
    amended: Arc<Amended>,
    since: Mutex<Instant>,
    changes: Counter,
    fallback_decisions: Counter,
    denied_fast: Counter,
}

// === impl Fleet ===

impl Fleet {
    /// Begins to keep a connection up and to be one of the replicas, until `shutdown` stops.
    pub(super) fn start(
        servers: &config::Redis,
        config: &config::Store,
        places: Arc<Places>,
        amended: Arc<Amended>,
        metrics: &Metrics,
        shutdown: &Shutdown,
    ) -> Result<Arc<Self>, TlsSetupError> {
        let connection = Shutdown::default();
        let redis = Redis::start(servers, config, metrics, &connection)?;
        let fleet = Arc::new(Self {
            up: redis.up(),
            redis,
            fallback: Fallback::new(config, metrics.buckets.clone(), metrics.debts.clone()),
            denied: Denied::new(),
            replicas: Replicas::new(metrics.store_replicas.clone()),
            places,
            failures: Failures::new(metrics),
            amended,
            since: Mutex::new(Instant::now()),
            changes: metrics.store_changes.clone(),
            fallback_decisions: metrics.fallback_decisions.clone(),
            denied_fast: metrics.denied_fast.clone(),
        });
        let (kept, stopping) = (Arc::clone(&fleet), shutdown.clone());
        shutdown.spawn(async move {
            tokio::select! {
                () = kept.replicas.keep_counting(&kept.redis) => {}
                () = kept.places.keep(&kept.redis) => {}
                () = kept.keep_paying() => {}
                () = kept.keep_amended() => {}
                () = kept.note_changes() => {}
                () = stopping.stopped() => {}
            }
            tokio::join!(kept.places.leave(&kept.redis), kept.replicas.leave(&kept.redis));
            connection.stop();
            connection.finished().await;
        });
        Ok(fleet)
    }

    pub(super) async fn reserve(&self, charges: &[Charge<'_>], within: Duration) -> Result<Decision, StoreError> {
        if charges.len() > MAX_CHARGES {
            return Err(StoreError::Refused);
        }
        let asked = Instant::now();
        // What is remembered says whether a request may pass now, not whether it may wait.
        if within.is_zero()
            && self.is_up()
            && let Some(standings) = self.denied.refusal(charges, asked)
        {
            self.denied_fast.inc();
            return Ok(Decision::Refused { standings });
        }
        match self.ask(charges, within).await {
            Ok(Verdict { admitted, at, standings }) => {
                if let Some(local) = self.fallback.local() {
                    local.mirror(charges, admitted, &standings);
                }
                if admitted {
                    return Ok(Decision::Admitted { receipt: Receipt { charged: Charged::Redis, at }, standings });
                }
                self.denied.remember(charges, &standings, asked);
                Ok(Decision::Refused { standings })
            }
            Err(error) => {
                self.failures.count(error);
                self.fallback_decisions.inc();
                self.fallback.reserve(charges, within, self.replicas.counted())
            }
        }
    }

    /// Gives back a place to whoever it was reserved with.
    pub(super) async fn give_back(
        &self,
        receipt: &Receipt,
        charges: &[Charge<'_>],
        ahead: Duration,
    ) -> Result<bool, StoreError> {
        self.denied.forget(charges);
        match (receipt.charged, self.fallback.local()) {
            (Charged::Local { replicas }, Some(local)) => local.give_back(charges, replicas, receipt.at, ahead),
            (_, local) => {
                let given = self.redis.give_back(charges, receipt.at, ahead).await?;
                if let Some(local) = local.filter(|_| given) {
                    local.refunded(charges);
                }
                Ok(given)
            }
        }
    }

    pub(super) async fn refund(&self, receipt: &Receipt, charges: &[Charge<'_>]) -> Result<(), StoreError> {
        self.denied.forget(charges);
        match (receipt.charged, self.fallback.local()) {
            (Charged::Local { replicas }, Some(local)) => {
                let paid = local.refund(charges, replicas, receipt.at);
                // Only buckets are among them, and those do not ask when.
                self.redis.refund(&paid, 0).await
            }
            (_, local) => {
                self.redis.refund(charges, receipt.at).await?;
                if let Some(local) = local {
                    local.refunded(charges);
                }
                Ok(())
            }
        }
    }

    pub(super) async fn publish(&self, scale: &ScaleName, factor: Factor) -> Result<(), StoreError> {
        self.denied.forget_all();
        if let Some(local) = self.fallback.local() {
            self.failures.count_if(local.publish(scale, factor).await);
        }
        self.redis.publish(scale, factor).await
    }

    /// Takes over a factor that another replica has published.
    pub(super) async fn adopt(&self, scale: &ScaleName, factor: Factor) -> Result<(), StoreError> {
        self.denied.forget_all();
        self.redis.adopt(scale, factor);
        match self.fallback.local() {
            Some(local) => local.publish(scale, factor).await,
            None => Ok(()),
        }
    }

    /// Tells Redis of a tenant's latency; where it cannot be told, this replica's own samples decide here.
    pub(super) async fn observe(&self, observation: &Observation<'_>) -> Result<Factor, StoreError> {
        let told = self.redis.observe(observation).await;
        let factor = *told.as_ref().unwrap_or(&observation.own);
        if factor > observation.before {
            self.denied.forget_all();
        }
        if let Some(local) = self.fallback.local() {
            self.failures.count_if(local.publish(observation.scale, factor).await);
        }
        told.inspect_err(|error| self.failures.count(*error))
    }

    /// Claims, renews or gives up a lease.
    pub(super) async fn lead(&self, claim: &Claim<'_>) -> Result<Answer, StoreError> {
        self.redis.lease(claim).await
    }

    /// Leaves a bucket at least `charge.cost` short of full; in this process too, for the time when Redis is away.
    pub(super) async fn pause(&self, charge: &Charge<'_>) -> Result<(), StoreError> {
        if let Some(local) = self.fallback.local() {
            self.failures.count_if(local.pause(charge));
        }
        self.redis.pause(charge).await
    }

    /// One more of the `most` places that `client` may hold.
    pub(super) async fn place(&self, client: Key, most: u32) -> Result<Place, NoPlace> {
        let place = Places::take(&self.places, client, most)?;
        if place.is_held() {
            return Ok(place);
        }
        match self.redis.grant(client, place.name(), most, LIFETIME).await {
            Ok(true) => Ok(place.granted()),
            Ok(false) => Err(NoPlace::Taken),
            Err(error) => {
                self.failures.count(error);
                self.fallback_decisions.inc();
                let share = match self.fallback.policy() {
                    OnFailure::Local => most.div_ceil(self.replicas.counted()),
                    OnFailure::Allow => most,
                    OnFailure::Deny => return Err(NoPlace::Unavailable { retry_after: RETRY_AFTER }),
                };
                let is_within = place.before() < usize::try_from(share).unwrap_or(usize::MAX);
                if is_within { Ok(place.granted()) } else { Err(NoPlace::Taken) }
            }
        }
    }

    pub(super) fn forget_refusals(&self) {
        self.denied.forget_all();
    }

    /// Whether Redis decides, and when that changes.
    pub(super) fn up(&self) -> watch::Receiver<bool> {
        self.up.clone()
    }

    pub(super) fn status(&self) -> Status {
        if self.is_up() { Status::Connected } else { Status::Disconnected(self.fallback.policy()) }
    }

    pub(super) fn report(&self, buckets: usize) -> Report {
        Report {
            since: self.since.lock().unwrap_or_else(PoisonError::into_inner).elapsed(),
            replicas: self.replicas.counted(),
            last_failure: self.redis.last_cause(),
            denied: self.denied.len(),
            debts: self.fallback.local().map_or(0, |local| local.debts().len()),
            buckets,
        }
    }

    fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Takes note of when Redis began to decide, or stopped.
    async fn note_changes(&self) {
        let (mut up, mut was_up) = (self.up(), false);
        while up.wait_for(|up| *up != was_up).await.is_ok() {
            was_up = !was_up;
            *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            self.changes.inc();
        }
    }
}

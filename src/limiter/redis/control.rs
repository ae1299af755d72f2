//! Operations of the control plane on Redis: leases, pauses, and the factors that are in force.

use std::sync::PoisonError;

use super::{
    Redis,
    script::{self, Script},
};
use crate::{
    config::Factor,
    limiter::{
        Charge, StoreError,
        lease::{Answer, Claim},
        scale::ScaleName,
    },
};

impl Redis {
    /// Renews or claims a lease.
    pub(in crate::limiter) async fn lease(&self, claim: &Claim<'_>) -> Result<Answer, StoreError> {
        let make = |digest: &str| self.link.keys.lease(digest, claim);
        self.link.session()?.call(Script::Lease, make, script::control::answer).await
    }

    /// Leaves a bucket at least `charge.cost` short of full.
    pub(in crate::limiter) async fn pause(&self, charge: &Charge<'_>) -> Result<(), StoreError> {
        let make = |digest: &str| self.link.keys.pause(digest, charge);
        self.link.session()?.call(Script::Pause, make, |_| Some(())).await
    }

    /// Remembers a factor that is in force, for a Redis that loses it.
    pub(in crate::limiter) fn adopt(&self, scale: &ScaleName, factor: Factor) {
        self.link.factors.lock().unwrap_or_else(PoisonError::into_inner).insert(scale.clone(), factor);
    }
}

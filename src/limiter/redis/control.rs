//! Operations of the control plane on Redis: leases, pauses, and the factors that are in force.

use std::sync::PoisonError;

use super::{
    Redis,
    script::{self, Script},
    session::Call,
};
use crate::{
    config::Factor,
    limiter::{
        Charge, StoreError,
        lease::{Answer, Claim},
        scale::ScaleName,
    },
};

/// Where records are that belong to no bucket.
pub(super) const FLEET_GROUP: u8 = 0;

impl Redis {
    /// Renews or claims a lease.
    pub(in crate::limiter) async fn lease(&self, claim: &Claim<'_>) -> Result<Answer, StoreError> {
        let keys = &self.spaces[usize::from(FLEET_GROUP)];
        let call = Call::new(Script::Lease, self.common.until(), |digest| keys.lease(digest, claim));
        self.links.call(FLEET_GROUP, &call, script::control::answer).await
    }

    /// Leaves a bucket at least `charge.cost` short of full.
    pub(in crate::limiter) async fn pause(&self, charge: &Charge<'_>) -> Result<(), StoreError> {
        let group = self.group(charge.key);
        let keys = &self.spaces[usize::from(group)];
        let call = Call::new(Script::Pause, self.common.until(), |digest| keys.pause(digest, charge));
        self.links.call(group, &call, |_| Some(())).await
    }

    /// Remembers a factor that is in force, for a Redis that loses it.
    pub(in crate::limiter) fn adopt(&self, scale: &ScaleName, factor: Factor) {
        self.common.factors.lock().unwrap_or_else(PoisonError::into_inner).insert(scale.clone(), factor);
    }
}

//! The stage for preflights (Fetch standard), which cost nothing.
//!
//! Promised: a preflight of an origin that its route has in its list is answered here. Any other preflight of a limited route
//! passes uncharged, but no faster than [`Preflights::limit`].

use std::sync::Arc;

use super::{
    Outcome,
    call::Call,
    cors::preflighted,
    limit::RouteLimit,
    question,
    rejection::Rejection,
    stage::{Next, Stage},
};
use crate::limiter::{Decision, Limiter, key::KeyHasher};

/// The stage for preflights.
#[derive(Clone)]
pub struct Preflights {
    /// Decides about those that pass.
    pub limiter: Arc<Limiter>,
    /// Names buckets.
    pub hasher: KeyHasher,
    /// What they are held to, in place of their route's limits: by address, because they carry no identity.
    pub limit: Arc<RouteLimit>,
}

// === impl Preflights ===

impl Stage for Preflights {
    async fn handle(&self, call: &mut Call, next: &impl Next) -> Outcome {
        let headers = call.request.headers();
        let Some(method) = preflighted(&call.request) else { return next.call(call).await };
        call.notes.preflight();
        if let Some(cors) = &call.route.cors
            && let Some(grant) = cors.grant(headers)
        {
            return Ok(cors.answer(&grant, &method, headers));
        }
        if !call.route.limits.is_empty() {
            if !call.route.is_shadow() {
                self.hold(call).await?;
            }
            call.exempt = true;
        }
        next.call(call).await
    }
}

impl Preflights {
    async fn hold(&self, call: &Call) -> Result<(), Rejection> {
        let limit = &*self.limit;
        let charge = call.charge(limit, &self.hasher)?;
        match self.limiter.decide(&[charge]).await {
            Decision::Admitted { .. } => {
                limit.admitted.inc();
                Ok(())
            }
            Decision::Unlimited => Ok(()),
            Decision::Refused { standings } => {
                let (limits, charges) = (std::slice::from_ref(limit), [charge]);
                let waits = question::waits(&charges, &standings);
                Err(question::refuse(limits, &charges, &waits, None, &standings, call.request.headers()))
            }
            Decision::Unavailable { retry_after } => Err(Rejection::StoreUnavailable { retry_after }),
        }
    }
}

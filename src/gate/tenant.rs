//! Tenants: for whom a limit that follows a measured signal counts, by the first of the values it counts by. Each has a
//! factor of its own, and what the upstream takes for its requests makes that factor.

use std::{sync::Arc, time::Duration};

use super::{bad_request::BadRequest, call::Call, route::Route};
use crate::{
    limiter::{
        Limit,
        key::KeyHasher,
        measured::{Ended, Measured, Tenant},
    },
    upstream::{Attempted, Observer},
};

/// The measured signal that a limit follows.
pub struct Follows {
    /// What knows its tenants.
    pub signal: Arc<Measured>,
    /// Tells tenants by one kind of value from those by another.
    pub id: String,
}

/// The limits of a call that follow the call's own tenant, by their places among the route's limits. Most routes have none,
/// and then there is nothing to allocate.
#[derive(Default)]
pub struct Tenants {
    limits: Vec<(usize, Limit)>,
    observers: Observers,
}

/// Tenants that are told how long the upstream takes, each once.
#[derive(Default, Clone)]
pub struct Observers(Vec<(Arc<Measured>, Arc<Tenant>)>);

// === impl Tenants ===

impl Tenants {
    /// The tenants of a call on `route`; none where the client is exempt.
    pub fn of(route: &Route, call: &Call, hasher: &KeyHasher) -> Result<Self, BadRequest> {
        let mut tenants = Self::default();
        for (place, limit) in route.limits.iter().enumerate().filter(|_| !call.exempt) {
            let Some(follows) = &limit.follows else { continue };
            let tenant = follows.signal.tenant(call.tenant(limit, follows, hasher)?);
            tenants.limits.push((place, Limit { scale: Some(tenant.scale().clone()), ..limit.limit.clone() }));
            tenants.observers.add(&follows.signal, tenant);
        }
        Ok(tenants)
    }

    /// The limit at a place, where it follows a tenant.
    pub fn limit(&self, place: usize) -> Option<&Limit> {
        self.limits.iter().find(|(known, _)| *known == place).map(|(_, limit)| limit)
    }

    /// Those to be told of the upstream.
    pub fn observers(&self) -> Observers {
        self.observers.clone()
    }
}

// === impl Observers ===

impl Observers {
    /// Itself, where there is anyone to be told.
    pub fn any(&self) -> Option<&dyn Observer> {
        if self.0.is_empty() { None } else { Some(self) }
    }

    fn add(&mut self, signal: &Arc<Measured>, tenant: Arc<Tenant>) {
        if !self.0.iter().any(|(_, known)| Arc::ptr_eq(known, &tenant)) {
            self.0.push((Arc::clone(signal), tenant));
        }
    }
}

impl Observer for Observers {
    fn observe(&self, attempted: Attempted, took: Duration) {
        let ended = match attempted {
            Attempted::Answered(status) if status.as_u16() < 400 => Ended::Answered,
            Attempted::Answered(_) => Ended::Failed,
            Attempted::TimedOut => Ended::TimedOut,
            Attempted::Abandoned => Ended::Abandoned,
        };
        self.0.iter().for_each(|(signal, tenant)| signal.record(tenant, ended, took));
    }
}

//! Tenants: for whom a limit that follows a measured signal counts, by the first of the values it counts by. Each has a
//! factor of its own, and what the upstream takes for its requests makes that factor.

use std::{sync::Arc, time::Duration};

use crate::{
    limiter::{
        Limit,
        key::Key,
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
    /// Adds the tenant `key` of the `limit` at a place, which it then scales.
    pub fn add(&mut self, place: usize, limit: &Limit, follows: &Follows, key: Key) {
        let tenant = follows.signal.tenant(key);
        self.limits.push((place, Limit { scale: Some(tenant.scale().clone()), ..limit.clone() }));
        self.observers.add(&follows.signal, tenant);
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

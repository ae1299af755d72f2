//! Tenants: for whom a limit that follows a measured signal counts, by the first of the values it counts by. Each has a
//! factor of its own, and what the upstream takes for its requests makes that factor. And what else makes a call's limits
//! other than its route has them.

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

/// The limits of a call that follow the call's own tenant, or that operators changed for a while, by their places among the
/// route's limits. Mostly there are none, and then there is nothing to allocate.
#[derive(Default)]
pub struct Tenants {
    limits: Vec<(usize, Limit)>,
    observers: Observers,
    are_unnoted: bool,
}

/// Tenants that are told how long the upstream takes, each once.
#[derive(Default, Clone)]
pub struct Observers(Vec<(Arc<Measured>, Arc<Tenant>)>);

// === impl Tenants ===

impl Tenants {
    /// Those of a call that is only asked about: nobody takes note of it.
    pub fn unnoted() -> Self {
        Self { are_unnoted: true, ..Self::default() }
    }

    /// Adds the tenant `key` of the `limit` at a place, which it then scales.
    pub fn add(&mut self, place: usize, limit: &Limit, follows: &Follows, key: Key) {
        let scale = if self.are_unnoted {
            follows.signal.scale(key)
        } else {
            let tenant = follows.signal.tenant(key);
            let scale = tenant.scale().clone();
            self.observers.add(&follows.signal, tenant);
            scale
        };
        self.put(place, Limit { scale: Some(scale), ..limit.clone() });
    }

    /// Has a limit stand at a place instead of the route's.
    pub fn put(&mut self, place: usize, limit: Limit) {
        self.limits.push((place, limit));
    }

    /// The limit at a place, where it is not the route's.
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

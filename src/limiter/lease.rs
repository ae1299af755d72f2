//! Who polls a load signal: one replica of the fleet, under a lease in the store.
//!
//! Promised: while the store answers, at most one replica holds a signal's lease, by the store's own clock, and everyone who
//! asks learns the factor that was found last and how old its sample is. A lease that is not renewed is free when its
//! lifetime is over; one that was given up is free at once.
//! Not promised: that anyone holds it. Where there is no store to share, there is nobody to lead, and each replica is on its
//! own.

use std::time::Duration;

use super::{Limiter, Place};
use crate::config::Factor;

/// What a replica says of a signal, and asks for.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The signal's name.
    pub signal: &'a str,
    /// Tells this replica from every other.
    pub caller: u64,
    /// How long the lease is to last without being renewed; zero asks for none, and gives up one's own.
    pub lifetime: Duration,
    /// What the replica found last; heeded where it holds the lease.
    pub reading: Option<Reading>,
}

/// What was found last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The factor in force.
    pub factor: Factor,
    /// The age of the sample it came from.
    pub age: Duration,
}

/// What the store says to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Whether the caller holds the lease.
    pub leads: bool,
    /// What the fleet found last; `None` before the first time.
    pub reading: Option<Reading>,
}

impl Limiter {
    /// Claims, renews or gives up a signal's lease; `None` where no store answers.
    pub async fn lead(&self, claim: &Claim<'_>) -> Option<Answer> {
        let Place::Redis(fleet) = &self.place else { return None };
        fleet.lead(claim).await.map_err(|error| self.failures.count(error)).ok()
    }

    /// Takes over a factor that another replica has published: into the buckets of this process, and to restore it in a
    /// store that loses it.
    pub async fn adopt(&self, scale: &super::scale::ScaleName, factor: Factor) {
        if let Place::Redis(fleet) = &self.place {
            self.failures.count_if(fleet.adopt(scale, factor).await);
        }
    }
}

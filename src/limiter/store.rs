//! What whoever holds buckets is asked, and answers.

use std::{future::Future, time::Duration};

use super::{Charge, Standings, scale::ScaleName};
use crate::config::Factor;

/// A store's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether all limits admitted and all were charged; otherwise none was.
    pub admitted: bool,
    /// When they were charged by the store's clock, in microseconds: a refund names it. 0 where none was.
    pub at: u64,
    /// One for each charge.
    pub standings: Standings,
}

/// Why a store gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It did not answer in time; the charge may have happened.
    #[error("the store did not answer in time")]
    Deadline,
    /// There is no connection to it; where the connection was lost just now, the charge may have happened.
    #[error("the store cannot be reached")]
    Unreachable,
    /// It answered with an error, or with something that is no answer.
    #[error("the store refused or could not be understood")]
    Refused,
    /// There is no room for another bucket.
    #[error("the store is full")]
    Full,
    /// Too many calls await its answers.
    #[error("the store is busy")]
    Busy,
}

/// Where buckets live. Every method is one atomic operation; in a Redis Cluster, as far as [`redis`](super::redis) promises.
pub trait Store: Send + Sync {
    /// Charges all of `charges`, or none if one of them lacks tokens. Keys must differ from each other, and there must be no
    /// more than [`MAX_CHARGES`](super::MAX_CHARGES).
    fn decide(&self, charges: &[Charge<'_>]) -> impl Future<Output = Result<Verdict, StoreError>> + Send {
        self.reserve(charges, Duration::ZERO)
    }

    /// The same, and a bucket may owe what it will have gained `within` that time, and a window takes what it will then have
    /// room for. [`Limiter::reserve`](super::Limiter::reserve) says when to go.
    fn reserve(&self, charges: &[Charge<'_>], within: Duration) -> impl Future<Output = Result<Verdict, StoreError>> + Send;

    /// Gives back what was reserved for `at`, which is `ahead`; says no, and changes nothing, where a bucket owes for longer.
    fn give_back(
        &self,
        charges: &[Charge<'_>],
        at: u64,
        ahead: Duration,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Gives back what the decision at `at` took on [`Terms::Take`](super::Terms::Take); a bucket never holds more than its
    /// capacity, and a window gives no room that it would not have had without that decision.
    fn refund(&self, charges: &[Charge<'_>], at: u64) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// From now on, time runs `factor` times as fast for the limits of `scale`; what passed before is credited as before.
    fn publish(&self, scale: &ScaleName, factor: Factor) -> impl Future<Output = Result<(), StoreError>> + Send;
}

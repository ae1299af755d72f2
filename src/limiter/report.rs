//! What operators are told of the store.

use std::{sync::Arc, time::Duration};

use crate::config::OnFailure;

/// Who decides now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The embedded store.
    Embedded,
    /// Redis.
    Connected,
    /// The policy for when Redis cannot.
    Disconnected(OnFailure),
}

/// What operators are told of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// For how long the status has been what it is.
    pub since: Duration,
    /// Replicas that share the store, as last counted.
    pub replicas: u32,
    /// Why the store last stopped deciding; holds nothing secret.
    pub last_failure: Option<Arc<String>>,
    /// Refusals that are remembered.
    pub denied: usize,
    /// Buckets that were charged in the store's place, which it has yet to learn.
    pub debts: usize,
    /// Buckets held in this process.
    pub buckets: usize,
}

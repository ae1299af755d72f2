//! Who decides while Redis cannot: the policy of `store.on_failure`.
//!
//! Promised: an answer at once, without any I/O. Not promised: the fleet's. Local buckets are this process's own and begin
//! full, so that during an outage each replica admits up to the whole limit.

use prometheus_client::metrics::gauge::Gauge;

use super::{Charge, Charged, Decision, RETRY_AFTER, StoreError, memory::Memory};
use crate::config::{self, OnFailure};

/// Who decides while Redis cannot.
pub(super) enum Fallback {
    /// Buckets in this process.
    Local(Memory),
    /// Nobody; nothing passes.
    Deny,
    /// Nobody; everything passes.
    Allow,
}

// === impl Fallback ===

impl Fallback {
    /// As configured; `held` shows how many buckets there are.
    pub(super) fn new(config: &config::Store, held: Gauge) -> Self {
        match config.on_failure {
            OnFailure::Local => Self::Local(Memory::new(config.max_buckets, held)),
            OnFailure::Deny => Self::Deny,
            OnFailure::Allow => Self::Allow,
        }
    }

    /// The policy it follows.
    pub(super) fn policy(&self) -> OnFailure {
        match self {
            Self::Local(_) => OnFailure::Local,
            Self::Deny => OnFailure::Deny,
            Self::Allow => OnFailure::Allow,
        }
    }

    /// Its buckets, where it has any.
    pub(super) fn memory(&self) -> Option<&Memory> {
        if let Self::Local(memory) = self { Some(memory) } else { None }
    }

    /// Decides in Redis' place; fails only where there is no room for another bucket.
    pub(super) async fn decide(&self, charges: &[Charge<'_>]) -> Result<Decision, StoreError> {
        match self {
            Self::Local(memory) => Decision::by(Charged::Process, memory, charges).await,
            Self::Deny => Ok(Decision::Unavailable { retry_after: RETRY_AFTER }),
            Self::Allow => Ok(Decision::Unlimited),
        }
    }
}

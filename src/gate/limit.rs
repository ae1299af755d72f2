//! What a limit of a route knows at run time.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use super::tenant::Follows;
use crate::{
    clients::Sketch,
    config::Dimension,
    limiter::{
        Limit,
        amendments::{Amendments, Change},
        key::KeyParts,
    },
};

/// A limit as one route applies it.
pub struct RouteLimit {
    /// Stands in metrics, logs and headers.
    pub name: Arc<str>,
    /// Stands in store keys: the same for every route that shares the limit, different from every other limit.
    pub id: String,
    /// Begins the keys of its buckets, by its id.
    pub key: KeyParts,
    /// One bucket for each combination of these.
    pub per: Vec<Dimension>,
    /// What the limiter holds to, unless operators [changed](Self::amended) it for a while.
    pub limit: Limit,
    /// What one request takes, in micro-tokens.
    pub cost: u64,
    /// The measured signal whose factor, for the first of the values it counts by, scales it.
    pub follows: Option<Follows>,
    /// Stands in for a value that a request lacks; `None` refuses the request.
    pub default: Option<String>,
    /// Requests it admitted.
    pub admitted: Counter,
    /// Requests it refused, or would have, where the route's mode is shadow.
    pub refused: Counter,
    /// Who asks it most.
    pub seen: Arc<Sketch>,
}

// === impl RouteLimit ===

impl RouteLimit {
    /// What the limiter holds to at `now`, where that is not what is configured. A change that does not fit the limit, which
    /// a reload may have made another, changes nothing.
    pub fn amended(&self, amendments: &Amendments, now: Instant) -> Option<(Limit, Change)> {
        let change = amendments.change(&self.id, now)?;
        Some((self.limit.with(change.parameters, self.cost)?, *change))
    }
}

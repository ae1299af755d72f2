//! How requests of a route wait instead of being refused.

use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};

use crate::config::WhenLimited;

/// How a route waits, and what it counts.
pub struct Policy {
    /// What is configured.
    pub configured: WhenLimited,
    /// Requests that wait.
    pub waiting: Gauge,
    /// How long those waited that went on.
    pub waited: Histogram,
    /// Requests that waited and went on.
    pub served: Counter,
    /// Requests that went away while they waited.
    pub left: Counter,
    /// Requests refused because the queue was full, or their turn too far away.
    pub refused: Counter,
}

// === impl Policy ===

impl Policy {
    /// Whether one more request may wait.
    pub fn has_room(&self) -> bool {
        self.waiting.get() < i64::from(self.configured.queue)
    }
}

//! What a route does instead of refusing, and the quota that its upstream has published.

use std::time::Duration;

use serde::Serialize;

use super::{TokenBucket, value};

/// `routes.when_limited`: requests over a limit wait for their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WhenLimited {
    /// Longest wait of a request; one that would wait longer is refused at once.
    #[serde(serialize_with = "value::duration")]
    pub wait: Duration,
    /// Most requests of the route that wait, in each replica (1 to 1000000).
    pub queue: u32,
    /// Who goes first, among routes that share all their limits.
    pub priority: Priority,
}

/// Who goes first: a class goes before all below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Somebody waits for the answer.
    High,
    /// The usual.
    Normal,
    /// What can wait: it takes what the others leave.
    Low,
}

/// `routes.max_in_flight`: requests under way at once, in each replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MaxInFlight {
    /// Of the whole route (1 to 1000000).
    pub route: u32,
    /// Of one client (1 to 1000000).
    pub client: u32,
}

/// `published`: what an upstream says it takes: so many requests in any window of so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Published {
    /// Requests (1 to 1000000).
    pub quota: u32,
    /// In any time of this length.
    #[serde(serialize_with = "value::duration")]
    pub window: Duration,
}

// === impl Priority ===

impl Priority {
    /// Every class, the highest first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];
}

// === impl Published ===

impl Published {
    /// The most that a bucket admits in one window: what it holds, and what it gains meanwhile.
    pub fn admitted_by(self, bucket: TokenBucket) -> f64 {
        f64::from(bucket.capacity) + bucket.refill_per_second.as_f64() * self.window.as_secs_f64()
    }

    /// A bucket that keeps within the quota: a tenth of it at once, the rest steadily.
    pub fn bucket(self) -> (u32, f64) {
        let capacity = (self.quota / 10).max(1);
        let rate = f64::from(self.quota - capacity) / self.window.as_secs_f64();
        // Rounded down to what is typed.
        (capacity, (rate * 1000.0).floor() / 1000.0)
    }
}

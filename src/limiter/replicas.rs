//! How many replicas share the store: each says so once a second, in the store, and learns the count in return.
//!
//! Promised: at least 1; a new replica is counted within a second, one that stops cleanly is no longer, one that dies is
//! not after some seconds; while the store is away the count stays what it was, for everyone. A count goes down only once
//! it was lower for as long as a heartbeat counts, so that a store which lost its state makes nobody believe to be alone.
//! Not promised: a count before the store was ever reached: then this replica takes itself to be the only one. Nor that a
//! replica which is cut off alone is still counted by the others after [`LIFETIME`].

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::{MissedTickBehavior, interval};

use super::redis::Redis;

/// Time from heartbeat to heartbeat.
const INTERVAL: Duration = Duration::from_secs(1);

/// Heartbeats that may be missing before a replica is no longer counted, and of which the highest count is believed.
const KEPT: u32 = 3;

/// How long a heartbeat counts.
const LIFETIME: Duration = INTERVAL.saturating_mul(KEPT);

/// The number of replicas, and this one's part in it.
pub(super) struct Replicas {
    /// Random, so that no two are the same.
    name: String,
    counted: AtomicU32,
    gauge: Gauge,
}

impl Replicas {
    /// One replica, until the store was asked; `gauge` shows the count.
    pub(super) fn new(gauge: Gauge) -> Self {
        gauge.set(1);
        Self { name: format!("{:016x}", fastrand::u64(..)), counted: AtomicU32::new(1), gauge }
    }

    /// How many there are; at least 1.
    pub(super) fn counted(&self) -> u32 {
        self.counted.load(Ordering::Relaxed)
    }

    /// Counts as long as it is polled: every second, and at once when the store is back.
    pub(super) async fn keep_counting(&self, redis: &Redis) {
        let mut recent = [1; KEPT as usize];
        let mut up = redis.up();
        let mut beats = interval(INTERVAL);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beats.tick() => {}
                Ok(()) = up.changed() => {}
            }
            if let Ok(count) = redis.beat(&self.name, LIFETIME).await {
                recent.rotate_right(1);
                recent[0] = count;
                let counted = recent.into_iter().fold(1, u32::max);
                self.counted.store(counted, Ordering::Relaxed);
                self.gauge.set(i64::from(counted));
            }
        }
    }

    /// Says that this one is going. Where that fails, the others find out by themselves.
    pub(super) async fn leave(&self, redis: &Redis) {
        let _ = redis.leave(&self.name, LIFETIME).await;
    }
}

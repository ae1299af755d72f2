//! Looking at buckets of this process, and forgetting one.

use super::{Memory, Settled, lock};
use crate::limiter::{Charge, Standings, StoreError, key::Key, scale::ScaleName};

impl Memory {
    /// How buckets stand at a given time, in micro-tokens; full where a charge would ask nothing. Nothing is written.
    pub fn peek_at(&self, charges: &[Charge<'_>], now: u64) -> Result<Standings, StoreError> {
        let locked = self.lock_all(charges)?;
        let settled = self.settle(&locked, charges, now);
        let standing = |(bucket, charge): (&Settled, &Charge<'_>)| {
            if bucket.asked { bucket.standing } else { charge.limit.untouched(bucket.pace.factor) }
        };
        Ok(settled.iter().zip(charges).map(standing).collect())
    }

    /// Since when a scale's factor is in force; `None` where none has been published.
    pub fn epoch(&self, scale: &ScaleName) -> Option<u64> {
        Some(self.timelines.get(scale)?.anchor_real)
    }

    /// Forgets a bucket: it is full from now on.
    pub fn forget(&self, key: Key) {
        if lock(&self.shards[self.shard_of(key)]).buckets.remove(&key).is_some() {
            self.held.dec();
        }
    }
}

//! What operators ask of the fleet: how buckets stand, to fill one, and changes that every replica heeds.

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Fleet;
use crate::limiter::{
    Charge, Standings, StoreError,
    amendments::{AmendError, Entry, READ_INTERVAL},
    fallback::Fallback,
    key::Key,
    peek::{Outlook, Teller},
    scale::ScaleName,
};

impl Fleet {
    /// How buckets stand in Redis, or in what has its place.
    pub(in crate::limiter) async fn peek(&self, charges: &[Charge<'_>]) -> Outlook {
        match self.redis.peek(charges).await {
            Ok(standings) => return Outlook::Standings { standings, by: Teller::Redis },
            Err(error) => self.failures.count(error),
        }
        match &self.fallback {
            Fallback::Local(local) => match local.peek(charges, self.replicas.counted()) {
                Ok(standings) => Outlook::Standings { standings, by: Teller::Local },
                Err(_) => Outlook::Unavailable,
            },
            Fallback::Deny => Outlook::Unavailable,
            Fallback::Allow => Outlook::Unlimited,
        }
    }

    /// Since when Redis has a scale's factor in force for a bucket.
    pub(in crate::limiter) async fn epoch(&self, key: Key, scale: &ScaleName) -> Option<u64> {
        self.redis.epoch(key, scale).await.inspect_err(|error| self.failures.count(*error)).ok().flatten()
    }

    /// The refusal that is remembered.
    pub(in crate::limiter) fn denied(&self, charges: &[Charge<'_>]) -> Option<Standings> {
        self.is_up().then(|| self.denied.refusal(charges, Instant::now())).flatten()
    }

    /// Fills a bucket in Redis, and here.
    pub(in crate::limiter) async fn reset(&self, key: Key) -> Result<(), StoreError> {
        // First what Redis would be told of it.
        self.forget(key);
        self.redis.reset(key).await?;
        self.forget(key);
        Ok(())
    }

    /// Changes the record, and heeds what it then says.
    pub(in crate::limiter) async fn amend(
        &self,
        name: &str,
        text: &str,
        lifetime: std::time::Duration,
    ) -> Result<(), AmendError> {
        let (fits, entries) = self.redis.amend(name, text, lifetime).await?;
        self.heed(&entries);
        if fits { Ok(()) } else { Err(AmendError::Full) }
    }

    /// Reads the record once a second, and at once when Redis is back.
    pub(super) async fn keep_amended(&self) {
        let mut up = self.up();
        let mut readings = interval(READ_INTERVAL);
        readings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = readings.tick() => {}
                Ok(()) = up.changed() => {}
            }
            if let Ok(entries) = self.redis.amendments().await {
                self.heed(&entries);
            }
        }
    }

    fn heed(&self, entries: &[Entry]) {
        let news = self.amended.publish(entries, Instant::now());
        for key in news.resets.iter().filter_map(|key| Key::from_text(key)) {
            self.forget(key);
        }
        if news.has_other_limits {
            self.denied.forget_all();
        }
    }

    /// Forgets all that this replica knows of a bucket.
    fn forget(&self, key: Key) {
        self.denied.forget_key(key);
        if let Some(local) = self.fallback.local() {
            local.forget(key);
        }
    }
}

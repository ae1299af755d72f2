//! Looking without touching: how buckets stand, and what they would answer, while nothing is taken, made or kept longer.

use std::time::{Duration, SystemTime};

use super::{
    Charge, Limiter, Place, Standings,
    amendments::{AmendError, Amendment},
    key::Key,
    micros,
};

/// How long replicas are told of a reset: longer than any of them believes what it remembers of a bucket.
const RESET_TOLD: Duration = Duration::from_secs(15);

/// What a look shows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one, and is never kept")]
pub enum Outlook {
    /// How each bucket stands now; full where a charge would ask nothing of it.
    Standings {
        /// In the order they were asked.
        standings: Standings,
        /// Who says so.
        by: Teller,
    },
    /// Nobody knows, and everything passes.
    Unlimited,
    /// Nobody knows, and nothing passes.
    Unavailable,
}

/// Who knows how a bucket stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Teller {
    /// The embedded store.
    Embedded,
    /// Redis.
    Redis,
    /// This replica, which remembers what Redis refused.
    Denied,
    /// This replica in Redis' place: what is told is its share.
    Local,
}

impl Limiter {
    /// How the buckets of `charges` stand in the store, or in whatever has its place.
    pub async fn peek(&self, charges: &[Charge<'_>]) -> Outlook {
        match &self.place {
            Place::Process(memory) => memory
                .peek_at(charges, memory.now())
                .map_or(Outlook::Unavailable, |standings| Outlook::Standings { standings, by: Teller::Embedded }),
            Place::Redis(fleet) => fleet.peek(charges).await,
        }
    }

    /// What [`decide`](Self::decide) would go by now: what is remembered of a refusal, else what [`peek`](Self::peek) shows.
    pub async fn foresee(&self, charges: &[Charge<'_>]) -> Outlook {
        if let Place::Redis(fleet) = &self.place
            && let Some(standings) = fleet.denied(charges)
        {
            return Outlook::Standings { standings, by: Teller::Denied };
        }
        self.peek(charges).await
    }

    /// Since when the factor is in force that a charge's limit follows, by the store's clock, in microseconds of Unix time:
    /// the same for every replica. `None` where it follows none, where none has been published, and while the store is away.
    pub async fn epoch(&self, charge: &Charge<'_>) -> Option<u64> {
        let scale = charge.limit.scale.as_ref()?;
        match &self.place {
            Place::Process(memory) => {
                let age = memory.now().saturating_sub(memory.epoch(scale)?);
                Some(micros(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?).saturating_sub(age))
            }
            Place::Redis(fleet) => fleet.epoch(charge.key, scale).await,
        }
    }

    /// Fills a bucket, for all replicas: in the store at once, in what they remember of it with their next reading of the
    /// [amendments](super::amendments).
    ///
    /// # Errors
    ///
    /// Where the store cannot be asked; the bucket may then be full or not.
    pub async fn reset(&self, key: Key) -> Result<(), AmendError> {
        match &self.place {
            Place::Process(memory) => {
                memory.forget(key);
                Ok(())
            }
            Place::Redis(fleet) => {
                fleet.reset(key).await?;
                self.amend(&Amendment::Reset { key: key.to_string(), number: fastrand::u64(..) }, RESET_TOLD).await
            }
        }
    }
}

// === impl Teller ===

impl Teller {
    /// Its name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Redis => "redis",
            Self::Denied => "denied_fast",
            Self::Local => "local",
        }
    }
}

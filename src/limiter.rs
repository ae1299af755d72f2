//! Deciding: one question a request, "may it pass against all these limits", answered by whoever can answer it now.
//!
//! Promised: a request is charged against all its limits or against none; a refused request changes nothing anywhere (both
//! across several slots of a Redis Cluster as far as [`redis`] promises); [`Limiter::decide`] answers within the store's
//! deadline whatever state the store is in.
//! Not promised: that an answer from the local fall-back is the fleet's (it is this process's own share of it).
//!
//! `fleet` joins what decides where replicas share a store. [`bucket`], [`window`] and [`scale`] are pure arithmetic and the
//! specification; [`memory`] and `lua/` follow them to the unit.

use std::{sync::Arc, time::Duration};

use arrayvec::ArrayVec;
use prometheus_client::metrics::gauge::Gauge;
use tokio::{sync::watch, time::Instant};

use crate::{
    config::{self, Factor, MAX_LIMITS_PER_ROUTE},
    metrics::Metrics,
    shutdown::Shutdown,
    tls::TlsSetupError,
};

pub mod amendments;
pub mod bucket;
pub mod cooldown;
mod debts;
mod denied;
mod failures;
mod fallback;
mod fleet;
pub mod key;
pub mod latency;
pub mod lease;
mod limit;
pub mod measured;
pub mod memory;
pub mod parameters;
pub mod peek;
pub mod places;
pub mod queue;
pub mod redis;
mod replicas;
mod report;
pub mod scale;
mod store;
mod timelines;
pub mod window;

use amendments::Amended;
use failures::Failures;
use fleet::Fleet;
use key::Key;
pub use limit::{Kind, Limit, waiting};
use memory::Memory;
use places::Places;
pub use report::{Report, Status};
use scale::ScaleName;
pub use store::{Store, StoreError, Verdict};

/// The most charges of one decision: the limits of a route, its cooldown, and the new identities of the address.
pub const MAX_CHARGES: usize = MAX_LIMITS_PER_ROUTE + 2;

/// When to come back where nobody can say.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Decides, by the configured store or in its place.
pub struct Limiter {
    place: Place,
    places: Arc<Places>,
    failures: Failures,
    amended: Arc<Amended>,
    held: Gauge,
    started: Instant,
}

/// Where buckets live.
enum Place {
    Process(Memory),
    Redis(Arc<Fleet>),
}

/// The answer to one request.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// All limits admitted it, and all were charged.
    Admitted {
        /// With it, the charge can be given back.
        receipt: Receipt,
        /// How each limit stands after the charge, in the order they were asked.
        standings: Standings,
    },
    /// A limit lacks tokens or room; none was charged.
    Refused {
        /// How each limit stands, in the order they were asked.
        standings: Standings,
    },
    /// Nobody can decide, and the policy is to let everything pass.
    Unlimited,
    /// Nobody can decide, and the policy is to let nothing pass; or there is no room for another bucket.
    Unavailable {
        /// When it is worth trying again.
        retry_after: Duration,
    },
}

/// Proof of a charge, and of who holds the buckets it was made to.
#[derive(Debug, PartialEq, Eq)]
pub struct Receipt {
    charged: Charged,
    /// When, by the clock of who holds them; of a place, its time.
    at: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Charged {
    Process,
    Redis,
    /// This process in Redis' place, as one of so many replicas.
    Local {
        replicas: u32,
    },
}

/// What one request asks of one limit.
#[derive(Debug, Clone, Copy)]
pub struct Charge<'a> {
    /// The limit.
    pub limit: &'a Limit,
    /// The bucket in it.
    pub key: Key,
    /// What to take, in micro-tokens; at least 1, at most the capacity or the quota.
    pub cost: u64,
    /// Whether it is asked for, and taken.
    pub terms: Terms,
}

/// On what terms a cost is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Terms {
    /// It must be there, and is taken.
    #[default]
    Take,
    /// It must be there, and stays.
    Need,
    /// The same as [`Take`](Self::Take) where the bucket of the charge at this place, one that takes, does not exist yet;
    /// nothing at all where it does.
    TakeIfNew(usize),
}

/// How one bucket or window stands after a decision; or, on terms other than [`Terms::Take`], before it: full where nothing
/// was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What it holds, or has room for, in micro-tokens.
    pub tokens: u64,
    /// What was taken before it was there, in micro-tokens; it then holds nothing. Of a window, what was reserved ahead by
    /// this decision.
    pub owed: u64,
    /// How fast its time runs, or how much of its quota is in force.
    pub factor: Factor,
    /// Of a window, microseconds until it has room for what was asked for, or reserved; where it has already, until something
    /// comes back; 0 where nothing is taken. Always 0 of a bucket, whose wait follows from the rest.
    pub wait: u64,
}

/// How the limits of one request stand, in the order they were asked.
pub type Standings = ArrayVec<Standing, MAX_CHARGES>;

/// A wait as whole seconds of a `Retry-After` header (RFC 9110 section 10.2.3): rounded up, at least 1.
pub fn retry_after_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// A time as whole microseconds.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

// === impl Limiter ===

impl Limiter {
    /// A limiter over the configured store. With Redis, a task keeps the connection up until `shutdown` stops; Redis need
    /// not be there yet.
    ///
    /// # Errors
    ///
    /// Where Redis is to be reached with TLS, and that cannot be set up.
    pub fn start(config: &config::Store, metrics: &Metrics, shutdown: &Shutdown) -> Result<Self, TlsSetupError> {
        let (held, amended) = (metrics.buckets.clone(), Arc::<Amended>::default());
        let places = Places::new(config.redis.is_some());
        let place = if let Some(servers) = &config.redis {
            Place::Redis(Fleet::start(servers, config, Arc::clone(&places), Arc::clone(&amended), metrics, shutdown)?)
        } else {
            metrics.store_up.set(1);
            Place::Process(Memory::new(config.max_buckets, held.clone()))
        };
        Ok(Self { place, places, failures: Failures::new(metrics), amended, held, started: Instant::now() })
    }

    /// Charges all of `charges` or none. Keys must differ from each other; at most [`MAX_CHARGES`].
    pub fn decide(&self, charges: &[Charge<'_>]) -> impl Future<Output = Decision> {
        self.reserve(charges, Duration::ZERO)
    }

    /// The same, but what is not there yet is reserved where it will be `within` that time. What is admitted may go once
    /// [`waiting`] is over, and no sooner.
    pub async fn reserve(&self, charges: &[Charge<'_>], within: Duration) -> Decision {
        let decided = match &self.place {
            Place::Process(memory) => memory
                .reserve_at(charges, micros(within), memory.now())
                .map(|verdict| Decision::by(Charged::Process, verdict)),
            // In a box, so that a request does not carry the room for a conversation that it does not have.
            Place::Redis(fleet) => Box::pin(fleet.reserve(charges, within)).await,
        };
        match decided {
            Ok(Decision::Admitted { receipt, standings }) => {
                let at = receipt.at.saturating_add(micros(waiting(charges, &standings)));
                Decision::Admitted { receipt: Receipt { at, ..receipt }, standings }
            }
            Ok(decision) => decision,
            Err(error) => {
                self.failures.count(error);
                Decision::Unavailable { retry_after: RETRY_AFTER }
            }
        }
    }

    /// Gives back a place that is `ahead`; says no where it is not the last, or where nobody can be asked. It is then its
    /// holder's still.
    pub async fn give_back(&self, receipt: &Receipt, charges: &[Charge<'_>], ahead: Duration) -> bool {
        let given = match &self.place {
            Place::Process(memory) => memory.give_back(charges, receipt.at, ahead).await,
            Place::Redis(fleet) => fleet.give_back(receipt, charges, ahead).await,
        };
        given.unwrap_or_else(|error| {
            self.failures.count(error);
            false
        })
    }

    /// Gives back what `charges` took. Where the store that took it cannot be reached, it is lost: a limit may then admit
    /// less than it could, never more.
    pub async fn refund(&self, receipt: Receipt, charges: &[Charge<'_>]) {
        let refunded = match &self.place {
            Place::Process(memory) => memory.refund(charges, receipt.at).await,
            Place::Redis(fleet) => Box::pin(fleet.refund(&receipt, charges)).await,
        };
        self.failures.count_if(refunded);
    }

    /// From now on, time runs `factor` times as fast for the limits of `scale`. To be repeated from time to time: it renews
    /// the store's record, and heals a publication that failed.
    pub async fn publish(&self, scale: &ScaleName, factor: Factor) {
        let published = match &self.place {
            Place::Process(memory) => memory.publish(scale, factor).await,
            Place::Redis(fleet) => fleet.publish(scale, factor).await,
        };
        self.failures.count_if(published);
    }

    /// Forgets which buckets were empty, because limits may now be others.
    pub fn forget_refusals(&self) {
        if let Place::Redis(fleet) = &self.place {
            fleet.forget_refusals();
        }
    }

    /// Who decides now.
    pub fn status(&self) -> Status {
        match &self.place {
            Place::Process(_) => Status::Embedded,
            Place::Redis(fleet) => fleet.status(),
        }
    }

    /// What operators are told.
    pub fn report(&self) -> Report {
        let buckets = self.buckets();
        match &self.place {
            Place::Process(_) => {
                let since = self.started.elapsed();
                Report { since, replicas: 1, last_failure: None, denied: 0, debts: 0, buckets }
            }
            Place::Redis(fleet) => fleet.report(buckets),
        }
    }

    /// Whether the configured store decides, and when that changes.
    pub fn up(&self) -> watch::Receiver<bool> {
        match &self.place {
            Place::Process(_) => watch::Sender::new(true).subscribe(),
            Place::Redis(fleet) => fleet.up(),
        }
    }

    /// Buckets held in this process.
    pub fn buckets(&self) -> usize {
        usize::try_from(self.held.get()).unwrap_or_default()
    }
}

// === impl Decision ===

impl Decision {
    /// How the limits stand, in the order they were asked; nothing where nobody could say.
    pub fn standings(&self) -> &[Standing] {
        match self {
            Self::Admitted { standings, .. } | Self::Refused { standings } => standings,
            Self::Unlimited | Self::Unavailable { .. } => &[],
        }
    }

    fn by(charged: Charged, Verdict { admitted, at, standings }: Verdict) -> Self {
        if admitted { Self::Admitted { receipt: Receipt { charged, at }, standings } } else { Self::Refused { standings } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_whole_seconds_rounded_up_and_never_zero() {
        let table = [(0, 1), (1, 1), (1_000_000, 1), (1_000_001, 2), (u64::MAX, 18_446_744_073_710)];
        for (micros, seconds) in table {
            assert_eq!(retry_after_seconds(Duration::from_micros(micros)), seconds, "{micros} µs");
        }
    }
}

//! Who decides while Redis cannot: the policy of `store.on_failure`.
//!
//! Promised: an answer at once, without any I/O. With `local`, N replicas that decide for themselves admit together no more
//! than one limit: each holds a share of 1/N of every capacity and rate, N as last [counted](super::replicas). Buckets are
//! warm: they follow what Redis last told of them, so whoever was drained there is drained here. What is admitted here is
//! [charged in Redis](super::debts) when it is back.
//! Not promised: what this replica cannot know. It has not heard of what others took since its own last answer about a
//! bucket, which is at most (N-1)/N of the capacity; and while it is cut off alone, the others still have the whole limit.
//! Of a window: what Redis admitted here is noted a little later than Redis did, and what others took as if it were taken now;
//! so for up to a window's length more may count as taken than is. A refund is not noted. A charge is owed as long as it
//! counts here, and counts in Redis from its payment on.
//! An address that brings new identities here owes nothing for them. A share smaller than one request would never admit any:
//! there each replica may admit one request ahead, and the rate is kept; of a window, by one that is longer in proportion,
//! as long as no factor cuts its quota.
//!
//! A share is not cut out of the limit: instead a request costs N times as much of the whole, which is the same without
//! rounding, and needs no conversion when Redis goes or comes back.

use std::time::Duration;

use arrayvec::ArrayVec;
use prometheus_client::metrics::gauge::Gauge;

use super::{
    Charge, Charged, Decision, Kind, Limit, MAX_CHARGES, RETRY_AFTER, Receipt, Standing, Standings, Store, StoreError,
    Terms, Verdict,
    debts::{Debt, Debts},
    key::Key,
    memory::Memory,
    micros,
    scale::ScaleName,
};
use crate::config::{self, Factor, OnFailure};

/// Who decides while Redis cannot.
pub(super) enum Fallback {
    /// This process.
    Local(Box<Local>),
    /// Nobody; nothing passes.
    Deny,
    /// Nobody; everything passes.
    Allow,
}

/// This replica's share of all limits.
pub(super) struct Local {
    memory: Memory,
    debts: Debts,
}

// === impl Fallback ===

impl Fallback {
    /// As configured; `held` shows how many buckets there are, and `debts` how many of them owe.
    pub(super) fn new(config: &config::Store, held: Gauge, debts: Gauge) -> Self {
        match config.on_failure {
            OnFailure::Local => Self::Local(Box::new(Local {
                memory: Memory::new(config.max_buckets, held),
                debts: Debts::new(config.max_buckets, debts),
            })),
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
    pub(super) fn local(&self) -> Option<&Local> {
        if let Self::Local(local) = self { Some(local) } else { None }
    }

    /// Reserves in Redis' place, as one of `replicas`; fails only where there is no room for another bucket. At most
    /// [`MAX_CHARGES`] charges.
    pub(super) fn reserve(&self, charges: &[Charge<'_>], within: Duration, replicas: u32) -> Result<Decision, StoreError> {
        match self {
            Self::Local(local) => local.reserve(charges, within, replicas),
            Self::Deny => Ok(Decision::Unavailable { retry_after: RETRY_AFTER }),
            Self::Allow => Ok(Decision::Unlimited),
        }
    }
}

// === impl Local ===

impl Local {
    fn reserve(&self, charges: &[Charge<'_>], within: Duration, replicas: u32) -> Result<Decision, StoreError> {
        let limits = limits(charges, replicas);
        let Verdict { admitted, at, standings } =
            self.memory.reserve_at(&shared(charges, &limits, replicas), micros(within), self.memory.now())?;
        let own = |(standing, charge): (_, &Charge<'_>)| own(standing, charge.limit, share(charge, replicas));
        let standings = standings.iter().zip(charges).map(own).collect();
        if !admitted {
            return Ok(Decision::Refused { standings });
        }
        for charge in charges.iter().filter(|charge| charge.terms == Terms::Take) {
            self.debts.add(charge.key, Debt { limit: charge.limit.clone(), amount: charge.cost, replicas });
        }
        Ok(Decision::Admitted { receipt: Receipt { charged: Charged::Local { replicas }, at }, standings })
    }

    /// How buckets stand for one of `replicas`.
    pub(super) fn peek(&self, charges: &[Charge<'_>], replicas: u32) -> Result<Standings, StoreError> {
        let limits = limits(charges, replicas);
        let standings = self.memory.peek_at(&shared(charges, &limits, replicas), self.memory.now())?;
        Ok(standings
            .iter()
            .zip(charges)
            .map(|(standing, charge)| own(standing, charge.limit, share(charge, replicas)))
            .collect())
    }

    /// Fills a bucket, and forgets what it owes.
    pub(super) fn forget(&self, key: Key) {
        let _ = self.debts.take(key);
        self.memory.forget(key);
    }

    /// Gives back what was charged here at `at` as one of `replicas`; answers the charges to buckets that Redis has been told
    /// of meanwhile. A window owes no more than is still taken here, so what is given back here is owed no more; what Redis
    /// has been told of stays there, because Redis cannot know when it was charged.
    pub(super) fn refund<'a>(&self, charges: &[Charge<'a>], replicas: u32, at: u64) -> ArrayVec<Charge<'a>, MAX_CHARGES> {
        let limits = limits(charges, replicas);
        // A refund of as many charges as were admitted cannot fail.
        let _ = self.memory.refund_at(&shared(charges, &limits, replicas), at, self.memory.now());
        let buckets = charges.iter().filter(|charge| matches!(charge.limit.kind, Kind::Bucket(_)));
        buckets.filter(|charge| !self.debts.forgive(charge)).copied().collect()
    }

    /// Gives back a place that was reserved here for `at` as one of `replicas`, where it is the last.
    pub(super) fn give_back(
        &self,
        charges: &[Charge<'_>],
        replicas: u32,
        at: u64,
        ahead: Duration,
    ) -> Result<bool, StoreError> {
        let limits = limits(charges, replicas);
        let shared = shared(charges, &limits, replicas);
        let given = self.memory.give_back_at(&shared, at, micros(ahead), self.memory.now())?;
        if given {
            for charge in charges.iter().filter(|charge| matches!(charge.limit.kind, Kind::Bucket(_))) {
                self.debts.forgive(charge);
            }
        }
        Ok(given)
    }

    /// Takes over what Redis gave back, to buckets: when a window here noted the charge is not known.
    pub(super) fn refunded(&self, charges: &[Charge<'_>]) {
        let _ = self.memory.refund_at(charges, 0, self.memory.now());
    }

    /// Takes over what Redis told of the buckets when it admitted `charges` or refused them. Without room, a bucket is full
    /// when its turn comes.
    pub(super) fn mirror(&self, charges: &[Charge<'_>], admitted: bool, standings: &Standings) {
        // A bucket that is full is not written: it might be new, and a bucket that is held is not.
        let charged = |(charge, standing): &(Charge<'_>, Standing)| {
            charge.terms == Terms::Take && charge.limit.taken(standing, charge.cost) > 0
        };
        let told = charges.iter().copied().zip(standings.iter().copied()).filter(charged);
        let (charges, standings): (ArrayVec<_, MAX_CHARGES>, Standings) = told.unzip();
        let _ = self.memory.mirror_at(&charges, admitted, &standings, self.memory.now());
    }

    /// Takes over a factor that was published.
    pub(super) async fn publish(&self, scale: &ScaleName, factor: Factor) -> Result<(), StoreError> {
        self.memory.publish(scale, factor).await
    }

    /// Leaves a bucket at least `charge.cost` short of full.
    pub(super) fn pause(&self, charge: &Charge<'_>) -> Result<(), StoreError> {
        self.memory.pause(charge)
    }

    /// What Redis has yet to be told.
    pub(super) fn debts(&self) -> &Debts {
        &self.debts
    }

    /// Removes what a bucket owes, to be paid. What it has regained since it no longer owes.
    pub(super) fn take_debt(&self, key: Key) -> Option<Debt> {
        let Debt { limit, amount, replicas } = self.debts.take(key)?;
        let taken = self.memory.taken_at(&limit, key, self.memory.now());
        let amount = amount.min(taken.div_ceil(u64::from(replicas)));
        (amount > 0).then_some(Debt { limit, amount, replicas })
    }
}

/// The limits of `charges`, each with room for one request of one of `replicas`.
fn limits(charges: &[Charge<'_>], replicas: u32) -> ArrayVec<Limit, MAX_CHARGES> {
    let limit = |charge: &Charge<'_>| {
        let mut limit = charge.limit.clone();
        let cost = cost(charge, replicas);
        match &mut limit.kind {
            Kind::Bucket(bucket) => bucket.capacity = bucket.capacity.max(cost),
            // The rate is kept: a quota of so many times as much counts for so many times as long.
            Kind::Window(window) if window.quota < cost => {
                window.length = window.length.saturating_mul(cost.div_ceil(window.quota.max(1)));
                window.quota = cost;
            }
            Kind::Window(_) => {}
        }
        limit
    };
    charges.iter().map(limit).collect()
}

/// `charges` to the whole of `limits` that weigh like charges to a share of them.
fn shared<'a>(charges: &[Charge<'_>], limits: &'a [Limit], replicas: u32) -> ArrayVec<Charge<'a>, MAX_CHARGES> {
    let shared = |(charge, limit): (&Charge<'_>, &'a Limit)| Charge { limit, cost: cost(charge, replicas), ..*charge };
    charges.iter().zip(limits).map(shared).collect()
}

fn cost(charge: &Charge<'_>, replicas: u32) -> u64 {
    charge.cost.saturating_mul(u64::from(share(charge, replicas)))
}

/// Among how many a charge's bucket is divided: what is only needed, and stays, is everyone's.
fn share(charge: &Charge<'_>, replicas: u32) -> u32 {
    if charge.terms == Terms::Need { 1 } else { replicas }
}

/// What a standing of the whole means for one of `replicas`: so much is its own, and a bucket refills so fast.
fn own(standing: &Standing, limit: &Limit, replicas: u32) -> Standing {
    let factor = match limit.kind {
        Kind::Bucket(_) => Factor::new(f64::from(standing.factor.millionths() / replicas) / 1e6),
        Kind::Window(_) => None,
    };
    let share = u64::from(replicas);
    Standing {
        tokens: standing.tokens / share,
        owed: standing.owed.div_ceil(share),
        factor: factor.unwrap_or(standing.factor),
        ..*standing
    }
}

#[cfg(test)]
mod tests;

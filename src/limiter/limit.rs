//! A limit as the engine runs it, whatever its kind, and what the answer of a store means for it.

use std::time::Duration;

use super::{
    Charge, Standing, Terms,
    bucket::{Bucket, Level, MICRO},
    micros,
    scale::{ScaleName, real_wait, scaled_span},
    window::Window,
};
use crate::config::{Factor, LimitKind};

/// A limit as the engine runs it; made once from configuration.
#[derive(Debug, Clone)]
pub struct Limit {
    /// How it measures, and how much there is.
    pub kind: Kind,
    /// Which published factor it follows, a bucket with its time and a window with its quota; `None` for none.
    pub scale: Option<ScaleName>,
    /// The lowest factor its scale can take: how long a bucket may need to fill, and so how long it must be kept; and below
    /// which a window's quota does not fall.
    pub slowest: Factor,
}

/// How a limit measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// By tokens that come back steadily.
    Bucket(Bucket),
    /// By what was taken in the last stretch of time.
    Window(Window),
}

/// How long a request that was admitted has to wait until all that it took is there; zero where it may go.
pub fn waiting(charges: &[Charge<'_>], standings: &[Standing]) -> Duration {
    let wait = |(charge, standing): (&Charge<'_>, &Standing)| {
        // What was taken is in what the bucket owes.
        let missing = if charge.terms == Terms::Take { 0 } else { charge.cost };
        charge.limit.wait(standing, missing)
    };
    charges.iter().zip(standings).map(wait).max().unwrap_or_default()
}

// === impl Limit ===

impl Limit {
    /// The whole tokens at `factor`, at least 1: those that come back in the time in which a bucket fills at 1, or the quota
    /// in force of a window.
    pub fn quota(&self, factor: Factor) -> u64 {
        match self.kind {
            Kind::Bucket(bucket) => {
                let micro = u128::from(bucket.capacity) * u128::from(factor.millionths()) / u128::from(MICRO);
                u64::try_from(micro / u128::from(MICRO)).unwrap_or(u64::MAX).max(1)
            }
            Kind::Window(window) => window.in_force(factor, self.slowest, 0) / MICRO,
        }
    }

    /// How a limit stands from which nothing is taken.
    pub fn untouched(&self, factor: Factor) -> Standing {
        let tokens = match self.kind {
            Kind::Bucket(bucket) => bucket.capacity,
            Kind::Window(window) => window.in_force(factor, self.slowest, 0),
        };
        Standing { tokens, owed: 0, factor, wait: 0 }
    }

    /// What is taken from a limit that stands so after it was asked for `cost`, in micro-tokens; of a bucket, what it lacks;
    /// with what is owed.
    pub fn taken(&self, standing: &Standing, cost: u64) -> u64 {
        let most = match self.kind {
            Kind::Bucket(bucket) => bucket.capacity,
            Kind::Window(window) => window.in_force(standing.factor, self.slowest, cost),
        };
        most.saturating_sub(standing.tokens).saturating_add(standing.owed)
    }

    /// How a limit stands that stood so when it admitted `cost`: what it did not have is owed.
    pub fn charged(&self, standing: Standing, cost: u64) -> Standing {
        let wait = match self.kind {
            Kind::Window(window) if standing.wait == 0 => window.length,
            _ => standing.wait,
        };
        let owed = standing.owed.saturating_add(cost.saturating_sub(standing.tokens));
        Standing { tokens: standing.tokens.saturating_sub(cost), owed, wait, ..standing }
    }

    /// How a limit stands that stood so when `cost`, which it had admitted, was given back at once.
    pub fn given_back(&self, standing: Standing, cost: u64) -> Standing {
        let wait = if self.taken(&standing, cost) > cost { standing.wait } else { 0 };
        let tokens = standing.tokens + cost.saturating_sub(standing.owed);
        Standing { tokens, owed: standing.owed.saturating_sub(cost), wait, ..standing }
    }

    /// How a limit stands so much later, if nobody takes anything. Of a window that admitted ahead, no more is known than when
    /// that will count no more.
    pub fn later(&self, standing: &Standing, elapsed: Duration) -> Standing {
        match self.kind {
            Kind::Bucket(bucket) => {
                let level = Level { tokens: standing.tokens, owed: standing.owed, at: 0 };
                let level = bucket.settle(level, scaled_span(micros(elapsed), standing.factor));
                Standing { tokens: level.tokens, owed: level.owed, ..*standing }
            }
            Kind::Window(window) => {
                let left = standing.wait.checked_sub(micros(elapsed));
                let over = (standing.wait + window.length).saturating_sub(micros(elapsed));
                match left {
                    Some(wait) => Standing { wait, ..*standing },
                    None if standing.owed > 0 => Standing { owed: 0, wait: over, ..*standing },
                    None => Standing { wait: 0, ..*standing },
                }
            }
        }
    }

    /// The real time until `cost`, which was asked for, is there beside what is owed: zero when it is, and exact as long as the
    /// factor stays what it is. Of a bucket, any cost will do.
    pub fn wait(&self, standing: &Standing, cost: u64) -> Duration {
        Duration::from_micros(match self.kind {
            Kind::Bucket(bucket) => {
                let amount = cost.saturating_add(standing.owed);
                real_wait(bucket.wait(standing.tokens, amount), standing.factor)
            }
            Kind::Window(_) if standing.owed == 0 && standing.tokens >= cost => 0,
            Kind::Window(_) => standing.wait,
        })
    }

    /// The real time until there is one whole token more than there is, or after a refusal as much as was asked for: zero
    /// when there is all there can be.
    pub fn until_next_token(&self, standing: &Standing) -> Duration {
        match self.kind {
            Kind::Bucket(bucket) => {
                let next = (standing.tokens / MICRO + 1) * MICRO;
                self.wait(standing, next.min(bucket.capacity))
            }
            Kind::Window(_) => Duration::from_micros(standing.wait),
        }
    }
}

// === impl Kind ===

impl Kind {
    /// The most that can be asked for, in micro-tokens: a bucket's capacity, or a window's quota.
    pub fn most(self) -> u64 {
        match self {
            Self::Bucket(bucket) => bucket.capacity,
            Self::Window(window) => window.quota,
        }
    }
}

impl From<LimitKind> for Kind {
    fn from(configured: LimitKind) -> Self {
        match configured {
            LimitKind::TokenBucket(bucket) => Self::Bucket(bucket.into()),
            LimitKind::SlidingWindow(window) => Self::Window(window.into()),
        }
    }
}

impl From<Bucket> for Kind {
    fn from(bucket: Bucket) -> Self {
        Self::Bucket(bucket)
    }
}

impl From<Window> for Kind {
    fn from(window: Window) -> Self {
        Self::Window(window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit() -> Limit {
        Limit { kind: Bucket { capacity: 10 * MICRO, rate: 2 * MICRO }.into(), scale: None, slowest: Factor::ONE }
    }

    #[test]
    fn waits_are_real_time_and_exact() {
        // Micro-tokens there, factor → until one token fits, until there is a whole one more; in microseconds.
        let table = [
            (0, 1.0, 500_000, 500_000),
            (0, 0.2, 2_500_000, 2_500_000),
            (0, 1.5, 333_334, 333_334),
            (999_999, 1.0, 1, 1),
            (1_000_000, 1.0, 0, 500_000),
            (9_500_000, 1.0, 0, 250_000),
            (10_000_000, 1.0, 0, 0),
        ];
        for (tokens, factor, fits, next) in table {
            let standing = Standing { tokens, owed: 0, factor: Factor::new(factor).unwrap(), wait: 0 };
            assert_eq!(limit().wait(&standing, MICRO), Duration::from_micros(fits), "{standing:?}");
            assert_eq!(limit().until_next_token(&standing), Duration::from_micros(next), "{standing:?}");
        }
    }

    #[test]
    fn what_is_taken_from_a_window_counts_against_the_quota_in_force() {
        let window = Window { quota: 100 * MICRO, length: 60 * MICRO };
        let limit = Limit { kind: window.into(), scale: None, slowest: Factor::new(0.05).unwrap() };
        // Factor, micro-tokens there, cost asked for → the quota in force, what is taken.
        let table =
            [(1.0, 90, 1, 100, 10), (0.255, 0, 1, 25, 25), (0.001, 5, 1, 5, 0), (0.05, 0, 8, 5, 8), (1.5, 50, 1, 150, 100)];
        for (factor, tokens, cost, in_force, taken) in table {
            let standing = Standing { tokens: tokens * MICRO, owed: 0, factor: Factor::new(factor).unwrap(), wait: 7 };
            assert_eq!(limit.untouched(standing.factor).tokens, in_force * MICRO, "{factor}");
            assert_eq!(limit.taken(&standing, cost * MICRO), taken * MICRO, "{factor}");
        }
    }
}

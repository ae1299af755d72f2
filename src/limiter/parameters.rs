//! Other parameters of a limit for a while: what becomes of what is held under the configured ones, and back.
//!
//! A change touches no bucket, so it begins and ends for all of them at once. A bucket keeps the tokens it holds, cut to the
//! capacity in force; from its last charge on it gains at the rate in force. A window keeps its log, and holds it to the
//! quota in force.
//!
//! Promised: within a change nothing is admitted beyond its own capacity + rate × time, or its own quota. In a stretch of time
//! that holds its begin, its end, or both, no more than the larger of both capacities + the higher of both rates × time
//! would, nor more than the larger quota in any one window: a bucket is [kept](Limit::with) until it is full under either.
//! Not promised: the same across two changes that follow each other within the time in which a bucket fills, nor while
//! replicas do not all know of a change. A bucket that is not kept was full, and is full under what is in force.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Kind, Limit,
    bucket::{Bucket, MICRO},
    scale::real_wait,
    window::Window,
};
use crate::config::Factor;

/// The largest capacity, rate and quota, in micro-tokens.
const MOST: u64 = MICRO * MICRO;

/// What a limit has for a while in place of what is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parameters {
    /// Of a bucket.
    TokenBucket {
        /// The most it holds, in micro-tokens (1 to 10¹²).
        capacity: u64,
        /// What it gains, in micro-tokens a second (1 to 10¹²).
        rate: u64,
    },
    /// Of a window, whose length stays what it is.
    SlidingWindow {
        /// What may be taken in one window, in micro-tokens (whole tokens, 1 to 10⁶ of them).
        quota: u64,
    },
}

// === impl Parameters ===

impl Parameters {
    /// Those of a limit as it is configured.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::Bucket(Bucket { capacity, rate }) => Self::TokenBucket { capacity, rate },
            Kind::Window(window) => Self::SlidingWindow { quota: window.quota },
        }
    }

    /// The longest that a bucket takes to fill while its time runs no slower than `slowest`.
    pub fn longest_fill(self, slowest: Factor) -> Duration {
        match self {
            Self::TokenBucket { capacity, rate } => {
                Duration::from_micros(real_wait(Bucket { capacity, rate }.wait(0, capacity), slowest))
            }
            Self::SlidingWindow { .. } => Duration::ZERO,
        }
    }

    fn are_in_bounds(self) -> bool {
        match self {
            Self::TokenBucket { capacity, rate } => (1..=MOST).contains(&capacity) && (1..=MOST).contains(&rate),
            Self::SlidingWindow { quota } => (MICRO..=MOST).contains(&quota) && quota % MICRO == 0,
        }
    }
}

// === impl Limit ===

impl Limit {
    /// The same limit with other parameters; `None` where they are those of another kind, or out of bounds, or where a request
    /// that takes `cost` would never fit.
    ///
    /// Its `slowest` is such that stores keep a bucket, from which at least `cost` was taken, for as long as it is not full
    /// under what is configured either.
    #[must_use]
    pub fn with(&self, parameters: Parameters, cost: u64) -> Option<Self> {
        if !parameters.are_in_bounds() {
            return None;
        }
        let (kind, slowest) = match (self.kind, parameters) {
            (Kind::Bucket(configured), Parameters::TokenBucket { capacity, rate }) => {
                (Kind::from(Bucket { capacity, rate }), self.slowest_with(configured, capacity, rate, cost))
            }
            (Kind::Window(configured), Parameters::SlidingWindow { quota }) => {
                (Kind::from(Window { quota, ..configured }), self.slowest)
            }
            _ => return None,
        };
        (cost <= kind.most()).then(|| Self { kind, scale: self.scale.clone(), slowest })
    }

    /// At its own rate a bucket lacks `lacks` for lacks ÷ (rate × slowest). As long at least must last what it lacks of the
    /// configured capacity at the lower rate; the less it lacks, the more that is beside it, and it lacks no less than `cost`.
    fn slowest_with(&self, configured: Bucket, capacity: u64, rate: u64, cost: u64) -> Factor {
        let lacks = u128::from(cost.max(1));
        let lacks_as_configured = lacks + u128::from(configured.capacity.saturating_sub(capacity));
        let slower = u128::from(self.slowest.millionths()) * u128::from(rate.min(configured.rate)) / u128::from(rate);
        let millionths = u32::try_from(slower * lacks / lacks_as_configured).unwrap_or(u32::MAX);
        Factor::new(f64::from(millionths) / 1e6).unwrap_or(Factor::MIN)
    }
}

#[cfg(test)]
mod tests;

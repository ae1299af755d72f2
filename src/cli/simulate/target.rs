//! The smallest change of one limit alone by which it refuses less than a share of all requests.
//!
//! Varied are: of a token bucket, its capacity in whole tokens while its rate stays, and its rate, to a hundredth of itself,
//! while its capacity stays; of a sliding window, its quota. A change is named only where it suffices, and the next smaller
//! one that was tried does not. Another limit may refuse more for it: what passes one limit meets the next. Tried are only the
//! requests that a change can [concern](mod@super::concerned).

use std::{panic::resume_unwind, thread};

use super::{
    course::{Outcome, run},
    traffic::{Arrival, Traffic},
};
use crate::limiter::{
    Kind,
    bucket::{Bucket, MICRO},
    window::Window,
};

/// The largest capacity, rate or quota that a configuration can have, in tokens.
const MOST_TOKENS: u64 = 1_000_000;

/// What would do for one limit.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change {
    /// Which route's, and which.
    pub(super) limit: String,
    /// The key that is varied.
    pub(super) key: &'static str,
    pub(super) from: f64,
    /// `None` where nothing that can be configured would do.
    pub(super) to: Option<f64>,
}

/// A limit that refuses too much.
pub(super) struct Culprit<'a> {
    /// Route and limit.
    pub(super) name: String,
    /// Of the limit.
    pub(super) id: &'a str,
    pub(super) kind: Kind,
}

/// How much a limit may refuse.
pub(super) struct Target<'a> {
    pub(super) traffic: &'a Traffic,
    /// Those that a looser limit can concern.
    pub(super) arrivals: Vec<Arrival>,
    pub(super) max_buckets: usize,
    /// The fewest refusals that are too many.
    pub(super) too_many: u64,
}

// === impl Target ===

impl Target<'_> {
    /// What would do for one limit, each change by itself.
    pub(super) fn changes(&self, culprit: &Culprit<'_>) -> Vec<Change> {
        let change = |key, from: u64, to: Option<u64>| Change {
            limit: culprit.name.clone(),
            key,
            from: tokens(from),
            to: to.map(tokens),
        };
        match culprit.kind {
            Kind::Bucket(bucket) => {
                let by_capacity = |capacity| Kind::Bucket(Bucket { capacity, ..bucket });
                let by_rate = |rate| Kind::Bucket(Bucket { rate, ..bucket });
                let (capacity, rate) = both(
                    || self.smallest(culprit.id, bucket.capacity, |_| MICRO, by_capacity),
                    || self.smallest(culprit.id, bucket.rate, |rate| (rate / 100).max(1), by_rate).map(rounded_up),
                );
                vec![
                    change("token_bucket.capacity", bucket.capacity, capacity),
                    change("token_bucket.refill_per_second", bucket.rate, rate),
                ]
            }
            Kind::Window(window) => {
                let quota =
                    self.smallest(culprit.id, window.quota, |_| MICRO, |quota| Kind::Window(Window { quota, ..window }));
                vec![change("sliding_window.quota", window.quota, quota)]
            }
        }
    }

    /// The smallest value above `current`, in micro-tokens, that suffices, to within `step` of it.
    fn smallest(&self, id: &str, current: u64, step: impl Fn(u64) -> u64, kind: impl Fn(u64) -> Kind) -> Option<u64> {
        let suffices = |value| self.suffices(id, kind(value));
        let (mut below, mut above) = (current, current);
        loop {
            if above >= MOST_TOKENS * MICRO {
                return None;
            }
            above = (above * 2).min(MOST_TOKENS * MICRO);
            if suffices(above) {
                break;
            }
            below = above;
        }
        while above - below > step(above) {
            let middle = below + (above - below) / 2;
            let middle = if step(middle) == MICRO { middle.next_multiple_of(MICRO) } else { middle };
            if suffices(middle) { above = middle } else { below = middle }
        }
        Some(above)
    }

    /// Whether limits of this id refuse few enough, were they of this kind.
    fn suffices(&self, id: &str, kind: Kind) -> bool {
        let mut refused = 0;
        run(self.traffic, &self.arrivals, self.max_buckets, Some((id, kind)), |arrival, outcome| {
            if let Outcome::Refused(place) = outcome {
                refused += u64::from(self.traffic.routes[usize::from(arrival.route)].slots[place].id == id);
            }
            refused < self.too_many
        });
        refused < self.too_many
    }
}

/// Does two things at once.
fn both<T: Send>(one: impl FnOnce() -> T, other: impl FnOnce() -> T + Send) -> (T, T) {
    thread::scope(|scope| {
        let other = scope.spawn(other);
        (one(), other.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// A rate of three digits that is at least this one.
fn rounded_up(rate: u64) -> u64 {
    rate.next_multiple_of(10_u64.pow(rate.max(1).ilog10().saturating_sub(2)))
}

#[expect(clippy::cast_precision_loss, reason = "10¹² fits a double exactly")]
fn tokens(micro: u64) -> f64 {
    micro as f64 / 1e6
}

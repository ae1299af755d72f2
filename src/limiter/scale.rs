//! Scaled time: how a load signal slows buckets down or speeds them up.
//!
//! A scaled limit runs on a clock of its own, which runs `factor` times as fast as the real one; on that clock its buckets
//! always refill at their configured rate. So a change of the factor touches no bucket: it applies at once to all of them,
//! keeps the tokens that are there, credits the time already passed at the old factor, and grants no burst; any number of
//! changes between two requests is credited exactly. All a store keeps for it is one small record, a [`Timeline`].
//!
//! - Without a record the factor is 1 and scaled time is real time.
//! - When a record is lost, scaled time jumps back to real time. Buckets written in what is now the future do not refill,
//!   buckets written in what is now the far past are full. Either lasts no longer than a bucket's time to fill at its
//!   slowest, because buckets are kept no longer than that; and the factor is back with the next publication.
//! - Should the real clock step back, scaled time follows it, but never behind the last change of the factor: there it
//!   stands still until the next publication. Either way no bucket's time goes back.
//! - Redis computes in doubles: scaled time is exact below 2⁵³ µs, which a clock at a steady 1.5 reaches in 150 years.

use std::{fmt, sync::Arc};

use super::{bucket::MICRO, key::Key};
use crate::config::Factor;

/// Names a set of load signals, the lowest of whose factors counts; limits with the same set share a clock. Or one tenant of
/// a measured signal, which has a clock of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScaleName {
    name: Arc<str>,
    tenant: Option<Key>,
}

/// A clock that runs `factor` times as fast as the real one since it passed its anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeline {
    /// How fast it runs.
    pub factor: Factor,
    /// What it showed at the anchor, in microseconds.
    pub anchor_scaled: u64,
    /// What the real clock showed then, in microseconds.
    pub anchor_real: u64,
}

/// The real time in which a clock at `factor` advances by `scaled`, in microseconds, rounded up.
pub fn real_wait(scaled: u64, factor: Factor) -> u64 {
    if factor == Factor::ONE {
        return scaled;
    }
    let real = (u128::from(scaled) * u128::from(MICRO)).div_ceil(u128::from(factor.millionths()));
    u64::try_from(real).unwrap_or(u64::MAX)
}

/// What a clock at `factor` advances by in `real` time, in microseconds, rounded down.
pub fn scaled_span(real: u64, factor: Factor) -> u64 {
    if factor == Factor::ONE {
        return real;
    }
    let scaled = u128::from(real) * u128::from(factor.millionths()) / u128::from(MICRO);
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

// === impl ScaleName ===

impl ScaleName {
    /// The name of the set of `signals`, whatever their order; `None` for no signal.
    pub fn of<'a>(signals: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut signals: Vec<&str> = signals.into_iter().collect();
        signals.sort_unstable();
        signals.dedup();
        (!signals.is_empty()).then(|| Self { name: signals.join("+").into(), tenant: None })
    }

    /// The name of one tenant of the measured signal `signal`. No signal's own name holds an @.
    pub fn of_tenant(signal: &str, tenant: Key) -> Self {
        Self { name: format!("{signal}@{tenant}").into(), tenant: Some(tenant) }
    }

    /// The tenant whose clock this is; `None` where it is everyone's.
    pub fn tenant(&self) -> Option<Key> {
        self.tenant
    }

    /// As it stands in store keys.
    pub fn as_str(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for ScaleName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

// === impl Timeline ===

impl Timeline {
    /// Real time.
    pub const REAL: Self = Self { factor: Factor::ONE, anchor_scaled: 0, anchor_real: 0 };

    /// What it shows when the real clock shows `now`.
    pub fn scaled(self, now: u64) -> u64 {
        self.anchor_scaled.saturating_add(scaled_span(now.saturating_sub(self.anchor_real), self.factor))
    }

    /// The same clock, running at `factor` from `now` on.
    #[must_use]
    pub fn switch(self, now: u64, factor: Factor) -> Self {
        if factor == self.factor && now >= self.anchor_real {
            return self;
        }
        Self { factor, anchor_scaled: self.scaled(now), anchor_real: now }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn factor(value: f64) -> Factor {
        Factor::new(value).unwrap()
    }

    fn any_factor() -> impl Strategy<Value = Factor> {
        prop_oneof![0.05..1.5, 0.000_001..100.0, Just(1.0)].prop_map(factor)
    }

    #[test]
    fn each_stretch_counts_at_its_own_factor() {
        let busy = Timeline::REAL.switch(100 * MICRO, factor(0.2));
        let idle = busy.switch(110 * MICRO, factor(1.5));
        assert_eq!(busy.scaled(105 * MICRO), 101 * MICRO);
        assert_eq!(idle.scaled(110 * MICRO), 102 * MICRO);
        assert_eq!(idle.scaled(112 * MICRO), 105 * MICRO);
    }

    #[test]
    fn a_clock_that_stepped_back_stands_still_until_the_next_publication() {
        let line = Timeline::REAL.switch(100 * MICRO, factor(0.5));
        assert_eq!(line.scaled(60 * MICRO), 100 * MICRO);
        assert_eq!(line.switch(60 * MICRO, factor(0.5)).scaled(62 * MICRO), 101 * MICRO);
    }

    #[test]
    fn a_set_of_signals_has_one_name() {
        assert_eq!(ScaleName::of(["queue", "backend", "queue"]), ScaleName::of(["backend", "queue"]));
        assert_eq!(ScaleName::of(["queue", "backend"]).unwrap().as_str(), "backend+queue");
        assert_eq!(ScaleName::of([]), None);
    }

    proptest! {
        #[test]
        fn a_switch_moves_no_time_and_publishing_the_same_factor_changes_nothing(
            (first, second) in (any_factor(), any_factor()), begin in 0..1_u64 << 50, pause in 0..1_u64 << 40,
        ) {
            let line = Timeline::REAL.switch(begin, first);
            let now = begin + pause;
            prop_assert_eq!(line.switch(now, second).scaled(now), line.scaled(now));
            prop_assert_eq!(line.switch(now, first), line);
        }

        #[test]
        fn scaled_time_goes_back_with_the_real_clock_alone_and_never_behind_a_change(
            first in any_factor(), begin in 0..1_u64 << 50,
            steps in prop::collection::vec((any_factor(), 0..1_u64 << 40, 0..1_u64 << 50), 1..20),
        ) {
            let mut line = Timeline::REAL.switch(begin, first);
            let mut now = begin;
            for (next, pause, any) in steps {
                prop_assert!(line.scaled(now + pause) >= line.scaled(now));
                prop_assert!(line.scaled(any) >= line.anchor_scaled);
                now += pause;
                line = line.switch(now, next);
            }
        }

        #[test]
        fn a_real_wait_is_enough_wherever_it_begins(
            speed in any_factor(), begin in 0..1_u64 << 50, pause in 0..1_u64 << 40, scaled in 0..1_u64 << 40,
        ) {
            let line = Timeline::REAL.switch(begin, speed);
            let now = begin + pause;
            prop_assert!(line.scaled(now + real_wait(scaled, speed)) - line.scaled(now) >= scaled);
        }
    }
}

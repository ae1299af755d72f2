//! The token bucket, as integer arithmetic: the specification that every store follows to the unit.
//!
//! Tokens are counted in micro-tokens and time in microseconds, so nothing is ever rounded but one division. It rounds
//! down: each write of a bucket forgets less than one micro-token of what accrued. Promised: over any stretch of time a
//! bucket admits at most what it held at its beginning plus rate × time. Not promised: that it admits the last millionth
//! of a token of that.
//!
//! A place may be [reserved](Bucket::reserve) before its tokens are there: the bucket then owes them, and gains nothing until
//! it has made up for them. All that is taken in any stretch of time, each at the time for which it was taken, is held to the
//! same promise.
//!
//! A bucket knows no clock. What its time is, and how fast it runs, is [`scale`](super::scale)'s business.

use crate::config::TokenBucket;

/// Micro-tokens in a token, and microseconds in a second.
pub const MICRO: u64 = 1_000_000;

/// The most that a bucket may owe, in micro-tokens; stores keep no more bytes for it.
pub const OWED_MAX: u64 = MICRO * MICRO;

/// The longest time ahead of which a place is reserved, in microseconds: an hour. So long a product of times still fits where
/// scripts reckon.
pub const AHEAD_MAX: u64 = 3600 * MICRO;

/// Capacity and refill rate of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// The most it holds, in micro-tokens (1 to 10¹²).
    pub capacity: u64,
    /// What it gains, in micro-tokens a second (1 to 10¹²).
    pub rate: u64,
}

/// What a bucket held at a moment of its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// In micro-tokens; 0 where it owes.
    pub tokens: u64,
    /// Micro-tokens that were taken before they were there.
    pub owed: u64,
    /// In microseconds.
    pub at: u64,
}

// === impl Bucket ===

impl Bucket {
    /// A full bucket: what one is before it is first charged, and after it was forgotten.
    pub fn full(self, now: u64) -> Level {
        Level { tokens: self.capacity, owed: 0, at: now }
    }

    /// What it gains in `time`, in micro-tokens, rounded down.
    pub fn gain(self, time: u64) -> u64 {
        u64::try_from(u128::from(time) * u128::from(self.rate) / u128::from(MICRO)).unwrap_or(u64::MAX)
    }

    /// The level at `now`. Time never goes back: a `now` before the level's own changes nothing.
    pub fn settle(self, level: Level, now: u64) -> Level {
        let gained = self.gain(now.saturating_sub(level.at));
        self.refund(Level { at: level.at.max(now), ..level }, gained)
    }

    /// A settled level less `cost`; `None` where it does not hold so much.
    pub fn charge(self, level: Level, cost: u64) -> Option<Level> {
        self.reserve(level, cost, 0)
    }

    /// A settled level less `cost`, which it may owe as far as it makes up for all it owes within so many microseconds: they
    /// are how long to [wait](Self::wait) for `cost`. `None` where that takes longer.
    pub fn reserve(self, level: Level, cost: u64, within: u64) -> Option<Level> {
        let missing = level.owed.saturating_add(cost.saturating_sub(level.tokens));
        let most = self.gain(within).min(OWED_MAX);
        (missing <= most).then_some(Level { tokens: level.tokens.saturating_sub(cost), owed: missing, at: level.at })
    }

    /// A settled level with `cost` given back. What would overflow is lost.
    pub fn refund(self, level: Level, cost: u64) -> Level {
        let tokens = level.tokens.saturating_add(cost.saturating_sub(level.owed)).min(self.capacity);
        Level { tokens, owed: level.owed.saturating_sub(cost), at: level.at }
    }

    /// The same for what was reserved, and whose time is `ahead` microseconds away; `None` where the bucket owes for longer.
    /// Then somebody's place is behind it, and giving it back would let another have a time that is taken.
    pub fn give_back(self, level: Level, cost: u64, ahead: u64) -> Option<Level> {
        (level.owed <= self.gain(ahead)).then(|| self.refund(level, cost))
    }

    /// How long until a bucket that now holds `tokens` holds `amount`, to the microsecond of its own time: one less is not
    /// enough. An amount above the capacity is never there, so it must not be asked for.
    pub fn wait(self, tokens: u64, amount: u64) -> u64 {
        let missing = u128::from(amount.saturating_sub(tokens)) * u128::from(MICRO);
        u64::try_from(missing.div_ceil(u128::from(self.rate.max(1)))).unwrap_or(u64::MAX)
    }
}

impl From<TokenBucket> for Bucket {
    fn from(configured: TokenBucket) -> Self {
        Self {
            capacity: u64::from(configured.capacity) * MICRO,
            rate: configured.refill_per_second.micro_tokens_per_second(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ten tokens, two a second: the numbers of a guest.
    const GUEST: Bucket = Bucket { capacity: 10 * MICRO, rate: 2 * MICRO };

    fn any_bucket() -> impl Strategy<Value = Bucket> {
        let magnitude = || prop_oneof![1..10_u64, 1..MICRO, 1..=MICRO * MICRO];
        (magnitude(), magnitude()).prop_map(|(capacity, rate)| Bucket { capacity, rate })
    }

    #[test]
    fn a_guest_drains_waits_and_comes_back() {
        // At, cost → what is left, or how long to wait.
        let table = [
            (0, MICRO, Ok(9 * MICRO)),
            (0, 9 * MICRO, Ok(0)),
            (0, MICRO, Err(500_000)),
            (499_999, MICRO, Err(1)),
            (500_000, MICRO, Ok(0)),
            (400_000, MICRO, Err(500_000)),
            (1_250_000, MICRO, Ok(500_000)),
            (86_400_000_000, 10 * MICRO, Ok(0)),
        ];
        let mut level = GUEST.full(0);
        for (now, cost, expected) in table {
            let settled = GUEST.settle(level, now);
            let decided = GUEST.charge(settled, cost);
            level = decided.unwrap_or(level);
            assert_eq!(decided.map(|left| left.tokens).ok_or(GUEST.wait(settled.tokens, cost)), expected, "at {now}");
        }
    }

    #[test]
    fn a_refund_never_fills_above_the_capacity() {
        let level = Level { tokens: 9 * MICRO, owed: 0, at: 7 };
        assert_eq!(GUEST.refund(level, 3 * MICRO), GUEST.full(7));
    }

    #[test]
    fn a_smaller_capacity_holds_at_once() {
        let level = Level { tokens: 50 * MICRO, owed: 0, at: 7 };
        assert_eq!(GUEST.settle(level, 7), GUEST.full(7));
    }

    #[test]
    fn places_lie_one_after_the_other_and_only_the_last_is_given_back() {
        let (second, mut level) = (MICRO, Level { tokens: 0, owed: 0, at: 0 });
        for place in 1..=6 {
            let before = level;
            level = GUEST.reserve(level, MICRO, 3 * second).unwrap();
            assert_eq!(GUEST.wait(before.tokens, MICRO + before.owed), place * 500_000, "place {place}");
        }
        assert_eq!(GUEST.reserve(level, MICRO, 3 * second), None, "beyond three seconds");
        assert_eq!(GUEST.give_back(level, MICRO, 2_999_999), None, "somebody is behind");
        assert_eq!(GUEST.give_back(level, MICRO, 3 * second).unwrap().owed, 5 * MICRO);
        assert_eq!(GUEST.settle(level, 3 * second), Level { tokens: 0, owed: 0, at: 3 * second });
        assert_eq!(GUEST.settle(level, 4 * second), Level { tokens: 2 * MICRO, owed: 0, at: 4 * second });
        assert_eq!(GUEST.refund(level, 7 * MICRO), Level { tokens: MICRO, owed: 0, at: 0 });
    }

    proptest! {
        #[test]
        fn what_is_reserved_passes_when_an_admission_would_and_never_later_than_asked(
            bucket in any_bucket(), steps in prop::collection::vec((0..5_000_000_u64, 1..=100_u64, 0..9_000_000_u64), 1..80),
        ) {
            let (mut level, mut now) = (bucket.full(0), 0);
            let mut passed: Vec<(u64, u64)> = Vec::new();
            for (pause, percent, within) in steps {
                now += pause;
                let cost = (bucket.capacity * percent / 100).max(1);
                let settled = bucket.settle(level, now);
                if let Some(left) = bucket.reserve(settled, cost, within) {
                    let wait = bucket.wait(0, left.owed);
                    prop_assert!(wait <= within);
                    passed.push((now + wait, cost));
                    level = left;
                }
            }
            for (first, &(begin, _)) in passed.iter().enumerate() {
                let mut taken = 0_u128;
                for &(end, cost) in &passed[first..] {
                    taken += u128::from(cost);
                    // A place is told to the microsecond, rounded up.
                    let time = u128::from(end.max(begin) - begin + 1);
                    let most = u128::from(bucket.capacity) * u128::from(MICRO) + time * u128::from(bucket.rate);
                    prop_assert!(taken * u128::from(MICRO) <= most);
                }
            }
        }

        #[test]
        fn no_window_admits_more_than_it_began_with_plus_rate_times_time(
            bucket in any_bucket(),
            steps in prop::collection::vec((0..5_000_000_u64, 1..=100_u64), 1..80),
        ) {
            let mut level = bucket.full(0);
            let mut now = 0;
            // For each admitted request: when, what the bucket held before it, what it took.
            let mut admitted: Vec<(u64, u64, u64)> = Vec::new();
            for (pause, percent) in steps {
                now += pause;
                let cost = (bucket.capacity * percent / 100).max(1);
                let settled = bucket.settle(level, now);
                if let Some(left) = bucket.charge(settled, cost) {
                    admitted.push((now, settled.tokens, cost));
                    level = left;
                }
            }
            for (first, &(begin, held, _)) in admitted.iter().enumerate() {
                let mut taken = 0_u128;
                for &(end, _, cost) in &admitted[first..] {
                    taken += u128::from(cost);
                    let most = u128::from(held) * u128::from(MICRO) + u128::from(end - begin) * u128::from(bucket.rate);
                    prop_assert!(taken * u128::from(MICRO) <= most);
                }
            }
        }

        #[test]
        fn a_wait_is_enough_and_one_microsecond_less_is_not(
            bucket in any_bucket(), tokens in any::<u64>(), amount in any::<u64>(), at in 0..1_u64 << 53,
        ) {
            let level = Level { tokens: tokens % bucket.capacity, owed: 0, at };
            let amount = level.tokens + 1 + amount % (bucket.capacity - level.tokens);
            let wait = bucket.wait(level.tokens, amount);
            prop_assert!(bucket.settle(level, at + wait).tokens >= amount);
            prop_assert!(bucket.settle(level, at + wait - 1).tokens < amount);
        }

        #[test]
        fn settling_twice_gains_nothing(
            bucket in any_bucket(), tokens in any::<u64>(), at in 0..1_u64 << 53,
            half in 0..1_u64 << 40, whole in 0..1_u64 << 40,
        ) {
            let level = Level { tokens: tokens % bucket.capacity, owed: 0, at };
            let once = bucket.settle(level, at + half + whole);
            let twice = bucket.settle(bucket.settle(level, at + half), at + half + whole);
            prop_assert_eq!(once.at, twice.at);
            prop_assert!(once.tokens - twice.tokens <= 1);
        }

        #[test]
        fn time_never_goes_back(bucket in any_bucket(), at in 0..1_u64 << 53, now in 0..1_u64 << 53) {
            let level = Level { tokens: 0, owed: 0, at };
            let settled = bucket.settle(level, now);
            prop_assert!(settled.at >= at && settled.at >= now);
            prop_assert!(now > at || settled == level);
        }
    }
}

//! Denied fast: what the store refused is refused again from memory, until the store could admit it.
//!
//! Promised: it never admits, and it refuses nothing that the store would admit by the same rate: what a bucket may have
//! gained since is counted from before the store was asked, and rounded up. What may let a bucket gain more (a factor that
//! rises, tokens given back, a reset) is heeded at once where it passes through this replica, and where it passes through
//! another after [`TRUST`] at most, or [`TRUST_SCALED`] for limits that follow a factor. Memory is bounded by [`DENIED_MAX`];
//! what is dropped is asked for again.
//! Not promised: that the standings of the limits which did not refuse are those of this moment: they are as last told, or
//! full.

use std::{hash::BuildHasherDefault, time::Duration};

use quick_cache::{
    UnitWeighter,
    sync::{Cache, DefaultLifecycle},
};
use tokio::time::Instant;

use super::{
    Charge, Kind, Standing, Standings, Terms,
    bucket::{Level, MICRO},
    key::{FirstWord, Key},
};
use crate::config::Factor;

/// The most buckets it knows; each takes some 60 bytes.
const DENIED_MAX: usize = 65_536;

/// The longest that a refusal is believed.
const TRUST: Duration = Duration::from_secs(10);

/// The same for a limit that follows a factor, which another replica may have raised.
const TRUST_SCALED: Duration = Duration::from_secs(1);

/// What the store refused not long ago.
pub(super) struct Denied(Cache<Key, Told, UnitWeighter, BuildHasherDefault<FirstWord>>);

/// What the store told of a bucket when it refused.
#[derive(Clone, Copy)]
struct Told {
    standing: Standing,
    /// What it was asked for.
    cost: u64,
    /// Before the store was asked.
    at: Instant,
}

impl Denied {
    pub(super) fn new() -> Self {
        let capacity = DENIED_MAX as u64;
        Self(Cache::with(
            DENIED_MAX / 64,
            capacity,
            UnitWeighter,
            BuildHasherDefault::default(),
            DefaultLifecycle::default(),
        ))
    }

    /// How many buckets it knows.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The refusal that the store would answer now; `None` where it may admit. At most `MAX_CHARGES`.
    pub(super) fn refusal(&self, charges: &[Charge<'_>], now: Instant) -> Option<Standings> {
        let mut refused = false;
        let mut standing = |charge: &Charge<'_>| {
            let Some(standing) = self.standing(charge, now) else { return charge.limit.untouched(Factor::ONE) };
            refused |= standing.tokens < charge.cost;
            standing
        };
        let standings = charges.iter().map(&mut standing).collect();
        refused.then_some(standings)
    }

    /// Remembers a refusal of a store that was asked at `asked`.
    pub(super) fn remember(&self, charges: &[Charge<'_>], standings: &Standings, asked: Instant) {
        // Whether anything is asked on the condition that another bucket is new may have changed by the next time.
        let asked_always = |(charge, _): &(&Charge<'_>, _)| !matches!(charge.terms, Terms::TakeIfNew(_));
        for (charge, standing) in charges.iter().zip(standings).filter(asked_always) {
            self.0.insert(charge.key, Told { standing: *standing, cost: charge.cost, at: asked });
        }
    }

    /// Forgets these buckets.
    pub(super) fn forget(&self, charges: &[Charge<'_>]) {
        for charge in charges {
            self.0.remove(&charge.key);
        }
    }

    /// Forgets one bucket.
    pub(super) fn forget_key(&self, key: Key) {
        self.0.remove(&key);
    }

    /// Forgets everything.
    pub(super) fn forget_all(&self) {
        self.0.clear();
    }

    /// The most that a bucket may hold by now; `None` where nothing is known of it.
    fn standing(&self, charge: &Charge<'_>, now: Instant) -> Option<Standing> {
        let Told { standing, cost, at } = self.0.get(&charge.key)?;
        let elapsed = now.saturating_duration_since(at);
        let trust = if charge.limit.scale.is_some() { TRUST_SCALED } else { TRUST };
        if elapsed > trust {
            return None;
        }
        // Ten seconds at a factor of a hundred fit many times.
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
        match charge.limit.kind {
            Kind::Bucket(bucket) => {
                let scaled = micros.saturating_mul(u64::from(standing.factor.millionths())).div_ceil(MICRO);
                let level = Level { tokens: standing.tokens, owed: standing.owed, at: 0 };
                let level = bucket.settle(level, scaled);
                Some(Standing { tokens: level.tokens, owed: level.owed, ..standing })
            }
            // Nothing comes back before the wait for so much is over; for less, the wait may be shorter.
            Kind::Window(_) if charge.cost < cost => None,
            Kind::Window(_) => {
                let wait = standing.wait.checked_sub(micros).filter(|wait| *wait > 0)?;
                Some(Standing { wait, ..standing })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limiter::{Limit, bucket::Bucket, key::KeyHasher, scale::ScaleName, window::Window};

    fn key(name: &str) -> Key {
        KeyHasher::new(None, "tests").start("limit").part(name.as_bytes()).finish()
    }

    /// Ten tokens, one every two seconds.
    fn slow() -> Limit {
        Limit { kind: Bucket { capacity: 10 * MICRO, rate: MICRO / 2 }.into(), scale: None, slowest: Factor::ONE }
    }

    fn told(tokens: u64, factor: f64) -> Standings {
        [Standing { tokens, owed: 0, factor: Factor::new(factor).unwrap(), wait: 0 }].into_iter().collect()
    }

    #[test]
    fn a_refusal_lasts_until_the_store_could_admit_and_no_longer() {
        // Factor, tokens told, cost → after how many microseconds the store is asked again.
        let table = [
            (1.0, 0, MICRO, 2_000_000),
            (1.0, 500_000, MICRO, 1_000_000),
            (1.0, 0, 2 * MICRO, 4_000_000),
            (0.5, 0, MICRO, 4_000_000),
            (1.5, 0, MICRO, 1_333_334),
            (1.0, MICRO, MICRO, 0),
        ];
        let now = Instant::now();
        for (factor, tokens, cost, wait) in table {
            let (denied, limit) = (Denied::new(), slow());
            let charge = [Charge { limit: &limit, key: key("a"), cost, terms: Terms::Take }];
            denied.remember(&charge, &told(tokens, factor), now);
            let refused = |micros| denied.refusal(&charge, now + Duration::from_micros(micros)).is_some();
            assert!(!refused(wait), "{factor} {tokens} {cost}");
            // Some microseconds are spared for what clocks round.
            assert!(wait < 4 || refused(wait - 4), "{factor} {tokens} {cost}");
        }
    }

    #[test]
    fn a_window_refuses_until_there_is_room_for_as_much_as_was_asked_for() {
        let (denied, now) = (Denied::new(), Instant::now());
        let limit = Limit { kind: Window { quota: 10 * MICRO, length: 4 * MICRO }.into(), ..slow() };
        let charge = |cost| [Charge { limit: &limit, key: key("a"), cost: cost * MICRO, terms: Terms::Take }];
        let told = [Standing { tokens: MICRO, owed: 0, factor: Factor::ONE, wait: 2 * MICRO }].into_iter().collect();
        denied.remember(&charge(3), &told, now);
        let refused = |cost, micros| denied.refusal(&charge(cost), now + Duration::from_micros(micros));
        assert_eq!(refused(3, 500_000).unwrap()[0], Standing { wait: 1_499_999, ..told[0] });
        assert!(refused(4, 1_999_990).is_some() && refused(3, 1_999_990).is_some());
        assert!(refused(2, 0).is_none(), "for less, there may be room sooner");
        assert!(refused(3, 2_000_000).is_none() && refused(1, 0).is_none());
    }

    #[test]
    fn what_is_answered_is_what_the_bucket_gained_since() {
        let (denied, limit, now) = (Denied::new(), slow(), Instant::now());
        let charge = [Charge { limit: &limit, key: key("a"), cost: MICRO, terms: Terms::Take }];
        denied.remember(&charge, &told(0, 1.0), now);
        let standings = denied.refusal(&charge, now + Duration::from_secs(1)).unwrap();
        assert!(standings[0].tokens.abs_diff(500_000) <= 1, "{standings:?}");
        assert!(limit.wait(&standings[0], MICRO).abs_diff(Duration::from_secs(1)) <= Duration::from_micros(2));
    }

    #[test]
    fn one_empty_bucket_refuses_for_all_and_the_others_are_taken_for_full() {
        let (denied, limit, now) = (Denied::new(), slow(), Instant::now());
        let charge = |name| Charge { limit: &limit, key: key(name), cost: MICRO, terms: Terms::Take };
        denied.remember(&[charge("a")], &told(0, 1.0), now);
        let standings = denied.refusal(&[charge("b"), charge("a")], now).unwrap();
        assert_eq!(standings[0].tokens, 10 * MICRO);
        assert!(denied.refusal(&[charge("b")], now).is_none());
    }

    #[test]
    fn a_pause_is_known_by_its_level_and_what_depends_on_another_bucket_is_not_known() {
        let (denied, now) = (Denied::new(), Instant::now());
        let limit = Limit { kind: Bucket { capacity: 10 * MICRO, rate: MICRO }.into(), ..slow() };
        let charge = |cost, terms| [Charge { limit: &limit, key: key("a"), cost, terms }];
        let (always, if_new) = (charge(8 * MICRO, Terms::Need), charge(8 * MICRO, Terms::TakeIfNew(0)));
        denied.remember(&if_new, &told(0, 1.0), now);
        assert!(denied.refusal(&if_new, now).is_none() && denied.refusal(&always, now).is_none());
        denied.remember(&always, &told(5 * MICRO, 1.0), now);
        assert!(denied.refusal(&always, now + Duration::from_secs(2)).is_some());
        assert!(denied.refusal(&charge(6 * MICRO, Terms::Need), now + Duration::from_secs(2)).is_none());
    }

    #[test]
    fn nothing_is_believed_for_long_and_least_what_follows_a_factor() {
        let (denied, now) = (Denied::new(), Instant::now());
        let slow = Limit { kind: Bucket { capacity: 10 * MICRO, rate: 1 }.into(), ..slow() };
        let scaled = Limit { scale: ScaleName::of(["backend"]), ..slow.clone() };
        for (limit, trust) in [(&slow, TRUST), (&scaled, TRUST_SCALED)] {
            let charge = [Charge { limit, key: key("a"), cost: MICRO, terms: Terms::Take }];
            denied.remember(&charge, &told(0, 1.0), now);
            assert!(denied.refusal(&charge, now + trust).is_some());
            assert!(denied.refusal(&charge, now + trust + Duration::from_micros(1)).is_none());
        }
    }

    #[test]
    fn it_forgets_on_request_and_holds_no_more_than_it_may() {
        let (denied, limit, now) = (Denied::new(), slow(), Instant::now());
        let charge = |name| Charge { limit: &limit, key: key(name), cost: MICRO, terms: Terms::Take };
        for name in ["a", "b"] {
            denied.remember(&[charge(name)], &told(0, 1.0), now);
        }
        denied.forget(&[charge("a")]);
        assert!(denied.refusal(&[charge("a")], now).is_none() && denied.refusal(&[charge("b")], now).is_some());
        denied.forget_all();
        assert!(denied.refusal(&[charge("b")], now).is_none());
        for number in 0..3 * DENIED_MAX {
            let charge = Charge { limit: &limit, key: key(&number.to_string()), cost: MICRO, terms: Terms::Take };
            denied.remember(&[charge], &told(0, 1.0), now);
        }
        assert!(denied.len() <= DENIED_MAX);
    }
}

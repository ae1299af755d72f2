//! Buckets and windows over the begin and the end of a change.

use proptest::prelude::*;

use super::*;
use crate::limiter::{Charge, Terms, key::KeyHasher, memory::Memory};

/// Ten tokens, two a second.
const GUEST: Bucket = Bucket { capacity: 10 * MICRO, rate: 2 * MICRO };

fn limit(kind: impl Into<Kind>) -> Limit {
    Limit { kind: kind.into(), scale: None, slowest: Factor::ONE }
}

fn charge(limit: &Limit) -> [Charge<'_>; 1] {
    let key = KeyHasher::new(None, "tests").start("limit").finish();
    [Charge { limit, key, cost: MICRO, terms: Terms::Take }]
}

fn bucket(capacity: u64, rate: u64) -> Parameters {
    Parameters::TokenBucket { capacity: capacity * MICRO, rate: rate * MICRO }
}

/// Has a store forget what it may: others come whose buckets are full again at once.
fn forget(memory: &Memory, now: u64) {
    let brief = limit(Bucket { capacity: 1, rate: MICRO * MICRO });
    for other in 0..70_u64 {
        let key = KeyHasher::new(None, "tests").start("other").part(&(now + other).to_le_bytes()).finish();
        let _ = memory.decide_at(&[Charge { limit: &brief, key, cost: 1, terms: Terms::Take }], now);
    }
}

/// By how many micro-tokens more was admitted in any stretch than these allow; times in microseconds.
fn excess(admitted: &[u64], capacity: u64, rate: u64) -> i128 {
    let over = |(first, begin): (usize, &u64)| {
        let most = |(number, end): (usize, &u64)| {
            let taken = i128::from(MICRO) * (number as i128 + 1);
            taken - i128::from(capacity) - i128::from(end - begin) * i128::from(rate) / i128::from(MICRO)
        };
        admitted[first..].iter().enumerate().map(most).max().unwrap_or(i128::MIN)
    };
    admitted.iter().enumerate().map(over).max().unwrap_or(i128::MIN)
}

#[test]
fn only_parameters_of_its_kind_that_leave_room_for_a_request_are_a_limits() {
    let window = Window { quota: 5 * MICRO, length: 60 * MICRO };
    let table = [
        (limit(GUEST), bucket(3, 1), 3, true),
        (limit(GUEST), bucket(3, 1), 4, false),
        (limit(GUEST), bucket(0, 1), 0, false),
        (limit(GUEST), bucket(1, 0), 1, false),
        (limit(GUEST), bucket(1_000_001, 1), 1, false),
        (limit(GUEST), Parameters::SlidingWindow { quota: 9 * MICRO }, 1, false),
        (limit(window), Parameters::SlidingWindow { quota: 9 * MICRO }, 9, true),
        (limit(window), Parameters::SlidingWindow { quota: 9 * MICRO + 1 }, 1, false),
        (limit(window), bucket(3, 1), 1, false),
    ];
    for (limit, parameters, cost, expected) in table {
        let changed = limit.with(parameters, cost * MICRO);
        assert_eq!(changed.is_some(), expected, "{parameters:?} at {cost}");
        assert!(changed.is_none_or(|changed| Parameters::of(changed.kind) == parameters));
    }
}

#[test]
fn a_bucket_keeps_its_tokens_cut_to_the_capacity_and_gains_at_the_rate_in_force() {
    let (memory, configured) = (Memory::new(100, prometheus_client::metrics::gauge::Gauge::default()), limit(GUEST));
    let tight = configured.with(bucket(5, 1), MICRO).unwrap();
    let tokens = |limit: &Limit, now| memory.decide_at(&charge(limit), now).unwrap().standings[0].tokens / MICRO;
    assert_eq!([0, 0].map(|now| tokens(&configured, now)), [9, 8]);
    assert_eq!([0, 0].map(|now| tokens(&tight, now)), [4, 3], "cut to five");
    assert_eq!(tokens(&tight, MICRO), 3, "one more a second");
    assert_eq!(tokens(&configured, MICRO), 2, "what was cut does not come back");
    assert_eq!(tokens(&configured, 2 * MICRO), 3, "two more a second");
}

#[test]
fn a_bucket_that_is_full_under_a_smaller_capacity_is_not_forgotten_while_it_is_not_under_the_configured_one() {
    let (memory, configured) = (Memory::new(1000, prometheus_client::metrics::gauge::Gauge::default()), limit(GUEST));
    let tight = configured.with(bucket(5, 2), MICRO).unwrap();
    let admits = |limit: &Limit, now| memory.decide_at(&charge(limit), now).unwrap().admitted;
    assert!((0..5).all(|_| admits(&configured, 0)) && admits(&tight, 0));
    forget(&memory, MICRO);
    assert_eq!((0..10).filter(|_| admits(&configured, MICRO)).count(), 6, "four, and two that came back");
}

#[test]
fn a_window_is_held_to_the_quota_in_force() {
    let memory = Memory::new(100, prometheus_client::metrics::gauge::Gauge::default());
    let configured = limit(Window { quota: 4 * MICRO, length: 60 * MICRO });
    let [less, more] =
        [2, 6].map(|quota| configured.with(Parameters::SlidingWindow { quota: quota * MICRO }, MICRO).unwrap());
    let admits = |limit: &Limit, now: u64| memory.decide_at(&charge(limit), now * MICRO).unwrap().admitted;
    assert!((0..4).all(|second| admits(&configured, second)) && !admits(&configured, 4));
    assert!(admits(&more, 4) && admits(&more, 5) && !admits(&more, 6));
    assert!(!admits(&less, 63) && !admits(&less, 63), "two are taken still");
    assert!(admits(&less, 64) && !admits(&less, 64) && admits(&configured, 64));
}

proptest! {
    #[test]
    fn a_change_and_its_end_admit_no_more_than_the_more_generous_of_both_would(
        (capacity, rate) in (1..40_u64, 1..8_u64),
        (begin, lasts) in (0..20_000_000_u64, 0..40_000_000_u64),
        // How many come at once, and the microseconds until the next.
        steps in prop::collection::vec((1..30_u32, 0..9_000_000_u64), 1..40),
    ) {
        let memory = Memory::new(1000, prometheus_client::metrics::gauge::Gauge::default());
        let configured = limit(GUEST);
        let changed = configured.with(bucket(capacity, rate), MICRO).unwrap();
        let (mut now, mut admitted, mut within) = (0, Vec::new(), Vec::new());
        for (burst, pause) in steps {
            forget(&memory, now);
            let holds = (begin..begin + lasts).contains(&now);
            let limit = if holds { &changed } else { &configured };
            for _ in 0..burst {
                if memory.decide_at(&charge(limit), now).unwrap().admitted {
                    admitted.push(now);
                    within.extend(holds.then_some(now));
                }
            }
            now += pause;
        }
        prop_assert!(excess(&within, capacity * MICRO, rate * MICRO) <= 0);
        prop_assert!(excess(&admitted, GUEST.capacity.max(capacity * MICRO), GUEST.rate.max(rate * MICRO)) <= 0);
    }
}

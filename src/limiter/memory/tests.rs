//! What the embedded store promises beyond the contract that all stores share: its bound, and when it forgets.

use super::*;
use crate::limiter::{bucket::Bucket, key::KeyHasher};

fn limit(capacity: u64, rate: u64) -> Limit {
    Limit { kind: Bucket { capacity: capacity * MICRO, rate: rate * MICRO }.into(), scale: None, slowest: Factor::ONE }
}

fn key(number: u64) -> Key {
    KeyHasher::new(None, "tests").start("limit").part(&number.to_le_bytes()).finish()
}

fn charge(limit: &Limit, number: u64, tokens: u64) -> Charge<'_> {
    Charge { limit, key: key(number), cost: tokens * MICRO, terms: Terms::Take }
}

fn tokens(memory: &Memory, limit: &Limit, number: u64, now: u64) -> u64 {
    let impossible = Charge { cost: limit.kind.most() + 1, ..charge(limit, number, 0) };
    memory.decide_at(&[impossible], now).unwrap().standings[0].tokens
}

#[test]
fn a_refusal_touches_no_other_limit() {
    let memory = Memory::new(1000, Gauge::default());
    let (tight, loose) = (limit(1, 1), limit(10, 1));
    let both = [charge(&loose, 1, 3), charge(&tight, 2, 1)];
    assert!(memory.decide_at(&both, 0).unwrap().admitted);
    let refused = memory.decide_at(&both, 0).unwrap();
    assert!(!refused.admitted);
    assert_eq!(refused.standings.iter().map(|standing| standing.tokens).collect::<Vec<_>>(), [7 * MICRO, 0]);
    assert_eq!(tokens(&memory, &loose, 1, 0), 7 * MICRO);
}

#[test]
fn a_refusal_makes_no_bucket() {
    let memory = Memory::new(1000, Gauge::default());
    let limit = limit(1, 1);
    assert!(!memory.decide_at(&[charge(&limit, 1, 2)], 0).unwrap().admitted);
    assert!(memory.is_empty());
}

#[test]
fn what_is_full_again_is_forgotten_and_nothing_else_is() {
    let held = Gauge::default();
    let memory = Memory::new(1000, held.clone());
    let (fast, slow) = (limit(10, 5), limit(10, 1));
    for number in 0..500 {
        memory.decide_at(&[charge(&fast, number, 10)], 0).unwrap();
        memory.decide_at(&[charge(&slow, 1000 + number, 10)], 0).unwrap();
    }
    assert_eq!((memory.len(), held.get()), (1000, 1000));

    // A microsecond before the fast ones are full again there is no room, and the attempt charges nobody.
    let newcomer = [charge(&fast, 1, 1), charge(&slow, 9999, 1)];
    let early = 2 * MICRO - 1;
    assert_eq!(memory.decide_at(&newcomer, early), Err(StoreError::Full));
    assert_eq!((memory.len(), tokens(&memory, &fast, 1, early)), (1000, 10 * MICRO - 5));
    // A full shard is swept once a second.
    assert_eq!(memory.decide_at(&newcomer, early + SWEEP_INTERVAL - 1), Err(StoreError::Full));
    let late = early + SWEEP_INTERVAL;
    assert!(memory.decide_at(&newcomer, late).unwrap().admitted);
    assert_eq!((memory.len(), held.get()), (502, 502));
    for number in 1000..1500 {
        assert_eq!(tokens(&memory, &slow, number, late), late);
    }
}

#[test]
fn a_slow_scale_keeps_buckets_as_long_as_they_may_need() {
    let memory = Memory::new(1000, Gauge::default());
    let scale = ScaleName::of(["backend"]).unwrap();
    let slowest = Factor::new(0.05).unwrap();
    let scaled = Limit { scale: Some(scale.clone()), slowest, ..limit(10, 2) };
    let unscaled = limit(1, 1_000_000);
    memory.decide_at(&[charge(&scaled, 1, 10)], 0).unwrap();
    memory.publish_at(&scale, slowest, 0);
    for second in 1..=99 {
        for number in 0..100 {
            memory.decide_at(&[charge(&unscaled, 1000 * second + number, 1)], second * MICRO).unwrap();
        }
        assert_eq!(tokens(&memory, &scaled, 1, second * MICRO), second * MICRO / 10);
    }
}

#[test]
fn buckets_never_outnumber_the_room_there_is() {
    for room in [0, 1, 63, 5000, 200_000] {
        let memory = Memory::new(room, Gauge::default());
        let limit = limit(10, 1);
        let admitted = (0..300_000).filter(|&number| memory.decide_at(&[charge(&limit, number, 1)], 0).is_ok()).count();
        assert_eq!(admitted, memory.len());
        assert!(admitted <= room && admitted >= room * 9 / 10, "{admitted} of {room}");
    }
}

#[test]
fn more_limits_than_a_route_may_have_are_refused() {
    let memory = Memory::new(1000, Gauge::default());
    let limit = limit(10, 1);
    let charges: Vec<_> = (0..=MAX_CHARGES as u64).map(|number| charge(&limit, number, 1)).collect();
    assert_eq!(memory.decide_at(&charges, 0), Err(StoreError::Refused));
}

#[test]
fn decisions_that_share_shards_in_any_order_all_end() {
    let memory = Memory::new(100_000, Gauge::default());
    let limit = limit(1_000_000, 1);
    let numbers: Vec<u64> = (0..8).collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (memory, limit, numbers) = (&memory, &limit, &numbers);
            scope.spawn(move || {
                for turn in 0..2000 {
                    let mut order = numbers.clone();
                    order.rotate_left((thread + turn) % 8);
                    let charges: Vec<_> = order.iter().map(|&number| charge(limit, number, 1)).collect();
                    assert!(memory.decide_at(&charges, 0).unwrap().admitted);
                }
            });
        }
    });
    for number in numbers {
        assert_eq!(tokens(&memory, &limit, number, 0), (1_000_000 - 8000) * MICRO);
    }
}

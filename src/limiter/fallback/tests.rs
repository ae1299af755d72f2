//! Shares: what one of several replicas gives away, and what it owes for it.

use super::*;
use crate::limiter::{
    bucket::{Bucket, MICRO},
    window::Window,
};

fn local() -> Local {
    Local { memory: Memory::new(1000, Gauge::default()), debts: Debts::new(1000, Gauge::default()) }
}

/// So many tokens, refilled so slowly that no test sees it.
fn limit(capacity: u64) -> Limit {
    Limit { kind: Bucket { capacity: capacity * MICRO, rate: 1 }.into(), scale: None, slowest: Factor::ONE }
}

fn charge(limit: &Limit) -> Charge<'_> {
    Charge { limit, key: Key([7; 12]), cost: MICRO, terms: Terms::Take }
}

/// How many requests of one token are admitted in a row.
fn admitted(local: &Local, limit: &Limit, replicas: u32) -> usize {
    let admits = |_: &_| matches!(local.reserve(&[charge(limit)], Duration::ZERO, replicas), Ok(Decision::Admitted { .. }));
    (0..100).take_while(admits).count()
}

fn told(tokens: u64) -> Standings {
    [Standing { tokens, owed: 0, factor: Factor::ONE, wait: 0 }].into_iter().collect()
}

#[test]
fn shares_of_all_replicas_make_one_limit_at_most() {
    // Capacity, replicas → what each admits.
    for (capacity, replicas, share) in [(10, 1, 10), (10, 2, 5), (10, 3, 3), (10, 10, 1), (1, 1, 1), (100, 7, 14)] {
        assert_eq!(admitted(&local(), &limit(capacity), replicas), share, "{capacity} by {replicas}");
    }
}

#[test]
fn a_share_below_one_request_admits_one_ahead_and_keeps_the_rate() {
    let (local, limit) = (local(), Limit { kind: Bucket { capacity: MICRO, rate: MICRO }.into(), ..limit(1) });
    let ask = |now| {
        let limits = limits(&[charge(&limit)], 3);
        local.memory.decide_at(&shared(&[charge(&limit)], &limits, 3), now).unwrap().admitted
    };
    assert!(ask(0) && !ask(0) && !ask(3 * MICRO - 1));
    assert!(ask(3 * MICRO) && !ask(3 * MICRO));
}

#[test]
fn buckets_are_as_warm_as_redis_told() {
    for (tokens, replicas, share) in [(0, 1, 0), (0, 3, 0), (6, 3, 2), (5, 3, 1), (10, 2, 5)] {
        let (local, limit) = (local(), limit(10));
        local.mirror(&[charge(&limit)], true, &told(tokens * MICRO));
        assert_eq!(admitted(&local, &limit, replicas), share, "{tokens} by {replicas}");
    }
}

#[test]
fn an_older_answer_gives_nothing_back() {
    let (local, limit) = (local(), limit(10));
    local.mirror(&[charge(&limit)], true, &told(2 * MICRO));
    local.mirror(&[charge(&limit)], true, &told(8 * MICRO));
    assert_eq!(admitted(&local, &limit, 1), 2);
}

#[test]
fn standings_are_those_of_the_share() {
    let (local, limit) = (local(), Limit { kind: Bucket { capacity: 10 * MICRO, rate: 2 * MICRO }.into(), ..limit(10) });
    let Ok(Decision::Admitted { standings, .. }) = local.reserve(&[charge(&limit)], Duration::ZERO, 4) else {
        panic!("admitted")
    };
    assert_eq!(standings[0], Standing { tokens: 1_500_000, owed: 0, factor: Factor::new(0.25).unwrap(), wait: 0 });
    assert_eq!(limit.wait(&standings[0], 2 * MICRO).as_secs(), 1);
}

#[test]
fn what_was_admitted_is_owed_once() {
    let (local, limit) = (local(), limit(10));
    assert_eq!(admitted(&local, &limit, 2), 5);
    let debt = local.take_debt(Key([7; 12])).unwrap();
    assert_eq!(debt.amount, 5 * MICRO);
    assert!(local.take_debt(Key([7; 12])).is_none());
}

#[test]
fn what_was_refilled_since_is_owed_no_more() {
    let (local, limit) = (local(), Limit { kind: Bucket { capacity: 10 * MICRO, rate: MICRO * MICRO }.into(), ..limit(10) });
    assert!(matches!(local.reserve(&[charge(&limit)], Duration::ZERO, 2), Ok(Decision::Admitted { .. })));
    while local.memory.taken_at(&limit, Key([7; 12]), local.memory.now()) > 0 {}
    assert!(local.take_debt(Key([7; 12])).is_none());
}

#[test]
fn a_refund_lowers_the_debt_or_is_for_redis() {
    let (local, limit) = (local(), limit(10));
    assert_eq!(admitted(&local, &limit, 2), 5);
    assert!(local.refund(&[charge(&limit)], 2, 1).is_empty());
    assert_eq!(local.take_debt(Key([7; 12])).unwrap().amount, 4 * MICRO);
    assert_eq!(local.refund(&[charge(&limit)], 2, 1).len(), 1);
}

#[test]
fn a_factor_that_redis_told_holds_here_too() {
    let scale = ScaleName::of(["backend"]);
    let (local, limit) = (local(), Limit { scale, ..limit(10) });
    let half = Factor::new(0.5).unwrap();
    local.mirror(&[charge(&limit)], true, &[Standing { tokens: 0, owed: 0, factor: half, wait: 0 }].into_iter().collect());
    let Ok(Decision::Refused { standings }) = local.reserve(&[charge(&limit)], Duration::ZERO, 1) else { panic!("refused") };
    assert_eq!(standings[0].factor, half);
}

#[test]
fn a_pause_is_not_shared_and_owes_nothing() {
    let (local, paused, limit) =
        (local(), Limit { kind: Bucket { capacity: 10 * MICRO, rate: 1 }.into(), ..limit(10) }, limit(10));
    let pause = |seconds| Charge { limit: &paused, key: Key([9; 12]), cost: seconds * MICRO, terms: Terms::Need };
    let ask = |needed| local.reserve(&[charge(&limit), pause(needed)], Duration::ZERO, 3).unwrap();
    let Decision::Admitted { standings, .. } = ask(10) else { panic!("nothing is paused") };
    assert_eq!(standings[1], Standing { tokens: 10 * MICRO, owed: 0, factor: Factor::ONE, wait: 0 });
    local.pause(&Charge { terms: Terms::Take, ..pause(4) }).unwrap();
    let (Decision::Refused { standings }, Decision::Admitted { .. }) = (ask(7), ask(6)) else { panic!("six are there") };
    assert_eq!(standings[1].tokens / MICRO, 6);
    assert!(local.take_debt(Key([9; 12])).is_none());
}

#[test]
fn whoever_was_refused_before_he_was_charged_is_still_new() {
    let (local, address, limit) = (local(), limit(2), limit(10));
    let charges = [charge(&limit), Charge { limit: &address, key: Key([9; 12]), cost: MICRO, terms: Terms::TakeIfNew(0) }];
    let full = Standing { tokens: 10 * MICRO, owed: 0, factor: Factor::ONE, wait: 0 };
    local.mirror(&charges, false, &[full, Standing { tokens: 0, ..full }].into_iter().collect());
    assert!(local.memory.is_empty());
    let Ok(Decision::Admitted { standings, .. }) = local.reserve(&charges, Duration::ZERO, 2) else { panic!("admitted") };
    assert_eq!(standings[1].tokens, MICRO, "the share of an address that has brought nobody yet");
    let Ok(Decision::Admitted { .. }) = local.reserve(&charges, Duration::ZERO, 2) else {
        panic!("whoever is known passes")
    };
    let other = [Charge { key: Key([8; 12]), ..charges[0] }, charges[1]];
    assert!(
        matches!(local.reserve(&other, Duration::ZERO, 2), Ok(Decision::Refused { .. })),
        "one of two is this replica's"
    );
}

#[test]
fn a_window_is_shared_warm_and_owed_as_long_as_it_counts() {
    let window = |quota| Limit { kind: Window { quota: quota * MICRO, length: 3600 * MICRO }.into(), ..limit(1) };
    for (quota, replicas, share) in [(10, 1, 10), (10, 2, 5), (10, 3, 3), (1, 3, 1)] {
        assert_eq!(admitted(&local(), &window(quota), replicas), share, "{quota} by {replicas}");
    }
    let (local, limit) = (local(), window(10));
    local.mirror(&[charge(&limit)], true, &told(9 * MICRO));
    local.mirror(&[charge(&limit)], true, &told(6 * MICRO));
    local.mirror(&[charge(&limit)], false, &told(6 * MICRO));
    assert_eq!(local.memory.taken_at(&limit, Key([7; 12]), local.memory.now()), 4 * MICRO, "its own, and two of others");
    assert_eq!(admitted(&local, &limit, 2), 3);
    assert!(local.refund(&[charge(&limit)], 2, local.memory.now()).is_empty());
    assert_eq!(local.take_debt(Key([7; 12])).unwrap().amount, 3 * MICRO, "what is taken, shared, is no less than it owes");
    let over = local.memory.now() + 3600 * MICRO;
    assert_eq!(local.memory.taken_at(&limit, Key([7; 12]), over), 0);
}

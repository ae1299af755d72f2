//! Denied fast: a drained client hammers at memory and not at Redis.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cxgate::{
    config::{Factor, OnFailure},
    limiter::{
        Charge, Decision, Limit,
        bucket::{Bucket, MICRO},
        scale::ScaleName,
    },
};
use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    oracle::tokens,
    redis_server::RedisServer,
    rig::{Rig, token},
};

/// Ten tokens and two a second, as a guest has.
fn guest() -> Limit {
    Limit {
        kind: Bucket { capacity: tokens(10), rate: tokens(2) }.into(),
        scale: ScaleName::of(["backend"]),
        slowest: Factor::new(0.05).unwrap(),
    }
}

async fn asked(rig: &Rig, charges: &[Charge<'_>]) -> Option<u64> {
    match rig.limiter.decide(charges).await {
        Decision::Admitted { .. } => None,
        Decision::Refused { standings } => Some(standings[0].tokens),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_than_one_in_a_hundred_requests_of_a_drained_client_reach_redis() {
    const CALLERS: u64 = 16;
    let server = RedisServer::start();
    let rig = Rig::patient(&server, OnFailure::Local).await;
    let before = server.scripts_called().await;
    let (asked_in_all, end) = (Arc::new(AtomicU64::new(0)), Instant::now() + Duration::from_secs(2));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (limiter, asked_in_all) = (Arc::clone(&rig.limiter), Arc::clone(&asked_in_all));
        callers.spawn(async move {
            let limit = guest();
            while Instant::now() < end {
                limiter.decide(&[token(&limit, "client")]).await;
                asked_in_all.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
    }
    callers.join_all().await;
    let (asked_in_all, reached) = (asked_in_all.load(Ordering::Relaxed), server.scripts_called().await - before);
    assert!(asked_in_all > 10_000, "{asked_in_all} are too few to tell");
    assert!(reached * 100 < asked_in_all, "{reached} of {asked_in_all} reached Redis");
    // Whatever did not reach it was refused. One call may ask for every caller.
    assert!(rig.metrics.denied_fast.get() + reached * CALLERS >= asked_in_all);
    rig.stop().await;
}

#[tokio::test]
async fn it_refuses_what_redis_would_refuse_and_no_longer() {
    let server = RedisServer::start();
    let rig = Rig::patient(&server, OnFailure::Deny).await;
    let limit = Limit { kind: Bucket { capacity: MICRO, rate: tokens(4) }.into(), ..guest() };
    let charge = [token(&limit, "client")];
    assert_eq!(asked(&rig, &charge).await, None);
    for _ in 0..5 {
        // A busy machine may have let a whole token come back.
        let Some(told) = asked(&rig, &charge).await else { continue };
        let (begin, wait) =
            (Instant::now(), Duration::from_micros(Bucket { capacity: MICRO, rate: tokens(4) }.wait(told, MICRO)));
        while let Some(left) = asked(&rig, &charge).await {
            assert!(left < MICRO, "{left} would have been enough");
            tokio::task::yield_now().await;
        }
        assert!(begin.elapsed() < wait + Duration::from_secs(1), "waited {:?}, not {wait:?}", begin.elapsed());
    }
    assert!(rig.metrics.denied_fast.get() > 0);
    rig.stop().await;
}

#[tokio::test]
async fn a_refund_and_a_factor_are_heeded_at_once() {
    let server = RedisServer::start();
    let rig = Rig::patient(&server, OnFailure::Deny).await;
    let limit = Limit { kind: Bucket { capacity: MICRO, rate: 1 }.into(), ..guest() };
    let charge = [token(&limit, "client")];
    let Decision::Admitted { receipt, .. } = rig.limiter.decide(&charge).await else { panic!("admitted") };
    assert!(asked(&rig, &charge).await.is_some() && asked(&rig, &charge).await.is_some());
    assert_eq!(rig.metrics.denied_fast.get(), 1);
    rig.limiter.refund(receipt, &charge).await;
    assert_eq!(asked(&rig, &charge).await, None);

    assert!(asked(&rig, &charge).await.is_some());
    rig.limiter.publish(limit.scale.as_ref().unwrap(), Factor::new(1.5).unwrap()).await;
    let before = rig.metrics.denied_fast.get();
    assert!(asked(&rig, &charge).await.is_some());
    assert_eq!(rig.metrics.denied_fast.get(), before, "Redis was asked");
    rig.stop().await;
}

#[tokio::test]
async fn one_drained_limit_refuses_for_all_and_charges_none() {
    let server = RedisServer::start();
    let rig = Rig::patient(&server, OnFailure::Deny).await;
    let narrow = Limit { kind: Bucket { capacity: MICRO, rate: 1 }.into(), ..guest() };
    let wide = Limit { kind: Bucket { capacity: tokens(10), rate: 1 }.into(), ..guest() };
    let both = [token(&wide, "wide"), token(&narrow, "narrow")];
    assert_eq!(asked(&rig, &both).await, None);
    for _ in 0..10 {
        assert_eq!(asked(&rig, &both).await.unwrap() / MICRO, 9);
    }
    assert_eq!(rig.metrics.denied_fast.get(), 9);
    let other = [token(&wide, "wide")];
    for _ in 0..9 {
        assert_eq!(asked(&rig, &other).await, None);
    }
    assert!(asked(&rig, &other).await.is_some());
    rig.stop().await;
}

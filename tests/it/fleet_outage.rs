//! Several replicas that lose Redis together: they hold one limit between them, remember what Redis told, and tell it what
//! they gave away.

use std::time::Duration;

use cxgate::{
    config::OnFailure,
    limiter::{
        Charge, Decision, Limit, Terms,
        bucket::MICRO,
        peek::Outlook,
        redis::script::{Flow, KeySpace, Script},
    },
};

use crate::support::{
    oracle::tokens,
    redis_server::RedisServer,
    rig::{Rig, key, steady, token},
    until,
};

/// So many tokens, refilled so slowly that no test sees it.
fn limit(capacity: u64) -> Limit {
    steady(tokens(capacity), 1)
}

async fn ask(rig: &Rig, limit: &Limit, client: &str) -> Decision {
    rig.limiter.decide(&[token(limit, client)]).await
}

/// How many requests pass before one is refused.
async fn drain(rig: &Rig, limit: &Limit, client: &str) -> usize {
    let mut admitted = 0;
    loop {
        match ask(rig, limit, client).await {
            Decision::Admitted { .. } => admitted += 1,
            Decision::Refused { .. } => return admitted,
            other => panic!("{other:?}"),
        }
    }
}

/// What a bucket holds, in micro-tokens.
async fn held(rig: &Rig, limit: &Limit, client: &str) -> Option<u64> {
    let charge = token(limit, client);
    match rig.limiter.peek(&[charge]).await {
        Outlook::Standings { standings, .. } => standings.first().map(|standing| standing.tokens / MICRO * MICRO),
        Outlook::Unlimited | Outlook::Unavailable => None,
    }
}

/// Replicas that know each other.
async fn replicas<const N: usize>(server: &RedisServer) -> [Rig; N] {
    let mut rigs = Vec::new();
    for _ in 0..N {
        // A Redis that died is noticed at once all the same.
        rigs.push(Rig::patient(server, OnFailure::Local).await);
    }
    for rig in &rigs {
        rig.until_replicas(u32::try_from(N).unwrap()).await;
    }
    rigs.try_into().ok().unwrap()
}

async fn lose(server: &mut RedisServer, rigs: &[Rig]) {
    server.stop();
    for rig in rigs {
        rig.until(false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_in_an_outage_admit_one_limit_together() {
    let mut server = RedisServer::start();
    let rigs = replicas::<2>(&server).await;
    lose(&mut server, &rigs).await;
    for capacity in [10, 7, 100] {
        let client = format!("client {capacity}");
        let mut admitted = 0;
        for rig in &rigs {
            admitted += drain(rig, &limit(capacity), &client).await;
        }
        assert_eq!(admitted, usize::try_from(capacity / 2 * 2).unwrap());
    }
    for rig in rigs {
        assert_eq!(rig.limiter.report().replicas, 2, "remembered while nobody can count");
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_drained_in_redis_is_drained_in_the_outage_and_who_is_drained_there_is_drained_after_it() {
    let mut server = RedisServer::start();
    let [one, other] = replicas::<2>(&server).await;
    let limit = limit(10);
    assert_eq!(drain(&one, &limit, "drained").await, 10);
    assert_eq!(drain(&other, &limit, "drained").await, 0);
    for _ in 0..6 {
        ask(&one, &limit, "half").await;
    }
    let rigs = [one, other];
    lose(&mut server, &rigs).await;
    let [one, other] = rigs;
    assert_eq!(drain(&one, &limit, "drained").await + drain(&other, &limit, "drained").await, 0);
    // Four were left in Redis; of the four, half is this replica's.
    assert_eq!(drain(&one, &limit, "half").await, 2);
    assert_eq!(drain(&one, &limit, "new").await, 5);

    // The new Redis knows nothing, but learns what was given away, by whichever replica asks.
    server.restart();
    one.until(true).await;
    other.until(true).await;
    // What is on its way is no longer owed, and not yet known.
    until(async || held(&other, &limit, "new").await == Some(tokens(5))).await;
    assert_eq!(drain(&other, &limit, "new").await, 5);
    until(async || held(&other, &limit, "half").await == Some(tokens(8))).await;
    assert_eq!(drain(&one, &limit, "half").await, 8);
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_counted_while_it_lives() {
    let server = RedisServer::start();
    let [one, other, third] = replicas::<3>(&server).await;
    assert_eq!(one.metrics.store_replicas.get(), 3);
    // One that stops says so; the count falls when no recent heartbeat found more.
    third.stop().await;
    one.until_replicas(2).await;
    other.until_replicas(2).await;
    let mut redis = server.client().await;
    let lifetime: i64 = redis::cmd("PTTL").arg("test:1:replicas").query_async(&mut redis).await.unwrap();
    assert!((1..=3000).contains(&lifetime), "{lifetime}");
    one.stop().await;
    other.stop().await;
    let left: i64 = redis::cmd("ZCARD").arg("test:1:replicas").query_async(&mut redis).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_counted_and_told() {
    let mut server = RedisServer::start();
    let rigs = replicas::<1>(&server).await;
    // Changes that follow each other faster than they are noted are one.
    until(async || rigs[0].metrics.store_changes.get() == 1).await;
    lose(&mut server, &rigs).await;
    let [rig] = rigs;
    assert_eq!(drain(&rig, &limit(5), "client").await, 5);
    until(async || rig.metrics.store_changes.get() == 2).await;
    let report = rig.limiter.report();
    assert!(report.last_failure.is_some() && report.since < Duration::from_secs(20));
    assert_eq!((report.debts, report.buckets, rig.metrics.fallback_decisions.get()), (1, 1, 6));
    server.restart();
    rig.until(true).await;
    until(async || rig.metrics.debts.get() == 0).await;
    until(async || rig.metrics.store_changes.get() == 3).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_debt_takes_no_more_than_there_is() {
    let server = RedisServer::start();
    let mut redis = server.client().await;
    let load = redis::cmd("SCRIPT").arg("LOAD").arg(Script::Charge.source()).query_async(&mut redis).await;
    let (digest, keys, limit): (String, _, _) = (load.unwrap(), KeySpace::new("test"), limit(10));
    // What to do with how much → what the bucket held before.
    let table = [(Flow::Take, 7, 10), (Flow::Pay, 2, 3), (Flow::Pay, 9, 1), (Flow::Pay, 1, 0), (Flow::Give(0), 4, 0)];
    for (flow, amount, held) in table {
        let charge = Charge { limit: &limit, key: key("client"), cost: tokens(amount), terms: Terms::Take };
        let reply: Vec<u8> = keys.charge(&digest, flow, &[charge]).query_async(&mut redis).await.unwrap();
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        // The refill of a second is a micro-token.
        assert_eq!((number(&reply[..7]) > 0, number(&reply[7..13]) / MICRO), (true, held), "{flow:?} {amount}");
    }
}

//! What a limit is worth: never more than capacity plus rate × time, under any concurrency, by the embedded store and by
//! Redis as they run in production.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cxgate::{
    config::{self, Factor, OnFailure},
    limiter::{
        Charge, Decision, Kind, Limit, Limiter, Status, Terms,
        bucket::{Bucket, MICRO},
        key::{Key, KeyHasher},
        redis::script::{Flow, KeySpace, Script},
        scale::ScaleName,
    },
    metrics::Metrics,
    shutdown::Shutdown,
};
use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    redis_server::RedisServer,
    rig::{Rig, steady, store, token},
};

/// How many requests of one client are under way at once.
const CALLERS: usize = 60;

/// Bytes of a client in Redis, all included.
const CLIENT_BYTES_MAX: u64 = 160;

fn bucket(capacity: u64, rate: u64) -> Limit {
    let bucket = Bucket { capacity: capacity * MICRO, rate: rate * MICRO };
    Limit { kind: bucket.into(), scale: ScaleName::of(["backend"]), slowest: Factor::new(0.05).unwrap() }
}

fn embedded() -> Arc<Limiter> {
    let config = config::Store { max_buckets: 1000, ..store() };
    Arc::new(Limiter::start(&config, &Metrics::default(), &Shutdown::default()).unwrap())
}

/// Has all callers ask again and again for `time`; answers how many were admitted, and how long it took from the first
/// question to the last answer.
async fn flood(limiter: &Arc<Limiter>, limit: &Limit, time: Duration) -> (u64, Duration) {
    let over = Arc::new(AtomicBool::new(false));
    let begin = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (limiter, limit, over) = (limiter.clone(), limit.clone(), over.clone());
        callers.spawn(async move {
            let mut admitted = 0;
            loop {
                let decision = limiter.decide(&[token(&limit, "client")]).await;
                match decision {
                    Decision::Admitted { .. } => admitted += 1,
                    Decision::Refused { .. } => {}
                    other => panic!("{other:?}"),
                }
                if over.load(Ordering::Relaxed) {
                    return admitted;
                }
                tokio::task::yield_now().await;
            }
        });
    }
    tokio::time::sleep(time).await;
    over.store(true, Ordering::Relaxed);
    let admitted = callers.join_all().await.into_iter().sum();
    (admitted, begin.elapsed())
}

/// Floods a limit of 10 tokens, at its whole rate and then at half of it.
async fn admits_no_more_than_the_limit(limiter: &Arc<Limiter>) {
    let once = bucket(10, 2);
    let (admitted, time) = flood(limiter, &once, Duration::ZERO).await;
    assert!(admitted >= 10 && within(admitted, &once, Factor::ONE, time), "{admitted} in {time:?}");

    let fast = Limit { kind: Bucket { capacity: once.kind.most(), rate: 200 * MICRO }.into(), ..once };
    let (admitted, time) = flood(limiter, &fast, Duration::from_secs(1)).await;
    assert!(admitted > 20 && within(admitted, &fast, Factor::ONE, time), "{admitted} in {time:?}");

    let half = Factor::new(0.5).unwrap();
    limiter.publish(fast.scale.as_ref().unwrap(), half).await;
    let (admitted, time) = flood(limiter, &fast, Duration::from_secs(1)).await;
    assert!(admitted > 20 && within(admitted, &fast, half, time), "{admitted} in {time:?}");
}

/// Whether so many requests of one token fit capacity + rate × factor × time.
fn within(admitted: u64, limit: &Limit, factor: Factor, time: Duration) -> bool {
    let Kind::Bucket(bucket) = limit.kind else { panic!("a bucket") };
    let refilled = u128::from(bucket.rate) * u128::from(factor.millionths()) * time.as_micros();
    u128::from(admitted * MICRO - limit.kind.most()) * u128::from(MICRO) * u128::from(MICRO) <= refilled
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_store_admits_no_more_than_the_limit() {
    let limiter = embedded();
    assert_eq!(limiter.status(), Status::Embedded);
    admits_no_more_than_the_limit(&limiter).await;
    assert_eq!(limiter.buckets(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_admits_no_more_than_the_limit() {
    let server = RedisServer::start();
    let rig = Rig::patient(&server, OnFailure::Deny).await;
    admits_no_more_than_the_limit(&rig.limiter).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_refund_goes_to_the_store_that_charged() {
    let server = RedisServer::start();
    let rig = Rig::patient(&server, OnFailure::Local).await;
    for limiter in [&embedded(), &rig.limiter] {
        let limit = steady(MICRO, 1);
        let charge = [token(&limit, "client")];
        for _ in 0..3 {
            let Decision::Admitted { receipt, .. } = limiter.decide(&charge).await else { panic!("one fits") };
            assert!(matches!(limiter.decide(&charge).await, Decision::Refused { .. }));
            limiter.refund(receipt, &charge).await;
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn every_key_has_a_lifetime() {
    let server = RedisServer::start();
    let rig = Rig::patient(&server, OnFailure::Deny).await;
    let limits = [bucket(10, 2), bucket(1, 1000), bucket(1_000_000, 1), Limit { scale: None, ..bucket(5, 5) }];
    for turn in 0..500 {
        let hasher = KeyHasher::new(None, "test");
        let charges: Vec<_> = limits
            .iter()
            .enumerate()
            .filter(|_| fastrand::bool())
            .map(|(number, limit)| {
                let key = hasher.start(&number.to_string()).part(&[fastrand::u8(0..20)]).finish();
                Charge { limit, key, cost: fastrand::u64(1..=limit.kind.most()), terms: Terms::Take }
            })
            .collect();
        match rig.limiter.decide(&charges).await {
            Decision::Admitted { receipt, .. } if turn % 3 == 0 => rig.limiter.refund(receipt, &charges).await,
            Decision::Admitted { .. } | Decision::Refused { .. } => {}
            other => panic!("{other:?}"),
        }
        if turn % 50 == 0 {
            let factor = Factor::new(fastrand::f64() + 0.05).unwrap();
            rig.limiter.publish(limits[0].scale.as_ref().unwrap(), factor).await;
        }
    }
    let mut client = server.client().await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut client).await.unwrap();
    assert!(keys.len() > 20);
    for key in keys {
        let lifetime: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut client).await.unwrap();
        // −2: its life ended since it was listed. −1 would be no lifetime at all.
        assert_ne!(lifetime, -1, "{key}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_client_costs_redis_little_memory() {
    const CLIENTS: u64 = 50_000;
    let server = RedisServer::start();
    let rig = Rig::patient(&server, OnFailure::Deny).await;
    let before = used_memory(&server).await;
    let (limit, hasher) = (bucket(10, 2), KeyHasher::new(None, "cxgate"));
    let keys = KeySpace::new("cxgate");
    let digest: String = {
        let source = Script::Charge.source();
        redis::cmd("SCRIPT").arg("LOAD").arg(source).query_async(&mut server.client().await).await.unwrap()
    };
    let charge = |key: Key| Charge { limit: &limit, key, cost: MICRO, terms: Terms::Take };
    let mut client = server.client().await;
    for thousand in 0..CLIENTS / 1000 {
        let mut pipeline = redis::pipe();
        for number in 0..1000 {
            let key = hasher.start("limit").part(&(1000 * thousand + number).to_le_bytes()).finish();
            pipeline.add_command(keys.charge(&digest, Flow::Take, &[charge(key)])).ignore();
        }
        pipeline.query_async::<()>(&mut client).await.unwrap();
    }
    let bytes = (used_memory(&server).await - before) / CLIENTS;
    assert!((100..=CLIENT_BYTES_MAX).contains(&bytes), "{bytes} bytes a client");
    rig.stop().await;
}

async fn used_memory(server: &RedisServer) -> u64 {
    let info: String = redis::cmd("INFO").arg("memory").query_async(&mut server.client().await).await.unwrap();
    info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap()
}

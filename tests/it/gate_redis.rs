//! The gate while Redis is in trouble: no answer later than the deadline allows, none but the promised ones, and back again.

use std::time::Duration;

use cxgate::config::{OnFailure, Rate};
use tokio::time::Instant;

use crate::support::{
    http::{Answer, get, get_as},
    redis_server::RedisServer,
    stub_upstream::StubUpstream,
    test_gate::{TestGate, bucket_of},
};

const CHAT: &str = "/api/v2/engage/webchat";

/// Far above the deadline of 50 ms, far below any time-out: what a busy machine may add.
const PROMPT: Duration = Duration::from_secs(2);

async fn gate(upstream: &StubUpstream, redis: &RedisServer, on_failure: OnFailure) -> TestGate {
    TestGate::on_redis(upstream.address, redis, |config| {
        config.store.on_failure = on_failure;
        config.store.deadline = Duration::from_millis(50);
        bucket_of(config).refill_per_second = Rate::per_second(0.001).unwrap();
    })
    .await
}

async fn asked_promptly(gate: &TestGate, client: &str) -> Answer {
    let began = Instant::now();
    let answer = get_as(gate.proxy, CHAT, client).await;
    assert!(began.elapsed() < PROMPT, "answered after {:?}", began.elapsed());
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn with_local_every_request_is_decided_while_redis_is_frozen_or_dead_and_redis_decides_again_after() {
    let upstream = StubUpstream::start().await;
    let mut redis = RedisServer::start();
    let gate = gate(&upstream, &redis, OnFailure::Local).await;
    for _ in 0..10 {
        assert_eq!(asked_promptly(&gate, "drained").await.status, 200);
    }

    redis.freeze();
    for round in 0..20 {
        let status = asked_promptly(&gate, "frozen").await.status.as_u16();
        assert!(matches!(status, 200 | 429), "round {round}: {status}");
    }
    gate.until_store_is("local").await;
    redis.thaw();
    gate.until_store_is("redis").await;
    assert_eq!(asked_promptly(&gate, "drained").await.status, 429, "Redis remembers");

    redis.stop();
    let mut passed = 0;
    for _ in 0..20 {
        passed += i32::from(asked_promptly(&gate, "dead").await.status == 200);
    }
    assert_eq!(passed, 10, "the local buckets hold the limit too");
    assert_eq!(get(gate.admin, "/readyz", &[]).await.status, 200);
    redis.restart();
    gate.until_store_is("redis").await;
    assert_eq!(asked_promptly(&gate, "dead").await.status, 429, "what was drained here is drained in the new Redis");
    assert_eq!(asked_promptly(&gate, "new").await.header("x-ratelimit-remaining"), "9", "others are not");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_deny_nothing_passes_and_readiness_says_so() {
    let upstream = StubUpstream::start().await;
    let mut redis = RedisServer::start();
    let gate = gate(&upstream, &redis, OnFailure::Deny).await;
    redis.stop();
    gate.until_store_is("deny").await;
    let refused = asked_promptly(&gate, "a").await;
    assert_eq!((refused.status.as_u16(), refused.text()), (503, r#"{"error":"store_unavailable"}"#));
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(get(gate.admin, "/readyz", &[]).await.status, 503);
    assert_eq!(get(gate.admin, "/livez", &[]).await.status, 200);
    redis.restart();
    gate.until_store_is("redis").await;
    assert_eq!(asked_promptly(&gate, "a").await.status, 200);
    assert_eq!(get(gate.admin, "/readyz", &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_allow_everything_passes() {
    let upstream = StubUpstream::start().await;
    let mut redis = RedisServer::start();
    let gate = gate(&upstream, &redis, OnFailure::Allow).await;
    redis.stop();
    gate.until_store_is("allow").await;
    for _ in 0..15 {
        let answer = asked_promptly(&gate, "a").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-ratelimit-limit"), "", "nothing is promised that nobody counts");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_does_not_need_redis() {
    let upstream = StubUpstream::start().await;
    let mut redis = RedisServer::start();
    redis.stop();
    let gate = TestGate::start(upstream.address, |config| {
        config.store.redis = Some(redis.config());
    });
    gate.until_store_is("local").await;
    assert_eq!(asked_promptly(&gate, "a").await.status, 200);
    redis.restart();
    gate.until_store_is("redis").await;
}

//! What operators change holds on every replica, soon, and ends by itself.

use cxgate::limiter::amendments::{AMENDMENTS_MAX, Record};
use hyper::Method;
use redis::Value as Reply;
use serde_json::json;

use super::{CHAT, change, slow};
use crate::support::{
    http::{get, get_as},
    redis_server::RedisServer,
    stub_upstream::StubUpstream,
    test_gate::TestGate,
    until,
};

async fn fleet(upstream: &StubUpstream, redis: &RedisServer) -> Vec<TestGate> {
    let mut gates = Vec::new();
    for _ in 0..3 {
        gates.push(TestGate::on_redis(upstream.address, redis, slow(2, 3600.0)).await);
    }
    gates
}

#[tokio::test]
async fn a_reset_lets_a_refused_client_pass_at_once_and_on_all_replicas_soon() {
    let (upstream, redis) = (StubUpstream::start().await, RedisServer::start());
    let gates = fleet(&upstream, &redis).await;
    for gate in &gates {
        // Every replica remembers the refusal, for ten seconds if nobody tells it otherwise.
        until(async || get_as(gate.proxy, CHAT, "alice").await.status == 429).await;
        until(async || {
            gate.count("cxgate_denied_fast_total").await > 0 || get_as(gate.proxy, CHAT, "alice").await.status == 200
        })
        .await;
    }
    let reset = change(gates[0].admin, Method::POST, "/api/v1/keys/reset", &json!({ "values": ["alice"] })).await;
    assert_eq!(reset.status, 200, "{}", reset.text());
    assert_eq!((&reset.json()["old"]["bucket"]["used"], &reset.json()["new"]["bucket"]["used"]), (&json!(2), &json!(0)));
    assert_eq!(get_as(gates[0].proxy, CHAT, "alice").await.status, 200, "here at once");
    let begin = tokio::time::Instant::now();
    until(async || get_as(gates[1].proxy, CHAT, "alice").await.status == 200).await;
    assert!(
        begin.elapsed() < std::time::Duration::from_secs(8),
        "it was told, and did not wait for what it remembered to end"
    );
    // The bucket holds two, and both were taken by now.
    for gate in &gates {
        until(async || get_as(gate.proxy, CHAT, "alice").await.status == 429).await;
    }
}

#[tokio::test]
async fn a_reset_in_this_process_and_in_redis_place_fills_the_bucket() {
    let (upstream, mut redis) = (StubUpstream::start().await, RedisServer::start());
    let embedded = TestGate::start(upstream.address, slow(2, 3600.0));
    for status in [200, 200, 429] {
        assert_eq!(get_as(embedded.proxy, CHAT, "alice").await.status, status);
    }
    change(embedded.admin, Method::POST, "/api/v1/keys/reset", &json!({ "values": ["alice"] })).await;
    assert_eq!(get_as(embedded.proxy, CHAT, "alice").await.status, 200);

    let alone = TestGate::on_redis(upstream.address, &redis, slow(2, 3600.0)).await;
    redis.stop();
    alone.until_store_is("local").await;
    let refused = change(alone.admin, Method::POST, "/api/v1/keys/reset", &json!({ "values": ["alice"] })).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]), (503, &json!("store_unavailable")));
    let told = get(alone.admin, "/api/v1/keys?value=alice", &[]).await.json();
    assert_eq!(told["by"], "local");
}

#[tokio::test]
async fn trust_for_a_while_holds_on_all_replicas_and_ends() {
    let (upstream, redis) = (StubUpstream::start().await, RedisServer::start());
    let gates = fleet(&upstream, &redis).await;
    let trust = json!({ "client": "Reports", "networks": ["127.0.0.0/8"], "seconds": 3600 });
    let trusted = change(gates[0].admin, Method::POST, "/api/v1/whitelist", &trust).await;
    assert_eq!(trusted.status, 200, "{}", trusted.text());
    assert_eq!((&trusted.json()["old"], &trusted.json()["new"]["client"]), (&json!(null), &json!("reports")));
    let passes = async |gate: &TestGate, client: &str| {
        let mut passed = 0;
        for _ in 0..5 {
            passed += u32::from(get_as(gate.proxy, CHAT, client).await.status == 200);
        }
        passed == 5
    };
    assert!(passes(&gates[0], "reports").await && !passes(&gates[0], "others").await);
    for gate in &gates {
        until(async || get(gate.admin, "/api/v1/whitelist", &[]).await.json()["clients"][0]["client"] == "reports").await;
        assert!(passes(gate, "reports").await);
    }
    let ended = change(gates[1].admin, Method::DELETE, "/api/v1/whitelist/reports", &json!(null)).await;
    assert_eq!((ended.status.as_u16(), &ended.json()["new"]), (200, &json!(null)));
    assert!(!passes(&gates[1], "reports").await);
    until(async || !passes(&gates[2], "reports").await).await;
    let again = change(gates[1].admin, Method::DELETE, "/api/v1/whitelist/reports", &json!(null)).await;
    assert_eq!(again.status, 404);

    let short = json!({ "client": "reports", "seconds": 1 });
    assert_eq!(change(gates[0].admin, Method::POST, "/api/v1/whitelist", &short).await.status, 200);
    for gate in &gates {
        until(async || get(gate.admin, "/api/v1/whitelist", &[]).await.json()["clients"] == json!([])).await;
    }
}

#[tokio::test]
async fn the_script_keeps_the_record_as_the_specification_does() {
    let redis = RedisServer::start();
    let mut client = redis.client().await;
    let mut record = Record::default();
    for step in 0..400_u64 {
        let (name, lifetime) = (format!("name-{}", fastrand::u32(0..12)), 600_000 + step);
        let text = if fastrand::u32(0..4) == 0 { String::new() } else { format!("text {step}") };
        let (fits, expected) = record.amend(&name, &text, lifetime * 1000, 8, 0);
        let mut call = redis::cmd("EVAL");
        call.arg(include_str!("../../../lua/amend.lua")).arg(1).arg("record").arg(&name).arg(&text).arg(lifetime).arg(8);
        let reply: Reply = call.query_async(&mut client).await.unwrap();
        let Reply::Array(values) = reply else { panic!("{reply:?}") };
        let word = |value: &Reply| {
            if let Reply::BulkString(bytes) = value { String::from_utf8(bytes.clone()).unwrap() } else { panic!() }
        };
        let mut told: Vec<_> = values[1..].chunks(3).map(|entry| (word(&entry[0]), word(&entry[1]))).collect();
        told.sort();
        let expected: Vec<_> = expected.into_iter().map(|(name, text, _)| (name, text)).collect();
        assert_eq!((&values[0], told), (&Reply::Int(fits.into()), expected), "step {step}");
    }
}

#[tokio::test]
async fn there_is_room_for_so_many_changes_and_the_next_is_refused() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, slow(2, 3600.0));
    let trust = |number: usize| json!({ "client": format!("client-{number}"), "seconds": 600 });
    for number in 0..AMENDMENTS_MAX {
        assert_eq!(change(gate.admin, Method::POST, "/api/v1/whitelist", &trust(number)).await.status, 200);
    }
    let refused = change(gate.admin, Method::POST, "/api/v1/whitelist", &trust(AMENDMENTS_MAX)).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]), (409, &json!("no_room")));
    assert_eq!(change(gate.admin, Method::POST, "/api/v1/whitelist", &trust(0)).await.status, 200, "one that is there");
}

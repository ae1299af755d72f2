//! Reading changes nothing, anywhere, and tells what is.

use std::collections::BTreeMap;

use cxgate::config::{Config, ShowClients};
use serde_json::{Value, json};

use super::{CHAT, actions, explained, slow};
use crate::support::{
    http::{get, get_as},
    redis_server::RedisServer,
    stub_upstream::StubUpstream,
    test_gate::TestGate,
};

/// Every bucket in Redis with what it holds, its lifetime aside. What replicas tell each other is no bucket.
async fn buckets(redis: &RedisServer) -> (usize, BTreeMap<String, Vec<u8>>, i64) {
    let mut client = redis.client().await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut client).await.unwrap();
    let (mut held, mut lifetimes) = (BTreeMap::new(), 0);
    for key in keys.iter().filter(|key| !key.ends_with("replicas") && !key.ends_with("AAAAAAAAAAAAAAAA")) {
        held.insert(key.clone(), redis::cmd("DUMP").arg(key).query_async(&mut client).await.unwrap());
        lifetimes += redis::cmd("PEXPIRETIME").arg(key).query_async::<i64>(&mut client).await.unwrap();
    }
    (keys.len(), held, lifetimes)
}

async fn read_all(gate: &TestGate) {
    let asked = json!({ "path": CHAT, "headers": { "x-client-id": "alice" } });
    for client in ["alice", "never-seen"] {
        get(gate.admin, &format!("/api/v1/keys?value={client}"), &[]).await;
    }
    for path in ["usage", "clients", "status", "routes", "whitelist"] {
        assert_eq!(get(gate.admin, &format!("/api/v1/{path}"), &[]).await.status, 200, "{path}");
    }
    explained(gate.admin, &asked).await;
}

#[tokio::test]
async fn a_thousand_reads_change_nothing_in_redis_or_in_the_next_decision() {
    let (upstream, redis) = (StubUpstream::start().await, RedisServer::start());
    let gate = TestGate::on_redis(upstream.address, &redis, slow(10, 3600.0)).await;
    for client in ["alice", "alice", "alice", "bob"] {
        assert_eq!(get_as(gate.proxy, CHAT, client).await.status, 200);
    }
    let before = buckets(&redis).await;
    assert_eq!(before.1.len(), 2, "{before:?}");
    for _ in 0..125 {
        read_all(&gate).await;
    }
    assert_eq!(buckets(&redis).await, before, "no key more or less, none changed, none kept longer");
    assert_eq!(get_as(gate.proxy, CHAT, "alice").await.header("x-ratelimit-remaining"), "6");
}

#[tokio::test]
async fn a_thousand_reads_change_nothing_in_this_process() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, slow(10, 3600.0));
    get_as(gate.proxy, CHAT, "alice").await;
    for _ in 0..125 {
        read_all(&gate).await;
    }
    assert_eq!(gate.metric("cxgate_buckets").await, "1");
    assert_eq!(get_as(gate.proxy, CHAT, "alice").await.header("x-ratelimit-remaining"), "8");
}

#[tokio::test]
async fn the_state_of_a_bucket_is_what_its_requests_left() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, slow(4, 3600.0));
    for _ in 0..4 {
        get_as(gate.proxy, CHAT, "Alice").await;
    }
    get(gate.proxy, CHAT, &[]).await;
    let state = async |query: &str| get(gate.admin, &format!("/api/v1/keys?{query}"), &[]).await.json();
    let alice = state("route=guest-webchat&limit=per-client&value=ALICE").await;
    assert_eq!((&alice["bucket"]["used"], &alice["bucket"]["fits"]), (&json!(4), &json!(false)));
    let wait = alice["bucket"]["fits_in_seconds"].as_f64().unwrap();
    assert!((3590.0..=3600.0).contains(&wait), "{wait}");
    assert_eq!(state("value=127.0.0.1&kind=address").await["bucket"]["used"], 1);
    assert_eq!(state("value=127.0.0.1").await["bucket"]["used"], 0, "a client that calls itself so");
    let wrong = state("limit=per-guest&value=a").await;
    assert_eq!(
        (&wrong["error"], &wrong["choices"]),
        (&json!("unknown_limit"), &json!(["route=guest-webchat&limit=per-client"]))
    );
    let wrong = state("value=a&value=b").await;
    assert_eq!((&wrong["error"], &wrong["choices"]), (&json!("values_invalid"), &json!(["client"])));
    assert_eq!(state("value=a&vaule=b").await["error"], "bad_request");
}

#[tokio::test]
async fn what_a_tenant_has_used_of_an_action_is_told_in_the_words_of_data_actions() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, actions);
    for _ in 0..3 {
        assert_eq!(get(gate.proxy, "/invoke/Book%20Slot", &[("x-tenant-id", "acme/eu")]).await.status, 200);
    }
    let told = get(gate.admin, "/metrics/acme%2Feu/Book%20Slot", &[]).await;
    assert_eq!(
        told.json(),
        json!({
            "tenant_id": "acme/eu", "action_id": "Book Slot", "current_usage": 3, "base_quota": 100.0,
            "adaptive_multiplier": 1.0, "effective_quota": 100, "window_seconds": 60,
        })
    );
    let unused = get(gate.admin, "/metrics/acme/eu", &[]).await.json();
    assert_eq!((&unused["tenant_id"], &unused["current_usage"]), (&json!("acme"), &json!(0)));
    let wrong = get(gate.admin, "/metrics/a/b?limit=other", &[]).await;
    assert_eq!((wrong.status.as_u16(), &wrong.json()["choices"]), (404, &json!(["route=guest-webchat&limit=per-client"])));
    assert_eq!(get(gate.admin, "/metrics/a%ff/b", &[]).await.status, 400);
    assert_eq!(get(gate.admin, "/metrics/a", &[]).await.status, 404);
}

#[tokio::test]
async fn usage_pages_through_all_that_is_not_full() {
    let upstream = StubUpstream::start().await;
    let plain = |config: &mut Config| {
        slow(10, 3600.0)(config);
        config.admin.show_clients = ShowClients::Plain;
    };
    let gate = TestGate::start(upstream.address, plain);
    for client in 0..25 {
        get_as(gate.proxy, CHAT, &format!("guest-{client}")).await;
    }
    let (mut found, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = get(gate.admin, &format!("/api/v1/usage?count=10{cursor}"), &[]).await.json();
        let buckets = page["buckets"].as_array().unwrap();
        assert!(buckets.len() <= 10 && buckets.iter().all(|bucket| bucket["used"] == 1), "{page}");
        found.extend(buckets.iter().map(|bucket| bucket["name"].as_str().unwrap().to_owned()));
        pages += 1;
        let Some(next) = page["cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    found.sort();
    found.dedup();
    assert_eq!((found.len(), pages), (25, 3));
}

#[tokio::test]
async fn clients_are_called_as_the_configuration_says_and_not_by_name_if_it_says_nothing() {
    let upstream = StubUpstream::start().await;
    for (show, expected) in
        [(None, None), (Some(ShowClients::Cut), Some("alic…")), (Some(ShowClients::Plain), Some("alice-7"))]
    {
        let gate = TestGate::start(upstream.address, |config| {
            slow(2, 3600.0)(config);
            config.admin.show_clients = show.unwrap_or(config.admin.show_clients);
        });
        for _ in 0..5 {
            get_as(gate.proxy, CHAT, "alice-7").await;
        }
        let told = get(gate.admin, "/api/v1/clients?order=refused", &[]).await.json();
        let client = &told["clients"][0];
        let key = get(gate.admin, "/api/v1/keys?value=alice-7", &[]).await.json()["bucket"]["key"].clone();
        assert_eq!(client["name"], expected.map_or(key.clone(), Value::from));
        assert_eq!((&client["key"], &client["limit"]), (&key, &json!("per-client")));
        let (all, refused) = (client["per_second"].as_f64().unwrap(), client["refused_per_second"].as_f64().unwrap());
        assert!((refused / all - 0.6).abs() < 0.01, "three of five: {client}");
    }
}

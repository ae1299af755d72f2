//! A limit has other parameters for a while, and a trusted client is not: on every replica, told everywhere, until it ends.

use std::time::Duration;

use cxgate::config::{Config, LimitKind, SlidingWindow};
use hyper::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{CHAT, change, explained, slow, trusted};
use crate::support::{
    http::{get, get_as},
    oracle::Oracle,
    redis_server::RedisServer,
    stub_upstream::StubUpstream,
    test_gate::{TestGate, bucket_of},
    until,
};

const LIMITS: &str = "/api/v1/limits";
const OF_GUESTS: &str = "/api/v1/limits/guest-webchat/per-client";

async fn amend(gate: &TestGate, wanted: Value) -> Value {
    let answer = change(gate.admin, Method::POST, LIMITS, &wanted).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn limits(gate: &TestGate) -> Value {
    get(gate.admin, LIMITS, &[]).await.json()["limits"].clone()
}

async fn passes(gate: &TestGate, client: &str) -> bool {
    get_as(gate.proxy, CHAT, client).await.status == 200
}

#[tokio::test]
async fn what_is_in_force_is_told_wherever_a_limit_is_and_for_how_long() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, slow(2, 1000.0));
    let changed = amend(&gate, json!({ "capacity": 5, "refill_per_second": 0.5, "seconds": 600 })).await;
    assert_eq!(changed["old"], Value::Null);
    let new = &changed["new"];
    assert_eq!((&new["capacity"], &new["refill_per_second"], &new["quota"]), (&json!(5.0), &json!(0.5), &json!(null)));
    assert_eq!((&new["configured"]["capacity"], &new["routes"]), (&json!(2.0), &json!(["guest-webchat"])));

    let answer = get_as(gate.proxy, CHAT, "alice").await;
    assert_eq!((answer.header("x-ratelimit-limit"), answer.header("x-ratelimit-remaining")), ("5", "4"));
    assert_eq!(answer.header("ratelimit-policy"), r#""per-client";q=5;w=10"#);
    let told = [
        get(gate.admin, "/api/v1/routes", &[]).await.json()["routes"][0]["limits"][0].clone(),
        get(gate.admin, "/api/v1/keys?value=alice", &[]).await.json(),
    ];
    for told in told {
        assert_eq!((&told["capacity"], &told["window_seconds"]), (&json!(5.0), &json!(10)), "{told}");
        assert_eq!(told["amended"]["configured"]["capacity"], 2.0);
        assert!((590..=600).contains(&told["amended"]["seconds_left"].as_u64().unwrap()));
    }
    let asked = json!({ "path": CHAT, "headers": { "x-client-id": "alice" } });
    let limit = explained(gate.admin, &asked).await["limits"][0].clone();
    assert_eq!((&limit["capacity"], &limit["amended"]["configured"]["capacity"]), (&json!(5.0), &json!(2.0)));
    until(async || gate.metric(r#"cxgate_amendments{kind="limit"}"#).await == "1").await;
    assert_eq!(get(gate.admin, "/api/v1/status", &[]).await.json()["amendments"]["limit"], 1);
    while passes(&gate, "alice").await {}
    assert_eq!(get_as(gate.proxy, CHAT, "alice").await.header("ratelimit-policy"), r#""per-client";q=5;w=10"#);

    let restored = change(gate.admin, Method::DELETE, OF_GUESTS, &Value::Null).await.json();
    assert_eq!((&restored["old"]["capacity"], &restored["new"]), (&json!(5.0), &json!(null)));
    assert_eq!(get_as(gate.proxy, CHAT, "bob").await.header("ratelimit-policy"), r#""per-client";q=2;w=2000"#);
}

#[tokio::test]
async fn what_no_configuration_could_say_is_refused_and_says_why() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        slow(5, 1.0)(config);
        config.routes[0].limits[0].cost = 3;
    });
    let table = [
        (json!({ "seconds": 60 }), 400, "expected capacity, refill_per_second, or both"),
        (json!({ "quota": 5, "seconds": 60 }), 400, "expected capacity"),
        (json!({ "capacity": 2, "seconds": 60 }), 400, "takes 3 tokens of it"),
        (json!({ "capacity": 1_000_001, "seconds": 60 }), 400, "capacity: expected a whole number"),
        (json!({ "refill_per_second": 0.0, "seconds": 60 }), 400, "refill_per_second: expected a number"),
        (json!({ "capacity": 5, "seconds": 86_401 }), 400, "seconds: expected a whole number"),
        (json!({ "capacity": 5 }), 400, "seconds"),
        (json!({ "limit": "other", "capacity": 5, "seconds": 60 }), 404, "no such limit"),
    ];
    for (wanted, status, message) in table {
        let answer = change(gate.admin, Method::POST, LIMITS, &wanted).await;
        assert_eq!(answer.status.as_u16(), status, "{wanted}");
        assert!(answer.json()["message"].as_str().unwrap().contains(message), "{wanted}: {}", answer.text());
    }
    assert_eq!(limits(&gate).await, json!([]));
}

#[tokio::test]
async fn a_raise_is_heeded_at_once_here_and_soon_elsewhere_where_refusals_are_remembered() {
    let (upstream, redis) = (StubUpstream::start().await, RedisServer::start());
    let [one, other] = [
        TestGate::on_redis(upstream.address, &redis, slow(2, 3600.0)).await,
        TestGate::on_redis(upstream.address, &redis, slow(2, 3600.0)).await,
    ];
    for gate in [&one, &other] {
        while passes(gate, "alice").await {}
        until(async || !passes(gate, "alice").await && gate.count("cxgate_denied_fast_total").await > 0).await;
    }
    amend(&one, json!({ "capacity": 2, "refill_per_second": 1000, "seconds": 3600 })).await;
    assert!(passes(&one, "alice").await, "here at once");
    let begin = Instant::now();
    until(async || passes(&other, "alice").await).await;
    assert!(begin.elapsed() < Duration::from_secs(8), "it was told, and did not wait for what it remembered to end");
    assert_eq!(limits(&other).await[0]["refill_per_second"], 1000.0);
    assert_eq!(change(other.admin, Method::DELETE, OF_GUESTS, &Value::Null).await.status, 200);
    until(async || limits(&one).await == json!([])).await;
    for gate in [&one, &other] {
        until(async || !passes(gate, "alice").await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_admit_no_more_than_they_may_over_a_cut_and_its_end() {
    let (upstream, redis) = (StubUpstream::start().await, RedisServer::start());
    let guests = |config: &mut Config| {
        slow(10, 0.1)(config);
        config.store.deadline = Duration::from_secs(2);
    };
    let gates = [
        TestGate::on_redis(upstream.address, &redis, guests).await,
        TestGate::on_redis(upstream.address, &redis, guests).await,
    ];
    let (whole, within) = (Oracle::new(), Oracle::new());
    let ask = async |gate: &TestGate, oracles: &[&Oracle]| {
        let sent = Instant::now();
        if passes(gate, "alice").await {
            for oracle in oracles {
                oracle.admitted(sent);
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    for _ in 0..20 {
        ask(&gates[0], &[&whole]).await;
    }
    let ends_no_sooner_than = Instant::now() + Duration::from_secs(4);
    amend(&gates[0], json!({ "capacity": 3, "refill_per_second": 2, "seconds": 4 })).await;
    while limits(&gates[1]).await == json!([]) {
        ask(&gates[0], &[&whole]).await;
    }
    while Instant::now() + Duration::from_millis(500) < ends_no_sooner_than {
        ask(&gates[0], &[&whole, &within]).await;
        ask(&gates[1], &[&whole, &within]).await;
    }
    // Its end needs nobody to say so, and what was refused is forgotten within a second.
    until(async || limits(&gates[0]).await == json!([])).await;
    let ended = Instant::now();
    while ended.elapsed() < Duration::from_secs(2) {
        ask(&gates[0], &[&whole]).await;
        ask(&gates[1], &[&whole]).await;
    }
    assert!(within.count() > 0 && whole.count() > within.count() + 20, "{} {}", within.count(), whole.count());
    assert!(within.excess(3, 2.0) <= 0.0, "E within the change: {}", within.excess(3, 2.0));
    assert!(whole.excess(10, 10.0) <= 0.0, "E over its begin and end: {}", whole.excess(10, 10.0));
    let policy = get_as(gates[1].proxy, CHAT, "bob").await;
    assert_eq!(policy.header("ratelimit-policy"), r#""per-client";q=10;w=1"#);
}

#[tokio::test]
async fn the_quota_of_a_window_is_changed_on_redis_too() {
    let (upstream, redis) = (StubUpstream::start().await, RedisServer::start());
    let gate = TestGate::on_redis(upstream.address, &redis, |config| {
        slow(1, 1.0)(config);
        config.routes[0].limits[0].limit.kind =
            LimitKind::SlidingWindow(SlidingWindow { quota: 2, window: Duration::from_hours(1) });
    });
    let gate = gate.await;
    assert!(passes(&gate, "alice").await && passes(&gate, "alice").await && !passes(&gate, "alice").await);
    amend(&gate, json!({ "quota": 3, "seconds": 600 })).await;
    assert!(passes(&gate, "alice").await && !passes(&gate, "alice").await);
    amend(&gate, json!({ "quota": 1, "seconds": 600 })).await;
    assert!(!passes(&gate, "alice").await && passes(&gate, "bob").await && !passes(&gate, "bob").await);
    assert_eq!(limits(&gate).await[0]["configured"]["quota"], 2.0);
}

#[tokio::test]
async fn a_change_outlives_reloads_and_waits_for_a_limit_that_is_gone() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, slow(2, 3600.0));
    amend(&gate, json!({ "capacity": 4, "seconds": 600 })).await;
    let limit =
        async || get_as(gate.proxy, CHAT, &fastrand::u64(..).to_string()).await.header("x-ratelimit-limit").to_owned();
    gate.reload(|config| bucket_of(config).capacity = 7).await.unwrap();
    assert_eq!(limit().await, "4");
    gate.reload(|config| config.routes[0].limits[0].limit.name = "other".to_owned()).await.unwrap();
    assert_eq!(limit().await, "7");
    let waiting = limits(&gate).await[0].clone();
    assert_eq!((&waiting["routes"], &waiting["configured"], &waiting["capacity"]), (&json!([]), &json!(null), &json!(4.0)));
    gate.reload(|config| {
        config.routes[0].limits[0].limit.name = "per-client".to_owned();
        config.routes[0].limits[0].cost = 5;
    })
    .await
    .unwrap();
    assert_eq!((limit().await.as_str(), &limits(&gate).await[0]["routes"]), ("7", &json!([])), "five do not fit in four");
    gate.reload(|config| config.routes[0].limits[0].limit.name = "other".to_owned()).await.unwrap();
    assert_eq!(change(gate.admin, Method::DELETE, OF_GUESTS, &Value::Null).await.status, 200, "it can be ended");
    assert_eq!(change(gate.admin, Method::DELETE, OF_GUESTS, &Value::Null).await.status, 404);
    assert_eq!(limits(&gate).await, json!([]));
}

#[tokio::test]
async fn a_trusted_client_is_held_to_limits_while_it_is_suspended_on_all_replicas() {
    let (upstream, redis) = (StubUpstream::start().await, RedisServer::start());
    let reports = |config: &mut Config| {
        slow(2, 3600.0)(config);
        config.whitelist = vec![trusted("Reports")];
    };
    let gates = [
        TestGate::on_redis(upstream.address, &redis, reports).await,
        TestGate::on_redis(upstream.address, &redis, reports).await,
    ];
    let pass_all = async |gate: &TestGate| {
        let mut passed = 0;
        for _ in 0..5 {
            passed += u32::from(passes(gate, "reports").await);
        }
        passed == 5
    };
    assert!(pass_all(&gates[0]).await && pass_all(&gates[1]).await);
    let path = "/api/v1/suspensions";
    let suspended = change(gates[0].admin, Method::POST, path, &json!({ "client": "REPORTS", "seconds": 3600 })).await;
    assert_eq!((suspended.status.as_u16(), &suspended.json()["new"]["client"]), (200, &json!("reports")));
    assert!(!pass_all(&gates[0]).await);
    until(async || !pass_all(&gates[1]).await).await;
    let asked = json!({ "path": CHAT, "headers": { "x-client-id": "reports" } });
    assert_eq!(explained(gates[0].admin, &asked).await["exempt"], Value::Null);
    let resumed = change(gates[1].admin, Method::DELETE, "/api/v1/suspensions/reports", &Value::Null).await;
    assert_eq!(resumed.status, 200);
    assert!(pass_all(&gates[1]).await);
    until(async || pass_all(&gates[0]).await).await;
    let short = json!({ "client": "reports", "seconds": 1 });
    assert_eq!(change(gates[0].admin, Method::POST, path, &short).await.status, 200);
    for gate in &gates {
        until(async || get(gate.admin, path, &[]).await.json()["clients"] == json!([]) && pass_all(gate).await).await;
    }
}

#[tokio::test]
async fn redis_keeps_a_bucket_for_as_long_as_it_is_not_full_under_what_is_configured_either() {
    let (upstream, redis) = (StubUpstream::start().await, RedisServer::start());
    let gate = TestGate::on_redis(upstream.address, &redis, |config| {
        slow(10, 1.0)(config);
        config.routes[0].limits[0].limit.scale_by.clear();
    })
    .await;
    amend(&gate, json!({ "capacity": 5, "refill_per_second": 100, "seconds": 600 })).await;
    assert!(passes(&gate, "alice").await);
    let key = get(gate.admin, "/api/v1/keys?value=alice", &[]).await.json()["bucket"]["key"].as_str().unwrap().to_owned();
    let mut client = redis.client().await;
    let left: i64 = redis::cmd("PTTL").arg(format!("cxgate:1:{key}")).query_async(&mut client).await.unwrap();
    // Four of ten are left, at one a second; at a hundred it would be full in a hundredth.
    assert!((4000..10_000).contains(&left), "{left} ms");
}

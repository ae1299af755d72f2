//! An explanation is the decision that would be made, and makes none.

use std::time::{Duration, SystemTime};

use cxgate::config::Cooldown;
use http_body_util::Full;
use hyper::Response;
use serde_json::{Value, json};

use super::{CHAT, explained, slow, trusted};
use crate::support::{
    http::{get, get_as},
    redis_server::RedisServer,
    stub_upstream::StubUpstream,
    test_gate::TestGate,
    until,
};

fn asked(client: &str) -> Value {
    json!({ "path": CHAT, "headers": { "x-client-id": client } })
}

fn unix() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Drains a client, has its refusal explained, and asks on until it passes.
async fn is_right(gate: &TestGate, by: &str) {
    assert_eq!(explained(gate.admin, &asked("alice")).await["verdict"], "admitted");
    until(async || get_as(gate.proxy, CHAT, "alice").await.status == 429).await;
    let told = explained(gate.admin, &asked("Alice")).await;
    assert_eq!((&told["verdict"], &told["status"], &told["limit"]), (&json!("refused"), &json!(429), &json!("per-client")));
    assert_eq!((&told["error"], &told["decided_by"]), (&json!("rate_limit_exceeded"), &json!(by)));
    assert_eq!(told["client"]["source"], "header:x-client-id");
    let limit = &told["limits"][0];
    assert_eq!((&limit["admits"], &limit["cost"], &limit["capacity"]), (&json!(false), &json!(1.0), &json!(2.0)));
    let passes_at = told["passes_at"].as_f64().unwrap();
    let mut refused_last = 0.0;
    until(async || {
        let now = unix();
        let passes = get_as(gate.proxy, CHAT, "alice").await.status == 200;
        refused_last = if passes { refused_last } else { now };
        passes
    })
    .await;
    // The second that was told begins at most one before it passes, and a refusal behind it would prove it wrong.
    assert!(refused_last < passes_at, "refused at {refused_last}, was to pass at {passes_at}");
    assert!(unix() > passes_at - 1.0, "it passed before {passes_at}");
}

#[tokio::test]
async fn a_refusal_names_the_limit_and_the_second_at_which_it_passes_and_is_right() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, slow(2, 3.0));
    is_right(&gate, "embedded").await;
}

#[tokio::test]
async fn it_is_right_on_redis_and_where_refusals_are_remembered() {
    let (upstream, redis) = (StubUpstream::start().await, RedisServer::start());
    let gate = TestGate::on_redis(upstream.address, &redis, slow(2, 3.0)).await;
    is_right(&gate, "denied_fast").await;
}

#[tokio::test]
async fn a_pause_of_the_upstream_is_explained() {
    let upstream = StubUpstream::answering(|_| {
        Response::builder().status(429).header("retry-after", "300").body(Full::from("later")).unwrap()
    });
    let upstream = upstream.await;
    let gate = TestGate::start(upstream.address, |config| {
        slow(2, 3.0)(config);
        config.routes[0].cooldown = Cooldown::Client;
    });
    get_as(gate.proxy, CHAT, "alice").await;
    let told = explained(gate.admin, &asked("alice")).await;
    assert_eq!((&told["verdict"], &told["limit"]), (&json!("refused"), &json!("cooldown")));
    let refused = get_as(gate.proxy, CHAT, "alice").await;
    let (real, said) = (refused.header("retry-after").parse::<u64>().unwrap(), told["retry_after"].as_u64().unwrap());
    assert!(real <= said && said <= real + 5 && real > 290, "told {said}, refused for {real}");
    assert_eq!(explained(gate.admin, &asked("bob")).await["verdict"], "admitted");
}

#[tokio::test]
async fn whoever_bypasses_limits_or_never_meets_them_is_told_so() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        slow(2, 3.0)(config);
        config.whitelist = vec![trusted("reports")];
    });
    let from = |client: &str, address: &str| {
        let mut asked = asked(client);
        asked["address"] = address.into();
        asked
    };
    assert_eq!(explained(gate.admin, &from("reports", "10.1.2.3")).await["exempt"], "configuration");
    assert_eq!(explained(gate.admin, &from("reports", "192.0.2.1")).await["exempt"], Value::Null);
    let table = [
        (json!({ "path": "/nowhere" }), 404, "no_route"),
        (json!({ "path": CHAT, "host": "a, b" }), 400, "host_invalid"),
        (json!({ "path": CHAT, "headers": { "x-client-id": ["a", "b"] } }), 400, "identity_ambiguous"),
        (json!({ "path": format!("{CHAT}//x") }), 400, "path_ambiguous"),
    ];
    for (asked, status, code) in table {
        let told = explained(gate.admin, &asked).await;
        assert_eq!((&told["verdict"], &told["status"], &told["error"]), (&json!("rejected"), &json!(status), &json!(code)));
    }
}

#[tokio::test]
async fn explaining_charges_nothing_and_counts_nothing() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, slow(2, 3600.0));
    for _ in 0..50 {
        assert_eq!(explained(gate.admin, &asked("alice")).await["verdict"], "admitted");
    }
    assert_eq!((get_as(gate.proxy, CHAT, "alice").await.status, upstream.seen().len()), (hyper::StatusCode::OK, 1));
    assert_eq!(get_as(gate.proxy, CHAT, "alice").await.status, 200);
    for _ in 0..50 {
        assert_eq!(explained(gate.admin, &asked("alice")).await["verdict"], "refused");
    }
    let decisions = "cxgate_decisions_total{route=\"guest-webchat\",limit=\"per-client\",decision=\"refused\"}";
    assert_eq!(gate.count(decisions).await, 0);
    let clients = get(gate.admin, "/api/v1/clients", &[]).await.json();
    let rate = clients["clients"][0]["per_second"].as_f64().unwrap() * Duration::from_mins(1).as_secs_f64();
    assert!(rate < 2.0, "two requests, not a hundred: {clients}");
}

//! Routes whose mode is shadow: everyone passes, and what limits would have done is told to the last request.

use std::{collections::BTreeMap, time::Duration};

use cxgate::config::{Config, Dimension, Mode, OnFailure, Rate, Redis, TokenBucket, WebSocket};
use hyper::Method;

use crate::support::{
    daemon::{Daemon, one_route},
    http::{get, get_as, send},
    redis_server::RedisServer,
    stub_upstream::StubUpstream,
    test_gate::{TestGate, bucket_of},
    websocket::{Socket, TEXT, echoing},
};

const CHAT: &str = "/api/v2/engage/webchat";

fn bucket(capacity: u32) -> TokenBucket {
    TokenBucket { capacity, refill_per_second: Rate::per_second(0.000_001).unwrap() }
}

/// The one route in shadow, with a limit that gives nothing back while a test runs.
fn shadow(capacity: u32) -> impl Fn(&mut Config) {
    move |config| {
        *bucket_of(config) = bucket(capacity);
        config.routes[0].mode = Mode::Shadow;
    }
}

async fn decisions(gate: &TestGate, route: &str, decision: &str) -> u64 {
    gate.count(&format!(r#"cxgate_decisions_total{{route="{route}",limit="per-client",decision="{decision}"}}"#)).await
}

async fn violations(gate: &TestGate, origin: &str) -> u64 {
    gate.count(&format!(r#"cxgate_violations_total{{origin="{origin}"}}"#)).await
}

#[tokio::test]
async fn nobody_is_refused_and_every_request_that_would_have_been_is_counted() {
    let (upstream, redis) = (StubUpstream::start().await, RedisServer::start());
    let embedded = TestGate::start(upstream.address, shadow(3));
    let shared = TestGate::on_redis(upstream.address, &redis, shadow(3)).await;
    for (gate, fast) in [(embedded, false), (shared, true)] {
        for number in 0..10 {
            let answer = get_as(gate.proxy, CHAT, "a").await;
            assert_eq!((answer.status.as_u16(), answer.text()), (200, r#"{"ok":true}"#));
            let left = 2_u32.saturating_sub(number).to_string();
            assert_eq!((answer.header("x-ratelimit-limit"), answer.header("x-ratelimit-remaining")), ("3", left.as_str()));
            assert_eq!(answer.header("retry-after"), "");
        }
        let counted = async |decision| decisions(&gate, "guest-webchat", decision).await;
        assert_eq!((counted("admitted").await, counted("would_refuse").await, counted("refused").await), (3, 7, 0));
        assert_eq!((violations(&gate, "shadow").await, violations(&gate, "local").await), (7, 0));
        assert_eq!(gate.count(r#"cxgate_rejections_total{code="rate_limit_exceeded"}"#).await, 0);
        assert_eq!(gate.count("cxgate_denied_fast_total").await > 0, fast, "what is known to be empty asks nobody");
    }
}

#[tokio::test]
async fn the_bucket_is_the_same_when_the_limit_is_enforced() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, shadow(3));
    for _ in 0..5 {
        assert_eq!(get_as(gate.proxy, CHAT, "a").await.status, 200);
    }
    let explained = send(
        gate.admin,
        Method::POST,
        "/api/v1/explain",
        &[],
        r#"{"path":"/api/v2/engage/webchat","headers":{"x-client-id":"a"}}"#,
    );
    let explained = explained.await.json();
    let told = ["verdict", "mode", "limit"].map(|key| explained[key].as_str().unwrap().to_owned());
    assert_eq!(told, ["admitted", "shadow", "per-client"]);
    assert!(explained["status"].is_null() && explained["passes_at"].is_u64(), "{explained}");
    gate.reload(|config| config.routes[0].mode = Mode::Enforce).await.unwrap();
    assert_eq!(get_as(gate.proxy, CHAT, "a").await.status, 429);
    gate.reload(|config| config.routes[0].mode = Mode::Shadow).await.unwrap();
    assert_eq!(get_as(gate.proxy, CHAT, "a").await.status, 200);
    let counted = async |decision| decisions(&gate, "guest-webchat", decision).await;
    assert_eq!((counted("admitted").await, counted("would_refuse").await, counted("refused").await), (3, 3, 1));
}

#[tokio::test]
async fn a_limit_that_routes_share_loses_no_token_to_a_route_in_shadow() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        shadow(3)(config);
        config.identity.new_per_address = Some(bucket(2));
        config.routes[0].limits[0].shared = true;
        let mut enforced = config.routes[0].clone();
        (enforced.name, enforced.paths, enforced.mode) =
            ("enforced".to_owned(), vec!["/enforced".to_owned()], Mode::Enforce);
        config.routes.push(enforced);
    });
    for client in ["a", "b", "c", "d"] {
        for _ in 0..5 {
            assert_eq!(get_as(gate.proxy, CHAT, client).await.status, 200);
        }
    }
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(get_as(gate.proxy, "/enforced", "a").await.status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 429]);
    assert_eq!(get_as(gate.proxy, "/enforced", "b").await.status, 200, "two may be new");
    assert_eq!(get_as(gate.proxy, "/enforced", "c").await.status, 429);
}

#[tokio::test]
async fn what_no_limit_can_decide_passes_too() {
    let upstream = StubUpstream::start().await;
    let keyless = TestGate::start(upstream.address, |config| {
        shadow(3)(config);
        config.routes[0].limits[0].limit.per = vec![Dimension::Header("x-tenant-id".parse().unwrap())];
    });
    assert_eq!(get_as(keyless.proxy, CHAT, "a").await.status, 200);
    assert_eq!(violations(&keyless, "shadow").await, 1);
    keyless.reload(|config| config.routes[0].mode = Mode::Enforce).await.unwrap();
    assert_eq!(get_as(keyless.proxy, CHAT, "a").await.status, 400);
    let away = TestGate::start(upstream.address, |config| {
        shadow(3)(config);
        (config.store.redis, config.store.on_failure) = (Redis::parse("redis://127.0.0.1:1"), OnFailure::Deny);
    });
    assert_eq!(get_as(away.proxy, CHAT, "a").await.status, 200);
    assert_eq!(violations(&away, "shadow").await, 0);
}

#[tokio::test]
async fn sockets_and_messages_beyond_their_limits_pass_at_once_and_are_counted() {
    let upstream = echoing().await;
    let policy = |max_pause| WebSocket {
        sockets: 1,
        messages: TokenBucket { capacity: 2, refill_per_second: Rate::per_second(0.01).unwrap() },
        costs: BTreeMap::new(),
        max_pause,
        idle_timeout: Duration::from_hours(1),
        exact: true,
    };
    // A token takes 100 s to come: more than one second, and less than half an hour.
    for (max_pause, counted, told) in [(1, "would_refuse", 4), (1800, "would_pace", 1)] {
        let gate = TestGate::start(upstream.address(), |config| {
            shadow(10)(config);
            config.routes[0].websocket = Some(policy(Duration::from_secs(max_pause)));
        });
        let mut socket = Socket::open(gate.proxy, CHAT, "a").await;
        let _second = Socket::open(gate.proxy, CHAT, "a").await;
        for number in 0..5 {
            socket.send(TEXT, number.to_string()).await;
            assert_eq!(socket.frame().await.payload, number.to_string().as_bytes());
        }
        let messages =
            |decision: &str| format!(r#"cxgate_websocket_messages_total{{route="guest-webchat",decision="{decision}"}}"#);
        assert_eq!((gate.count(&messages("admitted")).await, gate.count(&messages(counted)).await), (2, 3));
        assert_eq!(violations(&gate, "shadow").await, told, "a socket, and what would have closed it");
        assert_eq!(gate.count(r#"cxgate_websocket_closes_total{route="guest-webchat",code="1008"}"#).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_that_it_was_only_tried() {
    let upstream = StubUpstream::start().await;
    let tried = r#"
mode = "shadow"
  [[routes.limits]]
  name = "per-client"
  per = ["client"]
  token_bucket = { capacity = 1, refill_per_second = 0.001 }
"#;
    let mut daemon = Daemon::start(&one_route(upstream.address, CHAT, tried)).await;
    for _ in 0..5 {
        assert_eq!(get(daemon.proxy, CHAT, &[("x-client-id", "a")]).await.status, 200);
    }
    let told = daemon.until_event("rate_limit_violation").await;
    let fields = ["mode", "origin", "limit", "client_id"].map(|field| told[field].as_str().unwrap().to_owned());
    assert_eq!(fields, ["shadow", "local", "per-client", "a"]);
    assert!(told["retry_after"].as_u64() > Some(1) && told["remaining"] == 0, "{told}");
    let sum = daemon.until_event("rate_limit_violations").await;
    assert_eq!((&sum["mode"], sum["count"].as_u64()), (&"shadow".into(), Some(3)));
}

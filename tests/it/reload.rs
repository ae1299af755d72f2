//! A configuration that changes under the daemon: what follows it at once, what goes on as if nothing had happened, and what a
//! mistake does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use cxgate::{
    app::ReloadError,
    config::{Config, Curve, Endpoint, LimitKind, Rate, Secret, TokenBucket, WebSocket},
};
use hyper::Method;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::support::{
    http::{get, get_as, send},
    raw_client::RawClient,
    raw_upstream::RawUpstream,
    redis_server::RedisServer,
    soon,
    stub_upstream::StubUpstream,
    test_gate::{TestGate, bucket_of, origin},
    token_server::{TokenServer, oauth},
    until,
    websocket::{Socket, TEXT, echoing},
};

mod process;

const CHAT: &str = "/api/v2/engage/webchat";
const FACTOR: &str = r#"cxgate_load_factor{signal="backend"}"#;
const SUCCESSFUL: &str = "cxgate_config_last_reload_successful";

fn bucket(capacity: u32, rate: f64) -> TokenBucket {
    TokenBucket { capacity, refill_per_second: Rate::per_second(rate).unwrap() }
}

/// The one limit holds so many, and gives nothing back while a test runs.
fn holding(capacity: u32) -> impl Fn(&mut Config) {
    move |config| *bucket_of(config) = bucket(capacity, 0.000_001)
}

async fn asked(gate: &TestGate) -> (u16, String, String) {
    let answer = get_as(gate.proxy, CHAT, "a").await;
    let field = |name| answer.header(name).to_owned();
    (answer.status.as_u16(), field("x-ratelimit-limit"), field("x-ratelimit-remaining"))
}

fn told(status: u16, limit: &str, remaining: &str) -> (u16, String, String) {
    (status, limit.to_owned(), remaining.to_owned())
}

#[tokio::test]
async fn a_limit_that_changes_holds_for_the_next_request_and_keeps_the_tokens_that_are_there() {
    let (upstream, redis) = (StubUpstream::start().await, RedisServer::start());
    let embedded = TestGate::start(upstream.address, holding(10));
    let shared = TestGate::on_redis(upstream.address, &redis, holding(10)).await;
    for gate in [embedded, shared] {
        for _ in 0..3 {
            asked(&gate).await;
        }
        assert_eq!(asked(&gate).await, told(200, "10", "6"));
        gate.reload(holding(20)).await.unwrap();
        assert_eq!(asked(&gate).await, told(200, "20", "5"), "no token came with the capacity");
        gate.reload(holding(2)).await.unwrap();
        assert_eq!(asked(&gate).await, told(200, "2", "1"), "what no longer fits is gone");
        asked(&gate).await;
        assert_eq!(asked(&gate).await, told(429, "2", "0"));
        let decisions = |decision: &str| {
            format!(r#"cxgate_decisions_total{{route="guest-webchat",limit="per-client",decision="{decision}"}}"#)
        };
        assert_eq!((gate.count(&decisions("admitted")).await, gate.count(&decisions("refused")).await), (7, 1));
    }
}

#[tokio::test]
async fn a_refusal_that_is_remembered_ends_with_the_limit_it_came_from() {
    let (upstream, redis) = (StubUpstream::start().await, RedisServer::start());
    let gate = TestGate::on_redis(upstream.address, &redis, holding(1)).await;
    asked(&gate).await;
    for _ in 0..3 {
        assert_eq!(asked(&gate).await.0, 429);
    }
    assert!(gate.count("cxgate_denied_fast_total").await > 0);
    gate.reload(|config| *bucket_of(config) = bucket(1, 1000.0)).await.unwrap();
    until(async || asked(&gate).await.0 == 200).await;
    assert_eq!(gate.count("cxgate_debts").await, 0);
}

#[tokio::test]
async fn an_upstream_that_is_unchanged_keeps_its_connections_and_one_that_moved_is_asked_elsewhere() {
    let (before, after) = (RawUpstream::answering("before").await, RawUpstream::answering("after").await);
    let gate = TestGate::start(before.address(), |_| ());
    let mut client = RawClient::connect(gate.proxy).await;
    assert_eq!(client.get(CHAT).await.text(), "before");
    gate.reload(holding(7)).await.unwrap();
    assert_eq!(client.get(CHAT).await.text(), "before", "over the same connection of the client");
    assert_eq!(before.connections(), 1, "and the same one to the upstream");
    gate.reload(|config| config.upstreams.get_mut("cxone").unwrap().url = origin(after.address())).await.unwrap();
    assert_eq!(client.get(CHAT).await.text(), "after");
    until(async || gate.metric(r#"cxgate_upstream_connections{upstream="cxone"}"#).await == "1").await;
}

#[tokio::test]
async fn a_request_in_flight_and_an_open_socket_end_under_what_they_began_with() {
    let permits = Arc::new(Semaphore::new(0));
    let (slow, fast, sockets) =
        (StubUpstream::holding(Arc::clone(&permits)).await, StubUpstream::start().await, echoing().await);
    let gate = TestGate::start(sockets.address(), |config| {
        let (messages, costs) = (bucket(100, 100.0), std::collections::BTreeMap::new());
        let (max_pause, idle_timeout) = (Duration::from_secs(1), Duration::from_mins(1));
        config.routes[0].websocket = Some(WebSocket { sockets: 5, messages, costs, max_pause, idle_timeout, exact: true });
    });
    let mut socket = Socket::open(gate.proxy, CHAT, "a").await;
    gate.reload(|config| {
        config.upstreams.get_mut("cxone").unwrap().url = origin(slow.address);
        config.routes[0].websocket = None;
    })
    .await
    .unwrap();
    let waiting = tokio::spawn(get_as(gate.proxy, CHAT, "b"));
    until(async || gate.metric("cxgate_http_requests_in_flight").await != "0").await;
    gate.reload(|config| {
        config.upstreams.get_mut("cxone").unwrap().url = origin(fast.address);
        config.routes[0].paths = vec!["/elsewhere".to_owned()];
    })
    .await
    .unwrap();
    assert_eq!(get_as(gate.proxy, CHAT, "b").await.status, 404);
    assert_eq!(get_as(gate.proxy, "/elsewhere", "b").await.status, 200);
    permits.add_permits(1);
    assert_eq!(soon(waiting).await.unwrap().status, 200);
    socket.send(TEXT, "still here").await;
    assert_eq!(socket.frame().await.payload, b"still here");
}

#[tokio::test]
async fn a_token_is_kept_for_credentials_that_did_not_change() {
    let (upstream, tokens) = (StubUpstream::start().await, TokenServer::start(3600).await);
    let gate = TestGate::start(upstream.address, |config| {
        config.oauth.insert("cxone".to_owned(), oauth(tokens.stub.address));
        config.routes[0].credentials = Some("cxone".to_owned());
    });
    assert_eq!(get_as(gate.proxy, CHAT, "a").await.status, 200);
    gate.reload(holding(10)).await.unwrap();
    assert_eq!(get_as(gate.proxy, CHAT, "a").await.status, 200);
    assert_eq!(tokens.asked(), 1);
    gate.reload(|config| config.oauth.get_mut("cxone").unwrap().default_lifetime = Duration::from_mins(2)).await.unwrap();
    assert_eq!(get_as(gate.proxy, CHAT, "a").await.status, 200);
    assert_eq!(tokens.asked(), 2);
    let authorizations: Vec<_> = upstream.seen().iter().map(|seen| seen.headers["authorization"].clone()).collect();
    assert_eq!(authorizations, ["Bearer token-1", "Bearer token-1", "Bearer token-2"]);
    gate.reload(|config| {
        config.routes[0].credentials = None;
        config.oauth.clear();
    })
    .await
    .unwrap();
    assert_eq!(gate.metric(r#"cxgate_oauth_token_end_seconds{credentials="cxone"}"#).await, "");
}

#[tokio::test]
async fn a_signal_that_is_unchanged_is_polled_on_and_one_that_is_gone_ends() {
    let upstream = StubUpstream::start().await;
    let load = StubUpstream::answering(|_| hyper::Response::new(r#"{"cpu_utilization": 100}"#.into())).await;
    let gate = TestGate::start(upstream.address, |config| {
        let endpoint = Endpoint { origin: origin(load.address), path_and_query: "/load".to_owned() };
        let signal = config.load.get_mut("backend").unwrap();
        (signal.endpoint, signal.interval) = (Some(endpoint), Duration::from_hours(1));
    });
    until(async || gate.metric(FACTOR).await == "0.2").await;
    gate.reload(holding(10)).await.unwrap();
    assert_eq!(gate.metric(FACTOR).await, "0.2");
    let explained = send(gate.admin, Method::POST, "/api/v1/explain", &[], r#"{"path":"/api/v2/engage/webchat"}"#).await;
    assert_eq!(explained.json()["limits"][0]["factor"], 0.2);
    assert_eq!(load.seen().len(), 1, "the hour is not over");
    let halved = Curve::new(vec![(0.0, 0.5), (100.0, 0.5)]).unwrap();
    gate.reload(|config| config.load.get_mut("backend").unwrap().cpu_curve = halved).await.unwrap();
    until(async || gate.metric(FACTOR).await == "0.5").await;
    assert_eq!(load.seen().len(), 2);
    gate.reload(|config| config.load.get_mut("backend").unwrap().endpoint = None).await.unwrap();
    assert_eq!(gate.metric(FACTOR).await, "");
}

#[tokio::test]
async fn keys_that_need_a_restart_are_named_and_everything_else_holds() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        holding(10)(config);
        config.admin.token = Some(Secret::new("t0ken"));
    });
    let revision = async || get(gate.admin, "/readyz?verbose", &[]).await.json()["config_revision"].clone();
    let before = revision().await;
    let reloaded = gate
        .reload(|config| {
            holding(20)(config);
            config.listen.max_body_bytes = 3;
            config.listen.max_connections = 7;
            config.store.key_prefix = "other".to_owned();
        })
        .await
        .unwrap();
    let held: Vec<_> = reloaded.held.iter().map(|held| (held.key, &*held.running, &*held.wanted)).collect();
    let expected = [("listen.max_connections", "10000", "7"), ("store.key_prefix", r#""cxgate""#, r#""other""#)];
    assert_eq!(held, expected);
    assert_eq!(asked(&gate).await, told(200, "20", "19"));
    assert_eq!(send(gate.proxy, Method::POST, CHAT, &[], "four").await.status, 413);
    assert_ne!(revision().await, before);
    assert_eq!(revision().await, reloaded.revision.as_str());

    let reload = async |token: &str| send(gate.admin, Method::POST, "/api/v1/reload", &[("authorization", token)], "").await;
    assert_eq!(reload("Bearer wrong").await.status, 401);
    let answer = reload("Bearer t0ken").await.json();
    assert_eq!(answer["old"]["revision"], answer["new"]["revision"]);
    assert_eq!(answer["new"]["restart_needed"][0]["key"], "listen.max_connections");
    gate.reload(|config| config.admin.token = Some(Secret::new("another"))).await.unwrap();
    assert_eq!(reload("Bearer t0ken").await.status, 401);
    assert_eq!(reload("Bearer another").await.status, 200);
}

#[tokio::test]
async fn what_cannot_be_used_changes_nothing_and_is_told() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        holding(10)(config);
        config.admin.token = Some(Secret::new("t0ken"));
    });
    assert_eq!(gate.metric(SUCCESSFUL).await, "1");
    let began = gate.metric("cxgate_config_last_reload_success_timestamp_seconds").await;
    let error = gate.reload(|config| {
        holding(20)(config);
        let upstream = config.upstreams.get_mut("cxone").unwrap();
        (upstream.url.tls, upstream.ca) = (true, Some("/missing/authorities.pem".into()));
    });
    assert!(error.await.unwrap_err().to_string().starts_with("upstreams.cxone.ca: "));
    let answer = send(gate.admin, Method::POST, "/api/v1/reload", &[("authorization", "Bearer t0ken")], "").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (422, &"config_invalid".into()));
    assert!(answer.text().contains("/missing/authorities.pem"));
    assert_eq!(asked(&gate).await, told(200, "10", "9"));
    assert_eq!(gate.metric(SUCCESSFUL).await, "0");
    assert_eq!(gate.metric("cxgate_config_last_reload_success_timestamp_seconds").await, began);
    assert_eq!(gate.count(r#"cxgate_config_reloads_total{result="bad"}"#).await, 2);
    gate.reload(|config| {
        let upstream = config.upstreams.get_mut("cxone").unwrap();
        (upstream.url.tls, upstream.ca) = (false, None);
    })
    .await
    .unwrap();
    assert_eq!(gate.metric(SUCCESSFUL).await, "1");
    assert_eq!(asked(&gate).await, told(200, "20", "8"));
}

#[tokio::test]
async fn nothing_is_reloaded_on_the_way_out() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        holding(10)(config);
        config.listen.drain_delay = Duration::from_mins(1);
    });
    assert_eq!(asked(&gate).await.0, 200);
    gate.shutdown.leave();
    assert!(matches!(gate.reload(holding(20)).await, Err(ReloadError::Draining)));
    assert_eq!(asked(&gate).await, told(200, "10", "8"));
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_at_the_same_time_are_done_one_after_the_other() {
    let upstream = StubUpstream::start().await;
    let gate = Arc::new(TestGate::start(upstream.address, |_| ()));
    let mut reloads = JoinSet::new();
    for number in 0..40 {
        let gate = Arc::clone(&gate);
        reloads.spawn(async move { gate.reload(holding(100 + number)).await.unwrap() });
    }
    let reloaded = reloads.join_all().await;
    // Each finds what another left: together they are one chain.
    for one in &reloaded {
        let next = reloaded.iter().filter(|other| other.before == one.revision && other.revision != one.revision).count();
        assert!(next <= 1, "two reloads began with {}", one.revision);
    }
    assert_eq!(gate.count(r#"cxgate_config_reloads_total{result="good"}"#).await, 40);
    assert_eq!(asked(&gate).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_under_reloads_and_each_is_counted() {
    let (one, other) = (StubUpstream::start().await, StubUpstream::start().await);
    let gate = Arc::new(TestGate::start(one.address, |config| {
        let LimitKind::TokenBucket(bucket) = &mut config.routes[0].limits[0].limit.kind else { panic!("a bucket") };
        bucket.capacity = 1_000_000;
    }));
    let (ends, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let mut clients = JoinSet::new();
    for number in 0..4 {
        let (gate, ends, sent) = (Arc::clone(&gate), Arc::clone(&ends), Arc::clone(&sent));
        clients.spawn(async move {
            let mut kept = RawClient::connect(gate.proxy).await;
            while !ends.load(Ordering::SeqCst) {
                assert_eq!(kept.get(CHAT).await.status, 200);
                assert_eq!(get_as(gate.proxy, CHAT, &format!("client-{number}")).await.status, 200);
                sent.fetch_add(2, Ordering::SeqCst);
            }
        });
    }
    for round in 0..6_u64 {
        let target = sent.load(Ordering::SeqCst) + 100;
        until(async || sent.load(Ordering::SeqCst) >= target || clients.is_empty()).await;
        let address = if round % 2 == 0 { other.address } else { one.address };
        gate.reload(|config| config.upstreams.get_mut("cxone").unwrap().url = origin(address)).await.unwrap();
    }
    ends.store(true, Ordering::SeqCst);
    while let Some(client) = soon(clients.join_next()).await {
        client.unwrap();
    }
    let sent = sent.load(Ordering::SeqCst);
    let counted = r#"cxgate_http_requests_total{route="guest-webchat",status="2xx"}"#;
    assert_eq!(gate.count(counted).await, sent);
    assert_eq!((one.seen().len() + other.seen().len()) as u64, sent);
    assert!(sent >= 600 && !other.seen().is_empty(), "{sent}");
}

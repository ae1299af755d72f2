//! Who is limited together, by how much, and who is not.

use std::{net::SocketAddr, time::Duration};

use cxgate::config::{Config, Dimension, Endpoint, Factor, Limit, Rate, RouteLimit, Secret, TokenBucket, Trusted};
use http_body_util::Full;
use hyper::Response;
use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    http::{get, get_as, get_from},
    redis_server::RedisServer,
    stub_upstream::StubUpstream,
    test_gate::{TestGate, bucket_of, origin},
    until,
};

const CHAT: &str = "/api/v2/engage/webchat";

fn set_bucket(config: &mut Config, capacity: u32, rate: f64) {
    *bucket_of(config) = TokenBucket { capacity, refill_per_second: Rate::per_second(rate).unwrap() };
}

fn limit(name: &str, per: Vec<Dimension>, capacity: u32, cost: u32) -> RouteLimit {
    let bucket = TokenBucket { capacity, refill_per_second: Rate::per_second(0.000_001).unwrap() };
    let (kind, scale_by) = (bucket.into(), Vec::new());
    let limit = Limit { name: name.into(), per, kind, published: None, scale_by, default: None };
    RouteLimit { shared: false, limit, cost }
}

/// Sends 60 requests of one client at once; how many passed, and within how many seconds all were decided.
async fn burst(proxy: SocketAddr) -> (u32, f64) {
    let began = Instant::now();
    let mut requests = JoinSet::new();
    for _ in 0..60 {
        requests.spawn(get_as(proxy, CHAT, "one"));
    }
    let mut passed = 0;
    while let Some(answer) = requests.join_next().await {
        let status = answer.unwrap().status.as_u16();
        assert!(matches!(status, 200 | 429), "{status}");
        passed += u32::from(status == 200);
    }
    (passed, began.elapsed().as_secs_f64())
}

#[tokio::test]
async fn sixty_at_once_admit_no_more_than_the_capacity_and_the_refill() {
    let upstream = StubUpstream::start().await;
    let redis = RedisServer::start();
    let embedded = TestGate::start(upstream.address, |_| ());
    let shared = TestGate::on_redis(upstream.address, &redis, |_| ()).await;
    for gate in [embedded, shared] {
        let (passed, seconds) = burst(gate.proxy).await;
        assert!(passed >= 10 && f64::from(passed) <= 10.0 + 2.0 * seconds, "{passed} passed in {seconds} s");
    }
}

#[tokio::test]
async fn two_replicas_on_one_redis_are_one_gate() {
    let upstream = StubUpstream::start().await;
    let redis = RedisServer::start();
    let slow = |config: &mut Config| set_bucket(config, 10, 0.001);
    let one = TestGate::on_redis(upstream.address, &redis, slow).await;
    let two = TestGate::on_redis(upstream.address, &redis, slow).await;
    let (first, second) = tokio::join!(burst(one.proxy), burst(two.proxy));
    assert_eq!(first.0 + second.0, 10);
}

#[tokio::test]
async fn after_exactly_retry_after_the_next_request_passes() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| set_bucket(config, 1, 0.9));
    assert_eq!(get_as(gate.proxy, CHAT, "a").await.status, 200);
    let refused = get_as(gate.proxy, CHAT, "a").await;
    let answered = Instant::now();
    let retry_after = Duration::from_secs(refused.header("retry-after").parse().unwrap());
    assert_eq!(retry_after.as_secs(), 2, "1.1 seconds, rounded up");
    tokio::time::sleep_until(answered + retry_after).await;
    assert_eq!(get_as(gate.proxy, CHAT, "a").await.status, 200);
}

#[tokio::test]
async fn a_refusal_by_one_limit_takes_nothing_from_the_others() {
    let upstream = StubUpstream::start().await;
    let redis = RedisServer::start();
    let both = |config: &mut Config| {
        config.routes[0].limits =
            vec![limit("wide", vec![Dimension::Address], 8, 2), limit("narrow", vec![Dimension::Client], 1, 1)];
    };
    let embedded = TestGate::start(upstream.address, both);
    let shared = TestGate::on_redis(upstream.address, &redis, both).await;
    for gate in [embedded, shared] {
        let first = get_as(gate.proxy, CHAT, "a").await;
        assert_eq!(first.header("x-ratelimit-limit"), "1", "the tightest limit speaks");
        assert!(first.header("ratelimit").starts_with(r#""wide";r=6;t="#), "{first:?}");
        for _ in 0..5 {
            let refused = get_as(gate.proxy, CHAT, "a").await;
            assert_eq!(refused.json()["limit"], "narrow");
            assert!(refused.header("ratelimit").starts_with(r#""wide";r=6;t="#), "{refused:?}");
        }
        for client in ["b", "c", "d"] {
            assert_eq!(get_as(gate.proxy, CHAT, client).await.status, 200);
        }
        let refused = get_as(gate.proxy, CHAT, "e").await;
        assert_eq!(refused.json()["limit"], "wide");
        assert!(refused.header("ratelimit").contains(r#""narrow";r=1;t=0"#), "{refused:?}");
        assert_eq!(
            gate.count(r#"cxgate_decisions_total{route="guest-webchat",limit="narrow",decision="refused"}"#).await,
            5
        );
        assert_eq!(gate.count(r#"cxgate_decisions_total{route="guest-webchat",limit="wide",decision="refused"}"#).await, 1);
    }
}

#[tokio::test]
async fn limits_count_by_captured_segments_headers_and_parameters() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        config.routes[0].paths = vec!["/invoke/{action}".into()];
        let per = vec![
            Dimension::Header("x-tenant-id".parse().unwrap()),
            Dimension::Path("action".into()),
            Dimension::Query("q".into()),
        ];
        config.routes[0].limits = vec![limit("per-action", per, 1, 1)];
    });
    let invoke = async |path: &str, tenant: &str| get(gate.proxy, path, &[("x-tenant-id", tenant)]).await.status.as_u16();
    assert_eq!(invoke("/invoke/a?q=1", "t").await, 200);
    assert_eq!(invoke("/invoke/A/more?q=1", "t").await, 429, "the same action, however it is spelled");
    assert_eq!(invoke("/invoke/b?q=1", "t").await, 200);
    assert_eq!(invoke("/invoke/a?q=2", "t").await, 200);
    assert_eq!(invoke("/invoke/a?q=1", "u").await, 200);
    let missing = get(gate.proxy, "/invoke/a?q=1", &[]).await;
    assert_eq!((missing.status.as_u16(), missing.text()), (400, r#"{"error":"limit_key_missing"}"#));
}

#[tokio::test]
async fn clients_without_a_name_are_their_address() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        config.routes[0].limits = vec![limit("one", vec![Dimension::Client], 1, 1)];
    });
    assert_eq!(get_from("127.0.0.1", gate.proxy, CHAT, &[]).await.status, 200);
    assert_eq!(get_from("127.0.0.1", gate.proxy, CHAT, &[]).await.status, 429, "another port is the same client");
    assert_eq!(get_from("127.0.0.2", gate.proxy, CHAT, &[]).await.status, 200);
    assert_eq!(
        get_from("127.0.0.2", gate.proxy, CHAT, &[("x-forwarded-for", "9.9.9.9")]).await.status,
        429,
        "a stranger names no other"
    );
    assert_eq!(
        get_from("127.0.0.3", gate.proxy, CHAT, &[("x-client-id", "127.0.0.1")]).await.status,
        200,
        "a name is no address"
    );
}

#[tokio::test]
async fn behind_a_trusted_proxy_clients_are_told_apart() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        config.listen.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        config.routes[0].limits = vec![limit("one", vec![Dimension::Client], 1, 1)];
    });
    let ask = async |forwarded: &str| {
        get_from("127.0.0.1", gate.proxy, CHAT, &[("x-forwarded-for", forwarded)]).await.status.as_u16()
    };
    assert_eq!(ask("203.0.113.1").await, 200);
    assert_eq!(ask("6.6.6.6, 203.0.113.1").await, 429, "what the client wrote itself does not count");
    assert_eq!(ask("203.0.113.2").await, 200);
    assert_eq!(upstream.seen()[0].headers["x-forwarded-for"], "203.0.113.1, 127.0.0.1");
}

#[tokio::test]
async fn a_whitelisted_client_passes_from_its_network_and_is_limited_from_another() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        set_bucket(config, 10, 0.001);
        let entry = |client: &str, networks: &[&str], secret: Option<&str>| Trusted {
            certificate: None,
            client: client.into(),
            networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
            secret: secret.map(Secret::new),
        };
        config.whitelist = vec![entry("trusted-analytics", &["127.0.0.1/32"], None), entry("partner", &[], Some("s3cret"))];
    });
    let passed = async |source: &str, headers: &[(&str, &str)]| {
        let mut passed = 0;
        for _ in 0..40 {
            passed += i32::from(get_from(source, gate.proxy, CHAT, headers).await.status == 200);
        }
        passed
    };
    assert_eq!(passed("127.0.0.1", &[("x-client-id", "Trusted-Analytics")]).await, 40);
    assert_eq!(passed("127.0.0.2", &[("x-client-id", "trusted-analytics")]).await, 10);
    assert_eq!(passed("127.0.0.2", &[("x-client-id", "partner"), ("x-client-secret", "s3cret")]).await, 40);
    assert_eq!(passed("127.0.0.2", &[("x-client-id", "partner"), ("x-client-secret", "guess")]).await, 10);
    assert_eq!(gate.count(r#"cxgate_whitelisted_total{route="guest-webchat"}"#).await, 80);
    assert!(upstream.seen().iter().all(|seen| !seen.headers.contains_key("x-client-secret")));
}

/// Drains the bucket of `client`, then asks for about a second: tokens a second that came in.
async fn measured_rate(gate: &TestGate, client: &str) -> f64 {
    while get_as(gate.proxy, CHAT, client).await.status == 200 {}
    let began = Instant::now();
    let mut passed = 0.0;
    while began.elapsed() < Duration::from_millis(1200) {
        passed += f64::from(u8::from(get_as(gate.proxy, CHAT, client).await.status == 200));
    }
    passed / began.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_load_endpoint_sets_the_measured_refill_rate() {
    let upstream = StubUpstream::start().await;
    for (cpu, expected) in [("0", 1.5), ("50", 1.0), ("100", 0.2)] {
        let endpoint = StubUpstream::answering(move |_| {
            Response::new(Full::from(format!(r#"{{"cpu_utilization":{cpu},"queue_depth":0}}"#)))
        })
        .await;
        let gate = TestGate::start(upstream.address, |config| {
            set_bucket(config, 50, 60.0);
            config.load.get_mut("backend").unwrap().endpoint =
                Some(Endpoint { origin: origin(endpoint.address), path_and_query: "/load?x=1".into() });
        });
        until(async || gate.metric(r#"cxgate_load_factor{signal="backend"}"#).await == format!("{expected:?}")).await;
        let factor = measured_rate(&gate, "a").await / 60.0;
        assert!(
            (factor / expected - 1.0).abs() < 0.1,
            "CPU {cpu}: the rate was {factor} times the configured one, not {expected}"
        );
        assert_eq!(endpoint.seen()[0].target, "/load?x=1");
    }
}

#[tokio::test]
async fn a_bad_sample_leaves_the_last_good_one_in_force_until_it_is_stale() {
    let upstream = StubUpstream::start().await;
    let polls = std::sync::atomic::AtomicU32::new(0);
    let endpoint = StubUpstream::answering(move |_| {
        let first = polls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        Response::new(Full::from(if first { r#"{"cpu_utilization":100}"# } else { r#"{"cpu_utilization":"0"}"# }))
    })
    .await;
    let gate = TestGate::start(upstream.address, |config| {
        let backend = config.load.get_mut("backend").unwrap();
        backend.endpoint = Some(Endpoint { origin: origin(endpoint.address), path_and_query: "/".into() });
        backend.interval = Duration::from_millis(20);
        backend.stale_after = Duration::from_millis(600);
        backend.max_rise_per_second = Factor::new(100.0).unwrap();
    });
    let factor = async || gate.metric(r#"cxgate_load_factor{signal="backend"}"#).await;
    let refused = async || gate.count(r#"cxgate_load_samples_total{signal="backend",result="invalid"}"#).await;
    until(async || refused().await >= 3).await;
    assert_eq!(factor().await, "0.2");
    until(async || factor().await == "1.0").await;
    assert!(refused().await >= 10, "it went stale by age, not by count");
}

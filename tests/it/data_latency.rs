//! Limits that follow the latency of their upstream: down to the floor while it is slow for a tenant, and back when it is not,
//! on every replica alike.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cxgate::config::{Config, Cors, Dimension, Factor, Latency, Rate, SlidingWindow, TokenBucket};
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, time::Instant};

use crate::support::{
    cluster::Cluster,
    http::{Answer, get},
    redis_server::RedisServer,
    soon,
    test_gate::TestGate,
    until,
};

const PATH: &str = "/api/v2/engage/webchat";
const THRESHOLD: Duration = Duration::from_millis(40);
const WINDOW: Duration = Duration::from_secs(5);

/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(4);

/// An upstream that takes its time, and answers with a status.
struct Slow {
    address: std::net::SocketAddr,
    millis: Arc<AtomicU64>,
    status: Arc<AtomicU64>,
}

impl Slow {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (millis, status) = (Arc::<AtomicU64>::default(), Arc::new(AtomicU64::new(200)));
        let (pause, code) = (Arc::clone(&millis), Arc::clone(&status));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (pause, code) = (Arc::clone(&pause), Arc::clone(&code));
                let service = service_fn(move |_: Request<Incoming>| {
                    let pause = Duration::from_millis(pause.load(Ordering::SeqCst));
                    let mut response = Response::new(Full::<Bytes>::from("{}"));
                    let status = u16::try_from(code.load(Ordering::SeqCst)).unwrap();
                    *response.status_mut() = StatusCode::from_u16(status).unwrap();
                    async move {
                        tokio::time::sleep(pause).await;
                        Ok::<_, std::convert::Infallible>(response)
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, millis, status }
    }

    fn takes(&self, time: Duration) {
        self.millis.store(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    fn answers(&self, status: u64) {
        self.status.store(status, Ordering::SeqCst);
    }
}

/// The limit of the first route follows the latency of each tenant.
fn following(config: &mut Config) {
    let [slope, floor] = [0.5, 0.2].map(|factor| Factor::new(factor).unwrap());
    let latency = Latency { threshold: THRESHOLD, slope, floor, window: WINDOW, min_samples: 5 };
    config.latency.insert("latency".to_owned(), latency);
    let route = &mut config.routes[0];
    route.server_timing = true;
    let limit = &mut route.limits[0].limit;
    limit.per = vec![Dimension::Header("x-tenant-id".parse().unwrap()), Dimension::Client];
    limit.scale_by = vec!["latency".to_owned()];
    limit.kind = TokenBucket { capacity: 100_000, refill_per_second: Rate::per_second(2.0).unwrap() }.into();
}

/// The same with a sliding window, whose quota is what follows.
fn following_by_quota(config: &mut Config) {
    following(config);
    config.routes[0].limits[0].limit.kind = SlidingWindow { quota: 100_000, window: Duration::from_mins(1) }.into();
}

async fn ask(gate: &TestGate, tenant: &str) -> Answer {
    let client = ("x-client-id", "page");
    get(gate.proxy, PATH, &[("x-tenant-id", tenant), client, ("origin", "https://page.example")]).await
}

/// The factor by which the last decision for a tenant went, as its answer tells.
fn factor(answer: &Answer) -> String {
    let timings = answer.headers.get_all("server-timing").iter();
    let mut factors = timings.filter_map(|value| value.to_str().unwrap().strip_prefix("factor;desc=\"")?.split('"').next());
    factors.next_back().unwrap_or("none").to_owned()
}

async fn until_factor(gate: &TestGate, tenant: &str, expected: &str) -> Answer {
    let mut last = None;
    until(async || {
        let answer = ask(gate, tenant).await;
        let there = factor(&answer) == expected;
        last = Some(answer);
        there
    })
    .await;
    last.unwrap()
}

const SHOWN: &str = r#"cxgate_load_factor{signal="latency"}"#;

async fn falls_to_the_floor_for_one_tenant_and_rises_again(gate: &TestGate, upstream: &Slow) {
    assert_eq!(factor(&ask(gate, "acme").await), "1");
    upstream.takes(5 * THRESHOLD);
    let slow = until_factor(gate, "acme", "0.2").await;
    assert!(slow.headers.get_all("server-timing").iter().any(|value| value == r#"factor;desc="0.2", quota;desc="20000""#));
    until(async || {
        ask(gate, "acme").await;
        let read = get(gate.admin, "/metrics/acme/page", &[]).await.json();
        let used = get(gate.admin, "/api/v1/usage", &[]).await.json();
        read["adaptive_multiplier"] == 0.2 && read["effective_quota"] == 20_000 && used["buckets"][0]["factor"] == 0.2
    })
    .await;
    upstream.takes(Duration::ZERO);
    assert_eq!(factor(&ask(gate, "other").await), "1", "a tenant of its own");
    assert_eq!(get(gate.admin, "/metrics/other/page", &[]).await.json()["adaptive_multiplier"], 1.0);
    until(async || gate.metric(SHOWN).await == "0.2").await;

    let normal = Instant::now();
    let mut reads = 0;
    while reads < 1000 && normal.elapsed() < WINDOW / 4 {
        gate.metric(SHOWN).await;
        reads += 1;
    }
    assert_eq!(factor(&ask(gate, "acme").await), "0.2", "{reads} reads have not moved it");
    until_factor(gate, "acme", "1").await;
    assert!(normal.elapsed() < WINDOW + SLACK, "restored after {:?}", normal.elapsed());
    until(async || gate.metric(SHOWN).await == "1.0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_embedded_store_a_slow_tenant_falls_to_the_floor_and_rises_again() {
    let upstream = Slow::start().await;
    let gate = TestGate::start(upstream.address, following);
    falls_to_the_floor_for_one_tenant_and_rises_again(&gate, &upstream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis_a_slow_tenant_falls_to_the_floor_and_rises_again() {
    let (upstream, redis) = (Slow::start().await, RedisServer::start());
    let gate = TestGate::on_redis(upstream.address, &redis, following).await;
    falls_to_the_floor_for_one_tenant_and_rises_again(&gate, &upstream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quota_of_a_sliding_window_falls_and_rises_as_a_bucket_does() {
    let (upstream, redis) = (Slow::start().await, RedisServer::start());
    let gate = TestGate::start(upstream.address, following_by_quota);
    falls_to_the_floor_for_one_tenant_and_rises_again(&gate, &upstream).await;
    let gate = TestGate::on_redis(upstream.address, &redis, following_by_quota).await;
    falls_to_the_floor_for_one_tenant_and_rises_again(&gate, &upstream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_reads_of_the_metrics_do_not_move_the_factor() {
    let upstream = Slow::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        following(config);
        config.latency.get_mut("latency").unwrap().window = Duration::from_mins(10);
    });
    upstream.takes(5 * THRESHOLD);
    until_factor(&gate, "acme", "0.2").await;
    let counted = gate.count(r#"cxgate_latency_samples_total{signal="latency",result="good"}"#).await;
    for _ in 0..1000 {
        gate.metric(SHOWN).await;
    }
    assert_eq!(gate.count(r#"cxgate_latency_samples_total{signal="latency",result="good"}"#).await, counted);
    assert_eq!(factor(&ask(&gate, "acme").await), "0.2");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_agree_on_what_neither_has_enough_samples_for() {
    let (upstream, redis) = (Slow::start().await, RedisServer::start());
    let wide = |config: &mut Config| {
        following(config);
        config.latency.get_mut("latency").unwrap().window = Duration::from_mins(10);
    };
    let one = TestGate::on_redis(upstream.address, &redis, wide).await;
    let other = TestGate::on_redis(upstream.address, &redis, wide).await;
    upstream.takes(5 * THRESHOLD);
    for gate in [&one, &other, &one, &other] {
        ask(gate, "acme").await;
    }
    // The fifth, and from then on requests that say nothing of their own.
    ask(&one, "acme").await;
    upstream.answers(503);
    upstream.takes(Duration::ZERO);
    for gate in [&one, &other] {
        until_factor(gate, "acme", "0.2").await;
        until(async || gate.metric(SHOWN).await == "0.2").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_tenant_returns_to_one_without_a_request() {
    let (upstream, redis) = (Slow::start().await, RedisServer::start());
    let gate = TestGate::on_redis(upstream.address, &redis, following).await;
    upstream.takes(5 * THRESHOLD);
    until_factor(&gate, "acme", "0.2").await;
    until(async || gate.metric(SHOWN).await == "0.2").await;
    until(async || gate.metric(SHOWN).await == "1.0").await;
    upstream.takes(Duration::ZERO);
    assert_eq!(factor(&ask(&gate, "acme").await), "1");
    until(async || gate.metric(r#"cxgate_latency_tenants{signal="latency"}"#).await == "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn time_outs_and_callers_that_leave_count_as_slow_and_fast_failures_not_as_fast() {
    let upstream = Slow::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        following(config);
        config.latency.get_mut("latency").unwrap().window = Duration::from_mins(10);
        config.upstreams.get_mut("cxone").unwrap().response_timeout = Duration::from_secs(1);
    });
    let samples = async |result: &str| {
        gate.count(&format!("cxgate_latency_samples_total{{signal=\"latency\",result=\"{result}\"}}")).await
    };
    upstream.takes(Duration::from_mins(1));
    for _ in 0..4 {
        assert_eq!(ask(&gate, "acme").await.status, 504);
    }
    let _ = tokio::time::timeout(4 * THRESHOLD, ask(&gate, "acme")).await;
    until(async || samples("timeout").await + samples("abandoned").await == 5).await;
    upstream.takes(Duration::ZERO);
    until_factor_with(&gate, &upstream, 503).await;
    assert!(samples("ignored").await > 0);
    assert_eq!(samples("good").await, 0);
}

/// Waits for the floor while everything fails fast.
async fn until_factor_with(gate: &TestGate, upstream: &Slow, status: u64) {
    upstream.answers(status);
    for _ in 0..50 {
        assert_eq!(u64::from(ask(gate, "acme").await.status.as_u16()), status);
    }
    until(async || gate.metric(SHOWN).await == "0.2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_a_replica_follows_its_own_samples() {
    let (upstream, mut redis) = (Slow::start().await, RedisServer::start());
    let gate = TestGate::on_redis(upstream.address, &redis, following).await;
    redis.stop();
    gate.until_store_is("local").await;
    upstream.takes(5 * THRESHOLD);
    until_factor(&gate, "acme", "0.2").await;
    upstream.takes(Duration::ZERO);
    until_factor(&gate, "acme", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_may_read_an_answer_may_read_its_timing() {
    let upstream = Slow::start().await;
    let cors = || Cors { origins: vec!["https://page.example".to_owned()], credentials: false, max_age: WINDOW };
    let gate = TestGate::start(upstream.address, |config| {
        following(config);
        config.routes[0].cors = Some(cors());
    });
    let answer = soon(ask(&gate, "acme")).await;
    assert_eq!(answer.header("timing-allow-origin"), "https://page.example");
    let stranger = get(gate.proxy, PATH, &[("x-tenant-id", "acme"), ("origin", "https://other.example")]).await;
    assert_eq!(stranger.header("timing-allow-origin"), "");
    let untimed = TestGate::start(upstream.address, |config| config.routes[0].cors = Some(cors()));
    assert_eq!(ask(&untimed, "acme").await.header("timing-allow-origin"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_a_tenants_factor_is_where_its_buckets_are() {
    let (upstream, cluster) = (Slow::start().await, Cluster::start().await);
    let gate = TestGate::start(upstream.address, |config| {
        following(config);
        config.latency.get_mut("latency").unwrap().window = Duration::from_mins(10);
        config.store.redis = Some(cluster.config());
        config.store.deadline = Duration::from_secs(2);
    });
    gate.until_store_is("redis").await;
    upstream.takes(5 * THRESHOLD);
    // Spread over all primaries.
    for tenant in ["acme", "bolt", "cash", "deal", "echo", "fern"] {
        until_factor(&gate, tenant, "0.2").await;
    }
    assert_eq!(gate.metric(r#"cxgate_store_failures_total{cause="refused"}"#).await, "0");
}

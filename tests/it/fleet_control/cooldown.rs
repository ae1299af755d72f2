//! An upstream that says 429 is left alone, by all replicas, for as long as it says; and by nobody else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cxgate::{
    config::{Cooldown, OnFailure, Trusted},
    limiter::cooldown::RAMP,
};
use http_body_util::Full;
use hyper::Response;
use tokio::time::Instant;

use crate::support::{
    http::{Answer, get_as},
    redis_server::RedisServer,
    stub_upstream::{Seen, StubUpstream},
    test_gate::TestGate,
};

const CHAT: &str = "/api/v2/engage/webchat";
const OTHER: &str = "/other";

/// The pause that an upstream asks for with "1.5".
const PAUSE: Duration = Duration::from_millis(1500);

/// An upstream that is told when to refuse.
struct Moody {
    stub: StubUpstream,
    refuses: Arc<AtomicBool>,
    retry_after: &'static str,
}

impl Moody {
    /// With every refusal it asks for so many seconds.
    async fn asking_for(retry_after: &'static str) -> Self {
        let refuses = Arc::new(AtomicBool::new(false));
        let now = Arc::clone(&refuses);
        let stub = StubUpstream::answering(move |_: &Seen| {
            if now.load(Ordering::SeqCst) {
                let body = Full::from("slow down");
                Response::builder().status(429).header("retry-after", retry_after).header("x-own", "yes").body(body).unwrap()
            } else {
                Response::new(Full::from("ok"))
            }
        })
        .await;
        Self { stub, refuses, retry_after }
    }

    /// Has it refuse one request of `client` through `gate`; since when it is left alone.
    async fn refuse(&self, gate: &TestGate, client: &str) -> Instant {
        self.refuses.store(true, Ordering::SeqCst);
        let before = Instant::now();
        let refused = get_as(gate.proxy, CHAT, client).await;
        self.refuses.store(false, Ordering::SeqCst);
        assert_eq!((refused.status.as_u16(), refused.text()), (429, "slow down"));
        assert_eq!((refused.header("retry-after"), refused.header("x-own")), (self.retry_after, "yes"), "as it came");
        before
    }
}

async fn fleet(upstream: &Moody, redis: &RedisServer, cooldown: Cooldown) -> Vec<TestGate> {
    let mut gates = Vec::new();
    for _ in 0..3 {
        let gate = TestGate::on_redis(upstream.stub.address, redis, |config| {
            config.routes[0].cooldown = cooldown;
            config.whitelist =
                vec![Trusted { client: "trusted".into(), networks: Vec::new(), certificate: None, secret: None }];
            let mut other = config.routes[0].clone();
            (other.name, other.paths) = ("other".into(), vec![OTHER.into()]);
            config.routes.push(other);
        });
        gates.push(gate.await);
    }
    gates
}

fn is_paused(answer: &Answer) -> bool {
    answer.status == 429 && answer.json()["limit"] == "cooldown"
}

#[tokio::test(flavor = "multi_thread")]
async fn after_one_refusal_no_replica_sends_anything_for_the_route_until_the_pause_is_over() {
    let (upstream, redis) = (Moody::asking_for("1.5").await, RedisServer::start());
    let gates = fleet(&upstream, &redis, Cooldown::Route).await;
    assert_eq!(get_as(gates[1].proxy, CHAT, "a").await.header("x-ratelimit-remaining"), "9");
    let began = upstream.refuse(&gates[0], "a").await;
    let sent = upstream.stub.seen().len();

    for gate in &gates {
        for client in ["a", "b", "trusted"] {
            let paused = get_as(gate.proxy, CHAT, client).await;
            assert!(is_paused(&paused), "{paused:?}");
            let retry_after: u64 = paused.header("retry-after").parse().unwrap();
            assert!((1..=4).contains(&retry_after), "{retry_after}");
            assert_eq!(paused.header("x-ratelimit-limit"), "", "no quota is behind it");
        }
        assert_eq!(get_as(gate.proxy, OTHER, "a").await.status, 200, "another route goes on");
    }
    assert_eq!(upstream.stub.seen().len(), sent + 3);

    let (mut passed, mut round) = (Vec::new(), 0);
    while passed.len() < 20 {
        let client = format!("client {}", passed.len());
        round += 1;
        if get_as(gates[round % 3].proxy, CHAT, &client).await.status == 200 {
            passed.push(began.elapsed());
        }
        assert!(began.elapsed() < PAUSE + RAMP + Duration::from_secs(10), "the route does not come back");
    }
    assert!(passed[0] >= PAUSE, "passed {:?} after the upstream asked for {PAUSE:?}", passed[0]);
    let drained = get_as(gates[2].proxy, CHAT, "a").await;
    assert_eq!((drained.status.as_u16(), drained.header("x-ratelimit-remaining")), (200, "9"), "nothing was charged");
    assert_eq!(gates[0].count(r#"cxgate_cooldowns_total{route="guest-webchat"}"#).await, 1);
    let refused = r#"cxgate_decisions_total{route="guest-webchat",limit="cooldown",decision="refused"}"#;
    assert!(gates[1].count(refused).await >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_client_only_the_refused_client_pauses_and_comes_back_exactly_when_told() {
    let (upstream, redis) = (Moody::asking_for("1.5").await, RedisServer::start());
    let gates = fleet(&upstream, &redis, Cooldown::Client).await;
    upstream.refuse(&gates[0], "a").await;
    for gate in &gates {
        assert!(is_paused(&get_as(gate.proxy, CHAT, "a").await));
        assert_eq!(get_as(gate.proxy, CHAT, "b").await.status, 200);
        assert_eq!(get_as(gate.proxy, OTHER, "a").await.status, 200);
    }
    let paused = get_as(gates[1].proxy, CHAT, "a").await;
    let told = Instant::now() + Duration::from_secs(paused.header("retry-after").parse().unwrap());
    tokio::time::sleep_until(told).await;
    assert_eq!(get_as(gates[2].proxy, CHAT, "a").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_off_the_next_request_passes() {
    let (upstream, redis) = (Moody::asking_for("1.5").await, RedisServer::start());
    let gates = fleet(&upstream, &redis, Cooldown::Off).await;
    upstream.refuse(&gates[0], "a").await;
    assert_eq!(get_as(gates[0].proxy, CHAT, "a").await.status, 200);
    assert_eq!(gates[0].count(r#"cxgate_refunds_total{route="guest-webchat"}"#).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_a_replica_holds_the_pauses_it_has_seen_itself() {
    let (upstream, mut redis) = (Moody::asking_for("600").await, RedisServer::start());
    let gates = fleet(&upstream, &redis, Cooldown::Route).await;
    upstream.refuse(&gates[0], "a").await;
    redis.stop();
    for gate in &gates {
        gate.until_store_is("local").await;
    }
    let held = get_as(gates[0].proxy, CHAT, "b").await;
    assert!(is_paused(&held), "{held:?}");
    assert_eq!(get_as(gates[1].proxy, CHAT, "b").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_client_passes_while_nobody_can_say_whether_there_is_a_pause() {
    let (upstream, mut redis) = (StubUpstream::start().await, RedisServer::start());
    let gate = TestGate::on_redis(upstream.address, &redis, |config| {
        config.store.on_failure = OnFailure::Deny;
        config.routes[0].cooldown = Cooldown::Route;
        config.whitelist = vec![Trusted { client: "trusted".into(), networks: Vec::new(), certificate: None, secret: None }];
    })
    .await;
    redis.stop();
    gate.until_store_is("deny").await;
    assert_eq!(get_as(gate.proxy, CHAT, "trusted").await.status, 200);
    assert_eq!(get_as(gate.proxy, CHAT, "a").await.status, 503);
}

//! An explanation tells of turns and places what then comes, and nobody is noted for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cxgate::config::{Config, Dimension, Endpoint, Factor, Latency, MaxInFlight, Priority, WhenLimited};
use http_body_util::Full;
use hyper::Response;
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

use super::{CHAT, actions, explained, slow};
use crate::support::{
    http::{get, get_as},
    redis_server::RedisServer,
    soon,
    stub_upstream::StubUpstream,
    test_gate::{TestGate, origin},
    until,
};

const QUEUE: &str = r#"cxgate_pacing_queue{route="guest-webchat"}"#;
const SERVED: &str = r#"cxgate_paced_total{route="guest-webchat",outcome="served"}"#;

/// One bucket for all, of one token that comes back in a second; at most five wait.
fn paced(config: &mut Config) {
    slow(1, 1.0)(config);
    let route = &mut config.routes[0];
    route.limits[0].limit.per = vec![Dimension::Route];
    route.when_limited = Some(WhenLimited { wait: Duration::from_secs(15), queue: 5, priority: Priority::Normal });
}

fn asked(client: &str) -> Value {
    json!({ "path": CHAT, "headers": { "x-client-id": client } })
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_a_request_would_wait_is_how_long_it_then_waits() {
    let (upstream, redis) = (StubUpstream::start().await, RedisServer::start());
    for gate in [TestGate::start(upstream.address, paced), TestGate::on_redis(upstream.address, &redis, paced).await] {
        assert_eq!(explained(gate.admin, &asked("many")).await["verdict"], "admitted");
        assert_eq!(get_as(gate.proxy, CHAT, "many").await.status, 200);
        let mut waiting = JoinSet::new();
        for number in 1..=3 {
            waiting.spawn(get_as_owned(gate.proxy, "many"));
            until(async || gate.count(QUEUE).await + gate.count(SERVED).await >= number).await;
        }
        let told = async |client| {
            let told = explained(gate.admin, &asked(client)).await;
            assert_eq!(
                (&told["verdict"], &told["status"], &told["wait"]["for"]),
                (&json!("waits"), &json!(null), &json!("limits"))
            );
            told["wait"]["seconds"].as_f64().unwrap()
        };
        let began = Instant::now();
        let (many, other) = (told("many").await, told("other").await);
        assert!(many > other + 0.5, "{many} {other}: whoever has three waiting goes after who has none");
        let sent = Instant::now();
        assert_eq!(get_as(gate.proxy, CHAT, "other").await.status, 200);
        let (least, most) = (sent.elapsed().as_secs_f64(), began.elapsed().as_secs_f64());
        assert!(least - 2.0 < other && other < most + 0.05, "waited {least} to {most}, was told {other}");
        while let Some(answer) = soon(waiting.join_next()).await {
            assert_eq!(answer.unwrap(), 200);
        }
    }
}

async fn get_as_owned(proxy: std::net::SocketAddr, client: &'static str) -> u16 {
    get_as(proxy, CHAT, client).await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_and_a_turn_too_far_away_are_foreseen_as_refusals() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        paced(config);
        config.routes[0].when_limited =
            Some(WhenLimited { wait: Duration::from_secs(9), queue: 1, priority: Priority::Normal });
        slow(1, 8.0)(config);
    });
    assert_eq!(get_as(gate.proxy, CHAT, "a").await.status, 200);
    assert_eq!(explained(gate.admin, &asked("b")).await["verdict"], "waits");
    let waiting = tokio::spawn(get_as_owned(gate.proxy, "b"));
    until(async || gate.count(QUEUE).await == 1).await;
    let told = explained(gate.admin, &asked("c")).await;
    let refused = get_as(gate.proxy, CHAT, "c").await;
    assert_eq!((&told["verdict"], &told["status"], refused.status.as_u16()), (&json!("refused"), &json!(429), 429));
    let (said, real) = (told["retry_after"].as_u64().unwrap(), refused.header("retry-after").parse::<u64>().unwrap());
    assert!(said.abs_diff(real) <= 1, "told {said}, refused for {real}");
    gate.reload(|config| {
        config.routes[0].when_limited =
            Some(WhenLimited { wait: Duration::from_secs(9), queue: 9, priority: Priority::Normal });
    })
    .await
    .unwrap();
    assert_eq!(explained(gate.admin, &asked("c")).await["verdict"], "refused", "sixteen seconds are too many");
    assert_eq!(soon(waiting).await.unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_among_those_under_way_is_foreseen() {
    for waits in [false, true] {
        let permits = Arc::new(Semaphore::new(0));
        let upstream = StubUpstream::holding(Arc::clone(&permits)).await;
        let gate = TestGate::start(upstream.address, |config| {
            slow(100, 1.0)(config);
            config.routes[0].max_in_flight = Some(MaxInFlight { route: 2, client: 1 });
            let wait = WhenLimited { wait: Duration::from_secs(15), queue: 3, priority: Priority::Normal };
            config.routes[0].when_limited = waits.then_some(wait);
        });
        assert_eq!(explained(gate.admin, &asked("a")).await["verdict"], "admitted");
        let under_way = tokio::spawn(get_as_owned(gate.proxy, "a"));
        until(async || upstream.seen().len() == 1).await;
        let told = explained(gate.admin, &asked("a")).await;
        let expected = json!({ "under_way": 1, "most": 2, "client_under_way": 1, "client_most": 1, "fits": false });
        assert_eq!(told["in_flight"], expected);
        assert_eq!(explained(gate.admin, &asked("b")).await["verdict"], "admitted");
        if waits {
            assert_eq!(
                (&told["verdict"], &told["wait"]),
                (&json!("waits"), &json!({ "for": "max_in_flight", "seconds": null }))
            );
            let second = tokio::spawn(get_as_owned(gate.proxy, "a"));
            until(async || gate.count(QUEUE).await == 1).await;
            permits.add_permits(2);
            assert_eq!(soon(second).await.unwrap(), 200);
        } else {
            assert_eq!((&told["verdict"], &told["error"]), (&json!("rejected"), &json!("too_many_in_flight")));
            assert_eq!(get_as(gate.proxy, CHAT, "a").await.text(), r#"{"error":"too_many_in_flight"}"#);
            permits.add_permits(1);
        }
        assert_eq!(soon(under_way).await.unwrap(), 200);
    }
}

#[tokio::test]
async fn no_tenant_is_measured_for_being_asked_about() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        actions(config);
        let latency = Latency {
            threshold: Duration::from_millis(800),
            slope: Factor::new(0.5).unwrap(),
            floor: Factor::new(0.2).unwrap(),
            window: Duration::from_secs(10),
            min_samples: 5,
        };
        config.latency.insert("latency".to_owned(), latency);
        config.routes[0].limits[0].limit.scale_by = vec!["latency".to_owned()];
    });
    for tenant in 0..50 {
        let asked = json!({ "path": "/invoke/a", "headers": { "x-tenant-id": format!("tenant-{tenant}") } });
        assert_eq!(explained(gate.admin, &asked).await["verdict"], "admitted");
    }
    assert_eq!(get(gate.proxy, "/invoke/a", &[("x-tenant-id", "one")]).await.status, 200);
    let tenants = r#"cxgate_latency_tenants{signal="latency"}"#;
    until(async || gate.count(tenants).await > 0).await;
    assert_eq!(gate.count(tenants).await, 1);
}

#[tokio::test]
async fn replicas_tell_one_epoch_of_a_factor_and_another_of_the_next() {
    let percent = Arc::new(AtomicU64::new(80));
    let load = Arc::clone(&percent);
    let upstream = StubUpstream::answering(move |_| {
        let percent = load.load(Ordering::Relaxed);
        Response::new(Full::from(format!(r#"{{"cpu_utilization":{percent},"queue_depth":0}}"#)))
    })
    .await;
    let redis = RedisServer::start();
    let polled = |config: &mut Config| {
        slow(100, 1.0)(config);
        let backend = config.load.get_mut("backend").unwrap();
        backend.endpoint = Some(Endpoint { origin: origin(upstream.address), path_and_query: "/load".to_owned() });
        backend.interval = Duration::from_millis(500);
    };
    let gates = [
        TestGate::on_redis(upstream.address, &redis, polled).await,
        TestGate::on_redis(upstream.address, &redis, polled).await,
        TestGate::start(upstream.address, polled),
    ];
    let told = async |gate: &TestGate| {
        let told = explained(gate.admin, &asked("alice")).await;
        (told["limits"][0]["factor"].as_f64().unwrap(), told["limits"][0]["epoch"].as_u64())
    };
    let mut epochs = Vec::new();
    for (load, expected) in [(80, 0.52), (20, 1.3)] {
        percent.store(load, Ordering::Relaxed);
        for gate in &gates {
            until(async || (told(gate).await.0 - expected).abs() < 1e-6).await;
        }
        let [one, other, alone] = [told(&gates[0]).await.1, told(&gates[1]).await.1, told(&gates[2]).await.1];
        assert_eq!(one, other);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
        let is_past = |epoch: u64| (now - 60_000_000..now + 1_000_000).contains(&u128::from(epoch));
        assert!(one.is_some_and(is_past) && alone.is_some_and(is_past), "{one:?} {alone:?} at {now}");
        epochs.push(one.unwrap());
    }
    assert!(epochs[1] > epochs[0], "{epochs:?}");
}

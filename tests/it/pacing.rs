//! Waiting instead of refusing: in order, in turns, never faster than the budget, never longer than asked.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use cxgate::config::{Config, Dimension, Priority, Rate, TokenBucket, WhenLimited};
use http_body_util::Full;
use hyper::Response;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::support::{
    PATIENCE,
    http::{Answer, get_as},
    redis_server::RedisServer,
    soon,
    stub_upstream::StubUpstream,
    test_gate::TestGate,
    until,
};

mod in_flight;
mod reloading;
mod trouble;
mod windows;

const CHAT: &str = "/api/v2/engage/webchat";
const QUEUE: &str = r#"cxgate_pacing_queue{route="guest-webchat"}"#;

/// When each request reached the upstream, and its query.
type Arrivals = Arc<Mutex<Vec<(Instant, String)>>>;

/// An upstream that notes when what reaches it.
async fn recording() -> (StubUpstream, Arrivals) {
    let arrivals = Arrivals::default();
    let record = Arc::clone(&arrivals);
    let upstream = StubUpstream::answering(move |seen| {
        let query = seen.target.split_once('?').map_or("", |(_, query)| query).to_owned();
        record.lock().unwrap().push((Instant::now(), query));
        Response::new(Full::<Bytes>::from("{}"))
    });
    (upstream.await, arrivals)
}

/// One bucket for the whole route, whose requests wait.
fn pace(config: &mut Config, (capacity, rate): (u32, f64), wait: Duration, queue: u32) {
    let route = &mut config.routes[0];
    route.when_limited = Some(WhenLimited { wait, queue, priority: Priority::Normal });
    let limit = &mut route.limits[0].limit;
    limit.per = vec![Dimension::Route];
    limit.scale_by.clear();
    limit.kind = TokenBucket { capacity, refill_per_second: Rate::per_second(rate).unwrap() }.into();
}

/// A request that says who it is in its query, and how long its answer took.
async fn ask(proxy: std::net::SocketAddr, client: String, number: usize) -> (Answer, Duration) {
    let began = Instant::now();
    let answer = get_as(proxy, &format!("{CHAT}?{client}-{number}"), &client).await;
    (answer, began.elapsed())
}

/// Has so many requests of a client wait, one after the other.
async fn have_waiting(gate: &TestGate, client: &str, count: usize) -> JoinSet<(Answer, Duration)> {
    let mut requests = JoinSet::new();
    for number in 0..count {
        let before = waited_for(gate).await;
        requests.spawn(ask(gate.proxy, client.to_owned(), number));
        until(async || waited_for(gate).await > before).await;
    }
    requests
}

/// Requests that wait, or have waited.
async fn waited_for(gate: &TestGate) -> u64 {
    let served = gate.count(r#"cxgate_paced_total{route="guest-webchat",outcome="served"}"#).await;
    served + gate.count(QUEUE).await
}

async fn forty_at_five_a_second(gate: TestGate, arrivals: Arrivals) {
    let wait = Duration::from_secs(4);
    for number in 0..5 {
        assert_eq!(ask(gate.proxy, "first".into(), number).await.0.status, 200);
    }
    let began = Instant::now();
    let mut requests = have_waiting(&gate, "later", 20).await;
    for number in 20..35 {
        requests.spawn(ask(gate.proxy, "later".into(), number));
    }
    let (mut served, mut refused) = (5, 0);
    let sent = began.elapsed();
    while let Some(answer) = soon(requests.join_next()).await {
        let (answer, took) = answer.unwrap();
        assert!(took < wait + Duration::from_secs(1), "answered after {took:?}");
        if answer.status == 429 {
            refused += 1;
            assert!(took < Duration::from_secs(2), "refused after {took:?}");
            // Twenty wait at five a second.
            let retry_after: u64 = answer.header("retry-after").parse().unwrap();
            assert!((3..=5).contains(&retry_after), "told to come back in {retry_after} s");
        } else {
            served += 1;
        }
    }
    assert_eq!(served + refused, 40);
    // Five at once, twenty in the queue, and one for each whose turn came while the others were sent.
    let most = 26.0 + sent.as_secs_f64() * 5.0;
    assert!(served >= 25 && f64::from(served) <= most, "{served} served, {most} at most");
    let order: Vec<usize> = arrivals
        .lock()
        .unwrap()
        .iter()
        .filter_map(|(_, query)| query.strip_prefix("later-")?.parse().ok().filter(|number| *number < 20))
        .collect();
    assert_eq!(order, (0..20).collect::<Vec<_>>(), "in the order of arrival");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_over_the_limit_waits_in_order_and_whoever_is_too_many_is_refused_at_once() {
    let (upstream, arrivals) = recording().await;
    let gate = TestGate::start(upstream.address, |config| pace(config, (5, 5.0), Duration::from_secs(4), 20));
    forty_at_five_a_second(gate, arrivals).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_on_redis() {
    let (upstream, arrivals) = recording().await;
    let redis = RedisServer::start();
    let change = |config: &mut Config| pace(config, (5, 5.0), Duration::from_secs(4), 20);
    let gate = TestGate::on_redis(upstream.address, &redis, change).await;
    forty_at_five_a_second(gate, arrivals).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_with_two_hundred_does_not_hold_up_anothers_first() {
    let (upstream, arrivals) = recording().await;
    let gate = TestGate::start(upstream.address, |config| pace(config, (1, 3.0), Duration::from_mins(5), 300));
    assert_eq!(ask(gate.proxy, "first".into(), 0).await.0.status, 200);
    let _many = have_waiting(&gate, "many", 200).await;
    let before = arrivals.lock().unwrap().len();
    let (answer, _) = soon(ask(gate.proxy, "one".into(), 0)).await;
    assert_eq!(answer.status, 200);
    let place = arrivals.lock().unwrap().iter().position(|(_, query)| query == "one-0").unwrap();
    // Two slots, and one that may have come due on the request's own way.
    assert!(place - before < 3, "{} went before it", place - before);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_share_one_queue_and_use_all_of_the_budget_and_no_more() {
    const RATE: f64 = 20.0;
    const CAPACITY: f64 = 5.0;
    let (upstream, arrivals) = recording().await;
    let redis = RedisServer::start();
    let change = |config: &mut Config| pace(config, (5, RATE), Duration::from_secs(10), 100);
    let mut gates = Vec::new();
    for _ in 0..3 {
        gates.push(TestGate::on_redis(upstream.address, &redis, change).await);
    }
    let began = Instant::now();
    let mut requests = JoinSet::new();
    for number in 0..90 {
        requests.spawn(ask(gates[number % 3].proxy, format!("client-{}", number % 7), number));
    }
    while let Some(answer) = soon(requests.join_next()).await {
        assert_eq!(answer.unwrap().0.status, 200);
    }
    let mut times: Vec<Instant> = arrivals.lock().unwrap().iter().map(|(time, _)| *time).collect();
    times.sort_unstable();
    // The budget runs since before the first was sent, so that a request which is late on its way counts for nothing.
    for (number, time) in (1..).zip(&times) {
        let excess = f64::from(number) - CAPACITY - RATE * (*time - began).as_secs_f64();
        assert!(excess <= 1.0, "{number} requests are {excess} beyond the budget");
    }
    let took = (times[89] - began).as_secs_f64();
    let least = 85.0 / RATE;
    assert!(took < least * 1.1 + 0.5, "{took} s for what could take {least} s");
}

/// Has so many leave the queue, and sees the next request served within `patience`.
async fn all_leave(count: usize, gate: TestGate, arrivals: Arrivals, patience: Duration) {
    assert_eq!(ask(gate.proxy, "first".into(), 0).await.0.status, 200);
    let mut requests = JoinSet::new();
    for number in 0..count {
        requests.spawn(ask(gate.proxy, format!("client-{}", number % 10), number));
    }
    until(async || waited_for(&gate).await == count as u64).await;
    requests.shutdown().await;
    until(async || gate.count(QUEUE).await == 0).await;
    let before = arrivals.lock().unwrap().len();
    let (answer, took) = timeout(PATIENCE, ask(gate.proxy, "next".into(), 0)).await.expect("the places are free");
    assert_eq!(answer.status, 200);
    assert!(took < patience, "it waited for {took:?}");
    let last = arrivals.lock().unwrap()[before..].to_vec();
    assert_eq!(last.iter().map(|(_, query)| query.as_str()).collect::<Vec<_>>(), ["next-0"], "nobody else goes upstream");
    let left = gate.count(r#"cxgate_paced_total{route="guest-webchat",outcome="left"}"#).await;
    assert_eq!(left, (count + 1 - before) as u64, "each was served or has left");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_places_of_five_hundred_who_leave_are_free_at_once() {
    let (upstream, arrivals) = recording().await;
    let gate = TestGate::start(upstream.address, |config| pace(config, (1, 1.0), Duration::from_mins(30), 500));
    // One comes a second.
    all_leave(500, gate, arrivals, Duration::from_secs(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_places_on_redis() {
    let (upstream, arrivals) = recording().await;
    let redis = RedisServer::start();
    let change = |config: &mut Config| pace(config, (1, 1.0), Duration::from_mins(30), 500);
    let gate = TestGate::on_redis(upstream.address, &redis, change).await;
    // One comes a second.
    all_leave(500, gate, arrivals, Duration::from_secs(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_that_share_a_limit_go_by_their_class() {
    let (upstream, arrivals) = recording().await;
    let gate = TestGate::start(upstream.address, |config| {
        pace(config, (1, 2.0), Duration::from_mins(1), 100);
        config.routes[0].limits[0].shared = true;
        config.routes[0].limits[0].limit.per = vec![Dimension::Address];
        let mut urgent = config.routes[0].clone();
        urgent.name = "urgent".to_owned();
        urgent.paths = vec!["/urgent".to_owned()];
        urgent.when_limited.as_mut().unwrap().priority = Priority::High;
        config.routes.push(urgent);
    });
    assert_eq!(ask(gate.proxy, "first".into(), 0).await.0.status, 200);
    let _many = have_waiting(&gate, "many", 10).await;
    let before = arrivals.lock().unwrap().len();
    assert_eq!(soon(get_as(gate.proxy, "/urgent?urgent", "many")).await.status, 200);
    let place = arrivals.lock().unwrap().iter().position(|(_, query)| query == "urgent").unwrap();
    assert!(place - before < 2, "{} went before it", place - before);
}

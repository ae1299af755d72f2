//! What becomes of those who wait when the store goes or comes, or the gate stops.

use cxgate::config::Cooldown;

use super::*;

/// A request beyond its wait and this is a request that hangs.
const SPARE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_when_redis_goes_keeps_its_time_and_whoever_comes_then_waits_too() {
    let (upstream, arrivals) = recording().await;
    let mut redis = RedisServer::start();
    let wait = Duration::from_secs(4);
    let gate = TestGate::on_redis(upstream.address, &redis, |config| {
        pace(config, (5, 5.0), wait, 100);
        config.store.deadline = Duration::from_millis(50);
    })
    .await;
    for number in 0..5 {
        assert_eq!(ask(gate.proxy, "first".into(), number).await.0.status, 200);
    }
    let mut requests = have_waiting(&gate, "early", 8).await;
    redis.stop();
    gate.until_store_is("local").await;
    for number in 0..4 {
        requests.spawn(ask(gate.proxy, "amid".into(), number));
    }
    redis.restart();
    gate.until_store_is("redis").await;
    for number in 0..4 {
        requests.spawn(ask(gate.proxy, "after".into(), number));
    }
    while let Some(answer) = soon(requests.join_next()).await {
        let (answer, took) = answer.unwrap();
        assert_eq!(answer.status, 200);
        assert!(took < wait + SPARE, "answered after {took:?}");
    }
    assert_eq!(arrivals.lock().unwrap().len(), 5 + 8 + 4 + 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_when_the_gate_drains_is_served() {
    let (upstream, arrivals) = recording().await;
    let gate = TestGate::start(upstream.address, |config| pace(config, (1, 5.0), Duration::from_secs(10), 100));
    assert_eq!(ask(gate.proxy, "first".into(), 0).await.0.status, 200);
    let mut requests = have_waiting(&gate, "early", 6).await;
    gate.shutdown.drain();
    while let Some(answer) = soon(requests.join_next()).await {
        assert_eq!(answer.unwrap().0.status, 200);
    }
    soon(gate.shutdown.finished()).await;
    assert_eq!(arrivals.lock().unwrap().len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_is_over_does_not_wait_for_those_who_wait() {
    let (upstream, arrivals) = recording().await;
    let gate = TestGate::start(upstream.address, |config| {
        pace(config, (1, 0.01), Duration::from_mins(30), 100);
        config.listen.drain_timeout = Duration::from_millis(200);
    });
    assert_eq!(ask(gate.proxy, "first".into(), 0).await.0.status, 200);
    let before = waited_for(&gate).await;
    let address = gate.proxy;
    let waiting = tokio::spawn(async move { tokio::spawn(ask(address, "early".into(), 0)).await });
    until(async || waited_for(&gate).await > before).await;
    gate.shutdown.drain();
    soon(gate.shutdown.finished()).await;
    assert!(soon(waiting).await.unwrap().is_err(), "its connection is closed");
    assert_eq!(arrivals.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_when_the_upstream_asks_for_a_pause_waits_for_its_end_too() {
    let arrivals = Arrivals::default();
    let record = Arc::clone(&arrivals);
    let upstream = StubUpstream::answering(move |seen| {
        let query = seen.target.split_once('?').map_or("", |(_, query)| query).to_owned();
        let paused = query == "early-0";
        record.lock().unwrap().push((Instant::now(), query));
        let answer = Response::builder().status(if paused { 429 } else { 200 }).header("retry-after", "2");
        answer.body(Full::<Bytes>::from("{}")).unwrap()
    })
    .await;
    let gate = TestGate::start(upstream.address, |config| {
        pace(config, (1, 1.0), Duration::from_secs(15), 100);
        config.routes[0].cooldown = Cooldown::Route;
    });
    assert_eq!(ask(gate.proxy, "first".into(), 0).await.0.status, 200);
    let mut requests = have_waiting(&gate, "early", 2).await;
    let mut statuses = Vec::new();
    while let Some(answer) = soon(requests.join_next()).await {
        statuses.push(answer.unwrap().0.status.as_u16());
    }
    assert_eq!(statuses, [429, 200]);
    let arrivals = arrivals.lock().unwrap();
    let between = arrivals[2].0 - arrivals[1].0;
    assert!(between >= Duration::from_secs(2), "its turn came after one second, and it went after {between:?}");
}

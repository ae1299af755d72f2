//! Waiting for a sliding window: whoever is over its quota goes as room comes, in no window more than the quota.

use cxgate::config::SlidingWindow;

use super::*;

const WINDOW: Duration = Duration::from_secs(1);

/// How long the next request may wait where one comes in two windows.
const TURN_MAX: Duration = Duration::from_secs(5);

/// One window for the whole route, whose requests wait.
fn pace_by_window(config: &mut Config, quota: u32, window: Duration, wait: Duration, queue: u32) {
    pace(config, (1, 1.0), wait, queue);
    config.routes[0].limits[0].limit.kind = SlidingWindow { quota, window }.into();
}

/// Twenty-five requests at five a window.
async fn twenty_five(gates: &[TestGate], arrivals: Arrivals) {
    let began = Instant::now();
    let mut requests = JoinSet::new();
    for number in 0..25 {
        requests.spawn(ask(gates[number % gates.len()].proxy, format!("client-{}", number % 3), number));
    }
    while let Some(answer) = soon(requests.join_next()).await {
        let (answer, _) = answer.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.header("x-ratelimit-remaining").parse::<u32>().unwrap() < 5);
    }
    let mut times: Vec<Instant> = arrivals.lock().unwrap().iter().map(|(time, _)| *time).collect();
    times.sort_unstable();
    assert_eq!(times.len(), 25);
    // Whatever is late on its way, none may be early: each fifth is a window after the one five before it.
    for (time, window) in times.iter().zip((0..5).flat_map(|window| [window; 5])) {
        let early = (began + WINDOW * window).saturating_duration_since(*time);
        assert!(early < Duration::from_millis(1), "early by {early:?} in window {window}");
    }
    let took = times[24] - began;
    assert!(took < 4 * WINDOW + Duration::from_secs(2), "{took:?} for what takes four windows");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_waiting_go_as_room_comes_and_never_more_than_the_quota_in_a_window() {
    let (upstream, arrivals) = recording().await;
    let change = |config: &mut Config| pace_by_window(config, 5, WINDOW, Duration::from_secs(20), 30);
    twenty_five(&[TestGate::start(upstream.address, change)], arrivals).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_share_the_windows_of_one_queue() {
    let (upstream, arrivals) = recording().await;
    let redis = RedisServer::start();
    let change = |config: &mut Config| pace_by_window(config, 5, WINDOW, Duration::from_secs(20), 30);
    let gates = [
        TestGate::on_redis(upstream.address, &redis, change).await,
        TestGate::on_redis(upstream.address, &redis, change).await,
    ];
    twenty_five(&gates, arrivals).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_is_too_far_away_is_refused_at_once_and_told() {
    let (upstream, _) = recording().await;
    let gate = TestGate::start(upstream.address, |config| {
        pace_by_window(config, 1, Duration::from_mins(1), Duration::from_secs(90), 30);
    });
    assert_eq!(ask(gate.proxy, "first".into(), 0).await.0.status, 200);
    let _waiting = have_waiting(&gate, "second", 1).await;
    let (refused, took) = ask(gate.proxy, "third".into(), 0).await;
    assert_eq!(refused.status, 429);
    assert!(took < Duration::from_secs(5), "refused after {took:?}");
    let retry_after: u64 = refused.header("retry-after").parse().unwrap();
    assert!((100..=120).contains(&retry_after), "two windows: {retry_after} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_places_of_those_who_leave_are_room_again() {
    let (upstream, arrivals) = recording().await;
    let change = |config: &mut Config| pace_by_window(config, 1, 2 * WINDOW, Duration::from_mins(30), 100);
    all_leave(50, TestGate::start(upstream.address, change), arrivals, TURN_MAX).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn their_places_on_redis_are_room_again() {
    let (upstream, arrivals) = recording().await;
    let redis = RedisServer::start();
    let change = |config: &mut Config| pace_by_window(config, 1, 2 * WINDOW, Duration::from_mins(30), 100);
    all_leave(50, TestGate::on_redis(upstream.address, &redis, change).await, arrivals, TURN_MAX).await;
}

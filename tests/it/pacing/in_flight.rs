//! How many requests are under way at once, however many come.

use cxgate::config::MaxInFlight;
use tokio::sync::Semaphore;

use super::*;

pub const UNDER_WAY: &str = r#"cxgate_route_in_flight{route="guest-webchat"}"#;

/// A route that bounds nothing but how many are under way; whoever is too many waits, where it may.
fn bound(config: &mut Config, most: MaxInFlight, waits: bool) {
    pace(config, (1000, 0.001), Duration::from_mins(1), 100);
    config.routes[0].max_in_flight = Some(most);
    if !waits {
        config.routes[0].when_limited = None;
    }
}

/// An upstream that answers each request once it is let, and a gate in front of it.
pub async fn holding(most: MaxInFlight, waits: bool) -> (Arc<Semaphore>, StubUpstream, TestGate) {
    let permits = Arc::new(Semaphore::new(0));
    let upstream = StubUpstream::holding(Arc::clone(&permits)).await;
    let gate = TestGate::start(upstream.address, |config| bound(config, most, waits));
    (permits, upstream, gate)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_too_many_is_refused_and_costs_nothing() {
    let (permits, _upstream, gate) = holding(MaxInFlight { route: 3, client: 2 }, false).await;
    let mut requests = JoinSet::new();
    for (client, under_way) in [("a", 1), ("a", 2), ("b", 3)] {
        requests.spawn(ask(gate.proxy, client.to_owned(), under_way));
        until(async || gate.count(UNDER_WAY).await == under_way as u64).await;
        if under_way == 2 {
            assert_eq!(ask(gate.proxy, "a".into(), 9).await.0.status, 429, "two of one client");
        }
    }
    let (refused, _) = ask(gate.proxy, "c".into(), 9).await;
    assert_eq!((refused.status.as_u16(), refused.text()), (429, r#"{"error":"too_many_in_flight"}"#));
    assert_eq!(refused.header("retry-after"), "1");
    permits.add_permits(100);
    while let Some(answer) = soon(requests.join_next()).await {
        assert_eq!(answer.unwrap().0.status, 200);
    }
    until(async || gate.count(UNDER_WAY).await == 0).await;
    let (passed, _) = ask(gate.proxy, "c".into(), 10).await;
    assert_eq!(passed.status, 200);
    assert_eq!(passed.header("x-ratelimit-remaining"), "996", "refusals were not charged");
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_take_turns_and_never_more_than_may_be_are_under_way() {
    let (permits, _upstream, gate) = holding(MaxInFlight { route: 2, client: 1 }, true).await;
    let mut requests = JoinSet::new();
    for number in 0..10 {
        requests.spawn(ask(gate.proxy, "many".to_owned(), number));
    }
    until(async || gate.count(QUEUE).await == 9).await;
    // One of many is under way, and holds nobody else up.
    let other = tokio::spawn(ask(gate.proxy, "other".to_owned(), 0));
    until(async || gate.count(UNDER_WAY).await == 2).await;
    assert_eq!(gate.count(QUEUE).await, 9);
    for served in 1..=11 {
        permits.add_permits(1);
        until(async || gate.count(QUEUE).await <= 10_u64.saturating_sub(served)).await;
        assert!(gate.count(UNDER_WAY).await <= 2);
    }
    while let Some(answer) = soon(requests.join_next()).await {
        assert_eq!(answer.unwrap().0.status, 200);
    }
    assert_eq!(soon(other).await.unwrap().0.status, 200);
    until(async || gate.count(UNDER_WAY).await == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_gives_up_its_place_or_its_turn() {
    let (permits, _upstream, gate) = holding(MaxInFlight { route: 1, client: 1 }, true).await;
    let mut under_way = JoinSet::new();
    under_way.spawn(ask(gate.proxy, "first".to_owned(), 0));
    until(async || gate.count(UNDER_WAY).await == 1).await;
    let mut waiting = JoinSet::new();
    for number in 0..5 {
        waiting.spawn(ask(gate.proxy, format!("client-{number}"), number));
    }
    until(async || gate.count(QUEUE).await == 5).await;
    waiting.shutdown().await;
    until(async || gate.count(QUEUE).await == 0).await;
    let last = tokio::spawn(ask(gate.proxy, "last".to_owned(), 0));
    until(async || gate.count(QUEUE).await == 1).await;
    under_way.shutdown().await;
    until(async || gate.count(QUEUE).await == 0).await;
    permits.add_permits(2);
    assert_eq!(soon(last).await.unwrap().0.status, 200);
    until(async || gate.count(UNDER_WAY).await == 0).await;
}

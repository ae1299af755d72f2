//! A reload lets nobody go who would not have gone without it.

use cxgate::config::MaxInFlight;

use super::{
    in_flight::{UNDER_WAY, holding},
    *,
};
use crate::support::test_gate::bucket_of;

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_after_a_reload_takes_turns_with_those_who_wait() {
    let (upstream, arrivals) = recording().await;
    let gate = TestGate::start(upstream.address, |config| pace(config, (1, 2.0), Duration::from_secs(20), 100));
    assert_eq!(ask(gate.proxy, "first".into(), 0).await.0.status, 200);
    let mut requests = have_waiting(&gate, "many", 5).await;
    gate.reload(|config| config.routes[0].server_timing = !config.routes[0].server_timing).await.unwrap();
    requests.spawn(ask(gate.proxy, "other".to_owned(), 0));
    while let Some(answer) = soon(requests.join_next()).await {
        assert_eq!(answer.unwrap().0.status, 200);
    }
    let arrivals = arrivals.lock().unwrap();
    let place = |query: &str| arrivals.iter().position(|(_, arrived)| arrived == query).unwrap();
    assert!(place("other-0") < place("many-4"), "{arrivals:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_and_many_reloads_no_more_are_under_way_than_may_be() {
    let most = MaxInFlight { route: 3, client: 2 };
    let (permits, upstream, gate) = holding(most, true).await;
    let mut requests = JoinSet::new();
    for number in 0..40 {
        requests.spawn(ask(gate.proxy, format!("client-{}", number % 5), number));
    }
    for released in 0..40 {
        let begun = released + 3;
        until(async || upstream.seen().len() >= begun).await;
        gate.reload(|config| bucket_of(config).capacity = 999 - u32::try_from(released).unwrap()).await.unwrap();
        requests.spawn(ask(gate.proxy, "late".to_owned(), released));
        assert_eq!(upstream.seen().len(), begun, "after {released} were answered");
        permits.add_permits(1);
    }
    permits.add_permits(100);
    while let Some(answer) = soon(requests.join_next()).await {
        assert_eq!(answer.unwrap().0.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_allows_more_lets_them_go_and_one_that_allows_fewer_waits_for_those_under_way() {
    let most = |route| MaxInFlight { route, client: 100 };
    let (permits, upstream, gate) = holding(most(2), true).await;
    let mut requests = JoinSet::new();
    for number in 0..10 {
        requests.spawn(ask(gate.proxy, "many".to_owned(), number));
    }
    until(async || upstream.seen().len() == 2 && gate.count(QUEUE).await == 8).await;
    gate.reload(|config| config.routes[0].max_in_flight = Some(most(4))).await.unwrap();
    until(async || upstream.seen().len() == 4).await;
    gate.reload(|config| config.routes[0].max_in_flight = Some(most(1))).await.unwrap();
    for answered in 1..=3 {
        permits.add_permits(1);
        until(async || gate.count(UNDER_WAY).await == 4 - answered).await;
        assert_eq!(upstream.seen().len(), 4);
    }
    permits.add_permits(1);
    until(async || upstream.seen().len() == 5).await;
    permits.add_permits(100);
    while let Some(answer) = soon(requests.join_next()).await {
        assert_eq!(answer.unwrap().0.status, 200);
    }
}

//! Several threads serve, and it shows in nothing but in where connections are used again.

use std::sync::Arc;

use cxgate::config::Config;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::support::{
    raw_client::RawClient,
    stub_upstream::StubUpstream,
    test_gate::{TestGate, WORKERS, bucket_of},
    until,
};

const OPEN: &str = r#"cxgate_upstream_connections{upstream="cxone"}"#;
const PATH: &str = "/api/v2/engage/webchat";

async fn clients(gate: &TestGate, count: usize) -> Vec<RawClient> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(RawClient::connect(gate.proxy).await);
    }
    clients
}

fn admits(config: &mut Config, capacity: u32) {
    let bucket = bucket_of(config);
    bucket.capacity = capacity;
    bucket.refill_per_second = cxgate::config::Rate::per_second(0.001).unwrap();
}

#[tokio::test]
async fn each_thread_keeps_a_connection_of_its_own() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| admits(config, 1000));
    let mut clients = clients(&gate, 2 * WORKERS).await;
    for _ in 0..3 {
        for client in &mut clients {
            assert_eq!(client.get(PATH).await.status, 200);
        }
    }
    assert_eq!(gate.metric(OPEN).await, WORKERS.to_string(), "one request at a time, at each");
}

#[tokio::test]
async fn threads_share_what_the_upstream_allows() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        admits(config, 1000);
        config.upstreams.get_mut("cxone").unwrap().max_connections = 1;
    });
    let mut clients = clients(&gate, 2 * WORKERS).await;
    for _ in 0..3 {
        for client in &mut clients {
            assert_eq!(client.get(PATH).await.status, 200);
            assert_eq!(gate.metric(OPEN).await, "1");
        }
    }
    assert_eq!(upstream.connections(), 1, "no thread closes what another could use");
}

#[tokio::test]
async fn one_bucket_counts_for_all_of_them() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| admits(config, 20));
    let mut asked = JoinSet::new();
    for mut client in clients(&gate, 10 * WORKERS).await {
        asked.spawn(async move { client.get(PATH).await.status });
    }
    let (admitted, refused): (Vec<u16>, Vec<u16>) = asked.join_all().await.into_iter().partition(|status| *status == 200);
    assert_eq!(admitted.len(), 20);
    assert_eq!(refused, vec![429; 10 * WORKERS - 20]);
}

#[tokio::test]
async fn a_drain_waits_for_what_each_of_them_does() {
    let permits = Arc::new(Semaphore::new(0));
    let upstream = StubUpstream::holding(Arc::clone(&permits)).await;
    let gate = TestGate::start(upstream.address, |config| admits(config, 1000));
    let mut clients = clients(&gate, 2 * WORKERS).await;
    for client in &mut clients {
        client.send(format!("GET {PATH} HTTP/1.1\r\nhost: test\r\n\r\n")).await;
    }
    until(async || upstream.seen().len() == 2 * WORKERS).await;
    gate.shutdown.drain();
    permits.add_permits(2 * WORKERS);
    for client in &mut clients {
        assert_eq!(client.response().await.status, 200);
        assert_eq!(client.rest().await, (Vec::new(), true), "and is told goodbye");
    }
    gate.shutdown.finished().await;
}

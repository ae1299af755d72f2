//! More clients and more requests than there is room for.

use std::{sync::Arc, time::Duration};

use cxgate::serve::Caps;
use tokio::sync::Semaphore;

use crate::support::{
    http2,
    listening::{Listening, text, wide},
    raw_client::RawClient,
    soon,
    stub_upstream::StubUpstream,
    test_gate::TestGate,
    until,
};

const OPEN: &str = r#"cxgate_connections{listener="proxy"}"#;

#[tokio::test]
async fn a_connection_that_idles_makes_room_for_one_that_comes() {
    let listening = Listening::http2(Caps { max_connections: 3, ..wide() }, |_| async move { text("served") });
    let mut idle = RawClient::connect(listening.address).await;
    idle.get("/").await;
    let mut fresh = RawClient::connect(listening.address).await;
    let mut idle_http2 = http2::plain_client(listening.address).await;
    assert_eq!(soon(idle_http2.send_request(http2::get("/"))).await.unwrap().status(), 200);
    until(async || listening.metric(OPEN) == 3).await;

    for _ in 0..10 {
        assert_eq!(RawClient::connect(listening.address).await.get("/").await.text(), "served");
    }
    assert_eq!(idle.rest().await, (Vec::new(), true), "it had idled longest");
    assert_eq!(fresh.get("/").await.text(), "served", "whoever has just come is not idle");
    assert!(listening.metric(OPEN) <= 3);
}

#[tokio::test]
async fn requests_beyond_those_in_flight_are_shed_and_probes_answered() {
    let release = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&release);
    let upstream = StubUpstream::holding(held).await;
    let gate = TestGate::start(upstream.address, |config| config.listen.max_requests_in_flight = 3);
    let mut busy = Vec::new();
    for _ in 0..3 {
        let mut client = RawClient::connect(gate.proxy).await;
        client.send("GET /api/v2/engage/webchat HTTP/1.1\r\nhost: a\r\n\r\n").await;
        busy.push(client);
    }
    until(async || gate.count("cxgate_http_requests_in_flight").await == 3).await;
    let mut shed = RawClient::connect(gate.proxy).await;
    for _ in 0..2 {
        let answer = shed.get("/api/v2/engage/webchat").await;
        assert_eq!((answer.status, answer.text()), (503, r#"{"error":"overloaded"}"#));
        assert_eq!((answer.field("retry-after"), answer.field("connection")), (Some("1"), None));
    }
    assert_eq!(crate::support::http::get(gate.admin, "/livez", &[]).await.status, 200);
    assert_eq!(gate.count(r#"cxgate_rejections_total{code="overloaded"}"#).await, 2);
    release.add_permits(100);
    for client in &mut busy {
        assert_eq!(client.response().await.status, 200);
    }
    assert_eq!(shed.get("/api/v2/engage/webchat").await.status, 200);
}

#[tokio::test]
async fn a_flood_of_connections_leaves_none_behind() {
    let caps = Caps { max_connections: 20, header_timeout: Duration::from_millis(100), ..wide() };
    let listening = Listening::start(caps, |_| async move { text("served") });
    for _ in 0..10 {
        let mut crowd = Vec::new();
        for _ in 0..60 {
            crowd.push(RawClient::connect(listening.address).await);
        }
        assert!(listening.metric(OPEN) <= 20);
    }
    until(async || listening.metric(OPEN) == 0).await;
    assert_eq!(RawClient::connect(listening.address).await.get("/").await.text(), "served");
    assert_eq!(listening.metric(r#"cxgate_accept_failures_total{listener="proxy"}"#), 0);
}

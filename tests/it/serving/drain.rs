//! Stopping: nothing new, and everything that was begun.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use tokio::{net::TcpStream, sync::Notify};

use crate::support::{
    listening::{Listening, text, wide},
    raw_client::RawClient,
    soon,
};

#[tokio::test]
async fn a_drain_closes_the_door_and_what_idles_and_completes_what_is_in_flight() {
    let release = Arc::new(Notify::new());
    let entered = Arc::new(Notify::new());
    let (held, arrived) = (Arc::clone(&release), Arc::clone(&entered));
    let listening = Listening::start(wide(), move |request| {
        let (held, arrived) = (Arc::clone(&held), Arc::clone(&arrived));
        async move {
            if request.uri().path() == "/slow" {
                arrived.notify_one();
                held.notified().await;
            }
            text("whole")
        }
    });
    let mut fresh = RawClient::connect(listening.address).await;
    let mut idle = RawClient::connect(listening.address).await;
    let mut busy = RawClient::connect(listening.address).await;
    idle.get("/").await;
    busy.send("GET /slow HTTP/1.1\r\nhost: test\r\n\r\n").await;
    soon(entered.notified()).await;

    listening.shutdown.drain();
    assert_eq!(idle.rest().await, (Vec::new(), true));
    assert_eq!(fresh.rest().await, (Vec::new(), true));
    assert!(TcpStream::connect(listening.address).await.is_err(), "the listening socket is closed");

    release.notify_one();
    let response = busy.response().await;
    assert_eq!((response.status, response.text(), response.field("connection")), (200, "whole", Some("close")));
    assert_eq!(busy.rest().await, (Vec::new(), true));
    soon(listening.shutdown.finished()).await;
    assert_eq!(listening.metric(r#"cxgate_connections{listener="proxy"}"#), 0);
}

#[tokio::test]
async fn a_body_that_streams_when_the_drain_comes_arrives_whole() {
    let listening = Listening::start(wide(), |request| async move { Response::new(request.into_body()) });
    let mut client = RawClient::connect(listening.address).await;
    client.send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    assert_eq!(client.head().await.0, 200);
    assert_eq!(client.chunk().await, b"half");
    listening.shutdown.drain();
    client.send("5\r\nwhole\r\n0\r\n\r\n").await;
    assert_eq!(client.chunk().await, b"whole");
    assert_eq!(client.chunk().await, b"");
    assert_eq!(client.rest().await, (Vec::new(), true));
    soon(listening.shutdown.finished()).await;
}

#[tokio::test]
async fn a_stop_drops_what_the_drain_could_not_finish() {
    let entered = Arc::new(Notify::new());
    let arrived = Arc::clone(&entered);
    let listening = Listening::start(wide(), move |_| {
        arrived.notify_one();
        std::future::pending::<Response<Full<Bytes>>>()
    });
    let mut client = RawClient::connect(listening.address).await;
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    soon(entered.notified()).await;
    listening.shutdown.stop();
    soon(listening.shutdown.finished()).await;
    assert!(client.rest().await.0.is_empty());
}

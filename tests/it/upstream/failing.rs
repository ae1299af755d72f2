//! Upstreams that misbehave, and clients that do: each is told apart, and nothing short passes for whole.

use std::{sync::Arc, time::Duration};

use cxgate::{
    config::Origin,
    serve::Caps,
    upstream::{ConnectError, ResponseFault, UpstreamError},
};
use http_body_util::BodyExt;
use tokio::{net::TcpListener, sync::Notify};

use crate::support::{
    forwarding::{Forwarding, request, to},
    listening::wide,
    raw_client::RawClient,
    raw_upstream::RawUpstream,
    soon,
};

const SHORT: Duration = Duration::from_millis(150);

/// Answers each request with the same bytes and closes.
async fn saying(bytes: impl Into<Vec<u8>>) -> RawUpstream {
    let bytes = bytes.into();
    RawUpstream::start(move |_, mut connection| {
        let bytes = bytes.clone();
        async move {
            connection.request().await;
            connection.send(bytes).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_refused_connection_is_told_apart() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let forwarding = Forwarding::new(&to(gone));
    let error = forwarding.get("/").await.unwrap_err();
    assert!(matches!(&error, UpstreamError::Connect(ConnectError::Tcp(_))), "{error:?}");
    assert_eq!(error.to_string(), "cannot connect: Connection refused (os error 111)");
    assert_eq!(forwarding.ended("connect"), 1);
    forwarding.open_connections(0).await;
}

#[tokio::test]
async fn a_name_without_an_address_is_told_apart() {
    let mut config = to("127.0.0.1:1".parse().unwrap());
    config.url.host = "does-not-exist.invalid".to_owned();
    let error = Forwarding::new(&config).get("/").await.unwrap_err();
    assert!(matches!(&error, UpstreamError::Connect(ConnectError::Lookup(_))), "{error:?}");
}

#[tokio::test]
async fn a_handshake_that_is_never_answered_times_out() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = to(silent.local_addr().unwrap());
    config.url = Origin { tls: true, ..config.url };
    config.connect_timeout = SHORT;
    let forwarding = Forwarding::new(&config);
    let error = forwarding.get("/").await.unwrap_err();
    assert!(matches!(error, UpstreamError::ConnectTimeout), "{error:?}");
    assert_eq!(forwarding.ended("connect_timeout"), 1);
}

#[tokio::test]
async fn a_response_head_that_does_not_come_times_out() {
    let upstream =
        RawUpstream::stalling("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n").await;
    let mut config = to(upstream.address());
    config.response_timeout = SHORT;
    let forwarding = Forwarding::new(&config);
    let error = forwarding.get("/").await.unwrap_err();
    assert!(matches!(error, UpstreamError::ResponseTimeout), "{error:?}");
    assert_eq!(forwarding.ended("response_timeout"), 1);
    forwarding.open_connections(0).await;
}

#[tokio::test]
async fn informational_responses_do_not_count() {
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(50);
    let upstream =
        saying(format!("HTTP/1.1 102 Processing\r\n\r\n{hints}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")).await;
    assert_eq!(Forwarding::new(&to(upstream.address())).get("/").await.unwrap(), "ok");
}

#[tokio::test]
async fn what_is_no_http_response_is_a_protocol_error() {
    let large = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(100_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(200));
    for answer in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 99999 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
        "HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\na",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\n",
        "",
        &large,
        &many,
    ] {
        let upstream = saying(answer).await;
        let forwarding = Forwarding::new(&to(upstream.address()));
        let outcome = forwarding.send(request("GET", "/")).await.map(|response| response.status());
        assert!(matches!(outcome, Err(UpstreamError::Protocol(_))), "{answer:.60}: {outcome:?}");
        forwarding.open_connections(0).await;
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\nzz\r\n",
    ] {
        let upstream = saying(answer).await;
        let forwarding = Forwarding::new(&to(upstream.address()));
        let response = forwarding.send(request("GET", "/")).await.unwrap();
        let fault = soon(response.into_body().collect()).await.map(|_| ()).unwrap_err();
        assert_eq!(fault, ResponseFault::Truncated, "{answer}");

        let listening = forwarding.behind_a_listener(wide());
        let mut client = RawClient::connect(listening.address).await;
        client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
        let (received, in_order) = client.rest().await;
        assert!(!in_order, "the client took {:?} for a whole response", String::from_utf8_lossy(&received));
    }
}

#[tokio::test]
async fn a_reset_in_the_middle_of_a_body_is_an_error() {
    let half_read = Arc::new(Notify::new());
    let told = Arc::clone(&half_read);
    let upstream = RawUpstream::start(move |_, mut connection| {
        let told = Arc::clone(&told);
        async move {
            connection.request().await;
            connection.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort").await;
            told.notified().await;
            connection.reset();
        }
    })
    .await;
    let forwarding = Forwarding::new(&to(upstream.address()));
    let mut response = forwarding.send(request("GET", "/")).await.unwrap();
    assert_eq!(soon(response.body_mut().frame()).await.unwrap().unwrap().into_data().unwrap(), "short");
    half_read.notify_one();
    let fault = soon(response.body_mut().frame()).await.unwrap().unwrap_err();
    assert_eq!(fault, ResponseFault::Truncated);
}

#[tokio::test]
async fn a_body_that_makes_no_progress_is_an_error() {
    let upstream = RawUpstream::stalling("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort").await;
    let forwarding = Forwarding::with_body_idle(&to(upstream.address()), SHORT);
    let response = forwarding.send(request("GET", "/")).await.unwrap();
    let fault = soon(response.into_body().collect()).await.map(|_| ()).unwrap_err();
    assert_eq!(fault, ResponseFault::Stalled);
    forwarding.open_connections(0).await;
}

#[tokio::test]
async fn a_fault_of_the_clients_body_is_not_the_upstreams() {
    let caps = Caps { max_body_bytes: 8, body_idle_timeout: SHORT, ..wide() };
    for (body, told) in [
        ("9\r\n123456789\r\n", "Request(TooLarge)"),
        ("4\r\n1234\r\nzz\r\n", "Request(Broken)"),
        ("4\r\n12", "Request(Stalled)"),
    ] {
        let upstream = RawUpstream::stalling("").await;
        let forwarding = Forwarding::new(&to(upstream.address()));
        let listening = forwarding.behind_a_listener(caps.clone());
        let mut client = RawClient::connect(listening.address).await;
        client.send(format!("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n{body}")).await;
        assert_eq!(client.response().await.text(), told);
        assert_eq!(forwarding.ended("request"), 1);
        forwarding.open_connections(0).await;
    }
}

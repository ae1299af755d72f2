//! What one client may cost, and what it is told when that is more.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use cxgate::serve::Caps;
use http_body::{Body, Frame};
use hyper::Response;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::{
    listening::{Listening, text, wide},
    raw_client::{RawClient, RawResponse},
    soon, until,
};

const SHORT: Duration = Duration::from_millis(150);

fn assert_refusal(response: &RawResponse, status: u16, code: &str) {
    assert_eq!(response.status, status);
    assert_eq!(response.text(), format!(r#"{{"error":"{code}"}}"#));
    assert_eq!(response.field("content-type"), Some("application/json"));
    assert_eq!(response.field("cache-control"), Some("no-store"));
    assert_eq!(response.field("connection"), Some("close"));
    assert_eq!(response.field("x-request-id").map(str::len), Some(32));
    assert!(response.field("date").is_some_and(|date| date.ends_with("gmt")), "{}", response.head);
}

#[tokio::test]
async fn a_head_that_cannot_be_served_is_refused_in_our_own_words() {
    let listening = Listening::echoing_path(wide());
    let many_fields = "x: y\r\n".repeat(100);
    let long = "a".repeat(40_000);
    for (head, status, code) in [
        ("GET\r\n\r\n".to_owned(), 400, "bad_request"),
        ("GET / HTTP/1.1\r\nhost : test\r\n\r\n".to_owned(), 400, "bad_request"),
        ("GET / HTTP/1.1\r\nhost: a\0b\r\n\r\n".to_owned(), 400, "bad_request"),
        ("GET / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(), 400, "bad_request"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400, "bad_request"),
        (format!("GET / HTTP/1.1\r\nhost: test\r\n{many_fields}\r\n"), 431, "header_too_large"),
        (format!("GET / HTTP/1.1\r\nhost: {long}\r\n\r\n"), 431, "header_too_large"),
        (format!("GET /{long} HTTP/1.1\r\nhost: test\r\n\r\n"), 414, "uri_too_long"),
    ] {
        let mut client = RawClient::connect(listening.address).await;
        client.send(&head).await;
        let response = client.response().await;
        assert_refusal(&response, status, code);
        assert_eq!(client.rest().await, (Vec::new(), true), "nothing follows the refusal");
    }
    assert_eq!(listening.metric(r#"cxgate_rejections_total{code="bad_request"}"#), 5);

    let mut client = RawClient::connect(listening.address).await;
    assert_eq!(client.get("/first").await.text(), "/first");
    client.send("GET\r\n\r\n").await;
    assert_refusal(&client.response().await, 400, "bad_request");
}

#[tokio::test]
async fn a_target_beyond_what_can_be_represented_is_414_under_a_large_head_cap() {
    let listening = Listening::echoing_path(Caps { max_header_bytes: 256 * 1024, ..wide() });
    let mut client = RawClient::connect(listening.address).await;
    client.send(format!("GET /{} HTTP/1.1\r\nhost: test\r\n\r\n", "a".repeat(70_000))).await;
    assert_refusal(&client.response().await, 414, "uri_too_long");
}

#[tokio::test]
async fn a_slow_head_is_told_that_it_was_too_slow() {
    let listening = Listening::echoing_path(Caps { header_timeout: SHORT, ..wide() });
    let mut silent = RawClient::connect(listening.address).await;
    let mut dripping = RawClient::connect(listening.address).await;
    let mut second = RawClient::connect(listening.address).await;
    dripping.send("GET / HT").await;
    second.get("/first").await;
    second.send("GET /second").await;
    for client in [&mut silent, &mut dripping, &mut second] {
        assert_refusal(&client.response().await, 408, "request_timeout");
        assert_eq!(client.rest().await, (Vec::new(), true));
    }
}

#[tokio::test]
async fn bytes_that_keep_coming_do_not_lengthen_the_time_for_a_head() {
    let listening = Listening::echoing_path(Caps { header_timeout: Duration::from_millis(300), ..wide() });
    let mut client = RawClient::connect(listening.address).await;
    client.send("GET / HTTP/1.1\r\n").await;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let refused = loop {
        tokio::select! {
            response = client.response() => break response,
            _ = ticks.tick() => {}
        }
        let _ = client.stream.try_write(b"x: y\r\n");
    };
    assert_refusal(&refused, 408, "request_timeout");
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let listening = Listening::echoing_path(Caps { idle_timeout: SHORT, ..wide() });
    let mut client = RawClient::connect(listening.address).await;
    client.get("/").await;
    assert_eq!(client.rest().await, (Vec::new(), true));
}

#[tokio::test]
async fn waiting_for_the_handler_is_not_idling() {
    let caps = Caps { idle_timeout: SHORT, header_timeout: SHORT, body_idle_timeout: SHORT, ..wide() };
    let listening = Listening::start(caps, |_| async {
        tokio::time::sleep(SHORT * 4).await;
        text("late")
    });
    let mut client = RawClient::connect(listening.address).await;
    assert_eq!(client.get("/").await.text(), "late");
}

#[tokio::test]
async fn every_request_starts_the_idle_time_anew() {
    let idle = Duration::from_millis(600);
    let listening = Listening::echoing_path(Caps { idle_timeout: idle, ..wide() });
    let mut client = RawClient::connect(listening.address).await;
    let mut ticks = tokio::time::interval(idle / 3);
    for _ in 0..6 {
        ticks.tick().await;
        assert_eq!(client.get("/").await.status, 200);
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off() {
    let dropped = CancellationToken::new();
    let guard = dropped.clone();
    let listening = Listening::start(Caps { body_idle_timeout: SHORT, ..wide() }, move |_| {
        let body = Endless(guard.clone().drop_guard());
        async move { Response::new(body) }
    });
    let mut client = RawClient::connect(listening.address).await;
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    soon(dropped.cancelled()).await;
    let (_, in_order) = client.rest().await;
    assert!(!in_order, "a response cut short ends by a reset");
}

#[tokio::test]
async fn an_announced_body_beyond_the_limit_is_refused_before_the_handler_runs() {
    let listening = Listening::start(Caps { max_body_bytes: 10, ..wide() }, |request| async move {
        assert!(request.uri().path() != "/large", "it is not for the handler");
        text("fine")
    });
    let mut client = RawClient::connect(listening.address).await;
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\n0123456789").await;
    assert_eq!(client.response().await.text(), "fine");
    let mut client = RawClient::connect(listening.address).await;
    client.send("POST /large HTTP/1.1\r\nhost: test\r\ncontent-length: 11\r\n\r\n01234567890").await;
    assert_refusal(&client.response().await, 413, "body_too_large");
    assert_eq!(client.rest().await, (Vec::new(), true));
    assert_eq!(listening.metric("cxgate_panics_total"), 0);
}

#[tokio::test]
async fn a_client_still_sending_hears_why_it_is_refused() {
    let listening = Listening::echoing_path(Caps { max_body_bytes: 10, ..wide() });
    let mut client = RawClient::connect(listening.address).await;
    let length = 4 * 1024 * 1024;
    client.send(format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n")).await;
    client.send(vec![b'x'; length]).await;
    assert_refusal(&client.response().await, 413, "body_too_large");
}

#[tokio::test]
async fn beyond_the_connection_limit_clients_wait_for_a_place() {
    let release = Arc::new(Notify::new());
    let held = Arc::clone(&release);
    let listening = Listening::start(Caps { max_connections: 2, ..wide() }, move |request| {
        let held = Arc::clone(&held);
        async move {
            if request.uri().path() == "/slow" {
                held.notified().await;
            }
            text(request.uri().path())
        }
    });
    let mut first = RawClient::connect(listening.address).await;
    let mut second = RawClient::connect(listening.address).await;
    for client in [&mut first, &mut second] {
        client.send("GET /slow HTTP/1.1\r\nhost: test\r\n\r\n").await;
    }
    until(async || listening.metric(r#"cxgate_connections{listener="proxy"}"#) == 2).await;
    // The kernel completes the connection; the listener has no place for it.
    let mut third = RawClient::connect(listening.address).await;
    third.send("GET /third HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let early = tokio::time::timeout(SHORT, third.stream.readable()).await;
    assert!(early.is_err(), "it was served beyond the limit");
    assert_eq!(listening.metric(r#"cxgate_connections{listener="proxy"}"#), 2);
    release.notify_one();
    assert_eq!(third.response().await.text(), "/third", "whoever was answered first made room");
}

/// A body that never ends, and says when it is dropped.
struct Endless(#[expect(dead_code, reason = "dropping it is what counts")] DropGuard);

impl Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 16 * 1024])))))
    }
}

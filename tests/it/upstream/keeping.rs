//! Which connection a request takes, and when it takes a second one.

use std::{
    io::{Read, Write},
    sync::Arc,
    time::Duration,
};

use cxgate::upstream::UpstreamError;
use http_body_util::BodyExt;
use tokio::sync::Notify;

use crate::support::{
    forwarding::{Forwarding, request, to},
    listening::wide,
    raw_client::RawClient,
    raw_upstream::RawUpstream,
    soon,
};

#[tokio::test]
async fn requests_follow_each_other_on_one_connection() {
    let upstream = RawUpstream::answering("hello").await;
    let forwarding = Forwarding::new(&to(upstream.address()));
    for path in ["/a", "/b?x=%20&y", "//c/../d;e"] {
        assert_eq!(forwarding.get(path).await.unwrap(), "hello");
    }
    assert_eq!(upstream.connections(), 1);
    let host = upstream.address();
    let sent = upstream.requests();
    assert_eq!(sent[1], format!("GET /b?x=%20&y HTTP/1.1\r\nhost: {host}\r\n\r\n"));
    assert!(sent[2].starts_with("GET //c/../d;e HTTP/1.1\r\n"), "the path goes out as it came in: {}", sent[2]);
    assert_eq!(forwarding.ended("answered"), 3);
    assert_eq!(forwarding.metric(r#"cxgate_upstream_response_seconds_count{upstream="test"}"#), 3);
}

#[tokio::test]
async fn an_absolute_uri_and_a_foreign_host_go_out_as_path_and_our_host() {
    let upstream = RawUpstream::answering("").await;
    let forwarding = Forwarding::new(&to(upstream.address()));
    let mut request = request("GET", "http://elsewhere.example/a?b");
    request.headers_mut().insert("host", "elsewhere.example".parse().unwrap());
    forwarding.send(request).await.unwrap();
    assert_eq!(upstream.requests(), [format!("GET /a?b HTTP/1.1\r\nhost: {}\r\n\r\n", upstream.address())]);
}

#[tokio::test]
async fn a_response_without_a_body_gives_its_connection_back_unread() {
    let upstream = RawUpstream::start(|_, mut connection| async move {
        while let Some(request) = connection.request().await {
            let head = request.starts_with("HEAD");
            connection
                .send(if head { "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n" } else { "HTTP/1.1 204 No\r\n\r\n" })
                .await;
        }
    })
    .await;
    let forwarding = Forwarding::new(&to(upstream.address()));
    for method in ["HEAD", "GET", "HEAD"] {
        let response = forwarding.send(request(method, "/")).await.unwrap();
        assert!(http_body::Body::is_end_stream(response.body()));
    }
    assert_eq!(upstream.connections(), 1);
}

/// Answers the first request of the first connection, dies at the second, and answers everything from then on.
async fn dying_once() -> RawUpstream {
    RawUpstream::start(|number, mut connection| async move {
        while connection.request().await.is_some() {
            connection.answer("alive").await;
            if number == 0 {
                connection.request().await;
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_get_whose_kept_connection_died_is_sent_again_once() {
    let upstream = dying_once().await;
    let forwarding = Forwarding::new(&to(upstream.address()));
    forwarding.get("/first").await.unwrap();
    assert_eq!(forwarding.get("/second").await.unwrap(), "alive");
    assert_eq!((upstream.connections(), upstream.requests().len()), (2, 3));
    assert_eq!(forwarding.metric(r#"cxgate_upstream_resends_total{upstream="test"}"#), 1);
    assert_eq!(forwarding.ended("answered"), 2);
}

#[tokio::test]
async fn a_post_whose_kept_connection_died_is_not_sent_again() {
    for body in ["", "content"] {
        let upstream = dying_once().await;
        let forwarding = Forwarding::new(&to(upstream.address()));
        let listening = forwarding.behind_a_listener(wide());
        let mut client = RawClient::connect(listening.address).await;
        client.get("/first").await;
        client.send(format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
        let refused = client.response().await;
        assert!(refused.status == 599 && refused.text().starts_with("Protocol"), "{}", refused.text());
        assert_eq!((upstream.connections(), upstream.requests().len()), (1, 2));
        assert_eq!(forwarding.metric(r#"cxgate_upstream_resends_total{upstream="test"}"#), 0);
    }
}

#[tokio::test]
async fn an_answer_that_had_begun_is_not_asked_for_again() {
    let upstream = RawUpstream::start(|_, mut connection| async move {
        connection.request().await;
        connection.answer("alive").await;
        connection.request().await;
        connection.send("HTTP/1.1 2").await;
    })
    .await;
    let forwarding = Forwarding::new(&to(upstream.address()));
    forwarding.get("/first").await.unwrap();
    let error = forwarding.get("/second").await.unwrap_err();
    assert!(matches!(error, UpstreamError::Protocol(_)), "{error:?}");
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_fresh_connection_that_dies_is_not_tried_again() {
    for reads in [true, false] {
        let upstream = RawUpstream::start(move |_, mut connection| async move {
            if reads {
                connection.request().await;
            }
        })
        .await;
        let forwarding = Forwarding::new(&to(upstream.address()));
        let error = forwarding.get("/").await.unwrap_err();
        assert!(matches!(error, UpstreamError::Protocol(_)), "{error:?}");
        assert_eq!(upstream.connections(), 1);
        assert_eq!(forwarding.ended("protocol"), 1);
    }
}

#[tokio::test]
async fn a_connection_closed_while_it_rested_is_not_used() {
    let upstream = RawUpstream::start(|_, mut connection| async move {
        connection.request().await;
        connection.answer("once").await;
    })
    .await;
    let forwarding = Forwarding::new(&to(upstream.address()));
    for connections in 1..=3 {
        assert_eq!(forwarding.get("/").await.unwrap(), "once");
        assert_eq!(upstream.connections(), connections);
        forwarding.open_connections(0).await;
    }
    assert_eq!(forwarding.metric(r#"cxgate_upstream_resends_total{upstream="test"}"#), 0);
}

#[tokio::test]
async fn what_a_resting_connection_says_unasked_answers_nobody() {
    let poison = Arc::new(Notify::new());
    let closed = Arc::new(Notify::new());
    let (told, gone) = (Arc::clone(&poison), Arc::clone(&closed));
    let upstream = RawUpstream::start(move |number, mut connection| {
        let (told, gone) = (Arc::clone(&told), Arc::clone(&gone));
        async move {
            connection.request().await;
            connection.answer(if number == 0 { "first" } else { "fresh" }).await;
            told.notified().await;
            connection.answer("poison").await;
            connection.closed().await;
            gone.notify_one();
        }
    })
    .await;
    let forwarding = Forwarding::new(&to(upstream.address()));
    assert_eq!(forwarding.get("/").await.unwrap(), "first");
    poison.notify_one();
    soon(closed.notified()).await;
    assert_eq!(forwarding.get("/").await.unwrap(), "fresh");
}

#[tokio::test]
async fn a_connection_that_rested_too_long_is_closed() {
    let upstream = RawUpstream::answering("hello").await;
    let mut config = to(upstream.address());
    config.idle_timeout = Duration::from_millis(100);
    let forwarding = Forwarding::new(&config);
    forwarding.get("/").await.unwrap();
    forwarding.open_connections(0).await;
    forwarding.get("/").await.unwrap();
    assert_eq!(upstream.connections(), 2);
    forwarding.open_connections(0).await;
}

#[tokio::test]
async fn a_response_dropped_before_its_end_closes_its_connection() {
    let upstream = RawUpstream::stalling("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome").await;
    let forwarding = Forwarding::new(&to(upstream.address()));
    let mut response = forwarding.send(request("GET", "/")).await.unwrap();
    soon(response.body_mut().frame()).await.unwrap().unwrap();
    forwarding.open_connections(1).await;
    drop(response);
    forwarding.open_connections(0).await;
}

#[tokio::test]
async fn a_request_nobody_waits_for_any_more_closes_its_connection() {
    let upstream = RawUpstream::stalling("").await;
    let forwarding = Forwarding::new(&to(upstream.address()));
    let mut send = Box::pin(forwarding.upstream.send(request("GET", "/")));
    tokio::select! {
        _ = &mut send => panic!("there is no answer"),
        () = forwarding.open_connections(1) => {}
    }
    drop(send);
    forwarding.open_connections(0).await;
}

#[tokio::test]
async fn beyond_the_connection_limit_requests_wait_and_then_give_up() {
    let upstream = RawUpstream::answering("hello").await;
    let mut config = to(upstream.address());
    config.max_connections = 1;
    config.connect_timeout = Duration::from_millis(300);
    let forwarding = Forwarding::new(&config);
    let held = RawUpstream::stalling("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha").await;
    let mut config = to(held.address());
    config.max_connections = 1;
    config.connect_timeout = Duration::from_millis(300);
    let holding = Forwarding::new(&config);
    let held_response = holding.send(request("GET", "/")).await.unwrap();
    let error = holding.get("/").await.unwrap_err();
    assert!(matches!(error, UpstreamError::Busy), "{error:?}");
    assert_eq!(holding.ended("busy"), 1);
    let (waited, ()) = tokio::join!(holding.send(request("GET", "/")), async { drop(held_response) });
    assert_eq!(waited.unwrap().status(), 200, "a place was given back in time");

    let all = (0..20).map(|_| {
        let forwarding = forwarding.clone();
        tokio::spawn(async move { forwarding.get("/").await.unwrap() })
    });
    for one in all.collect::<Vec<_>>() {
        assert_eq!(soon(one).await.unwrap(), "hello");
    }
    assert_eq!(upstream.connections(), 1, "they took turns on the one connection");
}

/// Reads a request head from a blocking socket and answers it.
fn answer_one(stream: &mut std::net::TcpStream, body: &str) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn bytes_that_came_before_a_request_are_never_its_answer() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let forwarding = Forwarding::new(&to(listener.local_addr().unwrap()));
    let (kept, mut connections) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            answer_one(&mut stream, "asked for");
            if kept.send(stream).is_err() {
                return;
            }
        }
    });
    for _ in 0..20 {
        assert_eq!(forwarding.get("/").await.unwrap(), "asked for");
        let mut stream = soon(connections.recv()).await.unwrap();
        // Nothing is awaited between this and the next request, so that only the kernel can know of it.
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nunsolicited").unwrap();
        assert_eq!(forwarding.get("/").await.unwrap(), "asked for");
        soon(connections.recv()).await.unwrap();
    }
}

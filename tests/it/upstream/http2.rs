//! Upstreams that speak HTTP/2: shared connections, heads and bodies as that protocol has them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cxgate::{body::RequestBody, config, upstream::UpstreamError};
use http_body_util::BodyExt;
use hyper::{Request, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{
    certificates::Authority,
    forwarding::{Forwarding, request, to, to_http2},
    http2_upstream::{admitting, answering, begin, body, remembering, say},
    raw_upstream::RawUpstream,
    soon,
};

#[tokio::test]
async fn requests_share_one_connection_and_say_what_http2_says() {
    let (upstream, heads) = remembering("shared").await;
    let forwarding = Forwarding::new(&to_http2(upstream.address()));
    for _ in 0..3 {
        assert_eq!(forwarding.get("/path?query").await.unwrap(), "shared");
    }
    let answers: Vec<_> = (0..40).map(|_| forwarding.get("/many")).collect();
    for answer in futures_joined(answers).await {
        assert_eq!(answer.unwrap(), "shared");
    }
    let mut post = request("POST", "/post");
    for name in ["host", "connection", "keep-alive", "proxy-connection", "upgrade-insecure-requests", "te"] {
        post.headers_mut().insert(name, "x".parse().unwrap());
    }
    forwarding.send(post).await.unwrap();
    assert_eq!(upstream.connections(), 1);

    let heads = heads.lock().unwrap();
    assert_eq!(heads[0].uri().to_string(), format!("http://{}/path?query", upstream.address()));
    let head = heads.last().unwrap();
    assert_eq!(head.method(), "POST");
    let names: Vec<_> = head.headers().keys().map(hyper::header::HeaderName::as_str).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(head.headers()["te"], "trailers");
    assert_eq!(head.headers()["content-length"], "0");
    assert_eq!(head.headers()["upgrade-insecure-requests"], "x");
    assert!(!heads[0].headers().contains_key("content-length"));
}

/// All outcomes, awaited at once.
async fn futures_joined<F>(futures: Vec<F>) -> Vec<F::Output>
where
    F: Future,
{
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outcomes: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, outcome) in futures.iter_mut().zip(&mut outcomes) {
            if outcome.is_none()
                && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
            {
                *outcome = Some(output);
            }
        }
        if outcomes.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    outcomes.into_iter().flatten().collect()
}

#[tokio::test]
async fn no_connection_has_more_streams_than_its_upstream_admits() {
    let release = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&release);
    let upstream = answering(2, move |_, (_, respond)| {
        let held = Arc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            say(respond, "in turn");
        }
    })
    .await;
    let forwarding = Forwarding::new(&to_http2(upstream.address()));
    let asked: Vec<_> = (0..5)
        .map(|_| {
            let forwarding = forwarding.clone();
            tokio::spawn(async move { forwarding.get("/").await })
        })
        .collect();
    forwarding.open_connections(3).await;
    release.add_permits(5);
    for answer in asked {
        assert_eq!(soon(answer).await.unwrap().unwrap(), "in turn");
    }
    assert_eq!(upstream.connections(), 3);
    release.add_permits(1);
    forwarding.get("/").await.unwrap();
    assert_eq!(upstream.connections(), 3, "there is room");
}

#[tokio::test]
async fn as_many_requests_wait_as_there_may_be_connections() {
    let upstream = answering(100, |_, (request, respond)| async move {
        if request.uri().path() == "/held" {
            std::future::pending::<()>().await;
        }
        say(respond, "free");
    })
    .await;
    let config =
        config::Upstream { max_connections: 1, connect_timeout: Duration::from_millis(300), ..to_http2(upstream.address()) };
    let forwarding = Forwarding::new(&config);
    assert_eq!(forwarding.get("/").await.unwrap(), "free");
    let held = tokio::spawn({
        let forwarding = forwarding.clone();
        async move { forwarding.get("/held").await }
    });
    let busy = loop {
        match forwarding.get("/").await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert!(matches!(busy, UpstreamError::Busy), "{busy:?}");
    held.abort();
    let free = async {
        while forwarding.get("/").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon(free).await;
}

#[tokio::test]
async fn bodies_and_trailers_stream_both_ways_at_once() {
    let upstream = answering(100, |_, (request, respond)| async move {
        let (whole, _) = body(request.into_body()).await;
        let mut stream = begin(respond, Response::new(())).unwrap();
        for piece in whole.chunks(10_000) {
            stream.send_data(Bytes::copy_from_slice(piece), false).unwrap();
        }
        let mut said = hyper::HeaderMap::new();
        said.insert("x-length", whole.len().into());
        stream.send_trailers(said).unwrap();
    })
    .await;
    let forwarding = Forwarding::new(&to_http2(upstream.address()));
    let exchanges = (0..20_u32).map(|number| {
        let forwarding = forwarding.clone();
        async move {
            let sent: Vec<u8> = (0..number * 40_000).map(|index| (index * (number + 1) % 251) as u8).collect();
            let request = Request::post("/echo").body(RequestBody::whole(Bytes::from(sent.clone()))).unwrap();
            let response = forwarding.send(request).await.unwrap();
            let received = soon(response.into_body().collect()).await.unwrap();
            assert_eq!(received.trailers().unwrap()["x-length"], sent.len().to_string().as_str());
            assert!(received.to_bytes() == sent, "body {number}");
        }
    });
    futures_joined(exchanges.collect()).await;
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_response_that_is_not_read_holds_up_no_other() {
    let upstream = answering(100, |_, (_, respond)| async move {
        let mut stream = begin(respond, Response::new(())).unwrap();
        stream.send_data(Bytes::from(vec![7; 1 << 20]), true).unwrap();
    })
    .await;
    let forwarding = Forwarding::new(&to_http2(upstream.address()));
    let mut unread = Vec::new();
    for _ in 0..60 {
        unread.push(forwarding.send(request("GET", "/")).await.unwrap());
    }
    assert_eq!(forwarding.get("/").await.unwrap().len(), 1 << 20);
    for response in unread {
        assert_eq!(soon(response.into_body().collect()).await.unwrap().to_bytes().len(), 1 << 20);
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn an_unused_connection_is_closed() {
    let (upstream, _heads) = remembering("soon unused").await;
    let config = config::Upstream { idle_timeout: Duration::from_millis(100), ..to_http2(upstream.address()) };
    let forwarding = Forwarding::new(&config);
    forwarding.get("/").await.unwrap();
    forwarding.open_connections(0).await;
    forwarding.get("/").await.unwrap();
    assert_eq!(upstream.connections(), 2);
}

/// A server for `localhost` that takes what the handshake offers, and answers with the protocol's name.
async fn either(authority: &Authority) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(authority.server(&["h2", "http/1.1"])));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((_, respond))) = connection.accept().await {
                        say(respond, "2");
                    }
                } else {
                    let mut head = vec![0; 4096];
                    while stream.read(&mut head).await.is_ok_and(|length| length > 0) {
                        let switches = String::from_utf8_lossy(&head).contains("upgrade: echo");
                        let switched = "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
                        let plain = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n1.1";
                        stream.write_all(if switches { switched } else { plain }.as_bytes()).await.unwrap();
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn the_handshake_chooses_and_requests_to_switch_protocols_go_by_http_1() {
    let authority = Authority::new();
    let address = either(&authority).await;
    let url = config::Origin { tls: true, host: "localhost".to_owned(), port: address.port() };
    let config = config::Upstream { url, ca: Some(authority.file()), ..to(address) };
    let forwarding = Forwarding::new(&config);
    assert_eq!(forwarding.get("/").await.unwrap(), "2");
    let upgrade = Request::get("/").header("connection", "upgrade").header("upgrade", "echo");
    let switched = forwarding.send(upgrade.body(RequestBody::default()).unwrap()).await.unwrap();
    assert_eq!(switched.status(), 101);
    assert_eq!(forwarding.get("/").await.unwrap(), "2");
    forwarding.open_connections(2).await;

    let off = Forwarding::new(&config::Upstream { http2: config::Http2::Off, ..config });
    assert_eq!(off.get("/").await.unwrap(), "1.1");
}

#[tokio::test]
async fn an_upstream_that_declines_is_spoken_to_by_http_1_over_kept_connections() {
    let authority = Authority::new();
    let acceptor = TlsAcceptor::from(Arc::new(authority.server(&["http/1.1"])));
    let upstream = RawUpstream::start(move |_, connection| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(connection.stream).await.unwrap();
            while stream.read(&mut [0; 4096]).await.is_ok_and(|length| length > 0) {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n1.1").await.unwrap();
            }
        }
    })
    .await;
    let url = config::Origin { tls: true, host: "localhost".to_owned(), port: upstream.address().port() };
    let forwarding = Forwarding::new(&config::Upstream { url, ca: Some(authority.file()), ..to(upstream.address()) });
    for _ in 0..5 {
        assert_eq!(forwarding.get("/").await.unwrap(), "1.1");
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_stream_that_nobody_wants_any_more_is_reset_and_its_neighbours_live() {
    let (told, mut resets) = tokio::sync::mpsc::unbounded_channel();
    let upstream = RawUpstream::start(move |_, connection| {
        let told = told.clone();
        async move {
            let mut connection = admitting(100, connection.stream).await;
            while let Some(Ok((_, respond))) = connection.accept().await {
                let told = told.clone();
                tokio::spawn(async move {
                    let mut stream = begin(respond, Response::new(())).unwrap();
                    stream.send_data(Bytes::from_static(b"begun"), false).unwrap();
                    let reset = std::future::poll_fn(|context| stream.poll_reset(context)).await;
                    let _ = told.send(reset.unwrap());
                });
            }
        }
    })
    .await;
    let forwarding = Forwarding::new(&to_http2(upstream.address()));
    let mut neighbour = forwarding.send(request("GET", "/")).await.unwrap();
    drop(forwarding.send(request("GET", "/")).await.unwrap());
    assert_eq!(soon(resets.recv()).await.unwrap(), h2::Reason::CANCEL);
    let piece = soon(neighbour.body_mut().frame()).await.unwrap().unwrap();
    assert_eq!(piece.into_data().unwrap(), "begun");
    assert!(resets.try_recv().is_err());
}

//! Requests, bodies, panics and tunnels over one listener.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use cxgate::{body::Fault, stream::Switching};
use http_body_util::{BodyExt, Empty};
use hyper::{Response, StatusCode, header::UPGRADE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    listening::{Listening, text, wide},
    raw_client::RawClient,
    soon,
};

#[tokio::test]
async fn requests_follow_each_other_on_one_connection() {
    let listening = Listening::echoing_path(wide());
    let mut client = RawClient::connect(listening.address).await;
    for path in ["/a", "/b", "/c"] {
        let response = client.get(path).await;
        assert_eq!((response.status, response.text()), (200, path));
    }
    client.send("GET /d HTTP/1.1\r\nhost: test\r\n\r\nGET /e HTTP/1.1\r\nhost: test\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "/d");
    assert_eq!(client.response().await.text(), "/e", "a pipelined request is answered in its turn");
    assert_eq!(listening.metric(r#"cxgate_connections{listener="proxy"}"#), 1);
}

#[tokio::test]
async fn the_handler_sees_the_peer() {
    let shutdown = cxgate::shutdown::Shutdown::default();
    let listener = cxgate::serve::Listener::bind("[::]:0".parse().unwrap(), false).unwrap();
    let port = listener.local_address().unwrap().port();
    let counts = cxgate::serve::ListenerMetrics::new(&cxgate::metrics::Metrics::default(), "proxy");
    let handler = |peer: cxgate::peer::Peer, _| async move { text(peer.address.to_string()) };
    shutdown.spawn(cxgate::serve::serve(listener, wide(), handler, counts, shutdown.clone()));
    let mut client = RawClient::connect(([127, 0, 0, 1], port).into()).await;
    let local = client.stream.local_addr().unwrap();
    assert_eq!(client.get("/").await.text(), local.to_string(), "an IPv4 peer of an IPv6 socket has its IPv4 address");
    shutdown.stop();
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it_when_its_body_is_wanted() {
    let listening = Listening::start(wide(), |request| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        text(String::from_utf8(body.to_vec()).unwrap())
    });
    let mut client = RawClient::connect(listening.address).await;
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.head().await.0, 100);
    client.send("hello").await;
    assert_eq!(client.response().await.text(), "hello");
}

#[tokio::test]
async fn a_panic_costs_its_request_and_nothing_else() {
    let listening = Listening::start(wide(), |request| {
        assert!(request.uri().path() != "/call", "before the future is there");
        async move {
            assert!(request.uri().path() != "/poll", "while it runs");
            text("fine")
        }
    });
    for path in ["/call", "/poll"] {
        let mut client = RawClient::connect(listening.address).await;
        let response = client.get(path).await;
        assert_eq!((response.status, response.text()), (500, r#"{"error":"internal_error"}"#));
        assert_eq!(response.field("x-request-id").map(str::len), Some(32));
        assert_eq!(RawClient::connect(listening.address).await.get("/").await.text(), "fine");
    }
    assert_eq!(listening.metric("cxgate_panics_total"), 2);
}

#[tokio::test]
async fn a_body_fails_for_the_reason_the_client_gave() {
    let caps = cxgate::serve::Caps { max_body_bytes: 8, body_idle_timeout: Duration::from_millis(100), ..wide() };
    let chunked = "POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
    for (body, fault) in [
        ("9\r\n123456789\r\n0\r\n\r\n", Fault::TooLarge),
        ("5\r\n12345\r\n5\r\n12345\r\n0\r\n\r\n", Fault::TooLarge),
        ("zz\r\n", Fault::Broken),
        ("5\r\n123456789", Fault::Broken),
        ("5\r\n123", Fault::Stalled),
    ] {
        let faults = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&faults);
        let listening = Listening::start(caps.clone(), move |request| {
            let seen = Arc::clone(&seen);
            async move {
                let handle = request.body().fault_handle();
                assert_eq!(request.into_body().collect().await.map(|_| ()).unwrap_err(), fault);
                seen.lock().unwrap().push(handle.get());
                text("told")
            }
        });
        let mut client = RawClient::connect(listening.address).await;
        client.send(format!("{chunked}{body}")).await;
        assert_eq!(client.response().await.text(), "told", "{body:?}");
        assert_eq!(*faults.lock().unwrap(), [Some(fault)], "{body:?}");
    }
}

#[tokio::test]
async fn a_response_body_that_fails_resets_the_connection() {
    let listening = Listening::start(wide(), |_| async {
        let frames = [Ok("some".into()), Err("broken")].map(|piece: Result<Bytes, &str>| piece);
        Response::new(Pieces(frames.to_vec()))
    });
    let mut client = RawClient::connect(listening.address).await;
    client.send("GET / HTTP/1.0\r\nhost: test\r\n\r\n").await;
    let (_, in_order) = client.rest().await;
    assert!(!in_order, "a body whose end is the connection's end must not end in order");
}

#[tokio::test]
async fn an_upgraded_connection_is_a_tunnel() {
    let listening = Listening::start(wide(), |mut request| async move {
        let switching = Switching::take(request.extensions_mut()).unwrap();
        tokio::spawn(async move {
            let mut tunnel = switching.tunnel().await.unwrap();
            let mut word = [0; 4];
            tunnel.read_exact(&mut word).await.unwrap();
            tunnel.write_all(&word).await.unwrap();
            tunnel.shutdown().await.unwrap();
        });
        let switching = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(UPGRADE, "echo");
        switching.header("connection", "upgrade").body(Empty::<Bytes>::new()).unwrap()
    });
    let mut client = RawClient::connect(listening.address).await;
    client.send("GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await;
    assert_eq!(client.head().await.0, 101);
    client.send("ping").await;
    let (echoed, in_order) = soon(client.rest()).await;
    assert_eq!((echoed.as_slice(), in_order), (b"ping".as_slice(), true));
}

/// A body of given pieces.
struct Pieces(Vec<Result<Bytes, &'static str>>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, &'static str>>> {
        let next = (!self.0.is_empty()).then(|| self.0.remove(0));
        std::task::Poll::Ready(next.map(|piece| piece.map(http_body::Frame::data)))
    }
}

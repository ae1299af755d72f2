//! A request means by HTTP/2 what it means by HTTP/1.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode};

use crate::support::{
    http2::{self, Frames, HEADERS, RST_STREAM, WHOLE, fields, frame, plain_client},
    listening::{Listening, wide},
    raw_client::RawClient,
    soon,
    stub_upstream::StubUpstream,
    test_gate::TestGate,
};

const CHAT: &str = "/api/v2/engage/webchat";

fn with_h2c(upstream: &StubUpstream) -> TestGate {
    TestGate::start(upstream.address, |config| config.listen.h2c = true)
}

#[tokio::test]
async fn requests_reach_the_upstream_as_they_would_by_http1() {
    let upstream = StubUpstream::start().await;
    let gate = with_h2c(&upstream);
    let mut client = plain_client(gate.proxy).await;
    let request = Request::post(format!("http://Chat.example:8080{CHAT}/a%2Db?x=%41&y"))
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("te", "trailers")
        .header("content-type", "text/plain")
        .body(Full::from("hello"))
        .unwrap();
    let answer = http2::whole(soon(client.send_request(request)).await.unwrap()).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, r#"{"ok":true}"#));
    assert_eq!(answer.header("x-ratelimit-limit"), "10");
    let seen = &upstream.seen()[0];
    assert_eq!(seen.target, format!("{CHAT}/a%2Db?x=%41&y"));
    assert_eq!(seen.body, "hello");
    let field = |name: &str| seen.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(field("cookie"), ["a=1; b=2"]);
    assert_eq!(field("x-forwarded-host"), ["Chat.example:8080"]);
    assert_eq!(field("x-forwarded-proto"), ["http"]);
    assert_eq!(field("host"), [upstream.address.to_string()]);
    assert_eq!(field("content-length"), ["5"]);
    assert_eq!(field("te"), Vec::<&str>::new());
}

#[tokio::test]
async fn a_host_that_contradicts_the_authority_is_refused() {
    let upstream = StubUpstream::start().await;
    let gate = with_h2c(&upstream);
    let mut client = plain_client(gate.proxy).await;
    for (hosts, status) in [(&["localhost"][..], 200), (&["other"], 400), (&["localhost", "localhost"], 400)] {
        let request =
            hosts.iter().fold(Request::get(format!("http://localhost{CHAT}")), |head, host| head.header("host", *host));
        let answer = soon(client.send_request(request.body(Full::<Bytes>::default()).unwrap())).await.unwrap();
        assert_eq!(answer.status(), status, "{hosts:?}");
    }
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn what_http2_forbids_is_reset_and_reaches_nobody() {
    const PROTOCOL_ERROR: [u8; 4] = [0, 0, 0, 1];
    let upstream = StubUpstream::start().await;
    let gate = with_h2c(&upstream);
    for forbidden in [
        ("connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("X-Upper", "1"),
        (":path", "/twice"),
        ("content-length", "5"),
    ] {
        let mut client = Frames::connect(gate.proxy).await;
        let head = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", CHAT), forbidden];
        client.send(&frame(HEADERS, WHOLE, 1, &fields(&head))).await.unwrap();
        let refused = loop {
            match client.next().await {
                Some((RST_STREAM | http2::GOAWAY, _, payload)) => break payload.ends_with(&PROTOCOL_ERROR),
                Some((HEADERS, ..)) => break false,
                Some(_) => {}
                None => break true,
            }
        };
        assert!(refused, "{forbidden:?}");
    }
    assert_eq!(upstream.seen().len(), 0);
}

#[tokio::test]
async fn refusals_are_answers_and_the_connection_goes_on() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        config.listen.h2c = true;
        config.listen.max_body_bytes = 4;
    });
    let mut client = plain_client(gate.proxy).await;
    for _ in 0..2 {
        let request = Request::post(format!("http://localhost{CHAT}")).body(Full::from("too large")).unwrap();
        let answer = http2::whole(soon(client.send_request(request)).await.unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (413, r#"{"error":"body_too_large"}"#));
    }
    let answer = http2::whole(soon(client.send_request(http2::get("/elsewhere"))).await.unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (404, r#"{"error":"no_route"}"#));
    assert_eq!([answer.header("content-type"), answer.header("cache-control")], ["application/json", "no-store"]);
    assert_eq!(answer.header("x-request-id").len(), 32);
    let huge = Request::get(format!("http://localhost{CHAT}")).header("x-huge", "a".repeat(40_000));
    let answer = soon(client.send_request(huge.body(Full::default()).unwrap())).await.unwrap();
    assert_eq!(answer.status().as_u16(), 431);
    assert_eq!(soon(client.send_request(http2::get(CHAT))).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_response_that_breaks_off_is_a_reset_stream_and_never_a_short_body() {
    let listening = Listening::http2(wide(), |_| async move { Response::new(Half { sent: false }) });
    let mut client = plain_client(listening.address).await;
    let whole = async { client.send_request(http2::get("/")).await?.into_body().collect().await };
    assert!(soon(whole).await.is_err());
}

#[tokio::test]
async fn http1_is_spoken_beside_http2_without_tls() {
    let upstream = StubUpstream::start().await;
    let gate = with_h2c(&upstream);
    let mut client = RawClient::connect(gate.proxy).await;
    // The first byte could be either's.
    client.send("P").await;
    client.send(format!("OST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")).await;
    assert_eq!(client.response().await.status, 200);
}

/// A body that breaks off.
struct Half {
    sent: bool,
}

impl Body for Half {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        let broken = std::mem::replace(&mut self.sent, true);
        Poll::Ready(Some(if broken { Err(std::io::ErrorKind::BrokenPipe.into()) } else { Ok(Frame::data("half".into())) }))
    }
}

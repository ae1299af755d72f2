//! What answers look like on the wire, and what becomes of a connection whose request was not heard out.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use cxgate::stream::Switching;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper::{Response, StatusCode, ext::ReasonPhrase, header::CONTENT_LENGTH};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::support::{
    listening::{Listening, text, wide},
    raw_client::RawClient,
    soon,
};

/// Pieces of a body whose length is not told.
struct Pieces(Vec<&'static str>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.pop().map(|piece| Ok(Frame::data(piece.into()))))
    }
}

/// All that a connection is answered to its end, but for dates.
async fn answered(listening: &Listening, request: String) -> String {
    let mut client = RawClient::connect(listening.address).await;
    client.send(request).await;
    let (received, in_order) = client.rest().await;
    let received = String::from_utf8(received).unwrap();
    assert!(in_order && received.matches("date: ").count() == 1, "{received}");
    received.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
}

#[tokio::test]
async fn an_answer_is_framed_as_the_request_and_its_status_have_it() {
    let listening = Listening::start(wide(), |request| async move {
        let answer = Response::builder().status(request.uri().query().unwrap_or("200"));
        let whole = |text: &'static str| Full::from(text).boxed();
        let answer = match request.uri().path() {
            "/pieces" => answer.body(Pieces(vec!["d", "", "abc"]).boxed()),
            "/announced" => answer.header(CONTENT_LENGTH, 3).body(Pieces(vec!["d", "abc"]).boxed()),
            "/nothing" => answer.header(CONTENT_LENGTH, 7).body(whole("")),
            "/reason" => answer.extension(ReasonPhrase::from_static(b"Well, well")).body(whole("abc")),
            _ => answer.header("transfer-encoding", "gzip").header("trailer", "x").body(whole("abc")),
        };
        answer.unwrap()
    });
    let chunks = "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
    for (request, head, rest) in [
        ("GET / HTTP/1.1", "1.1 200 OK", "content-length: 3\r\n\r\nabc"),
        ("GET /reason HTTP/1.1", "1.1 200 Well, well", "content-length: 3\r\n\r\nabc"),
        ("GET /?404 HTTP/1.1", "1.1 404 Not Found", "content-length: 3\r\n\r\nabc"),
        ("GET /nothing HTTP/1.1", "1.1 200 OK", "content-length: 0\r\n\r\n"),
        ("GET /pieces HTTP/1.1", "1.1 200 OK", chunks),
        ("GET /announced HTTP/1.1", "1.1 200 OK", "content-length: 3\r\n\r\nabc"),
        ("GET /?204 HTTP/1.1", "1.1 204 No Content", "\r\n"),
        ("GET /pieces?304 HTTP/1.1", "1.1 304 Not Modified", "\r\n"),
        ("HEAD / HTTP/1.1", "1.1 200 OK", "content-length: 3\r\n\r\n"),
        ("HEAD /announced HTTP/1.1", "1.1 200 OK", "content-length: 3\r\n\r\n"),
        ("HEAD /nothing HTTP/1.1", "1.1 200 OK", "content-length: 7\r\n\r\n"),
        ("HEAD /pieces HTTP/1.1", "1.1 200 OK", "\r\n"),
        ("GET / HTTP/1.0", "1.0 200 OK", "content-length: 3\r\n\r\nabc"),
        ("GET /pieces HTTP/1.0", "1.0 200 OK", "\r\nabcd"),
    ] {
        let got = answered(&listening, format!("{request}\r\nhost: test\r\nconnection: close\r\n\r\n")).await;
        // In HTTP/1.0 it goes without saying.
        assert_eq!(got.contains("connection: close\r\n"), head.starts_with("1.1"), "{request}");
        let got = got.replace("connection: close\r\n", "");
        assert_eq!(got, format!("HTTP/{head}\r\n{rest}"), "{request}");
    }
}

#[tokio::test]
async fn an_older_client_may_ask_again_where_it_is_told_so() {
    let listening = Listening::echoing_path(wide());
    let mut client = RawClient::connect(listening.address).await;
    for path in ["/a", "/b"] {
        client.send(format!("GET {path} HTTP/1.0\r\nhost: test\r\nconnection: keep-alive\r\n\r\n")).await;
        let answer = client.response().await;
        assert_eq!((answer.text(), answer.field("connection")), (path, Some("keep-alive")));
    }
}

#[tokio::test]
async fn a_body_shorter_than_announced_breaks_its_answer_off() {
    let listening = Listening::start(wide(), |_| async {
        Response::builder().header(CONTENT_LENGTH, 9).body(Pieces(vec!["d", "abc"])).unwrap()
    });
    let mut client = RawClient::connect(listening.address).await;
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    assert!(!client.rest().await.1, "it must not end in order");
}

#[tokio::test]
async fn a_body_that_nobody_reads_ends_its_connection_unless_it_has_come() {
    let listening = Listening::start(wide(), |_| async { text("no, thank you") });
    let post = |length: &str| format!("POST / HTTP/1.1\r\nhost: test\r\n{length}\r\n\r\n");
    for body in ["content-length: 5\r\n\r\nhello", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"] {
        let mut client = RawClient::connect(listening.address).await;
        for _ in 0..2 {
            client.send(format!("POST / HTTP/1.1\r\nhost: test\r\n{body}")).await;
            assert_eq!(client.response().await.field("connection"), None, "{body:?}");
        }
    }
    for body in ["content-length: 5", "transfer-encoding: chunked", "content-length: 5\r\nexpect: 100-continue"] {
        let mut client = RawClient::connect(listening.address).await;
        client.send(post(body)).await;
        let answer = client.response().await;
        assert_eq!((answer.status, answer.field("connection")), (200, Some("close")), "{body:?}");
        assert_eq!(client.rest().await, (Vec::new(), true), "{body:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_is_not_worked_for() {
    let (entered, left) = (Arc::new(Notify::new()), CancellationToken::new());
    let (arrived, leaving) = (Arc::clone(&entered), left.clone());
    let listening = Listening::start(wide(), move |_| {
        let (arrived, leaving) = (Arc::clone(&arrived), leaving.clone().drop_guard());
        async move {
            arrived.notify_one();
            std::future::pending::<()>().await;
            drop(leaving);
            text("never")
        }
    });
    let mut client = RawClient::connect(listening.address).await;
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    soon(entered.notified()).await;
    drop(client);
    soon(left.cancelled()).await;
}

#[tokio::test]
async fn a_client_that_speaks_before_it_is_let_into_a_tunnel_gets_none() {
    let listening = Listening::start(wide(), |mut request| async move {
        let switching = Switching::take(request.extensions_mut()).unwrap();
        tokio::spawn(async move { assert!(switching.tunnel().await.is_err(), "it was let in") });
        Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).body(Full::<Bytes>::default()).unwrap()
    });
    let mut client = RawClient::connect(listening.address).await;
    client.send("GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nearly").await;
    assert_eq!(client.response().await.status, 400);
    assert_eq!(client.rest().await, (Vec::new(), true));
}

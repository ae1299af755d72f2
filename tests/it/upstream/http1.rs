//! Responses of HTTP/1 in every framing: what a caller gets of them, and whether their connection serves another request.

use cxgate::upstream::{ResponseFault, UpstreamError};
use http_body_util::BodyExt;
use hyper::ext::ReasonPhrase;

use crate::support::{
    forwarding::{Forwarding, request, to},
    raw_upstream::RawUpstream,
    soon,
};

/// Answers the first request of the first connection with `answer`, and all that follow with "next". The first connection
/// ends after `answer` where `closes` says so.
async fn answering_first(answer: String, closes: bool) -> RawUpstream {
    RawUpstream::start(move |number, mut connection| {
        let answer = answer.clone();
        async move {
            if number == 0 {
                connection.request().await;
                connection.send(answer).await;
                if closes {
                    return;
                }
            }
            while connection.request().await.is_some() {
                connection.answer("next").await;
            }
        }
    })
    .await
}

/// A response that comes through: method, answer, body, and whether its connection serves another request.
#[tokio::test]
async fn a_response_ends_where_its_framing_says_and_its_connection_serves_on_where_that_is_certain() {
    let long = "a".repeat(200_000);
    let cases = [
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned(), "ok", true),
        ("GET", format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{long}", long.len()), long.as_str(), true),
        (
            "GET",
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n", long.len()),
            &long,
            true,
        ),
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(), "", true),
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n".to_owned(), "", true),
        ("HEAD", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(), "", true),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n".to_owned(), "", true),
        ("GET", "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n".to_owned(), "", true),
        ("GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned(), "ok", true),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n".to_owned(), "ok", true),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2 ;a=\"b\"\r\nok\r\n0;c\r\n\r\n".to_owned(),
            "ok",
            true,
        ),
        ("GET", "HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 2\r\n\r\nok".to_owned(), "ok", false),
        ("GET", "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned(), "ok", false),
        ("GET", "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok".to_owned(), "ok", true),
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok and more".to_owned(), "ok", false),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\nbut words".to_owned(), "", false),
    ];
    for (method, answer, expected, serves_on) in cases {
        let upstream = answering_first(answer.clone(), false).await;
        let forwarding = Forwarding::new(&to(upstream.address()));
        let response = forwarding.send(request(method, "/")).await.unwrap();
        let body = soon(response.into_body().collect()).await.unwrap().to_bytes();
        assert!(body == expected.as_bytes(), "{answer:.80}: a body of {} bytes", body.len());
        assert_eq!(forwarding.get("/").await.unwrap(), "next");
        assert_eq!(upstream.connections(), if serves_on { 1 } else { 2 }, "{answer:.80}");
    }
}

#[tokio::test]
async fn a_body_without_a_length_ends_with_its_connection() {
    let upstream = answering_first("HTTP/1.1 200 OK\r\n\r\nall of it".to_owned(), true).await;
    let forwarding = Forwarding::new(&to(upstream.address()));
    assert_eq!(forwarding.get("/").await.unwrap(), "all of it");
    assert_eq!(forwarding.get("/").await.unwrap(), "next");
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn trailers_and_words_of_the_status_line_come_through() {
    let answer = "HTTP/1.1 299 Quite Fine\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 17\r\n\r\n";
    let upstream = answering_first(answer.to_owned(), false).await;
    let forwarding = Forwarding::new(&to(upstream.address()));
    let response = forwarding.send(request("GET", "/")).await.unwrap();
    assert_eq!(response.extensions().get::<ReasonPhrase>().unwrap().as_bytes(), b"Quite Fine");
    let whole = soon(response.into_body().collect()).await.unwrap();
    assert_eq!(whole.trailers().unwrap()["x-sum"], "17");
    assert_eq!(forwarding.get("/").await.unwrap(), "next");
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn an_ambiguous_head_is_refused_and_a_bad_chunk_ends_the_body() {
    for head in [
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nok",
    ] {
        let upstream = answering_first(head.to_owned(), false).await;
        let outcome = Forwarding::new(&to(upstream.address())).send(request("GET", "/")).await;
        assert!(matches!(outcome, Err(UpstreamError::Protocol(_))), "{head:?}");
    }
    for chunks in [
        "2\r\nokay\r\n0\r\n\r\n",
        "-2\r\nok\r\n",
        "2\r\nok\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "0\r\ncontent-length: 1\r\n\r\n",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
        let upstream = answering_first(answer, false).await;
        let forwarding = Forwarding::new(&to(upstream.address()));
        let response = forwarding.send(request("GET", "/")).await.unwrap();
        let fault = soon(response.into_body().collect()).await.map(drop).unwrap_err();
        assert_eq!(fault, ResponseFault::Truncated, "{chunks:?}");
        assert_eq!(forwarding.get("/").await.unwrap(), "next");
        assert_eq!(upstream.connections(), 2, "{chunks:?}");
    }
}

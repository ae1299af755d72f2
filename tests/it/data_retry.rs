//! A request is sent again where that may help and can do no harm, under one charge, and never for nobody.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use cxgate::config::{Config, Retry};
use http_body_util::Full;
use hyper::{Method, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use crate::support::{
    http::{get, get_as, send},
    soon,
    stub_upstream::StubUpstream,
    test_gate::TestGate,
    until,
};

const PATH: &str = "/api/v2/engage/webchat";

fn retry() -> Retry {
    Retry {
        attempts: 3,
        base: Duration::from_millis(1),
        max: Duration::from_millis(2),
        on: vec![429, 500, 502, 503, 504],
        deadline: Duration::from_secs(30),
        replay_bytes: 16,
    }
}

fn retrying(config: &mut Config) {
    config.routes[0].retry = Some(retry());
}

fn answer(status: u16, retry_after: Option<&str>) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status);
    let response = retry_after.into_iter().fold(response, |response, value| response.header("retry-after", value));
    response.body("answer".into()).unwrap()
}

/// Answers with these statuses in turn, and with the last one from then on.
async fn in_turn(statuses: &'static [u16]) -> StubUpstream {
    let next = AtomicUsize::new(0);
    StubUpstream::answering(move |_| answer(statuses[next.fetch_add(1, Ordering::SeqCst).min(statuses.len() - 1)], None))
        .await
}

#[tokio::test]
async fn a_429_then_a_503_then_a_200_is_a_200_with_three_attempts_and_one_charge() {
    let upstream = in_turn(&[429, 503, 200]).await;
    let gate = TestGate::start(upstream.address, retrying);
    let answered = get_as(gate.proxy, PATH, "a").await;
    assert_eq!(answered.status, 200);
    assert_eq!(upstream.seen().len(), 3);
    assert_eq!(answered.header("x-ratelimit-remaining"), "9");
    assert_eq!(gate.count(r#"cxgate_retries_total{route="guest-webchat",result="sent"}"#).await, 2);
    assert_eq!(gate.count(r#"cxgate_refunds_total{route="guest-webchat"}"#).await, 0);
}

#[tokio::test]
async fn the_last_answer_goes_to_the_caller_as_it_came() {
    let upstream = in_turn(&[503]).await;
    let gate = TestGate::start(upstream.address, retrying);
    let answered = get_as(gate.proxy, PATH, "a").await;
    assert_eq!((answered.status.as_u16(), answered.text()), (503, "answer"));
    assert_eq!(upstream.seen().len(), 3);
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_twice() {
    for (method, status, attempts) in [
        (Method::GET, 500, 3),
        (Method::PUT, 502, 3),
        (Method::POST, 500, 1),
        (Method::POST, 503, 3),
        (Method::PATCH, 429, 3),
        (Method::GET, 404, 1),
    ] {
        let upstream = StubUpstream::answering(move |_| answer(status, None)).await;
        let gate = TestGate::start(upstream.address, retrying);
        assert_eq!(send(gate.proxy, method.clone(), PATH, &[], "").await.status, status);
        assert_eq!(upstream.seen().len(), attempts, "{method} {status}");
    }
}

#[tokio::test]
async fn a_body_is_sent_again_only_if_it_fits() {
    for (body, attempts) in [("", 3), ("sixteen bytes ok", 3), ("seventeen bytes !", 1)] {
        let upstream = in_turn(&[503, 503, 200]).await;
        let gate = TestGate::start(upstream.address, retrying);
        send(gate.proxy, Method::POST, PATH, &[], body).await;
        let seen = upstream.seen();
        assert_eq!(seen.len(), attempts, "{body:?}");
        assert!(seen.iter().all(|seen| seen.body == body), "{body:?}");
    }
}

#[tokio::test]
async fn a_chunked_body_is_sent_again_whole_or_once() {
    for (pieces, attempts) in [(&["abc", "defg"][..], 2), (&["nine byte", "and eight"], 1)] {
        let upstream = in_turn(&[503, 200]).await;
        let gate = TestGate::start(upstream.address, retrying);
        let mut client = TcpStream::connect(gate.proxy).await.unwrap();
        let head = format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
        let chunks = pieces.iter().map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len())).collect::<Vec<_>>().concat();
        client.write_all(format!("{head}{chunks}0\r\n\r\n").as_bytes()).await.unwrap();
        soon(client.read_to_end(&mut Vec::new())).await.unwrap();
        let seen = upstream.seen();
        assert_eq!(seen.len(), attempts, "{pieces:?}");
        assert!(seen.iter().all(|seen| seen.body == pieces.concat()), "{seen:?}");
    }
}

#[tokio::test]
async fn a_body_that_was_still_coming_when_the_upstream_refused_is_sent_again_from_its_beginning() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gate = TestGate::start(listener.local_addr().unwrap(), retrying);
    let mut client = TcpStream::connect(gate.proxy).await.unwrap();
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\nConnection: close\r\n\r\n");
    client.write_all(format!("{head}half").as_bytes()).await.unwrap();
    let (mut first, _) = soon(listener.accept()).await.unwrap();
    read_to(&mut first, "\r\n\r\nhalf").await;
    first.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    let (mut second, _) = soon(listener.accept()).await.unwrap();
    client.write_all(b"rest").await.unwrap();
    read_to(&mut second, "\r\n\r\nhalfrest").await;
    second.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

async fn read_to(stream: &mut TcpStream, end: &str) {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        read.push(soon(stream.read_u8()).await.unwrap());
    }
}

#[tokio::test]
async fn an_upstream_that_was_away_is_tried_again_whatever_the_method() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gate = TestGate::start(closed, retrying);
    assert_eq!(send(gate.proxy, Method::POST, PATH, &[], "payload").await.status, 502);
    assert_eq!(gate.count(r#"cxgate_upstream_requests_total{upstream="cxone",result="connect"}"#).await, 3);
}

#[tokio::test]
async fn a_retry_after_is_waited_for_in_all_its_forms() {
    let in_two_seconds = || httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(2));
    // A date is whole seconds, so the wait may fall short of it by up to one.
    for (form, at_least) in [(Some("0.3"), 300), (Some("1"), 1000), (None, 900)] {
        let count = AtomicUsize::new(0);
        let upstream = StubUpstream::answering(move |_| match count.fetch_add(1, Ordering::SeqCst) {
            0 => answer(429, Some(&form.map_or_else(in_two_seconds, str::to_owned))),
            _ => answer(200, None),
        })
        .await;
        let gate = TestGate::start(upstream.address, retrying);
        let began = Instant::now();
        assert_eq!(get_as(gate.proxy, PATH, "a").await.status, 200);
        assert!(began.elapsed() >= Duration::from_millis(at_least), "{at_least}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_retry_after_beyond_the_deadline_goes_to_the_caller_at_once() {
    let upstream = StubUpstream::answering(|_| answer(429, Some("3600"))).await;
    let gate = TestGate::start(upstream.address, retrying);
    let answered = soon(get_as(gate.proxy, PATH, "a")).await;
    assert_eq!((answered.status.as_u16(), answered.header("retry-after"), answered.text()), (429, "3600", "answer"));
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_the_retries() {
    let upstream = StubUpstream::answering(|_| answer(503, Some("0.5"))).await;
    let gate = TestGate::start(upstream.address, |config| {
        config.routes[0].retry = Some(Retry { attempts: 4, ..retry() });
    });
    let mut client = TcpStream::connect(gate.proxy).await.unwrap();
    client.write_all(format!("GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    until(async || upstream.seen().len() == 1).await;
    drop(client);
    until(async || gate.metric("cxgate_http_requests_in_flight").await == "0").await;
    let tries = upstream.seen().len();
    assert!(tries < 4, "{tries}");
    // Another caller's tries take longer than one wait: those of the one that went away would be seen meanwhile.
    get_as(gate.proxy, PATH, "b").await;
    assert_eq!(upstream.seen().len(), tries + 4);
}

#[tokio::test]
async fn an_outage_is_not_multiplied() {
    let upstream = in_turn(&[503]).await;
    let gate = TestGate::start(upstream.address, |config| {
        retrying(config);
        config.routes[0].limits.clear();
    });
    let requests = 50;
    for _ in 0..requests {
        assert_eq!(get_as(gate.proxy, PATH, "a").await.status, 503);
    }
    let retries = upstream.seen().len() - requests;
    let windows = 3;
    assert!((10..=windows * (10 + requests / 5)).contains(&retries), "{retries}");
    assert!(gate.count(r#"cxgate_retries_total{route="guest-webchat",result="withheld"}"#).await > 0);
}

#[tokio::test]
async fn a_route_without_retry_sends_once() {
    let upstream = in_turn(&[503, 200]).await;
    let gate = TestGate::start(upstream.address, |_| ());
    assert_eq!(get_as(gate.proxy, PATH, "a").await.status, 503);
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_handshake_is_sent_once() {
    let upstream = in_turn(&[503, 200]).await;
    let gate = TestGate::start(upstream.address, retrying);
    assert_eq!(get(gate.proxy, PATH, &[("connection", "upgrade"), ("upgrade", "websocket")]).await.status, 503);
    let [seen] = &upstream.seen()[..] else { panic!("one try") };
    assert_eq!(seen.headers["upgrade"], "websocket");
}

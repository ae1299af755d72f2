//! What one HTTP/2 connection may cost in time and in requests, and how it ends.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use cxgate::serve::Caps;
use http_body::{Body, Frame};
use http_body_util::{Either, Full};
use hyper::Response;
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    sync::{Notify, Semaphore},
};

use crate::support::{
    http2::{
        self, DATA, Frames, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WHOLE, WINDOW_UPDATE, frame, get_fields,
        plain_client,
    },
    listening::{Listening, text, wide},
    soon, until,
};

const SHORT: Duration = Duration::from_millis(150);
const OPEN: &str = r#"cxgate_connections{listener="proxy"}"#;

#[tokio::test]
async fn a_connection_that_sends_no_request_or_no_further_one_is_told_to_go() {
    let caps = Caps { header_timeout: SHORT, idle_timeout: SHORT, ..wide() };
    let listening = Listening::http2(caps, |request| async move { text(request.uri().path()) });
    let mut preface_only = Frames::connect(listening.address).await;
    assert_eq!(preface_only.ended().await, Some(0), "GOAWAY without an error");

    let mut half_preface = TcpStream::connect(listening.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut half_preface, b"PRI * HTTP/2.0\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = soon(half_preface.read_to_end(&mut rest)).await;

    let mut once = Frames::connect(listening.address).await;
    once.send(&frame(HEADERS, WHOLE, 1, &get_fields("/once"))).await.unwrap();
    assert_eq!(once.ended().await, Some(0));
    let mut half_head = Frames::connect(listening.address).await;
    half_head.send(&frame(HEADERS, 0x1, 1, &get_fields("/never"))).await.unwrap();
    half_head.ended().await;
    until(async || listening.metric(OPEN) == 0).await;
}

#[tokio::test]
async fn a_response_that_its_client_does_not_take_is_reset_and_its_neighbours_go_on() {
    const CANCEL: [u8; 4] = [0, 0, 0, 8];
    let caps = Caps { body_idle_timeout: SHORT, ..wide() };
    let listening = Listening::http2(caps, |request| async move {
        let endless = request.uri().path() == "/endless";
        Response::new(if endless { Either::Left(Endless) } else { Either::Right(Full::<Bytes>::from("whole")) })
    });
    let mut client = Frames::connect(listening.address).await;
    client.send(&frame(HEADERS, WHOLE, 1, &get_fields("/endless"))).await.unwrap();
    // No window is opened for it again, and that of the connection only for others.
    client.send(&frame(WINDOW_UPDATE, 0, 0, &1_000_000u32.to_be_bytes())).await.unwrap();
    loop {
        match client.next().await.expect("the connection lives") {
            (RST_STREAM, 1, reason) => break assert_eq!(reason, CANCEL),
            (GOAWAY, ..) => panic!("the connection ends"),
            _ => {}
        }
    }
    client.send(&frame(HEADERS, WHOLE, 3, &get_fields("/neighbour"))).await.unwrap();
    loop {
        match client.next().await.expect("the connection lives") {
            (DATA, 3, body) if !body.is_empty() => break assert_eq!(body, b"whole"),
            (GOAWAY, ..) => panic!("the connection ends"),
            _ => {}
        }
    }
    assert_eq!(listening.metric(OPEN), 1);
}

#[tokio::test]
async fn a_client_that_takes_nothing_at_all_loses_its_connection() {
    let caps = Caps { body_idle_timeout: SHORT, ..wide() };
    let listening = Listening::http2(caps, |_| async move { Response::new(Endless) });
    let mut client = Frames::connect(listening.address).await;
    let no_window = frame(SETTINGS, 0, 0, &[&[0, 4][..], &0x7fff_ffffu32.to_be_bytes()].concat());
    client.send(&[no_window, frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000u32.to_be_bytes())].concat()).await.unwrap();
    client.send(&frame(HEADERS, WHOLE, 1, &get_fields("/"))).await.unwrap();
    until(async || listening.metric(OPEN) == 1).await;
    until(async || listening.metric(OPEN) == 0).await;
}

#[tokio::test]
async fn a_drain_sends_goaway_and_completes_what_was_begun() {
    let (release, entered) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (held, arrived) = (Arc::clone(&release), Arc::clone(&entered));
    let listening = Listening::http2(wide(), move |_| {
        let (held, arrived) = (Arc::clone(&held), Arc::clone(&arrived));
        async move {
            arrived.notify_one();
            held.notified().await;
            text("whole")
        }
    });
    let mut client = plain_client(listening.address).await;
    let mut idle = Frames::connect(listening.address).await;
    let begun = tokio::spawn(async move { http2::whole(client.send_request(http2::get("/")).await.unwrap()).await });
    soon(entered.notified()).await;
    listening.shutdown.drain();
    while idle.next().await.expect("GOAWAY").0 != GOAWAY {}
    drop(idle);
    release.notify_one();
    assert_eq!(soon(begun).await.unwrap().text(), "whole");
    soon(listening.shutdown.finished()).await;
}

#[tokio::test]
async fn one_connection_has_a_hundred_requests_in_service_and_others_are_served_meanwhile() {
    let (gate, running) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (held, count) = (Arc::clone(&gate), Arc::clone(&running));
    let listening = Listening::http2(wide(), move |request| {
        let (held, count) = (Arc::clone(&held), Arc::clone(&count));
        async move {
            if request.uri().path() == "/greedy" {
                count.add_permits(1);
                let _ = held.acquire().await;
            }
            text(request.uri().path())
        }
    });
    let greedy = plain_client(listening.address).await;
    for _ in 0..150 {
        let mut greedy = greedy.clone();
        tokio::spawn(async move { greedy.send_request(http2::get("/greedy")).await });
    }
    until(async || running.available_permits() == 100).await;
    let mut other = plain_client(listening.address).await;
    let answer = http2::whole(soon(other.send_request(http2::get("/other"))).await.unwrap()).await;
    assert_eq!(answer.text(), "/other");
    assert_eq!(running.available_permits(), 100, "the others of the greedy one wait with it");
    gate.close();
    until(async || running.available_permits() == 150).await;
}

#[tokio::test]
async fn pings_are_answered() {
    let listening = Listening::http2(wide(), |_| async move { text("") });
    let mut client = Frames::connect(listening.address).await;
    client.send(&frame(PING, 0, 0, b"8 bytes!")).await.unwrap();
    loop {
        let (kind, _, payload) = client.next().await.expect("an answer");
        if kind == PING && payload == Bytes::from_static(b"8 bytes!") {
            break;
        }
    }
}

/// A body without end.
struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 16 * 1024])))))
    }
}

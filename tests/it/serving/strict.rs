//! What cannot be read in one way ends its connection, after what came before it is answered; and one connection leaves
//! time for others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use cxgate::serve::Caps;
use http_body_util::BodyExt;
use hyper::Response;
use tokio::sync::Notify;

use crate::support::{
    listening::{Listening, text, wide},
    raw_client::RawClient,
    soon,
};

const GET: &str = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";

#[tokio::test]
async fn requests_before_a_fault_are_answered_and_none_after_it() {
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let listening = Listening::start(wide(), move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async { text("fine") }
    });
    let mut client = RawClient::connect(listening.address).await;
    // More than hyper handles at a time, and a fault at the very beginning of a head.
    client.send(format!("{}\0{GET}", GET.repeat(40))).await;
    for _ in 0..40 {
        assert_eq!(client.response().await.text(), "fine");
    }
    assert_eq!(client.response().await.status, 400);
    assert_eq!(client.rest().await, (Vec::new(), true));
    assert_eq!(served.load(Ordering::SeqCst), 40);
    assert_eq!(listening.metric(r#"cxgate_rejections_total{code="bad_request"}"#), 1);
}

#[tokio::test]
async fn a_fault_does_not_cut_off_the_request_in_service() {
    let go_on = Arc::new(Notify::new());
    let wait = Arc::clone(&go_on);
    let listening = Listening::start(wide(), move |_| {
        let wait = Arc::clone(&wait);
        async move {
            wait.notified().await;
            text("late")
        }
    });
    let mut client = RawClient::connect(listening.address).await;
    client.send(GET).await;
    client.send("\0").await;
    go_on.notify_one();
    assert_eq!(client.response().await.text(), "late");
    assert_eq!(client.response().await.status, 400);
    assert_eq!(client.rest().await, (Vec::new(), true));
}

#[tokio::test]
async fn a_fault_is_found_however_slowly_it_comes() {
    let listening = Listening::echoing_path(wide());
    for head in [
        "GET / HTTP/1.1\r\nhost: test\r\nx : y\r\n",
        "GET / HTTP/1.1\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1, 1\r\n",
    ] {
        let mut client = RawClient::connect(listening.address).await;
        for byte in head.bytes() {
            client.send([byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(client.response().await.status, 400, "{head:?}");
    }
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    let listening = Listening::start(wide(), |request| async move {
        let path = request.uri().path().to_owned();
        request.into_body().collect().await.unwrap();
        text(path)
    });
    let mut client = RawClient::connect(listening.address).await;
    let body = "POST /slow HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for byte in [body, GET].concat().bytes() {
        client.send([byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.response().await.text(), "/slow");
    assert_eq!(client.response().await.text(), "/");
}

#[tokio::test]
async fn a_fault_in_a_body_is_told_to_whoever_reads_it() {
    let listening = Listening::start(wide(), |request| async move {
        let fault = request.into_body().collect().await.map(|_| ()).unwrap_err();
        text(format!("{fault:?}"))
    });
    let mut client = RawClient::connect(listening.address).await;
    client.send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n1;x\r\na\r\n0\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "Broken");
    assert_eq!(client.rest().await, (Vec::new(), true));
}

#[tokio::test]
async fn the_other_methods_of_proxies_end_their_connection() {
    let listening = Listening::start(wide(), |_| async { Response::builder().status(405).body(String::new()).unwrap() });
    for head in ["CONNECT test:80", "TRACE /"] {
        let mut client = RawClient::connect(listening.address).await;
        client.send(format!("{head} HTTP/1.1\r\nhost: test\r\n\r\n")).await;
        assert_eq!(client.response().await.field("connection"), Some("close"));
        assert_eq!(client.rest().await, (Vec::new(), true));
    }
}

#[tokio::test]
async fn a_connection_full_of_requests_leaves_time_for_others() {
    const REQUESTS: usize = 20_000;
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let listening = Listening::start(Caps { idle_timeout: Duration::from_mins(1), ..wide() }, move |request| {
        if request.uri().path() == "/" {
            count.fetch_add(1, Ordering::SeqCst);
        }
        async { text("") }
    });
    let greedy = RawClient::connect(listening.address).await;
    let mut other = RawClient::connect(listening.address).await;
    other.get("/other").await;
    let (mut reader, mut writer) = greedy.stream.into_split();
    tokio::spawn(async move {
        let _ = tokio::io::AsyncWriteExt::write_all(&mut writer, GET.repeat(REQUESTS).as_bytes()).await;
        std::future::pending::<()>().await;
    });
    tokio::spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await });
    crate::support::until(async || served.load(Ordering::SeqCst) > 0).await;
    // All run on one thread, whose runtime looks for new events every 61 polls; a connection gets 16 requests in each.
    for _ in 0..20 {
        let before = served.load(Ordering::SeqCst);
        soon(other.get("/other")).await;
        let meanwhile = served.load(Ordering::SeqCst) - before;
        assert!(meanwhile < REQUESTS / 4, "{meanwhile} requests of one connection before one of another");
    }
    crate::support::until(async || served.load(Ordering::SeqCst) == REQUESTS).await;
}

//! Upstreams of HTTP/2 that go away, refuse or misbehave: what was not processed is sent again, and nothing else.

use std::time::Duration;

use bytes::Bytes;
use cxgate::{
    body::RequestBody,
    config,
    upstream::{ResponseFault, UpstreamError},
};
use h2::Reason;
use http_body_util::BodyExt;
use hyper::{Request, Response};

use crate::support::{
    forwarding::{Forwarding, request, to_http2},
    http2::{Frames, GOAWAY, HEADERS, PING, SETTINGS, frame},
    http2_upstream::{admitting, answering, begin, body, say},
    raw_upstream::RawUpstream,
    soon,
};

fn post(payload: &'static str) -> Request<RequestBody> {
    Request::post("/").body(RequestBody::whole(Bytes::from_static(payload.as_bytes()))).unwrap()
}

async fn text(response: Response<cxgate::upstream::ResponseBody>) -> String {
    let whole = soon(response.into_body().collect()).await.expect("a whole body").to_bytes();
    String::from_utf8(whole.to_vec()).unwrap()
}

/// Its first connection says GOAWAY to its first request, having looked at none; others answer with what they were sent.
async fn leaving() -> RawUpstream {
    RawUpstream::start(|number, connection| async move {
        if number > 0 {
            let mut connection = admitting(100, connection.stream).await;
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(async move {
                    let (sent, _) = body(request.into_body()).await;
                    let mut stream = begin(respond, Response::new(())).unwrap();
                    stream.send_data(sent.into(), true).unwrap();
                });
            }
            return;
        }
        let mut frames = Frames::accept(connection.stream).await;
        while let Some((kind, _, payload)) = frames.next().await {
            let answer = match kind {
                SETTINGS if !payload.is_empty() => frame(SETTINGS, 1, 0, b""),
                PING => frame(PING, 1, 0, &payload),
                HEADERS => frame(GOAWAY, 0, 0, &[0; 8]),
                _ => continue,
            };
            let _ = frames.send(&answer).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_request_that_an_upstream_went_away_from_unprocessed_is_sent_again_with_its_body() {
    let upstream = leaving().await;
    let forwarding = Forwarding::new(&to_http2(upstream.address()));
    let response = forwarding.send(post("payload")).await.unwrap();
    assert_eq!(text(response).await, "payload");
    assert_eq!((upstream.connections(), forwarding.ended("answered")), (2, 1));
    assert_eq!(forwarding.metric(r#"cxgate_upstream_resends_total{upstream="test"}"#), 1);
}

#[tokio::test]
async fn a_connection_that_ends_gracefully_gets_no_more_requests_and_completes_its_own() {
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let gone = std::sync::Mutex::new(Some(gone));
    let upstream = RawUpstream::start(move |number, connection| {
        let gone = gone.lock().unwrap().take();
        async move {
            let mut connection = admitting(100, connection.stream).await;
            let Some(gone) = gone else {
                while let Some(Ok((_, respond))) = connection.accept().await {
                    say(respond, "new");
                }
                return;
            };
            assert_eq!(number, 0);
            let (_, respond) = connection.accept().await.unwrap().unwrap();
            let mut stream = begin(respond, Response::new(())).unwrap();
            connection.graceful_shutdown();
            let rest = async {
                gone.await.unwrap();
                stream.send_data(Bytes::from_static(b"old"), true).unwrap();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = rest => {}
                _ = std::future::poll_fn(|context| connection.poll_closed(context)) => {}
            }
        }
    })
    .await;
    let forwarding = Forwarding::new(&to_http2(upstream.address()));
    let old = forwarding.send(request("GET", "/")).await.unwrap();
    while forwarding.metric(r#"cxgate_upstream_connections{upstream="test"}"#) < 2 {
        let asked = tokio::time::timeout(Duration::from_millis(200), forwarding.get("/")).await;
        if let Ok(answer) = asked {
            assert_eq!(answer.unwrap(), "new");
        }
    }
    go.send(()).unwrap();
    assert_eq!(text(old).await, "old");
    forwarding.open_connections(1).await;
}

#[tokio::test]
async fn a_refused_stream_is_asked_once_more_whatever_its_method() {
    static REFUSED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    let upstream = answering(100, |_, (request, mut respond)| async move {
        let path = request.uri().path().to_owned();
        if path == "/never" || !REFUSED.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        let (sent, _) = body(request.into_body()).await;
        assert_eq!(sent, b"payload");
        say(respond, "the second time");
    })
    .await;
    let forwarding = Forwarding::new(&to_http2(upstream.address()));
    assert_eq!(text(forwarding.send(post("payload")).await.unwrap()).await, "the second time");
    let error = forwarding.get("/never").await.unwrap_err();
    assert!(matches!(error, UpstreamError::Refused), "{error:?}");
    assert_eq!((forwarding.ended("refused"), upstream.connections()), (1, 1));
}

#[tokio::test]
async fn a_stream_that_failed_is_not_sent_again() {
    let seen = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&seen);
    let upstream = answering(100, move |_, (request, mut respond)| {
        let path = request.uri().path().to_owned();
        if path != "/" {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
        async move {
            match path.as_str() {
                "/" => say(respond, "fine"),
                "/two-lengths" => {
                    let head = Response::builder().header("content-length", "1").header("content-length", "1");
                    let mut stream = begin(respond, head.body(()).unwrap()).unwrap();
                    let _ = stream.send_data(Bytes::from_static(b"x"), true);
                }
                _ => respond.send_reset(Reason::INTERNAL_ERROR),
            }
        }
    })
    .await;
    let forwarding = Forwarding::new(&to_http2(upstream.address()));
    for path in ["/reset", "/two-lengths"] {
        assert_eq!(forwarding.get("/").await.unwrap(), "fine");
        let error = forwarding.get(path).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Protocol(_)), "{path}: {error:?}");
    }
    assert_eq!(seen.load(std::sync::atomic::Ordering::SeqCst), 2);
    assert_eq!((forwarding.get("/").await.unwrap().as_str(), upstream.connections()), ("fine", 1));
}

#[tokio::test]
async fn no_response_that_breaks_off_passes_for_whole() {
    let upstream = answering(100, |_, (request, respond)| async move {
        let length = if request.uri().path() == "/announced" { "9" } else { "5" };
        let mut head = Response::builder();
        if request.uri().path() != "/reset" {
            head = head.header("content-length", length);
        }
        let mut stream = begin(respond, head.body(()).unwrap()).unwrap();
        stream.send_data(Bytes::from_static(b"begun"), request.uri().path() == "/announced").unwrap();
        match request.uri().path() {
            "/reset" => stream.send_reset(Reason::INTERNAL_ERROR),
            "/whole" => stream.send_reset(Reason::NO_ERROR),
            _ => {}
        }
    })
    .await;
    let forwarding = Forwarding::new(&to_http2(upstream.address()));
    for path in ["/reset", "/announced"] {
        // The break may overtake the head.
        if let Ok(response) = forwarding.send(request("GET", path)).await {
            let fault = soon(response.into_body().collect()).await.unwrap_err();
            assert_eq!(fault, ResponseFault::Truncated, "{path}");
        }
    }
    let response = forwarding.send(request("GET", "/whole")).await;
    if let Ok(response) = response {
        assert_eq!(text(response).await, "begun");
    }
}

#[tokio::test]
async fn an_answer_to_head_has_a_length_and_no_body() {
    let upstream = answering(100, |_, (request, mut respond)| async move {
        let status = if request.method() == "HEAD" { 200 } else { 304 };
        let head = Response::builder().status(status).header("content-length", "1234").body(()).unwrap();
        respond.send_response(head, true).unwrap();
    })
    .await;
    let forwarding = Forwarding::new(&to_http2(upstream.address()));
    for method in ["HEAD", "GET"] {
        let response = forwarding.send(request(method, "/")).await.unwrap();
        assert_eq!(response.headers()["content-length"], "1234");
        assert_eq!(text(response).await, "", "{method}");
    }
}

#[tokio::test]
async fn a_dead_connection_is_found_out_by_a_ping_before_its_requests_time_out() {
    let upstream = RawUpstream::start(|number, connection| async move {
        let mut connection = admitting(100, connection.stream).await;
        while let Some(Ok((_, respond))) = connection.accept().await {
            say(respond, "alive");
            if number == 0 {
                // The answer goes out, and then nothing moves any more.
                let rest = std::future::poll_fn(|context| connection.poll_closed(context));
                let _ = tokio::time::timeout(Duration::from_millis(300), rest).await;
                std::future::pending::<()>().await;
            }
        }
    })
    .await;
    let config = config::Upstream { response_timeout: Duration::from_secs(3), ..to_http2(upstream.address()) };
    let forwarding = Forwarding::new(&config);
    assert_eq!(forwarding.get("/").await.unwrap(), "alive");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(forwarding.get("/").await.unwrap(), "alive", "over another connection");
    assert_eq!((upstream.connections(), forwarding.ended("response_timeout")), (2, 0));
}

#[tokio::test]
async fn what_is_no_http2_is_told_apart() {
    let upstream = RawUpstream::answering("plain").await;
    let forwarding = Forwarding::new(&to_http2(upstream.address()));
    let error = forwarding.get("/").await.unwrap_err();
    assert!(matches!(error, UpstreamError::Protocol(_)), "{error:?}");
    forwarding.open_connections(0).await;
}

//! Pages of other origins: what they may read, and what their preflights cost.

use cxgate::config::Cors;
use hyper::{Method, Response};

use crate::support::{
    http::{Answer, get, get_as, send},
    stub_upstream::StubUpstream,
    test_gate::{TestGate, bucket_of},
};

const CHAT: &str = "/api/v2/engage/webchat";
const PAGE: &str = "https://www.example.com";
const EXPOSED: &str =
    "Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, RateLimit, RateLimit-Policy, X-Request-Id";

/// A gate whose one client may ask once, and whose route lets [`PAGE`] read.
async fn gate() -> (StubUpstream, TestGate) {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        bucket_of(config).capacity = 1;
        bucket_of(config).refill_per_second = cxgate::config::Rate::per_second(0.01).unwrap();
        let max_age = std::time::Duration::from_mins(10);
        config.routes[0].cors = Some(Cors { origins: vec![PAGE.to_owned()], credentials: true, max_age });
    });
    (upstream, gate)
}

async fn preflight(gate: &TestGate, origin: &str) -> Answer {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type,x-trace-id"),
    ];
    send(gate.proxy, Method::OPTIONS, CHAT, &headers, "").await
}

#[tokio::test]
async fn a_page_of_a_configured_origin_may_read_every_refusal() {
    let (_upstream, gate) = gate().await;
    get(gate.proxy, CHAT, &[("x-client-id", "a")]).await;
    let readable = [
        (get(gate.proxy, CHAT, &[("x-client-id", "a"), ("origin", PAGE)]).await, 429),
        (get(gate.proxy, CHAT, &[("x-client-id", &"a".repeat(129)), ("origin", PAGE)]).await, 400),
    ];
    for (refusal, status) in readable {
        assert_eq!(refusal.status, status);
        assert_eq!(refusal.header("access-control-allow-origin"), PAGE);
        assert_eq!(refusal.header("access-control-allow-credentials"), "true");
        assert_eq!(refusal.header("access-control-expose-headers"), EXPOSED);
        assert_eq!(refusal.header("vary"), "Origin");
    }
    for origin in ["https://evil.example", "null", "http://www.example.com"] {
        let refusal = get(gate.proxy, CHAT, &[("x-client-id", "a"), ("origin", origin)]).await;
        assert_eq!(refusal.status, 429);
        assert!(!refusal.headers.keys().any(|name| name.as_str().starts_with("access-control")), "{origin}");
    }
}

#[tokio::test]
async fn an_upstream_that_is_away_can_be_read_of_too() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gate = TestGate::start(gone, |config| {
        let max_age = std::time::Duration::from_mins(10);
        config.routes[0].cors = Some(Cors { origins: vec!["*".to_owned()], credentials: false, max_age });
    });
    let refusal = get(gate.proxy, CHAT, &[("origin", PAGE)]).await;
    assert_eq!((refusal.status.as_u16(), refusal.text()), (502, r#"{"error":"upstream_unreachable"}"#));
    assert_eq!(refusal.header("access-control-allow-origin"), "*");
    assert!(!refusal.headers.contains_key("access-control-allow-credentials"));
}

#[tokio::test]
async fn an_answer_of_the_upstream_keeps_its_own_fields_and_exposes_ours_beside_them() {
    let upstream = StubUpstream::answering(|_| {
        let response = Response::builder()
            .header("access-control-allow-origin", "https://upstream.example")
            .header("access-control-expose-headers", "etag, retry-after");
        response.body(hyper::body::Bytes::from_static(b"ok").into()).unwrap()
    })
    .await;
    let gate = TestGate::start(upstream.address, |config| {
        let max_age = std::time::Duration::from_mins(10);
        config.routes[0].cors = Some(Cors { origins: vec![PAGE.to_owned()], credentials: false, max_age });
    });
    let answer = get(gate.proxy, CHAT, &[("origin", PAGE)]).await;
    assert_eq!(answer.header("access-control-allow-origin"), "https://upstream.example");
    let exposed: Vec<_> = answer.headers.get_all("access-control-expose-headers").iter().collect();
    assert_eq!(exposed, ["etag, retry-after", EXPOSED.trim_start_matches("Retry-After, ")]);
    let plain = get(gate.proxy, CHAT, &[]).await;
    assert_eq!(plain.header("access-control-expose-headers"), "etag, retry-after");
}

#[tokio::test]
async fn a_preflight_of_a_configured_origin_is_answered_here_and_costs_nothing() {
    let (upstream, gate) = gate().await;
    for _ in 0..200 {
        let answer = preflight(&gate, PAGE).await;
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("access-control-allow-origin"), PAGE);
        assert_eq!(answer.header("access-control-allow-credentials"), "true");
        assert_eq!(answer.header("access-control-allow-methods"), "POST");
        assert_eq!(answer.header("access-control-allow-headers"), "content-type,x-trace-id");
        assert_eq!(answer.header("access-control-max-age"), "600");
    }
    assert!(upstream.seen().is_empty(), "the upstream was not asked");
    assert_eq!(gate.count(r#"cxgate_preflights_total{route="guest-webchat"}"#).await, 200);
    // The address that sent them has its token still.
    assert_eq!(get(gate.proxy, CHAT, &[]).await.status, 200);
    assert_eq!(get(gate.proxy, CHAT, &[]).await.status, 429);
}

#[tokio::test]
async fn any_other_preflight_passes_uncharged_but_is_no_way_to_flood() {
    let (upstream, gate) = gate().await;
    for _ in 0..20 {
        let answer = preflight(&gate, "https://other.example").await;
        assert_eq!(answer.status, 200);
        assert!(!answer.headers.contains_key("x-ratelimit-limit"), "it is not charged");
    }
    assert_eq!(upstream.seen().len(), 20);
    // 100 are there and 10 come back each second: of many at once, some are refused.
    let mut refusal = None;
    for _ in 0..2000 {
        let answer = preflight(&gate, "https://other.example").await;
        if answer.status == 429 {
            refusal = Some(answer);
            break;
        }
    }
    let refusal = refusal.expect("a flood of preflights is refused");
    assert_eq!(refusal.json()["limit"], "preflight");
    assert_eq!(preflight(&gate, PAGE).await.status, 204, "pages that are known are not held to that");
    assert_eq!(get_as(gate.proxy, CHAT, "b").await.status, 200, "requests are not held to that");
    // Without an origin or a method to ask for, it is a request like any other.
    for _ in 0..2 {
        send(gate.proxy, Method::OPTIONS, CHAT, &[("x-client-id", "c"), ("origin", PAGE)], "").await;
    }
    assert_eq!(get_as(gate.proxy, CHAT, "c").await.status, 429);
}

#[tokio::test]
async fn a_preflight_goes_to_the_route_of_the_request_it_asks_for() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        let max_age = std::time::Duration::from_mins(10);
        config.routes[0].methods = vec![Method::POST];
        config.routes[0].cors = Some(Cors { origins: vec![PAGE.to_owned()], credentials: false, max_age });
    });
    assert_eq!(preflight(&gate, PAGE).await.status, 204);
    let put = [("origin", PAGE), ("access-control-request-method", "PUT")];
    assert_eq!(send(gate.proxy, Method::OPTIONS, CHAT, &put, "").await.status, 405);
}

#[tokio::test]
async fn what_is_refused_before_the_gate_can_be_read_once_its_head_was() {
    let release = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let upstream = StubUpstream::holding(std::sync::Arc::clone(&release)).await;
    let gate = TestGate::start(upstream.address, |config| {
        let max_age = std::time::Duration::from_mins(10);
        config.listen.max_body_bytes = 3;
        config.listen.max_requests_in_flight = 1;
        config.routes[0].methods = vec![Method::POST];
        config.routes[0].cors = Some(Cors { origins: vec![PAGE.to_owned()], credentials: true, max_age });
    });
    let from_page = [("origin", PAGE)];
    let large = send(gate.proxy, Method::POST, CHAT, &from_page, "larger").await;
    let other_method = get(gate.proxy, CHAT, &from_page).await;
    let nowhere = get(gate.proxy, "/nowhere", &from_page).await;
    let stranger = send(gate.proxy, Method::POST, CHAT, &[("origin", "https://evil.example")], "larger").await;
    let proxy = gate.proxy;
    let held = tokio::spawn(async move { send(proxy, Method::POST, CHAT, &[], "").await });
    crate::support::until(async || gate.count("cxgate_http_requests_in_flight").await == 1).await;
    let shed = send(gate.proxy, Method::POST, CHAT, &from_page, "").await;
    release.add_permits(1);
    assert_eq!(held.await.unwrap().status, 200);
    for (refusal, status, code) in
        [(large, 413, "body_too_large"), (other_method, 405, "method_not_allowed"), (shed, 503, "overloaded")]
    {
        assert_eq!((refusal.status.as_u16(), refusal.json()["error"].as_str()), (status, Some(code)));
        assert_eq!(refusal.header("access-control-allow-origin"), PAGE, "{code}");
        assert_eq!(refusal.header("access-control-allow-credentials"), "true", "{code}");
        assert_eq!(refusal.header("access-control-expose-headers"), EXPOSED, "{code}");
        assert_eq!(refusal.header("vary"), "Origin", "{code}");
    }
    for (refusal, status) in [(nowhere, 404), (stranger, 413)] {
        assert_eq!(refusal.status, status);
        assert!(!refusal.headers.contains_key("access-control-allow-origin"), "{status}");
    }
}

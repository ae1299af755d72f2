//! What clients are told: quotas, refusals, and every other answer of the gate's own.

use hyper::{Method, Response, StatusCode};

use crate::support::{
    http::{get, get_as, send},
    stub_upstream::StubUpstream,
    test_gate::{TestGate, bucket_of},
};

const CHAT: &str = "/api/v2/engage/webchat";

#[tokio::test]
async fn an_admitted_request_says_what_is_left() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |_| ());
    let answer = get_as(gate.proxy, CHAT, "alice").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), r#"{"ok":true}"#);
    assert_eq!(answer.header("x-ratelimit-limit"), "10");
    assert_eq!(answer.header("x-ratelimit-remaining"), "9");
    assert_eq!(answer.header("x-ratelimit-reset"), "1");
    assert_eq!(answer.header("ratelimit"), r#""per-client";r=9;t=1"#);
    assert_eq!(answer.header("ratelimit-policy"), r#""per-client";q=10;w=5"#);
    assert_eq!(answer.header("x-request-id").len(), 32);
}

#[tokio::test]
async fn a_refusal_says_when_to_come_back_and_does_not_reach_the_upstream() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        let bucket = bucket_of(config);
        bucket.refill_per_second = cxgate::config::Rate::per_second(0.1).unwrap();
    });
    for _ in 0..10 {
        assert_eq!(get_as(gate.proxy, CHAT, "alice").await.status, 200);
    }
    let refused = get_as(gate.proxy, CHAT, "alice").await;
    assert_eq!(refused.status, 429);
    let retry_after: u64 = refused.header("retry-after").parse().unwrap();
    assert!((9..=10).contains(&retry_after), "{retry_after}");
    assert_eq!(
        refused.text(),
        format!(r#"{{"error":"rate_limit_exceeded","retry_after":{retry_after},"limit":"per-client"}}"#)
    );
    assert_eq!(refused.header("content-type"), "application/json");
    assert_eq!(refused.header("cache-control"), "no-store");
    assert_eq!(refused.header("x-ratelimit-limit"), "10");
    assert_eq!(refused.header("x-ratelimit-remaining"), "0");
    assert_eq!(refused.header("x-ratelimit-reset"), retry_after.to_string());
    assert_eq!(refused.header("ratelimit"), format!(r#""per-client";r=0;t={retry_after}"#));
    assert_eq!(upstream.seen().len(), 10);

    let problem = get(gate.proxy, CHAT, &[("x-client-id", "alice"), ("accept", "application/problem+json, */*")]).await;
    assert_eq!(problem.status, 429);
    assert_eq!(problem.header("content-type"), "application/problem+json");
    assert_eq!(problem.json()["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(problem.json()["violated-policies"][0], "per-client");
    assert_eq!(problem.json()["limit"], "per-client");

    assert_eq!(get_as(gate.proxy, CHAT, "bob").await.status, 200, "another client is not affected");
}

#[tokio::test]
async fn what_no_route_takes_never_reaches_the_upstream() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| config.routes[0].methods = vec![Method::GET, Method::POST]);
    assert_eq!(get_as(gate.proxy, "/api/v2/engage/webchat/x/messages", "a").await.status, 200);
    let reached = upstream.seen().len();
    let cases = [
        (Method::GET, "/api/v2/engage/webchatty", &[][..], StatusCode::NOT_FOUND, "no_route"),
        (Method::GET, "/", &[], StatusCode::NOT_FOUND, "no_route"),
        (Method::PUT, CHAT, &[], StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
        (Method::TRACE, CHAT, &[], StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
        (Method::GET, "/api/v2/engage//webchat", &[], StatusCode::BAD_REQUEST, "path_ambiguous"),
        (Method::GET, "/api/v2/x/..%2fengage/webchat", &[], StatusCode::BAD_REQUEST, "path_ambiguous"),
        (Method::GET, CHAT, &[("x-client-id", "a"), ("x-client-id", "b")], StatusCode::BAD_REQUEST, "identity_ambiguous"),
        (Method::GET, "/api/v2/engage/webchat?client_id=%00", &[], StatusCode::BAD_REQUEST, "identity_invalid"),
        (Method::GET, CHAT, &[("host", "a b")], StatusCode::BAD_REQUEST, "host_invalid"),
        (Method::GET, "http://other.example/api/v2/engage/webchat", &[], StatusCode::BAD_REQUEST, "host_invalid"),
    ];
    for (method, path, headers, status, code) in cases {
        let answer = send(gate.proxy, method.clone(), path, headers, "").await;
        assert_eq!(answer.status, status, "{method} {path} {headers:?}");
        assert_eq!(answer.text(), format!(r#"{{"error":"{code}"}}"#), "{method} {path} {headers:?}");
        assert_eq!(answer.header("content-type"), "application/json");
        assert!(!answer.header("x-request-id").is_empty());
    }
    assert_eq!(upstream.seen().len(), reached);
}

#[tokio::test]
async fn no_spelling_of_a_path_and_no_spelling_of_a_name_escapes_its_bucket() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |_| ());
    let spellings = [
        ("/api/v2/engage/webchat", "Alice"),
        ("/API/V2/Engage/WebChat", "alice"),
        ("/api/v2/engage/webchat/", "ALICE"),
        ("/api/v2/engage/%77ebchat", " alice"),
        ("/api/v2/engage/webchat;v=1", "aLice"),
    ];
    for (expected, (path, name)) in (5..10).rev().zip(spellings) {
        let answer = get_as(gate.proxy, path, name).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("x-ratelimit-remaining"), expected.to_string(), "{path} {name}");
    }
    let forwarded: Vec<_> = upstream.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(forwarded, spellings.map(|(path, _)| path), "the bytes of a path go on unaltered");
}

#[tokio::test]
async fn a_429_of_the_upstream_passes_as_it_came_and_costs_nothing() {
    let upstream = StubUpstream::answering(|seen| {
        let busy = seen.headers.contains_key("x-busy");
        let response = Response::builder().status(if busy { 429 } else { 200 });
        let response = if busy {
            response.header("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT").header("x-ratelimit-limit", "7")
        } else {
            response
        };
        response.body(if busy { "slow down" } else { "" }.into()).unwrap()
    })
    .await;
    let gate = TestGate::start(upstream.address, |config| {
        let bucket = bucket_of(config);
        bucket.refill_per_second = cxgate::config::Rate::per_second(0.000_001).unwrap();
    });
    assert_eq!(get_as(gate.proxy, CHAT, "alice").await.header("x-ratelimit-remaining"), "9");
    for _ in 0..5 {
        let refused = get(gate.proxy, CHAT, &[("x-client-id", "alice"), ("x-busy", "1")]).await;
        assert_eq!(refused.status, 429);
        assert_eq!(refused.text(), "slow down");
        assert_eq!(refused.header("retry-after"), "Wed, 21 Oct 2026 07:28:00 GMT");
        assert_eq!(refused.header("x-ratelimit-limit"), "7");
        assert_eq!(refused.header("ratelimit"), "");
    }
    assert_eq!(get_as(gate.proxy, CHAT, "alice").await.header("x-ratelimit-remaining"), "8");
    assert_eq!(gate.count(r#"cxgate_violations_total{origin="upstream"}"#).await, 5);
    assert_eq!(gate.count(r#"cxgate_violations_total{origin="local"}"#).await, 0);
    assert_eq!(gate.count(r#"cxgate_refunds_total{route="guest-webchat"}"#).await, 5);
}

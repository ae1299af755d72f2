//! Requests go upstream with the gate's own token: fetched once, replaced in time, and lost with as little harm as can be.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use cxgate::config::Config;
use hyper::{Method, Response, header::HeaderName};
use tokio::{net::TcpListener, task::JoinSet};

use crate::support::{
    http::{get, send},
    soon,
    stub_upstream::{Seen, StubUpstream},
    test_gate::TestGate,
    token_server::{TokenServer, with_credentials},
    until,
};

const PATH: &str = "/api/v2/engage/webchat";

fn authorization(seen: &Seen) -> String {
    let values: Vec<_> = seen.headers.get_all("authorization").iter().map(|value| value.to_str().unwrap()).collect();
    values.join("|")
}

/// An upstream that believes one token, which the test changes.
async fn believing(token: &Arc<Mutex<String>>) -> StubUpstream {
    let token = Arc::clone(token);
    StubUpstream::answering(move |seen| {
        let believed = authorization(seen) == format!("Bearer {}", token.lock().unwrap());
        Response::builder().status(if believed { 200 } else { 401 }).body("".into()).unwrap()
    })
    .await
}

#[tokio::test]
async fn a_hundred_first_requests_fetch_one_token_and_none_carries_its_callers() {
    let (upstream, tokens) = (StubUpstream::start().await, TokenServer::start(3600).await);
    let gate = TestGate::start(upstream.address, |config| with_credentials(config, tokens.stub.address));
    let (mut requests, proxy) = (JoinSet::new(), gate.proxy);
    for _ in 0..100 {
        requests.spawn(async move { get(proxy, PATH, &[("authorization", "Bearer callers-own")]).await.status });
    }
    assert!(requests.join_all().await.iter().all(|status| *status == 200));
    let seen = upstream.seen();
    assert_eq!(seen.len(), 100);
    assert!(seen.iter().all(|seen| authorization(seen) == "Bearer token-1"));
    assert!(seen.iter().all(|seen| !format!("{:?}", seen.headers).contains("callers-own")));
    let [asked] = &tokens.stub.seen()[..] else { panic!("one fetch") };
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/token"));
    assert_eq!(asked.headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(asked.body, "grant_type=client_credentials&client_id=cxgate&client_secret=hunter2");
    assert_eq!(gate.count(r#"cxgate_oauth_fetches_total{credentials="cxone",result="good"}"#).await, 1);
}

#[tokio::test]
async fn the_callers_own_authorization_goes_on_only_in_the_field_that_is_configured() {
    let (upstream, tokens) = (StubUpstream::start().await, TokenServer::start(3600).await);
    let gate = TestGate::start(upstream.address, |config| {
        with_credentials(config, tokens.stub.address);
        config.routes[0].forward_authorization_as = Some(HeaderName::from_static("x-original-authorization"));
    });
    get(gate.proxy, PATH, &[("authorization", "Bearer a"), ("x-original-authorization", "forged")]).await;
    get(gate.proxy, PATH, &[("x-original-authorization", "forged")]).await;
    let [with, without] = &upstream.seen()[..] else { panic!("two requests") };
    assert_eq!(with.headers.get_all("x-original-authorization").iter().collect::<Vec<_>>(), ["Bearer a"]);
    assert!(!without.headers.contains_key("x-original-authorization"));
    assert_eq!((authorization(with).as_str(), authorization(without).as_str()), ("Bearer token-1", "Bearer token-1"));
}

#[tokio::test]
async fn a_revoked_token_costs_one_more_call_and_one_fetch() {
    let token = Arc::new(Mutex::new("token-1".to_owned()));
    let (upstream, tokens) = (believing(&token).await, TokenServer::start(3600).await);
    let gate = TestGate::start(upstream.address, |config| with_credentials(config, tokens.stub.address));
    assert_eq!(get(gate.proxy, PATH, &[]).await.status, 200);
    "token-2".clone_into(&mut token.lock().unwrap());
    assert_eq!(send(gate.proxy, Method::POST, PATH, &[], "payload").await.status, 200);
    assert_eq!((upstream.seen().len(), tokens.asked()), (3, 2));
    assert_eq!(&upstream.seen()[2].body[..], b"payload", "the body is sent again");
    assert_eq!(get(gate.proxy, PATH, &[]).await.status, 200);
    assert_eq!((upstream.seen().len(), tokens.asked()), (4, 2));
}

#[tokio::test]
async fn a_revoked_token_is_replaced_once_for_all_who_carry_it() {
    let token = Arc::new(Mutex::new("token-1".to_owned()));
    let (upstream, tokens) = (believing(&token).await, TokenServer::start(3600).await);
    let gate = TestGate::start(upstream.address, |config| with_credentials(config, tokens.stub.address));
    assert_eq!(get(gate.proxy, PATH, &[]).await.status, 200);
    "token-2".clone_into(&mut token.lock().unwrap());
    let mut requests = JoinSet::new();
    let proxy = gate.proxy;
    for _ in 0..20 {
        requests.spawn(async move { get(proxy, PATH, &[]).await.status });
    }
    assert!(requests.join_all().await.iter().all(|status| *status == 200));
    assert_eq!(tokens.asked(), 2);
}

#[tokio::test]
async fn an_upstream_that_refuses_every_token_does_not_flood_the_token_endpoint() {
    let token = Arc::new(Mutex::new("none".to_owned()));
    let (upstream, tokens) = (believing(&token).await, TokenServer::start(3600).await);
    let gate = TestGate::start(upstream.address, |config| with_credentials(config, tokens.stub.address));
    for _ in 0..5 {
        assert_eq!(get(gate.proxy, PATH, &[]).await.status, 401, "as it came");
    }
    assert_eq!((upstream.seen().len(), tokens.asked()), (6, 2));
}

#[tokio::test]
async fn a_handshake_carries_the_token_and_is_not_sent_again_with_another() {
    let token = Arc::new(Mutex::new("token-2".to_owned()));
    let (upstream, tokens) = (believing(&token).await, TokenServer::start(3600).await);
    let gate = TestGate::start(upstream.address, |config| with_credentials(config, tokens.stub.address));
    for (status, tries) in [(401, 1), (200, 2)] {
        let answered = get(gate.proxy, PATH, &[("connection", "upgrade"), ("upgrade", "websocket")]).await;
        assert_eq!((answered.status.as_u16(), upstream.seen().len()), (status, tries));
    }
    assert!(upstream.seen().iter().all(|seen| seen.headers["upgrade"] == "websocket"));
}

#[tokio::test]
async fn without_a_token_requests_fail_at_once_until_the_endpoint_serves_again() {
    let (upstream, tokens) = (StubUpstream::start().await, TokenServer::start(3600).await);
    tokens.set_down(true);
    let gate = TestGate::start(upstream.address, |config| {
        with_credentials(config, tokens.stub.address);
        config.oauth.get_mut("cxone").unwrap().token_timeout = Duration::from_hours(1);
    });
    let refused = soon(get(gate.proxy, PATH, &[])).await;
    assert_eq!((refused.status.as_u16(), refused.text()), (502, r#"{"error":"credentials_unavailable"}"#));
    let asked = tokens.asked();
    for _ in 0..50 {
        assert_eq!(soon(get(gate.proxy, PATH, &[])).await.status, 502);
    }
    assert!(tokens.asked() <= asked + 10, "requests do not hasten the next fetch");
    assert_eq!(upstream.seen().len(), 0);
    tokens.set_down(false);
    until(async || get(gate.proxy, PATH, &[]).await.status == 200).await;
    assert!(gate.count(r#"cxgate_oauth_fetches_total{credentials="cxone",result="status"}"#).await >= 1);
}

#[tokio::test]
async fn a_first_token_is_waited_for_only_so_long() {
    let (upstream, silent) = (StubUpstream::start().await, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let gate = TestGate::start(upstream.address, |config| {
        with_credentials(config, silent.local_addr().unwrap());
        config.oauth.get_mut("cxone").unwrap().timeout = Duration::from_hours(1);
        config.oauth.get_mut("cxone").unwrap().token_timeout = Duration::from_millis(50);
    });
    assert_eq!(soon(get(gate.proxy, PATH, &[])).await.status, 502);
}

#[tokio::test]
async fn a_token_is_replaced_before_its_end_and_no_request_notices() {
    let (upstream, tokens) = (StubUpstream::start().await, TokenServer::start(1).await);
    let gate = TestGate::start(upstream.address, |config| with_credentials(config, tokens.stub.address));
    until(async || {
        assert_eq!(get(gate.proxy, PATH, &[]).await.status, 200);
        upstream.seen().last().map(authorization).as_deref() == Some("Bearer token-3")
    })
    .await;
}

#[tokio::test]
async fn the_old_token_serves_to_its_end_while_the_endpoint_is_down() {
    let (upstream, tokens) = (StubUpstream::start().await, TokenServer::start(5).await);
    let gate = TestGate::start(upstream.address, |config| with_credentials(config, tokens.stub.address));
    assert_eq!(get(gate.proxy, PATH, &[]).await.status, 200);
    tokens.set_down(true);
    // The next fetch comes, and fails, when a tenth of the token's life is left.
    until(async || tokens.asked() == 2).await;
    assert_eq!(get(gate.proxy, PATH, &[]).await.status, 200);
    until(async || get(gate.proxy, PATH, &[]).await.status == 502).await;
    assert!(upstream.seen().iter().all(|seen| authorization(seen) == "Bearer token-1"));
    tokens.set_down(false);
    until(async || get(gate.proxy, PATH, &[]).await.status == 200).await;
    assert_eq!(upstream.seen().last().map(authorization).as_deref(), Some("Bearer token-2"));
}

#[tokio::test]
async fn a_token_that_is_revoked_while_the_endpoint_is_down_is_not_used_again() {
    let token = Arc::new(Mutex::new("token-1".to_owned()));
    let (upstream, tokens) = (believing(&token).await, TokenServer::start(3600).await);
    let gate = TestGate::start(upstream.address, |config| {
        with_credentials(config, tokens.stub.address);
        config.routes[0].limits = Config::default().routes[0].limits.clone();
    });
    assert_eq!(get(gate.proxy, PATH, &[]).await.status, 200);
    "token-2".clone_into(&mut token.lock().unwrap());
    tokens.set_down(true);
    for _ in 0..20 {
        assert_eq!(soon(get(gate.proxy, PATH, &[])).await.text(), r#"{"error":"credentials_unavailable"}"#, "and no charge");
    }
    assert_eq!(upstream.seen().len(), 2);
    tokens.set_down(false);
    until(async || get(gate.proxy, PATH, &[]).await.status == 200).await;
}

#[tokio::test]
async fn the_token_of_one_table_is_used_by_one_fetch_for_all_its_routes() {
    let (upstream, tokens) = (StubUpstream::start().await, TokenServer::start(3600).await);
    let gate = TestGate::start(upstream.address, |config| {
        with_credentials(config, tokens.stub.address);
        let template = config.routes[0].clone();
        let route = cxgate::config::Route { name: "other".into(), paths: vec!["/other".into()], ..template };
        config.routes.push(route);
    });
    for path in [PATH, "/other"] {
        assert_eq!(get(gate.proxy, path, &[]).await.status, 200, "{path}");
    }
    assert_eq!(tokens.asked(), 1);
}

#[tokio::test]
async fn a_preflight_passes_without_the_routes_token_and_without_waiting_for_one() {
    let upstream = StubUpstream::start().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gate = TestGate::start(upstream.address, |config| with_credentials(config, nobody));
    let fields =
        [("origin", "https://other.example"), ("access-control-request-method", "GET"), ("authorization", "Bearer forged")];
    assert_eq!(send(gate.proxy, Method::OPTIONS, PATH, &fields, "").await.status, 200);
    let [preflight] = &upstream.seen()[..] else { panic!("one request") };
    assert_eq!(authorization(preflight), "");
    assert_eq!(send(gate.proxy, Method::OPTIONS, PATH, &fields[..1], "").await.status, 502, "any other needs one");
}

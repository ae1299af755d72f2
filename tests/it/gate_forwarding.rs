//! What the upstream sees, and what the client sees of the upstream.

use std::{collections::BTreeSet, time::Duration};

use hyper::{Method, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{
    http::{get, get_as, send},
    stub_upstream::StubUpstream,
    test_gate::TestGate,
};

const CHAT: &str = "/api/v2/engage/webchat";

#[tokio::test]
async fn a_request_goes_on_unaltered_but_for_what_a_proxy_must_change() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |_| ());
    let path = "/api/v2/engage/webchat/a%7Eb;v=1?client_id=Bob&q=%20+x&&=";
    let headers = [
        ("authorization", "Bearer secret"),
        ("cookie", "a=b; c=d"),
        ("connection", "x-private, x-client-id"),
        ("x-private", "1"),
        ("x-client-id", "Alice"),
        ("te", "trailers"),
        ("x-forwarded-for", "203.0.113.9"),
        ("x-client-secret", "hidden"),
        ("x-request-id", "my-id-1"),
        ("host", "chat.example"),
    ];
    let answer = send(gate.proxy, Method::POST, path, &headers, "hello").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-request-id"), "my-id-1");
    assert_eq!(answer.header("via"), "1.1 cxgate");

    let [seen] = &upstream.seen()[..] else { panic!("one request") };
    assert_eq!((seen.method.as_str(), seen.target.as_str(), &seen.body[..]), ("POST", path, &b"hello"[..]));
    let value = |name: &str| seen.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let peer = "127.0.0.1".to_owned();
    assert_eq!(value("host"), Some(upstream.address.to_string()));
    assert_eq!(value("authorization").as_deref(), Some("Bearer secret"));
    assert_eq!(value("cookie").as_deref(), Some("a=b; c=d"));
    assert_eq!(value("x-client-id").as_deref(), Some("Alice"), "Connection cannot take an identity away");
    assert_eq!(value("x-forwarded-for"), Some(peer), "a stranger's word about addresses is replaced");
    assert_eq!(value("x-forwarded-host").as_deref(), Some("chat.example"));
    assert_eq!(value("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(value("x-request-id").as_deref(), Some("my-id-1"));
    assert_eq!(value("via").as_deref(), Some("1.1 cxgate"));
    for absent in ["x-private", "te", "connection", "x-client-secret"] {
        assert_eq!(value(absent), None, "{absent}");
    }
}

#[tokio::test]
async fn identity_parameters_are_stripped_where_the_configuration_says_so() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| config.identity.strip_query = true);
    get(gate.proxy, "/api/v2/engage/webchat?a=%7e&client_id=bob&b=1", &[]).await;
    get(gate.proxy, "/api/v2/engage/webchat?client_id=bob", &[]).await;
    let targets: Vec<_> = upstream.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["/api/v2/engage/webchat?a=%7e&b=1", "/api/v2/engage/webchat"]);
}

#[tokio::test]
async fn hop_by_hop_fields_of_a_response_go_no_further() {
    let upstream = StubUpstream::answering(|_| {
        let response = Response::builder().header("connection", "x-inner").header("x-inner", "1").header("x-outer", "2");
        response.header("set-cookie", "a=1").header("set-cookie", "b=2").body("".into()).unwrap()
    })
    .await;
    let gate = TestGate::start(upstream.address, |_| ());
    let answer = get_as(gate.proxy, CHAT, "a").await;
    assert!(!answer.headers.contains_key("x-inner"));
    assert_eq!(answer.header("x-outer"), "2");
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
}

#[tokio::test]
async fn an_upstream_that_is_away_or_silent_is_told_apart() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gate = TestGate::start(closed, |_| ());
    let refused = get_as(gate.proxy, CHAT, "a").await;
    assert_eq!((refused.status.as_u16(), refused.text()), (502, r#"{"error":"upstream_unreachable"}"#));
    assert!(refused.header("proxy-status").starts_with("cxgate; error="));

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gate = TestGate::start(silent.local_addr().unwrap(), |config| {
        config.upstreams.get_mut("cxone").unwrap().response_timeout = Duration::from_millis(50);
    });
    let late = get_as(gate.proxy, CHAT, "a").await;
    assert_eq!((late.status.as_u16(), late.text()), (504, r#"{"error":"upstream_timeout"}"#));
    assert_eq!(late.header("proxy-status"), "cxgate; error=http_response_timeout");
}

#[tokio::test]
async fn the_most_specific_route_wins_and_hosts_and_methods_count() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        let template = config.routes.remove(0);
        let route = |name: &str, paths: &[&str], host: Option<&str>, methods: &[Method]| cxgate::config::Route {
            name: name.into(),
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            host: host.map(Into::into),
            methods: methods.to_vec(),
            ..template.clone()
        };
        config.routes = vec![
            route("all", &["/"], None, &[]),
            route("captured", &["/a/{x}"], None, &[]),
            route("literal", &["/a/b"], None, &[]),
            route("hosted", &["/a"], Some("one.example"), &[]),
            route("posts", &["/a/b/c"], None, &[Method::POST]),
        ];
    });
    let cases = [
        (Method::GET, "/x", "two.example", "all"),
        (Method::GET, "/a", "two.example", "all"),
        (Method::GET, "/a", "One.Example:80", "hosted"),
        (Method::GET, "/a/q", "two.example", "captured"),
        (Method::GET, "/a/b", "two.example", "literal"),
        (Method::GET, "/a/b/c", "two.example", "literal"),
        (Method::POST, "/a/b/c/d", "two.example", "posts"),
    ];
    let routes: BTreeSet<_> = cases.iter().map(|(.., route)| *route).collect();
    for (method, path, host, route) in cases {
        let count =
            async |route: &str| gate.count(&format!(r#"cxgate_http_requests_total{{route="{route}",status="2xx"}}"#)).await;
        let before = count(route).await;
        assert_eq!(send(gate.proxy, method.clone(), path, &[("host", host)], "").await.status, 200);
        assert_eq!(count(route).await, before + 1, "{method} {host} {path}");
    }
    assert_eq!(routes.len(), 5, "each route was reached");
}

#[tokio::test]
async fn a_connection_that_switches_protocols_is_relayed_byte_for_byte() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let upstream = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n").await.unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        stream.write_all(&received).await.unwrap();
        head
    });
    let gate = TestGate::start(address, |_| ());
    let mut client = TcpStream::connect(gate.proxy).await.unwrap();
    let request = format!(
        "GET {CHAT}?client_id=a HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut client).await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(
        head.contains("upgrade: websocket")
            && head.contains("connection: upgrade")
            && head.contains("sec-websocket-accept: x"),
        "{head}"
    );

    let sent: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    client.write_all(&sent).await.unwrap();
    client.shutdown().await.unwrap();
    let mut echoed = Vec::new();
    client.read_to_end(&mut echoed).await.unwrap();
    assert!(echoed == sent, "{} of {} bytes came back", echoed.len(), sent.len());
    let seen = upstream.await.unwrap().to_ascii_lowercase();
    assert!(seen.contains("upgrade: websocket") && seen.contains("sec-websocket-key: k"), "{seen}");
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

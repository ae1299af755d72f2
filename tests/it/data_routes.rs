//! What a route of Data Actions adds to a forward: another path, a refund by status, and the time it took.

use cxgate::config::Cooldown;
use hyper::Response;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{
    http::{get, get_as},
    soon,
    stub_upstream::StubUpstream,
    test_gate::{TestGate, bucket_of},
    token_server::{TokenServer, with_credentials},
};

const PATH: &str = "/api/v2/engage/webchat";

#[tokio::test]
async fn a_route_rewrites_its_paths_and_nothing_else() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        config.routes[0].paths = vec!["/invoke/{action_id}".into(), "/t/{tenant}/invoke/{action_id}".into()];
        config.routes[0].rewrite = Some("/api/v2/webactions/{action_id}/invoke".into());
    });
    let cases = [
        ("/invoke/A-17?x=%20", Some("/api/v2/webactions/A-17/invoke?x=%20")),
        ("/invoke/A%2D17/", Some("/api/v2/webactions/A%2D17/invoke")),
        ("/T/1/invoke/b", Some("/api/v2/webactions/b/invoke")),
        ("/invoke/%3Fa=b", Some("/api/v2/webactions/%3Fa=b/invoke")),
        ("/invoke/a;..", Some("/api/v2/webactions/a/invoke")),
        ("/invoke/a/b", None),
        ("/invoke", None),
        ("/invoke/a%2Fb", None),
        ("/invoke/%2e%2e", None),
        ("/invoke/..;x", None),
    ];
    for (asked, expected) in cases {
        let before = upstream.seen().len();
        let status = get(gate.proxy, asked, &[("x-client-id", asked)]).await.status;
        let target = upstream.seen().get(before).map(|seen| seen.target.clone());
        assert_eq!(target.as_deref(), expected, "{asked} was answered {status}");
    }
}

#[tokio::test]
async fn what_was_not_used_is_given_back_by_status() {
    for (status, refund_on, expected) in [
        (429, None, true),
        (503, None, true),
        (500, None, false),
        (500, Some(vec![500]), true),
        (429, Some(vec![]), false),
        (503, Some(vec![]), false),
    ] {
        let upstream = StubUpstream::answering(move |seen| {
            let status = if seen.target.ends_with("/fail") { status } else { 200 };
            Response::builder().status(status).body("".into()).unwrap()
        })
        .await;
        let gate = TestGate::start(upstream.address, |config| {
            if let Some(refund_on) = refund_on.clone() {
                config.routes[0].refund_on = refund_on;
            }
            bucket_of(config).refill_per_second = cxgate::config::Rate::per_second(1e-6).unwrap();
        });
        let failed = get_as(gate.proxy, &format!("{PATH}/fail"), "a").await;
        assert_eq!(failed.status, status);
        assert_eq!(failed.headers.contains_key("x-ratelimit-remaining"), !expected && status != 429, "{status}");
        let left = get_as(gate.proxy, PATH, "a").await;
        assert_eq!(left.header("x-ratelimit-remaining"), if expected { "9" } else { "8" }, "{status} {refund_on:?}");
        assert_eq!(gate.count(r#"cxgate_refunds_total{route="guest-webchat"}"#).await, u64::from(expected));
    }
}

#[tokio::test]
async fn a_pause_begins_with_a_429_alone_whatever_is_given_back() {
    for (status, refund_on, then) in [(429, vec![], 429), (503, vec![503], 200)] {
        let upstream = StubUpstream::answering(move |seen| {
            let status = if seen.target.ends_with("/fail") { status } else { 200 };
            Response::builder().status(status).header("retry-after", "600").body("".into()).unwrap()
        })
        .await;
        let gate = TestGate::start(upstream.address, |config| {
            config.routes[0].cooldown = Cooldown::Route;
            config.routes[0].refund_on.clone_from(&refund_on);
        });
        assert_eq!(get_as(gate.proxy, &format!("{PATH}/fail"), "a").await.status, status);
        let refunds = gate.count(r#"cxgate_refunds_total{route="guest-webchat"}"#).await;
        assert_eq!(refunds, refund_on.len() as u64, "{status}");
        assert_eq!(get_as(gate.proxy, PATH, "b").await.status, then, "{status}");
    }
}

#[tokio::test]
async fn answers_tell_how_long_they_took_where_the_route_says_so() {
    let upstream =
        StubUpstream::answering(|_| Response::builder().header("server-timing", "db;dur=1").body("".into()).unwrap()).await;
    for server_timing in [true, false] {
        let gate = TestGate::start(upstream.address, |config| config.routes[0].server_timing = server_timing);
        let answered = get_as(gate.proxy, PATH, "a").await;
        let timings: Vec<_> =
            answered.headers.get_all("server-timing").iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(timings.len(), 1 + usize::from(server_timing), "{timings:?}");
        let is_number = |text: &str| text.parse::<f64>().is_ok_and(|duration| duration >= 0.0);
        if let [_, own] = &timings[..] {
            let parts = own.strip_prefix("upstream;dur=").and_then(|rest| rest.split_once(", decision;dur="));
            assert!(parts.is_some_and(|(upstream, decision)| is_number(upstream) && is_number(decision)), "{own}");
        }
    }
}

#[tokio::test]
async fn a_connection_switches_protocols_in_the_name_of_the_route() {
    let tokens = TokenServer::start(3600).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gate = TestGate::start(listener.local_addr().unwrap(), |config| with_credentials(config, tokens.stub.address));
    let mut client = TcpStream::connect(gate.proxy).await.unwrap();
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.write_all(format!("GET {PATH} HTTP/1.1\r\nHost: x\r\n{upgrade}").as_bytes()).await.unwrap();
    let (mut upstream, _) = soon(listener.accept()).await.unwrap();
    let asked = read_head(&mut upstream).await.to_ascii_lowercase();
    assert!(asked.contains("authorization: bearer token-1") && asked.contains("upgrade: websocket"), "{asked}");
    upstream.write_all(format!("HTTP/1.1 101 Switching Protocols\r\n{upgrade}frame").as_bytes()).await.unwrap();
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 101 "));
    let mut frame = [0; 5];
    soon(client.read_exact(&mut frame)).await.unwrap();
    assert_eq!(&frame, b"frame");
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

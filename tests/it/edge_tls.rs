//! TLS towards clients: which protocol, which certificate, and how long a handshake may take.

use std::{collections::BTreeMap, time::Duration};

use cxgate::config::{ClientCertificates, IdentitySource, LimitKind, Trusted, WebSocket};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    certificates::{Authority, certificate, shown_by},
    http2, soon,
    stub_upstream::StubUpstream,
    test_gate::{TestGate, bucket_of},
    until,
    websocket::{TEXT, echoing, masked, request},
};

const CHAT: &str = "/api/v2/engage/webchat";

#[tokio::test]
async fn the_handshake_chooses_the_protocol_and_the_upstream_learns_of_tls() {
    let upstream = StubUpstream::start().await;
    let authority = Authority::new();
    let tls = authority.listener(&authority.sign("gate"), ClientCertificates::None);
    let gate = TestGate::start(upstream.address, |config| config.listen.tls = Some(tls));

    let stream = authority.connect(gate.proxy, &["h2", "http/1.1"], None).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut client = http2::client(stream).await;
    let response = soon(client.send_request(http2::get(CHAT))).await.unwrap();
    assert_eq!(http2::whole(response).await.text(), r#"{"ok":true}"#);

    for protocols in [&["http/1.1"][..], &[]] {
        let stream = authority.connect(gate.proxy, protocols, None).await.unwrap();
        let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request =
            hyper::Request::get(CHAT).header("host", "localhost").body(http_body_util::Empty::<bytes::Bytes>::new());
        assert_eq!(soon(client.send_request(request.unwrap())).await.unwrap().status(), 200);
    }
    assert_eq!(authority.connect(gate.proxy, &["h3"], None).await.unwrap_err().kind(), std::io::ErrorKind::InvalidData);

    let seen = upstream.seen();
    let field = |name: &str| seen.iter().map(|seen| seen.headers[name].to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(field("x-forwarded-proto"), ["https", "https", "https"]);
    assert_eq!(field("x-forwarded-host"), ["localhost", "localhost", "localhost"]);
    assert_eq!(field("via"), ["2.0 cxgate", "1.1 cxgate", "1.1 cxgate"]);
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_given_up_and_counted() {
    let upstream = StubUpstream::start().await;
    let authority = Authority::new();
    let tls = authority.listener(&authority.sign("gate"), ClientCertificates::None);
    let gate = TestGate::start(upstream.address, |config| {
        config.listen.tls = Some(tls);
        config.listen.header_timeout = Duration::from_millis(200);
    });
    let mut silent = TcpStream::connect(gate.proxy).await.unwrap();
    let mut half = TcpStream::connect(gate.proxy).await.unwrap();
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).await.unwrap();
    let mut plain = TcpStream::connect(gate.proxy).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    for stream in [&mut silent, &mut half, &mut plain] {
        let mut rest = Vec::new();
        let _ = soon(stream.read_to_end(&mut rest)).await;
        assert!(!rest.starts_with(b"HTTP"), "an answer without a handshake");
    }
    until(async || gate.count("cxgate_tls_handshake_failures_total").await == 3).await;
    assert_eq!(gate.count(r#"cxgate_connections{listener="proxy"}"#).await, 0);
}

#[tokio::test]
async fn a_certificate_that_changes_is_shown_to_new_connections_and_a_bad_one_to_none() {
    let upstream = StubUpstream::start().await;
    let authority = Authority::new();
    let [first, second, other] = ["first", "second", "other"].map(|name| authority.sign(name));
    let tls = authority.listener(&first, ClientCertificates::None);
    let files = tls.clone();
    let gate = TestGate::start(upstream.address, |config| config.listen.tls = Some(tls));
    let stream = authority.connect(gate.proxy, &["h2"], None).await.unwrap();
    assert_eq!(shown_by(&stream), certificate(&first));
    let mut old = http2::client(stream).await;
    assert_eq!(soon(old.send_request(http2::get(CHAT))).await.unwrap().status(), 200);

    authority.listener(&second, ClientCertificates::None);
    until(async || {
        let stream = authority.connect(gate.proxy, &["h2"], None).await.unwrap();
        shown_by(&stream) == certificate(&second)
    })
    .await;
    assert_eq!(soon(old.send_request(http2::get(CHAT))).await.unwrap().status(), 200, "old connections live on");

    std::fs::write(&files.key, &other.key).unwrap();
    until(async || gate.count(r#"cxgate_tls_reloads_total{result="bad"}"#).await > 0).await;
    let stream = authority.connect(gate.proxy, &["h2"], None).await.unwrap();
    assert_eq!(shown_by(&stream), certificate(&second), "what worked stays");
}

#[tokio::test]
async fn clients_without_a_certificate_are_turned_away_where_one_is_required() {
    let upstream = StubUpstream::start().await;
    let (authority, stranger) = (Authority::new(), Authority::new());
    let own = authority.sign("reports");
    let tls = authority.listener(&authority.sign("gate"), ClientCertificates::Require);
    let gate = TestGate::start(upstream.address, |config| config.listen.tls = Some(tls));
    for (certificate, passes) in [(Some(&own), true), (None, false), (Some(&stranger.sign("reports")), false)] {
        let mut answer = Vec::new();
        let ask = async {
            let mut stream = authority.connect(gate.proxy, &["http/1.1"], certificate).await?;
            stream
                .write_all(format!("GET {CHAT} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())
                .await?;
            stream.read_to_end(&mut answer).await
        };
        let asked = soon(ask).await;
        assert_eq!(asked.is_ok() && answer.starts_with(b"HTTP/1.1 200"), passes, "{asked:?}");
    }
}

#[tokio::test]
async fn a_certificate_can_be_an_identity_and_a_proof() {
    let upstream = StubUpstream::start().await;
    let authority = Authority::new();
    let tls = authority.listener(&authority.sign("gate"), ClientCertificates::Request);
    let gate = TestGate::start(upstream.address, |config| {
        config.listen.tls = Some(tls);
        config.identity.sources.insert(0, IdentitySource::Certificate);
        bucket_of(config).capacity = 2;
        let named = |client: &str| Trusted {
            client: client.to_owned(),
            networks: Vec::new(),
            secret: None,
            certificate: Some("CN=Reports".to_owned()),
        };
        config.whitelist = vec![named("cn=reports"), named("claimed")];
    });
    let [reports, guest] = ["Reports", "guest"].map(|name| authority.sign(name));
    // Who has a certificate is called by it, whatever it claims in a field.
    for (certificate, claim, last) in [
        (Some(&guest), "a", 200),
        (Some(&guest), "b", 429),
        (None, "claimed", 429),
        (None, "c", 429),
        (Some(&reports), "d", 200),
    ] {
        let stream = authority.connect(gate.proxy, &["h2"], certificate).await.unwrap();
        let mut client = http2::client(stream).await;
        let asked = if claim == "a" { 1 } else { 3 };
        let mut status = 0;
        for _ in 0..asked {
            let mut request = http2::get(CHAT);
            request.headers_mut().insert("x-client-id", claim.parse().unwrap());
            status = soon(client.send_request(request)).await.unwrap().status().as_u16();
        }
        assert_eq!(status, last, "{claim}");
    }
}

#[tokio::test]
async fn a_websocket_over_tls_is_held_to_its_limits_like_any_other() {
    let upstream = echoing().await;
    let authority = Authority::new();
    let tls = authority.listener(&authority.sign("gate"), ClientCertificates::None);
    let gate = TestGate::start(upstream.address(), |config| {
        config.listen.tls = Some(tls);
        let route = &mut config.routes[0];
        let LimitKind::TokenBucket(messages) = route.limits[0].limit.kind else { panic!("a bucket") };
        let (max_pause, idle_timeout) = (Duration::from_secs(1), Duration::from_secs(20));
        route.websocket =
            Some(WebSocket { sockets: 1, messages, costs: BTreeMap::new(), max_pause, idle_timeout, exact: true });
    });
    let mut stream = authority.connect(gate.proxy, &["http/1.1"], None).await.unwrap();
    stream.write_all(request(CHAT, "alice").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream.write_all(&masked(TEXT, b"hello")).await.unwrap();
    let mut echo = [0; 7];
    soon(stream.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"\x81\x05hello");
    let counted = r#"cxgate_websocket_messages_total{route="guest-webchat",decision="admitted"}"#;
    assert_eq!(gate.count(counted).await, 1);
}

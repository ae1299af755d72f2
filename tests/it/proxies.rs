//! Who a client is when proxies stand in front: `Forwarded`, and the PROXY protocol.

use std::time::Duration;

use cxgate::config::ClientCertificates;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{
    certificates::Authority,
    http::{get, get_from},
    http2,
    raw_client::RawClient,
    soon,
    stub_upstream::StubUpstream,
    test_gate::{TestGate, bucket_of},
};

const CHAT: &str = "/api/v2/engage/webchat";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

async fn gate(proxy_protocol: bool) -> (StubUpstream, TestGate) {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        config.listen.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        config.listen.proxy_protocol = proxy_protocol;
        config.listen.header_timeout = Duration::from_millis(500);
        bucket_of(config).capacity = 100;
    });
    (upstream, gate)
}

#[tokio::test]
async fn two_hundred_forged_forwarded_fields_make_no_second_client() {
    let (_upstream, gate) = gate(false).await;
    let mut admitted = 0;
    for number in 0..200 {
        let forged = format!("for=203.0.113.{number}");
        let answer =
            get_from("127.0.0.9", gate.proxy, CHAT, &[("forwarded", &forged), ("x-forwarded-for", "1.1.1.1")]).await;
        admitted += u32::from(answer.status == 200);
    }
    assert!((100..120).contains(&admitted), "{admitted} of a capacity of 100");
}

#[tokio::test]
async fn a_trusted_proxy_names_the_client_in_forwarded_and_is_added_to_it() {
    let (upstream, gate) = gate(false).await;
    let remaining = async |fields: &[(&str, &str)]| {
        get(gate.proxy, CHAT, fields).await.header("x-ratelimit-remaining").parse::<u32>().unwrap()
    };
    assert_eq!(remaining(&[("forwarded", "for=203.0.113.9;proto=https")]).await, 99);
    assert_eq!(remaining(&[("forwarded", "for=203.0.113.8")]).await, 99, "another client");
    assert_eq!(remaining(&[]).await, 99, "the proxy itself");
    let seen = upstream.seen();
    let forwarded: Vec<_> = seen[0].headers.get_all("forwarded").iter().collect();
    assert_eq!(forwarded, ["for=203.0.113.9;proto=https", "for=127.0.0.1;proto=http"]);
}

#[tokio::test]
async fn a_proxy_protocol_header_of_a_trusted_proxy_names_the_client() {
    let (upstream, gate) = gate(true).await;
    let binary = [SIGNATURE, &[0x21, 0x11, 0, 12, 203, 0, 113, 9, 127, 0, 0, 1, 0x13, 0x88, 0, 80]].concat();
    let headers: [(&[u8], &str); 3] = [
        (b"PROXY TCP4 203.0.113.8 127.0.0.1 5000 80\r\n", "203.0.113.8"),
        (&binary, "203.0.113.9"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ];
    for (number, (header, client)) in headers.into_iter().enumerate() {
        let mut proxied = RawClient::connect(gate.proxy).await;
        proxied.send(header).await;
        // Once a connection: the next request of the same one is the same client's.
        for _ in 0..2 {
            assert_eq!(proxied.get(CHAT).await.status, 200);
        }
        let seen = upstream.seen();
        assert_eq!(seen.len(), 2 * (number + 1));
        assert_eq!(seen[2 * number + 1].headers["x-forwarded-for"], client);
    }
}

#[tokio::test]
async fn a_trusted_proxy_that_sends_no_whole_header_in_time_is_cut_off() {
    let (upstream, gate) = gate(true).await;
    for start in [b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".as_slice(), b"PROXY TCP4 x y 1 2\r\n", b"PROXY TCP4 ", b""] {
        let mut silent = RawClient::connect(gate.proxy).await;
        silent.send(start).await;
        let (said, _) = silent.rest().await;
        assert!(said.is_empty(), "{said:?}");
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_proxy_protocol_header_of_anyone_else_is_garbage() {
    let (upstream, gate) = gate(true).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
    let stream = socket.connect(gate.proxy).await.unwrap();
    let mut stranger = RawClient::on(stream);
    stranger.send(b"PROXY TCP4 203.0.113.8 127.0.0.1 5000 80\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(stranger.response().await.status, 400);
    assert!(upstream.seen().is_empty());
    assert_eq!(get_from("127.0.0.9", gate.proxy, CHAT, &[]).await.status, 200, "he needs none");
}

#[tokio::test]
async fn a_proxy_protocol_header_comes_before_the_handshake() {
    let upstream = StubUpstream::start().await;
    let authority = Authority::new();
    let tls = authority.listener(&authority.sign("gate"), ClientCertificates::None);
    let gate = TestGate::start(upstream.address, |config| {
        config.listen.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        config.listen.proxy_protocol = true;
        config.listen.tls = Some(tls);
    });
    let mut stream = TcpStream::connect(gate.proxy).await.unwrap();
    stream.write_all(b"PROXY TCP4 203.0.113.8 127.0.0.1 5000 443\r\n").await.unwrap();
    let stream = authority.handshake(stream, &["h2"], None).await.unwrap();
    let mut client = http2::client(stream).await;
    let response = soon(client.send_request(http2::get(CHAT))).await.unwrap();
    assert_eq!(response.status(), 200);
    let seen = upstream.seen();
    assert_eq!(seen[0].headers["x-forwarded-for"], "203.0.113.8");
    assert_eq!(seen[0].headers["x-forwarded-proto"], "https");
}

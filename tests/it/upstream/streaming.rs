//! Bodies in both directions at once, responses that come early, and tunnels.

use std::time::Duration;

use cxgate::serve::Caps;
use tokio::io::AsyncWriteExt;

use crate::support::{
    forwarding::{Forwarding, to},
    listening::wide,
    raw_client::RawClient,
    raw_upstream::RawUpstream,
    soon,
};

const PIECE: usize = 64 * 1024;
const PIECES: usize = 128;

#[tokio::test]
async fn bodies_stream_in_both_directions_at_once() {
    let upstream = RawUpstream::start(|_, mut connection| async move {
        connection.request().await;
        connection.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", PIECE * PIECES)).await;
        for _ in 0..PIECES {
            let piece = connection.take(PIECE).await;
            connection.send(piece).await;
        }
        connection.request().await;
    })
    .await;
    let forwarding = Forwarding::new(&to(upstream.address()));
    let listening = forwarding.behind_a_listener(wide());
    let mut client = RawClient::connect(listening.address).await;
    client.send(format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n", PIECE * PIECES)).await;
    assert_eq!(client.head().await.0, 200);
    // No piece is sent before the one before it has come back: whoever gathered them would wait for ever.
    for number in 0..PIECES {
        let piece = vec![u8::try_from(number).unwrap(); PIECE];
        client.send(&piece).await;
        assert!(client.take(PIECE).await == piece, "piece {number} came back changed");
    }
    assert_eq!(forwarding.ended("answered"), 1);
}

#[tokio::test]
async fn bodies_that_trickle_are_not_stalled() {
    let idle = Duration::from_secs(1);
    let upstream = RawUpstream::start(|_, mut connection| async move {
        connection.request().await;
        connection.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n").await;
        for _ in 0..4 {
            let piece = connection.take(1).await;
            connection.send(piece).await;
        }
        connection.request().await;
    })
    .await;
    let forwarding = Forwarding::with_body_idle(&to(upstream.address()), idle);
    let listening = forwarding.behind_a_listener(Caps { body_idle_timeout: idle, ..wide() });
    let mut client = RawClient::connect(listening.address).await;
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\n").await;
    assert_eq!(client.head().await.0, 200);
    for piece in ["a", "b", "c", "d"] {
        tokio::time::sleep(idle * 2 / 5).await;
        client.send(piece).await;
        assert_eq!(client.take(1).await, piece.as_bytes());
    }
}

#[tokio::test]
async fn a_chunked_body_goes_out_in_chunks_whatever_the_method() {
    for method in ["POST", "GET"] {
        let upstream = RawUpstream::start(|_, mut connection| async move {
            let head = connection.request().await.unwrap();
            assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
            assert_eq!(connection.take(15).await, b"5\r\nhello\r\n0\r\n\r\n");
            connection.answer("taken").await;
            connection.request().await;
        })
        .await;
        let listening = Forwarding::new(&to(upstream.address())).behind_a_listener(wide());
        let mut client = RawClient::connect(listening.address).await;
        client
            .send(format!("{method} / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"))
            .await;
        assert_eq!(client.response().await.text(), "taken");
    }
}

#[tokio::test]
async fn a_response_may_come_before_the_body_is_through() {
    let upstream = RawUpstream::start(|number, mut connection| async move {
        connection.request().await;
        connection.answer(if number == 0 { "enough" } else { "next" }).await;
        connection.closed().await;
    })
    .await;
    let forwarding = Forwarding::new(&to(upstream.address()));
    let listening = forwarding.behind_a_listener(wide());
    let mut client = RawClient::connect(listening.address).await;
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\nthe beginning").await;
    assert_eq!(client.response().await.text(), "enough");
    // The rest of the body is nobody's: neither connection can carry another request.
    forwarding.open_connections(0).await;
    client.rest().await;
    assert_eq!(RawClient::connect(listening.address).await.get("/").await.text(), "next");
}

#[tokio::test]
async fn a_client_that_is_slow_to_send_does_not_use_up_the_upstreams_time() {
    let upstream = RawUpstream::start(|_, mut connection| async move {
        connection.request().await;
        connection.take(6).await;
        connection.answer("patient").await;
        connection.request().await;
    })
    .await;
    let mut config = to(upstream.address());
    config.response_timeout = Duration::from_millis(100);
    let listening = Forwarding::new(&config).behind_a_listener(wide());
    let mut client = RawClient::connect(listening.address).await;
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 6\r\n\r\n").await;
    for piece in ["ab", "cd", "ef"] {
        tokio::time::sleep(config.response_timeout * 3).await;
        client.send(piece).await;
    }
    assert_eq!(client.response().await.text(), "patient");
}

#[tokio::test]
async fn the_response_time_counts_from_the_last_piece_the_upstream_took() {
    let upstream = RawUpstream::start(|_, mut connection| async move {
        let head = connection.request().await.unwrap();
        if head.contains("/taken") {
            connection.take(3).await;
            connection.closed().await;
        }
        std::future::pending::<()>().await;
    })
    .await;
    let mut config = to(upstream.address());
    config.response_timeout = Duration::from_millis(200);
    let forwarding = Forwarding::new(&config);
    let listening = forwarding.behind_a_listener(wide());
    let mut client = RawClient::connect(listening.address).await;
    client.send("POST /taken HTTP/1.1\r\nhost: test\r\ncontent-length: 3\r\n\r\nabc").await;
    assert_eq!(client.response().await.text(), "ResponseTimeout");

    let mut client = RawClient::connect(listening.address).await;
    let length = 32 * 1024 * 1024;
    client.send(format!("POST /unread HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n")).await;
    // The listener stops reading, answers, and closes in the middle of this.
    let _ = soon(client.stream.write_all(&vec![b'x'; length])).await;
    assert_eq!(client.response().await.text(), "ResponseTimeout");
    forwarding.open_connections(0).await;
}

#[tokio::test]
async fn an_upgrade_makes_a_tunnel_through_both_sides() {
    let upstream = RawUpstream::start(|_, mut connection| async move {
        let head = connection.request().await.unwrap();
        assert!(head.contains("upgrade: echo\r\n"), "{head}");
        // The first words may come with the head.
        connection.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nwelcome").await;
        for _ in 0..3 {
            let word = connection.take(4).await;
            connection.send(word).await;
        }
        connection.closed().await;
    })
    .await;
    let mut config = to(upstream.address());
    config.max_connections = 1;
    config.connect_timeout = Duration::from_millis(200);
    let forwarding = Forwarding::new(&config);
    let listening = forwarding.behind_a_listener(wide());
    let mut client = RawClient::connect(listening.address).await;
    client.send("GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await;
    let (status, head) = client.head().await;
    assert!(status == 101 && head.contains("upgrade: echo"), "{head}");
    assert_eq!(client.take(7).await, b"welcome");
    for word in ["fast", "ping", "pong"] {
        client.send(word).await;
        assert_eq!(client.take(4).await, word.as_bytes());
    }
    let other = RawClient::connect(listening.address).await.get("/").await;
    assert_eq!(other.text(), "Busy", "a tunnel keeps its place among the connections");
    drop(client);
    forwarding.open_connections(0).await;
}

//! WebSockets through the gate: what passes, what it costs, and how it ends.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use cxgate::config::{Config, Rate, TokenBucket, WebSocket};
use tokio::time::Instant;

use crate::support::{
    raw_client::RawClient,
    raw_upstream::RawUpstream,
    redis_server::RedisServer,
    soon,
    test_gate::{TestGate, bucket_of},
    token_server::{TokenServer, with_credentials},
    until,
    websocket::{BINARY, CLOSE, Frame, PING, Socket, TEXT, echoing, frame, masked, open, request},
};

mod carrying;
mod cases;
mod conformance;
mod sharing;

const CHAT: &str = "/api/v2/engage/webchat/socket";

/// A gate of 20 messages at once and 10 a second, unless changed.
fn policy() -> WebSocket {
    WebSocket {
        sockets: 100,
        messages: bucket(20, 10.0),
        costs: BTreeMap::new(),
        max_pause: Duration::from_secs(10),
        idle_timeout: Duration::from_mins(1),
        exact: false,
    }
}

fn bucket(capacity: u32, rate: f64) -> TokenBucket {
    TokenBucket { capacity, refill_per_second: Rate::per_second(rate).unwrap() }
}

/// The one route with `policy`, and limits of its own that are never met.
fn gated(policy: WebSocket) -> impl FnOnce(&mut Config) {
    move |config| {
        *bucket_of(config) = bucket(10_000, 10_000.0);
        config.routes[0].websocket = Some(policy);
    }
}

fn gate(upstream: SocketAddr, policy: WebSocket) -> TestGate {
    TestGate::start(upstream, gated(policy))
}

async fn messages(gate: &TestGate, decision: &str) -> u64 {
    gate.count(&format!(r#"cxgate_websocket_messages_total{{route="guest-webchat",decision="{decision}"}}"#)).await
}

async fn closes(gate: &TestGate, code: u16) -> u64 {
    gate.count(&format!(r#"cxgate_websocket_closes_total{{route="guest-webchat",code="{code}"}}"#)).await
}

async fn open_sockets(gate: &TestGate) -> String {
    gate.metric(r#"cxgate_websockets{route="guest-webchat"}"#).await
}

fn text(payload: impl AsRef<[u8]>) -> Frame {
    Frame { first: TEXT, payload: payload.as_ref().to_vec() }
}

#[tokio::test]
async fn fifty_messages_at_once_arrive_unchanged_in_order_and_paced() {
    let upstream = echoing().await;
    let gate = gate(upstream.address(), policy());
    let mut socket = Socket::open(gate.proxy, CHAT, "a").await;
    let began = Instant::now();
    let all: Vec<u8> = (0..50).flat_map(|number| masked(TEXT, format!("message {number}").as_bytes())).collect();
    socket.0.send(all).await;
    for number in 0..50 {
        assert_eq!(socket.frame().await, text(format!("message {number}")));
    }
    let taken = began.elapsed();
    // 20 are there, 30 come at 10 a second; a busy machine may only be slower.
    assert!((Duration::from_millis(2900)..Duration::from_secs(9)).contains(&taken), "{taken:?}");
    assert_eq!(messages(&gate, "admitted").await + messages(&gate, "paced").await, 50);
    assert!(messages(&gate, "paced").await >= 20);
}

#[tokio::test]
async fn messages_of_all_sockets_of_a_client_and_of_all_replicas_share_a_bucket() {
    let (upstream, redis) = (echoing().await, RedisServer::start());
    let policy = || WebSocket { messages: bucket(4, 0.001), max_pause: Duration::from_secs(1), exact: true, ..policy() };
    let one = TestGate::on_redis(upstream.address(), &redis, gated(policy())).await;
    let other = TestGate::on_redis(upstream.address(), &redis, gated(policy())).await;
    let mut sockets = [
        Socket::open(one.proxy, CHAT, "a").await,
        Socket::open(one.proxy, CHAT, "a").await,
        Socket::open(other.proxy, CHAT, "a").await,
        Socket::open(other.proxy, CHAT, "a").await,
    ];
    for socket in &mut sockets {
        socket.send(TEXT, "hello").await;
        assert_eq!(socket.frame().await, text("hello"));
    }
    sockets[0].send(TEXT, "one too many").await;
    assert_eq!(sockets[0].closed().await, 1008);
    let mut stranger = Socket::open(one.proxy, CHAT, "b").await;
    stranger.send(TEXT, "hello").await;
    assert_eq!(stranger.frame().await, text("hello"));
}

#[tokio::test]
async fn a_message_that_would_have_to_wait_too_long_closes_both_sides_with_1008() {
    let upstream = RawUpstream::start(|_, mut connection| async move {
        open(&mut connection).await.unwrap();
        assert_eq!(frame(&mut connection.stream).await, Some((TEXT, b"first".to_vec())));
        let (first, payload) = frame(&mut connection.stream).await.expect("a close");
        connection.send([b"\x81\x05close", &[first, payload[0], payload[1]][..]].concat()).await;
    })
    .await;
    let gate = gate(upstream.address(), WebSocket { messages: bucket(1, 0.001), ..policy() });
    let mut socket = Socket::open(gate.proxy, CHAT, "a").await;
    let flood: Vec<u8> = (0..20_000).flat_map(|_| masked(TEXT, b"flooding")).collect();
    socket.send(TEXT, "first").await;
    socket.0.send(flood).await;
    assert_eq!(socket.closed().await, 1008);
    assert_eq!((closes(&gate, 1008).await, messages(&gate, "refused").await), (1, 1));
    assert_eq!(gate.count(r#"cxgate_violations_total{origin="local"}"#).await, 1);
    until(async || open_sockets(&gate).await == "0").await;
}

#[tokio::test]
async fn fragments_belong_to_their_message_and_control_frames_are_free() {
    let upstream = echoing().await;
    let gate = gate(upstream.address(), WebSocket { messages: bucket(2, 0.001), ..policy() });
    let mut socket = Socket::open(gate.proxy, CHAT, "a").await;
    let frames: [(u8, &[u8]); 7] = [
        (0x01, b"one "),
        (PING, b"ping"),
        (0x00, b"message "),
        (0x80, b"in three fragments"),
        (0x8A, b""),
        (0xC2, b"compressed"),
        (PING, b""),
    ];
    for (first, payload) in frames {
        socket.send(first, payload).await;
        assert_eq!(socket.frame().await, Frame { first, payload: payload.to_vec() });
    }
    assert_eq!(messages(&gate, "admitted").await, 2);
    socket.send(CLOSE, 1000_u16.to_be_bytes()).await;
    assert_eq!(socket.closed().await, 1000);
}

#[tokio::test]
async fn messages_cost_what_their_action_or_event_type_says() {
    let upstream = echoing().await;
    let costs = BTreeMap::from([("SendMessage".to_owned(), 3), ("join".to_owned(), 5)]);
    let gate = gate(upstream.address(), WebSocket { messages: bucket(10, 0.001), costs, exact: true, ..policy() });
    let dear = r#"{"action":"event","payload":{"eventType":"SendMessage"}}"#;
    let padded = format!(r#"{{"action":"heartbeat","x":"{}"}}"#, "x".repeat(5000));
    for (client, message) in [("a", dear), ("b", r#"{"action":"join"}"#), ("c", padded.as_str())] {
        let mut socket = Socket::open(gate.proxy, CHAT, client).await;
        let passes = if client == "a" { 3 } else { 2 };
        for _ in 0..passes {
            socket.send(TEXT, message).await;
            assert_eq!(socket.frame().await, text(message));
        }
        socket.send(TEXT, message).await;
        assert_eq!(socket.closed().await, 1008, "{client}");
    }
    let mut socket = Socket::open(gate.proxy, CHAT, "d").await;
    for _ in 0..10 {
        socket.send(TEXT, r#"{"action":"heartbeat"}"#).await;
        socket.frame().await;
    }
}

#[tokio::test]
async fn a_busy_socket_asks_the_store_seldom_and_gives_back_what_it_did_not_use() {
    let (upstream, redis) = (echoing().await, RedisServer::start());
    let policy = WebSocket { messages: bucket(200, 0.001), ..policy() };
    let gate = TestGate::on_redis(upstream.address(), &redis, gated(policy)).await;
    let mut busy = Socket::open(gate.proxy, CHAT, "a").await;
    let before = gate.count("cxgate_store_duration_seconds_count").await;
    for _ in 0..150 {
        busy.send(TEXT, "hello").await;
        busy.frame().await;
    }
    let asked = gate.count("cxgate_store_duration_seconds_count").await - before;
    // 17 messages an operation; on a machine that stands still for a second, some more.
    assert!(asked < 50, "150 messages took {asked} operations");
    busy.send(CLOSE, 1000_u16.to_be_bytes()).await;
    busy.closed().await;
    drop(busy);
    until(async || open_sockets(&gate).await == "0").await;
    let mut next = Socket::open(gate.proxy, CHAT, "a").await;
    for _ in 0..50 {
        next.send(TEXT, "hello").await;
        assert_eq!(next.frame().await, text("hello"));
    }
    next.send(TEXT, "one too many").await;
    assert_eq!(next.closed().await, 1008);
}

#[tokio::test]
async fn a_client_has_only_so_many_sockets_and_a_closed_one_makes_room() {
    let upstream = echoing().await;
    let gate = gate(upstream.address(), WebSocket { sockets: 2, ..policy() });
    let (mut first, _second) = (Socket::open(gate.proxy, CHAT, "a").await, Socket::open(gate.proxy, CHAT, "a").await);
    let _other = Socket::open(gate.proxy, CHAT, "b").await;
    let ask = async || {
        let mut third = RawClient::connect(gate.proxy).await;
        third.send(request(CHAT, "a")).await;
        third.head().await
    };
    let mut third = RawClient::connect(gate.proxy).await;
    third.send(request(CHAT, "a")).await;
    let refusal = third.response().await;
    assert_eq!((refusal.status, refusal.text()), (429, r#"{"error":"too_many_sockets"}"#));
    assert_eq!(refusal.field("retry-after"), Some("10"));
    // Each is told of the switch before its relay begins.
    until(async || open_sockets(&gate).await == "3").await;
    first.send(CLOSE, 1000_u16.to_be_bytes()).await;
    first.closed().await;
    until(async || ask().await.0 == 101).await;
}

#[tokio::test]
async fn frames_that_break_the_protocol_close_with_1002() {
    let upstream = echoing().await;
    let gate = gate(upstream.address(), policy());
    let cases: [(&str, u8, &[u8]); 5] = [
        ("not masked", TEXT, b"\x81\x05Hello"),
        ("reserved opcode", TEXT, b"\x83\x80\0\0\0\0"),
        ("fragmented ping", TEXT, b"\x09\x80\0\0\0\0"),
        ("a continuation of nothing", TEXT, b"\x80\x80\0\0\0\0"),
        ("a message inside a message", 0x01, b"\x81\x80\0\0\0\0"),
    ];
    for (what, before, bytes) in cases {
        let mut socket = Socket::open(gate.proxy, CHAT, "a").await;
        socket.send(before, "before").await;
        assert_eq!(socket.frame().await.first, before, "what came before has passed");
        socket.0.send(bytes).await;
        assert_eq!(socket.closed().await, 1002, "{what}");
    }
    assert_eq!(closes(&gate, 1002).await, 5);
}

#[tokio::test]
async fn a_switch_that_was_not_asked_for_is_refused_and_costs_like_a_request() {
    let switched = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                    sec-websocket-accept: x\r\n\r\nsecret";
    let upstream = RawUpstream::stalling(switched).await;
    let gate = gate(upstream.address(), policy());
    let mut client = RawClient::connect(gate.proxy).await;
    client.send([request(CHAT, "a").as_bytes(), &masked(TEXT, b"early")].concat()).await;
    let refusal = client.response().await;
    assert_eq!((refusal.status, refusal.text()), (502, r#"{"error":"upstream_failed"}"#));
    let admitted = r#"cxgate_decisions_total{route="guest-webchat",limit="per-client",decision="admitted"}"#;
    assert_eq!(gate.count(admitted).await, 1);
    assert_eq!(open_sockets(&gate).await, "0");
    assert!(upstream.requests()[0].contains("upgrade: websocket"));
    // Another protocol has no gate here: the wish to switch goes no further.
    let mut client = RawClient::connect(gate.proxy).await;
    client.send(request(CHAT, "a").replace("upgrade: websocket", "upgrade: h2c")).await;
    assert_eq!(client.response().await.status, 502);
    assert!(!upstream.requests()[1].contains("h2c"), "{:?}", upstream.requests());
}

#[tokio::test]
async fn silence_ends_a_socket_and_heartbeats_keep_it() {
    let upstream = echoing().await;
    let idle_timeout = Duration::from_millis(1500);
    let gate = gate(upstream.address(), WebSocket { max_pause: Duration::from_secs(1), idle_timeout, ..policy() });
    let mut socket = Socket::open(gate.proxy, CHAT, "a").await;
    let began = Instant::now();
    while began.elapsed() < 2 * idle_timeout {
        socket.send(PING, "").await;
        socket.frame().await;
        tokio::time::sleep(idle_timeout / 10).await;
    }
    assert_eq!(socket.closed().await, 1001);
}

#[tokio::test]
async fn a_drain_closes_sockets_with_1001_between_two_frames_after_a_grace_period() {
    let upstream = RawUpstream::start(|_, mut connection| async move {
        open(&mut connection).await.unwrap();
        // Half a frame; the other half comes only when the gate has said that it goes.
        connection.send(b"\x81\x08half").await;
        assert_eq!(frame(&mut connection.stream).await.map(|(first, _)| first), Some(TEXT));
        assert_eq!(frame(&mut connection.stream).await.map(|(first, _)| first), Some(CLOSE));
        connection.send(b"half").await;
    })
    .await;
    let gate = TestGate::start(upstream.address(), |config| {
        config.listen.drain_timeout = Duration::from_secs(4);
        gated(policy())(config);
    });
    let mut socket = Socket::open(gate.proxy, CHAT, "a").await;
    gate.shutdown.drain();
    socket.send(TEXT, "still open").await;
    assert_eq!(socket.frame().await, text("halfhalf"));
    assert_eq!(socket.closed().await, 1001);
    soon(gate.shutdown.finished()).await;
}

#[tokio::test]
async fn a_route_with_credentials_holds_its_sockets_to_their_limits_too() {
    let (upstream, tokens) = (echoing().await, TokenServer::start(3600).await);
    let gate = TestGate::start(upstream.address(), |config| {
        gated(policy())(config);
        with_credentials(config, tokens.stub.address);
    });
    let mut socket = Socket::open(gate.proxy, CHAT, "a").await;
    socket.send(TEXT, "hello").await;
    assert_eq!(socket.frame().await, text("hello"));
    assert_eq!(messages(&gate, "admitted").await, 1);
}

//! Floods of frames: what is decided is paid for, what is not ends the connection, and others are served all the while.

use cxgate::config::{Dimension, Rate, TokenBucket};

use crate::support::{
    http,
    http2::{CONTINUATION, DATA, Frames, HEADERS, PING, RST_STREAM, SETTINGS, WHOLE, fields, frame, get_fields},
    redis_server::RedisServer,
    stub_upstream::StubUpstream,
    test_gate::TestGate,
    until,
};

const CHAT: &str = "/api/v2/engage/webchat";
const CANCEL: [u8; 4] = [0, 0, 0, 8];
const ENHANCE_YOUR_CALM: u32 = 11;
const DECIDED: &str = r#"cxgate_decisions_total{route="guest-webchat",limit="per-client",decision="admitted"}"#;

/// One bucket for all, so large that nothing is refused, and all but without refill.
fn one_bucket(config: &mut cxgate::config::Config) {
    config.listen.h2c = true;
    let limit = &mut config.routes[0].limits[0].limit;
    limit.per = vec![Dimension::Route];
    limit.scale_by.clear();
    limit.kind = TokenBucket { capacity: 1000, refill_per_second: Rate::per_second(0.000_001).unwrap() }.into();
}

/// Sends requests and takes each back, `at_once` of them in one write, until `count` are sent or the connection ends.
async fn take_back(gate: &TestGate, count: u32, at_once: u32) -> u32 {
    let mut client = Frames::connect(gate.proxy).await;
    let mut sent = 0;
    while sent < count {
        let streams = (sent..(sent + at_once).min(count)).map(|index| index * 2 + 1);
        let frames = streams.flat_map(|stream| {
            [frame(HEADERS, WHOLE, stream, &get_fields(CHAT)), frame(RST_STREAM, 0, stream, &CANCEL)].concat()
        });
        if client.send(&frames.collect::<Vec<_>>()).await.is_err() {
            break;
        }
        sent += at_once;
        if at_once == 1 {
            // Until the server has seen it: so that no reset comes in the same read as the next request.
            client.send(&frame(PING, 0, 0, &u64::from(sent).to_be_bytes())).await.unwrap();
            while client
                .next()
                .await
                .is_some_and(|(kind, _, payload)| kind != PING || payload != u64::from(sent).to_be_bytes())
            {}
        }
    }
    sent.min(count)
}

/// What is left of the bucket, once decisions have stopped coming.
async fn left(gate: &TestGate) -> u32 {
    let answer = http::get(gate.proxy, CHAT, &[]).await;
    answer.header("x-ratelimit-remaining").parse().unwrap()
}

#[tokio::test]
async fn a_request_that_is_taken_back_has_still_cost_its_token() {
    let upstream = StubUpstream::start().await;
    let redis = RedisServer::start();
    for gate in
        [TestGate::start(upstream.address, one_bucket), TestGate::on_redis(upstream.address, &redis, one_bucket).await]
    {
        assert_eq!(take_back(&gate, 50, 1).await, 50);
        until(async || left(&gate).await < 950).await;
    }
}

#[tokio::test]
async fn requests_taken_back_before_they_are_looked_at_end_the_connection() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, one_bucket);
    let mut client = Frames::connect(gate.proxy).await;
    let frames = (0..400).flat_map(|index| {
        let stream = index * 2 + 1;
        [frame(HEADERS, WHOLE, stream, &get_fields(CHAT)), frame(RST_STREAM, 0, stream, &CANCEL)].concat()
    });
    let _ = client.send(&frames.collect::<Vec<_>>()).await;
    let ended = client.ended().await;
    assert!(ended.is_none_or(|error| error == ENHANCE_YOUR_CALM), "{ended:?}");
    assert!(gate.count(DECIDED).await < 400);
    assert_eq!(http::get(gate.proxy, CHAT, &[]).await.status, 200);
}

#[tokio::test]
async fn floods_that_grow_memory_end_the_connection_and_others_are_served() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, one_bucket);
    let huge = [("x-field", "a".repeat(120))];
    let block = fields(&huge.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>());
    let endless_head = |flags: u8| {
        let begin = frame(HEADERS, 0, 1, &get_fields(CHAT));
        let more = frame(CONTINUATION, flags, 1, &block);
        [begin, more.repeat(20_000)].concat()
    };
    // A request whose stream has ended gets data for ever (RFC 9113, section 5.1: STREAM_CLOSED).
    let after_the_end = [frame(HEADERS, WHOLE, 1, &get_fields(CHAT)), frame(DATA, 0, 1, b"more").repeat(5000)].concat();
    // The table of the field coder grown by one large field, which every request then names by one byte (RFC 7541).
    let bomb = {
        let literal = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'a'; 4000]].concat();
        let block = [&get_fields(CHAT)[..], &literal, &[0xbe; 10_000]].concat();
        let frames = (0..50).flat_map(|index| frame(HEADERS, WHOLE, index * 2 + 1, &block));
        frames.collect::<Vec<u8>>()
    };
    let empty_data = [frame(HEADERS, 0x4, 1, &get_fields(CHAT)), frame(DATA, 0, 1, b"").repeat(50_000)].concat();
    for (name, attack, ends) in [
        ("a head without end", endless_head(0), true),
        ("data after the end", after_the_end, true),
        ("a field that unfolds", bomb, false),
        ("data without data", empty_data, true),
        ("settings", frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]).repeat(5000), false),
        ("pings", frame(PING, 0, 0, b"8 bytes!").repeat(5000), false),
    ] {
        let mut client = Frames::connect(gate.proxy).await;
        let sent = client.send(&attack).await;
        assert_eq!(http::get(gate.proxy, CHAT, &[]).await.status, 200, "{name}");
        if ends && sent.is_ok() {
            client.ended().await;
        }
        drop(client);
    }
    until(async || gate.count(r#"cxgate_connections{listener="proxy"}"#).await == 0).await;
    assert!(upstream.seen().iter().all(|seen| seen.headers.get("x").is_none()), "an unfolded field went on");
}

//! Instruction counts, which repeat to the unit where times do not: `make bench-instructions`.
//!
//! `compare`, beside this, then fails where a count is more than 5 % above that of limits.txt. Not promised: that another
//! compiler, or another processor's `memcpy`, counts the same.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to measure")]
#![expect(unused_qualifications, reason = "the macros of the harness qualify")]
#![expect(clippy::exit, reason = "the macros of the harness end the process")]
#![expect(missing_docs, reason = "the macros of the harness make items of their own")]
#![expect(unreachable_pub, reason = "in a binary nothing is reachable; `pub` says what a module offers")]

use std::{collections::BTreeMap, hint::black_box, sync::Arc, time::Duration};

use ::bytes::BytesMut;
use cxgate::{
    body::RequestBody,
    config::{Config, Factor},
    gate::{
        Gate,
        client::Identification,
        headers,
        queues::Queues,
        setup::{Neighbours, gate},
        websocket::frame::Boundaries,
    },
    limiter::{
        Charge, Kind, Limit, Limiter, Terms,
        bucket::{Bucket, MICRO},
        key::{Key, KeyHasher},
        memory::Memory,
        redis::script::{Flow, KeySpace, Script, verdict},
    },
    metrics::Metrics,
    peer::Peer,
    shutdown::Shutdown,
    upstream::Upstream,
    wire::{fields::FieldLines, request, response::HeadReader},
};
use gungraun::{Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};
use hyper::{HeaderMap, Request, Version};
use prometheus_client::metrics::gauge::Gauge;

mod rig;

use rig::Rig;

/// How often what is small is done, so that what surrounds it does not count.
const TIMES: u32 = 100;

const LIMIT: Limit =
    Limit { kind: Kind::Bucket(Bucket { capacity: 1000 * MICRO, rate: MICRO }), scale: None, slowest: Factor::ONE };

fn key(number: u32) -> Key {
    KeyHasher::new(None, "bench").start("limit").part(&number.to_le_bytes()).part(b"name").finish()
}

fn charges(first: u32, count: u32) -> Vec<Charge<'static>> {
    let charge = |number| Charge { limit: &LIMIT, key: key(number), cost: MICRO, terms: Terms::Take };
    (first..first + count).map(charge).collect()
}

fn request() -> Request<RequestBody> {
    let request = Request::get("/api/v2/engage/webchat/session-17?since=42")
        .header("Host", "chat.example")
        .header("X-Client-Id", "guest-1")
        .header("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
        .header("Accept", "application/json")
        .header("Accept-Language", "en")
        .header("Origin", "https://www.example.com")
        .header("Connection", "keep-alive");
    request.body(RequestBody::default()).expect("a request")
}

fn peer() -> Peer {
    Peer { address: "192.0.2.17:40000".parse().expect("an address"), secure: false, certificate: None }
}

fn hasher() -> KeyHasher {
    KeyHasher::new(None, "bench")
}

// === admission ===

fn built_in_gate() -> Gate {
    let (config, metrics, shutdown) = (Config::default(), Metrics::default(), Shutdown::default());
    let upstream = |(name, upstream): (&String, _)| {
        let upstream = Upstream::new(name, upstream, Duration::from_secs(30), &metrics).expect("an upstream");
        (name.clone(), Arc::new(upstream))
    };
    let upstreams = config.upstreams.iter().map(upstream).collect();
    let limiter = Arc::new(Limiter::start(&config.store, &metrics, &shutdown).expect("an embedded store"));
    let (floods, clients, measured) = (Arc::default(), Arc::default(), BTreeMap::new());
    let (queues, credentials) = (Arc::new(Queues::new(Arc::clone(&limiter), shutdown.clone())), BTreeMap::new());
    let neighbours =
        Neighbours { limiter, upstreams, credentials, floods, clients, measured, queues, shutdown, access: None };
    gate(&config, neighbours, &metrics)
}

#[library_benchmark]
#[bench::built_in(built_in_gate(), request())]
fn route_match(gate: Gate, request: Request<RequestBody>) -> Gate {
    for _ in 0..TIMES {
        let _ = black_box(gate.route(black_box(&request)));
    }
    gate
}

#[library_benchmark]
#[bench::named(Identification::new(&Config::default().identity, &[], hasher()), peer(), request())]
fn identity(identification: Identification, peer: Peer, request: Request<RequestBody>) {
    for _ in 0..TIMES {
        let _ = black_box(identification.client(black_box(&peer), black_box(&request)));
    }
}

#[library_benchmark]
#[bench::of_a_client(hasher())]
fn bucket_name(hasher: KeyHasher) {
    for _ in 0..TIMES {
        black_box(hasher.start(black_box("bench/per-client")).part(b"guest-1").part(b"name").finish());
    }
}

// === deciding ===

#[library_benchmark]
#[bench::settle_and_charge(Bucket { capacity: 1000 * MICRO, rate: MICRO })]
fn bucket(bucket: Bucket) {
    let mut level = bucket.full(0);
    for time in 0..u64::from(TIMES) {
        level = black_box(bucket).charge(bucket.settle(level, black_box(time)), MICRO).unwrap_or(level);
    }
    black_box(level);
}

fn store(clients: u32) -> Memory {
    let store = Memory::new(2_000_000, Gauge::default());
    for client in 0..clients {
        store.decide_at(&charges(client, 1), 0).expect("room");
    }
    store
}

#[library_benchmark]
#[bench::thousand_clients(args = (1_000, 1), setup = decisive)]
#[bench::hundred_thousand_clients(args = (100_000, 1), setup = decisive)]
#[bench::five_limits(args = (1_000, 5), setup = decisive)]
fn decision((store, charges): (Memory, Vec<Vec<Charge<'static>>>)) -> Memory {
    for (time, charges) in (1..).zip(&charges) {
        let _ = black_box(store.decide_at(black_box(charges), time));
    }
    store
}

/// A store of so many clients, and what some of them ask it of so many limits.
fn decisive(clients: u32, limits: u32) -> (Memory, Vec<Vec<Charge<'static>>>) {
    let step = clients / TIMES;
    (store(clients), (0..TIMES).map(|number| charges(number * step, limits)).collect())
}

#[library_benchmark]
#[bench::one_limit(KeySpace::new("cxgate"), charges(1, 1))]
fn encode(space: KeySpace, charges: Vec<Charge<'static>>) {
    let digest = Script::Charge.digest();
    for _ in 0..TIMES {
        black_box(space.charge(digest, Flow::Take, black_box(&charges)).get_packed_command());
    }
}

#[library_benchmark]
#[bench::one_limit(b"$17\r\n\x01\x02\x03\x04\x05\x06\0\x40\x54\x89\0\0\0\x40\x42\x0f\0\r\n", charges(1, 1))]
fn decode(reply: &[u8], charges: Vec<Charge<'static>>) {
    for _ in 0..TIMES {
        let value = redis::parse_redis_value(black_box(reply)).expect("a reply");
        black_box(verdict(&value, &charges));
    }
}

// === heads, lines and frames ===

#[library_benchmark]
#[bench::of_a_browser(request().headers().clone())]
fn head_rewriting(fields: HeaderMap) {
    let peer = peer().address.ip();
    for _ in 0..TIMES {
        let mut fields = black_box(&fields).clone();
        headers::strip_hop_by_hop(&mut fields, &[]);
        let mut added = FieldLines::begin(headers::via(Version::HTTP_11), 384);
        headers::set_forwarding(&mut fields, &mut added, peer, false, false);
        black_box((fields, added));
    }
}

const REQUEST: &[u8] = b"GET /api/v2/engage/webchat HTTP/1.1\r\nHost: chat.example\r\nX-Client-Id: guest-1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\nAccept: application/json\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\n\
    Content-Type: application/json\r\nContent-Length: 256\r\nConnection: keep-alive\r\n\r\n";

#[library_benchmark]
#[bench::both_directions(REQUEST, RESPONSE)]
fn strict_reading(request: &[u8], response: &[u8]) {
    let mut requests = request::HeadReader::new(32 * 1024);
    let mut responses = HeadReader::new(64 * 1024);
    let mut received = BytesMut::with_capacity(TIMES as usize * (request.len() + response.len()));
    for _ in 0..TIMES {
        received.extend_from_slice(black_box(request));
        black_box(requests.read(&mut received)).expect("a request");
        received.extend_from_slice(black_box(response));
        black_box(responses.read(&mut received)).expect("a response");
    }
}

#[library_benchmark]
#[bench::small_messages([&b"\x81\x10"[..], &[b'x'; 16]].concat().repeat(64))]
fn frame_boundaries(bytes: Vec<u8>) {
    let mut boundaries = Boundaries::default();
    for _ in 0..TIMES {
        black_box(boundaries.feed(black_box(&bytes)));
    }
}

// === whole exchanges ===

#[library_benchmark]
#[bench::without_limit(args = (Rig::limited, 0), setup = start)]
#[bench::admitted(args = (Rig::limited, 1), setup = start)]
#[bench::admitted_by_five(args = (Rig::limited, 5), setup = start)]
#[bench::refused(args = (|_| Rig::refusing(), 0), setup = start)]
#[bench::message_relayed(args = (|_| Rig::socket(), 0), setup = start)]
fn exchange(mut rig: Rig) -> Rig {
    for _ in 0..TIMES {
        rig.exchange();
    }
    rig
}

fn start(rig: fn(usize) -> Rig, limits: usize) -> Rig {
    rig(limits)
}

library_benchmark_group!(name = admission, benchmarks = [route_match, identity, bucket_name]);
library_benchmark_group!(name = deciding, benchmarks = [bucket, decision, encode, decode]);
library_benchmark_group!(name = bytes, benchmarks = [head_rewriting, strict_reading, frame_boundaries]);
library_benchmark_group!(name = whole, benchmarks = [exchange]);
main!(
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args(["--cache-sim=no"]).format([EventKind::Ir]));
    library_benchmark_groups = admission, deciding, bytes, whole
);

//! Sockets of a client over all replicas: counted in the store, whatever becomes of it and of them.

use cxgate::config::{self, OnFailure};
use tokio::task::JoinSet;

use super::*;
use crate::support::{
    cluster::Cluster,
    daemon::Daemon,
    oracle::Oracle,
    raw_client::RawResponse,
    rig::{self, Rig},
    test_gate::bucket_of,
};

/// A replica that lets a client have so many sockets.
async fn replica(upstream: SocketAddr, redis: &RedisServer, sockets: u32, on_failure: OnFailure) -> TestGate {
    TestGate::on_redis(upstream, redis, |config| {
        config.store.on_failure = on_failure;
        gated(WebSocket { sockets, ..policy() })(config);
    })
    .await
}

/// A socket, or the answer that refuses it.
async fn ask(gate: SocketAddr, client: &str) -> Result<Socket, RawResponse> {
    let mut raw = RawClient::connect(gate).await;
    raw.send(request(CHAT, client)).await;
    // A 101 has no body.
    let answer = raw.response().await;
    if answer.status == 101 { Ok(Socket(raw)) } else { Err(answer) }
}

async fn refused(gate: SocketAddr, client: &str) -> String {
    let refusal = ask(gate, client).await.err().expect("a refusal");
    format!("{} {}", refusal.status, refusal.text())
}

const TOO_MANY: &str = r#"429 {"error":"too_many_sockets"}"#;

async fn close(socket: &mut Socket) {
    socket.send(CLOSE, 1000_u16.to_be_bytes()).await;
    socket.closed().await;
}

/// The key under which the one client's places are; there must be no other.
async fn key(redis: &RedisServer) -> Option<String> {
    let keys: Vec<String> = redis::cmd("KEYS").arg("*:places:*").query_async(&mut redis.client().await).await.unwrap();
    assert!(keys.len() < 2, "{keys:?}");
    keys.into_iter().next()
}

/// How many places of the one client the store holds.
async fn held(redis: &RedisServer) -> u32 {
    let Some(key) = key(redis).await else { return 0 };
    redis::cmd("ZCARD").arg(key).query_async(&mut redis.client().await).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_of_all_replicas_count_together_and_one_that_closes_makes_room_on_all() {
    let (upstream, redis) = (echoing().await, RedisServer::start());
    let one = replica(upstream.address(), &redis, 5, OnFailure::Deny).await;
    let other = replica(upstream.address(), &redis, 5, OnFailure::Deny).await;
    let mut asking = JoinSet::new();
    for number in 0..60 {
        asking.spawn(ask(if number % 2 == 0 { one.proxy } else { other.proxy }, "a"));
    }
    let mut open: Vec<_> = asking.join_all().await.into_iter().filter_map(Result::ok).collect();
    assert_eq!((open.len(), held(&redis).await), (5, 5));
    for gate in [&one, &other] {
        let refusal = ask(gate.proxy, "a").await.err().expect("a refusal");
        assert_eq!((refusal.status, refusal.text()), (429, r#"{"error":"too_many_sockets"}"#));
        assert_eq!(refusal.field("retry-after"), Some("10"));
        assert!(ask(gate.proxy, "b").await.is_ok(), "the limit is each client's own");
    }
    until(async || redis_keys(&redis).await == 1).await;
    for socket in &mut open {
        close(socket).await;
    }
    until(async || held(&redis).await == 0).await;
    let again = [ask(one.proxy, "a").await, ask(other.proxy, "a").await];
    assert!(again.iter().all(Result::is_ok));
}

async fn redis_keys(redis: &RedisServer) -> usize {
    let keys: Vec<String> = redis::cmd("KEYS").arg("*:places:*").query_async(&mut redis.client().await).await.unwrap();
    keys.len()
}

#[tokio::test]
async fn a_handshake_that_fails_holds_no_place() {
    let (upstream, redis) = (RawUpstream::answering("no").await, RedisServer::start());
    let gate = TestGate::on_redis(upstream.address(), &redis, |config| {
        gated(WebSocket { sockets: 1, ..policy() })(config);
        *bucket_of(config) = bucket(3, 0.001);
    })
    .await;
    let mut statuses = Vec::new();
    for _ in 0..6 {
        let mut client = RawClient::connect(gate.proxy).await;
        client.send(request(CHAT, "a")).await;
        statuses.push(client.response().await.status);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429, 429], "refused by the limit of requests, not for lack of a place");
    until(async || held(&redis).await == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_sockets_stay_each_replica_gives_its_share_and_redis_learns_of_them_when_it_is_back() {
    let (upstream, mut redis) = (echoing().await, RedisServer::start());
    let one = replica(upstream.address(), &redis, 3, OnFailure::Local).await;
    let other = replica(upstream.address(), &redis, 3, OnFailure::Local).await;
    until(async || one.metric("cxgate_store_replicas").await == "2" && other.metric("cxgate_store_replicas").await == "2")
        .await;
    let mut open = vec![ask(one.proxy, "a").await.unwrap(), ask(one.proxy, "a").await.unwrap()];
    redis.stop();
    one.until_store_is("local").await;
    other.until_store_is("local").await;
    // Half of three, rounded up: the one has it already.
    assert_eq!(refused(one.proxy, "a").await, TOO_MANY);
    open.push(ask(other.proxy, "a").await.unwrap());
    open.push(ask(other.proxy, "a").await.unwrap());
    assert_eq!(refused(other.proxy, "a").await, TOO_MANY);
    redis.restart();
    // It came back empty.
    until(async || held(&redis).await == 4).await;
    for socket in &mut open {
        socket.send(TEXT, "still open").await;
        assert_eq!(socket.frame().await, text("still open"));
    }
    assert_eq!(refused(one.proxy, "a").await, TOO_MANY);
    close(&mut open[0]).await;
    close(&mut open[2]).await;
    until(async || held(&redis).await == 2).await;
    assert!(ask(other.proxy, "a").await.is_ok());
}

#[tokio::test]
async fn with_deny_no_socket_opens_without_redis_but_those_that_are_open_stay() {
    let (upstream, mut redis) = (echoing().await, RedisServer::start());
    let gate = replica(upstream.address(), &redis, 3, OnFailure::Deny).await;
    let mut socket = ask(gate.proxy, "a").await.unwrap();
    redis.stop();
    gate.until_store_is("deny").await;
    assert_eq!(refused(gate.proxy, "a").await, r#"503 {"error":"store_unavailable"}"#);
    socket.send(PING, "there?").await;
    assert_eq!(socket.frame().await.first, PING);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stops_frees_its_places_at_once_and_one_that_died_when_its_leases_end() {
    let (upstream, redis) = (echoing().await, RedisServer::start());
    let stopping = replica(upstream.address(), &redis, 1, OnFailure::Deny).await;
    let other = replica(upstream.address(), &redis, 1, OnFailure::Deny).await;
    let _gone = ask(stopping.proxy, "a").await.unwrap();
    assert_eq!(refused(other.proxy, "a").await, TOO_MANY);
    stopping.shutdown.stop();
    until(async || held(&redis).await == 0).await;

    let (url, address) = (redis.url(), upstream.address());
    let dying = Daemon::start(&format!(
        "[store]\nredis = \"{url}\"\ndeadline = \"2s\"\n[upstreams.cxone]\nurl = \"http://{address}\"\n\
         [[routes]]\nname = \"guest-webchat\"\npaths = [\"/\"]\nupstream = \"cxone\"\n\
         websocket = {{ sockets = 1 }}\n"
    ))
    .await;
    // Redis decides once the daemon has reached it.
    until(async || ask(dying.proxy, "a").await.is_ok() && held(&redis).await == 1).await;
    dying.signal("KILL");
    dying.ended().await;
    assert_eq!(refused(other.proxy, "a").await, TOO_MANY);
    let (key, mut client) = (key(&redis).await.unwrap(), redis.client().await);
    let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut client).await.unwrap();
    assert!((1..=30_000).contains(&left), "{left} ms");
    // Half a minute passes, as its lease has it.
    let dead: Vec<Vec<u8>> = redis::cmd("ZRANGE").arg(&key).arg(0).arg(-1).query_async(&mut client).await.unwrap();
    redis::cmd("ZINCRBY").arg(&key).arg(-30_000).arg(&dead[0]).query_async::<redis::Value>(&mut client).await.unwrap();
    assert!(ask(other.proxy, "a").await.is_ok());
}

#[tokio::test]
async fn places_are_spoken_for_again_and_again() {
    let (upstream, redis) = (echoing().await, RedisServer::start());
    let gate = replica(upstream.address(), &redis, 3, OnFailure::Deny).await;
    let _socket = ask(gate.proxy, "a").await.unwrap();
    redis.tell("FLUSHALL").await;
    until(async || held(&redis).await == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_too_places_of_all_replicas_count_together_and_are_given_up() {
    let cluster = Cluster::start().await;
    let deadline = Duration::from_secs(2);
    let config = config::Store { redis: Some(cluster.config()), deadline, ..rig::store() };
    let replicas = [Rig::over(&config), Rig::over(&config)];
    for replica in &replicas {
        replica.until(true).await;
    }
    let mut held = Vec::new();
    for name in 0..30 {
        let client = rig::key(&name.to_string());
        for (replica, granted) in [(0, true), (1, true), (0, false), (1, false)] {
            let place = replicas[replica].limiter.place(client, 2).await;
            assert_eq!(place.is_ok(), granted, "client {name}, replica {replica}");
            held.extend(place);
        }
    }
    drop(held);
    // Neither of them is left with the other replica.
    for name in 0..30 {
        let client = rig::key(&name.to_string());
        let both = async || {
            let first = replicas[1].limiter.place(client, 2).await;
            first.is_ok() && replicas[1].limiter.place(client, 2).await.is_ok()
        };
        until(both).await;
    }
    for replica in replicas {
        replica.stop().await;
    }
}

/// Messages that two sockets on each of two replicas admitted beyond 20 at once and 50 a second, one after the other on each.
async fn excess_of_messages(exact: bool) -> f64 {
    let (upstream, redis) = (echoing().await, RedisServer::start());
    let policy = || WebSocket { messages: bucket(20, 50.0), exact, ..policy() };
    let one = TestGate::on_redis(upstream.address(), &redis, gated(policy())).await;
    let other = TestGate::on_redis(upstream.address(), &redis, gated(policy())).await;
    let oracle = Oracle::new();
    let until = Instant::now() + Duration::from_secs(2);
    let mut sending = JoinSet::new();
    for gate in [one.proxy, one.proxy, other.proxy, other.proxy] {
        let (mut socket, oracle) = (Socket::open(gate, CHAT, "a").await, oracle.clone());
        sending.spawn(async move {
            while Instant::now() < until {
                let sent = Instant::now();
                socket.send(TEXT, "x").await;
                socket.frame().await;
                oracle.admitted(sent);
            }
        });
    }
    sending.join_all().await;
    assert!(oracle.count() >= 20 + 50, "{} messages", oracle.count());
    oracle.excess(20, 50.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_exact_no_message_too_many_passes_over_two_replicas() {
    let excess = excess_of_messages(true).await;
    println!("E = {excess}");
    assert!(excess <= 1.0, "{excess} messages too many");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_exact_at_most_what_each_socket_reserved_passes_too_many() {
    let excess = excess_of_messages(false).await;
    println!("E = {excess}");
    // A tenth of the capacity for each of four sockets.
    assert!(excess <= 8.0, "{excess} messages too many");
}

//! Decisions that have to wait for Redis anyway share a call, and nobody can tell by the answers.

use std::{collections::BTreeMap, sync::Arc};

use cxgate::{
    config::{Factor, OnFailure},
    limiter::{
        Charge, Decision, Limit, Terms,
        bucket::{Bucket, MICRO},
        window::Window,
    },
};
use tokio::task::JoinSet;

use crate::support::{
    oracle::tokens,
    redis_server::RedisServer,
    rig::{DEADLINE, PATIENCE, Rig, key},
};

const CLIENTS: usize = 20;
const ASKED: usize = 10;
const ADMITTED: usize = 3;

/// Three requests, and none comes back within a test.
fn bucket() -> Limit {
    Limit { kind: Bucket { capacity: tokens(3), rate: 1 }.into(), scale: None, slowest: Factor::ONE }
}

fn window() -> Limit {
    Limit { kind: Window { quota: tokens(3), length: 3600 * MICRO }.into(), ..bucket() }
}

/// Calls of scripts that Redis has answered.
async fn scripts_called(server: &RedisServer) -> u64 {
    let mut client = server.client().await;
    let statistics: String = redis::cmd("INFO").arg("commandstats").query_async(&mut client).await.unwrap();
    let calls = statistics.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
}

/// Has every client ask at the same time, while Redis is frozen; how many of each were admitted.
async fn ask_all(rig: &Rig, server: &RedisServer) -> BTreeMap<usize, usize> {
    server.freeze();
    let mut callers = JoinSet::new();
    for number in 0..CLIENTS * ASKED {
        let limiter = Arc::clone(&rig.limiter);
        callers.spawn(async move {
            let client = number % CLIENTS;
            let limit = if client.is_multiple_of(2) { bucket() } else { window() };
            let charge = Charge { limit: &limit, key: key(&client.to_string()), cost: MICRO, terms: Terms::Take };
            match limiter.decide(&[charge]).await {
                Decision::Admitted { .. } => (client, 1),
                Decision::Refused { .. } => (client, 0),
                other => panic!("{other:?}"),
            }
        });
    }
    // On one thread, all of them ask before this goes on.
    tokio::task::yield_now().await;
    server.thaw();
    let mut admitted = BTreeMap::new();
    for (client, count) in callers.join_all().await {
        *admitted.entry(client).or_default() += count;
    }
    admitted
}

fn each_its_limit() -> BTreeMap<usize, usize> {
    (0..CLIENTS).map(|client| (client, ADMITTED)).collect()
}

#[tokio::test]
async fn those_who_wait_share_a_call_and_each_limit_is_exact() {
    let server = RedisServer::start();
    let rig = Rig::new(&server, OnFailure::Deny, PATIENCE);
    rig.until(true).await;
    let before = scripts_called(&server).await;
    assert_eq!(ask_all(&rig, &server).await, each_its_limit());
    let calls = scripts_called(&server).await - before;
    // One for the first, four for the others, and what the replica itself asks meanwhile.
    assert!(calls < 20, "{calls} calls for {} decisions", CLIENTS * ASKED);
    rig.stop().await;
}

#[tokio::test]
async fn a_spoiled_key_or_a_forgotten_script_spoils_nobodys_answer() {
    let server = RedisServer::start();
    let rig = Rig::new(&server, OnFailure::Deny, PATIENCE);
    rig.until(true).await;
    let name = |client: usize| format!("test:1:{}", key(&client.to_string()));
    server.tell(&format!("HSET {} a b", name(0))).await;
    server.tell(&format!("SET {} x", name(1))).await;
    server.tell("SCRIPT FLUSH").await;
    assert_eq!(ask_all(&rig, &server).await, each_its_limit());
    rig.stop().await;
}

#[tokio::test]
async fn who_waits_behind_a_call_without_an_answer_waits_no_longer_than_the_deadline() {
    let server = RedisServer::start();
    let rig = Rig::up(&server, OnFailure::Allow).await;
    server.freeze();
    let begin = tokio::time::Instant::now();
    let mut callers = JoinSet::new();
    for number in 0..200 {
        let limiter = Arc::clone(&rig.limiter);
        callers.spawn(async move {
            let limit = bucket();
            let charge = Charge { limit: &limit, key: key(&number.to_string()), cost: MICRO, terms: Terms::Take };
            limiter.decide(&[charge]).await
        });
    }
    for decision in callers.join_all().await {
        assert_eq!(decision, Decision::Unlimited);
    }
    // Much less than one after another would take, on however slow a machine.
    assert!(begin.elapsed() < DEADLINE * 40, "{:?}", begin.elapsed());
    server.thaw();
    rig.until(true).await;
    rig.stop().await;
}

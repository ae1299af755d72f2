//! Decisions that have to wait for Redis anyway share a call, and nobody can tell by the answers.

use std::{collections::BTreeMap, sync::Arc};

use cxgate::{
    config::OnFailure,
    limiter::{Decision, Limit, bucket::MICRO, window::Window},
};
use tokio::task::JoinSet;

use crate::support::{
    oracle::tokens,
    redis_server::RedisServer,
    rig::{DEADLINE, Rig, key, steady, token},
};

const CLIENTS: usize = 20;
const ASKED: usize = 10;
const ADMITTED: usize = 3;

/// Three requests, and none comes back within a test.
fn bucket() -> Limit {
    steady(tokens(3), 1)
}

fn window() -> Limit {
    Limit { kind: Window { quota: tokens(3), length: 3600 * MICRO }.into(), ..bucket() }
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
            let charge = token(&limit, &client.to_string());
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
    let rig = Rig::patient(&server, OnFailure::Deny).await;
    let before = server.scripts_called().await;
    assert_eq!(ask_all(&rig, &server).await, each_its_limit());
    let calls = server.scripts_called().await - before;
    // One for the first, four for the others, and what the replica itself asks meanwhile.
    assert!(calls < 20, "{calls} calls for {} decisions", CLIENTS * ASKED);
    rig.stop().await;
}

#[tokio::test]
async fn a_spoiled_key_or_a_forgotten_script_spoils_nobodys_answer() {
    let server = RedisServer::start();
    let rig = Rig::patient(&server, OnFailure::Deny).await;
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
            let charge = token(&limit, &number.to_string());
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

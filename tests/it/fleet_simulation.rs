//! Random trouble between two replicas and a real Redis; whatever happens, the oracle finds no more admitted than promised.
//!
//! A failure names its seed; `CXGATE_SEED` runs the same faults again (not the same interleaving).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cxgate::{
    config::OnFailure,
    limiter::{Decision, Limiter},
};
use fastrand::Rng;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::support::{
    oracle::{Oracle, tokens},
    redis_server::RedisServer,
    relay::{Fault, Relay},
    rig::{DEADLINE, Rig, steady, token},
};

const CAPACITY: u64 = 6;
const RATE: u64 = 20;

/// Clients that stay with one replica.
const FAITHFUL: usize = 4;

/// Times that the faults change, and the longest that they then stay.
const STEPS: usize = 40;
const STEP_MAX_MS: u64 = 200;

/// Asks in the name of a client, without ever resting long, until `over`.
async fn keep_asking(limiter: Arc<Limiter>, client: String, oracle: Oracle, over: Arc<AtomicBool>) {
    let limit = steady(tokens(CAPACITY), tokens(RATE));
    while !over.load(Ordering::Relaxed) {
        let sent = Instant::now();
        match limiter.decide(&[token(&limit, &client)]).await {
            Decision::Admitted { .. } => oracle.admitted(sent),
            Decision::Refused { .. } => {}
            other => panic!("{other:?}"),
        }
        sleep(Duration::from_millis(fastrand::u64(0..5))).await;
    }
}

fn any_fault(random: &mut Rng) -> Fault {
    match random.u8(0..10) {
        0 => Fault::Delay(Duration::from_millis(random.u64(1..30))),
        1 => Fault::Delay(Duration::from_millis(random.u64(30..200))),
        2 => Fault::BlackHole,
        3 => Fault::AnswersLost,
        4 => Fault::HalfClosed,
        5 => Fault::Cut,
        _ => Fault::None,
    }
}

/// What happens to Redis itself; none of it costs it its state.
async fn trouble(server: &RedisServer, random: &mut Rng) {
    match random.u8(0..12) {
        0 => server.tell("SCRIPT FLUSH").await,
        1 => server.tell("CLIENT KILL TYPE normal").await,
        2 => server.tell("CLIENT PAUSE 80 ALL").await,
        3 => {
            server.freeze();
            sleep(Duration::from_millis(random.u64(0..STEP_MAX_MS))).await;
            server.thaw();
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_on_the_way_to_redis_no_limit_is_multiplied() {
    let seed = std::env::var("CXGATE_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    let mut random = Rng::with_seed(seed);
    let server = RedisServer::start();
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let relay = Relay::start(server.address()).await;
        let rig = Rig::at(&format!("redis://{}/0", relay.address), OnFailure::Local, DEADLINE);
        rig.until(true).await;
        replicas.push((relay, rig));
    }
    for (_, rig) in &replicas {
        rig.until_replicas(2).await;
    }

    let over = Arc::new(AtomicBool::new(false));
    let shared = Oracle::new();
    let faithful: Vec<Oracle> = (0..FAITHFUL).map(|_| Oracle::new()).collect();
    let mut callers = JoinSet::new();
    for (number, oracle) in faithful.iter().enumerate() {
        let limiter = replicas[number % replicas.len()].1.limiter.clone();
        callers.spawn(keep_asking(limiter, format!("faithful {number}"), oracle.clone(), over.clone()));
    }
    for (_, rig) in replicas.iter().chain(&replicas) {
        callers.spawn(keep_asking(rig.limiter.clone(), "shared".to_owned(), shared.clone(), over.clone()));
    }
    for _ in 0..STEPS {
        for (relay, _) in &replicas {
            relay.set(any_fault(&mut random));
        }
        trouble(&server, &mut random).await;
        sleep(Duration::from_millis(random.u64(0..STEP_MAX_MS))).await;
    }
    for (relay, rig) in &replicas {
        relay.set(Fault::None);
        rig.until(true).await;
    }
    over.store(true, Ordering::Relaxed);
    callers.join_all().await;

    for (number, oracle) in faithful.iter().enumerate() {
        let (excess, count) = (oracle.excess(CAPACITY, f64::from(u32::try_from(RATE).unwrap())), oracle.count());
        assert!(excess <= 1.0, "seed {seed}: E of client {number} is {excess}");
        assert!(count > 20, "seed {seed}: client {number} was admitted {count} times");
    }
    // While one is cut off and the other is not, Redis gives one limit and the shares make another, and no more.
    let excess = shared.excess(2 * CAPACITY, f64::from(2 * u32::try_from(RATE).unwrap()));
    assert!(excess <= 1.0, "seed {seed}: E of two limits is {excess}");
    for (_, rig) in replicas {
        assert!(rig.metrics.store_changes.get() > 1, "seed {seed}: nothing happened");
        rig.stop().await;
    }
}

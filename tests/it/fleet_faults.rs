//! What Redis' troubles cost a request, as a table: `cargo test --test it fleet_faults -- --nocapture`.
//!
//! The figures are for reading: what is asserted allows for a busy machine.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use std::{
    ops::AsyncFnOnce,
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
use redis::aio::MultiplexedConnection;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::support::{
    oracle::tokens,
    redis_server::RedisServer,
    relay::{Fault, Relay},
    rig::{DEADLINE, Rig, steady, token},
};

/// How long each fault lasts.
const FAULT_TIME: Duration = Duration::from_millis(600);

const CALLERS: usize = 8;

/// Far above the deadline of 50 ms: what a busy machine may add.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Far above the second that is promised, for the same reason.
const RECOVERY_MAX: Duration = Duration::from_secs(5);

/// One replica in front of a Redis that is about to be broken.
struct Patient {
    server: RedisServer,
    relay: Relay,
    /// A connection that was there before the fault.
    administrator: MultiplexedConnection,
}

/// What the callers saw.
#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    admitted: usize,
    refused: usize,
    other: usize,
}

// === impl Patient ===

impl Patient {
    async fn order(&mut self, command: &str) {
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        command.arg(words.collect::<Vec<_>>());
        command.query_async::<redis::Value>(&mut self.administrator).await.unwrap();
    }

    /// Gives an order that is not answered while the fault lasts.
    fn order_and_go(&self, command: &[&str]) {
        let mut administrator = self.administrator.clone();
        let mut order = redis::cmd(command[0]);
        order.arg(&command[1..]);
        tokio::spawn(async move { order.query_async::<redis::Value>(&mut administrator).await });
    }
}

/// Asks in the name of a client until `over`.
async fn keep_asking(limiter: Arc<Limiter>, client: usize, over: Arc<AtomicBool>) -> Seen {
    let limit = steady(tokens(20), tokens(50));
    let client = format!("client {client}");
    let mut seen = Seen::default();
    while !over.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let decision = limiter.decide(&[token(&limit, &client)]).await;
        seen.latencies.push(begin.elapsed());
        match decision {
            Decision::Admitted { .. } => seen.admitted += 1,
            Decision::Refused { .. } => seen.refused += 1,
            _ => seen.other += 1,
        }
        sleep(Duration::from_millis(1)).await;
    }
    seen
}

/// Breaks Redis under callers that keep asking, mends it after a while, and writes a line of the table.
async fn fault(name: &str, break_it: impl AsyncFnOnce(&mut Patient), mend_it: impl AsyncFnOnce(&mut Patient)) {
    let server = RedisServer::start();
    let relay = Relay::start(server.address()).await;
    let administrator = server.client().await;
    let rig = Rig::at(&format!("redis://{}/0", relay.address), OnFailure::Local, DEADLINE);
    rig.until(true).await;
    let mut patient = Patient { server, relay, administrator };

    break_it(&mut patient).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for client in 0..CALLERS {
        callers.spawn(keep_asking(rig.limiter.clone(), client, over.clone()));
    }
    sleep(FAULT_TIME).await;
    over.store(true, Ordering::Relaxed);
    let mut all = Seen::default();
    for seen in callers.join_all().await {
        all.latencies.extend(seen.latencies);
        all.admitted += seen.admitted;
        all.refused += seen.refused;
        all.other += seen.other;
    }
    let begin = Instant::now();
    mend_it(&mut patient).await;
    rig.until(true).await;
    let recovery = begin.elapsed();

    all.latencies.sort_unstable();
    let part = |percent| all.latencies[(all.latencies.len() - 1) * percent / 100];
    let (median, high, most) = (part(50), part(99), part(100));
    let cells = [median, high, most].map(|time| format!("{:>8.2}", time.as_secs_f64() * 1e3)).join(" |");
    let Seen { admitted, refused, other, .. } = all;
    let seconds = recovery.as_secs_f64();
    println!("| {name:<16} |{cells} | {admitted:>6} | {refused:>6} | {other:>6} | {seconds:>10.2} |");
    assert_eq!(other, 0, "{name}: everything is decided");
    assert!(admitted > 0 && most < ANSWER_MAX && recovery < RECOVERY_MAX, "{name}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_costs_a_deadline_at_most_and_passes() {
    println!("| fault            |  p50 ms |  p99 ms |  max ms |    200 |    429 |  other | recovery s |");
    println!("|------------------|---------|---------|---------|--------|--------|--------|------------|");
    fault("none", async |_| {}, async |_| {}).await;
    fault("kill -9", async |it| it.server.stop(), async |it| it.server.restart()).await;
    fault("SIGSTOP", async |it| it.server.freeze(), async |it| it.server.thaw()).await;
    fault("CLIENT PAUSE", async |it| it.order("CLIENT PAUSE 600 ALL").await, async |_| {}).await;
    fault("DEBUG SLEEP", async |it| it.order_and_go(&["DEBUG", "SLEEP", "0.6"]), async |_| {}).await;
    fault("black hole", async |it| it.relay.set(Fault::BlackHole), async |it| it.relay.set(Fault::None)).await;
    fault("answers lost", async |it| it.relay.set(Fault::AnswersLost), async |it| it.relay.set(Fault::None)).await;
    fault("half closed", async |it| it.relay.set(Fault::HalfClosed), async |it| it.relay.set(Fault::None)).await;
    fault("READONLY", async |it| it.order("REPLICAOF 127.0.0.1 1").await, async |it| it.order("REPLICAOF NO ONE").await)
        .await;
    fault("LOADING", async |it| load_slowly(it).await, async |_| {}).await;
    fault(
        "OOM noeviction",
        async |it| it.order("CONFIG SET maxmemory 1").await,
        async |it| it.order("CONFIG SET maxmemory 0").await,
    )
    .await;
    fault(
        "BUSY",
        async |it| {
            it.order("CONFIG SET busy-reply-threshold 20").await;
            it.order_and_go(&["EVAL", "while true do end", "0"]);
        },
        async |it| it.server.tell("SCRIPT KILL").await,
    )
    .await;
    fault(
        "NOAUTH",
        async |it| {
            it.order("CONFIG SET requirepass secret").await;
            it.order("CLIENT KILL TYPE normal").await;
        },
        async |it| {
            it.order("CONFIG SET requirepass ").await;
        },
    )
    .await;
    fault("SCRIPT FLUSH", async |it| it.order("SCRIPT FLUSH").await, async |_| {}).await;
    fault("CLIENT KILL", async |it| it.order("CLIENT KILL TYPE normal").await, async |_| {}).await;
}

/// Has Redis load a thousand keys at a millisecond each, answering LOADING meanwhile.
async fn load_slowly(patient: &mut Patient) {
    patient.order("DEBUG POPULATE 700").await;
    patient.order("CONFIG SET key-load-delay 1000").await;
    patient.order("CONFIG SET loading-process-events-interval-bytes 1024").await;
    patient.order_and_go(&["DEBUG", "RELOAD"]);
}

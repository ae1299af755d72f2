//! Redis in every kind of trouble: whatever happens to it, each request gets an answer, soon, and Redis decides again when
//! it can.

use std::{ops::AsyncFnOnce, time::Duration};

use cxgate::{
    config::{Factor, OnFailure},
    limiter::{
        Charge, Decision, Limit, Limiter, MAX_CHARGES, Status, Terms,
        bucket::{Bucket, MICRO},
        scale::ScaleName,
    },
};
use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    redis_server::RedisServer,
    rig::{DEADLINE, PATIENCE, Rig, key, steady, token},
};

/// How much later than its deadline an answer may come on a busy machine.
const SLACK: Duration = Duration::from_secs(1);

/// A million tokens, one a second.
fn limit() -> Limit {
    steady(MICRO * MICRO, MICRO)
}

/// Asks for one token; the answer must come in time.
async fn ask(limiter: &Limiter, limit: &Limit, name: &str) -> Decision {
    let begin = Instant::now();
    let decision = limiter.decide(&[token(limit, name)]).await;
    assert!(begin.elapsed() < DEADLINE + SLACK, "took {:?}", begin.elapsed());
    decision
}

fn is_admitted(decision: &Decision) -> bool {
    matches!(decision, Decision::Admitted { .. })
}

fn is_unavailable(decision: &Decision) -> bool {
    matches!(decision, Decision::Unavailable { .. })
}

/// Asks for one token until Redis no longer decides; answers must come in time.
async fn ask_until_down(rig: &Rig) {
    let begin = Instant::now();
    while *rig.limiter.up().borrow() {
        assert!(begin.elapsed() < PATIENCE, "Redis goes on deciding");
        ask(&rig.limiter, &limit(), "client").await;
        // A refusal without waiting would keep the only thread from the task that notices.
        tokio::task::yield_now().await;
    }
}

/// Breaks Redis, sees it given up and nothing pass, mends it, sees it decide again.
async fn outage(break_it: impl AsyncFnOnce(&mut RedisServer), mend_it: impl AsyncFnOnce(&mut RedisServer)) {
    let mut server = RedisServer::start();
    let rig = Rig::up(&server, OnFailure::Deny).await;
    assert_eq!(rig.limiter.status(), Status::Connected);
    assert!(is_admitted(&ask(&rig.limiter, &limit(), "client").await));

    break_it(&mut server).await;
    ask_until_down(&rig).await;
    assert_eq!(rig.limiter.status(), Status::Disconnected(OnFailure::Deny));
    let begin = Instant::now();
    for _ in 0..100 {
        assert!(is_unavailable(&ask(&rig.limiter, &limit(), "client").await));
    }
    // Not one of them waited for Redis: a hundred deadlines would be five seconds.
    assert!(begin.elapsed() < Duration::from_secs(2));

    mend_it(&mut server).await;
    let begin = Instant::now();
    rig.until(true).await;
    assert!(begin.elapsed() < Duration::from_secs(1) + 2 * SLACK, "took {:?}", begin.elapsed());
    assert!(is_admitted(&ask(&rig.limiter, &limit(), "client").await));
    assert_eq!(rig.metrics.store_up.get(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn frozen() {
    outage(async |server| server.freeze(), async |server| server.thaw()).await;
}

#[tokio::test]
async fn killed_and_started_again() {
    outage(async |server| server.stop(), async |server| server.restart()).await;
}

#[tokio::test]
async fn out_of_memory() {
    outage(
        async |server| server.tell("CONFIG SET maxmemory 1").await,
        async |server| server.tell("CONFIG SET maxmemory 0").await,
    )
    .await;
}

#[tokio::test]
async fn demoted_to_a_replica() {
    outage(async |server| server.tell("REPLICAOF 127.0.0.1 1").await, async |server| server.tell("REPLICAOF NO ONE").await)
        .await;
}

#[tokio::test]
async fn a_replica_without_its_master() {
    outage(
        async |server| {
            server.tell("CONFIG SET replica-serve-stale-data no").await;
            server.tell("REPLICAOF 127.0.0.1 1").await;
        },
        async |server| server.tell("REPLICAOF NO ONE").await,
    )
    .await;
}

#[tokio::test]
async fn busy_with_a_script() {
    outage(
        async |server| {
            server.tell("CONFIG SET busy-reply-threshold 20").await;
            let mut client = server.client().await;
            tokio::spawn(async move {
                let endless = redis::cmd("EVAL").arg("while true do end").arg(0).query_async::<()>(&mut client).await;
                endless.unwrap_err();
            });
        },
        async |server| server.tell("SCRIPT KILL").await,
    )
    .await;
}

#[tokio::test]
async fn without_permission() {
    outage(
        async |server| server.tell("ACL SETUSER default -@scripting").await,
        async |server| server.tell("ACL SETUSER default +@all").await,
    )
    .await;
}

#[tokio::test]
async fn a_password_that_is_not_known() {
    let administrator = std::cell::OnceCell::new();
    outage(
        async |server| {
            administrator.set(server.client().await).ok().unwrap();
            server.tell("CONFIG SET requirepass secret").await;
            let mut client = administrator.get().unwrap().clone();
            redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal"]).query_async::<()>(&mut client).await.unwrap();
        },
        async |_| {
            let mut client = administrator.get().unwrap().clone();
            redis::cmd("CONFIG").arg(&["SET", "requirepass", ""]).query_async::<()>(&mut client).await.unwrap();
        },
    )
    .await;
}

#[tokio::test]
async fn paused_for_a_moment() {
    outage(async |server| server.tell("CLIENT PAUSE 1500 ALL").await, async |_| ()).await;
}

#[tokio::test]
async fn frozen_while_nobody_asks() {
    let server = RedisServer::start();
    let rig = Rig::up(&server, OnFailure::Deny).await;
    server.freeze();
    rig.until(false).await;
    server.thaw();
    rig.until(true).await;
    rig.stop().await;
}

#[tokio::test]
async fn forgotten_scripts_are_noticed_by_nobody() {
    let server = RedisServer::start();
    let rig = Rig::up(&server, OnFailure::Deny).await;
    for _ in 0..20 {
        server.tell("SCRIPT FLUSH").await;
        let mut callers = JoinSet::new();
        for _ in 0..50 {
            let limiter = rig.limiter.clone();
            callers.spawn(async move { ask(&limiter, &limit(), "client").await });
        }
        assert!(callers.join_all().await.iter().all(is_admitted));
    }
    assert_eq!(rig.metrics.store_connects.get(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn a_killed_connection_is_noticed_at_once_and_replaced() {
    let server = RedisServer::start();
    let rig = Rig::up(&server, OnFailure::Deny).await;
    let begin = Instant::now();
    for _ in 0..5 {
        server.tell("CLIENT KILL TYPE normal").await;
        rig.until(false).await;
        rig.until(true).await;
    }
    // Had it been left to the probes, it would have taken a second each time.
    assert!(begin.elapsed() < Duration::from_secs(3), "took {:?}", begin.elapsed());
    assert!(is_admitted(&ask(&rig.limiter, &limit(), "client").await));
    assert_eq!(rig.metrics.store_connects.get(), 6);
    rig.stop().await;
}

#[tokio::test]
async fn one_answer_that_it_cannot_serve_is_enough() {
    let server = RedisServer::start();
    let rig = Rig::up(&server, OnFailure::Deny).await;
    server.tell("CONFIG SET maxmemory 1").await;
    ask_until_down(&rig).await;
    assert!(rig.failures("refused") <= 1);
    rig.stop().await;
}

#[tokio::test]
async fn the_start_needs_no_redis() {
    let mut server = RedisServer::start();
    server.stop();
    let rig = Rig::new(&server, OnFailure::Deny, DEADLINE);
    assert!(is_unavailable(&ask(&rig.limiter, &limit(), "client").await));
    server.restart();
    rig.until(true).await;
    assert!(is_admitted(&ask(&rig.limiter, &limit(), "client").await));
    rig.stop().await;
}

#[tokio::test]
async fn each_policy_answers_in_its_own_way() {
    let mut server = RedisServer::start();
    let local = Rig::up(&server, OnFailure::Local).await;
    let allow = Rig::up(&server, OnFailure::Allow).await;
    let two = Limit { kind: Bucket { capacity: 2 * MICRO, rate: 1 }.into(), ..limit() };
    for rig in [&local, &allow] {
        while is_admitted(&ask(&rig.limiter, &two, "client").await) {}
    }

    server.stop();
    ask_until_down(&local).await;
    ask_until_down(&allow).await;
    assert_eq!(ask(&allow.limiter, &two, "client").await, Decision::Unlimited);
    // Who was drained in Redis is drained in the fall-back; who was not has a bucket there.
    assert!(matches!(ask(&local.limiter, &two, "client").await, Decision::Refused { .. }));
    assert!(is_admitted(&ask(&local.limiter, &two, "other").await));
    let Decision::Admitted { receipt, .. } = ask(&local.limiter, &two, "other").await else { panic!("two fit") };
    assert!(matches!(ask(&local.limiter, &two, "other").await, Decision::Refused { .. }));

    // What the fall-back charged is charged in Redis when it is back, though it lost everything; so it gives it back there.
    server.restart();
    local.until(true).await;
    assert!(matches!(ask(&local.limiter, &two, "other").await, Decision::Refused { .. }));
    local.limiter.refund(receipt, &[token(&two, "other")]).await;
    assert!(is_admitted(&ask(&local.limiter, &two, "other").await));
    assert!(matches!(ask(&local.limiter, &two, "other").await, Decision::Refused { .. }));
    local.stop().await;
    allow.stop().await;
}

#[tokio::test]
async fn a_redis_that_lost_everything_runs_at_the_factor_in_force() {
    let mut server = RedisServer::start();
    let rig = Rig::up(&server, OnFailure::Deny).await;
    let scale = ScaleName::of(["backend"]).unwrap();
    let half = Factor::new(0.5).unwrap();
    let scaled = Limit { scale: Some(scale.clone()), slowest: half, ..limit() };
    server.stop();
    rig.until(false).await;
    rig.limiter.publish(&scale, half).await;
    server.restart();
    rig.until(true).await;
    let Decision::Admitted { standings, .. } = ask(&rig.limiter, &scaled, "client").await else { panic!("admitted") };
    assert_eq!(standings[0].factor, half);
    rig.stop().await;
}

#[tokio::test]
async fn callers_that_went_away_get_nobody_else_into_their_place() {
    let server = RedisServer::start();
    let rig = Rig::patient(&server, OnFailure::Deny).await;
    nobody_gets_into_the_place_of_another(&rig, async || server.tell("CLIENT PAUSE 500 ALL").await).await;
    rig.stop().await;
}

/// Drops 3,000 callers after `pause` has made Redis answer nothing for a moment, and sees each of 3,000 more get the verdict
/// on its own bucket.
pub(crate) async fn nobody_gets_into_the_place_of_another(rig: &Rig, pause: impl AsyncFnOnce()) {
    let connects = rig.metrics.store_connects.get();
    // Each caller has a bucket of a capacity of its own, by which the verdict is told from all others.
    let own = |number: u64| Limit { kind: Bucket { capacity: (1000 + number) * MICRO, rate: 1 }.into(), ..limit() };

    pause().await;
    let mut callers = JoinSet::new();
    for number in 0..3000 {
        let limiter = rig.limiter.clone();
        callers.spawn(async move {
            let (limit, key) = (own(number), key(&format!("gone {number}")));
            limiter.decide(&[Charge { limit: &limit, key, cost: MICRO, terms: Terms::Take }]).await
        });
    }
    // All are on their way when they are dropped: the paused Redis has answered none of them.
    let on_their_way = tokio::time::timeout(Duration::from_millis(100), callers.join_next()).await;
    assert!(on_their_way.is_err(), "Redis is not paused");
    callers.shutdown().await;

    let mut callers = JoinSet::new();
    for number in 0..3000 {
        let limiter = rig.limiter.clone();
        callers.spawn(async move {
            let (limit, key) = (own(number), key(&format!("here {number}")));
            (number, limiter.decide(&[Charge { limit: &limit, key, cost: MICRO, terms: Terms::Take }]).await)
        });
    }
    for (number, decision) in callers.join_all().await {
        let Decision::Admitted { standings, .. } = decision else { panic!("{decision:?}") };
        assert_eq!(standings[0].tokens, (999 + number) * MICRO);
    }
    assert_eq!(rig.metrics.store_connects.get(), connects);
}

#[tokio::test]
async fn callers_beyond_those_that_may_wait_are_refused_at_once() {
    let server = RedisServer::start();
    let rig = Rig::patient(&server, OnFailure::Deny).await;
    let begin = Instant::now();
    server.tell("CLIENT PAUSE 1000 ALL").await;
    let mut callers = JoinSet::new();
    for number in 0..5000 {
        let limiter = rig.limiter.clone();
        let ask = async move { limiter.decide(&[token(&limit(), &number.to_string())]).await };
        callers.spawn(ask);
    }
    let mut refused = 0;
    while let Some(decision) = callers.join_next().await {
        if is_admitted(&decision.unwrap()) {
            break;
        }
        refused += 1;
    }
    // Redis was paused until the first that had waited was admitted: those before did not wait for it.
    assert!(begin.elapsed() >= Duration::from_secs(1), "Redis was not paused");
    assert!((900..950).contains(&refused), "{refused} were refused");
    assert_eq!(rig.failures("busy"), refused);
    assert!(callers.join_all().await.iter().all(is_admitted));
    rig.stop().await;
}

#[tokio::test]
async fn failures_are_counted_by_cause() {
    let mut server = RedisServer::start();
    let rig = Rig::up(&server, OnFailure::Deny).await;
    let limit = limit();
    let too_many = [token(&limit, "client"); MAX_CHARGES + 1];
    assert!(is_unavailable(&rig.limiter.decide(&too_many).await));
    assert_eq!(rig.failures("refused"), 1);
    server.freeze();
    ask_until_down(&rig).await;
    assert!(rig.failures("deadline") > 0);
    server.stop();
    let before = rig.failures("unreachable");
    assert!(is_unavailable(&ask(&rig.limiter, &limit, "client").await));
    assert_eq!(rig.failures("unreachable"), before + 1);
    rig.stop().await;
}

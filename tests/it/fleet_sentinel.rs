//! A master that Sentinels elect: decisions follow it, without a restart, also where the old one can still be reached.

use cxgate::{
    config::{self, Secret},
    limiter::{Charge, Decision, Terms, bucket::MICRO},
};
use tokio::time::Instant;

use crate::support::{
    rig::{Rig, key, steady, store},
    sentinels::Trio,
    until,
};

/// Asks for a token of a bucket that nobody has asked of before, and says whether the second server has charged it.
async fn is_decided_by_the_replica(rig: &Rig, trio: &Trio, number: u32) -> bool {
    let limit = steady(MICRO, 1);
    let key = key(&number.to_string());
    let decision = rig.limiter.decide(&[Charge { limit: &limit, key, cost: MICRO, terms: Terms::Take }]).await;
    let mut client = trio.servers[1].client().await;
    let role: Vec<redis::Value> = redis::cmd("ROLE").query_async(&mut client).await.unwrap();
    let is_master = role[0] == redis::Value::BulkString(b"master".to_vec());
    let exists: bool = redis::cmd("EXISTS").arg(format!("test:1:{key}")).query_async(&mut client).await.unwrap();
    is_master && exists && matches!(decision, Decision::Admitted { .. })
}

/// Makes the Sentinels elect another master by `fault`, and sees it decide.
#[expect(clippy::print_stdout, reason = "the figure is what one runs this for")]
async fn failover(name: &str, fault: impl AsyncFnOnce(&mut Trio)) {
    let mut trio = Trio::start().await;
    let rig = Rig::over(&config::Store { redis: Some(trio.config()), ..store() });
    rig.until(true).await;
    assert!(!is_decided_by_the_replica(&rig, &trio, 0).await);

    fault(&mut trio).await;
    trio.elected(&trio.sentinels[1..]).await;
    let elected = Instant::now();
    let mut number = 0;
    until(async || {
        number += 1;
        is_decided_by_the_replica(&rig, &trio, number).await
    })
    .await;
    println!("{name}: decisions resumed {:.2} s after the election", elected.elapsed().as_secs_f64());
    rig.stop().await;
}

#[tokio::test]
async fn decisions_follow_the_election_after_the_master_was_killed() {
    failover("master killed", async |trio| trio.servers[0].stop()).await;
}

#[tokio::test]
async fn decisions_follow_the_election_while_the_old_master_hangs_and_so_does_a_sentinel() {
    failover("master and a Sentinel frozen", async |trio| {
        trio.sentinels[0].freeze();
        trio.servers[0].freeze();
    })
    .await;
}

#[tokio::test]
async fn sentinels_may_ask_for_a_password() {
    let trio = Trio::start().await;
    for sentinel in &trio.sentinels {
        sentinel.tell("ACL SETUSER default resetpass >secret").await;
    }
    let without = config::Store { redis: Some(trio.config()), ..store() };
    let with = config::Store { sentinel_password: Some(Secret::new("secret")), ..without.clone() };
    let (without, with) = (Rig::over(&without), Rig::over(&with));
    with.until(true).await;
    assert_eq!(without.metrics.store_connects.get(), 0);
    with.stop().await;
    without.stop().await;
}

#[tokio::test]
async fn decisions_follow_an_election_that_the_old_master_outlived() {
    failover("old master reachable", async |trio| trio.sentinels[1].tell("SENTINEL FAILOVER main").await).await;
}

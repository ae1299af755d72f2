//! A Redis Cluster of three primaries with a replica each: the same decisions as one store's, whatever slots they fall into,
//! and whatever happens to the nodes.

use std::time::Duration;

use cxgate::{
    config::{self, Factor, OnFailure},
    limiter::{
        Charge, Decision, Limit, Limiter, Store, Terms, Verdict,
        bucket::{Bucket, MICRO},
        cooldown,
        key::{Key, KeyHasher},
        lease::Claim,
        memory::Memory,
        redis::Redis,
        scale::ScaleName,
    },
    metrics::Metrics,
    shutdown::Shutdown,
};
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::{Instant, timeout};

use crate::{
    limiter_outage::nobody_gets_into_the_place_of_another,
    support::{
        cluster::Cluster,
        rig::{PATIENCE, Rig, store},
        until,
    },
};

/// A store over a Cluster, once it decides on all keys.
async fn redis_on(cluster: &Cluster, deadline: Duration) -> Redis {
    let config = config::Store { redis: Some(cluster.config()), deadline, ..store() };
    let redis = Redis::start(config.redis.as_ref().unwrap(), &config, &Metrics::default(), &Shutdown::default()).unwrap();
    timeout(PATIENCE, redis.up().wait_for(|up| *up)).await.expect("in time").unwrap();
    redis
}

/// So many tokens, and practically none to come.
fn limit(tokens: u64) -> Limit {
    Limit { kind: Bucket { capacity: tokens * MICRO, rate: 1 }.into(), scale: None, slowest: Factor::ONE }
}

fn key(limit: &str, first: &str) -> Key {
    KeyHasher::new(None, "test").start(limit).part(first.as_bytes()).finish()
}

/// The hash tags of the groups.
const TAGS: &str = "10 03 21 32 0b 1a 3c 2d 11 02 20 33 0c 1d 3b 2a 12 01 23 30 0d 1c 3a 2b 13 00 22 31 0a 1b 3d 2c";

/// The hash tag of a bucket.
fn tag(key: Key) -> &'static str {
    TAGS.split(' ').nth(key.group().into()).unwrap()
}

/// What a bucket is called in Redis.
fn name(key: Key) -> String {
    format!("test:1:{{{}}}{key}", tag(key))
}

/// A key that the primary with this number has, different for each `name`.
async fn key_at(cluster: &Cluster, primary: usize, name: &str) -> Key {
    for number in 0.. {
        let key = key("limit", &format!("{name} {number}"));
        if cluster.holder(tag(key)).await.0 == primary {
            return key;
        }
    }
    unreachable!("there is no end of numbers")
}

/// One token of each.
async fn take(redis: &Redis, limit: &Limit, keys: &[Key]) -> bool {
    let charges: Vec<_> = keys.iter().map(|key| Charge { limit, key: *key, cost: MICRO, terms: Terms::Take }).collect();
    redis.decide(&charges).await.is_ok_and(|verdict| verdict.admitted)
}

#[tokio::test]
async fn a_cluster_decides_as_one_store_does() {
    let cluster = Cluster::start().await;
    // The machine may be busy, and late answers are not the subject.
    let redis = redis_on(&cluster, PATIENCE).await;
    limits_in_any_slots_are_charged_together_or_not_at_all(&redis).await;
    limits_that_count_by_the_same_client_share_a_slot(&cluster).await;
    a_factor_is_in_force_in_every_slot(&redis).await;
    a_new_bucket_costs_its_address_something_in_another_slot(&redis).await;
    keys_on_their_way_to_another_node_are_found(&cluster, &redis).await;

    let rig = Rig::over(&config::Store { redis: Some(cluster.config()), deadline: PATIENCE, ..store() });
    rig.until(true).await;
    nobody_gets_into_the_place_of_another(&rig, async || {
        for node in &cluster.nodes[..3] {
            node.tell("CLIENT PAUSE 500 ALL").await;
        }
    })
    .await;
    a_pause_and_a_lease_are_everyones(&rig.limiter).await;
    rig.stop().await;
}

/// A thousand random decisions and refunds, answered like by the store in memory.
async fn limits_in_any_slots_are_charged_together_or_not_at_all(redis: &Redis) {
    let memory = Memory::new(1000, Gauge::default());
    let mut random = fastrand::Rng::with_seed(3);
    let limits: Vec<_> = (3..15).map(limit).collect();
    let (mut admitted, mut refused) = (0, 0);
    for step in 0..1000 {
        let mut places: Vec<usize> = (0..limits.len()).collect();
        random.shuffle(&mut places);
        places.truncate(random.usize(1..=5));
        let charge = |place: &usize| Charge {
            limit: &limits[*place],
            key: key("limit", &place.to_string()),
            cost: random.u64(1..=3) * MICRO / 2,
            terms: Terms::Take,
        };
        let charges: Vec<_> = places.iter().map(charge).collect();
        if step % 3 == 0 {
            redis.refund(&charges, 0).await.unwrap();
            memory.refund(&charges, 0).await.unwrap();
            continue;
        }
        let (ours, theirs) = (redis.decide(&charges).await.unwrap(), memory.decide(&charges).await.unwrap());
        assert_eq!(ours.admitted, theirs.admitted, "step {step}");
        // Time goes on between the two, by a micro-token a second.
        let tokens = |verdict: &Verdict| verdict.standings.iter().map(|standing| standing.tokens).collect::<Vec<_>>();
        let far = tokens(&ours).into_iter().zip(tokens(&theirs)).any(|(one, other)| one.abs_diff(other) > 100);
        assert!(!far, "step {step}: {ours:?} {theirs:?}");
        *(if ours.admitted { &mut admitted } else { &mut refused }) += 1;
    }
    assert!(admitted > 50 && refused > 50, "{admitted} admitted, {refused} refused");
}

async fn limits_that_count_by_the_same_client_share_a_slot(cluster: &Cluster) {
    let (one, other) = (key("per client", "alice"), key("per client and path", "alice"));
    assert_ne!(one, other);
    let slots = (cluster.holder(tag(one)).await.1, cluster.holder(tag(other)).await.1);
    assert_eq!(slots.0, slots.1);
}

async fn a_factor_is_in_force_in_every_slot(redis: &Redis) {
    let (scale, half) = (ScaleName::of(["backend"]).unwrap(), Factor::new(0.5).unwrap());
    redis.publish(&scale, half).await.unwrap();
    let scaled = Limit { scale: Some(scale), ..limit(1) };
    for client in 0..100 {
        let key = key("scaled", &client.to_string());
        let charge = [Charge { limit: &scaled, key, cost: MICRO, terms: Terms::Take }];
        assert_eq!(redis.decide(&charge).await.unwrap().standings[0].factor, half);
    }
}

async fn a_new_bucket_costs_its_address_something_in_another_slot(redis: &Redis) {
    let (ten, two) = (limit(10), limit(2));
    let address = key("addresses", "the address");
    let ask = async |client: &str| {
        let named = key("named", client);
        assert_ne!(tag(named), tag(address), "the slots differ");
        let charges = [
            Charge { limit: &ten, key: named, cost: MICRO, terms: Terms::Take },
            Charge { limit: &two, key: address, cost: MICRO, terms: Terms::TakeIfNew(0) },
        ];
        let verdict = redis.decide(&charges).await.unwrap();
        (verdict.admitted, verdict.standings[0].tokens / MICRO, verdict.standings[1].tokens / MICRO)
    };
    // Nobody asks the address about a client that is known: it is taken to be full.
    assert_eq!(ask("one").await, (true, 9, 2));
    assert_eq!(ask("one").await, (true, 8, 2));
    assert_eq!(ask("two").await, (true, 9, 1));
    for _ in 0..2 {
        assert_eq!(ask("three").await, (false, 10, 0), "the address may bring no third, and its bucket stays full");
    }
    assert_eq!(ask("two").await, (true, 8, 2), "whoever is known passes");
}

async fn a_pause_and_a_lease_are_everyones(limiter: &Limiter) {
    let (limit, paused, client) = (limit(5), key("paused", "route"), key("limit", "held back"));
    assert_ne!(tag(paused), tag(client), "the slots differ");
    let charges =
        [Charge { limit: &limit, key: client, cost: MICRO, terms: Terms::Take }, cooldown::passage(paused, client)];
    let left = async || match limiter.decide(&charges).await {
        Decision::Admitted { standings, .. } => (true, standings[0].tokens / MICRO),
        Decision::Refused { standings } => (false, standings[0].tokens / MICRO),
        other => panic!("{other:?}"),
    };
    assert_eq!(left().await, (true, 4));
    limiter.pause(paused, Duration::from_mins(1)).await;
    for _ in 0..3 {
        assert_eq!(left().await, (false, 4), "what is refused costs nothing");
    }

    let claim = |caller| Claim { signal: "backend", caller, lifetime: Duration::from_mins(1), reading: None };
    assert!(limiter.lead(&claim(1)).await.unwrap().leads);
    assert!(!limiter.lead(&claim(2)).await.unwrap().leads);
}

/// Moves a slot while its buckets are asked.
async fn keys_on_their_way_to_another_node_are_found(cluster: &Cluster, redis: &Redis) {
    let (known, unknown) = (key("known", "on its way"), key("unknown", "on its way"));
    assert_eq!(tag(known), tag(unknown));
    let two = limit(2);
    assert!(take(redis, &two, &[known]).await);

    let (from, slot) = cluster.holder(tag(known)).await;
    let to = (from + 1) % 3;
    let (from_id, to_id) = (cluster.id(from).await, cluster.id(to).await);
    cluster.nodes[to].tell(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}")).await;
    cluster.nodes[from].tell(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}")).await;
    // What the old node has it answers itself; for the rest it sends us to the new one.
    assert!(take(redis, &two, &[known]).await);
    assert!(take(redis, &two, &[unknown]).await);
    let (port, mut old) = (cluster.nodes[to].port(), cluster.nodes[from].client().await);
    // Whatever else came to lie in that slot moves with it.
    let mut held = redis::cmd("CLUSTER");
    let held: Vec<String> = held.arg("GETKEYSINSLOT").arg(slot).arg(100).query_async(&mut old).await.unwrap();
    assert!(held.contains(&name(known)));
    for key in held {
        redis::cmd("MIGRATE").arg("127.0.0.1").arg(port).arg(key).arg(&[0, 5000]).exec_async(&mut old).await.unwrap();
    }
    assert!(!take(redis, &two, &[known]).await, "both tokens were taken before it moved");
    for node in [to, from] {
        cluster.nodes[node].tell(&format!("CLUSTER SETSLOT {slot} NODE {to_id}")).await;
    }
    assert!(!take(redis, &two, &[known]).await);
    assert!(take(redis, &two, &[unknown]).await);
    assert!(!take(redis, &two, &[unknown]).await);
}

#[tokio::test]
async fn a_cluster_that_loses_a_node_decides_again_after_the_election() {
    let mut cluster = Cluster::start().await;
    let redis = redis_on(&cluster, Duration::from_millis(50)).await;
    what_was_taken_is_given_back_when_a_later_slot_fails(&cluster, &redis).await;
    let local = config::Store { redis: Some(cluster.config()), on_failure: OnFailure::Local, ..store() };
    let (rig, other) = (Rig::over(&local), Rig::over(&local));
    rig.until(true).await;
    rig.until_replicas(2).await;
    other.stop().await;

    for (primary, name) in [(0, "primary killed"), (1, "primary frozen")] {
        let lost = key_at(&cluster, primary, "lost").await;
        let many = limit(1_000_000);
        assert!(take(&redis, &many, &[lost]).await);
        if primary == 0 {
            cluster.nodes[primary].stop();
            only_the_lost_keys_are_decided_without_it(&rig, lost, key_at(&cluster, 1, "kept").await).await;
        } else {
            cluster.nodes[primary].freeze();
        }
        let lost_until = Instant::now() + Duration::from_secs(10);
        while take(&redis, &many, &[lost]).await {
            assert!(Instant::now() < lost_until, "the lost node goes on deciding");
        }
        cluster.elected(primary + 3).await;
        let elected = Instant::now();
        until(async || take(&redis, &many, &[lost]).await).await;
        println!("{name}: decisions resumed {:.2} s after the election", elected.elapsed().as_secs_f64());
        timeout(PATIENCE, redis.up().wait_for(|up| *up)).await.expect("in time").unwrap();
    }
    until(async || rig.limiter.report().debts == 0).await;
    rig.stop().await;
}

/// While somebody owes Redis something, too.
async fn only_the_lost_keys_are_decided_without_it(rig: &Rig, lost: Key, kept: Key) {
    rig.until(false).await;
    let many = limit(1_000_000);
    let charge = |key| [Charge { limit: &many, key, cost: MICRO, terms: Terms::Take }];
    until(async || {
        rig.limiter.decide(&charge(lost)).await;
        rig.limiter.report().debts == 1
    })
    .await;
    let before = rig.metrics.fallback_decisions.get();
    // A late answer is not the subject.
    let mut late = 0;
    for _ in 0..10 {
        let failures = rig.failures("deadline");
        assert!(matches!(rig.limiter.decide(&charge(kept)).await, Decision::Admitted { .. }));
        late += rig.failures("deadline") - failures;
    }
    assert_eq!(rig.metrics.fallback_decisions.get() - before, late);
    assert!(late < 10, "all were late");
}

async fn what_was_taken_is_given_back_when_a_later_slot_fails(cluster: &Cluster, redis: &Redis) {
    let one = limit(1);
    // Slots are asked in the order of their groups.
    let mut keys = [key_at(cluster, 1, "earlier").await, key_at(cluster, 2, "later").await];
    keys.sort_by_key(|key| key.group());
    let [earlier, later] = keys;
    let (hanging, _) = cluster.holder(tag(later)).await;
    cluster.nodes[hanging].freeze();
    assert!(!take(redis, &one, &[earlier, later]).await);
    let mut client = cluster.nodes[cluster.holder(tag(earlier)).await.0].client().await;
    let was_charged: bool = redis::cmd("EXISTS").arg(name(earlier)).query_async(&mut client).await.unwrap();
    assert!(was_charged, "the other slot was asked first");
    cluster.nodes[hanging].thaw();
    until(async || take(redis, &one, &[earlier]).await).await;
    timeout(PATIENCE, redis.up().wait_for(|up| *up)).await.expect("in time").unwrap();
}

//! The terms on which a cost is asked for, pauses, and leases: the same answers from everyone, to the micro-token.

use std::time::Duration;

use cxgate::limiter::lease::{Answer, Claim, Reading};

use super::*;

/// A million micro-tokens a second, as every bucket that is paused.
fn pauses() -> Limit {
    Limit { kind: Bucket { capacity: 600 * MICRO, rate: MICRO }.into(), scale: None, slowest: Factor::ONE }
}

/// Every check of these terms against one subject.
pub(super) async fn keeps_its_terms(subject: &mut impl Subject) {
    what_is_only_needed_stays(subject).await;
    only_a_new_bucket_costs_its_address_something(subject).await;
    a_pause_lasts_and_only_grows(subject).await;
}

async fn what_is_only_needed_stays(subject: &mut impl Subject) {
    let limit = guest();
    let need = |cost| [Charge { limit: &limit, key: client("needed"), cost, terms: Terms::Need }];
    for _ in 0..3 {
        let verdict = subject.decide(&need(10 * MICRO), BEGIN).await;
        assert_eq!((verdict.admitted, verdict.standings[0].tokens), (true, 10 * MICRO));
    }
    assert!(!subject.decide(&need(10 * MICRO + 1), BEGIN).await.admitted);
}

async fn only_a_new_bucket_costs_its_address_something(subject: &mut impl Subject) {
    let (limit, address) = (guest(), Limit { kind: Bucket { capacity: 2 * MICRO, rate: 1 }.into(), scale: None, ..guest() });
    let now = BEGIN + 300 * MICRO;
    let mut ask = async |name: &str| {
        let charges = [
            Charge { limit: &limit, key: client(name), cost: MICRO, terms: Terms::Take },
            Charge { limit: &address, key: client("an address"), cost: MICRO, terms: Terms::TakeIfNew(0) },
        ];
        let verdict = subject.decide(&charges, now).await;
        (verdict.admitted, verdict.standings[0].tokens / MICRO, verdict.standings[1].tokens / MICRO)
    };
    assert_eq!(ask("new one").await, (true, 9, 2));
    assert_eq!(ask("new one").await, (true, 8, 2), "where nothing is asked, all is there");
    assert_eq!(ask("new two").await, (true, 9, 1));
    assert_eq!(ask("new three").await, (false, 10, 0), "the address may bring no third");
    assert_eq!(ask("new two").await, (true, 8, 2), "whoever is known passes");
    assert_eq!(ask("new one").await, (true, 7, 2));
}

async fn a_pause_lasts_and_only_grows(subject: &mut impl Subject) {
    let limit = pauses();
    let full = [Charge { limit: &limit, key: client("paused"), cost: 600 * MICRO, terms: Terms::Need }];
    let pause = |seconds: u64| Charge { cost: seconds * MICRO, terms: Terms::Take, ..full[0] };
    let now = BEGIN + 400 * MICRO;
    subject.pause(&pause(20), now).await;
    subject.pause(&pause(5), now).await;
    let refused = subject.decide(&full, now).await;
    assert_eq!(limit.wait(&refused.standings[0], 600 * MICRO), Duration::from_secs(20));
    assert!(!subject.decide(&full, now + 20 * MICRO - 1).await.admitted);
    subject.pause(&pause(3), now + 18 * MICRO).await;
    assert!(!subject.decide(&full, now + 20 * MICRO).await.admitted, "it was prolonged by a second");
    assert!(subject.decide(&full, now + 21 * MICRO).await.admitted);
    subject.pause(&pause(10_000), now + 21 * MICRO).await;
    assert_eq!(subject.decide(&full, now + 21 * MICRO).await.standings[0].tokens, 0, "a bucket cannot be emptier");
}

/// One replica's claim to the signal, for ten seconds.
fn claim(caller: u64, seconds: u64, found: Option<(f64, u64)>) -> Claim<'static> {
    let reading = |(value, age)| Reading { factor: factor(value), age: Duration::from_secs(age) };
    Claim { signal: "backend", caller, lifetime: Duration::from_secs(seconds), reading: found.map(reading) }
}

#[tokio::test]
async fn a_lease_has_one_holder_runs_out_and_can_be_given_up() {
    let server = RedisServer::start();
    let mut redis = Scripted::new(&server).await;
    let mut at = 0;
    // Seconds that pass; who claims, for how many seconds, what it found with the age of its sample → whether it leads, the
    // factor and the age of its sample.
    let steps = [
        (0, 1, 10, None, true, None),
        (0, 2, 10, Some((1.5, 0)), false, None),
        (1, 1, 10, Some((0.2, 1)), true, Some((0.2, 1))),
        (4, 2, 10, Some((1.5, 0)), false, Some((0.2, 5))),
        (5, 2, 10, None, false, Some((0.2, 10))),
        // It has run out; what the new holder knew before was older, what it finds then is not.
        (1, 2, 10, Some((1.5, 60)), true, Some((0.2, 11))),
        (0, 1, 10, Some((1.0, 0)), false, Some((0.2, 11))),
        (1, 2, 10, Some((0.5, 0)), true, Some((0.5, 0))),
        // Given up, and taken at once; who holds none has none to give up.
        (0, 1, 0, Some((0.7, 0)), false, Some((0.5, 0))),
        (0, 2, 0, None, false, Some((0.5, 0))),
        (0, 1, 10, None, true, Some((0.5, 0))),
        // The clock steps back by an hour: the lease ends later than any could, so that it binds nobody.
        (-3600, 2, 10, None, true, Some((0.5, 0))),
        (0, 1, 10, None, false, Some((0.5, 0))),
    ];
    for (number, (seconds, caller, lifetime, found, leads, reading)) in steps.into_iter().enumerate() {
        at += seconds;
        let command = redis.keys.lease(redis.digest(Script::Lease), &claim(caller, lifetime, found));
        let reply = redis.call(command, (BEGIN + 7200 * MICRO).saturating_add_signed(at * 1_000_000)).await;
        let reading = reading.map(|(value, age)| Reading { factor: factor(value), age: Duration::from_secs(age) });
        assert_eq!(script::control::answer(&reply), Some(Answer { leads, reading }), "step {number}");
    }
}

#[tokio::test]
async fn a_restored_factor_changes_no_record_that_is_there() {
    let server = RedisServer::start();
    let mut redis = Scripted::new(&server).await;
    let limit = guest();
    let scale = limit.scale.clone().unwrap();
    let charge = [Charge { limit: &limit, key: client("restored"), cost: MICRO, terms: Terms::Take }];
    let mut restored = async |value| {
        let command = redis.keys.publish(redis.digest(Script::Publish), &scale, factor(value), Change::Restore);
        redis.call(command, BEGIN).await;
        redis.decide(&charge, BEGIN).await.standings[0].factor
    };
    assert_eq!(restored(0.5).await, factor(0.5));
    assert_eq!(restored(0.7).await, factor(0.5));
}

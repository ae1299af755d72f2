//! One contract for the specification, the store in memory and the scripts in a real Redis: the same questions at the same
//! times get the same answers, to the micro-token.
//!
//! The scripts read Redis' clock in one place; here that place reads the test's time instead, and nothing else is changed.

use std::{cell::RefCell, fmt, time::Duration};

use arrayvec::ArrayVec;
use cxgate::{
    config::{Factor, Secret},
    limiter::{
        Charge, Limit, Standing, Terms, Verdict,
        bucket::{Bucket, MICRO},
        key::{Key, KeyHasher},
        memory::Memory,
        redis::script::{self, Change, Decision, Flow, KeySpace, Script},
        retry_after_seconds,
        scale::ScaleName,
    },
};
use prometheus_client::metrics::gauge::Gauge;
use proptest::{
    strategy::Strategy,
    test_runner::{Config as ProptestConfig, TestCaseError, TestRunner},
};
use redis::{Cmd, aio::MultiplexedConnection};

use crate::support::redis_server::RedisServer;

mod observe;
mod places;
mod specification;
mod terms;
mod traces;
mod windows;

use specification::Specification;

/// A moment of the present century, in microseconds.
const BEGIN: u64 = 1_800_000_000_000_000;

/// Whoever keeps the contract.
trait Subject {
    async fn reserve(&mut self, charges: &[Charge<'_>], within: u64, now: u64) -> Verdict;
    async fn give_back(&mut self, charges: &[Charge<'_>], at: u64, ahead: u64, now: u64) -> bool;
    async fn refund(&mut self, charges: &[Charge<'_>], at: u64, now: u64);
    async fn publish(&mut self, scale: &ScaleName, factor: Factor, now: u64);
    async fn pause(&mut self, charge: &Charge<'_>, now: u64);

    async fn decide(&mut self, charges: &[Charge<'_>], now: u64) -> Verdict {
        self.reserve(charges, 0, now).await
    }
}

/// The scripts in a real Redis, by the test's clock.
struct Scripted {
    connection: MultiplexedConnection,
    digests: Vec<(Script, String)>,
    keys: KeySpace,
}

// === impl Memory ===

impl Subject for Memory {
    async fn reserve(&mut self, charges: &[Charge<'_>], within: u64, now: u64) -> Verdict {
        self.reserve_at(charges, within, now).unwrap()
    }

    async fn give_back(&mut self, charges: &[Charge<'_>], at: u64, ahead: u64, now: u64) -> bool {
        self.give_back_at(charges, at, ahead, now).unwrap()
    }

    async fn refund(&mut self, charges: &[Charge<'_>], at: u64, now: u64) {
        self.refund_at(charges, at, now).unwrap();
    }

    async fn publish(&mut self, scale: &ScaleName, factor: Factor, now: u64) {
        self.publish_at(scale, factor, now);
    }

    async fn pause(&mut self, charge: &Charge<'_>, now: u64) {
        self.pause_at(charge, now).unwrap();
    }
}

// === impl Scripted ===

impl Scripted {
    async fn new(server: &RedisServer) -> Self {
        let mut connection = server.client().await;
        let mut digests = Vec::new();
        for script in Script::ALL {
            let source = script.source();
            assert!(source.matches("redis.call('TIME')").count() <= 1, "the clock is read once");
            let ours = source.replace("redis.call('TIME')", "{table.remove(ARGV, #ARGV - 1), table.remove(ARGV)}");
            let load = redis::cmd("SCRIPT").arg("LOAD").arg(ours).query_async(&mut connection).await;
            digests.push((script, load.unwrap()));
        }
        Self { connection, digests, keys: KeySpace::new("test") }
    }

    fn digest(&self, script: Script) -> &str {
        &self.digests.iter().find(|(known, _)| *known == script).unwrap().1
    }

    async fn call(&mut self, mut command: Cmd, now: u64) -> redis::Value {
        command.arg(now / MICRO).arg(now % MICRO).query_async(&mut self.connection).await.unwrap()
    }

    /// What one call answers to several decisions.
    async fn decide_together(&mut self, decisions: &[(Flow, Vec<Charge<'_>>)], now: u64) -> Vec<Verdict> {
        let asked: Vec<_> = decisions.iter().map(|(flow, charges)| Decision::new(*flow, charges)).collect();
        let command = self.keys.decide(self.digest(Script::Charge), &asked);
        let redis::Value::BulkString(bytes) = self.call(command, now).await else { panic!("no answer") };
        let mut bytes = bytes.into_iter();
        let part = |asked: &Decision| redis::Value::BulkString(bytes.by_ref().take(asked.answer_length()).collect());
        let parts: Vec<_> = asked.iter().map(part).collect();
        assert!(bytes.next().is_none());
        let told = |((flow, charges), part): (&(Flow, Vec<_>), _)| match flow {
            Flow::Take | Flow::Reserve(_) => script::verdict(part, charges),
            Flow::GiveBack { .. } => {
                let admitted = script::admitted(part).unwrap();
                Some(Verdict { admitted, at: 0, standings: ArrayVec::new() })
            }
            Flow::Give(_) | Flow::Pay => None,
        };
        decisions.iter().zip(&parts).filter_map(told).collect()
    }

    async fn lifetime_ms(&mut self, key: Key) -> i64 {
        let name = format!("test:1:{}", String::from_utf8(key.text().to_vec()).unwrap());
        redis::cmd("PTTL").arg(name).query_async(&mut self.connection).await.unwrap()
    }
}

impl Subject for Scripted {
    async fn reserve(&mut self, charges: &[Charge<'_>], within: u64, now: u64) -> Verdict {
        let flow = Flow::take(Duration::from_micros(within));
        let command = self.keys.charge(self.digest(Script::Charge), flow, charges);
        script::verdict(&self.call(command, now).await, charges).unwrap()
    }

    async fn give_back(&mut self, charges: &[Charge<'_>], at: u64, ahead: u64, now: u64) -> bool {
        let flow = Flow::GiveBack { at, ahead: Duration::from_micros(ahead) };
        let command = self.keys.charge(self.digest(Script::Charge), flow, charges);
        script::admitted(&self.call(command, now).await).unwrap()
    }

    async fn refund(&mut self, charges: &[Charge<'_>], at: u64, now: u64) {
        let command = self.keys.charge(self.digest(Script::Charge), Flow::Give(at), charges);
        self.call(command, now).await;
    }

    async fn publish(&mut self, scale: &ScaleName, factor: Factor, now: u64) {
        let command = self.keys.publish(self.digest(Script::Publish), scale, factor, Change::Switch);
        self.call(command, now).await;
    }

    async fn pause(&mut self, charge: &Charge<'_>, now: u64) {
        let command = self.keys.pause(self.digest(Script::Pause), charge);
        self.call(command, now).await;
    }
}

/// Holds the scripts to `check` in random cases, each of which finds Redis empty.
fn in_random_cases<T: fmt::Debug>(
    config: ProptestConfig,
    cases: &impl Strategy<Value = T>,
    check: &impl AsyncFn(&mut Scripted, T) -> Result<(), TestCaseError>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = RedisServer::start();
    let redis = RefCell::new(runtime.block_on(Scripted::new(&server)));
    let checked = TestRunner::new(config).run(cases, |case| {
        let redis = &mut *redis.borrow_mut();
        runtime.block_on(async {
            redis::cmd("FLUSHALL").query_async::<()>(&mut redis.connection).await.unwrap();
            check(redis, case).await
        })
    });
    checked.unwrap();
}

// === the table ===

fn factor(value: f64) -> Factor {
    Factor::new(value).unwrap()
}

fn client(name: &str) -> Key {
    KeyHasher::new(Some(&Secret::new("tests")), "test").start("limit").part(name.as_bytes()).finish()
}

/// Ten tokens, two a second, down to a twentieth of that under load.
fn guest() -> Limit {
    Limit {
        kind: Bucket { capacity: 10 * MICRO, rate: 2 * MICRO }.into(),
        scale: ScaleName::of(["backend"]),
        slowest: factor(0.05),
    }
}

/// What a refused request asks to learn what is there without taking it.
async fn tokens(subject: &mut impl Subject, limit: &Limit, key: Key, now: u64) -> u64 {
    let verdict = subject.decide(&[Charge { limit, key, cost: limit.kind.most() + 1, terms: Terms::Take }], now).await;
    assert!(!verdict.admitted);
    verdict.standings[0].tokens
}

/// Every check of the table against one subject.
async fn keeps_the_contract(subject: &mut impl Subject) {
    refusals_cost_nothing_anywhere(subject).await;
    retry_after_is_exact(subject).await;
    a_rate_cut_gives_no_more_than_the_new_rate(subject).await;
    refunds_give_back_and_no_more(subject).await;
    a_clock_that_steps_back_mints_nothing(subject).await;
    a_scaled_clock_that_stepped_back_runs_on_with_the_next_publication(subject).await;
    terms::keeps_its_terms(subject).await;
    windows::keeps_windows(subject).await;
}

async fn refusals_cost_nothing_anywhere(subject: &mut impl Subject) {
    let (wide, narrow) = (guest(), Limit { kind: Bucket { capacity: MICRO, rate: 1 }.into(), ..guest() });
    let (first, second) = (client("wide"), client("narrow"));
    let both = [
        Charge { limit: &wide, key: first, cost: 3 * MICRO, terms: Terms::Take },
        Charge { limit: &narrow, key: second, cost: MICRO, terms: Terms::Take },
    ];
    assert!(subject.decide(&both, BEGIN).await.admitted);
    for _ in 0..5 {
        let verdict = subject.decide(&both, BEGIN).await;
        assert!(!verdict.admitted);
        assert_eq!([verdict.standings[0].tokens, verdict.standings[1].tokens], [7 * MICRO, 0]);
    }
    assert_eq!(tokens(subject, &wide, first, BEGIN).await, 7 * MICRO);
}

async fn retry_after_is_exact(subject: &mut impl Subject) {
    let limit = guest();
    let charge = [Charge { limit: &limit, key: client("exact"), cost: 3 * MICRO, terms: Terms::Take }];
    let mut admitted = 0;
    let refused = loop {
        let verdict = subject.decide(&charge, BEGIN).await;
        if !verdict.admitted {
            break verdict;
        }
        admitted += 1;
    };
    assert_eq!(admitted, 3);
    let wait = limit.wait(&refused.standings[0], 3 * MICRO);
    assert_eq!((wait.as_micros(), retry_after_seconds(wait)), (1_000_000, 1));
    assert!(!subject.decide(&charge, BEGIN + 999_999).await.admitted);
    assert!(subject.decide(&charge, BEGIN + 1_000_000).await.admitted);
}

async fn a_rate_cut_gives_no_more_than_the_new_rate(subject: &mut impl Subject) {
    let limit = guest();
    let scale = limit.scale.clone().unwrap();
    let key = client("cut");
    assert!(subject.decide(&[Charge { limit: &limit, key, cost: 10 * MICRO, terms: Terms::Take }], BEGIN).await.admitted);
    subject.publish(&scale, factor(0.05), BEGIN).await;
    // The key's lifetime would be 6 s at the old rate.
    for seconds in [6, 18] {
        assert_eq!(tokens(subject, &limit, key, BEGIN + seconds * MICRO).await, seconds * MICRO / 10);
    }
    // Back to the whole rate: what passed is credited as it passed.
    subject.publish(&scale, Factor::ONE, BEGIN + 20 * MICRO).await;
    assert_eq!(tokens(subject, &limit, key, BEGIN + 21 * MICRO).await, 4 * MICRO);
}

async fn refunds_give_back_and_no_more(subject: &mut impl Subject) {
    let limit = guest();
    let now = BEGIN + 30 * MICRO;
    let charge = [Charge { limit: &limit, key: client("refund"), cost: 4 * MICRO, terms: Terms::Take }];
    subject.refund(&charge, 0, now).await;
    assert_eq!(tokens(subject, &limit, charge[0].key, now).await, 10 * MICRO);
    subject.decide(&charge, now).await;
    subject.decide(&charge, now).await;
    subject.refund(&charge, 0, now).await;
    assert_eq!(tokens(subject, &limit, charge[0].key, now).await, 6 * MICRO);
    subject.refund(&charge, 0, now + MICRO).await;
    assert_eq!(tokens(subject, &limit, charge[0].key, now + MICRO).await, 10 * MICRO);
}

async fn a_clock_that_steps_back_mints_nothing(subject: &mut impl Subject) {
    let limit = Limit { scale: None, ..guest() };
    let charge = [Charge { limit: &limit, key: client("back"), cost: 10 * MICRO, terms: Terms::Take }];
    assert!(subject.decide(&charge, BEGIN + 100 * MICRO).await.admitted);
    for now in [BEGIN, BEGIN + 99 * MICRO, BEGIN + 100 * MICRO] {
        assert_eq!(tokens(subject, &limit, charge[0].key, now).await, 0);
    }
    assert_eq!(tokens(subject, &limit, charge[0].key, BEGIN + 101 * MICRO).await, 2 * MICRO);
}

async fn a_scaled_clock_that_stepped_back_runs_on_with_the_next_publication(subject: &mut impl Subject) {
    let limit = guest();
    let (scale, half, now) = (limit.scale.clone().unwrap(), factor(0.5), BEGIN + 200 * MICRO);
    let charge = [Charge { limit: &limit, key: client("scaled back"), cost: 10 * MICRO, terms: Terms::Take }];
    subject.publish(&scale, half, now).await;
    assert!(subject.decide(&charge, now).await.admitted);
    assert_eq!(tokens(subject, &limit, charge[0].key, now - 50 * MICRO).await, 0);
    subject.publish(&scale, half, now - 50 * MICRO).await;
    assert_eq!(tokens(subject, &limit, charge[0].key, now - 48 * MICRO).await, 2 * MICRO);
}

#[tokio::test]
async fn the_specification_keeps_the_contract() {
    keeps_the_contract(&mut Specification::default()).await;
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    keeps_the_contract(&mut Memory::new(1000, Gauge::default())).await;
}

#[tokio::test]
async fn redis_keeps_the_contract() {
    keeps_the_contract(&mut Scripted::new(&RedisServer::start()).await).await;
}

#[tokio::test]
async fn a_key_lives_as_long_as_its_bucket_may_need_at_the_slowest() {
    let server = RedisServer::start();
    let mut redis = Scripted::new(&server).await;
    let limit = guest();
    let charge = [Charge { limit: &limit, key: client("lifetime"), cost: 5 * MICRO, terms: Terms::Take }];
    // Five tokens at a tenth of a token a second, in whole seconds and one to spare.
    redis.decide(&charge, BEGIN).await;
    assert!((45_000..=52_000).contains(&redis.lifetime_ms(charge[0].key).await));
    redis.decide(&charge, BEGIN).await;
    assert!((95_000..=102_000).contains(&redis.lifetime_ms(charge[0].key).await));
    redis.refund(&charge, 0, BEGIN).await;
    assert!((45_000..=52_000).contains(&redis.lifetime_ms(charge[0].key).await));
    // A replica that knows of a still lower factor has published it.
    redis.publish(limit.scale.as_ref().unwrap(), factor(0.025), BEGIN).await;
    redis.decide(&charge, BEGIN).await;
    assert!((195_000..=202_000).contains(&redis.lifetime_ms(charge[0].key).await));
}

#[tokio::test]
async fn what_is_no_bucket_is_a_full_one_and_is_replaced() {
    let server = RedisServer::start();
    let mut redis = Scripted::new(&server).await;
    let limit = guest();
    let charge = [Charge { limit: &limit, key: client("spoiled"), cost: MICRO, terms: Terms::Take }];
    let name = format!("test:1:{}", String::from_utf8(charge[0].key.text().to_vec()).unwrap());
    for spoil in [
        redis::cmd("HSET").arg(&name).arg("a").arg("b").take(),
        redis::cmd("SET").arg(&name).arg("").take(),
        redis::cmd("SET").arg(&name).arg("thirteen bytes").take(),
        redis::cmd("HSET").arg("test:1:scale:backend").arg("a").arg("b").take(),
        redis::cmd("SET").arg("test:1:scale:backend").arg("b").take(),
    ] {
        let mut connection = redis.connection.clone();
        redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.unwrap();
        spoil.query_async::<i64>(&mut connection).await.ok();
        assert_eq!(redis.decide(&charge, BEGIN).await.standings[0].tokens, 9 * MICRO);
        redis.publish(limit.scale.as_ref().unwrap(), factor(0.5), BEGIN).await;
        assert_eq!(
            redis.decide(&charge, BEGIN).await.standings[0],
            Standing { tokens: 8 * MICRO, owed: 0, factor: factor(0.5), wait: 0 }
        );
    }
}

//! `lua/observe.lua` against its specification: the same samples at the same times make the same factor, the same clock, and
//! the same buckets.

use std::time::Duration;

use cxgate::limiter::{
    Limiter,
    latency::{Counts, Recent, Slowdown},
    measured::Observation,
};

use super::*;

/// A window of a second, so that short traces leave it often.
fn slowdown() -> Slowdown {
    Slowdown { threshold: 100_000, slope: factor(0.5), floor: factor(0.2), min_samples: 5, slot: 100_000 }
}

fn counts(times: impl IntoIterator<Item = Duration>) -> Counts {
    let mut counts = Counts::default();
    times.into_iter().for_each(|took| counts.add(took));
    counts
}

impl Scripted {
    async fn observe(&mut self, scale: &ScaleName, counts: &Counts, slowdown: Slowdown, now: u64) -> Factor {
        let (own, before, lifetime) = (Factor::ONE, Factor::ONE, Duration::from_mins(1));
        let observation = Observation { scale, counts, slowdown, lifetime, own, before };
        let command = self.keys.observe(self.digest(Script::Observe), &observation);
        let redis::Value::Int(millionths) = self.call(command, now).await else { panic!("no factor") };
        factor(f64::from(u32::try_from(millionths).unwrap()) / 1e6)
    }
}

#[tokio::test]
async fn samples_make_the_same_factor_and_the_same_clock_as_the_specification() {
    let server = RedisServer::start();
    let mut redis = Scripted::new(&server).await;
    let mut random = fastrand::Rng::with_seed(5);
    let (mut factors, mut records) = (std::collections::BTreeSet::new(), 0);
    for trace in 0..40_u8 {
        let scale = ScaleName::of_tenant("latency", Key([trace; 12]));
        let limit = Limit { scale: Some(scale.clone()), slowest: factor(0.2), ..guest() };
        let charge = [Charge { limit: &limit, key: client(&trace.to_string()), cost: MICRO, terms: Terms::Take }];
        let slowdown = Slowdown { slope: factor([0.5, 0.01, 100.0][usize::from(trace) % 3]), ..slowdown() };
        let (mut recent, mut specification) = (Recent::default(), Specification::default());
        let mut now = BEGIN;
        for step in 0..40 {
            now += random.u64(0..[20_000, 200_000, 1_200_000][usize::from(trace) % 3]);
            if step % 16 == 15 {
                // The clock steps back.
                now -= 150_000;
            }
            let slowest = [120, 400, 4_000_000][usize::from(trace) / 3 % 3];
            let times = (0..random.u8(..4)).map(|_| Duration::from_millis(random.u64(..slowest)));
            let added = counts(times.collect::<Vec<_>>());
            recent.add(&added, &slowdown, now);
            let expected = recent.factor(&slowdown, now);
            assert_eq!(redis.observe(&scale, &added, slowdown, now).await, expected, "trace {trace}, step {step}");
            specification.publish(&scale, expected, now).await;
            assert_eq!(redis.decide(&charge, now).await, specification.decide(&charge, now).await, "step {step}");
            factors.insert(expected.millionths());
            records += u32::from(expected != Factor::ONE);
        }
    }
    assert!(factors.len() > 12 && records > 100, "{} factors, {records} below 1", factors.len());
}

#[tokio::test]
async fn what_is_no_record_counts_for_nothing_and_a_fast_tenant_has_none() {
    let server = RedisServer::start();
    let mut redis = Scripted::new(&server).await;
    let scale = ScaleName::of_tenant("latency", client("tenant"));
    let samples = format!("test:1:samples:{scale}");
    let fast = counts([Duration::from_millis(1); 5]);
    assert_eq!(redis.observe(&scale, &fast, slowdown(), BEGIN).await, Factor::ONE);
    let mut connection = redis.connection.clone();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    assert_eq!(keys.join(" "), samples, "no scale yet");
    for spoil in [
        redis::cmd("HSET").arg(&samples).arg("a").arg("b").take(),
        redis::cmd("SET").arg(&samples).arg("seven and more").take(),
        redis::cmd("HSET").arg(format!("test:1:scale:{scale}")).arg("a").arg("b").take(),
    ] {
        redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.unwrap();
        spoil.query_async::<redis::Value>(&mut connection).await.unwrap();
        let slow = counts([Duration::from_secs(1); 5]);
        assert_eq!(redis.observe(&scale, &slow, slowdown(), BEGIN).await, factor(0.2), "{spoil:?}");
        assert_eq!(redis.observe(&scale, &Counts::default(), slowdown(), BEGIN).await, factor(0.2), "{spoil:?}");
    }
}

#[tokio::test]
async fn samples_live_for_a_window_and_take_eleven_bytes_a_class() {
    let server = RedisServer::start();
    let mut redis = Scripted::new(&server).await;
    let scale = ScaleName::of_tenant("latency", client("tenant"));
    let name = format!("test:1:samples:{scale}");
    let slot = slowdown().slot;
    for step in 0..30 {
        let spread = (0..20).map(|place| Duration::from_millis(100 + 5 * place));
        redis.observe(&scale, &counts(spread), slowdown(), BEGIN + step * slot).await;
    }
    let mut connection = redis.connection.clone();
    let length: u64 = redis::cmd("STRLEN").arg(&name).query_async(&mut connection).await.unwrap();
    let lifetime: i64 = redis::cmd("PTTL").arg(&name).query_async(&mut connection).await.unwrap();
    assert!(length <= 8 * 20 * 11 && length.is_multiple_of(11), "{length}");
    assert!((1..=1000).contains(&lifetime), "{lifetime}");
}

/// The limiter is what decides by it, on any store.
#[tokio::test]
async fn the_embedded_store_follows_what_this_process_measured() {
    let (config, metrics) = (crate::support::rig::store(), cxgate::metrics::Metrics::default());
    let limiter = Limiter::start(&config, &metrics, &cxgate::shutdown::Shutdown::default()).unwrap();
    let scale = ScaleName::of_tenant("latency", client("tenant"));
    let (counts, slowdown, lifetime) = (Counts::default(), slowdown(), Duration::ZERO);
    let observation =
        Observation { scale: &scale, counts: &counts, slowdown, lifetime, own: factor(0.3), before: Factor::ONE };
    assert_eq!(limiter.observe(&observation).await, Ok(factor(0.3)));
    let limit = Limit { scale: Some(scale), ..guest() };
    let charge = [Charge { limit: &limit, key: client("bucket"), cost: MICRO, terms: Terms::Take }];
    let cxgate::limiter::Decision::Admitted { standings, .. } = limiter.decide(&charge).await else { panic!("refused") };
    assert_eq!(standings[0].factor, factor(0.3));
}

//! Sliding windows through the whole daemon and on a real clock: so many at once, so many in any window, and when the next.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use cxgate::{
    config::{Config, Factor, OnFailure, SlidingWindow},
    limiter::{Charge, Decision, Limit, bucket::MICRO, retry_after_seconds, scale::ScaleName, window::Window},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::support::{
    http::{Answer, get_as},
    oracle::{Oracle, most_within},
    redis_server::RedisServer,
    relay::{Fault, Relay},
    rig::{DEADLINE, Rig, token},
    stub_upstream::StubUpstream,
    test_gate::TestGate,
};

const PATH: &str = "/api/v2/engage/webchat";

/// The upstream learns from this field when a request was sent.
const SENT: &str = "x-sent";

/// The first route under one window a client.
fn windowed(quota: u32, window: Duration) -> impl Fn(&mut Config) {
    move |config| {
        let limit = &mut config.routes[0].limits[0].limit;
        limit.kind = SlidingWindow { quota, window }.into();
        limit.scale_by.clear();
    }
}

fn limit(quota: u64, length: Duration) -> Limit {
    let length = u64::try_from(length.as_micros()).unwrap();
    let kind = Window { quota: quota * MICRO, length }.into();
    Limit { kind, scale: ScaleName::of(["latency"]), slowest: Factor::new(0.05).unwrap() }
}

fn charge(limit: &Limit) -> [Charge<'_>; 1] {
    [token(limit, "tenant")]
}

async fn sixty_at_once(proxy: SocketAddr) -> Vec<Answer> {
    let requests: JoinSet<_> = (0..60).map(|_| get_as(proxy, PATH, "tenant")).collect();
    requests.join_all().await
}

#[tokio::test]
async fn of_sixty_at_once_against_twenty_in_four_seconds_twenty_pass() {
    let upstream = StubUpstream::start().await;
    let redis = RedisServer::start();
    let change = windowed(20, Duration::from_secs(4));
    let embedded = TestGate::start(upstream.address, &change);
    let shared = TestGate::on_redis(upstream.address, &redis, &change).await;
    for gate in [embedded, shared] {
        let begin = Instant::now();
        let answers = sixty_at_once(gate.proxy).await;
        // A machine that takes longer than a window for this has let more pass, rightly.
        let windows = 1 + usize::try_from(begin.elapsed().as_secs() / 4).unwrap();
        let (passed, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
        assert!(passed.len() >= 20 && passed.len() <= 20 * windows, "{} passed", passed.len());
        for answer in refused {
            assert_eq!((answer.status.as_u16(), answer.header("x-ratelimit-limit")), (429, "20"));
            assert_eq!(answer.header("ratelimit-policy"), r#""per-client";q=20;w=4"#);
            assert!((1..=4).contains(&answer.header("retry-after").parse::<u64>().unwrap()), "{answer:?}");
        }
        let mut remaining: Vec<u64> =
            passed.iter().map(|answer| answer.header("x-ratelimit-remaining").parse().unwrap()).collect();
        remaining.sort_unstable();
        remaining.dedup();
        assert_eq!(remaining, (0..20).collect::<Vec<_>>());
    }
}

/// Clients ask three replicas at random for so long; the record is the upstream's own.
async fn random_run(quota: u32, window: Duration, run: Duration) {
    let oracle = Oracle::new();
    let record = oracle.clone();
    let begin = Instant::now();
    let upstream = StubUpstream::answering(move |seen| {
        let sent: u64 = seen.headers[SENT].to_str().unwrap().parse().unwrap();
        record.admitted(begin + Duration::from_micros(sent));
        hyper::Response::new("".into())
    })
    .await;
    let redis = RedisServer::start();
    let mut gates = Vec::new();
    for _ in 0..3 {
        gates.push(TestGate::on_redis(upstream.address, &redis, windowed(quota, window)).await);
    }
    let mut callers = JoinSet::new();
    for caller in 0..12 {
        let proxy = gates[caller % gates.len()].proxy;
        callers.spawn(async move {
            let mut asked = 0;
            while begin.elapsed() < run {
                let sent = begin.elapsed().as_micros().to_string();
                let fields = [("x-client-id", "tenant"), (SENT, sent.as_str())];
                crate::support::http::get(proxy, PATH, &fields).await;
                asked += 1;
                sleep(Duration::from_micros(fastrand::u64(0..80_000))).await;
            }
            asked
        });
    }
    let asked: u32 = callers.join_all().await.into_iter().sum();
    let most = most_within(&oracle.admissions(), window);
    let (passed, windows) = (oracle.count(), run.as_millis() / window.as_millis());
    let offered = u128::from(quota) * windows;
    assert!(most <= quota as usize, "{most} of {quota} in one window; {passed} of {asked} passed");
    assert!(passed as u128 >= offered / 2, "only {passed} of {asked} passed");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_never_let_more_than_the_quota_pass_in_any_window() {
    // The same with a window of four seconds: CXGATE_WINDOW_RUN=60 (seconds).
    let seconds: u64 = std::env::var("CXGATE_WINDOW_RUN").map_or(0, |seconds| seconds.parse().unwrap());
    match seconds {
        0 => random_run(20, Duration::from_millis(500), Duration::from_secs(3)).await,
        seconds => random_run(20, Duration::from_secs(4), Duration::from_secs(seconds)).await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stays_with_its_replica_gains_nothing_by_an_outage() {
    const QUOTA: u64 = 10;
    let window = Duration::from_millis(400);
    let server = RedisServer::start();
    let relay = Relay::start(server.address()).await;
    let rig = Rig::at(&format!("redis://{}/0", relay.address), OnFailure::Local, DEADLINE);
    rig.until(true).await;
    let (limit, oracle, limiter) = (limit(QUOTA, window), Oracle::new(), Arc::clone(&rig.limiter));
    let record = oracle.clone();
    let asking = tokio::spawn(async move {
        loop {
            let sent = Instant::now();
            match limiter.decide(&charge(&limit)).await {
                Decision::Admitted { .. } => record.admitted(sent),
                Decision::Refused { .. } => {}
                other => panic!("{other:?}"),
            }
            sleep(Duration::from_millis(fastrand::u64(0..20))).await;
        }
    });
    for fault in [Fault::Cut, Fault::BlackHole, Fault::AnswersLost, Fault::Cut] {
        for fault in [fault, Fault::None] {
            relay.set(fault);
            sleep(Duration::from_millis(fastrand::u64(200..700))).await;
        }
        rig.until(true).await;
    }
    asking.abort();
    let most = most_within(&oracle.admissions(), window);
    assert!(most <= 10, "{most} of {QUOTA} in one window");
    assert!(oracle.count() > 20 && rig.metrics.fallback_decisions.get() > 0, "{} passed", oracle.count());
    rig.stop().await;
}

#[tokio::test]
async fn a_factor_that_cuts_a_full_window_leaves_a_retry_after_that_is_right_to_the_second() {
    let server = RedisServer::start();
    let on_redis = Rig::patient(&server, OnFailure::Deny).await;
    let embedded = Rig::over(&crate::support::rig::store());
    for rig in [on_redis, embedded] {
        let (window, mut taken) = (Duration::from_secs(20), Vec::new());
        let limit = limit(30, window);
        for _ in 0..30 {
            let sent = Instant::now();
            assert!(matches!(rig.limiter.decide(&charge(&limit)).await, Decision::Admitted { .. }));
            taken.push((sent, Instant::now()));
            sleep(Duration::from_millis(fastrand::u64(0..60))).await;
        }
        rig.limiter.publish(limit.scale.as_ref().unwrap(), Factor::new(0.25).unwrap()).await;
        let asked = Instant::now();
        let Decision::Refused { standings } = rig.limiter.decide(&charge(&limit)).await else { panic!("seven of thirty") };
        let answered = Instant::now();
        // Of seven in force one more fits when six are left: the twenty-fourth has to cease to count.
        let (sent, done) = taken[23];
        let (least, most) = (sent + window - answered, done + window - asked);
        let wait = limit.wait(&standings[0], MICRO);
        assert!(least <= wait && wait <= most, "{wait:?}, not {least:?} to {most:?}");
        let seconds = retry_after_seconds(least)..=retry_after_seconds(most);
        assert!(seconds.contains(&retry_after_seconds(wait)), "{wait:?}");
        rig.stop().await;
    }
}

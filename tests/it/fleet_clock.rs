//! Clocks of replicas do not matter: time is Redis' own.

use std::time::{Duration, SystemTime};

use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    daemon::{Daemon, one_route},
    http::{get, get_as},
    oracle::Oracle,
    redis_server::RedisServer,
    stub_upstream::StubUpstream,
    until,
};

const CALLERS: usize = 96;
const TIME: Duration = Duration::from_secs(3);

fn configuration(upstream: &StubUpstream, redis: &RedisServer) -> String {
    // Only Redis is to decide here, however busy the machine.
    let more = format!(
        r#"
        [[routes.limits]]
        name = "per-client"
        per = ["client"]
        token_bucket = {{ capacity = 20, refill_per_second = 10 }}
        [store]
        redis = "{}"
        deadline = "10s"
        on_failure = "deny"
        "#,
        redis.url()
    );
    one_route(upstream.address, "/all", &more)
}

/// How far a daemon's clock is ahead of ours, as it says in a refusal.
async fn ahead(daemon: &Daemon) -> Duration {
    let answer = get(daemon.proxy, "/nowhere", &[]).await;
    let date = httpdate::parse_http_date(answer.header("date")).unwrap();
    date.duration_since(SystemTime::now()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_an_hour_ahead_mints_no_tokens() {
    let upstream = StubUpstream::start().await;
    let redis = RedisServer::start();
    let configuration = configuration(&upstream, &redis);
    let daemons = [
        Daemon::start(&configuration).await,
        Daemon::start_an_hour_ahead(&configuration).await,
        Daemon::start(&configuration).await,
    ];
    assert!(ahead(&daemons[0]).await < Duration::from_mins(1));
    assert!(ahead(&daemons[1]).await > Duration::from_secs(3500));
    for daemon in &daemons {
        until(async || get(daemon.admin, "/readyz", &[]).await.json()["store"] == "redis").await;
    }

    let oracle = Oracle::new();
    let end = Instant::now() + TIME;
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (proxy, oracle) = (daemons[caller % daemons.len()].proxy, oracle.clone());
        callers.spawn(async move {
            loop {
                let sent = Instant::now();
                if sent > end {
                    return;
                }
                match get_as(proxy, "/all", "client").await.status.as_u16() {
                    200 => oracle.admitted(sent),
                    429 => {}
                    other => panic!("{other}"),
                }
            }
        });
    }
    callers.join_all().await;
    let excess = oracle.excess(20, 10.0);
    assert!(oracle.count() >= 40, "{} admitted", oracle.count());
    assert!(excess <= 1.0, "E is {excess}");
}

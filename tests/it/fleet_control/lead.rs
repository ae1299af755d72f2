//! One replica polls, the others learn what it found; who polls may change at any time.

use std::time::Duration;

use http_body_util::Full;
use hyper::Response;
use tokio::time::Instant;

use crate::support::{
    daemon::Daemon,
    http::get,
    redis_server::RedisServer,
    stub_upstream::{Seen, StubUpstream},
    until,
};

/// Time from poll to poll.
const INTERVAL: Duration = Duration::from_secs(1);

/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(2);

/// A load endpoint that tells replica 0 of a busy backend and all others of a calm one; the query says who asks.
async fn endpoint() -> StubUpstream {
    StubUpstream::answering(|seen: &Seen| {
        let cpu = if seen.target.ends_with('0') { 100 } else { 50 };
        Response::new(Full::from(format!(r#"{{"cpu_utilization":{cpu},"queue_depth":0}}"#)))
    })
    .await
}

async fn replica(number: usize, endpoint: &StubUpstream, redis: &RedisServer) -> Daemon {
    let (redis, endpoint) = (redis.url(), endpoint.address);
    Daemon::start(&format!(
        "[log]\nformat = \"json\"\n[store]\nredis = \"{redis}\"\ndeadline = \"2s\"\n[load.backend]\n\
         endpoint = \"http://{endpoint}/load?{number}\"\ninterval = \"1s\"\nmax_rise_per_second = 100\n"
    ))
    .await
}

async fn metric(replica: &Daemon, name: &str) -> String {
    let exported = get(replica.admin, "/metrics", &[]).await;
    let value = exported.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(r#"{signal="backend"} "#));
    value.unwrap_or_default().to_owned()
}

async fn leaders(replicas: &[Daemon]) -> Vec<usize> {
    let mut leaders = Vec::new();
    for (place, replica) in replicas.iter().enumerate() {
        if metric(replica, "cxgate_load_leader").await == "1" {
            leaders.push(place);
        }
    }
    leaders
}

/// Waits until there is one leader and all show the same factor.
async fn agreed(replicas: &[Daemon], expected: &str) -> usize {
    until(async || {
        for replica in replicas {
            if metric(replica, "cxgate_load_factor").await != expected {
                return false;
            }
        }
        leaders(replicas).await.len() == 1
    })
    .await;
    leaders(replicas).await[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_polling_replica_is_killed_another_polls_within_two_intervals_and_all_agree() {
    let (redis, endpoint) = (RedisServer::start(), endpoint().await);
    let mut replicas = vec![replica(0, &endpoint, &redis).await];
    agreed(&replicas, "0.2").await;
    for _ in 0..2 {
        replicas.push(replica(1, &endpoint, &redis).await);
    }
    assert_eq!(agreed(&replicas, "0.2").await, 0, "whoever polls goes on");

    replicas.remove(0).signal("KILL");
    let killed = Instant::now();
    let polls = endpoint.seen().len();
    until(async || endpoint.seen()[polls..].iter().any(|seen| seen.target.ends_with('1'))).await;
    assert!(killed.elapsed() < 2 * INTERVAL + SLACK, "polled again after {:?}", killed.elapsed());
    agreed(&replicas, "1.0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_of_three_polls_and_one_that_stops_hands_over_at_once() {
    let (redis, endpoint) = (RedisServer::start(), endpoint().await);
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(replica(1, &endpoint, &redis).await);
    }
    let leader = agreed(&replicas, "1.0").await;
    let (polls, began) = (endpoint.seen().len(), Instant::now());
    until(async || endpoint.seen().len() >= polls + 3).await;
    // Three replicas that poll would be there in one interval.
    assert!(began.elapsed() > INTERVAL * 3 / 2, "three polls in {:?}", began.elapsed());

    let mut client = redis.client().await;
    let mut lease =
        async || -> Vec<u8> { redis::cmd("GET").arg("cxgate:1:lease:backend").query_async(&mut client).await.unwrap() };
    let before = lease().await;
    let stopped = replicas.remove(leader);
    stopped.signal("TERM");
    assert_eq!(stopped.ended().await.0, Some(0));
    // Who holds the lease (8 bytes), and until when (7).
    let after = lease().await;
    assert!(after[..8] != before[..8] || after[8..15] == [0; 7], "it took its lease with it");
    agreed(&replicas, "1.0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_each_replica_polls_for_itself_and_with_it_one_again() {
    let (mut redis, endpoint) = (RedisServer::start(), endpoint().await);
    let replicas = [replica(0, &endpoint, &redis).await, replica(1, &endpoint, &redis).await];
    until(async || leaders(&replicas).await.len() == 1).await;
    redis.stop();
    until(async || {
        metric(&replicas[0], "cxgate_load_factor").await == "0.2"
            && metric(&replicas[1], "cxgate_load_factor").await == "1.0"
            && leaders(&replicas).await == [0, 1]
    })
    .await;
    redis.restart();
    until(async || {
        let factors = [0, 1].map(|place| metric(&replicas[place], "cxgate_load_factor"));
        let [one, other] = factors;
        leaders(&replicas).await.len() == 1 && one.await == other.await
    })
    .await;
}

//! A Redis that may evict buckets is warned of with each connection.

use crate::support::{daemon::Daemon, http::get, redis_server::RedisServer, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_may_evict_buckets_is_warned_of() {
    let redis = RedisServer::start();
    let configuration = format!("[log]\nformat = \"json\"\n[store]\nredis = \"{}\"\n", redis.url());
    let mut daemon = Daemon::start(&configuration).await;
    until(async || get(daemon.admin, "/readyz", &[]).await.json()["store"] == "redis").await;
    for command in ["CONFIG SET maxmemory 100mb", "CONFIG SET maxmemory-policy allkeys-lru", "CLIENT KILL TYPE normal"] {
        redis.tell(command).await;
    }
    let warned = daemon.until_event("store_evicts").await;
    assert_eq!((&warned["level"], &warned["policy"]), (&"WARN".into(), &"allkeys-lru".into()));
}

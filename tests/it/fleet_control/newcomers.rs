//! Names that one address makes up: they buy no tokens beyond a cap, and no room in Redis.

use std::net::SocketAddr;

use cxgate::config::{Config, Rate, TokenBucket, Trusted};
use tokio::task::JoinSet;

use crate::support::{
    http::{Answer, get, get_as, get_from},
    redis_server::RedisServer,
    stub_upstream::StubUpstream,
    test_gate::{TestGate, bucket_of},
};

const CHAT: &str = "/api/v2/engage/webchat";

/// New identities an address may bring.
const CAP: u32 = 200;

fn capped(config: &mut Config) {
    let slow = Rate::per_second(0.001).unwrap();
    config.identity.new_per_address = Some(TokenBucket { capacity: CAP, refill_per_second: slow });
    // Slow enough that no bucket is full and forgotten within the test, and faster than the cap's.
    bucket_of(config).refill_per_second = Rate::per_second(0.01).unwrap();
    let trusted = Trusted { client: "trusted".into(), networks: Vec::new(), certificate: None, secret: None };
    config.whitelist = vec![trusted];
}

/// Clients that ask at the same time.
const AT_ONCE: u32 = 4;

/// Sends requests of `count` clients that nobody has heard of; how many passed, and a refusal.
async fn newcomers(proxy: SocketAddr, count: u32) -> (u32, Answer) {
    let mut askers = JoinSet::new();
    for asker in 0..AT_ONCE {
        askers.spawn(async move {
            let (mut passed, mut refusal) = (0, None);
            for number in 0..count / AT_ONCE {
                let answer = get_as(proxy, CHAT, &format!("{asker}/{number} {}", fastrand::u64(..))).await;
                passed += u32::from(answer.status == 200);
                refusal = Some(answer).filter(|answer| answer.status != 200).or(refusal);
            }
            (passed, refusal)
        });
    }
    let asked = askers.join_all().await;
    let passed = asked.iter().map(|(passed, _)| passed).sum();
    (passed, asked.into_iter().find_map(|(_, refusal)| refusal).expect("a refusal"))
}

#[tokio::test(flavor = "multi_thread")]
async fn random_names_of_one_address_pass_up_to_the_cap_and_fill_no_store() {
    let (upstream, redis) = (StubUpstream::start().await, RedisServer::start());
    let embedded = TestGate::start(upstream.address, capped);
    let shared = TestGate::on_redis(upstream.address, &redis, capped).await;
    for (gate, count) in [(&embedded, 1000), (&shared, 5000)] {
        assert_eq!(get_as(gate.proxy, CHAT, "regular").await.status, 200);
        let (passed, refused) = newcomers(gate.proxy, count).await;
        assert!((CAP - 1..=CAP).contains(&passed), "{passed} passed");
        assert_eq!((refused.status.as_u16(), &refused.json()["limit"]), (429, &"new-identities".into()));
        assert!(refused.header("retry-after").parse::<u64>().unwrap() > 900, "a thousand seconds bring one more");

        for remaining in (0..9).rev() {
            let regular = get_as(gate.proxy, CHAT, "regular").await;
            assert_eq!(regular.header("x-ratelimit-remaining"), remaining.to_string(), "whoever is known passes");
        }
        let drained = get_as(gate.proxy, CHAT, "regular").await;
        assert_eq!(drained.json()["limit"], "per-client", "it waits for its own bucket, not for its address");
        assert_eq!(get_as(gate.proxy, CHAT, "trusted").await.status, 200, "trusted clients are exempt");
        assert_eq!(get(gate.proxy, CHAT, &[]).await.status, 200, "a client without a name brings none");
        assert_eq!(get_from("127.0.0.2", gate.proxy, CHAT, &[("x-client-id", "x")]).await.status, 200, "another address");
    }
    let mut client = redis.client().await;
    let keys: u32 = redis::cmd("DBSIZE").query_async(&mut client).await.unwrap();
    // The cap, the two clients beside it, the two addresses' own buckets, the probe, and the names of the replicas.
    assert!(keys <= CAP + 6, "{keys} keys");
    let mut bytes = 0_u64;
    let names: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut client).await.unwrap();
    for name in &names {
        let usage: Option<u64> = redis::cmd("MEMORY").arg("USAGE").arg(name).query_async(&mut client).await.unwrap();
        bytes += usage.unwrap_or_default();
    }
    let each = bytes / u64::from(keys.max(1));
    println!("{keys} keys after 5000 random names, {each} bytes each");
    assert!(each <= 160, "{each} bytes a key");
}

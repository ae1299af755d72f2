//! `[store]`.

use std::time::Duration;

use super::{
    Reader,
    kind::{choice, duration, integer, parsed, path},
};
use crate::config::{OnFailure, Redis, Store};

pub(super) fn store(table: &mut Reader<'_, '_>) -> Store {
    let policies = [("local", OnFailure::Local), ("deny", OnFailure::Deny), ("allow", OnFailure::Allow)];
    Store {
        redis: redis(table),
        sentinel_password: table.secret("sentinel_password", "a password", |_| true),
        ca: table.optional("ca", path),
        deadline: table.or(
            "deadline",
            Duration::from_millis(50),
            duration(Duration::from_millis(1)..=Duration::from_secs(10)),
        ),
        on_failure: table.or("on_failure", OnFailure::Local, choice(&policies)),
        key_prefix: table.or("key_prefix", "cxgate".to_owned(), parsed("1 to 32 letters, digits, -, _ or .", key_prefix)),
        max_buckets: table.or("max_buckets", 1_000_000, integer(1000..=100_000_000)),
    }
}

/// What one text may say.
const REDIS_URL: &str = "redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], redis+sentinel://[USER:PASSWORD@]HOST[:PORT],…/MASTER\
                         [/DATABASE], or the first for several nodes of a Cluster; rediss for TLS";

/// What an element of a list may say.
const NODE_URL: &str = "redis://[USER:PASSWORD@]HOST[:PORT], or the same with rediss";

fn redis(table: &mut Reader<'_, '_>) -> Option<Redis> {
    if !table.is_list("redis") {
        let text = table.secret("redis", REDIS_URL, |text| Redis::parse(text).is_some())?;
        return Redis::parse(text.expose());
    }
    let nodes = table.elements("redis", parsed(NODE_URL, Redis::parse_node))?;
    let cluster = Redis::cluster(nodes.into_iter().collect::<Option<_>>()?);
    if cluster.is_none() {
        table.wrong("redis", "expected at least one node, and for all of them the same scheme, user and password");
    }
    cluster
}

fn key_prefix(text: &str) -> Option<String> {
    let well_formed =
        (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    well_formed.then(|| text.to_owned())
}

//! `[store]`.

use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use super::{
    Reader,
    kind::{choice, duration, integer, parsed},
};
use crate::config::{OnFailure, Store};

pub(super) fn store(table: &mut Reader<'_, '_>) -> Store {
    let policies = [("local", OnFailure::Local), ("deny", OnFailure::Deny), ("allow", OnFailure::Allow)];
    Store {
        redis: table.secret("redis", REDIS_URL, is_redis_url),
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

/// What this version can connect to.
const REDIS_URL: &str = "redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE] (TLS, Sentinel and Cluster are not supported by \
                         this version)";

/// Whether the Redis client will understand it, and take it to mean a plain connection to one server.
fn is_redis_url(text: &str) -> bool {
    let connection = text.strip_prefix("redis://").and_then(|_| text.into_connection_info().ok());
    matches!(connection.as_ref().map(ConnectionInfo::addr), Some(ConnectionAddr::Tcp(..)))
}

fn key_prefix(text: &str) -> Option<String> {
    let well_formed =
        (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    well_formed.then(|| text.to_owned())
}

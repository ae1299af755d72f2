//! Whether Redis may drop buckets to make room for other keys.
//!
//! A bucket that was dropped is a full one: no script can tell it from one that was never charged. So this can be warned of,
//! and not prevented from here.

use redis::{Cmd, aio::MultiplexedConnection};
use tracing::warn;

/// Warns where keys may be evicted. Where Redis does not let itself be asked, nothing is said.
pub(super) async fn warn_of(connection: &mut MultiplexedConnection) {
    let mut command = Cmd::new();
    command.arg("INFO").arg("memory");
    let Ok(reply) = connection.send_packed_command(&command).await else { return };
    let information: String = redis::from_redis_value(reply).unwrap_or_default();
    if let Some(policy) = evicts(&information) {
        let message = "Redis may evict buckets, which refills them; set its maxmemory-policy to noeviction";
        warn!(event = "store_evicts", policy, "{message}");
    }
}

/// The policy by which a Redis evicts; `None` where it has no bound, or refuses to write beyond it.
fn evicts(information: &str) -> Option<&str> {
    let field = |name: &str| information.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let bound = field("maxmemory").filter(|bound| *bound != "0");
    bound.and(field("maxmemory_policy")).filter(|policy| *policy != "noeviction")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bounded_redis_that_evicts_is_warned_of() {
        let information =
            |bound, policy| format!("# Memory\r\nused_memory:1\r\nmaxmemory:{bound}\r\nmaxmemory_policy:{policy}\r\n");
        assert_eq!(evicts(&information("1048576", "allkeys-lru")), Some("allkeys-lru"));
        assert_eq!(evicts(&information("1048576", "volatile-ttl")), Some("volatile-ttl"));
        assert_eq!(evicts(&information("1048576", "noeviction")), None);
        assert_eq!(evicts(&information("0", "allkeys-lru")), None);
        assert_eq!(evicts(""), None);
    }
}

//! What a reload cannot change: sockets that are bound, the store that buckets live in, and the log.
//!
//! Such a key keeps its value until the next start, and everything else of the new configuration holds: a limit that has to
//! change now must not wait for the hour in which a port may change, and the file says already what the next start does.

use serde::Serialize;
use serde_json::Value;

use crate::config::Config;

/// A key that was changed and needs a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The key.
    pub key: &'static str,
    /// The value in effect, in JSON; secrets hidden.
    pub running: String,
    /// The value of the file, the same.
    pub wanted: String,
}

/// Gives `wanted` the running value of each of these keys; what differed is in the result.
macro_rules! hold_back {
    ($running:ident, $wanted:ident, $($section:ident.$key:ident),+ $(,)?) => {{
        let mut held = Vec::new();
        $(if $wanted.$section.$key != $running.$section.$key {
            let text = |section| serde_json::to_value(section).map_or(Value::Null, |mut section| section[stringify!($key)].take());
            held.push(Held {
                key: concat!(stringify!($section), ".", stringify!($key)),
                running: text(&$running.$section).to_string(),
                wanted: text(&$wanted.$section).to_string(),
            });
            $wanted.$section.$key = $running.$section.$key.clone();
        })+
        held
    }};
}

/// Leaves in `wanted` what is running of the keys that need a restart, and tells which were to change.
#[expect(clippy::float_cmp, reason = "what was typed is compared with what was typed")]
#[rustfmt::skip]
pub(super) fn hold_back(running: &Config, wanted: &mut Config) -> Vec<Held> {
    hold_back!(
        running, wanted,
        listen.address, listen.max_connections, listen.max_requests_in_flight, listen.reuse_port, listen.h2c, listen.tls,
        admin.address,
        log.format, log.level, log.fields, log.access,
        telemetry.endpoint, telemetry.ca, telemetry.timeout, telemetry.sample_ratio, telemetry.service_name,
        telemetry.headers, telemetry.resource,
        store.redis, store.sentinel_password, store.ca, store.deadline, store.on_failure, store.key_prefix,
        store.max_buckets,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn a_key_that_needs_a_restart_keeps_its_value_and_is_named_with_both() {
        let running = Config::default();
        let mut wanted = running.clone();
        assert_eq!(hold_back(&running, &mut wanted), []);
        wanted.listen.address = "127.0.0.1:1".parse().unwrap();
        wanted.listen.max_body_bytes = 7;
        wanted.store.sentinel_password = Some(Secret::new("hidden"));
        let held = hold_back(&running, &mut wanted);
        let address = Held {
            key: "listen.address",
            running: format!("\"{}\"", running.listen.address),
            wanted: r#""127.0.0.1:1""#.to_owned(),
        };
        assert_eq!(held[0], address);
        assert_eq!((held.len(), held[1].key), (2, "store.sentinel_password"));
        assert!(!held[1].wanted.contains("hidden"), "{held:?}");
        assert_eq!((wanted.listen.address, wanted.listen.max_body_bytes), (running.listen.address, 7));
        assert_eq!(wanted.store, running.store);
    }
}

//! What is said to Redis of a tenant's latency.

use redis::Cmd;

use super::{KeySpace, RECORD_LIFETIME, control::milliseconds};
use crate::limiter::{latency::SLOTS, measured::Observation};

impl KeySpace {
    /// Calls [`Script::Observe`](super::Script::Observe), whose digest is `digest`.
    pub fn observe(&self, digest: &str, observation: &Observation<'_>) -> Cmd {
        let Observation { scale, counts, slowdown, lifetime, .. } = observation;
        let mut command = Cmd::new();
        let mut key = Vec::new();
        self.write_scale(&mut key, scale);
        command.arg("EVALSHA").arg(digest).arg(2).arg(&key[..]);
        // No bucket can be named so: base64 has no colon.
        self.write_key(&mut key, b"samples:");
        key.extend_from_slice(scale.as_str().as_bytes());
        command.arg(&key[..]);
        let mut added = Vec::with_capacity(counts.classes().len() * 6);
        for (class, count) in counts.classes() {
            added.extend_from_slice(&class.to_le_bytes());
            added.extend_from_slice(&count.to_le_bytes());
        }
        command.arg(added).arg(slowdown.slot).arg(SLOTS).arg(slowdown.threshold);
        command.arg(slowdown.slope.millionths()).arg(slowdown.floor.millionths()).arg(slowdown.min_samples);
        command.arg(slowdown.window().div_ceil(1000)).arg(milliseconds(*lifetime).min(RECORD_LIFETIME));
        command
    }
}

//! What replicas tell each other through Redis beside decisions: that they are there, and what they admitted in its place.

use std::time::Duration;

use redis::{Cmd, Value};

use super::{
    Redis, bounded,
    control::FLEET_GROUP,
    script::{Flow, KeySpace, Script},
    session::Call,
};
use crate::limiter::{Charge, StoreError};

impl Redis {
    /// Tells the others that the replica of this name is there, for as long as `lifetime`; answers how many are.
    pub async fn beat(&self, name: &str, lifetime: Duration) -> Result<u32, StoreError> {
        self.heartbeat(name, lifetime, true).await
    }

    /// Tells the others that the replica of this name has gone.
    pub async fn leave(&self, name: &str, lifetime: Duration) -> Result<(), StoreError> {
        self.heartbeat(name, lifetime, false).await.map(|_| ())
    }

    async fn heartbeat(&self, name: &str, lifetime: Duration, present: bool) -> Result<u32, StoreError> {
        let keys = &self.spaces[usize::from(FLEET_GROUP)];
        let make = |digest: &str| keys.heartbeat(digest, name, lifetime, present);
        let read = |reply: &Value| if let Value::Int(count) = reply { u32::try_from(*count).ok() } else { None };
        self.links.call(FLEET_GROUP, &Call::new(Script::Heartbeat, self.common.until(), make), read).await
    }

    /// Charges what was admitted elsewhere; a bucket that holds less is then empty, and a window full.
    pub async fn pay(&self, debts: &[Charge<'_>]) -> Result<(), StoreError> {
        bounded(debts)?;
        self.move_across(Flow::Pay, debts).await.map(drop)
    }
}

impl KeySpace {
    /// Calls [`Script::Heartbeat`], whose digest is `digest`.
    fn heartbeat(&self, digest: &str, name: &str, lifetime: Duration, present: bool) -> Cmd {
        let mut key = Vec::new();
        // Shorter than the name of any bucket.
        self.write_key(&mut key, b"replicas");
        let mut command = Cmd::new();
        command.arg("EVALSHA").arg(digest).arg(1).arg(key).arg(name);
        command.arg(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX)).arg(u8::from(present));
        command
    }
}

//! Places in Redis: granted, spoken for anew, and given up.

use std::time::Duration;

use redis::{Cmd, Value};

use super::{
    Redis,
    script::{KeySpace, Script},
    session::Call,
};
use crate::limiter::{StoreError, key::Key};

/// Places that one call speaks for. It bounds how long Redis is busy with it: about a millisecond.
const BATCH: usize = 128;

/// The name of a place among all: 64 random bits of its replica, then 64 that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(pub u128);

impl Redis {
    /// Asks for one more of the `most` places that a client may hold; whether it is granted. It is held for `lifetime`.
    pub(in crate::limiter) async fn grant(
        &self,
        client: Key,
        place: Name,
        most: u32,
        lifetime: Duration,
    ) -> Result<bool, StoreError> {
        self.places(self.group(client), &[(client, place)], most, lifetime).await.map(|held| held == 1)
    }

    /// Holds `places` for `lifetime` from now on, whether or not they were held.
    pub(in crate::limiter) async fn renew(&self, places: Vec<(Key, Name)>, lifetime: Duration) -> Result<(), StoreError> {
        self.in_batches(places, u32::MAX, lifetime).await
    }

    /// Gives `places` up.
    pub(in crate::limiter) async fn give_up(&self, places: Vec<(Key, Name)>, lifetime: Duration) -> Result<(), StoreError> {
        self.in_batches(places, 0, lifetime).await
    }

    /// One batch after the other, each of one group; the first failure, if there is one, after all were tried.
    async fn in_batches(&self, mut places: Vec<(Key, Name)>, most: u32, lifetime: Duration) -> Result<(), StoreError> {
        let group = |(client, _): &(Key, Name)| self.group(*client);
        places.sort_unstable_by_key(group);
        let mut outcome = Ok(());
        for together in places.chunk_by(|one, other| group(one) == group(other)) {
            for batch in together.chunks(BATCH) {
                let sent = self.places(group(&batch[0]), batch, most, lifetime).await;
                outcome = outcome.and(sent.map(|_| ()));
            }
        }
        outcome
    }

    async fn places(&self, group: u8, places: &[(Key, Name)], most: u32, lifetime: Duration) -> Result<u32, StoreError> {
        let keys = &self.spaces[usize::from(group)];
        let call = Call::new(Script::Places, self.common.until(), |digest| keys.places(digest, places, most, lifetime));
        let read = |reply: &Value| if let Value::Int(held) = reply { u32::try_from(*held).ok() } else { None };
        self.links.call(group, &call, read).await
    }
}

impl KeySpace {
    /// Calls [`Script::Places`], whose digest is `digest`.
    pub fn places(&self, digest: &str, places: &[(Key, Name)], most: u32, lifetime: Duration) -> Cmd {
        let mut command = Cmd::new();
        command.arg("EVALSHA").arg(digest).arg(places.len());
        let mut key = Vec::new();
        for (client, _) in places {
            // No bucket can be named so: base64 has no colon.
            self.write_key(&mut key, b"places:");
            key.extend_from_slice(&client.text());
            command.arg(&key[..]);
        }
        command.arg(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX)).arg(most);
        for (_, place) in places {
            command.arg(&place.0.to_be_bytes()[..]);
        }
        command
    }
}

//! What operators ask of Redis: to fill a bucket, and to keep what they changed.

use std::time::Duration;

use redis::{Cmd, Value};

use super::{
    Redis,
    control::FLEET_GROUP,
    script::{KeySpace, Script},
    session::Call,
};
use crate::limiter::{
    StoreError,
    amendments::{AMENDMENTS_MAX, Entry},
    key::Key,
    scale::ScaleName,
};

impl Redis {
    /// Fills a bucket.
    pub async fn reset(&self, key: Key) -> Result<(), StoreError> {
        let group = self.group(key);
        let keys = &self.spaces[usize::from(group)];
        let call = Call::new(Script::Reset, self.common.until(), |digest| keys.reset(digest, key));
        self.links.call(group, &call, |_| Some(())).await
    }

    /// Since when a scale's factor is in force for a bucket, in microseconds by Redis' clock; `None` where it has no record.
    pub async fn epoch(&self, key: Key, scale: &ScaleName) -> Result<Option<u64>, StoreError> {
        let group = self.group(key);
        let keys = &self.spaces[usize::from(group)];
        // A plain command: no script is asked for.
        let call = Call::new(Script::Publish, self.common.until(), |_| keys.record(scale));
        self.links.call(group, &call, |reply| Some(anchor(reply))).await
    }

    /// What operators have changed.
    pub async fn amendments(&self) -> Result<Vec<Entry>, StoreError> {
        Ok(self.change_record(&[]).await?.1)
    }

    /// Sets or removes (where `text` is empty) an amendment; says whether there was room, and what is there now.
    pub async fn amend(&self, name: &str, text: &str, lifetime: Duration) -> Result<(bool, Vec<Entry>), StoreError> {
        let (lifetime, most) = (lifetime.as_millis().to_string(), AMENDMENTS_MAX.to_string());
        self.change_record(&[name, text, &lifetime, &most]).await
    }

    async fn change_record(&self, arguments: &[&str]) -> Result<(bool, Vec<Entry>), StoreError> {
        let keys = &self.spaces[usize::from(FLEET_GROUP)];
        let call = Call::new(Script::Amend, self.common.until(), |digest| keys.amend(digest, arguments));
        self.links.call(FLEET_GROUP, &call, entries).await
    }
}

impl KeySpace {
    fn reset(&self, digest: &str, of: Key) -> Cmd {
        let mut key = Vec::new();
        self.write_key(&mut key, &of.text());
        let mut command = Cmd::new();
        command.arg("EVALSHA").arg(digest).arg(1).arg(key);
        command
    }

    fn record(&self, scale: &ScaleName) -> Cmd {
        let mut key = Vec::new();
        self.write_scale(&mut key, scale);
        let mut command = Cmd::new();
        command.arg("GET").arg(key);
        command
    }

    fn amend(&self, digest: &str, arguments: &[&str]) -> Cmd {
        let mut key = Vec::new();
        // Shorter than the name of any bucket.
        self.write_key(&mut key, b"amendments");
        let mut command = Cmd::new();
        command.arg("EVALSHA").arg(digest).arg(1).arg(key).arg(arguments);
        command
    }
}

/// What the real clock showed at the anchor of a scale's record, as `lua/publish.lua` describes it.
fn anchor(reply: &Value) -> Option<u64> {
    let Value::BulkString(record) = reply else { return None };
    let last = record.get(11..).filter(|_| record.len() == 18)?;
    Some(last.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Reads the answer of [`Script::Amend`]; `None` where it is none.
fn entries(reply: &Value) -> Option<(bool, Vec<Entry>)> {
    let Value::Array(values) = reply else { return None };
    let (Value::Int(fits), rest) = values.split_first()? else { return None };
    let text =
        |value: &Value| if let Value::BulkString(bytes) = value { String::from_utf8(bytes.clone()).ok() } else { None };
    let entry = |entry: &[Value]| {
        let [name, held, Value::Int(left)] = entry else { return None };
        Some((text(name)?, text(held)?, Duration::from_millis(u64::try_from(*left).ok()?)))
    };
    Some((*fits == 1, rest.chunks(3).map(entry).collect::<Option<_>>()?))
}

//! What operators change for a while, and how it is told. Each change is answered with what was, and what is.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Inner,
    answer::{Code, Refusal},
    engine::{Engine, LimitName},
    read::{self, LimitChange, Suspension, Trust},
};
use crate::{
    limiter::amendments::{AmendError, Amendment},
    metrics::AmendmentLabels,
};

/// The kinds of changes that are counted, as the metrics call them.
pub(super) const KINDS: [&str; 3] = ["trust", "suspension", "limit"];

/// A change, as the audit tells of it.
pub(super) struct Change {
    pub(super) subject: String,
    pub(super) old: Value,
    pub(super) new: Value,
}

impl<E: Engine> Inner<E> {
    pub(super) async fn amend(&self, change: LimitChange) -> Result<Change, Refusal> {
        let (name, lifetime) = (change.name(), read::lifetime(change.seconds)?);
        let (old, new) = self.engine.amend(&name, change.wanted(), lifetime).await?;
        let told = |field| new[field].as_str().unwrap_or_default();
        Ok(Change { subject: format!("{}/{}", told("route"), told("limit")), old, new })
    }

    pub(super) async fn restore(&self, segments: &[&str]) -> Result<Change, Refusal> {
        let [route, limit] = segments else { return Err(Refusal::not_found()) };
        let (route, limit) = (read::segment(route)?, read::segment(limit)?);
        let subject = format!("{route}/{limit}");
        let old = self.engine.restore(&LimitName { route: Some(route), limit: Some(limit) }).await?;
        Ok(Change { subject, old, new: Value::Null })
    }

    pub(super) async fn trust(&self, trust: Trust) -> Result<Change, Refusal> {
        let (client, lifetime) = (read::client_name(&trust.client)?, read::lifetime(trust.seconds)?);
        let old = self.trust_in(&client);
        let amendment = Amendment::Trust { client: client.clone(), networks: trust.networks };
        self.limiter.amend(&amendment, lifetime).await?;
        Ok(Change { new: self.trust_in(&client), subject: client, old })
    }

    pub(super) async fn distrust(&self, segments: &[&str]) -> Result<Change, Refusal> {
        let client = named(segments)?;
        let old = self.trust_in(&client);
        if old.is_null() {
            return Err(Refusal::new(Code::NotFound, "this client is not trusted for a while"));
        }
        self.limiter.withdraw(&Amendment::Trust { client: client.clone(), networks: Vec::new() }).await?;
        Ok(Change { new: self.trust_in(&client), subject: client, old })
    }

    pub(super) async fn suspend(&self, suspension: Suspension) -> Result<Change, Refusal> {
        let (client, lifetime) = (read::client_name(&suspension.client)?, read::lifetime(suspension.seconds)?);
        let trusted = self.facts.load().trusted.clone();
        if !trusted.contains(&client) {
            let message = "the configuration trusts no client of this name";
            return Err(Refusal { choices: trusted, ..Refusal::new(Code::NotFound, message) });
        }
        let old = self.suspension_of(&client);
        self.limiter.amend(&Amendment::Suspend { client: client.clone() }, lifetime).await?;
        Ok(Change { new: self.suspension_of(&client), subject: client, old })
    }

    pub(super) async fn resume(&self, segments: &[&str]) -> Result<Change, Refusal> {
        let client = named(segments)?;
        let old = self.suspension_of(&client);
        if old.is_null() {
            return Err(Refusal::new(Code::NotFound, "this client is not suspended"));
        }
        self.limiter.withdraw(&Amendment::Suspend { client: client.clone() }).await?;
        Ok(Change { new: self.suspension_of(&client), subject: client, old })
    }
}

impl<E> Inner<E> {
    /// Whom operators trust for a while.
    pub(super) fn trusted(&self) -> Value {
        json!({ "clients": self.holding(trust) })
    }

    /// Whom the configuration trusts, and operators do not for a while.
    pub(super) fn suspended(&self) -> Value {
        json!({ "clients": self.holding(suspension) })
    }

    /// How many changes hold, by kind.
    pub(super) fn amendments(&self) -> BTreeMap<&'static str, i64> {
        let mut counts = BTreeMap::from(KINDS.map(|kind| (kind, 0)));
        for (amendment, _) in self.limiter.amendments().holding(Instant::now()) {
            let kind = match amendment {
                Amendment::Trust { .. } => "trust",
                Amendment::Suspend { .. } => "suspension",
                Amendment::Limit { .. } => "limit",
                Amendment::Reset { .. } => continue,
            };
            *counts.entry(kind).or_default() += 1;
        }
        counts
    }

    /// Has the metrics tell how many hold.
    pub(super) fn count_amendments(&self) {
        for (kind, count) in self.amendments() {
            self.metrics.amendments.get_or_create(&AmendmentLabels { kind }).set(count);
        }
    }

    /// Null where the client is not trusted for a while.
    fn trust_in(&self, wanted: &str) -> Value {
        self.holding(trust).into_iter().find(|trust| trust["client"] == wanted).unwrap_or(Value::Null)
    }

    /// Null where the client is not suspended.
    fn suspension_of(&self, wanted: &str) -> Value {
        self.holding(suspension).into_iter().find(|suspension| suspension["client"] == wanted).unwrap_or(Value::Null)
    }

    fn holding(&self, told: fn((&Amendment, Duration)) -> Option<Value>) -> Vec<Value> {
        self.limiter.amendments().holding(Instant::now()).filter_map(told).collect()
    }
}

impl From<AmendError> for Refusal {
    fn from(error: AmendError) -> Self {
        let code = match error {
            AmendError::Full => Code::NoRoom,
            AmendError::Store(_) => Code::StoreUnavailable,
        };
        Self::new(code, error.to_string())
    }
}

/// The client that a path ends with.
fn named(segments: &[&str]) -> Result<String, Refusal> {
    read::client_name(&read::segment(segments.first().copied().unwrap_or_default())?)
}

fn trust((amendment, left): (&Amendment, Duration)) -> Option<Value> {
    let Amendment::Trust { client, networks } = amendment else { return None };
    Some(json!({ "client": client, "networks": networks, "seconds_left": left.as_secs() }))
}

fn suspension((amendment, left): (&Amendment, Duration)) -> Option<Value> {
    let Amendment::Suspend { client } = amendment else { return None };
    Some(json!({ "client": client, "seconds_left": left.as_secs() }))
}

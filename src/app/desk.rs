//! Introduces those who decide to the admin API.

use std::{sync::Arc, time::Duration};

use hyper::Request;
use serde::Serialize;
use serde_json::{Value, json};

use super::reload::{Current, ReloadError, Reloaded, Reloads};
use crate::{
    admin::{
        answer::{Code, Refusal},
        engine::{Amounts, BucketName, Engine, LimitName, Page},
    },
    body::RequestBody,
    clients::Clients,
    gate::{
        amend::{Unamended, Wanted},
        desk::{State, Unknown, Which},
    },
    peer::Peer,
};

/// Asks the gate on behalf of operators.
pub(super) struct Desk {
    pub(super) current: Current,
    pub(super) clients: Arc<Clients>,
    pub(super) reloads: Reloads,
}

impl Engine for Desk {
    fn routes(&self) -> Value {
        json!({ "routes": value(&self.current.load().gate.route_facts()) })
    }

    async fn explain(&self, peer: Peer, request: Request<RequestBody>) -> Value {
        value(&self.current.load_full().gate.explain(peer, request).await)
    }

    async fn state(&self, bucket: &BucketName) -> Result<Value, Refusal> {
        let state = self.current.load_full().gate.state(which(bucket), &bucket.values, &bucket.kind).await;
        state.map(|state| value(&state)).map_err(|unknown| refusal(&unknown))
    }

    async fn action(&self, bucket: &BucketName) -> Result<Value, Refusal> {
        let [tenant, action] = &bucket.values[..] else { return Err(Refusal::not_found()) };
        let state = self
            .current
            .load_full()
            .gate
            .action(which(bucket), tenant, action)
            .await
            .map_err(|unknown| refusal(&unknown))?;
        Ok(report(tenant, action, &state))
    }

    async fn reset(&self, bucket: &BucketName) -> Result<Value, Refusal> {
        let before = self.current.load_full().gate.reset(which(bucket), &bucket.values, &bucket.kind).await;
        before.map(|state| value(&state)).map_err(|unknown| refusal(&unknown))
    }

    fn amended(&self) -> Value {
        json!({ "limits": value(&self.current.load().gate.amended()) })
    }

    async fn amend(&self, limit: &LimitName, amounts: Amounts, lifetime: Duration) -> Result<(Value, Value), Refusal> {
        let which = Which { route: limit.route.as_deref(), limit: limit.limit.as_deref() };
        let Amounts { capacity, refill_per_second, quota } = amounts;
        let wanted = Wanted { capacity, refill_per_second, quota };
        let (old, new) = self.current.load_full().gate.amend(which, wanted, lifetime).await?;
        Ok((value(&old), value(&new)))
    }

    async fn restore(&self, limit: &LimitName) -> Result<Value, Refusal> {
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        let old = self.current.load_full().gate.restore(&name(&limit.route), &name(&limit.limit)).await?;
        Ok(value(&old))
    }

    async fn usage(&self, page: &Page) -> Result<Value, Refusal> {
        let which = Which { route: page.route.as_deref(), limit: page.limit.as_deref() };
        let usage = self.current.load_full().gate.usage(which, &self.clients, page.cursor, page.count).await;
        usage.map(|usage| value(&usage)).map_err(|unknown| refusal(&unknown))
    }

    async fn busiest(&self, route: &str, limit: &str, count: usize) -> Result<Value, Refusal> {
        let which = Which { route: Some(route), limit: Some(limit) };
        let busiest = self.current.load_full().gate.busiest(which, &self.clients, count).await;
        busiest.map(|busiest| value(&busiest)).map_err(|unknown| refusal(&unknown))
    }

    async fn reload(&self) -> Result<(Value, Value), Refusal> {
        let Reloaded { before, revision, held } = self.reloads.reload().await?;
        Ok((json!({ "revision": before }), json!({ "revision": revision, "restart_needed": value(&held) })))
    }
}

impl From<ReloadError> for Refusal {
    fn from(error: ReloadError) -> Self {
        let code = match error {
            ReloadError::Draining => Code::Draining,
            ReloadError::Invalid(_) | ReloadError::Unusable(_) | ReloadError::Broken => Code::ConfigInvalid,
        };
        Self::new(code, error.to_string())
    }
}

impl From<Unamended> for Refusal {
    fn from(unamended: Unamended) -> Self {
        match unamended {
            Unamended::Unknown(unknown) => refusal(&unknown),
            Unamended::Unfit(reason) => Self::new(Code::BadRequest, reason),
            Unamended::Unchanged => Self::new(Code::NotFound, "the limit has no other parameters than are configured"),
            Unamended::Record(error) => error.into(),
        }
    }
}

fn which(bucket: &BucketName) -> Which<'_> {
    Which { route: bucket.route.as_deref(), limit: bucket.limit.as_deref() }
}

/// Consumption in the words that Data Actions have for it. What is in force of a bucket is what it refills in its window.
fn report(tenant: &str, action: &str, State { limit, bucket, .. }: &State) -> Value {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a capacity is at most 10⁶, a factor 100")]
    let effective = (bucket.capacity * bucket.factor).floor().max(1.0) as u64;
    json!({
        "tenant_id": tenant,
        "action_id": action,
        "current_usage": bucket.used,
        "base_quota": bucket.capacity,
        "adaptive_multiplier": bucket.factor,
        "effective_quota": effective,
        "window_seconds": limit.quota.window_seconds,
    })
}

fn refusal(unknown: &Unknown) -> Refusal {
    let code = match unknown {
        Unknown::Limit(_) => Code::UnknownLimit,
        Unknown::Ambiguous(_) => Code::AmbiguousLimit,
        Unknown::Values(_) => Code::ValuesInvalid,
        Unknown::Store => Code::StoreUnavailable,
    };
    Refusal { choices: unknown.choices().to_vec(), ..Refusal::new(code, unknown.to_string()) }
}

/// What is told has only texts for keys, which cannot fail.
fn value(told: &impl Serialize) -> Value {
    serde_json::to_value(told).unwrap_or_default()
}

//! The latency of tenants in Redis.

use redis::Value;

use super::{Redis, script::Script, session::Call};
use crate::{
    config::Factor,
    limiter::{StoreError, measured::Observation},
};

impl Redis {
    /// Adds what was measured here; answers the factor of all that was measured anywhere.
    pub(in crate::limiter) async fn observe(&self, observation: &Observation<'_>) -> Result<Factor, StoreError> {
        // Where the tenant's buckets are, because they are decided about with its scale.
        let group = observation.scale.tenant().map_or(0, |tenant| self.group(tenant));
        let keys = &self.spaces[usize::from(group)];
        let call = Call::new(Script::Observe, self.common.until(), |digest| keys.observe(digest, observation));
        self.links.call(group, &call, factor).await
    }
}

/// Reads the answer of [`Script::Observe`]; `None` where it is none.
fn factor(reply: &Value) -> Option<Factor> {
    let Value::Int(millionths) = reply else { return None };
    Factor::new(f64::from(u32::try_from(*millionths).ok()?) / 1e6)
}

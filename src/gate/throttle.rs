//! The limits: charges a request against all limits of its route at once, and refuses it where one lacks tokens.
//!
//! Promised: one question to the limiter a request; what an upstream's own 429 did not use is given back, and that answer
//! passes as it came; every other answer says how much is left.

use std::sync::Arc;

use hyper::{HeaderMap, StatusCode, header::ACCEPT};

use super::{
    Outcome,
    call::Call,
    quota::QuotaFields,
    rejection::Rejection,
    route::Route,
    stage::{Next, Stage},
};
use crate::limiter::{Decision, Limiter, Standing, key::KeyHasher};

/// Holds requests to the limits of their route.
#[derive(Clone)]
pub struct Throttle {
    /// Decides.
    pub limiter: Arc<Limiter>,
    /// Names buckets.
    pub hasher: KeyHasher,
}

/// A refusal, with all that is said about it.
#[derive(Debug)]
pub struct Limited {
    /// The limit to wait for.
    pub limit: Arc<str>,
    /// Seconds after which the same request would pass, if nothing else came.
    pub retry_after: u64,
    /// What is left.
    pub fields: QuotaFields,
    /// Whether the client asked for an RFC 9457 document.
    pub problem_json: bool,
}

impl Stage for Throttle {
    async fn handle(&self, call: Box<Call>, next: &impl Next) -> Outcome {
        let route = Arc::clone(&call.route);
        if call.exempt || route.limits.is_empty() {
            return next.call(call).await;
        }
        let charges = route.charges(&call, &self.hasher)?;
        let (receipt, standings) = match self.limiter.decide(&charges).await {
            Decision::Admitted { receipt, standings } => (receipt, standings),
            Decision::Refused { standings } => return Err(refuse(&route, &standings, call.request.headers())),
            Decision::Unlimited => return next.call(call).await,
            Decision::Unavailable { retry_after } => return Err(Rejection::StoreUnavailable { retry_after }),
        };
        for limit in &route.limits {
            limit.admitted.inc();
        }
        let mut response = next.call(call).await?;
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            self.limiter.refund(receipt, &charges).await;
            route.counters.refunds.inc();
        } else if let Some(fields) = QuotaFields::admitted(&route, &standings) {
            fields.apply(response.headers_mut());
        }
        Ok(response)
    }
}

fn refuse(route: &Route, standings: &[Standing], headers: &HeaderMap) -> Rejection {
    for (limit, standing) in route.limits.iter().zip(standings) {
        if standing.tokens < limit.cost {
            limit.refused.inc();
        }
    }
    let Some((tightest, fields)) = QuotaFields::refused(route, standings) else { return Rejection::NoRoute };
    let problem_json = headers
        .get_all(ACCEPT)
        .iter()
        .any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("application/problem+json")));
    Rejection::Limited(Box::new(Limited {
        limit: Arc::clone(&route.limits[tightest].name),
        retry_after: fields.reset,
        fields,
        problem_json,
    }))
}

// === impl Limited ===

impl Limited {
    /// The body of the refusal: the contract's JSON, or a problem of the quota-exceeded type with the same members.
    pub fn body(&self) -> String {
        let Self { limit, retry_after, .. } = self;
        let refusal = format!(r#""error":"rate_limit_exceeded","retry_after":{retry_after},"limit":"{limit}""#);
        if !self.problem_json {
            return format!("{{{refusal}}}");
        }
        let kind = "https://iana.org/assignments/http-problem-types#quota-exceeded";
        format!(
            r#"{{"type":"{kind}","title":"Request cannot be satisfied as assigned quota has been exceeded","status":429,"violated-policies":["{limit}"],{refusal}}}"#
        )
    }
}

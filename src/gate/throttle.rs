//! The limits: charges a request against all limits of its route at once, and refuses it where one lacks tokens.
//!
//! Promised: one question to the limiter a request; what was not used is given back, by the status of the answer; such an
//! answer, and every 429 of the upstream, passes as it came; every other says how much is left. A 429 of the upstream begins
//! the pause it asks for, where the route heeds it.

use std::sync::Arc;

use hyper::{
    HeaderMap, StatusCode,
    header::{ACCEPT, HeaderValue},
};

use super::{
    Outcome,
    call::Call,
    question::Question,
    quota::QuotaFields,
    rejection::Rejection,
    response::Response,
    route::RouteLimit,
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
    /// The limit, or the guard, to wait for.
    pub limit: Arc<str>,
    /// Seconds after which the same request would pass, if nothing else came.
    pub retry_after: u64,
    /// What is left of the quotas, where one of them refused.
    pub fields: Option<QuotaFields>,
    /// Whether the client asked for an RFC 9457 document.
    pub problem_json: bool,
}

impl Stage for Throttle {
    async fn handle(&self, call: Box<Call>, next: &impl Next) -> Outcome {
        let route = Arc::clone(&call.route);
        let question = Question::of(&route, &call, &self.hasher)?;
        if question.charges().is_empty() {
            return next.call(call).await;
        }
        let admitted = match self.limiter.decide(question.charges()).await {
            Decision::Admitted { receipt, standings } => Some((receipt, standings)),
            Decision::Unlimited => None,
            // Only a pause was asked about, and nobody knows of one.
            Decision::Unavailable { .. } if call.exempt => None,
            Decision::Refused { standings } => return Err(question.refused(&standings, call.request.headers())),
            Decision::Unavailable { retry_after } => return Err(Rejection::StoreUnavailable { retry_after }),
        };
        if admitted.is_some() {
            question.limits().iter().for_each(|limit| _ = limit.admitted.inc());
        }
        let (receipt, standings) = admitted.unzip();
        let outcome = next.call(call).await;
        let status = outcome.as_ref().map_or_else(|rejection| rejection.code().status(), Response::status);
        let limited_upstream = outcome.as_ref().ok().filter(|_| status == StatusCode::TOO_MANY_REQUESTS);
        if let Some((response, (cooldown, key))) = limited_upstream.zip(question.cooldown()) {
            cooldown.begin(key, response.headers(), &self.limiter).await;
        }
        let unsent = matches!(outcome, Err(Rejection::CredentialsUnavailable));
        let refunded = unsent || route.refund_on.contains(&status.as_u16());
        if let Some(receipt) = receipt.filter(|_| refunded && !question.limits().is_empty()) {
            self.limiter.refund(receipt, question.refundable()).await;
            route.counters.refunds.inc();
        }
        let mut response = outcome?;
        if refunded || status == StatusCode::TOO_MANY_REQUESTS {
            return Ok(response);
        }
        if let Some(fields) = standings.and_then(|standings| question.fields(&standings)) {
            fields.apply(response.headers_mut());
        }
        Ok(response)
    }
}

/// Counts the limits that lack tokens.
pub fn count_refusals(limits: &[RouteLimit], standings: &[Standing]) {
    for (limit, _) in limits.iter().zip(standings).filter(|(limit, standing)| standing.tokens < limit.cost) {
        limit.refused.inc();
    }
}

/// The refusal of a request with `headers` by the limits that lack tokens, which are counted.
pub fn refuse(
    limits: &[RouteLimit],
    policy: Option<&HeaderValue>,
    standings: &[Standing],
    headers: &HeaderMap,
) -> Rejection {
    count_refusals(limits, standings);
    match QuotaFields::refused(limits, policy, standings) {
        Some((tightest, fields)) => {
            Limited::new(Arc::clone(&limits[tightest].name), fields.reset, Some(fields), headers).into()
        }
        None => Rejection::NoRoute,
    }
}

// === impl Limited ===

impl Limited {
    /// A refusal of a request with `headers`, in the form they ask for.
    pub fn new(limit: Arc<str>, retry_after: u64, fields: Option<QuotaFields>, headers: &HeaderMap) -> Self {
        let mut accepted = headers.get_all(ACCEPT).iter();
        let problem_json =
            accepted.any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("application/problem+json")));
        Self { limit, retry_after, fields, problem_json }
    }

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

//! The limits: charges a request against all limits of its route at once, and refuses it where one lacks tokens.
//!
//! Promised: one question to the limiter a request; what was not used is given back, by the status of the answer; such an
//! answer, and every 429 of the upstream, passes as it came; every other says how much is left. A 429 of the upstream begins
//! the pause it asks for, where the route heeds it.

use std::sync::Arc;

use hyper::StatusCode;

use super::{
    Outcome,
    call::Call,
    question::Question,
    rejection::Rejection,
    response::Response,
    stage::{Next, Stage},
    tenant::Tenants,
    timing,
};
use crate::{
    config::ShowClients,
    limiter::{Decision, Limiter, key::KeyHasher},
};

/// Holds requests to the limits of their route.
#[derive(Clone)]
pub struct Throttle {
    /// Decides.
    pub limiter: Arc<Limiter>,
    /// Names buckets.
    pub hasher: KeyHasher,
    /// How clients are called where they are listed.
    pub show: ShowClients,
}

impl Stage for Throttle {
    async fn handle(&self, mut call: Box<Call>, next: &impl Next) -> Outcome {
        let route = Arc::clone(&call.route);
        let tenants = Tenants::of(&route, &call, &self.hasher)?;
        let question = Question::of(&route, &tenants, &call, &self.hasher)?;
        call.observers = tenants.observers();
        if question.charges().is_empty() {
            return next.call(call).await;
        }
        let decision = self.limiter.decide(question.charges()).await;
        question.see(&call, &decision, self.show);
        let admitted = match decision {
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
        let in_force = standings.as_ref().filter(|_| route.server_timing).and_then(|standings| question.in_force(standings));
        if let Some((factor, quota)) = in_force {
            timing::in_force(response.headers_mut(), factor, quota);
        }
        if refunded || status == StatusCode::TOO_MANY_REQUESTS {
            return Ok(response);
        }
        if let Some(fields) = standings.and_then(|standings| question.fields(&standings)) {
            fields.apply(response.headers_mut());
        }
        Ok(response)
    }
}

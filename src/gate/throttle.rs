//! The limits: has a request take its [place](super::in_flight) where the route bounds how many are under way, then charges it
//! against all limits of its route at once, and where one lacks tokens refuses it, or has it [wait](super::pacing), as the route
//! says.
//!
//! Promised: one question to the limiter a request; what was not used is given back, by the status of the answer; such an
//! answer, and every 429 of the upstream, passes as it came; every other says how much is left. A 429 of the upstream begins
//! the pause it asks for, where the route heeds it. Where its mode is shadow, the same is decided, charged and told, and
//! nobody is refused.

use std::{sync::Arc, time::Duration};

use hyper::StatusCode;
use tokio::time::Instant;

use super::{
    Outcome,
    bad_request::BadRequest,
    call::Call,
    pacing::Pacing,
    question::Question,
    refusals::would_refuse,
    rejection::Rejection,
    response::Response,
    route::Route,
    stage::{Next, Stage},
    timing,
    violation::ViolationLog,
};
use crate::{
    config::ShowClients,
    limiter::{
        Decision, Limiter, Receipt, Standings,
        key::{Key, KeyHasher},
    },
};

/// Holds requests to the limits of their route.
#[derive(Clone)]
pub struct Throttle {
    /// Decides.
    pub limiter: Arc<Limiter>,
    /// Has requests wait.
    pub pacing: Arc<Pacing>,
    /// Names buckets.
    pub hasher: KeyHasher,
    /// How clients are called where they are listed.
    pub show: ShowClients,
    /// Tells of what would have been refused.
    pub violations: ViolationLog,
}

/// As whom the client of a call takes its turns.
pub(super) fn waiter(call: &Call, hasher: &KeyHasher) -> Key {
    call.client.add_identity(&mut hasher.start("pacing")).finish()
}

impl Stage for Throttle {
    async fn handle(&self, call: &mut Call, next: &impl Next) -> Outcome {
        let route = Arc::clone(&call.route);
        call.notes.asks();
        let wait = route.pacing.as_ref().map_or(Duration::ZERO, |policy| policy.configured.wait);
        let until = call.received + wait;
        let place = match route.places.as_ref().filter(|_| !call.exempt) {
            // In a box, for the sake of requests that never wait.
            Some(places) => Some(Box::pin(places.enter(waiter(call, &self.hasher), route.pacing.as_ref(), until)).await?),
            None => None,
        };
        let mut response = self.charge(&route, call, until, next).await?;
        if let Some(place) = place {
            response.body_mut().keep(place);
        }
        Ok(response)
    }
}

impl Throttle {
    /// Passes on what the limits admit, no later than `until`.
    async fn charge(&self, route: &Arc<Route>, call: &mut Call, until: Instant, next: &impl Next) -> Outcome {
        let tenants = match call.tenants(&self.hasher, &self.limiter) {
            Err(reason) if route.is_shadow() => return self.pass_unasked(call, reason, next).await,
            tenants => tenants?,
        };
        let question = match Question::of(route, &tenants, call, &self.hasher) {
            Ok(question) => question,
            Err(reason) if route.is_shadow() => return self.pass_unasked(call, reason, next).await,
            Err(reason) => return Err(reason.into()),
        };
        call.observers = tenants.observers();
        if question.charges().is_empty() {
            return next.call(call).await;
        }
        let (receipt, standings) = self.decide(&question, call, until).await?;
        let outcome = next.call(call).await;
        let status = outcome.as_ref().map_or_else(|rejection| rejection.code().status(), Response::status);
        let limited_upstream = outcome.as_ref().ok().filter(|_| status == StatusCode::TOO_MANY_REQUESTS);
        if let Some((response, (cooldown, key))) = limited_upstream.zip(question.cooldown()) {
            Box::pin(cooldown.begin(key, response.headers(), &self.limiter)).await;
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
            fields.apply(&mut response);
        }
        Ok(response)
    }

    /// What the limits say; nothing where nobody says anything. On its own, so that its parts are not kept while the upstream
    /// answers.
    async fn decide(
        &self,
        question: &Question<'_>,
        call: &Call,
        until: Instant,
    ) -> Result<(Option<Receipt>, Option<Standings>), Rejection> {
        let decision = match &call.route.pacing {
            None => self.limiter.decide(question.charges()).await,
            Some(policy) => {
                // In a box, so that requests which never wait need not carry what waiting takes.
                Box::pin(self.pacing.admit(policy, question, waiter(call, &self.hasher), until)).await
            }
        };
        call.notes.told();
        question.see(call, &decision, self.show);
        call.notes.factor(question.in_force(decision.standings()).map(|(factor, _)| factor));
        let is_shadow = call.route.is_shadow();
        match decision {
            Decision::Admitted { receipt, standings } => {
                question.limits().iter().for_each(|limit| _ = limit.admitted.inc());
                Ok((Some(receipt), Some(standings)))
            }
            Decision::Unlimited => Ok((None, None)),
            // Only a pause was asked about, and nobody knows of one.
            Decision::Unavailable { .. } if call.exempt || is_shadow => Ok((None, None)),
            Decision::Unavailable { retry_after } => Err(Rejection::StoreUnavailable { retry_after }),
            Decision::Refused { standings } => {
                let rejection = question.refused(&standings, call.request.headers());
                if !is_shadow {
                    return Err(rejection);
                }
                would_refuse(&self.violations, &call.seen(), &rejection);
                call.notes.shadowed();
                Ok((None, Some(standings)))
            }
        }
    }

    /// Passes a call on that no limit can decide about, and tells that it would have been refused.
    async fn pass_unasked(&self, call: &mut Call, reason: BadRequest, next: &impl Next) -> Outcome {
        would_refuse(&self.violations, &call.seen(), &reason.into());
        next.call(call).await
    }
}

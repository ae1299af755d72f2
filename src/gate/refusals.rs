//! The stage that has the [violation log](super::violation) told of every refusal, whoever refused.

use std::sync::Arc;

use hyper::{StatusCode, header::RETRY_AFTER};

use super::{
    Outcome,
    call::Call,
    in_flight,
    rejection::{Rejection, SOCKETS_RETRY_AFTER},
    stage::{Next, Stage},
    violation::{Seen, ViolationLog},
};

/// Hears of every outcome.
#[derive(Clone)]
pub struct Refusals(pub ViolationLog);

// === impl Refusals ===

impl Stage for Refusals {
    async fn handle(&self, call: &mut Call, next: &impl Next) -> Outcome {
        let Self(log) = self;
        let asked = call.request.uri().clone();
        let outcome = next.call(call).await;
        let seen = || Seen { uri: asked, ..call.seen() };
        match &outcome {
            Err(Rejection::Limited(limited)) => {
                log.refused(&seen(), &limited.limit, Some(limited.retry_after), limited.remaining());
            }
            Err(Rejection::TooManySockets) => {
                log.refused(&seen(), &log.sockets_name, Some(SOCKETS_RETRY_AFTER.as_secs()), None);
            }
            Err(Rejection::TooManyInFlight) => {
                log.refused(&seen(), &log.in_flight_name, Some(in_flight::RETRY_AFTER_SECONDS), None);
            }
            Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => {
                let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                log.refused_upstream(&seen(), retry_after);
            }
            _ => {}
        }
        outcome
    }
}

/// Counts, and tells of, a request that passes only because its route's mode is shadow.
pub fn would_refuse(log: &ViolationLog, seen: &Seen, rejection: &Rejection) {
    let (limit, retry_after, remaining) = match rejection {
        Rejection::Limited(limited) => (Arc::clone(&limited.limit), Some(limited.retry_after), limited.remaining()),
        Rejection::TooManySockets => (Arc::clone(&log.sockets_name), Some(SOCKETS_RETRY_AFTER.as_secs()), None),
        other => (other.code().as_str().into(), None, None),
    };
    log.would_refuse(seen, &limit, retry_after, remaining);
}

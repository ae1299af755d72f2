//! The stage that has the [violation log](super::violation) told of every refusal, whoever refused.

use std::sync::Arc;

use hyper::{StatusCode, header::RETRY_AFTER};

use super::{
    Outcome,
    call::Call,
    rejection::Rejection,
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
        let (client, seen) = (&call.client, || Seen { uri: asked, ..call.seen() });
        match &outcome {
            Err(rejection) => {
                if let Some((limit, remaining)) = refusing(log, rejection) {
                    log.refused(client, seen, limit, rejection.retry_after(), remaining);
                }
            }
            Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => {
                let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                log.refused_upstream(client, seen, retry_after);
            }
            Ok(_) => {}
        }
        outcome
    }
}

/// Counts, and tells of, a request that passes only because its route's mode is shadow.
pub fn would_refuse(log: &ViolationLog, seen: &Seen, rejection: &Rejection) {
    match refusing(log, rejection) {
        Some((limit, remaining)) => log.would_refuse(seen, limit, rejection.retry_after(), remaining),
        None => log.would_refuse(seen, &rejection.code().as_str().into(), None, None),
    }
}

/// The limit that refused, and whole tokens left in it; `None` where none did.
fn refusing<'r>(log: &'r ViolationLog, rejection: &'r Rejection) -> Option<(&'r Arc<str>, Option<u64>)> {
    match rejection {
        Rejection::Limited(limited) => Some((&limited.limit, limited.remaining())),
        Rejection::TooManySockets => Some((&log.sockets_name, None)),
        Rejection::TooManyInFlight => Some((&log.in_flight_name, None)),
        _ => None,
    }
}

//! The stage that opens WebSockets: upgrades of a route with a [policy](websocket::Policy) for them, as far as their clients
//! have places.

use std::sync::Arc;

use hyper::header::UPGRADE;

use super::{
    Outcome,
    call::Call,
    refusals::would_refuse,
    rejection::Rejection,
    stage::{Next, Stage},
    websocket::{self, Opening, Policy, handshake},
};
use crate::limiter::{
    key::Key,
    places::{NoPlace, Place},
};

/// Holds upgrades to the policies of their routes.
#[derive(Clone)]
pub struct Sockets(pub Arc<websocket::Shared>);

// === impl Sockets ===

impl Stage for Sockets {
    async fn handle(&self, call: &mut Call, next: &impl Next) -> Outcome {
        if let Some(policy) = call.route.websocket.clone() {
            if handshake::is_asked_for(&call.request) {
                call.socket = Some(Box::new(self.open(policy, call).await?));
            } else {
                // A server may ignore the wish to switch (RFC 9110, section 7.8); other protocols have no gate.
                call.request.headers_mut().remove(UPGRADE);
            }
        }
        next.call(call).await
    }
}

impl Sockets {
    async fn open(&self, policy: Arc<Policy>, call: &Call) -> Result<Opening, Rejection> {
        let Self(shared) = self;
        let identity = &call.client.identity;
        let key = shared.hasher.start(&policy.id).part(identity.kind.as_bytes()).part(identity.text.as_bytes()).finish();
        let place = if call.exempt { None } else { self.place(&policy, key, call).await? };
        Ok(Opening {
            shared: Arc::clone(shared),
            policy,
            key,
            place,
            accept: handshake::expected_accept(call.request.headers()),
            seen: call.seen(),
            is_exempt: call.exempt,
        })
    }

    /// One of the client's places; in shadow, it opens its socket without one too.
    async fn place(&self, policy: &Policy, key: Key, call: &Call) -> Result<Option<Place>, Rejection> {
        let Self(shared) = self;
        match shared.limiter.place(key, policy.sockets).await {
            Ok(place) => Ok(Some(place)),
            Err(NoPlace::Taken) if policy.is_shadow => {
                would_refuse(&shared.violations, &call.seen(), &Rejection::TooManySockets);
                Ok(None)
            }
            Err(NoPlace::Unavailable { .. }) if policy.is_shadow => Ok(None),
            Err(reason) => Err(reason.into()),
        }
    }
}

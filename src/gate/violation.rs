//! The violation log: one event for a request that a limit, or the upstream itself, refused.
//!
//! Promised: every refusal is counted; the log is [bounded](super::flood); an event names who, where and until when, and
//! never holds a credential or a query. A request that passes only because its route's mode is shadow is told of in the same
//! way, apart from those that were refused.

use std::{net::IpAddr, sync::Arc};

use hyper::{Method, StatusCode, Uri, header::RETRY_AFTER};
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;
use tracing::warn;

use super::{
    Outcome,
    call::{Call, RequestId},
    client::Client,
    flood::{Event, Floods},
    in_flight::RETRY_AFTER_SECONDS,
    rejection::{Rejection, SOCKETS_RETRY_AFTER},
    route::Route,
    stage::{Next, Stage},
};

/// The longest path an event shows, in bytes.
const MAX_PATH_BYTES: usize = 512;

/// Tells of refusals.
#[derive(Clone)]
pub struct ViolationLog {
    /// Bounds the log.
    pub floods: Arc<Floods>,
    /// Refusals of our own.
    pub local: Counter,
    /// Refusals of the upstream.
    pub upstream: Counter,
    /// What would have been refused.
    pub shadow: Counter,
    /// Stands in the place of a limit's name where the upstream refused.
    pub upstream_name: Arc<str>,
    /// The same where a client has too many sockets.
    pub sockets_name: Arc<str>,
    /// The same where too many requests are under way.
    pub in_flight_name: Arc<str>,
    /// The same where a message closed its socket.
    pub messages_name: Arc<str>,
}

/// What is kept of a request until its outcome is known.
pub struct Seen {
    client: Client,
    route: Arc<Route>,
    method: Method,
    uri: Uri,
    request_id: RequestId,
    received: Instant,
}

/// How a refusal is told of.
#[derive(Clone, Copy)]
struct Manner {
    origin: &'static str,
    mode: &'static str,
    event: Event,
}

const LOCAL: Manner = Manner { origin: "local", mode: "enforce", event: Event::Violation };
const UPSTREAM: Manner = Manner { origin: "upstream", ..LOCAL };
const SHADOW: Manner = Manner { mode: "shadow", event: Event::ShadowViolation, ..LOCAL };

impl Stage for ViolationLog {
    async fn handle(&self, call: Box<Call>, next: &impl Next) -> Outcome {
        let seen = Seen::of(&call);
        let outcome = next.call(call).await;
        match &outcome {
            Err(Rejection::Limited(limited)) => {
                self.local.inc();
                self.tell(&seen, LOCAL, &limited.limit, Some(limited.retry_after), limited.remaining());
            }
            Err(Rejection::TooManySockets) => self.refused(&seen, &self.sockets_name, Some(SOCKETS_RETRY_AFTER.as_secs())),
            Err(Rejection::TooManyInFlight) => self.refused(&seen, &self.in_flight_name, Some(RETRY_AFTER_SECONDS)),
            Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => {
                self.upstream.inc();
                let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                self.tell(&seen, UPSTREAM, &self.upstream_name, retry_after, None);
            }
            _ => {}
        }
        outcome
    }
}

impl ViolationLog {
    /// Counts, and tells of, a refusal that no token bucket measured out to the second.
    pub fn refused(&self, seen: &Seen, limit: &Arc<str>, retry_after: Option<u64>) {
        self.local.inc();
        self.tell(seen, LOCAL, limit, retry_after, None);
    }

    /// Counts, and tells of, a request that passes only because its route's mode is shadow.
    pub fn would_refuse(&self, seen: &Seen, rejection: &Rejection) {
        self.shadow.inc();
        let (limit, retry_after, remaining) = match rejection {
            Rejection::Limited(limited) => (Arc::clone(&limited.limit), Some(limited.retry_after), limited.remaining()),
            Rejection::TooManySockets => (Arc::clone(&self.sockets_name), Some(SOCKETS_RETRY_AFTER.as_secs()), None),
            other => (other.code().as_str().into(), None, None),
        };
        self.tell(seen, SHADOW, &limit, retry_after, remaining);
    }

    /// The same of a message that would have closed its socket.
    pub fn would_close(&self, seen: &Seen) {
        self.shadow.inc();
        self.tell(seen, SHADOW, &self.messages_name, None, None);
    }

    fn tell(&self, seen: &Seen, manner: Manner, limit: &Arc<str>, retry_after: Option<u64>, remaining: Option<u64>) {
        let Manner { origin, mode, event } = manner;
        if !self.floods.tell(event, &seen.client, limit) {
            return;
        }
        let address: IpAddr = seen.client.address;
        let path = seen.uri.path();
        warn!(
            event = "rate_limit_violation",
            client_id = seen.client.identity.text.as_str(),
            %address,
            route = &*seen.route.name,
            limit = &**limit,
            method = seen.method.as_str(),
            path = &path[..path.floor_char_boundary(MAX_PATH_BYTES)],
            retry_after,
            remaining,
            duration_ms = u64::try_from(seen.received.elapsed().as_millis()).unwrap_or(u64::MAX),
            origin,
            mode,
            request_id = %seen.request_id,
            "rate limit violation"
        );
    }
}

// === impl Seen ===

impl Seen {
    /// What is kept of `call`.
    pub fn of(call: &Call) -> Self {
        Self {
            client: call.client,
            route: Arc::clone(&call.route),
            method: call.request.method().clone(),
            uri: call.request.uri().clone(),
            request_id: call.request_id,
            received: call.received,
        }
    }
}

//! The violation log: one event for a request that a limit, or the upstream itself, refused.
//!
//! Promised: every refusal is counted; the log is [bounded](super::flood); an event names who, where and until when, and
//! never holds a credential or a query. A request that passes only because its route's mode is shadow is told of in the same
//! way, apart from those that were refused.

use std::{net::IpAddr, sync::Arc};

use hyper::{Method, Uri};
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;
use tracing::warn;

use super::{
    client::Client,
    flood::{Event, Floods},
    request_id::RequestId,
};
use crate::trace::TraceId;

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
#[derive(Clone)]
pub struct Seen {
    pub(super) client: Client,
    pub(super) route: Arc<str>,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) request_id: RequestId,
    pub(super) received: Instant,
    pub(super) trace_id: Option<TraceId>,
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

// === impl ViolationLog ===

impl ViolationLog {
    /// Counts, and tells of, a refusal of our own. Most are only counted, so that what was seen of a request is asked for
    /// where it is told.
    pub fn refused(
        &self,
        client: &Client,
        seen: impl FnOnce() -> Seen,
        limit: &Arc<str>,
        retry_after: Option<u64>,
        remaining: Option<u64>,
    ) {
        self.local.inc();
        if self.floods.tell(LOCAL.event, client, limit) {
            write(&seen(), LOCAL, limit, retry_after, remaining);
        }
    }

    /// The same of one by the upstream.
    pub fn refused_upstream(&self, client: &Client, seen: impl FnOnce() -> Seen, retry_after: Option<u64>) {
        self.upstream.inc();
        if self.floods.tell(UPSTREAM.event, client, &self.upstream_name) {
            write(&seen(), UPSTREAM, &self.upstream_name, retry_after, None);
        }
    }

    /// The same of a request that passes only because its route's mode is shadow.
    pub fn would_refuse(&self, seen: &Seen, limit: &Arc<str>, retry_after: Option<u64>, remaining: Option<u64>) {
        self.shadow.inc();
        if self.floods.tell(SHADOW.event, &seen.client, limit) {
            write(seen, SHADOW, limit, retry_after, remaining);
        }
    }

    /// The same of a message that would have closed its socket.
    pub fn would_close(&self, seen: &Seen) {
        self.would_refuse(seen, &self.messages_name, None, None);
    }
}

fn write(seen: &Seen, manner: Manner, limit: &Arc<str>, retry_after: Option<u64>, remaining: Option<u64>) {
    let Manner { origin, mode, .. } = manner;
    let address: IpAddr = seen.client.address;
    let path = seen.uri.path();
    warn!(
        event = "rate_limit_violation",
        client_id = seen.client.identity.text.as_str(),
        %address,
        route = &*seen.route,
        limit = &**limit,
        method = seen.method.as_str(),
        path = &path[..path.floor_char_boundary(MAX_PATH_BYTES)],
        retry_after,
        remaining,
        duration_ms = u64::try_from(seen.received.elapsed().as_millis()).unwrap_or(u64::MAX),
        origin,
        mode,
        request_id = %seen.request_id,
        trace_id = seen.trace_id.map(tracing::field::display),
        "rate limit violation"
    );
}

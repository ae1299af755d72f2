//! The gate: every request meets the same stages in the same order.
//!
//! A request is first *admitted*: its client and its route become known, or it is refused. Then it passes the stages that
//! [`Gate::new`] lists. Whatever goes wrong on the way is a [`Rejection`], and becomes an answer in one place.

use std::sync::Arc;

use hyper::{
    HeaderMap, Method, Request,
    header::{HOST, ORIGIN},
};
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tokio::time::Instant;
use tower::ServiceBuilder;

pub mod access;
pub mod amend;
pub mod bad_request;
pub mod call;
pub mod client;
pub mod cors;
pub mod desk;
pub mod explain;
pub mod flood;
pub mod forward;
pub mod forwarded;
pub mod guard;
pub mod headers;
pub mod in_flight;
pub mod limit;
pub mod limited;
pub mod named;
mod numbers;
pub mod pacing;
pub mod path;
pub mod preflight;
mod query;
pub mod question;
pub mod queues;
pub mod quota;
pub mod refusals;
pub mod rejection;
pub mod replay;
pub mod request_id;
pub mod response;
pub mod rewrite;
pub mod route;
pub mod setup;
pub mod sockets;
mod spans;
pub mod stage;
pub mod tenant;
pub mod throttle;
pub mod timing;
pub mod tunnel;
pub mod violation;
pub mod waiting;
pub mod websocket;
pub mod whitelist;

use access::{Access, Entry, Notes};
use bad_request::BadRequest;
use call::Call;
use client::Identification;
use cors::Grant;
use forward::Forward;
use headers::X_REQUEST_ID;
use pacing::Pacing;
use preflight::Preflights;
use refusals::Refusals;
use rejection::Rejection;
use request_id::RequestId;
use response::{InFlight, Response};
use route::{Found, RouteCounters, RouteTable};
use sockets::Sockets;
use stage::{Next, Then, stage};
use tenant::Observers;
use throttle::Throttle;
use whitelist::Whitelist;

use crate::{
    body::RequestBody,
    limiter::{Limiter, key::KeyHasher},
    peer::Peer,
    wire::byte_set,
};

/// What a stage gives back: an answer, or why there is none.
pub type Outcome = Result<Response, Rejection>;

/// The stages, as types, in the order in which a request meets them.
type Stack = Then<Refusals, Then<Preflights, Then<Whitelist, Then<Sockets, Then<Throttle, Forward>>>>>;

/// Decides about requests and forwards those that may pass. Cheap to clone.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    identification: Identification,
    routes: RouteTable,
    stack: Stack,
    desk: Desk,
    counters: Counters,
    access: Option<Arc<Access>>,
}

/// What [`desk`] and [`explain`] look at.
struct Desk {
    limiter: Arc<Limiter>,
    hasher: KeyHasher,
    whitelist: Whitelist,
    pacing: Arc<Pacing>,
}

/// What the gate counts itself.
pub struct Counters {
    /// Requests whose response is not complete.
    pub in_flight: Gauge,
    /// Answers of our own, in the order of [`Code::ALL`](crate::code::Code::ALL).
    pub rejections: Vec<Counter>,
    /// Requests that no route took.
    pub without_route: RouteCounters,
}

/// The stages before they are stacked.
pub struct Stages {
    /// Has the violation log told of refusals.
    pub refusals: Refusals,
    /// Answers preflights, or exempts them from limits.
    pub preflights: Preflights,
    /// Exempts trusted clients.
    pub whitelist: Whitelist,
    /// Holds clients to their sockets.
    pub sockets: Sockets,
    /// Holds requests to their limits.
    pub throttle: Throttle,
    /// Sends them upstream.
    pub forward: Forward,
}

impl Gate {
    /// Joins the parts; [`setup`] makes them from configuration.
    pub fn new(
        identification: Identification,
        routes: RouteTable,
        stages: Stages,
        counters: Counters,
        access: Option<Arc<Access>>,
    ) -> Self {
        let Throttle { limiter, hasher, pacing, .. } = stages.throttle.clone();
        let desk = Desk { limiter, hasher, whitelist: stages.whitelist.clone(), pacing };
        // The violation log is outermost, so that it sees every refusal; preflights come next, because they are no one's
        // requests; the whitelist stands before sockets and throttle, whose places and tokens trusted clients do not use; a
        // socket too many is refused before it is charged; only what the throttle admits is forwarded.
        let stack = ServiceBuilder::new()
            .layer(stage(stages.refusals))
            .layer(stage(stages.preflights))
            .layer(stage(stages.whitelist))
            .layer(stage(stages.sockets))
            .layer(stage(stages.throttle))
            .service(stages.forward);
        Self(Arc::new(Inner { identification, routes, stack, desk, counters, access }))
    }

    /// Lets the page that sent `request` read an answer with `headers` that is made without the gate.
    pub fn permit<B>(&self, request: &Request<B>, headers: &mut HeaderMap) {
        if request.headers().contains_key(ORIGIN)
            && let Some(grant) = self.0.grant(request, &self.0.find(request))
        {
            grant.permit(headers);
        }
    }

    /// The name of the route that takes a request.
    pub fn route(&self, request: &Request<RequestBody>) -> Result<Arc<str>, Rejection> {
        self.0.find(request).map(|found| Arc::clone(&found.route.name))
    }

    /// Answers a request that came from `peer`.
    pub async fn handle(&self, peer: Peer, request: Request<RequestBody>) -> Response {
        let inner = &*self.0;
        let received = Instant::now();
        let in_flight = InFlight::new(&inner.counters.in_flight);
        let request_id = RequestId::from_headers(request.headers());
        let trace = Access::trace(inner.access.as_ref(), request.headers());
        let begin = |access| Entry::begin(access, &peer, &request, request_id, trace);
        let mut entry = inner.access.as_ref().and_then(begin);

        let found = inner.find(&request);
        let grant = inner.grant(&request, &found);
        let (route, outcome) = match found {
            Ok(found) => {
                let route = Arc::clone(&found.route);
                if let Some(entry) = &mut entry {
                    entry.routed(&route);
                }
                let notes = Notes::of(entry.as_deref(), trace);
                let outcome = match inner.admit(peer, request, request_id, received, found, notes) {
                    Ok(mut call) => inner.stack.call(&mut call).await,
                    Err(reason) => Err(reason.into()),
                };
                (Some(route), outcome)
            }
            Err(rejection) => (None, Err(rejection)),
        };
        if let Some(entry) = &mut entry {
            entry.decided(&outcome);
        }
        let timed = route.as_ref().is_some_and(|route| route.server_timing);
        let timing_origin = grant.as_ref().filter(|_| timed).map(Grant::origin);
        let mut response = inner.say(outcome, grant, &request_id);
        if let Some(origin) = timing_origin {
            timing::permit(response.headers_mut(), origin);
        }

        let counters = route.as_ref().map_or(&inner.counters.without_route, |route| &route.counters);
        counters.answered(response.status(), received);
        if let Some(entry) = &mut entry {
            entry.answered(&response);
        }
        response.body_mut().hold(in_flight, entry.map(|entry| entry as _));
        response
    }
}

impl Inner {
    /// Finds out by which route a request goes.
    fn find<B>(&self, request: &Request<B>) -> Result<Found, Rejection> {
        let host = host(request)?;
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err(Rejection::MethodNotAllowed { allowed: Vec::new() });
        }
        Ok(self.routes.find(request, host)?)
    }

    /// Whether the page that sent a request may read its answer: by its route, or where only the method fits none, by one
    /// that takes its path.
    fn grant<B>(&self, request: &Request<B>, found: &Result<Found, Rejection>) -> Option<Grant> {
        match found {
            Ok(found) => found.route.cors.as_ref()?.grant(request.headers()),
            Err(Rejection::MethodNotAllowed { .. }) => self.routes.grant(request, host(request).ok()?),
            Err(_) => None,
        }
    }

    /// Finds out who asks.
    fn admit(
        &self,
        peer: Peer,
        request: Request<RequestBody>,
        request_id: RequestId,
        received: Instant,
        Found { route, captures, rewritten }: Found,
        notes: Notes,
    ) -> Result<Box<Call>, BadRequest> {
        let client = self.identification.client(&peer, &request)?;
        notes.client(&client);
        let (exempt, socket, observers) = (false, None, Observers::default());
        Ok(Box::new(Call {
            request,
            client,
            peer,
            route,
            captures,
            rewritten,
            request_id,
            received,
            exempt,
            observers,
            socket,
            notes,
        }))
    }

    /// The answer that an outcome becomes, readable by the page that asked where it may be.
    fn say(&self, outcome: Outcome, grant: Option<Grant>, request_id: &RequestId) -> Response {
        match outcome {
            Ok(mut response) => {
                response.headers_mut().remove(X_REQUEST_ID);
                response.body_mut().fields().push(&X_REQUEST_ID, request_id.as_str());
                if grant.is_some() {
                    cors::expose(response.headers_mut());
                }
                response
            }
            Err(rejection) => {
                self.counters.rejections[rejection.code() as usize].inc();
                let mut response = rejection.into_response(request_id);
                if let Some(grant) = grant {
                    grant.permit(response.headers_mut());
                }
                response
            }
        }
    }
}

/// The host a request is for, without its port: the one valid `Host` field, which an absolute target must not contradict
/// (RFC 9112, section 3.2).
fn host<B>(request: &Request<B>) -> Result<&str, BadRequest> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(BadRequest::HostInvalid) };
    let host = host.to_str().map_err(|_| BadRequest::HostInvalid)?;
    let colon = host.bytes().rposition(|byte| byte == b':').filter(|colon| !host[*colon..].contains(']'));
    let (name, port) = colon.map_or((host, ""), |colon| (&host[..colon], &host[colon + 1..]));
    let bracketed = name.starts_with('[') && name.ends_with(']');
    let allowed = |byte: u8| HOST_BYTES[usize::from(byte)] || (bracketed && b"[]:".contains(&byte));
    let contradicted = request.uri().authority().is_some_and(|target| !target.as_str().eq_ignore_ascii_case(host));
    if name.is_empty() || contradicted || !name.bytes().all(allowed) || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadRequest::HostInvalid);
    }
    Ok(name)
}

/// What a name or an address of the fourth version is made of.
const HOST_BYTES: [bool; 256] = byte_set(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_for_one_valid_host_that_its_target_does_not_contradict() {
        let cases: [(&str, &[&str], Result<&str, BadRequest>); 11] = [
            ("/", &["chat.example"], Ok("chat.example")),
            ("/", &["chat.example:8080"], Ok("chat.example")),
            ("/", &["[2001:db8::1]:80"], Ok("[2001:db8::1]")),
            ("http://Chat.example/x", &["chat.example"], Ok("chat.example")),
            ("http://other.example/x", &["chat.example"], Err(BadRequest::HostInvalid)),
            ("/", &[], Err(BadRequest::HostInvalid)),
            ("/", &["a", "b"], Err(BadRequest::HostInvalid)),
            ("/", &[""], Err(BadRequest::HostInvalid)),
            ("/", &["a, b"], Err(BadRequest::HostInvalid)),
            ("/", &["user@a"], Err(BadRequest::HostInvalid)),
            ("/", &["a/b"], Err(BadRequest::HostInvalid)),
        ];
        for (target, hosts, expected) in cases {
            let request = hosts.iter().fold(Request::builder().uri(target), |request, host| request.header(HOST, *host));
            assert_eq!(host(&request.body(()).unwrap()), expected, "{target} {hosts:?}");
        }
    }
    #[test]
    fn what_a_request_carries_is_small_enough_to_be_moved() {
        fn room<F>(_: impl Fn(&'static Gate, Peer, Request<RequestBody>) -> F) -> usize {
            size_of::<F>()
        }
        assert!(room(Gate::handle) <= 6 * 1024, "{} bytes", room(Gate::handle));
    }
}

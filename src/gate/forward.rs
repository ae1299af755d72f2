//! The last stage: sends an admitted request upstream and brings the answer back, streamed both ways.
//!
//! Promised: the upstream comes from the configuration alone; path and query go on byte for byte (but for identity
//! parameters where the configuration strips them, and the path where it rewrites it); what is meant for one connection
//! stays on it, in both directions.

use std::sync::Arc;

use hyper::{Request, StatusCode, Uri, Version, header::HeaderName, http::uri::PathAndQuery};
use tracing::warn;

use super::{
    Outcome,
    call::Call,
    cors,
    headers::{self, X_REQUEST_ID},
    query,
    rejection::Rejection,
    response::{Response, ResponseBody},
    stage::Next,
    timing::ServerTiming,
    tunnel::Tunnels,
    websocket::Opening,
};
use crate::{
    body::RequestBody,
    stream::Switching,
    upstream::{self, DeliveryError, UpstreamError},
    wire::fields::FieldLines,
};

/// Room for the fields that are added to most requests and answers, in bytes.
const ADDED: usize = 384;

/// Sends requests upstream.
#[derive(Clone)]
pub struct Forward {
    /// Fields that `Connection` cannot take away: those that identities and limits are read from.
    pub protected: Arc<[HeaderName]>,
    /// Query parameters that are not sent on.
    pub stripped_parameters: Arc<[String]>,
    /// Carries connections that switched protocols.
    pub tunnels: Tunnels,
}

impl Next for Forward {
    async fn call(&self, call: &mut Call) -> Outcome {
        let Call { request, client, peer, route, request_id, rewritten, received, socket, observers, notes, .. } = call;
        let version = request.version();
        let protocol = headers::upgrade_wanted(request.headers());
        let client_side = protocol.as_ref().and_then(|_| Switching::take(request.extensions_mut()));

        if let Some(target) = rewritten.take() {
            *request.uri_mut() = target;
        }
        self.prepare(request);
        let mut added = FieldLines::begin(headers::via(version), ADDED);
        let fields = request.headers_mut();
        headers::set_forwarding(fields, &mut added, client.peer, peer.secure, client.through_trusted_proxy);
        fields.remove(X_REQUEST_ID);
        added.push(&X_REQUEST_ID, request_id.as_str());
        notes.tell(fields);
        if let Some(protocol) = protocol {
            headers::set_upgrade(fields, protocol);
        }

        let clock = route.server_timing.then(|| ServerTiming::decided(*received));
        notes.passed();
        let begun = notes.begin();
        let sent = if cors::preflighted(request).is_some() {
            route.upstream.send_preflight(request, &added).await
        } else {
            route.upstream.send(request, &added, observers.any()).await
        };
        notes.upstream(begun);
        match sent {
            Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                self.switch_protocols(answer, client_side, socket.take())
            }
            Ok(answer) => {
                let mut response = onward(answer, ResponseBody::upstream);
                if let Some(clock) = clock {
                    clock.answered(response.headers_mut());
                }
                Ok(response)
            }
            Err(DeliveryError::Credentials) => Err(Rejection::CredentialsUnavailable),
            Err(DeliveryError::Upstream(UpstreamError::Request(fault))) => Err(Rejection::Body(fault)),
            Err(DeliveryError::Upstream(error)) => {
                warn!(event = "upstream_failed", route = &*route.name, %request_id, error = %error, "the upstream gave no answer");
                Err(Rejection::Upstream(error))
            }
        }
    }
}

impl Forward {
    fn prepare(&self, request: &mut Request<RequestBody>) {
        headers::strip_hop_by_hop(request.headers_mut(), &self.protected);
        *request.version_mut() = Version::HTTP_11;
        if let Some(stripped) = request.uri().query().and_then(|query| query::without(query, &self.stripped_parameters)) {
            let path = request.uri().path();
            let target = if stripped.is_empty() { path.to_owned() } else { format!("{path}?{stripped}") };
            if let Ok(target) = PathAndQuery::try_from(target) {
                *request.uri_mut() = Uri::from(target);
            }
        }
    }

    /// Joins the two connections once both have switched. A 101 that nobody asked for is the upstream's fault.
    fn switch_protocols(
        &self,
        mut answer: hyper::Response<upstream::ResponseBody>,
        client_side: Option<Switching>,
        socket: Option<Box<Opening>>,
    ) -> Outcome {
        let switched = (client_side, headers::upgrade_wanted(answer.headers()), answer.body_mut().take_tunnel());
        let (Some(client_side), Some(protocol), Some(upstream_side)) = switched else {
            return Err(Rejection::Upstream(UpstreamError::Protocol("it switched protocols unasked".into())));
        };
        if let Some(socket) = socket {
            socket.check(answer.headers()).map_err(Rejection::Upstream)?;
            socket.join(client_side, upstream_side);
        } else {
            self.tunnels.join(client_side, upstream_side);
        }
        let mut response = onward(answer, |_, fields| ResponseBody::own_with(fields, ""));
        headers::set_upgrade(response.headers_mut(), protocol);
        Ok(response)
    }
}

/// An answer with another `body`, without what was meant for the upstream's connection.
fn onward<B>(answer: hyper::Response<B>, body: impl FnOnce(B, FieldLines) -> ResponseBody) -> Response {
    let added = FieldLines::begin(headers::via(answer.version()), ADDED);
    let mut response = answer.map(|old| body(old, added));
    headers::strip_hop_by_hop(response.headers_mut(), &[]);
    response
}

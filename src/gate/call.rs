//! A request that was admitted: who asks and by which route are known, so no stage can run before they are.

use std::{borrow::Cow, mem, sync::Arc};

use hyper::{Request, Uri};
use tokio::time::Instant;

use super::{
    access::Notes,
    bad_request::BadRequest,
    client::{self, Client},
    limit::RouteLimit,
    query,
    request_id::RequestId,
    route::Route,
    tenant::{Observers, Tenants},
    violation::Seen,
    websocket::Opening,
};
use crate::{
    body::RequestBody,
    config::Dimension,
    limiter::{
        Charge, Limiter, Terms,
        key::{Key, KeyHasher, KeyParts},
    },
    peer::Peer,
    wire::room,
};

/// A request on its way through the stages. It stays where it is, in a box, and each stage is lent it: to move it from stage to
/// stage would cost far more.
pub struct Call {
    /// As it came, but for what [`forward`](super::forward) changes.
    pub request: Request<RequestBody>,
    /// Who asks.
    pub client: Client,
    /// The other end of the connection it came by.
    pub peer: Peer,
    /// By which route.
    pub route: Arc<Route>,
    /// Segments of the path that the route captured: name and canonical value.
    pub captures: Vec<(Arc<str>, String)>,
    /// The path and query that go upstream instead of those that were asked for.
    pub rewritten: Option<Uri>,
    /// Tells this request from every other.
    pub request_id: RequestId,
    /// When its head was complete.
    pub received: Instant,
    /// Whether limits do not apply.
    pub exempt: bool,
    /// Who is told how long the upstream takes.
    pub observers: Observers,
    /// The WebSocket it asks for, where its route has a gate for them.
    pub socket: Option<Box<Opening>>,
    /// What the access log is told, and in which trace it is.
    pub notes: Notes,
}

// === impl Call ===

impl Call {
    /// What it asks of a limit.
    pub fn charge<'l>(&self, limit: &'l RouteLimit, hasher: &KeyHasher) -> Result<Charge<'l>, BadRequest> {
        Ok(Charge { limit: &limit.limit, key: self.key(limit, hasher)?, cost: limit.cost, terms: Terms::Take })
    }

    /// Its bucket of a limit.
    pub fn key(&self, limit: &RouteLimit, hasher: &KeyHasher) -> Result<Key, BadRequest> {
        self.key_of(limit, limit.key.clone(), &limit.per, hasher)
    }

    /// The tenants that its limits follow, and what operators changed of these; none where it is exempt.
    pub fn tenants(&self, hasher: &KeyHasher, limiter: &Limiter) -> Result<Tenants, BadRequest> {
        self.adapt(Tenants::default(), hasher, limiter)
    }

    /// The same where it is only asked about: nobody takes note of its tenants.
    pub fn foreseen_tenants(&self, hasher: &KeyHasher, limiter: &Limiter) -> Result<Tenants, BadRequest> {
        self.adapt(Tenants::unnoted(), hasher, limiter)
    }

    fn adapt(&self, mut tenants: Tenants, hasher: &KeyHasher, limiter: &Limiter) -> Result<Tenants, BadRequest> {
        let amendments = limiter.amendments();
        for (place, limit) in self.route.limits.iter().enumerate().filter(|_| !self.exempt) {
            let amended = limit.amended(&amendments, self.received).map(|(limit, _)| limit);
            if let Some(follows) = &limit.follows {
                // By the first of the values that the limit counts by, alone.
                let key = self.key_of(limit, hasher.start(&follows.id), &limit.per[..1], hasher)?;
                tenants.add(place, amended.as_ref().unwrap_or(&limit.limit), follows, key);
            } else if let Some(amended) = amended {
                tenants.put(place, amended);
            }
        }
        Ok(tenants)
    }

    /// What is told of it where it is refused.
    pub fn seen(&self) -> Seen {
        Seen {
            client: self.client,
            route: Arc::clone(&self.route.name),
            method: self.request.method().clone(),
            uri: self.request.uri().clone(),
            request_id: self.request_id,
            received: self.received,
            trace_id: self.notes.trace_id(),
        }
    }

    fn key_of(
        &self,
        limit: &RouteLimit,
        mut key: KeyParts,
        per: &[Dimension],
        hasher: &KeyHasher,
    ) -> Result<Key, BadRequest> {
        per.iter().try_for_each(|dimension| self.add(limit, &mut key, dimension, hasher))?;
        Ok(key.finish())
    }

    /// Adds one of the values that a limit counts by to a key. Where the request lacks the value, the limit's default stands
    /// in, as if the request had named it.
    fn add(
        &self,
        limit: &RouteLimit,
        key: &mut KeyParts,
        dimension: &Dimension,
        hasher: &KeyHasher,
    ) -> Result<(), BadRequest> {
        let Self { request, client, peer, route, captures, .. } = self;
        let value = match dimension {
            Dimension::Client => return Ok(_ = client.add_identity(key)),
            Dimension::Address => return Ok(_ = client.add_network(key)),
            Dimension::Route => return Ok(_ = key.part(route.name.as_bytes())),
            Dimension::Path(name) => {
                let captured = captures.iter().find(|(captured, _)| **captured == **name);
                return Ok(_ = key.part(captured.map_or("", |(_, value)| value).as_bytes()));
            }
            Dimension::Certificate => peer.certificate.as_deref().map(Cow::from),
            Dimension::Bearer => client::bearer(request.headers(), hasher)?.map(Cow::from),
            Dimension::Header(name) => client::only_header(request.headers(), name)?.map(folded),
            Dimension::Query(name) => query::value(request.uri().query().unwrap_or_default(), name)
                .map_err(|_| BadRequest::IdentityAmbiguous)?
                .map(|value| Cow::from(folded(&value).into_owned())),
        };
        let value = value.filter(|value| !value.is_empty());
        let value = value.or_else(|| limit.default.as_deref().map(folded)).ok_or(BadRequest::LimitKeyMissing)?;
        key.part(value.as_bytes());
        Ok(())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        room::keep(mem::take(self.request.headers_mut()));
    }
}

/// A value in the one form that it is compared in: no blanks around it, and ASCII letters in lower case.
pub fn folded(value: &str) -> Cow<'_, str> {
    let value = value.trim_matches([' ', '\t']);
    if value.bytes().any(|byte| byte.is_ascii_uppercase()) { value.to_ascii_lowercase().into() } else { value.into() }
}

//! What a gate would ask of its limiter for requests that a log recorded.
//!
//! Promised: client, route and buckets are found by the same code as for a request that comes over the wire.
//! Not promised: what a record does not hold. A client is called what the record calls it, by the first source of the
//! configuration that can name one; who proved to be trusted by a secret or a certificate is believed where the record says
//! so. Nothing is known of pauses that an upstream asked for, of WebSockets, nor of charges that were given back.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use arrayvec::ArrayVec;
use hyper::{
    Request, Uri,
    header::{AUTHORIZATION, COOKIE, HOST, HeaderName, HeaderValue},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::Instant;

use super::{
    Gate, access::Notes, call::Call, question::Question, rejection::Rejection, request_id::RequestId, route::Route,
    tenant::Tenants, whitelist::believes,
};
use crate::{
    body::RequestBody,
    code::Code,
    config::{Config, IdentitySource, Trusted},
    limiter::{
        Charge, Limit, MAX_CHARGES, Terms,
        bucket::MICRO,
        key::{Key, KeyHasher},
    },
    peer::Peer,
};

/// Asks as a gate would.
pub struct Replay {
    gate: Gate,
    hasher: KeyHasher,
    whitelist: Vec<Trusted>,
    source: Option<IdentitySource>,
}

/// A request as a log recorded it.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    /// What its client is called; `None` where it is its address.
    pub client: Option<&'a str>,
    /// Its client's address.
    pub address: IpAddr,
    /// Its method.
    pub method: &'a str,
    /// Its path, with a query where the log has it.
    pub target: &'a str,
    /// The host it was sent to.
    pub host: &'a str,
    /// Whether its client was believed to be trusted.
    pub trusted: bool,
    /// Fields that it had.
    pub headers: &'a [(HeaderName, HeaderValue)],
}

/// What is asked for one request.
pub struct Asked {
    /// The route that takes it.
    pub route: Arc<Route>,
    /// One for each of the route's [`slots`], or for all but the last; none where its client is trusted.
    pub keys: ArrayVec<Key, MAX_CHARGES>,
}

/// What every request of a route is charged to.
#[derive(Debug, Clone)]
pub struct Slot {
    /// Names the limit.
    pub name: Arc<str>,
    /// The same for every route that shares the limit.
    pub id: String,
    /// What there is.
    pub limit: Limit,
    /// What one request takes, in micro-tokens.
    pub cost: u64,
    /// On what terms.
    pub terms: Terms,
}

impl Replay {
    /// A replay by `gate`, which `config` describes.
    pub fn new(gate: Gate, config: &Config) -> Self {
        let hasher = KeyHasher::new(config.identity.hash_key.as_ref(), &config.store.key_prefix);
        let source = config.identity.sources.iter().find(|source| **source != IdentitySource::Address).cloned();
        Self { gate, hasher, whitelist: config.whitelist.clone(), source }
    }

    /// What is asked for a request; the code of the answer where it does not come so far.
    pub fn ask(&self, recorded: &Recorded<'_>) -> Result<Asked, Code> {
        let (peer, request) = self.request(recorded).ok_or(Code::BadRequest)?;
        let inner = &*self.gate.0;
        let found = inner.find(&request).map_err(|rejection| rejection.code())?;
        let route = Arc::clone(&found.route);
        let id = RequestId::from_headers(request.headers());
        let call = inner.admit(peer, request, id, Instant::now(), found, Notes::default());
        let mut call = call.map_err(|reason| Rejection::from(reason).code())?;
        call.exempt = self.whitelist.iter().any(|entry| is_trusted(entry, &call, recorded.trusted));
        // What an upstream would have taken nobody knows.
        let tenants = Tenants::default();
        let question =
            Question::of(&route, &tenants, &call, &self.hasher).map_err(|reason| Rejection::from(reason).code())?;
        let charges = question.charges();
        let charges = &charges[..charges.len() - usize::from(question.cooldown().is_some())];
        let keys = if call.exempt { ArrayVec::new() } else { charges.iter().map(|charge| charge.key).collect() };
        Ok(Asked { keys, route: Arc::clone(&route) })
    }

    /// The request that was recorded, as far as it can be made again.
    fn request(&self, recorded: &Recorded<'_>) -> Option<(Peer, Request<RequestBody>)> {
        let mut peer = Peer { address: SocketAddr::new(recorded.address, 0), secure: false, certificate: None };
        let mut request = Request::new(RequestBody::default());
        *request.method_mut() = recorded.method.parse().ok()?;
        *request.uri_mut() = Uri::try_from(recorded.target).ok()?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(recorded.host).ok()?);
        headers.extend(recorded.headers.iter().cloned());
        let Some(client) = recorded.client else { return Some((peer, request)) };
        match &self.source {
            Some(IdentitySource::Header(name)) => _ = headers.insert(name, HeaderValue::from_str(client).ok()?),
            Some(IdentitySource::Bearer) => _ = headers.insert(AUTHORIZATION, HeaderValue::from_str(client).ok()?),
            Some(IdentitySource::Cookie(name)) => {
                headers.insert(COOKIE, HeaderValue::from_str(&format!("{name}={client}")).ok()?);
            }
            Some(IdentitySource::Query(name)) => {
                let value = utf8_percent_encode(client, NON_ALPHANUMERIC);
                let separator = if recorded.target.contains('?') { '&' } else { '?' };
                *request.uri_mut() = Uri::try_from(format!("{}{separator}{name}={value}", recorded.target)).ok()?;
            }
            Some(IdentitySource::Certificate) => peer.certificate = Some(client.into()),
            Some(IdentitySource::Address) | None => {}
        }
        Some((peer, request))
    }
}

fn is_trusted(entry: &Trusted, call: &Call, trusted: bool) -> bool {
    if trusted {
        return believes(&Trusted { secret: None, certificate: None, ..entry.clone() }, &call.client, None, None);
    }
    believes(entry, &call.client, call.peer.certificate.as_deref(), None)
}

/// What every request of a route is charged to: its limits, and last, where there is one, the number of new identities.
pub fn slots(route: &Route) -> Vec<Slot> {
    let limits = route.limits.iter().map(|limit| Slot {
        name: Arc::clone(&limit.name),
        id: limit.id.clone(),
        limit: limit.limit.clone(),
        cost: limit.cost,
        terms: Terms::Take,
    });
    let newcomers = route.newcomers.iter().map(|newcomers| Slot {
        name: Arc::clone(&newcomers.guard.name),
        id: "identity/new".to_owned(),
        limit: newcomers.limit.clone(),
        cost: MICRO,
        terms: Terms::TakeIfNew(newcomers.identity),
    });
    limits.chain(newcomers).collect()
}

// === impl Slot ===

impl Slot {
    /// What a request asks of it.
    pub fn charge(&self, key: Key) -> Charge<'_> {
        Charge { limit: &self.limit, key, cost: self.cost, terms: self.terms }
    }
}

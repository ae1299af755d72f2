//! A request that was admitted: who asks and by which route are known, so no stage can run before they are.

use std::{borrow::Cow, fmt, sync::Arc};

use arrayvec::ArrayString;
use hyper::{HeaderMap, Request, Uri, http::HeaderValue};
use tokio::time::Instant;

use super::{
    access::Notes,
    bad_request::BadRequest,
    client::{self, Client},
    headers::X_REQUEST_ID,
    query,
    route::{Route, RouteLimit},
    tenant::{Follows, Observers},
    websocket::Opening,
};
use crate::{
    body::RequestBody,
    config::Dimension,
    limiter::{
        Charge, Terms,
        key::{Key, KeyHasher, KeyParts},
    },
    peer::Peer,
};

/// A request on its way through the stages. It is handed from stage to stage in a box: each stage's future would otherwise
/// hold a copy of all of it, and moving those costs far more than one allocation.
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
    /// What the access log is told.
    pub notes: Notes,
}

/// Tells one request from every other, in answers, logs and upstream: the caller's own `X-Request-Id` where that is one
/// field of 1 to 64 of `A-Z a-z 0-9 - _ . : + / =`, else 128 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId(ArrayString<64>);

// === impl Call ===

impl Call {
    /// What it asks of a limit.
    pub fn charge<'l>(&self, limit: &'l RouteLimit, hasher: &KeyHasher) -> Result<Charge<'l>, BadRequest> {
        Ok(Charge { limit: &limit.limit, key: self.key(limit, hasher)?, cost: limit.cost, terms: Terms::Take })
    }

    /// Its bucket of a limit.
    pub fn key(&self, limit: &RouteLimit, hasher: &KeyHasher) -> Result<Key, BadRequest> {
        self.key_of(limit, &limit.id, &limit.per, hasher)
    }

    /// Its tenant of a limit: the first of the values that the limit counts by, alone.
    pub fn tenant(&self, limit: &RouteLimit, follows: &Follows, hasher: &KeyHasher) -> Result<Key, BadRequest> {
        self.key_of(limit, &follows.id, &limit.per[..1], hasher)
    }

    fn key_of(&self, limit: &RouteLimit, id: &str, per: &[Dimension], hasher: &KeyHasher) -> Result<Key, BadRequest> {
        let key = per.iter().try_fold(hasher.start(id), |key, dimension| self.add(limit, key, dimension, hasher));
        Ok(key?.finish())
    }

    /// Adds one of the values that a limit counts by to a key. Where the request lacks the value, the limit's default stands
    /// in, as if the request had named it.
    fn add(
        &self,
        limit: &RouteLimit,
        key: KeyParts,
        dimension: &Dimension,
        hasher: &KeyHasher,
    ) -> Result<KeyParts, BadRequest> {
        let Self { request, client, peer, route, captures, .. } = self;
        let value = match dimension {
            Dimension::Client => return Ok(client.add_identity(key)),
            Dimension::Address => return Ok(client.add_network(key)),
            Dimension::Route => return Ok(key.part(route.name.as_bytes())),
            Dimension::Path(name) => {
                let captured = captures.iter().find(|(captured, _)| **captured == **name);
                return Ok(key.part(captured.map_or("", |(_, value)| value).as_bytes()));
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
        Ok(key.part(value.as_bytes()))
    }
}

/// A value in the one form that it is compared in: no blanks around it, and ASCII letters in lower case.
pub fn folded(value: &str) -> Cow<'_, str> {
    let value = value.trim_matches([' ', '\t']);
    if value.bytes().any(|byte| byte.is_ascii_uppercase()) { value.to_ascii_lowercase().into() } else { value.into() }
}

// === impl RequestId ===

impl RequestId {
    /// The caller's, or a new one.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(X_REQUEST_ID).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value).unwrap_or_else(Self::random),
            _ => Self::random(),
        }
    }

    fn parse(value: &HeaderValue) -> Option<Self> {
        let text = ArrayString::from(value.to_str().ok()?).ok()?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:+/=".contains(&byte);
        (!text.is_empty() && text.bytes().all(allowed)).then_some(Self(text))
    }

    fn random() -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [0; 64];
        for (two, byte) in digits.chunks_exact_mut(2).zip(fastrand::u128(..).to_ne_bytes()) {
            two.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        let mut text = ArrayString::from_byte_string(&digits).unwrap_or_default();
        text.truncate(32);
        Self(text)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As a header value.
    pub fn to_header(self) -> HeaderValue {
        HeaderValue::from_str(&self.0).unwrap_or_else(|_| HeaderValue::from_static("invalid"))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(values: &[&'static str]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(X_REQUEST_ID, HeaderValue::from_static(value));
        }
        RequestId::from_headers(&headers).to_string()
    }

    #[test]
    fn a_callers_own_request_id_is_kept_when_it_is_clean() {
        assert_eq!(id_of(&["0af7-651:9_A.z+/="]), "0af7-651:9_A.z+/=");
    }

    #[test]
    fn anything_else_is_replaced_by_a_new_one() {
        const LONG: &str = "00000000000000000000000000000000000000000000000000000000000000000";
        for bad in [&["a b"][..], &[""], &[LONG], &["one", "two"], &[], &["<script>"]] {
            let id = id_of(bad);
            assert_eq!(id.len(), 32, "{bad:?} gave {id}");
            assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{bad:?} gave {id}");
            assert_ne!(id, id_of(bad), "two requests share an id");
        }
    }
}

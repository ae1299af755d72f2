//! How the requests of one route are delivered: credentials, attempt, retry.
//!
//! Promised: where the route has credentials, a request carries their token and never the caller's own `Authorization`; a
//! token that is refused with 401 is thrown away, and the request tried once more with another; where the route retries, a
//! request is sent again as [`retry`] allows. All of it is one request to whoever asks, and it ends when the
//! caller drops it. A body is sent again only if all of it that was taken fits the bound, and a request to switch protocols
//! never is: it opens a connection of its own, which only the caller can open anew.
//! Not promised: that a request whose body is larger than that is sent more than once.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use http_body_util::{BodyExt, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, HeaderName, UPGRADE},
};
use prometheus_client::metrics::counter::Counter;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Upstream, UpstreamError,
    oauth::{Credentials, Token},
    response::ResponseBody,
    retry::{self, Budget, Ended, Tries},
    stopwatch::Observer,
};
use crate::{
    body::{Replay, RequestBody},
    config,
    metrics::{Metrics, RetryLabels},
    wire::fields::FieldLines,
};

/// What is kept of a body so that it can follow a new token, where the route says nothing about retries.
const REPLAY_BYTES: usize = 64 * 1024;
/// What is read of an answer that nobody gets, so that its connection can be used again.
const DISCARDED_BYTES: usize = 64 * 1024;
/// How long that may take.
const DISCARD_TIME: Duration = Duration::from_millis(250);

/// The way from one route to its upstream.
pub struct Delivery {
    upstream: Arc<Upstream>,
    identity: Option<Identity>,
    retries: Option<Retries>,
}

/// In whose name requests go upstream.
pub struct Identity {
    /// Where the token comes from.
    pub credentials: Arc<Credentials>,
    /// The field that carries the caller's own `Authorization` instead; `None` drops it.
    pub caller_as: Option<HeaderName>,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// There is no token to send with it; nothing reached the upstream: 502.
    #[error("no credentials are to be had")]
    Credentials,
    /// The upstream gave none.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

struct Retries {
    config: config::Retry,
    budget: Mutex<Budget>,
    sent: Counter,
    withheld: Counter,
}

/// A request that can be sent several times.
struct Parcel {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Replay,
}

// === impl Delivery ===

impl Delivery {
    /// The way of `route` to `upstream`.
    pub fn new(route: &config::Route, upstream: Arc<Upstream>, identity: Option<Identity>, metrics: &Metrics) -> Self {
        let counter = |result| metrics.retries.get_or_create_owned(&RetryLabels { route: route.name.clone(), result });
        let retries = route.retry.clone().map(|config| Retries {
            config,
            budget: Mutex::new(Budget::new(Instant::now())),
            sent: counter("sent"),
            withheld: counter("withheld"),
        });
        Self { upstream, identity, retries }
    }

    /// Host and port of the upstream, as `Host` names them.
    pub fn authority(&self) -> Option<&str> {
        self.upstream.host.to_str().ok()
    }

    /// Delivers a request, which is used up, with `fields` beside its head, and waits for the head of the response that the caller
    /// is to get; `observer` learns how long each attempt takes the upstream.
    pub async fn send(
        &self,
        request: &mut Request<RequestBody>,
        fields: &FieldLines,
        observer: Option<&dyn Observer>,
    ) -> Result<Response<ResponseBody>, DeliveryError> {
        if self.identity.is_none() && self.retries.is_none() {
            return Ok(self.upstream.send_observed(request, fields, observer).await?);
        }
        let mut parcel = self.pack(request, fields);
        let in_parcel = FieldLines::default();
        let mut tries = Tries { begun: Instant::now(), made: 0 };
        let mut refused = false;
        loop {
            let token = self.authorize(&mut parcel).await?;
            let outcome = self.upstream.send_observed(&mut parcel.request(), &in_parcel, observer).await;
            if !refused && self.refuses(token.as_ref(), &outcome) && parcel.rewind() {
                refused = true;
                discard(outcome).await;
                continue;
            }
            tries.made += 1;
            match self.retries.as_ref().and_then(|retries| retries.wait(tries, &parcel, &outcome)) {
                Some(wait) if parcel.rewind() => {
                    discard(outcome).await;
                    sleep(wait).await;
                }
                _ => return Ok(outcome?),
            }
        }
    }

    /// Delivers a preflight, once and without the route's credentials: what it asks for is answered to everyone, and the
    /// protocol has none in it (Fetch standard, "CORS-preflight fetch").
    pub async fn send_preflight(
        &self,
        request: &mut Request<RequestBody>,
        fields: &FieldLines,
    ) -> Result<Response<ResponseBody>, DeliveryError> {
        if self.identity.is_some() {
            request.headers_mut().remove(AUTHORIZATION);
        }
        Ok(self.upstream.send_observed(request, fields, None).await?)
    }

    /// Counts the request, and takes the caller's own credentials out of it where the route has others.
    fn pack(&self, request: &mut Request<RequestBody>, fields: &FieldLines) -> Parcel {
        let (method, uri) = (mem::take(request.method_mut()), mem::take(request.uri_mut()));
        let (mut headers, body) = (mem::take(request.headers_mut()), mem::take(request.body_mut()));
        fields.add_to(&mut headers);
        if let Some(identity) = &self.identity {
            identity.replace(&mut headers);
        }
        let replay_bytes = self.retries.as_ref().map_or(REPLAY_BYTES, |retries| {
            retries.budget().request(Instant::now());
            retries.config.replay_bytes
        });
        Parcel { method, uri, headers, body: Replay::new(body, replay_bytes) }
    }

    /// Writes the token in force into the request, if the route has credentials.
    async fn authorize(&self, parcel: &mut Parcel) -> Result<Option<Arc<Token>>, DeliveryError> {
        let Some(identity) = &self.identity else { return Ok(None) };
        let token = identity.credentials.token().await.map_err(|_| DeliveryError::Credentials)?;
        parcel.headers.insert(AUTHORIZATION, token.authorization());
        Ok(Some(token))
    }

    /// Whether the upstream has refused the token, and there will be another.
    fn refuses(&self, token: Option<&Arc<Token>>, outcome: &Result<Response<ResponseBody>, UpstreamError>) -> bool {
        let refused = outcome.as_ref().is_ok_and(|response| response.status() == StatusCode::UNAUTHORIZED);
        let Some((identity, token)) = self.identity.as_ref().zip(token) else { return false };
        refused && identity.credentials.refuse(token)
    }
}

/// Reads the rest of an answer that nobody gets, as far as that is cheaper than another connection.
async fn discard(outcome: Result<Response<ResponseBody>, UpstreamError>) {
    if let Ok(response) = outcome {
        // Whatever it ends with: a body that is not read to its end closes its connection when it is dropped.
        let _ = timeout(DISCARD_TIME, Limited::new(response.into_body(), DISCARDED_BYTES).collect()).await;
    }
}

// === impl Identity ===

impl Identity {
    /// Takes away what the caller shows, or moves it to where the configuration wants it.
    fn replace(&self, headers: &mut HeaderMap) {
        let callers = headers.remove(AUTHORIZATION);
        if let Some(name) = &self.caller_as {
            headers.remove(name);
            headers.extend(callers.map(|callers| (name.clone(), callers)));
        }
    }
}

// === impl Retries ===

impl Retries {
    /// How long to wait before another try; `None` where this outcome is what the caller gets.
    fn wait(
        &self,
        tries: Tries,
        parcel: &Parcel,
        outcome: &Result<Response<ResponseBody>, UpstreamError>,
    ) -> Option<Duration> {
        let now = Instant::now();
        let ended = match outcome {
            Ok(response) => Ended::Answered(response.status(), retry::retry_after(response.headers(), SystemTime::now())),
            Err(error) => Ended::failed(error),
        };
        let wait = retry::wait(&self.config, tries, &parcel.method, ended, now, fastrand::f64())?;
        let granted = parcel.is_repeatable() && self.budget().retry(now);
        if granted {
            self.sent.inc()
        } else {
            self.withheld.inc()
        };
        granted.then_some(wait)
    }

    fn budget(&self) -> std::sync::MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Parcel ===

impl Parcel {
    fn is_repeatable(&self) -> bool {
        !self.headers.contains_key(UPGRADE) && self.body.is_kept()
    }

    /// Ends the last try, and begins another if there can be one.
    fn rewind(&self) -> bool {
        self.is_repeatable() && self.body.rewind()
    }

    fn request(&self) -> Request<RequestBody> {
        let mut request = Request::new(self.body.body());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

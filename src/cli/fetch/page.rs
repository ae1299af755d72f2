//! One page, from asking to its entities.
//!
//! Promised: every try passes the gate, so each is charged to the limits of its route; a refusal of the gate is no try, and
//! is waited out, up to `max_wait` in all for a page; what fails is tried again as the route's `retry` says, whose deadline
//! counts the pauses between tries. There is no retry budget: the limits, to which each try is charged, are one. Never more of
//! a page is read than `max_page_bytes`.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    header::{ACCEPT, HOST, HeaderName, HeaderValue},
};
use tokio::time::Instant;

use super::{
    address,
    entities::{Field, Lines, NoEntities},
    tally::{Cause, Tally},
};
use crate::{
    app::egress::Egress,
    body::RequestBody,
    config::{Endpoint, Origin, Retry},
    gate::{rejection::Rejection, response::Response},
    upstream::retry::{self, Ended, Tries},
};

/// Who a fetch is where the command line does not say.
const CLIENT: HeaderValue = HeaderValue::from_static("cxgate-fetch");
const X_CLIENT_ID: HeaderName = HeaderName::from_static("x-client-id");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What is read of an answer that is no page, for its code and so that its connection can be used again.
const ERROR_BYTES: usize = 64 * 1024;

/// Asks for pages.
pub(super) struct Asker {
    pub(super) egress: Arc<Egress>,
    /// Fields of every request.
    pub(super) headers: HeaderMap,
    pub(super) field: Field,
    pub(super) max_page_bytes: usize,
    pub(super) max_wait: Duration,
    pub(super) tally: Arc<Tally>,
}

/// Why there is no page, in the end.
#[derive(Debug, thiserror::Error)]
#[error("{reason}{}", if *.tries > 1 { format!(" after {tries} tries") } else { String::new() })]
pub(super) struct Failure {
    reason: Reason,
    tries: u32,
}

/// Why a try led to no page.
#[derive(Debug, thiserror::Error)]
pub(super) enum Reason {
    #[error("`{0}` is no URL like https://host/path")]
    Url(String),
    #[error("no route of the configuration takes it ({0})")]
    NoRoute(&'static str),
    #[error("its path belongs to route `{route}`, whose upstream is {upstream}, not {origin}")]
    Foreign { route: String, upstream: Origin, origin: Origin },
    #[error("{status}{}", code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default())]
    Status { status: StatusCode, retry_after: Option<Duration>, code: Option<String> },
    #[error("{0}")]
    Body(String),
    #[error("it is larger than {0} bytes (--max-page-bytes)")]
    TooLarge(usize),
    #[error(transparent)]
    NoEntities(#[from] NoEntities),
    #[error("its turn did not come within {0:?} (--max-wait)")]
    MaxWait(Duration),
    #[error("a defect of cxgate ended it")]
    Broken,
}

// === impl Asker ===

impl Asker {
    /// The entities of a page.
    pub(super) async fn page(&self, url: &str) -> Result<Lines, Failure> {
        let mut tries = 0;
        self.tried(url, &mut tries).await.map_err(|reason| Failure { reason, tries })
    }

    async fn tried(&self, url: &str, tries: &mut u32) -> Result<Lines, Reason> {
        let (endpoint, retry) = self.check(url)?;
        let (mut waited, mut paused) = (Duration::ZERO, Duration::ZERO);
        loop {
            let response = Box::pin(self.egress.send(self.request(&endpoint))).await;
            if let Some(turn) = turn(&response) {
                self.tally.refusals.fetch_add(1, Relaxed);
                waited += turn;
                if waited > self.max_wait {
                    return Err(Reason::MaxWait(self.max_wait));
                }
                self.tally.wait(Cause::Limit, turn).await;
                continue;
            }
            *tries += 1;
            self.tally.waited(Cause::Limit, decision_time(response.headers()));
            let reason = match self.read(response).await {
                Ok(lines) => return Ok(lines),
                Err(reason) => reason,
            };
            let now = Instant::now();
            let begun = now.checked_sub(paused).unwrap_or(now);
            let wait = retry.zip(reason.ended()).and_then(|(retry, ended)| {
                retry::wait(retry, Tries { begun, made: *tries }, &Method::GET, ended, now, fastrand::f64())
            });
            let Some(wait) = wait else { return Err(reason) };
            self.tally.retries.fetch_add(1, Relaxed);
            self.tally.wait(reason.cause(), wait).await;
            paused += wait;
        }
    }

    /// Where a page is, and when to ask again for it. No request goes to a server that its route does not lead to.
    pub(super) fn check(&self, url: &str) -> Result<(Endpoint, Option<&Retry>), Reason> {
        let endpoint = Endpoint::parse(url).ok_or_else(|| Reason::Url(address::shown(url)))?;
        let way = self.egress.way(&self.request(&endpoint));
        let way = way.map_err(|rejection: Rejection| Reason::NoRoute(rejection.code().as_str()))?;
        if *way.upstream != endpoint.origin {
            let (route, upstream) = (way.route.to_owned(), way.upstream.clone());
            return Err(Reason::Foreign { route, upstream, origin: endpoint.origin });
        }
        Ok((endpoint, way.retry))
    }

    fn request(&self, endpoint: &Endpoint) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::default());
        // What is no target is taken by no route.
        *request.uri_mut() = endpoint.path_and_query.parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.extend(HeaderValue::try_from(endpoint.origin.authority()).ok().map(|host| (HOST, host)));
        headers.insert(ACCEPT, JSON);
        headers.insert(X_CLIENT_ID, CLIENT);
        headers.extend(self.headers.clone());
        request
    }

    async fn read(&self, response: Response) -> Result<Lines, Reason> {
        let (head, body) = response.into_parts();
        if head.status == StatusCode::NO_CONTENT {
            return Ok(Lines::default());
        }
        if !head.status.is_success() {
            let is_own = body.is_own();
            let body = Limited::new(body, ERROR_BYTES).collect().await;
            let body = body.ok().filter(|_| is_own).map(http_body_util::Collected::to_bytes);
            let body = body.and_then(|body| serde_json::from_slice::<serde_json::Value>(&body).ok());
            let code = body.and_then(|body| Some(body["error"].as_str()?.to_owned()));
            let retry_after = retry::retry_after(&head.headers, SystemTime::now());
            return Err(Reason::Status { status: head.status, retry_after, code });
        }
        match Limited::new(body, self.max_page_bytes).collect().await {
            Ok(page) => Ok(self.field.lines(&page.to_bytes())?),
            Err(error) if error.is::<LengthLimitError>() => Err(Reason::TooLarge(self.max_page_bytes)),
            Err(error) => Err(Reason::Body(error.to_string())),
        }
    }
}

/// How long the gate asks to stay away, where it is the gate that does.
fn turn(response: &Response) -> Option<Duration> {
    let refused = response.body().is_own() && !response.status().is_success();
    retry::retry_after(response.headers(), SystemTime::now()).filter(|_| refused)
}

/// How long a try stood before the limits before it went upstream, as the gate tells behind what the upstream says.
fn decision_time(headers: &HeaderMap) -> Duration {
    let last = headers.get_all(SERVER_TIMING).iter().next_back().and_then(|value| value.to_str().ok());
    let milliseconds = last.and_then(|text| text.rsplit_once("decision;dur=")?.1.parse::<f64>().ok());
    milliseconds.and_then(|milliseconds| Duration::try_from_secs_f64(milliseconds / 1e3).ok()).unwrap_or_default()
}

// === impl Failure ===

impl Failure {
    /// Of a page whose task ended without an outcome.
    pub(super) fn broken() -> Self {
        Self { reason: Reason::Broken, tries: 1 }
    }
}

// === impl Reason ===

impl Reason {
    /// What it means for another try; `None` where that is no use.
    fn ended(&self) -> Option<Ended> {
        match self {
            Self::Status { status, retry_after, .. } => Some(Ended::Answered(*status, *retry_after)),
            Self::Body(_) => Some(Ended::Unknown(StatusCode::BAD_GATEWAY)),
            _ => None,
        }
    }

    fn cause(&self) -> Cause {
        match self {
            Self::Status { retry_after: Some(_), .. } => Cause::RetryAfter,
            _ => Cause::BackOff,
        }
    }
}

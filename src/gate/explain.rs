//! Why a request would be decided as it would: the same admission and the same question as for a real one, but the limiter is
//! only looked at.
//!
//! Promised: nothing is charged, counted or logged; the verdict is the one that the request would have got at that moment from
//! this replica, refusals from memory and pauses of the upstream included.
//! Not promised: what the upstream would say, nor how many sockets the client has open.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use hyper::{Request, header::HeaderValue};
use serde::Serialize;
use tokio::time::Instant;

use super::{
    Gate, access::Notes, call::Call, client::Client, cors, desk::BucketFacts, headers::X_CLIENT_SECRET, question::Question,
    rejection::Rejection, request_id::RequestId, route::Found,
};
use crate::{
    body::RequestBody,
    code::Code,
    config::Mode,
    limiter::{Standing, peek::Outlook, retry_after_seconds},
    peer::Peer,
};

/// Why a request would be decided as it would.
#[derive(Debug, Default, Serialize)]
pub struct Explanation {
    /// What becomes of it.
    pub verdict: Verdict,
    /// The status that is answered instead of forwarding it; absent where it is forwarded.
    pub status: Option<u16>,
    /// The code of that answer.
    pub error: Option<&'static str>,
    /// The route that takes it.
    pub route: Option<Arc<str>>,
    /// Whether what is decided also holds: in `shadow` the request passes, although `limit` would refuse it.
    pub mode: Option<Mode>,
    /// The segments that the route captures.
    pub captures: BTreeMap<Arc<str>, String>,
    /// Who asks.
    pub client: Option<Who>,
    /// By what it is exempt from limits: `configuration` or `runtime`.
    pub exempt: Option<&'static str>,
    /// Who knows how the limits stand.
    pub decided_by: Option<&'static str>,
    /// Each limit of the route, then its guards.
    pub limits: Vec<Asked>,
    /// The limit to wait for.
    pub limit: Option<Arc<str>>,
    /// What the refusal says, in seconds.
    pub retry_after: Option<u64>,
    /// The second at which it passes, if nothing else comes, in Unix time.
    pub passes_at: Option<u64>,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It goes to the upstream.
    #[default]
    Admitted,
    /// It goes there without being asked about limits: nobody can tell, and the policy is `allow`.
    Unlimited,
    /// It is no one's request.
    Preflight,
    /// A limit refuses it.
    Refused,
    /// It is answered with an error.
    Rejected,
}

/// Who asks.
#[derive(Debug, Serialize)]
pub struct Who {
    /// What the client is called.
    pub name: String,
    /// What its name was read from.
    pub source: String,
    /// Its kind, with which its buckets are found.
    pub kind: &'static str,
    /// Its own address.
    pub address: String,
    /// The address that counts for limits.
    pub network: String,
}

/// What is asked of one limit.
#[derive(Debug, Serialize)]
pub struct Asked {
    /// The limit, or the guard.
    pub limit: Arc<str>,
    /// What the request takes, in tokens.
    pub cost: f64,
    /// Whether it admits.
    pub admits: bool,
    /// How its bucket stands.
    #[serde(flatten)]
    pub bucket: BucketFacts,
}

impl Gate {
    /// Explains what would become of a request from `peer`.
    pub async fn explain(&self, peer: Peer, request: Request<RequestBody>) -> Explanation {
        let inner = &*self.0;
        let found = match inner.find(&request) {
            Ok(found) => found,
            Err(rejection) => return Explanation::default().rejected(&rejection),
        };
        let mut explanation = Explanation::of(&found);
        let source = inner.identification.source(&peer, &request);
        let route = Arc::clone(&found.route);
        let id = RequestId::from_headers(request.headers());
        let mut call = match inner.admit(peer, request, id, Instant::now(), found, Notes::default()) {
            Ok(call) => call,
            Err(reason) => return explanation.rejected(&reason.into()),
        };
        explanation.client = Some(Who::of(&call.client, source));
        if cors::preflighted(&call.request).is_some() {
            return Explanation { verdict: Verdict::Preflight, ..explanation };
        }
        let secret = call.request.headers_mut().remove(X_CLIENT_SECRET);
        explanation.exempt = inner.desk.whitelist.exempts(&call, secret.as_ref().map(HeaderValue::as_bytes));
        call.exempt = explanation.exempt.is_some();
        self.outlook(&call, explanation, &route).await
    }

    async fn outlook(&self, call: &Call, mut explanation: Explanation, route: &super::route::Route) -> Explanation {
        let hasher = &self.0.desk.hasher;
        let tenants = match call.tenants(hasher) {
            Ok(tenants) => tenants,
            Err(_) if route.is_shadow() => return Explanation { verdict: Verdict::Unlimited, ..explanation },
            Err(reason) => return explanation.rejected(&reason.into()),
        };
        let question = match Question::of(route, &tenants, call, hasher) {
            Ok(question) => question,
            Err(_) if route.is_shadow() => return Explanation { verdict: Verdict::Unlimited, ..explanation },
            Err(reason) => return explanation.rejected(&reason.into()),
        };
        if question.charges().is_empty() {
            return explanation;
        }
        let (standings, by) = match self.0.desk.limiter.foresee(question.charges()).await {
            Outlook::Standings { standings, by } => (standings, by),
            Outlook::Unavailable if !call.exempt && !route.is_shadow() => {
                return explanation.rejected(&Rejection::StoreUnavailable { retry_after: Duration::from_secs(1) });
            }
            Outlook::Unavailable | Outlook::Unlimited => {
                return Explanation { verdict: Verdict::Unlimited, ..explanation };
            }
        };
        explanation.decided_by = Some(by.as_str());
        explanation.limits = question.names().zip(question.charges()).zip(&standings).map(Asked::of).collect();
        match question.longest(&standings) {
            Some((limit, wait)) => explanation.refused(limit, wait),
            None => explanation,
        }
    }
}

// === impl Explanation ===

impl Explanation {
    fn of(found: &Found) -> Self {
        let captures = found.captures.iter().cloned().collect();
        Self { route: Some(Arc::clone(&found.route.name)), mode: Some(found.route.mode), captures, ..Self::default() }
    }

    fn rejected(self, rejection: &Rejection) -> Self {
        let code = rejection.code();
        Self { verdict: Verdict::Rejected, status: Some(code.status().as_u16()), error: Some(code.as_str()), ..self }
    }

    fn refused(self, limit: Arc<str>, wait: Duration) -> Self {
        let code = (self.mode != Some(Mode::Shadow)).then_some(Code::RateLimitExceeded);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let until = now + wait;
        Self {
            verdict: if code.is_some() { Verdict::Refused } else { Verdict::Admitted },
            status: code.map(|code| code.status().as_u16()),
            error: code.map(Code::as_str),
            limit: Some(limit),
            retry_after: Some(retry_after_seconds(wait)),
            passes_at: Some(until.as_secs() + u64::from(until.subsec_nanos() > 0)),
            ..self
        }
    }
}

// === impl Who ===

impl Who {
    fn of(client: &Client, source: String) -> Self {
        Self {
            name: client.identity.text.to_string(),
            source,
            kind: client.identity.kind,
            address: client.address.to_string(),
            network: client.network.to_string(),
        }
    }
}

// === impl Asked ===

impl Asked {
    fn of(((name, charge), standing): ((Arc<str>, &crate::limiter::Charge<'_>), &Standing)) -> Self {
        let bucket = BucketFacts::of(charge, standing);
        Self { limit: name, cost: super::desk::tokens(charge.cost), admits: bucket.fits, bucket }
    }
}

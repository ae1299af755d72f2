//! Why a request would be decided as it would: the same admission and the same question as for a real one, but the limiter is
//! only looked at.
//!
//! Promised: nothing is charged, counted or logged, and nobody takes note of who is asked about; the verdict is the one that the
//! request would have got at that moment from this replica: refusals from memory, pauses of the upstream, places and turns
//! included.
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
    Desk, Gate,
    access::Notes,
    call::Call,
    client::Client,
    cors,
    desk::{Amended, BucketFacts},
    headers::X_CLIENT_SECRET,
    in_flight,
    question::Question,
    rejection::Rejection,
    request_id::RequestId,
    route::{Found, Route},
    throttle::waiter,
};
use crate::{
    body::RequestBody,
    code::Code,
    config::Mode,
    limiter::{Charge, Standing, key::Key, peek::Outlook, retry_after_seconds},
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
    /// How many are under way, where the route bounds that.
    pub in_flight: Option<in_flight::Outlook>,
    /// For what it waits, and how long.
    pub wait: Option<Wait>,
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
    /// It waits, and then goes there.
    Waits,
    /// A limit refuses it.
    Refused,
    /// It is answered with an error.
    Rejected,
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Wait {
    /// `limits`, or `max_in_flight`, before limits are asked.
    #[serde(rename = "for")]
    pub for_what: &'static str,
    /// How long, if nobody else comes or leaves; absent where nobody can say.
    pub seconds: Option<f64>,
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
    /// Where operators changed its parameters for a while, what else there is of it, and until when.
    pub amended: Option<Amended>,
    /// Since when its factor is in force, by the store's clock, in microseconds of Unix time; absent where it has none.
    pub epoch: Option<u64>,
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

    async fn outlook(&self, call: &Call, mut explanation: Explanation, route: &Route) -> Explanation {
        let desk = &self.0.desk;
        let client = waiter(call, &desk.hasher);
        explanation.in_flight = route.places.as_ref().filter(|_| !call.exempt).map(|places| places.foresee(client));
        let explanation = self.limits_outlook(call, explanation, route, client).await;
        match (explanation.in_flight, &route.pacing) {
            // Places are asked for first.
            (Some(in_flight), Some(policy)) if !in_flight.fits && policy.has_room() => {
                explanation.waits(Wait { for_what: "max_in_flight", seconds: None })
            }
            (Some(in_flight), _) if !in_flight.fits => explanation.rejected(&Rejection::TooManyInFlight),
            _ => explanation,
        }
    }

    async fn limits_outlook(&self, call: &Call, mut explanation: Explanation, route: &Route, client: Key) -> Explanation {
        let Desk { hasher, limiter, pacing, .. } = &self.0.desk;
        let tenants = call.foreseen_tenants(hasher, limiter);
        let question = tenants.as_ref().map_err(|reason| *reason);
        let question = match question.and_then(|tenants| Question::of(route, tenants, call, hasher)) {
            Ok(question) => question,
            Err(_) if route.is_shadow() => return Explanation { verdict: Verdict::Unlimited, ..explanation },
            Err(reason) => return explanation.rejected(&reason.into()),
        };
        let charges = question.charges();
        if charges.is_empty() {
            return explanation;
        }
        let paced = route.pacing.as_ref();
        let outlook = match paced.filter(|policy| policy.has_room()) {
            // What is remembered of a refusal does not say whether a request may wait.
            Some(_) => limiter.peek(charges).await,
            None => limiter.foresee(charges).await,
        };
        let (standings, by) = match outlook {
            Outlook::Standings { standings, by } => (standings, by),
            Outlook::Unavailable if !call.exempt && !route.is_shadow() => {
                return explanation.rejected(&Rejection::StoreUnavailable { retry_after: Duration::from_secs(1) });
            }
            Outlook::Unavailable | Outlook::Unlimited => {
                return Explanation { verdict: Verdict::Unlimited, ..explanation };
            }
        };
        explanation.decided_by = Some(by.as_str());
        explanation.limits = question.names().zip(charges).zip(&standings).map(Asked::of).collect();
        for (asked, charge) in explanation.limits.iter_mut().zip(charges) {
            asked.epoch = limiter.epoch(charge).await;
        }
        let amendments = limiter.amendments();
        for (asked, limit) in explanation.limits.iter_mut().zip(question.limits()) {
            asked.amended = Amended::of(limit, &amendments, call.received);
        }
        let turn =
            paced.map(|policy| pacing.foresee(policy, charges, &standings, client, call.received + policy.configured.wait));
        let longest = question.longest(&standings);
        match turn {
            None if longest.is_none() => explanation,
            Some(Some(turn)) if turn.is_zero() => explanation,
            Some(Some(turn)) => explanation.waits(Wait { for_what: "limits", seconds: Some(turn.as_secs_f64()) }),
            // Where nothing is lacking, there is no room to wait behind those who do.
            None | Some(None) => match longest.or_else(|| Some((question.names().next()?, Duration::ZERO))) {
                Some((limit, wait)) => explanation.refused(limit, wait),
                None => explanation,
            },
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

    fn waits(self, wait: Wait) -> Self {
        let passes_at = wait.seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).map(second_after);
        Self { verdict: Verdict::Waits, wait: Some(wait), passes_at, ..self }
    }

    fn refused(self, limit: Arc<str>, wait: Duration) -> Self {
        let code = (self.mode != Some(Mode::Shadow)).then_some(Code::RateLimitExceeded);
        Self {
            verdict: if code.is_some() { Verdict::Refused } else { Verdict::Admitted },
            status: code.map(|code| code.status().as_u16()),
            error: code.map(Code::as_str),
            limit: Some(limit),
            retry_after: Some(retry_after_seconds(wait)),
            passes_at: Some(second_after(wait)),
            ..self
        }
    }
}

/// The first whole second of Unix time at which a wait is over.
fn second_after(wait: Duration) -> u64 {
    let until = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + wait;
    until.as_secs() + u64::from(until.subsec_nanos() > 0)
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
    fn of(((name, charge), standing): ((Arc<str>, &Charge<'_>), &Standing)) -> Self {
        let bucket = BucketFacts::of(charge, standing);
        Self { limit: name, cost: super::desk::tokens(charge.cost), admits: bucket.fits, amended: None, epoch: None, bucket }
    }
}

//! The gate's part in the access log and in traces: what is kept of a request until its answer has ended, and what the stages
//! find out about it on the way. Of one record both are made.
//!
//! Promised: one line for every request that reaches the gate, and spans for every one that is sampled, also where its client
//! goes away first; nothing is kept or allocated where there is neither an access log nor a sampled trace.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use hyper::{
    HeaderMap, Method, Request, StatusCode, Uri, Version,
    header::{HOST, HeaderName, HeaderValue, REFERER, RETRY_AFTER, USER_AGENT},
};
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use super::{
    Outcome,
    client::Client,
    rejection::Rejection,
    request_id::RequestId,
    response::{Follower, Response},
    route::Route,
    spans::{self, Course},
};
use crate::{
    config::{AccessClients, AccessFormat, AccessTarget, Config, Factor, LogFields},
    limiter::{bucket::MICRO, key::KeyHasher},
    log::{
        access::{AccessLog, Decision, Form, Record, Target, version},
        fields::Fields,
        stamp,
    },
    peer::Peer,
    trace::{Trace, TraceId, Tracer},
};

/// The answer to nobody: its client went away before there was one. Web servers note it so.
const CLIENT_GONE: u16 = 499;

/// The longest field that a line holds, in bytes; one that is cut would name another tenant.
const MAX_HEADER_BYTES: usize = 256;

/// Writes a line for each request, and makes spans of those that are sampled.
pub struct Access {
    log: Option<AccessLog>,
    tracer: Option<Tracer>,
    /// Names clients by a hash; `None` calls them by their names.
    hasher: Option<KeyHasher>,
    /// Fields that lines hold.
    headers: Vec<HeaderName>,
}

/// What is kept of one request. Dropping it writes its line, and hands over its spans.
pub struct Entry {
    access: Arc<Access>,
    at: u64,
    received: Instant,
    request_id: RequestId,
    peer: IpAddr,
    secure: bool,
    method: Method,
    uri: Uri,
    version: Version,
    host: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    headers: Vec<(String, String)>,
    notes: Notes,
    route: Option<Arc<Route>>,
    answer: Option<Answer>,
    bytes: u64,
}

struct Answer {
    status: StatusCode,
    retry_after: Option<u64>,
    rejection: Option<(&'static str, Option<Arc<str>>)>,
}

/// Where stages note what they find out; nowhere, where nothing is recorded. And in which trace.
#[derive(Clone, Default)]
pub struct Notes {
    findings: Option<Arc<Findings>>,
    trace: Trace,
}

#[derive(Default)]
struct Findings {
    client: OnceLock<Client>,
    whitelisted: AtomicBool,
    preflight: AtomicBool,
    passed: AtomicBool,
    shadowed: AtomicBool,
    /// When its limits were asked, and when they had said.
    asked: OnceLock<Instant>,
    told: OnceLock<Instant>,
    /// When it was sent upstream.
    sent: OnceLock<Instant>,
    upstream: OnceLock<Duration>,
    /// In millionths; 0 where no limit said.
    factor: AtomicU32,
}

// === impl Access ===

impl Access {
    /// Opens the log that `[log.access]` asks for, if it asks for one; `None` where there is no tracer either. `dropped` counts
    /// lines that are lost.
    pub fn open(config: &Config, tracer: Option<Tracer>, dropped: &Counter) -> io::Result<Option<Arc<Self>>> {
        let wanted = &config.log.access;
        let log = wanted.to.as_ref().map(|to| open_log(config, to, dropped)).transpose()?;
        if log.is_none() && tracer.is_none() {
            return Ok(None);
        }
        let hashed = wanted.clients == AccessClients::Hashed;
        let hasher = hashed.then(|| KeyHasher::new(config.identity.hash_key.as_ref(), &config.store.key_prefix));
        let headers = wanted.headers.iter().filter_map(|name| HeaderName::try_from(name).ok()).collect();
        Ok(Some(Arc::new(Self { log, tracer, hasher, headers })))
    }

    /// Where a request stands in a trace, by its own word and, where there is a tracer, by ours.
    pub fn trace(access: Option<&Arc<Self>>, headers: &HeaderMap) -> Trace {
        Trace::of(headers, access.and_then(|access| access.tracer.as_ref()))
    }

    /// Writes a line about a request that did not come as far as to the gate.
    pub fn write(&self, record: &Record<'_>) {
        if let Some(log) = &self.log {
            log.write(record);
        }
    }
}

fn open_log(config: &Config, to: &AccessTarget, dropped: &Counter) -> io::Result<AccessLog> {
    let wanted = &config.log.access;
    let target = match to {
        AccessTarget::Stdout => Target::Stdout,
        AccessTarget::Stderr => Target::Stderr,
        AccessTarget::File(path) => Target::File(path.clone()),
    };
    let form = match (wanted.format, config.log.fields) {
        (AccessFormat::Combined, _) => Form::Combined,
        (AccessFormat::Json, LogFields::Cxgate) => Form::Json(Fields::Cxgate),
        (AccessFormat::Json, LogFields::Ecs) => Form::Json(Fields::Ecs),
    };
    AccessLog::open(&target, form, wanted.sample, dropped.clone())
}

// === impl Entry ===

impl Entry {
    /// Begins with a request that came from `peer` now; `None` where there is no access log and it is not sampled.
    pub fn begin<B>(
        access: &Arc<Access>,
        peer: &Peer,
        request: &Request<B>,
        request_id: RequestId,
        trace: Trace,
    ) -> Option<Box<Self>> {
        if access.log.is_none() && trace.sampled().is_none() {
            return None;
        }
        let fields = request.headers();
        let short = |value: &&HeaderValue| value.len() <= MAX_HEADER_BYTES;
        let noted = |name: &HeaderName| Some((name.as_str().to_owned(), text(fields.get(name).filter(short)?)?.to_owned()));
        Some(Box::new(Self {
            access: Arc::clone(access),
            at: stamp::now(),
            received: Instant::now(),
            request_id,
            peer: peer.address.ip().to_canonical(),
            secure: peer.secure,
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            host: fields.get(HOST).cloned(),
            referer: fields.get(REFERER).cloned(),
            user_agent: fields.get(USER_AGENT).cloned(),
            headers: access.headers.iter().filter_map(noted).collect(),
            notes: Notes { findings: Some(Arc::default()), trace },
            route: None,
            answer: None,
            bytes: 0,
        }))
    }

    /// The route that takes it.
    pub fn routed(&mut self, route: &Arc<Route>) {
        self.route = Some(Arc::clone(route));
    }

    /// What came of it; the answer's head is still to be made of it.
    pub fn decided(&mut self, outcome: &Outcome) {
        let Err(rejection) = outcome else { return };
        let limit = match rejection {
            Rejection::Limited(limited) => Some(Arc::clone(&limited.limit)),
            Rejection::TooManySockets => Some("websocket-sockets".into()),
            _ => None,
        };
        let code = rejection.code();
        let (status, retry_after) = (code.status(), rejection.retry_after());
        self.answer = Some(Answer { status, retry_after, rejection: Some((code.as_str(), limit)) });
    }

    /// The head of its answer.
    pub fn answered(&mut self, response: &Response) {
        if self.answer.is_none() {
            let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| text(value)?.parse().ok());
            self.answer = Some(Answer { status: response.status(), retry_after, rejection: None });
        }
    }

    fn decision(&self, findings: &Findings) -> Decision {
        let has = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        match &self.answer {
            Some(Answer { rejection: Some((_, Some(_))), .. }) => Decision::Refused,
            _ if has(&findings.preflight) => Decision::Preflight,
            _ if has(&findings.whitelisted) => Decision::Whitelisted,
            _ if has(&findings.shadowed) => Decision::Shadowed,
            _ if has(&findings.passed) => Decision::Admitted,
            _ => Decision::None,
        }
    }
}

impl Follower for Entry {
    fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Some(findings) = &self.notes.findings else { return };
        let client = findings.client.get();
        let hashed =
            |hasher: &KeyHasher, client: &Client| client.add_identity(&mut hasher.start("client")).finish().to_string();
        let hashed = client.and_then(|client| Some(hashed(self.access.hasher.as_ref()?, client)));
        let decision = self.decision(findings);
        let no_answer = if std::thread::panicking() { StatusCode::INTERNAL_SERVER_ERROR.as_u16() } else { CLIENT_GONE };
        let costs = self.route.iter().flat_map(|route| &route.limits).map(|limit| limit.cost / MICRO);
        let (code, limit) = self.answer.as_ref().and_then(|answer| answer.rejection.clone()).unzip();
        let factor = findings.factor.load(Ordering::Relaxed);
        let trace_id = self.notes.trace_id().map(TraceId::digits);
        let record = Record {
            at: self.at,
            request_id: self.request_id.as_str(),
            client: client.map(|client| (hashed.as_deref().unwrap_or(client.identity.text.as_str()), client.identity.kind)),
            address: client.map_or(self.peer, |client| client.address),
            method: Some(self.method.as_str()),
            host: self.host.as_ref().and_then(text),
            path: Some(self.uri.path()),
            version: version(self.version),
            route: self.route.as_ref().map(|route| &*route.name),
            status: self.answer.as_ref().map_or(no_answer, |answer| answer.status.as_u16()),
            bytes: self.bytes,
            duration: self.received.elapsed(),
            upstream: findings.upstream.get().copied(),
            decision,
            limit: limit.as_ref().and_then(Option::as_deref),
            cost: costs.max().filter(|_| decision == Decision::Admitted),
            retry_after: self.answer.as_ref().and_then(|answer| answer.retry_after),
            factor: Some(factor).filter(|factor| *factor != 0 && *factor != Factor::ONE.millionths()),
            code,
            referer: self.referer.as_ref().and_then(text),
            user_agent: self.user_agent.as_ref().and_then(text),
            headers: &self.headers,
            trace_id: trace_id.as_deref(),
        };
        self.access.write(&record);
        if let (Some(tracer), Some(own)) = (&self.access.tracer, self.notes.trace.sampled()) {
            let upstream = self.route.as_ref().and_then(|route| route.upstream.authority());
            let moment = |moment: &OnceLock<Instant>| moment.get().copied();
            let (asked, told, sent) = (moment(&findings.asked), moment(&findings.told), moment(&findings.sent));
            let course = Course { received: self.received, asked, told, sent, secure: self.secure, upstream };
            tracer.export(spans::of(&record, own, &course));
        }
    }
}

// === impl Notes ===

impl Notes {
    /// Those of a request that is recorded as `entry`, or not at all.
    pub fn of(entry: Option<&Entry>, trace: Trace) -> Self {
        entry.map_or(Self { findings: None, trace }, |entry| entry.notes.clone())
    }

    /// The trace that the request is part of.
    pub fn trace_id(&self) -> Option<TraceId> {
        self.trace.id()
    }

    /// Tells the upstream in which trace it is called.
    pub fn tell(&self, headers: &mut HeaderMap) {
        self.trace.tell(headers);
    }

    /// Who asks.
    pub fn client(&self, client: &Client) {
        self.note(|findings| _ = findings.client.set(*client));
    }

    /// Its client is trusted.
    pub fn whitelisted(&self) {
        self.note(|findings| findings.whitelisted.store(true, Ordering::Relaxed));
    }

    /// A limit would have refused it.
    pub fn shadowed(&self) {
        self.note(|findings| findings.shadowed.store(true, Ordering::Relaxed));
    }

    /// It is a preflight.
    pub fn preflight(&self) {
        self.note(|findings| findings.preflight.store(true, Ordering::Relaxed));
    }

    /// Its limits are asked now.
    pub fn asks(&self) {
        self.time(|findings| &findings.asked);
    }

    /// They have said what they say.
    pub fn told(&self) {
        self.time(|findings| &findings.told);
    }

    /// Those of its limits that follow signals go by this factor; `None` where none does.
    pub fn factor(&self, factor: Option<Factor>) {
        self.note(|findings| findings.factor.store(factor.map_or(0, Factor::millionths), Ordering::Relaxed));
    }

    /// It goes upstream.
    pub fn passed(&self) {
        self.time(|findings| &findings.sent);
        self.note(|findings| findings.passed.store(true, Ordering::Relaxed));
    }

    /// The time, where it is recorded how long the upstream takes.
    pub fn begin(&self) -> Option<Instant> {
        self.findings.as_ref().map(|_| Instant::now())
    }

    /// Since then, the upstream took that long for the head of its answer, or failed after it.
    pub fn upstream(&self, sent: Option<Instant>) {
        if let Some(sent) = sent {
            self.note(|findings| _ = findings.upstream.set(sent.elapsed()));
        }
    }

    /// Notes the moment, which only spans tell.
    fn time(&self, moment: impl FnOnce(&Findings) -> &OnceLock<Instant>) {
        if self.trace.sampled().is_some() {
            self.note(|findings| _ = moment(findings).set(Instant::now()));
        }
    }

    fn note(&self, note: impl FnOnce(&Findings)) {
        if let Some(findings) = &self.findings {
            note(findings);
        }
    }
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

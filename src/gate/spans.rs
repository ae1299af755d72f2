//! The spans of one request, by the semantic conventions for HTTP: of all of it, of the word of its limits, and of the upstream.
//!
//! Promised: they hold what a line of the access log does, and so no query, no credential and no body; names are few, whatever
//! clients send. Not promised: `url.full`, which would hold the query, and a span for each of several tries: one holds them all.

use tokio::time::Instant;

use crate::{
    log::access::Record,
    trace::{Attributes, Kind, Own, Span, SpanId, Spans},
};

/// The longest path and agent that a span shows, in bytes.
const MAX_TEXT_BYTES: usize = 512;

/// What times are told by: a moment by the two clocks.
#[derive(Clone, Copy)]
struct Clock {
    begun: u64,
    received: Instant,
}

/// What a record does not say of the way of its request.
pub(super) struct Course<'a> {
    /// When its head was complete.
    pub(super) received: Instant,
    /// When its limits were asked.
    pub(super) asked: Option<Instant>,
    /// When they had said what they say.
    pub(super) told: Option<Instant>,
    /// When it was sent upstream.
    pub(super) sent: Option<Instant>,
    /// Whether it came over TLS.
    pub(super) secure: bool,
    /// Host and port of its upstream.
    pub(super) upstream: Option<&'a str>,
}

/// What is told of a request.
pub(super) fn of(record: &Record<'_>, own: Own, course: &Course<'_>) -> Spans {
    let clock = Clock { begun: record.at.saturating_mul(1000), received: course.received };
    let ended = course.received + record.duration;
    // Who was refused before its limits were asked waited for a place among those under way.
    let refused = (record.code.is_some() && course.sent.is_none()).then_some(ended);
    let decided = course.asked.zip(course.told.or(refused));
    let method = method(record);
    let mut attributes = request(record, method, course.secure);
    let waited = decided.map(|(asked, told)| told.saturating_duration_since(asked).as_secs_f64());
    attributes.add("cxgate.waited", waited);
    let server = Span {
        trace: own.trace,
        id: own.server,
        parent: own.parent,
        is_parent_remote: own.parent.is_some(),
        name: record.route.map_or_else(|| method.into(), |route| format!("{method} {route}").into()),
        kind: Kind::Server,
        begun: clock.begun,
        ended: clock.at(ended),
        attributes,
        is_failed: record.status >= 500,
    };
    let below = Span { trace: own.trace, parent: Some(own.server), ..Span::default() };
    let mut spans = vec![server];
    if let Some((asked, told)) = decided {
        let (begun, ended) = (clock.at(asked), clock.at(told));
        let (id, attributes) = (SpanId::random(), verdict(record));
        spans.push(Span { id, name: "decide".into(), begun, ended, attributes, ..below.clone() });
    }
    if let Some(sent) = course.sent {
        spans.push(Span {
            id: own.sent.span,
            name: method.into(),
            kind: Kind::Client,
            begun: clock.at(sent),
            // Who goes away ends it, too.
            ended: clock.at(record.upstream.map_or(ended, |took| sent + took)),
            attributes: sending(record, method, course.upstream),
            is_failed: record.code.is_some() || answer(record).is_some_and(|status| status >= 400),
            ..below
        });
    }
    spans
}

/// A method that the conventions know; any other is `_OTHER`, because clients make up as many as they like.
fn method(record: &Record<'_>) -> &'static str {
    const KNOWN: [&str; 8] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"];
    KNOWN.into_iter().find(|known| record.method == Some(known)).unwrap_or("_OTHER")
}

fn request(record: &Record<'_>, method: &'static str, secure: bool) -> Attributes {
    let (host, port) = record.host.map(|host| authority(cut(host))).unzip();
    // As in 1.0, 1.1 and 2.
    let version = record.version.strip_prefix("HTTP/").map(|version| if version == "2.0" { "2" } else { version });
    let mut attributes = verdict(record);
    attributes.add("http.request.method", Some(method));
    attributes.add("http.route", record.route);
    attributes.add("url.path", record.path.map(cut));
    attributes.add("url.scheme", Some(if secure { "https" } else { "http" }));
    attributes.add("server.address", host);
    attributes.add("server.port", port.flatten());
    attributes.add("client.address", Some(record.address.to_string()));
    attributes.add("network.protocol.version", version);
    attributes.add("user_agent.original", record.user_agent.map(cut));
    attributes.add("http.response.status_code", Some(u64::from(record.status)));
    attributes.add("http.response.body.size", Some(record.bytes));
    attributes.add("error.type", record.code.filter(|_| record.status >= 500));
    attributes.add("cxgate.request_id", Some(record.request_id));
    attributes.add("cxgate.client", record.client.map(|(client, _)| client));
    attributes.add("cxgate.client_kind", record.client.map(|(_, kind)| kind));
    attributes.add("cxgate.code", record.code);
    attributes.add("cxgate.retry_after", record.retry_after);
    attributes
}

/// The status of the upstream's answer. One of our own means that there was none.
fn answer(record: &Record<'_>) -> Option<u64> {
    record.upstream.filter(|_| record.code.is_none()).map(|_| record.status.into())
}

/// What is known of sending a request upstream.
fn sending(record: &Record<'_>, method: &'static str, upstream: Option<&str>) -> Attributes {
    let (host, port) = upstream.map(authority).unzip();
    let mut attributes = Attributes::default();
    attributes.add("http.request.method", Some(method));
    attributes.add("server.address", host);
    attributes.add("server.port", port.flatten());
    attributes.add("http.response.status_code", answer(record));
    attributes.add("error.type", record.code);
    attributes
}

/// Host and port; no port where it is the scheme's own.
fn authority(text: &str) -> (&str, Option<u64>) {
    let (host, port) = text.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).unwrap_or((text, ""));
    (host.trim_matches(['[', ']']), port.parse().ok())
}

/// What limits said.
fn verdict(record: &Record<'_>) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.add("cxgate.verdict", Some(record.decision.as_str()));
    attributes.add("cxgate.limit", record.limit);
    attributes.add("cxgate.cost", record.cost);
    attributes.add("cxgate.factor", record.factor.map(|factor| f64::from(factor) / 1e6));
    attributes
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]
}

// === impl Clock ===

impl Clock {
    /// A moment in nanoseconds of Unix time.
    fn at(self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.received).as_nanos();
        self.begun.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

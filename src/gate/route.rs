//! Which route takes a request, and what a route knows at run time.
//!
//! Promised: of all routes whose path, host and method fit, the most specific wins: more segments before fewer, a literal
//! segment before a captured one, a route that names a host before one that does not, then the order of the file. Paths
//! match on segment boundaries and in [canonical](super::path) form, so that no spelling escapes a limit.

use std::{cmp::Reverse, sync::Arc};

use hyper::{Method, Request, StatusCode, Uri, http::HeaderValue};
use prometheus_client::metrics::{counter::Counter, histogram::Histogram};
use tokio::time::Instant;

use super::{
    bad_request::BadRequest,
    cors::{self, CorsPolicy, Grant},
    guard::{Cooldown, Newcomers},
    in_flight,
    limit::RouteLimit,
    path,
    rewrite::Rewrite,
    waiting, websocket,
};
use crate::{config::Mode, upstream::Delivery};

/// A route as the gate runs it.
pub struct Route {
    /// Stands in metrics, logs and store keys.
    pub name: Arc<str>,
    /// Where its requests go.
    pub upstream: Delivery,
    /// Whether what is decided also holds.
    pub mode: Mode,
    /// Statuses whose charge is given back.
    pub refund_on: Vec<u16>,
    /// Whether answers tell how long they took.
    pub server_timing: bool,
    /// All must admit a request.
    pub limits: Vec<RouteLimit>,
    /// Heeds an upstream that asks to be left alone; `None` where the route does not.
    pub cooldown: Option<Cooldown>,
    /// Counts new identities; `None` where nobody does.
    pub newcomers: Option<Newcomers>,
    /// Which pages may read answers of our own; `None` for none.
    pub cors: Option<CorsPolicy>,
    /// What its sockets may do; `None` relays what a connection switches to.
    pub websocket: Option<Arc<websocket::Policy>>,
    /// How its requests wait for a limit; `None` refuses them.
    pub pacing: Option<waiting::Policy>,
    /// How many of its requests may be under way; `None` for any number.
    pub places: Option<in_flight::Places>,
    /// The `RateLimit-Policy` of its limits; `None` where it has none.
    pub policy: Option<HeaderValue>,
    /// What it counts.
    pub counters: RouteCounters,
}

/// What a route counts.
pub struct RouteCounters {
    /// Answers by class of status, 1xx to 5xx.
    pub requests: [Counter; 5],
    /// Time to the response head, in seconds.
    pub duration: Histogram,
    /// Requests that bypassed limits.
    pub whitelisted: Counter,
    /// Charges given back.
    pub refunds: Counter,
}

/// Every route with the paths it takes, the most specific first.
pub struct RouteTable {
    entries: Vec<Entry>,
    /// In the order of the file.
    routes: Vec<Arc<Route>>,
}

/// One path of a route, as a route table takes it.
pub struct Entry {
    /// Literal and captured segments.
    pub pattern: Pattern,
    /// The host it takes; `None` takes all.
    pub host: Option<String>,
    /// The methods it takes; empty takes all.
    pub methods: Vec<Method>,
    /// The path that goes upstream instead; then nothing below the pattern is taken.
    pub rewrite: Option<Rewrite>,
    /// What it leads to.
    pub route: Arc<Route>,
}

/// What a route table found for a request.
pub struct Found {
    /// The route that takes it.
    pub route: Arc<Route>,
    /// What its pattern captured.
    pub captures: Captures,
    /// The path and query that go upstream instead of those that were asked for.
    pub rewritten: Option<Uri>,
}

/// Why no route takes a request.
#[derive(Debug)]
pub enum Unrouted {
    /// None takes the path.
    NoRoute,
    /// Some take the path, but not with this method.
    MethodNotAllowed {
        /// The methods they take.
        allowed: Vec<Method>,
    },
    /// The path cannot be understood in one way only.
    BadRequest(BadRequest),
}

/// A path and everything below it.
#[derive(Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Segment>);

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Capture(Arc<str>),
}

/// Segments a pattern captured: name and canonical value.
pub type Captures = Vec<(Arc<str>, String)>;

// === impl Route ===

impl Route {
    /// Whether everyone passes, and who would not have is told of.
    pub fn is_shadow(&self) -> bool {
        self.mode == Mode::Shadow
    }
}

// === impl RouteTable ===

impl RouteTable {
    /// Orders `entries`, which come in the order of the file.
    pub fn new(mut entries: Vec<Entry>) -> Self {
        let mut routes: Vec<_> = entries.iter().map(|entry| Arc::clone(&entry.route)).collect();
        routes.dedup_by(|one, other| Arc::ptr_eq(one, other));
        entries.sort_by_key(|entry| {
            let literal: Vec<_> = entry.pattern.0.iter().map(|segment| matches!(segment, Segment::Literal(_))).collect();
            Reverse((entry.pattern.0.len(), literal, entry.host.is_some(), !entry.methods.is_empty()))
        });
        Self { entries, routes }
    }

    /// All routes, in the order of the file.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The route of a request to `host` (without port).
    pub fn find<B>(&self, request: &Request<B>, host: &str) -> Result<Found, Unrouted> {
        let canonical = path::canonical(request.uri().path()).map_err(|path::Ambiguous| BadRequest::PathAmbiguous)?;
        // A preflight asks on behalf of the request that is to follow.
        let method = cors::preflighted(request).unwrap_or_else(|| request.method().clone());
        let mut allowed = Vec::new();
        for (entry, captures) in self.taking(&canonical, host) {
            if entry.methods.is_empty() || entry.methods.contains(&method) {
                let rewritten = entry.rewrite.as_ref().map(|rewrite| rewrite.target(request.uri())).transpose()?;
                return Ok(Found { route: Arc::clone(&entry.route), captures, rewritten });
            }
            allowed.extend_from_slice(&entry.methods);
        }
        Err(if allowed.is_empty() { Unrouted::NoRoute } else { Unrouted::MethodNotAllowed { allowed } })
    }

    /// Whether the page that sent a request to `host` may read its answer by a route that takes its path, if not its method.
    pub fn grant<B>(&self, request: &Request<B>, host: &str) -> Option<Grant> {
        let canonical = path::canonical(request.uri().path()).ok()?;
        self.taking(&canonical, host).find_map(|(entry, _)| entry.route.cors.as_ref()?.grant(request.headers()))
    }

    /// What takes a canonical path of `host`, whatever the method.
    fn taking<'a>(&'a self, canonical: &'a str, host: &'a str) -> impl Iterator<Item = (&'a Entry, Captures)> {
        let fits = |entry: &Entry| entry.host.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(host));
        self.entries.iter().filter(move |entry| fits(entry)).filter_map(|entry| {
            let captures = entry.pattern.captures(canonical)?;
            (entry.rewrite.is_none() || entry.pattern.is_whole(canonical)).then_some((entry, captures))
        })
    }
}

impl From<BadRequest> for Unrouted {
    fn from(reason: BadRequest) -> Self {
        Self::BadRequest(reason)
    }
}

// === impl Pattern ===

impl Pattern {
    /// Reads a path of the configuration: `/literal/{capture}`.
    pub fn new(path: &str) -> Self {
        let segments = path.split('/').filter(|segment| !segment.is_empty());
        Self(segments.map(Segment::new).collect())
    }

    /// Whether a canonical path that it takes has nothing below it.
    fn is_whole(&self, canonical: &str) -> bool {
        canonical.split('/').filter(|segment| !segment.is_empty()).count() == self.0.len()
    }

    /// What it captures from a canonical path; `None` where the path does not lie at or below it.
    fn captures(&self, canonical: &str) -> Option<Captures> {
        let mut segments = canonical.split('/').skip(1).filter(|segment| !segment.is_empty());
        let mut captures = Vec::new();
        for wanted in &self.0 {
            let segment = segments.next()?;
            match wanted {
                Segment::Literal(literal) if literal == segment => {}
                Segment::Literal(_) => return None,
                Segment::Capture(name) => captures.push((Arc::clone(name), segment.to_owned())),
            }
        }
        Some(captures)
    }
}

impl Segment {
    fn new(segment: &str) -> Self {
        match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) => Self::Capture(name.into()),
            None => Self::Literal(segment.to_ascii_lowercase()),
        }
    }
}

// === impl RouteCounters ===

impl RouteCounters {
    /// Counts an answer to a request that came at `received`.
    pub fn answered(&self, status: StatusCode, received: Instant) {
        if let Some(counter) = usize::from(status.as_u16() / 100).checked_sub(1).and_then(|class| self.requests.get(class)) {
            counter.inc();
        }
        self.duration.observe(received.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(pattern: &str, path: &str) -> Option<String> {
        let captures = Pattern::new(pattern).captures(&path::canonical(path).unwrap())?;
        Some(captures.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_pattern_takes_its_path_and_everything_below_on_segment_boundaries() {
        let cases = [
            ("/api/webchat", "/api/webchat", Some("")),
            ("/api/webchat", "/API/WebChat/", Some("")),
            ("/api/webchat", "/api/webchat/x/messages", Some("")),
            ("/api/webchat", "/api/webchatty", None),
            ("/api/webchat", "/api", None),
            ("/", "/", Some("")),
            ("/", "/anything", Some("")),
            ("/invoke/{action}", "/invoke/A-17", Some("action=a-17")),
            ("/invoke/{action}", "/invoke/a/b", Some("action=a")),
            ("/invoke/{action}", "/invoke", None),
            ("/t/{tenant}/a/{action}", "/t/1/a/2/log", Some("tenant=1 action=2")),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(captured(pattern, path).as_deref(), expected, "{pattern} {path}");
        }
    }
}

//! What is shown: the proxy's own words, and what became of its counters between two samples.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::exposition::{Between, Matcher, Page};

/// How the proxy stood at one moment.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) status: Status,
    pub(super) routes: Vec<Route>,
    pub(super) busiest: Vec<Client>,
    pub(super) refused: Vec<Client>,
    pub(super) page: Page,
}

/// What `/api/v1/status` answers.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Status {
    version: String,
    config_revision: String,
    uptime_seconds: u64,
    #[serde(rename = "status")]
    readiness: String,
    store: Store,
    upstreams: BTreeMap<String, Upstream>,
}

/// Who decides, and since when.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct Store {
    #[serde(rename(deserialize = "store"))]
    pub(super) mode: String,
    pub(super) since_seconds: u64,
    pub(super) replicas: u64,
    pub(super) last_failure: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Upstream {
    url: String,
}

/// What `/api/v1/routes` answers.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Routes {
    pub(super) routes: Vec<Route>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Route {
    route: String,
    limits: Vec<Limit>,
}

#[derive(Debug, Clone, Deserialize)]
struct Limit {
    #[serde(rename = "limit")]
    name: String,
    per: Vec<String>,
    kind: String,
    capacity: f64,
    refill_per_second: f64,
    window_seconds: u64,
    amended: Option<Amended>,
}

/// That operators changed a limit for a while.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Amended {
    seconds_left: u64,
}

/// What `/api/v1/clients` answers.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Clients {
    pub(super) clients: Vec<Client>,
}

/// A client as the proxy has seen it lately.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct Client {
    pub(super) name: String,
    pub(super) route: String,
    pub(super) limit: String,
    pub(super) per_second: f64,
    pub(super) refused_per_second: f64,
}

/// Everything that is shown. Rates are a second's, of the time between two samples.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Facts {
    pub(super) version: String,
    pub(super) config_revision: String,
    pub(super) uptime_seconds: u64,
    /// `ready`, `draining` or `store_unavailable`.
    pub(super) status: String,
    pub(super) store: Store,
    /// By signal.
    pub(super) factors: BTreeMap<String, f64>,
    pub(super) requests_per_second: f64,
    /// By class of status.
    pub(super) answers_per_second: BTreeMap<String, f64>,
    /// By who refused: `local` or `upstream`.
    pub(super) refusals_per_second: BTreeMap<String, f64>,
    pub(super) latency_seconds: Latency,
    pub(super) upstream_latency_seconds: Latency,
    pub(super) open: Open,
    pub(super) limits: Vec<LimitFacts>,
    pub(super) routes: Vec<RouteFacts>,
    pub(super) upstreams: Vec<UpstreamFacts>,
    pub(super) busiest: Vec<Client>,
    pub(super) most_refused: Vec<Client>,
}

/// What shares of requests did not exceed; `None` where there were none.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Latency {
    pub(super) p50: Option<f64>,
    pub(super) p95: Option<f64>,
    pub(super) p99: Option<f64>,
}

/// What is there now; `None` for what the proxy does not tell.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Open {
    pub(super) requests: Option<f64>,
    pub(super) waiting: Option<f64>,
    pub(super) sockets: Option<f64>,
    pub(super) connections: Option<f64>,
}

/// A limit, and what it decided.
#[derive(Debug, Clone, Serialize)]
pub(super) struct LimitFacts {
    pub(super) route: String,
    pub(super) limit: String,
    pub(super) admitted_per_second: f64,
    pub(super) refused_per_second: f64,
    /// `None` where nothing was decided.
    pub(super) refused_share: Option<f64>,
    /// How much there is of it.
    pub(super) quota: String,
    /// For how much longer, where operators changed that for a while.
    pub(super) changed_for_seconds: Option<u64>,
    pub(super) per: Vec<String>,
}

/// A route, and what it answered.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RouteFacts {
    pub(super) route: String,
    pub(super) requests_per_second: f64,
    pub(super) client_errors_per_second: f64,
    pub(super) server_errors_per_second: f64,
    pub(super) p95_seconds: Option<f64>,
    pub(super) waiting: Option<f64>,
    pub(super) sockets: Option<f64>,
}

/// An upstream, and how it answers.
#[derive(Debug, Clone, Serialize)]
pub(super) struct UpstreamFacts {
    pub(super) upstream: String,
    pub(super) answered_per_second: f64,
    pub(super) failed_per_second: f64,
    pub(super) p95_seconds: Option<f64>,
    pub(super) connections: Option<f64>,
    pub(super) url: String,
}

const REQUESTS: &str = "cxgate_http_requests_total";
const DURATION: &str = "cxgate_http_request_duration_seconds";
const UPSTREAM_DURATION: &str = "cxgate_upstream_response_seconds";
const WAITING: &str = "cxgate_pacing_queue";
const SOCKETS: &str = "cxgate_websockets";

// === impl Facts ===

impl Facts {
    /// How things stand at `now`, and what happened since `before`.
    pub(super) fn between(before: &Sample, now: &Sample) -> Self {
        let seconds = now.at.saturating_duration_since(before.at).as_secs_f64().max(0.001);
        let (page, between) = (&now.page, Between { before: &before.page, now: &now.page, seconds });
        let Status { version, config_revision, uptime_seconds, readiness, store, upstreams } = now.status.clone();
        Self {
            version,
            config_revision,
            uptime_seconds,
            status: readiness,
            store,
            factors: page.by_label("cxgate_load_factor", "signal"),
            requests_per_second: between.rate(REQUESTS, &[]),
            answers_per_second: between.rates(REQUESTS, "status"),
            refusals_per_second: between.rates("cxgate_violations_total", "origin"),
            latency_seconds: Latency::of(between, DURATION),
            upstream_latency_seconds: Latency::of(between, UPSTREAM_DURATION),
            open: Open {
                requests: page.sum("cxgate_http_requests_in_flight", &[]),
                waiting: page.sum(WAITING, &[]),
                sockets: page.sum(SOCKETS, &[]),
                connections: page.sum("cxgate_connections", &[("listener", "proxy")]),
            },
            limits: now.routes.iter().flat_map(|route| LimitFacts::of(route, between)).collect(),
            routes: now.routes.iter().map(|route| RouteFacts::of(&route.route, between)).collect(),
            upstreams: upstreams.into_iter().map(|(name, upstream)| UpstreamFacts::of(name, upstream, between)).collect(),
            busiest: now.busiest.clone(),
            most_refused: now.refused.clone(),
        }
    }
}

// === impl Latency ===

impl Latency {
    fn of(between: Between<'_>, histogram: &str) -> Self {
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| between.quantile(histogram, &[], share));
        Self { p50, p95, p99 }
    }
}

// === impl LimitFacts ===

impl LimitFacts {
    fn of<'a>(route: &'a Route, between: Between<'a>) -> impl Iterator<Item = Self> + 'a {
        route.limits.iter().map(move |limit| {
            let [admitted, refused] = ["admitted", "refused"].map(|decision| {
                let matchers = [("route", route.route.as_str()), ("limit", limit.name.as_str()), ("decision", decision)];
                between.rate("cxgate_decisions_total", &matchers)
            });
            let all = admitted + refused;
            Self {
                route: route.route.clone(),
                limit: limit.name.clone(),
                admitted_per_second: admitted,
                refused_per_second: refused,
                refused_share: (all > 0.0).then(|| refused / all),
                quota: limit.quota(),
                changed_for_seconds: limit.amended.map(|amended| amended.seconds_left),
                per: limit.per.clone(),
            }
        })
    }
}

// === impl Limit ===

impl Limit {
    fn quota(&self) -> String {
        let Self { capacity, refill_per_second, window_seconds, .. } = self;
        match self.kind.as_str() {
            "token_bucket" => format!("{capacity} + {refill_per_second}/s"),
            _ => format!("{capacity} in {window_seconds} s"),
        }
    }
}

// === impl RouteFacts ===

impl RouteFacts {
    fn of(route: &str, between: Between<'_>) -> Self {
        let own: Matcher<'_> = ("route", route);
        Self {
            route: route.to_owned(),
            requests_per_second: between.rate(REQUESTS, &[own]),
            client_errors_per_second: between.rate(REQUESTS, &[own, ("status", "4xx")]),
            server_errors_per_second: between.rate(REQUESTS, &[own, ("status", "5xx")]),
            p95_seconds: between.quantile(DURATION, &[own], 0.95),
            waiting: between.now.sum(WAITING, &[own]),
            sockets: between.now.sum(SOCKETS, &[own]),
        }
    }
}

// === impl UpstreamFacts ===

impl UpstreamFacts {
    fn of(upstream: String, Upstream { url }: Upstream, between: Between<'_>) -> Self {
        let own: Matcher<'_> = ("upstream", &upstream);
        let all = between.rate("cxgate_upstream_requests_total", &[own]);
        let answered = between.rate("cxgate_upstream_requests_total", &[own, ("result", "answered")]);
        Self {
            answered_per_second: answered,
            failed_per_second: (all - answered).max(0.0),
            p95_seconds: between.quantile(UPSTREAM_DURATION, &[own], 0.95),
            connections: between.now.sum("cxgate_upstream_connections", &[own]),
            url,
            upstream,
        }
    }
}

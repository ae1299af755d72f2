//! Makes a [`Gate`] from configuration: names become references, and every counter is resolved once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use hyper::header::HeaderName;
use prometheus_client::metrics::counter::Counter;

use super::{
    Counters, Gate, Stages,
    access::Access,
    client::Identification,
    cors::CorsPolicy,
    flood::Floods,
    forward::Forward,
    guard::{Cooldown, Guard, Newcomers},
    limit::RouteLimit,
    preflight::Preflights,
    queues::Queues,
    quota,
    refusals::Refusals,
    rewrite::Rewrite,
    route::{Entry, Pattern, Route, RouteCounters, RouteTable},
    sockets::Sockets,
    tenant::Follows,
    throttle::Throttle,
    tunnel::Tunnels,
    violation::ViolationLog,
    websocket,
    whitelist::Whitelist,
};
use crate::{
    clients::Clients,
    code::Code,
    config::{self, Config, Dimension, Factor, IdentitySource, Mode},
    limiter::{
        Kind, Limit, Limiter,
        bucket::{Bucket, MICRO},
        key::KeyHasher,
        measured::Measured,
        scale::{ScaleName, real_wait},
    },
    metrics::{CodeLabels, DecisionLabels, Metrics, OriginLabels, RequestLabels, RouteLabels},
    shutdown::Shutdown,
    upstream::{Credentials, Delivery, Identity, Upstream},
};

mod policy;

use policy::{pacing_policy, socket_policy};

/// Measured signals by name.
type Signals = BTreeMap<String, Arc<Measured>>;

/// What a gate is joined to.
pub struct Neighbours {
    /// Decides.
    pub limiter: Arc<Limiter>,
    /// The upstreams, by name.
    pub upstreams: BTreeMap<String, Arc<Upstream>>,
    /// Where bearer tokens come from, by name.
    pub credentials: BTreeMap<String, Arc<Credentials>>,
    /// The measured signals, by name.
    pub measured: BTreeMap<String, Arc<Measured>>,
    /// Bounds the log.
    pub floods: Arc<Floods>,
    /// Sees who is busy.
    pub clients: Arc<Clients>,
    /// Knows who waits, and who is under way.
    pub queues: Arc<Queues>,
    /// Ends tunnels.
    pub shutdown: Shutdown,
    /// Writes a line a request.
    pub access: Option<Arc<Access>>,
}

/// What routes are joined to.
#[derive(Clone, Copy)]
struct Beside<'a> {
    hasher: &'a KeyHasher,
    measured: &'a Signals,
    clients: &'a Clients,
    queues: &'a Queues,
    metrics: &'a Metrics,
}

/// A gate for a checked configuration. A route whose upstream or credentials are not among the neighbours takes no requests;
/// the configuration's own check makes sure that there is none.
pub fn gate(config: &Config, neighbours: Neighbours, metrics: &Metrics) -> Gate {
    let Neighbours { limiter, upstreams, credentials, measured, floods, clients, queues, shutdown, access } = neighbours;
    let hasher = KeyHasher::new(config.identity.hash_key.as_ref(), &config.store.key_prefix);
    let deliveries =
        config.routes.iter().filter_map(|route| Some((route, delivery(route, &upstreams, &credentials, metrics)?)));
    let beside = Beside { hasher: &hasher, measured: &measured, clients: &clients, queues: &queues, metrics };
    let entries = deliveries.flat_map(|(route, delivery)| entries(config, route, delivery, beside)).collect();
    let violations = |origin| metrics.violations.get_or_create(&OriginLabels { origin }).clone();
    let violation_log = ViolationLog {
        floods: Arc::clone(&floods),
        local: violations("local"),
        upstream: violations("upstream"),
        shadow: violations("shadow"),
        upstream_name: "upstream".into(),
        sockets_name: "websocket-sockets".into(),
        in_flight_name: "max-in-flight".into(),
        messages_name: "websocket-messages".into(),
    };
    let sockets = websocket::Shared {
        limiter: Arc::clone(&limiter),
        hasher: hasher.clone(),
        violations: violation_log.clone(),
        shutdown: shutdown.clone(),
        grace: grace(config.listen.drain_timeout),
    };
    let violations = violation_log.clone();
    let stages = Stages {
        refusals: Refusals(violation_log),
        preflights: Preflights {
            limiter: Arc::clone(&limiter),
            hasher: hasher.clone(),
            limit: Arc::new(preflight_limit(&hasher, metrics)),
        },
        sockets: Sockets(Arc::new(sockets)),
        whitelist: Whitelist { entries: config.whitelist.clone().into(), floods, limiter: Arc::clone(&limiter) },
        throttle: Throttle {
            pacing: Arc::clone(&queues.pacing),
            limiter,
            hasher: hasher.clone(),
            show: config.admin.show_clients,
            violations,
        },
        forward: Forward {
            protected: protected_fields(config).into(),
            stripped_parameters: stripped_parameters(&config.identity).into(),
            tunnels: Tunnels { idle_timeout: config.listen.idle_timeout, shutdown },
        },
    };
    let counters = Counters {
        in_flight: metrics.http_requests_in_flight.clone(),
        rejections: Code::ALL
            .iter()
            .map(|code| metrics.rejections.get_or_create(&CodeLabels { code: code.as_str() }).clone())
            .collect(),
        without_route: route_counters("none", metrics),
    };
    let identification = Identification::new(&config.identity, &config.listen.trusted_proxies, hasher);
    Gate::new(identification, RouteTable::new(entries), stages, counters, access)
}

/// The set of signals that scales a limit; `None` where all of them stand still, because then its time is real time.
pub fn scale_name(config: &Config, limit: &config::Limit) -> Option<ScaleName> {
    ScaleName::of(polled_signals(config, limit))
}

/// The signals of a limit that have an endpoint.
pub fn polled_signals<'a>(config: &'a Config, limit: &'a config::Limit) -> impl Iterator<Item = &'a str> {
    let polled = |signal: &&String| config.load.get(*signal).is_some_and(|load| load.endpoint.is_some());
    limit.scale_by.iter().filter(polled).map(String::as_str)
}

/// How long what is taken of the limits that follow a measured signal counts at most; `None` where none follows it.
pub fn slowest_fill(config: &Config, signal: &String) -> Option<Duration> {
    let limits = config.routes.iter().flat_map(|route| &route.limits).map(|limit| &limit.limit);
    let following = limits.filter(|limit| limit.scale_by.contains(signal));
    following.map(|limit| longest_fill(limit.kind.into(), slowest(config, limit))).max()
}

/// How long what is taken of a limit counts at a factor: until a bucket is full again, or for a window's length.
fn longest_fill(kind: Kind, factor: Factor) -> Duration {
    Duration::from_micros(match kind {
        Kind::Bucket(bucket) => real_wait(bucket.wait(0, bucket.capacity), factor),
        Kind::Window(window) => window.length,
    })
}

/// The lowest factor that a limit's signals can have.
fn slowest(config: &Config, limit: &config::Limit) -> Factor {
    let polled = limit.scale_by.iter().filter_map(|signal| config.load.get(signal)).map(|load| load.min_refill_share);
    let measured = limit.scale_by.iter().filter_map(|signal| config.latency.get(signal)).map(|latency| latency.floor);
    polled.chain(measured).min().unwrap_or(Factor::ONE).min(Factor::ONE)
}

/// The measured signal of a limit, if it has one.
fn follows(limit: &config::Limit, measured: &Signals) -> Option<Follows> {
    let signal = limit.scale_by.iter().find_map(|signal| measured.get(signal))?;
    Some(Follows { signal: Arc::clone(signal), id: format!("tenants/{}", limit.per.first()?) })
}

fn delivery(
    route: &config::Route,
    upstreams: &BTreeMap<String, Arc<Upstream>>,
    credentials: &BTreeMap<String, Arc<Credentials>>,
    metrics: &Metrics,
) -> Option<Delivery> {
    let identity = match &route.credentials {
        Some(name) => {
            let credentials = Arc::clone(credentials.get(name)?);
            Some(Identity { credentials, caller_as: route.forward_authorization_as.clone() })
        }
        None => None,
    };
    Some(Delivery::new(route, Arc::clone(upstreams.get(&route.upstream)?), identity, metrics))
}

fn entries(config: &Config, route: &config::Route, upstream: Delivery, beside: Beside<'_>) -> Vec<Entry> {
    let metrics = beside.metrics;
    let limits = route.limits.iter().map(|limit| route_limit(config, route, limit, beside)).collect();
    let policy = quota::policy(route.limits.iter().map(|limit| (limit.limit.name.as_str(), limit.limit.kind.into())));
    let counters = route_counters(&route.name, metrics);
    let guard = |name: &str| Guard { name: name.into(), refused: decisions(&route.name, name, refusal(route), metrics) };
    let newcomers = config.identity.new_per_address;
    // What only shows what would come of it takes nothing from anyone.
    let newcomers_id = if route.mode == Mode::Shadow { "shadow/identity/new" } else { "identity/new" };
    let newcomers =
        newcomers.and_then(|bucket| Newcomers::new(newcomers_id, bucket, &route.limits, guard("new-identities")));
    let cooldown = (route.cooldown != config::Cooldown::Off).then(|| Cooldown {
        guard: guard("cooldown"),
        whole_route: route.cooldown == config::Cooldown::Route,
        id: format!("cooldown/{}", route.name),
        begun: metrics.cooldowns.get_or_create(&RouteLabels { route: route.name.clone() }).clone(),
    });
    let preflights = || metrics.preflights.get_or_create(&RouteLabels { route: route.name.clone() }).clone();
    let shared = Arc::new(Route {
        name: route.name.as_str().into(),
        upstream,
        mode: route.mode,
        refund_on: route.refund_on.clone(),
        server_timing: route.server_timing,
        limits,
        cooldown,
        newcomers,
        cors: route.cors.as_ref().map(|cors| CorsPolicy::new(cors, preflights())),
        websocket: route.websocket.as_ref().map(|websocket| Arc::new(socket_policy(websocket, route, metrics))),
        // In shadow nobody waits, and nobody is refused.
        pacing: route
            .when_limited
            .filter(|_| route.mode == Mode::Enforce)
            .map(|configured| pacing_policy(configured, &route.name, metrics)),
        places: route.max_in_flight.filter(|_| route.mode == Mode::Enforce).map(|most| {
            let labels = RouteLabels { route: route.name.clone() };
            beside.queues.places(&route.name, most, metrics.route_in_flight.get_or_create(&labels).clone())
        }),
        policy,
        counters,
    });
    let entry = |path: &String| Entry {
        pattern: Pattern::new(path),
        host: route.host.clone(),
        methods: route.methods.clone(),
        rewrite: route.rewrite.as_ref().map(|template| Rewrite::new(template, path)),
        route: Arc::clone(&shared),
    };
    route.paths.iter().map(entry).collect()
}

fn route_limit(
    config: &Config,
    route: &config::Route,
    configured: &config::RouteLimit,
    Beside { hasher, measured, clients, metrics, .. }: Beside<'_>,
) -> RouteLimit {
    let config::RouteLimit { shared, limit, cost } = configured;
    let name = limit.name.as_str();
    let id = match (shared, route.mode) {
        (false, _) => format!("routes/{}/{name}", route.name),
        (true, Mode::Enforce) => format!("limits/{name}"),
        // Apart from those of routes that enforce, whose requests must not pay for what is only tried.
        (true, Mode::Shadow) => format!("shadow/limits/{name}"),
    };
    RouteLimit {
        name: name.into(),
        key: hasher.start(&id),
        id,
        per: limit.per.clone(),
        limit: Limit { kind: limit.kind.into(), scale: scale_name(config, limit), slowest: slowest(config, limit) },
        cost: u64::from(*cost) * MICRO,
        follows: follows(limit, measured),
        default: limit.default.clone(),
        admitted: decisions(&route.name, name, "admitted", metrics),
        refused: decisions(&route.name, name, refusal(route), metrics),
        seen: clients.sketch(&route.name, name),
    }
}

/// What a refusal is counted as.
fn refusal(route: &config::Route) -> &'static str {
    match route.mode {
        Mode::Enforce => "refused",
        Mode::Shadow => "would_refuse",
    }
}

fn decisions(route: &str, limit: &str, decision: &'static str, metrics: &Metrics) -> Counter {
    let labels = DecisionLabels { route: route.to_owned(), limit: limit.to_owned(), decision };
    metrics.decisions.get_or_create(&labels).clone()
}

fn route_counters(route: &str, metrics: &Metrics) -> RouteCounters {
    let labels = RouteLabels { route: route.to_owned() };
    let requests = |status| metrics.http_requests.get_or_create(&RequestLabels { route: route.to_owned(), status }).clone();
    RouteCounters {
        requests: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(requests),
        duration: metrics.http_request_duration.get_or_create(&labels).clone(),
        whitelisted: metrics.whitelisted.get_or_create(&labels).clone(),
        refunds: metrics.refunds.get_or_create(&labels).clone(),
    }
}

/// Holds preflights that go upstream uncharged: enough for the pages of an office, too little for a flood.
fn preflight_limit(hasher: &KeyHasher, metrics: &Metrics) -> RouteLimit {
    let decisions = |decision| {
        let labels = DecisionLabels { route: "none".to_owned(), limit: "preflight".to_owned(), decision };
        metrics.decisions.get_or_create(&labels).clone()
    };
    RouteLimit {
        name: "preflight".into(),
        id: "preflight".to_owned(),
        key: hasher.start("preflight"),
        per: vec![Dimension::Address],
        limit: unscaled(Bucket { capacity: 100 * MICRO, rate: 10 * MICRO }),
        cost: MICRO,
        follows: None,
        default: None,
        admitted: decisions("admitted"),
        refused: decisions("refused"),
        seen: Arc::default(),
    }
}

/// A limit in real time.
fn unscaled(bucket: Bucket) -> Limit {
    Limit { kind: bucket.into(), scale: None, slowest: Factor::ONE }
}

/// From the drain's begin to the close of sockets: what is left of `drain_timeout` is for their farewell.
fn grace(drain_timeout: Duration) -> Duration {
    drain_timeout.saturating_sub(Duration::from_secs(1)).max(drain_timeout / 2)
}

/// The fields that identities and limits are read from.
fn protected_fields(config: &Config) -> Vec<HeaderName> {
    let identities = config.identity.sources.iter().filter_map(|source| match source {
        IdentitySource::Header(name) => Some(name.clone()),
        IdentitySource::Cookie(_) => Some(hyper::header::COOKIE),
        IdentitySource::Bearer => Some(hyper::header::AUTHORIZATION),
        IdentitySource::Query(_) | IdentitySource::Certificate | IdentitySource::Address => None,
    });
    let limits = config.routes.iter().flat_map(|route| &route.limits).flat_map(|limit| &limit.limit.per);
    let limits = limits.filter_map(|dimension| match dimension {
        Dimension::Header(name) => Some(name.clone()),
        Dimension::Bearer => Some(hyper::header::AUTHORIZATION),
        _ => None,
    });
    identities.chain(limits).collect()
}

fn stripped_parameters(identity: &config::Identity) -> Vec<String> {
    let parameters = identity.sources.iter().filter_map(|source| match source {
        IdentitySource::Query(name) if identity.strip_query => Some(name.clone()),
        _ => None,
    });
    parameters.collect()
}

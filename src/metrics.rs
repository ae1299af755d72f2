//! Every metric there is, in one struct: a field's doc comment is the help text that `/metrics` exports.
//!
//! Promised: labels only from configured or fixed sets (routes, limits, upstreams, signals, status classes), never from a
//! request. Whoever counts on the request path resolves its handle once, when it is built, because a look-up in a family
//! costs more than the rest of a decision.

use std::sync::{Mutex, PoisonError, atomic::AtomicU64};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

mod process;

/// A gauge that holds fractions.
pub type FloatGauge = Gauge<f64, AtomicU64>;

/// The upper bound of the shortest times that are told apart, in seconds: below lies noise.
pub const SHORTEST: f64 = 0.0001;

/// Bounds, each twice the one before. The last is 26 s: above lies a time-out.
pub const BOUNDS: u16 = 19;

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(SHORTEST, 2.0, BOUNDS))
}

/// Seconds from 10 ms to 44 min: a wait may last an hour.
fn waits() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 2.0, 19))
}

/// Declares [`Metrics`] and registers each field under its name with its doc comment as help.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ty = $name:literal $(in $unit:expr)? $(, made by $make:expr)?;)+) => {
        /// Every metric; see the module for how to count on the request path.
        pub struct Metrics {
            $($(#[doc = $help])+ pub $field: $kind,)+
            registry: Mutex<Registry>,
        }

        impl Default for Metrics {
            fn default() -> Self {
                let mut registry = Registry::with_prefix("cxgate");
                registry.register("build", "The running version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
                $(
                    let $field = metrics!(@make $kind $(, $make)?);
                    metrics!(@register registry, $field, $name, concat!($($help),+).trim().trim_end_matches('.') $(, $unit)?);
                )+
                Self { $($field,)+ registry: Mutex::new(registry) }
            }
        }
    };
    (@make $kind:ty) => {
        <$kind>::default()
    };
    (@make $kind:ty, $make:expr) => {
        $make
    };
    (@register $registry:ident, $field:ident, $name:literal, $help:expr) => {
        $registry.register($name, $help, $field.clone());
    };
    (@register $registry:ident, $field:ident, $name:literal, $help:expr, $unit:expr) => {
        $registry.register_with_unit($name, $help, $unit, $field.clone());
    };
}

metrics! {
    /// Requests answered, by route and class of status.
    http_requests: Family<RequestLabels, Counter> = "http_requests";
    /// Time from a whole request head to the response head.
    http_request_duration: Family<RouteLabels, Histogram> = "http_request_duration" in Unit::Seconds,
        made by Family::new_with_constructor(seconds as fn() -> Histogram);
    /// Requests whose response is not yet complete.
    http_requests_in_flight: Gauge = "http_requests_in_flight";
    /// Answers that cxgate gave itself, by error code.
    rejections: Family<CodeLabels, Counter> = "rejections";
    /// Requests with a panic behind them; each is a defect to report.
    panics: Counter = "panics";
    /// Open connections, by listener.
    connections: Family<ListenerLabels, Gauge> = "connections";
    /// Failed accepts, by listener.
    accept_failures: Family<ListenerLabels, Counter> = "accept_failures";
    /// TLS handshakes that failed or took too long.
    tls_handshake_failures: Counter = "tls_handshake_failures";
    /// Changed TLS files, by whether they could be used.
    tls_reloads: Family<ReloadLabels, Counter> = "tls_reloads";
    /// Decisions, by route, limit and outcome.
    decisions: Family<DecisionLabels, Counter> = "decisions";
    /// Refusals, by who refused: cxgate itself or the upstream.
    violations: Family<OriginLabels, Counter> = "violations";
    /// Requests that bypassed limits, by route.
    whitelisted: Family<RouteLabels, Counter> = "whitelisted";
    /// Charges given back because the upstream refused, by route.
    refunds: Family<RouteLabels, Counter> = "refunds";
    /// Pauses begun because the upstream asked for them, by route.
    cooldowns: Family<RouteLabels, Counter> = "cooldowns";
    /// Preflights that were answered here, by route.
    preflights: Family<RouteLabels, Counter> = "preflights";
    /// Open WebSockets of routes that have a gate for them, by route.
    websockets: Family<RouteLabels, Gauge> = "websockets";
    /// WebSocket messages of clients, by route and outcome.
    websocket_messages: Family<MessageLabels, Counter> = "websocket_messages";
    /// WebSockets that cxgate closed itself, by route and close code.
    websocket_closes: Family<CloseLabels, Counter> = "websocket_closes";
    /// Time of one store operation.
    store_duration: Histogram = "store_duration" in Unit::Seconds, made by seconds();
    /// Whether the configured store decides (1) or its failure policy does (0).
    store_up: Gauge = "store_up";
    /// Store operations without an answer, by cause.
    store_failures: Family<CauseLabels, Counter> = "store_failures";
    /// Connections made to the store.
    store_connects: Counter = "store_connects";
    /// Changes between the configured store and its failure policy.
    store_changes: Counter = "store_changes";
    /// Replicas that share the store, this one included; the last count while the store is away.
    store_replicas: Gauge = "store_replicas";
    /// Decisions by the store's failure policy.
    fallback_decisions: Counter = "fallback_decisions";
    /// Refusals from memory, without asking the store.
    denied_fast: Counter = "denied_fast";
    /// Buckets that were charged in the store's place, which the store has yet to learn.
    debts: Gauge = "debts";
    /// Buckets held in this process.
    buckets: Gauge = "buckets";
    /// The factor by which a signal scales refill rates; of a measured signal, that of the slowest tenant.
    load_factor: Family<SignalLabels, FloatGauge> = "load_factor";
    /// Whether this replica polls a signal itself (1) or learns of it from another (0).
    load_leader: Family<SignalLabels, Gauge> = "load_leader";
    /// Samples of a load signal, by result.
    load_samples: Family<SampleLabels, Counter> = "load_samples";
    /// Tenants whose latency a measured signal knows.
    latency_tenants: Family<SignalLabels, Gauge> = "latency_tenants";
    /// Attempts that a measured signal learned of, by how they ended.
    latency_samples: Family<LatencyLabels, Counter> = "latency_samples";
    /// Requests sent to an upstream, by how they ended.
    upstream_requests: Family<UpstreamResultLabels, Counter> = "upstream_requests";
    /// Time from sending a request upstream to its response head.
    upstream_response: Family<UpstreamLabels, Histogram> = "upstream_response" in Unit::Seconds,
        made by Family::new_with_constructor(seconds as fn() -> Histogram);
    /// Open connections to an upstream.
    upstream_connections: Family<UpstreamLabels, Gauge> = "upstream_connections";
    /// Requests sent again because a kept connection had died.
    upstream_resends: Family<UpstreamLabels, Counter> = "upstream_resends";
    /// Requests that an answer or its absence invited to send again, by route and what came of it.
    retries: Family<RetryLabels, Counter> = "retries";
    /// Tokens asked for, by credentials and result.
    oauth_fetches: Family<FetchLabels, Counter> = "oauth_fetches";
    /// Unix time at which the token in use ends; 0 while there is none.
    oauth_token_end: Family<CredentialsLabels, FloatGauge> = "oauth_token_end" in Unit::Seconds;
    /// Changes that operators asked for, by what and by what came of it.
    admin_writes: Family<WriteLabels, Counter> = "admin_writes";
    /// Changes by operators that hold for a while, by kind.
    amendments: Family<AmendmentLabels, Gauge> = "amendments";
    /// Whether the last reload of the configuration could be used (1); the start counts as one.
    config_last_reload_successful: Gauge = "config_last_reload_successful";
    /// Unix time at which the configuration in effect was read.
    config_last_reload_success: FloatGauge = "config_last_reload_success_timestamp" in Unit::Seconds;
    /// Reloads of the configuration, by whether it could be used.
    config_reloads: Family<ReloadLabels, Counter> = "config_reloads";
    /// Requests that wait for a limit of their route.
    pacing_queue: Family<RouteLabels, Gauge> = "pacing_queue";
    /// Time that requests waited for a limit before they went on.
    pacing_wait: Family<RouteLabels, Histogram> = "pacing_wait" in Unit::Seconds,
        made by Family::new_with_constructor(waits as fn() -> Histogram);
    /// Requests that had to wait for a limit, by what came of it.
    paced: Family<PacedLabels, Counter> = "paced";
    /// Requests under way on a route that bounds their number.
    route_in_flight: Family<RouteLabels, Gauge> = "route_in_flight";
    /// Log lines lost because they could not be written fast enough.
    log_dropped: Counter = "log_dropped";
    /// Spans of traces that a collector took.
    spans_exported: Counter = "spans_exported";
    /// Spans of traces that are lost: they found no room, or no collector took them.
    spans_dropped: Counter = "spans_dropped";
}

/// Labels of a request.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    /// The route's name, or `none`.
    pub route: String,
    /// `1xx` to `5xx`.
    pub status: &'static str,
}

/// Labels of what belongs to a route.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RouteLabels {
    /// The route's name.
    pub route: String,
}

/// Labels of an answer of our own.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CodeLabels {
    /// The error code in the answer's body.
    pub code: &'static str,
}

/// Labels of a listener.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ListenerLabels {
    /// `proxy` or `admin`.
    pub listener: &'static str,
}

/// Labels of a reload.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReloadLabels {
    /// `good` or `bad`.
    pub result: &'static str,
}

/// Labels of a decision.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct DecisionLabels {
    /// The route's name.
    pub route: String,
    /// The limit's name.
    pub limit: String,
    /// `admitted`, `refused`, or `would_refuse`, where the route's mode is `shadow`.
    pub decision: &'static str,
}

/// Labels of a WebSocket message.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct MessageLabels {
    /// The route's name.
    pub route: String,
    /// `admitted`, `paced` (admitted after a pause) or `refused`; where the route's mode is `shadow`, `would_pace` or
    /// `would_refuse`.
    pub decision: &'static str,
}

/// Labels of the end of a WebSocket.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CloseLabels {
    /// The route's name.
    pub route: String,
    /// `1001`, `1002`, `1008` or `1013`.
    pub code: u16,
}

/// Labels of a refusal.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OriginLabels {
    /// `local` or `upstream`; `shadow` where nobody was refused.
    pub origin: &'static str,
}

/// Labels of a store failure.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CauseLabels {
    /// `deadline`, `unreachable`, `refused` or `full`.
    pub cause: &'static str,
}

/// Labels of a load signal.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct SignalLabels {
    /// The signal's name.
    pub signal: String,
}

/// Labels of a load sample.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct SampleLabels {
    /// The signal's name.
    pub signal: String,
    /// `good`, `unreachable`, `timeout`, `status`, `too_large` or `invalid`.
    pub result: &'static str,
}

/// Labels of an attempt that a measured signal learned of.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LatencyLabels {
    /// The signal's name.
    pub signal: String,
    /// `good`, `failed`, `timeout` or `abandoned`; `ignored` where it failed or was abandoned too soon to count.
    pub result: &'static str,
}

/// Labels of an upstream.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct UpstreamLabels {
    /// The upstream's name.
    pub upstream: String,
}

/// Labels of a request to an upstream.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct UpstreamResultLabels {
    /// The upstream's name.
    pub upstream: String,
    /// `answered`, or why it was not: `connect`, `connect_timeout`, `response_timeout`, `busy`, `protocol`, `request`.
    pub result: &'static str,
}

/// Labels of a request that might be sent again.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RetryLabels {
    /// The route's name.
    pub route: String,
    /// `sent`, or `withheld` because the retry budget was spent or the request could not be repeated.
    pub result: &'static str,
}

/// Labels of credentials.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CredentialsLabels {
    /// The name of their table.
    pub credentials: String,
}

/// Labels of a fetch of a token.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct FetchLabels {
    /// The name of the credentials' table.
    pub credentials: String,
    /// `good`, `unreachable`, `timeout`, `refused`, `status`, `too_large` or `invalid`.
    pub result: &'static str,
}

/// Labels of a change that an operator asked for.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct WriteLabels {
    /// `reset`, `amend`, `restore`, `trust`, `distrust`, `suspend`, `resume`, `drain` or `reload`.
    pub action: &'static str,
    /// `done`, or the code of the refusal.
    pub result: &'static str,
}

/// Labels of changes that hold for a while.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct AmendmentLabels {
    /// `trust`, `suspension` or `limit`.
    pub kind: &'static str,
}

/// Labels of a request that had to wait.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PacedLabels {
    /// The route's name.
    pub route: String,
    /// `served`, `left` (its caller went away) or `refused` (no room, or its turn too far away).
    pub outcome: &'static str,
}

// === impl Metrics ===

impl Metrics {
    /// Everything, in the OpenMetrics text format.
    pub fn export(&self) -> String {
        let mut process = Registry::default();
        process.register_collector(Box::new(process::ProcessCollector));
        let mut exported = self.counted();
        // Writing to a string cannot fail; an empty page would be the honest answer if it did.
        if text::encode_registry(&mut exported, &process).and_then(|()| text::encode_eof(&mut exported)).is_err() {
            exported.clear();
        }
        exported
    }

    /// The same without its end and what the kernel says of the process: asking the kernel takes long where many sockets are open.
    pub fn counted(&self) -> String {
        let mut counted = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if text::encode_registry(&mut counted, &registry).is_err() {
            counted.clear();
        }
        counted
    }
}

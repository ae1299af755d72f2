//! The configuration as it is meant: plain data, every value checked, nothing left to default.
//!
//! Promised: a [`Config`] that exists is one the daemon can run. Preconditions are types (a [`Rate`] is positive, a
//! [`Curve`] is sorted), references between tables are resolved or refused, and secrets cannot be printed.
//! Not promised: that the world agrees (a port may be taken, an upstream may be away).
//!
//! [`load()`] reads: `source` and `environment` gather what was typed into one tree, `raw` turns the tree into these types,
//! `check` looks at what spans several keys, and each of them reports what is wrong and goes on, so that every mistake is
//! named at once. `config/cxgate.toml` documents every key and is held equal to [`Config::default`].

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use hyper::{Method, header::HeaderName};
use ipnet::IpNet;
use serde::Serialize;

mod admin;
mod check;
mod delivery;
mod dimension;
mod egress;
mod environment;
mod limit;
mod load;
mod log;
mod mode;
mod opentelemetry;
mod print;
mod raw;
mod redis;
mod report;
mod secret;
mod signal;
mod source;
mod telemetry;
#[cfg(test)]
mod tests;
mod tls;
mod url;
mod value;

pub use admin::{Admin, ShowClients};
pub use delivery::{AccessKey, ClientAuthentication, Grant, OAuth, OAuthClient, Retry};
pub use dimension::{Dimension, IdentitySource};
pub use egress::{MaxInFlight, Priority, Published, WhenLimited};
pub use limit::{LimitKind, SlidingWindow, TokenBucket};
pub use load::{ConfigError, Loaded, Sources, load};
pub use log::{AccessClients, AccessFormat, AccessLog, AccessTarget, Log, LogFields, LogFormat, LogLevel};
pub use mode::Mode;
pub use redis::{Address, Redis, Servers};
pub use report::Mistake;
pub use secret::Secret;
pub use signal::{Latency, Load};
pub use telemetry::Telemetry;
pub use tls::{ClientCertificate, ClientCertificates, Http2, ListenTls};
pub use url::{Endpoint, Origin};
pub use value::{Curve, Factor, Rate};

/// The most limits one route may have. It bounds the arguments, the reply and the work of one store operation.
pub const MAX_LIMITS_PER_ROUTE: usize = 8;

/// Everything the daemon is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    /// The side that faces clients.
    pub listen: Listen,
    /// The side that faces operators.
    pub admin: Admin,
    /// What is written to standard error.
    pub log: Log,
    /// Where spans of traces go.
    pub telemetry: Telemetry,
    /// Where buckets live.
    pub store: Store,
    /// Who a client is.
    pub identity: Identity,
    /// Clients that bypass limits.
    pub whitelist: Vec<Trusted>,
    /// Where requests go, by name.
    pub upstreams: BTreeMap<String, Upstream>,
    /// Polled load signals, by name.
    #[serde(skip)]
    pub load: BTreeMap<String, Load>,
    /// Measured load signals, by a name that no polled one has.
    #[serde(skip)]
    pub latency: BTreeMap<String, Latency>,
    /// Where bearer tokens come from, by name.
    pub oauth: BTreeMap<String, OAuth>,
    /// Limits that several routes share, by name.
    pub limits: BTreeMap<String, Limit>,
    /// What is let through, and how.
    pub routes: Vec<Route>,
}

/// `[listen]`: the address clients reach, and the caps on what one of them may cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listen {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// Peers whose `X-Forwarded-For`, `Forwarded` and PROXY protocol are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether connections from `trusted_proxies` begin with a PROXY protocol header; then each of them must.
    pub proxy_protocol: bool,
    /// Open client connections; beyond it, accepting pauses.
    pub max_connections: usize,
    /// Longest wait for a whole request head, from its first byte (or from the accept) to its last.
    #[serde(serialize_with = "value::duration")]
    pub header_timeout: Duration,
    /// Longest wait without progress on a body, in either direction.
    #[serde(serialize_with = "value::duration")]
    pub body_idle_timeout: Duration,
    /// Longest wait of a kept-alive connection for its next request.
    #[serde(serialize_with = "value::duration")]
    pub idle_timeout: Duration,
    /// Largest request head, in bytes (8192 to 1048576).
    pub max_header_bytes: usize,
    /// Largest request body, in bytes.
    pub max_body_bytes: u64,
    /// Longest wait for requests in flight when stopping.
    #[serde(serialize_with = "value::duration")]
    pub drain_timeout: Duration,
    /// How long, when stopping, clients are still served while they are told to go elsewhere; then the drain begins.
    #[serde(serialize_with = "value::duration")]
    pub drain_delay: Duration,
    /// Requests in service at once; beyond it, they are answered 503.
    pub max_requests_in_flight: usize,
    /// Whether other processes may listen on the same addresses (SO_REUSEPORT), so that one can take over from another.
    pub reuse_port: bool,
    /// Whether HTTP/2 is also taken without TLS, from clients that begin with it (RFC 9113, section 3.3).
    pub h2c: bool,
    /// What the listener proves itself by; `None` speaks plain HTTP.
    #[serde(serialize_with = "value::optional")]
    pub tls: Option<ListenTls>,
}

/// `[store]`: where buckets live and what happens when that place is in trouble.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Store {
    /// Where Redis is; `None` keeps buckets in this process.
    #[serde(serialize_with = "value::optional")]
    pub redis: Option<Redis>,
    /// With it, one logs in to the Sentinels; `None` does not.
    #[serde(serialize_with = "value::optional")]
    pub sentinel_password: Option<Secret>,
    /// PEM file of the certificate authorities to believe instead of the system's.
    #[serde(serialize_with = "value::optional")]
    pub ca: Option<PathBuf>,
    /// Longest wait of a request for the store (1 ms to 10 s).
    #[serde(serialize_with = "value::duration")]
    pub deadline: Duration,
    /// Who decides while Redis cannot.
    pub on_failure: OnFailure,
    /// First part of every key, at most 32 of `A-Z a-z 0-9 - _ .`; two deployments on one Redis need two.
    pub key_prefix: String,
    /// Most buckets held in this process (embedded store and local fall-back).
    pub max_buckets: usize,
}

/// Who decides while Redis cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Buckets in this process.
    Local,
    /// Nobody: 503 with Retry-After.
    Deny,
    /// Nobody: every request passes.
    Allow,
}

/// `[identity]`: what tells one client from another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Identity {
    /// The first that is present wins; ends with `address`, which always is.
    pub sources: Vec<IdentitySource>,
    /// Leading bits of an IPv6 address that count as one client (32 to 128).
    pub ipv6_prefix: u8,
    /// Takes identity parameters out of the query before it is forwarded.
    pub strip_query: bool,
    /// How many new identities one address may bring; `None` does not count them.
    #[serde(serialize_with = "value::optional")]
    pub new_per_address: Option<TokenBucket>,
    /// Keys the hash under which clients stand in the store; replicas that share a store need the same.
    #[serde(serialize_with = "value::optional")]
    pub hash_key: Option<Secret>,
}

/// `[[whitelist]]`: a client that bypasses limits when its claim is believed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trusted {
    /// The identity it claims, in lower case.
    pub client: String,
    /// Addresses from which the claim is believed; empty asks for none.
    pub networks: Vec<IpNet>,
    /// Subject of the certificate that supports the claim; `None` asks for none.
    #[serde(serialize_with = "value::optional")]
    pub certificate: Option<String>,
    /// Sent as `X-Client-Secret`; `None` asks for none. With nothing asked for, anyone can make the claim.
    #[serde(serialize_with = "value::optional")]
    pub secret: Option<Secret>,
}

/// `[upstreams.NAME]`: a server that requests are forwarded to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Upstream {
    /// Scheme, host and port.
    pub url: Origin,
    /// Longest wait for name, connection and TLS handshake together.
    #[serde(serialize_with = "value::duration")]
    pub connect_timeout: Duration,
    /// Longest wait for the response head, once the request was sent.
    #[serde(serialize_with = "value::duration")]
    pub response_timeout: Duration,
    /// Longest wait of an unused connection for its next request; keep it below the upstream's own.
    #[serde(serialize_with = "value::duration")]
    pub idle_timeout: Duration,
    /// Most connections at once, and where they carry several requests, most requests at once; a request waits up to
    /// `connect_timeout` for its turn.
    pub max_connections: usize,
    /// Whether it is spoken to by HTTP/2.
    pub http2: Http2,
    /// PEM file of the certificate authorities to believe instead of the system's.
    #[serde(serialize_with = "value::optional")]
    pub ca: Option<PathBuf>,
    /// What cxgate proves itself by to this upstream; `None` shows nothing.
    #[serde(serialize_with = "value::optional")]
    pub client_certificate: Option<ClientCertificate>,
}

/// `[[routes]]`: paths, where they go, and what limits them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Route {
    /// Unique; stands in metrics, logs and store keys.
    pub name: String,
    /// Each is a path and everything below it; `{name}` captures a segment.
    pub paths: Vec<String>,
    /// A key of [`Config::upstreams`].
    pub upstream: String,
    /// Methods it takes; empty takes all.
    #[serde(serialize_with = "value::methods")]
    pub methods: Vec<Method>,
    /// The host it takes, in lower case and without port; `None` takes all.
    #[serde(serialize_with = "value::optional")]
    pub host: Option<String>,
    /// Who pauses when the upstream answers 429.
    pub cooldown: Cooldown,
    /// Whether what is decided also holds.
    pub mode: Mode,
    /// Which pages of other origins may read its answers; `None` leaves that to the upstream.
    #[serde(serialize_with = "value::optional")]
    pub cors: Option<Cors>,
    /// What a WebSocket may carry; `None` relays whatever a connection switches to.
    #[serde(serialize_with = "value::optional")]
    pub websocket: Option<WebSocket>,
    /// The path that goes upstream, built of what its paths capture; `None` sends the path as it came. A route that
    /// rewrites takes its paths alone, and nothing below them.
    #[serde(serialize_with = "value::optional")]
    pub rewrite: Option<String>,
    /// A key of [`Config::oauth`]; the caller's own `Authorization` is then not forwarded.
    #[serde(serialize_with = "value::optional")]
    pub credentials: Option<String>,
    /// The field that carries the caller's own `Authorization` upstream instead; starts with `x-`.
    #[serde(serialize_with = "value::header_name")]
    pub forward_authorization_as: Option<HeaderName>,
    /// Statuses whose charge is given back.
    pub refund_on: Vec<u16>,
    /// Whether answers tell how long the decision and the upstream took.
    pub server_timing: bool,
    /// Which requests are sent again; `None` sends each once.
    #[serde(serialize_with = "value::optional")]
    pub retry: Option<Retry>,
    /// How requests over a limit wait; `None` refuses them.
    #[serde(serialize_with = "value::optional")]
    pub when_limited: Option<WhenLimited>,
    /// How many requests may be under way at once; `None` for any number.
    #[serde(serialize_with = "value::optional")]
    pub max_in_flight: Option<MaxInFlight>,
    /// All must admit a request; at most [`MAX_LIMITS_PER_ROUTE`].
    pub limits: Vec<RouteLimit>,
}

/// Who pauses, on all replicas, until the `Retry-After` of an upstream's 429 is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cooldown {
    /// Nobody.
    Off,
    /// The client that got it, on this route.
    Client,
    /// The whole route.
    Route,
}

/// `[routes.cors]`: which pages of other origins may read our answers (Fetch standard, CORS protocol).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cors {
    /// Each as a browser writes it in `Origin`, or `*` alone for all; not empty.
    pub origins: Vec<String>,
    /// Whether requests may carry cookies and credentials; not together with `*`.
    pub credentials: bool,
    /// How long a browser may remember the answer to a preflight.
    #[serde(serialize_with = "value::duration")]
    pub max_age: Duration,
}

/// `[routes.websocket]`: what a client may do over its sockets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WebSocket {
    /// Sockets one client may have open at once, over all replicas (1 to 100000).
    pub sockets: u32,
    /// What the messages of one client are charged to, over all its sockets and replicas.
    pub messages: TokenBucket,
    /// Tokens of a text message by its `action` or `eventType` (1 to the capacity); others cost 1.
    pub costs: BTreeMap<String, u32>,
    /// Longest time one message is held back before the socket is closed with 1008.
    #[serde(serialize_with = "value::duration")]
    pub max_pause: Duration,
    /// Longest time in which nothing moves, heartbeats included.
    #[serde(serialize_with = "value::duration")]
    pub idle_timeout: Duration,
    /// Whether each message is decided by itself; otherwise a busy socket reserves a few tokens ahead.
    pub exact: bool,
}

/// `[[routes.limits]]`: a limit as one route applies it.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteLimit {
    /// Whether it was declared in `[limits.NAME]` and named by `use`: then its buckets are shared between routes.
    pub shared: bool,
    /// What it is.
    pub limit: Limit,
    /// Tokens one request takes (1 to the capacity).
    pub cost: u32,
}

/// What is counted, for whom, and how much of it there is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limit {
    /// Unique in its route; stands in metrics, logs and headers.
    #[serde(skip)]
    pub name: String,
    /// One bucket, or window, for each distinct combination of these; not empty.
    pub per: Vec<Dimension>,
    /// How much there is; typed as `token_bucket` or `sliding_window`.
    #[serde(flatten)]
    pub kind: LimitKind,
    /// The quota that the limit is to keep within; `None` compares it with none.
    #[serde(serialize_with = "value::optional")]
    pub published: Option<Published>,
    /// Keys of [`Config::load`] and at most one of [`Config::latency`]; the lowest of their factors scales the refill rate,
    /// or the quota.
    pub scale_by: Vec<String>,
    /// What stands in for a value that a request lacks; `None` answers 400.
    #[serde(serialize_with = "value::optional")]
    pub default: Option<String>,
}

//! cxgate: a reverse proxy in front of NICE CXone that decides, for every request, whether it may pass now or when to come
//! back.
//!
//! # The life of a request
//!
//! [`serve`] accepts the connection and holds it to its caps. [`gate`] admits the request (who is asking, which route), then
//! passes it through its stages in the order [`gate::Gate`] lists them: violation log, preflights, whitelist, sockets,
//! throttle, forward. The throttle asks [`limiter`] once for all limits of the route; forward hands what was admitted to
//! [`upstream`], which adds the credentials of the route and tries again where it may. [`load`] watches the backend and
//! tells the limiter how fast buckets refill. What became of a request is recorded once, for the access log and for the
//! spans that `otlp` exports. [`app`] builds all of these from [`config`], joins them, and takes them down again.
//!
//! # Invariants
//!
//! - Imports point one way: `main → cli → app → {serve, gate, load, otlp, admin} → {limiter, upstream} → {config, metrics,
//!   shutdown, body, code, peer, log, stream, tls, trace, wire, clients, alarm, workers}`. Modules on one level never name each other; `app`
//!   introduces them. Within a folder, too, no way along imports leads back. `tests/tidy` holds this.
//! - Every byte of HTTP/1 is read strictly ([`wire`]), and once, in both directions.
//! - A request is charged against all limits of its route in one store operation, or against none; across the slots of a Redis
//!   Cluster, as far as [`limiter::redis`] promises.
//! - The data plane never waits for the control plane: it reads values the control plane has published.
//! - No lock is held across an await. Every queue, map, buffer and wait has a bound.
//! - Time reaches arithmetic as an argument. Only stores and timers read clocks.

pub mod admin;
mod alarm;
pub mod app;
pub mod body;
pub mod cli;
pub mod clients;
pub mod code;
pub mod config;
pub mod gate;
pub mod limiter;
pub mod load;
pub mod log;
pub mod metrics;
#[cfg(feature = "otel")]
pub mod otlp;
pub mod peer;
pub mod serve;
pub mod shutdown;
pub mod stream;
pub mod tls;
pub mod trace;
pub mod upstream;
pub mod wire;
pub mod workers;

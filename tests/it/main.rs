//! Behaviour of the whole, over real sockets and against real servers that the tests start themselves.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, also in its support code"
)]
#![expect(unreachable_pub, reason = "in a test binary nothing is reachable; `pub` says what support code offers")]

mod access_log;
mod admin;
mod browser;
mod command_line;
mod configuration;
mod corpus;
mod cors;
mod daemon;
mod dashboard;
mod data_latency;
mod data_oauth;
mod data_retry;
mod data_routes;
mod data_secrets;
mod data_tenants;
mod data_windows;
mod demo;
mod deploy;
mod edge_http2;
mod edge_inherited;
mod edge_overload;
mod edge_restart;
mod edge_tls;
mod edge_workers;
mod fetch;
mod fleet_clock;
mod fleet_cluster;
mod fleet_control;
mod fleet_denied;
mod fleet_exact;
mod fleet_faults;
mod fleet_outage;
mod fleet_sentinel;
mod fleet_simulation;
mod fleet_tls;
mod fuzz_corpus;
mod gate_answers;
mod gate_forwarding;
mod gate_limits;
mod gate_redis;
mod latency_curve;
mod limiter_batches;
mod limiter_contract;
mod limiter_limits;
mod limiter_outage;
mod operators;
mod pacing;
mod presets;
mod proxies;
mod reference;
mod reload;
mod schema;
mod serving;
mod shadow;
mod simulate;
mod support;
mod telemetry;
#[cfg(feature = "top")]
mod top;
mod upstream;
mod websocket;

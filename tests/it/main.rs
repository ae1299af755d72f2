//! Behaviour of the whole, over real sockets and against real servers that the tests start themselves.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, also in its support code"
)]
#![expect(unreachable_pub, reason = "in a test binary nothing is reachable; `pub` says what support code offers")]

mod limiter_contract;
mod limiter_limits;
mod limiter_outage;
mod serving;
mod support;
mod upstream;

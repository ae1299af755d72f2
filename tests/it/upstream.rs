//! The client side: kept connections, streams, tunnels, and upstreams that misbehave.

mod failing;
mod keeping;
mod streaming;
mod tls;

//! The client side: kept connections, streams, tunnels, and upstreams that misbehave.

mod client_certificate;
mod failing;
mod keeping;
mod streaming;
mod tls;

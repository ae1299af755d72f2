//! The client side: kept connections, streams, tunnels, and upstreams that misbehave.

mod client_certificate;
mod failing;
mod http1;
mod http2;
mod http2_failing;
mod keeping;
mod streaming;
mod tls;

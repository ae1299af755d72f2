//! The other end of a client's connection, as the listener knows it. What a request says about itself is not in it.

use std::{net::SocketAddr, sync::Arc};

/// Who is at the other end: the client itself, or a proxy.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address (IPv4 in its own form, also on an IPv6 socket).
    pub address: SocketAddr,
    /// Whether it came over TLS.
    pub secure: bool,
    /// Subject of the certificate it proved itself by, as in `CN=reports, O=Example` (RFC 4514 has the fields in the
    /// other order; these are in the certificate's).
    pub certificate: Option<Arc<str>>,
}

//! `[admin]`: the side that faces operators.

use std::net::SocketAddr;

use serde::Serialize;

use super::Secret;

/// `[admin]`: probes and metrics.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Admin {
    /// Address and port; anything but loopback needs `token`.
    pub address: SocketAddr,
    /// Bearer token for everything but the probes, where the address is not loopback.
    #[serde(serialize_with = "super::value::optional")]
    pub token: Option<Secret>,
    /// How clients are called where they are listed.
    pub show_clients: ShowClients,
}

/// How clients are called where operators see many of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ShowClients {
    /// By the hash that is their key in the store.
    Hashed,
    /// By the beginning of their name.
    Cut,
    /// By their name.
    Plain,
}

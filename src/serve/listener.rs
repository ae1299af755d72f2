//! A bound listening socket, and how it is to be served.

use std::{
    io,
    net::{self, SocketAddr},
    sync::Arc,
};

use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
};

use super::{Caps, Permit, Tell, Tls, greet::Protocols};
use crate::workers::Workers;

/// Connections the kernel completes for us before we accept them; beyond it, clients retry their handshake.
const BACKLOG: u32 = 1024;

/// A bound listening socket, and what is spoken on it.
pub struct Listener {
    pub(super) socket: TcpListener,
    pub(super) protocols: Protocols,
    pub(super) permit: Option<Permit>,
    pub(super) changes: Option<watch::Receiver<Caps>>,
    pub(super) tell: Option<Tell>,
    pub(super) workers: Workers,
}

// === impl Listener ===

impl Listener {
    /// Binds and listens, for plain HTTP/1; port 0 takes a free one. With `reuse_port` other processes may bind the same
    /// address, and the kernel spreads connections over them. Must be called inside the runtime.
    pub fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restart must not wait for the connections of the last run to leave TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(reuse_port)?;
        socket.bind(address)?;
        Self::inherit(socket.listen(BACKLOG)?.into_std()?)
    }

    /// Listens, for plain HTTP/1, on a socket that was bound elsewhere. Must be called inside the runtime.
    pub fn inherit(socket: net::TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let socket = TcpListener::from_std(socket)?;
        let (protocols, workers) = (Protocols::default(), Workers::alone());
        Ok(Self { socket, protocols, permit: None, changes: None, tell: None, workers })
    }

    /// Speaks TLS, where there is `tls`; else takes HTTP/2 from clients that begin with it, where `h2c` says so.
    #[must_use]
    pub fn speaking(self, tls: Option<Arc<Tls>>, h2c: bool) -> Self {
        Self { protocols: Protocols { tls, h2c }, ..self }
    }

    /// Asks `permit` about what is refused here although its head was read: too large a body, or too many requests.
    #[must_use]
    pub fn permitting(self, permit: Permit) -> Self {
        Self { permit: Some(permit), ..self }
    }

    /// Holds connections from then on to what `changes` says, but for how many there may be.
    #[must_use]
    pub fn following(self, changes: watch::Receiver<Caps>) -> Self {
        Self { changes: Some(changes), ..self }
    }

    /// Tells of each request that is refused here.
    #[must_use]
    pub fn telling(self, tell: Option<Tell>) -> Self {
        Self { tell, ..self }
    }

    /// Has connections served by `workers`, and not by the thread alone that it was bound on.
    #[must_use]
    pub fn served_by(self, workers: Workers) -> Self {
        Self { workers, ..self }
    }

    /// Where it listens, with the port that was taken.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

//! From a name to a connection: look-up, TCP, TLS, all before one deadline.

use std::{io, net::SocketAddr};

use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout, timeout_at},
};

use super::{UpstreamError, UpstreamSetupError, socket::Stream, tls::Tls};
use crate::config;

/// Why no connection could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address, or nobody could be asked for it.
    #[error("the name was not found: {0}")]
    Lookup(#[source] io::Error),
    /// The last of the addresses refused or was out of reach.
    #[error("{0}")]
    Tcp(#[source] io::Error),
    /// The handshake failed: among others, a certificate that is not to be believed.
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
}

/// Makes connections to one origin.
pub(super) struct Connector {
    host: String,
    port: u16,
    tls: Option<Tls>,
}

// === impl Connector ===

impl Connector {
    pub(super) fn new(config: &config::Upstream) -> Result<Self, UpstreamSetupError> {
        let config::Upstream { url: origin, ca, client_certificate, .. } = config;
        let tls = || Tls::new(&origin.host, ca.as_deref(), client_certificate.as_ref());
        let tls = origin.tls.then(tls).transpose()?;
        Ok(Self { host: origin.host.clone(), port: origin.port, tls })
    }

    /// A connection that is ready for HTTP.
    pub(super) async fn connect(&self, deadline: Instant) -> Result<Stream, UpstreamError> {
        let connected = async {
            let stream = self.reach(deadline).await?;
            // Requests are written in whole pieces; waiting to fill a segment would only delay their last one.
            stream.set_nodelay(true).map_err(ConnectError::Tcp)?;
            match &self.tls {
                None => Ok(Stream::Plain(stream)),
                Some(tls) => Ok(Stream::Tls(Box::new(tls.handshake(stream).await.map_err(ConnectError::Tls)?))),
            }
        };
        timeout_at(deadline, connected).await.map_err(|_| UpstreamError::ConnectTimeout)?
    }

    /// Tries each address in turn.
    async fn reach(&self, deadline: Instant) -> Result<TcpStream, UpstreamError> {
        let host = (self.host.as_str(), self.port);
        let addresses: Vec<SocketAddr> = lookup_host(host).await.map_err(ConnectError::Lookup)?.collect();
        let none = io::Error::new(io::ErrorKind::NotFound, "no address");
        let mut failure = UpstreamError::Connect(ConnectError::Lookup(none));
        for (address, left) in addresses.iter().zip((1..=addresses.len()).rev()) {
            // An equal share of the time that is left, so that one silent address does not use up the others' time.
            let share = deadline.saturating_duration_since(Instant::now()) / u32::try_from(left).unwrap_or(u32::MAX);
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failure = UpstreamError::Connect(ConnectError::Tcp(error)),
                Err(_) => failure = UpstreamError::ConnectTimeout,
            }
        }
        Err(failure)
    }
}

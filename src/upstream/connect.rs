//! From a name to a connection: look-up, TCP, TLS, all before one deadline.

use std::{io, net::SocketAddr};

use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout, timeout_at},
};

use super::{UpstreamError, UpstreamSetupError, tls::Tls};
use crate::{
    config::{self, Http2},
    stream::Stream,
};

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
    http2: Http2,
}

/// A connection that is ready for HTTP.
pub(super) struct Connected {
    pub(super) stream: Stream,
    /// Whether HTTP/2 is what is spoken on it.
    pub(super) http2: bool,
}

// === impl Connector ===

impl Connector {
    pub(super) fn new(config: &config::Upstream) -> Result<Self, UpstreamSetupError> {
        let config::Upstream { url: origin, ca, client_certificate, http2, .. } = config;
        let tls = || Tls::new(&origin.host, ca.as_deref(), client_certificate.as_ref());
        let tls = origin.tls.then(tls).transpose()?;
        Ok(Self { host: origin.host.clone(), port: origin.port, tls, http2: *http2 })
    }

    /// Whether a connection may turn out to speak HTTP/2.
    pub(super) fn may_speak_http2(&self) -> bool {
        match self.http2 {
            Http2::Auto => self.tls.is_some(),
            Http2::PriorKnowledge => true,
            Http2::Off => false,
        }
    }

    /// A new connection; without `offer_http2` it speaks HTTP/1.1.
    pub(super) async fn connect(&self, offer_http2: bool, deadline: Instant) -> Result<Connected, UpstreamError> {
        let offer_http2 = offer_http2 && self.may_speak_http2();
        let connected = async {
            let stream = self.reach(deadline).await?;
            // Requests are written in whole pieces; waiting to fill a segment would only delay their last one.
            stream.set_nodelay(true).map_err(ConnectError::Tcp)?;
            match &self.tls {
                None => Ok(Connected { stream: Stream::Plain(stream), http2: offer_http2 }),
                Some(tls) => {
                    let (stream, http2) = tls.handshake(stream, offer_http2).await.map_err(ConnectError::Tls)?;
                    Ok(Connected { stream: Stream::Tls(Box::new(stream.into())), http2 })
                }
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

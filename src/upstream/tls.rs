//! How the upstream proves who it is.

use std::{path::Path, sync::Arc};

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::UpstreamSetupError;
use crate::{config::ClientCertificate, tls::client_config};

/// What HTTP/2 is called in a handshake.
const HTTP2: &[u8] = b"h2";

/// Shakes hands with one host, by its name (SNI), and agrees on a protocol (ALPN, RFC 7301).
pub(super) struct Tls {
    http1: TlsConnector,
    either: TlsConnector,
    host: ServerName<'static>,
}

// === impl Tls ===

impl Tls {
    /// Believes the authorities in the PEM file `ca`, or the system's. Shows its `own` certificate to hosts that ask for one.
    pub(super) fn new(host: &str, ca: Option<&Path>, own: Option<&ClientCertificate>) -> Result<Self, UpstreamSetupError> {
        let own = own.map(|own| (own.certificate.as_path(), own.key.as_path()));
        let config = client_config(ca, own)?;
        let connector = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            TlsConnector::from(Arc::new(config))
        };
        let host = ServerName::try_from(host.to_owned()).map_err(|_| UpstreamSetupError::Host(host.to_owned()))?;
        Ok(Self { http1: connector(&[b"http/1.1"]), either: connector(&[HTTP2, b"http/1.1"]), host })
    }

    /// The handshake, in which HTTP/2 is offered or not, and whether the host chose it; the caller bounds its time.
    pub(super) async fn handshake(
        &self,
        stream: TcpStream,
        offer_http2: bool,
    ) -> std::io::Result<(TlsStream<TcpStream>, bool)> {
        let connector = if offer_http2 { &self.either } else { &self.http1 };
        let stream = connector.connect(self.host.clone(), stream).await?;
        let chosen = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
        Ok((stream, chosen))
    }
}

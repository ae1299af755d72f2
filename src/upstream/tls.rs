//! How the upstream proves who it is.

use std::{path::Path, sync::Arc};

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::UpstreamSetupError;
use crate::{config::ClientCertificate, tls::client_config};

/// Shakes hands with one host, by its name (SNI) and for HTTP/1.1 (ALPN).
pub(super) struct Tls {
    connector: TlsConnector,
    host: ServerName<'static>,
}

// === impl Tls ===

impl Tls {
    /// Believes the authorities in the PEM file `ca`, or the system's. Shows its `own` certificate to hosts that ask for one.
    pub(super) fn new(host: &str, ca: Option<&Path>, own: Option<&ClientCertificate>) -> Result<Self, UpstreamSetupError> {
        let own = own.map(|own| (own.certificate.as_path(), own.key.as_path()));
        let mut config = client_config(ca, own)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let host = ServerName::try_from(host.to_owned()).map_err(|_| UpstreamSetupError::Host(host.to_owned()))?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), host })
    }

    /// The handshake; the caller bounds its time.
    pub(super) async fn handshake(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.host.clone(), stream).await
    }
}

//! How the upstream proves who it is.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::UpstreamSetupError;

/// Shakes hands with one host, by its name (SNI) and for HTTP/1.1 (ALPN).
pub(super) struct Tls {
    connector: TlsConnector,
    host: ServerName<'static>,
}

// === impl Tls ===

impl Tls {
    /// Believes the authorities in the PEM file `ca`; without one, the system's, and where it has none, Mozilla's as they
    /// were when this was built.
    pub(super) fn new(host: &str, ca: Option<&Path>) -> Result<Self, UpstreamSetupError> {
        let roots = match ca {
            Some(path) => authorities(path)?,
            None => system_authorities(),
        };
        // The provider is named because a process-wide default could be set by anyone, or by nobody.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let host = ServerName::try_from(host.to_owned()).map_err(|_| UpstreamSetupError::Host(host.to_owned()))?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), host })
    }

    /// The handshake; the caller bounds its time.
    pub(super) async fn handshake(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.host.clone(), stream).await
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, UpstreamSetupError> {
    let unreadable = |cause| UpstreamSetupError::Authorities { path: path.to_owned(), cause };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        roots.add(certificate.map_err(unreadable)?)?;
    }
    if roots.is_empty() {
        return Err(UpstreamSetupError::NoAuthorities { path: path.to_owned() });
    }
    Ok(roots)
}

fn system_authorities() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        tracing::info!("the system has no certificate authorities; using the built-in ones");
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

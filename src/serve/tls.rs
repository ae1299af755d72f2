//! How a listener proves who it is, and what it asks of clients: TLS 1.2 and 1.3.
//!
//! Promised: certificate and key belong together, or there is no listener; files that change are taken over while it runs,
//! for new connections alone; files that cannot be used leave everything as it was. They are looked at every
//! [`LOOK_EVERY`], by content, because a watch on a path misses the links that secrets are mounted by.
//! Not promised: revocation lists, or that a certificate is still valid.

use std::{
    convert::Infallible,
    fs,
    hash::{DefaultHasher, Hasher},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    config::{ClientCertificates, ListenTls},
    metrics::{Metrics, ReloadLabels},
};

/// How long a changed file waits to be noticed.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A listener's side of TLS.
#[derive(Debug)]
pub struct Tls {
    files: ListenTls,
    current: ArcSwap<ServerConfig>,
}

/// What a listener counts of its files.
#[derive(Debug, Clone)]
pub struct ReloadMetrics {
    good: Counter,
    bad: Counter,
}

/// Why the files of `[listen.tls]` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM of its kind.
    #[error("listen.tls.{key} = {path:?}: {cause}")]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: pem::Error,
    },
    /// The key is not the certificate's, or one of the two cannot be used.
    #[error("listen.tls.key = {path:?}: {cause}")]
    Pair {
        /// The file of the key.
        path: PathBuf,
        /// What is wrong with the two.
        cause: rustls::Error,
    },
    /// The authorities cannot be used.
    #[error("listen.tls.client_ca: {0}")]
    Authorities(String),
    /// TLS itself cannot be set up.
    #[error("listen.tls: {0}")]
    Protocol(rustls::Error),
}

// === impl Tls ===

impl Tls {
    /// Reads the files.
    pub fn load(files: &ListenTls) -> Result<Self, TlsError> {
        Ok(Self { current: ArcSwap::from(server_config(files)?), files: files.clone() })
    }

    /// Takes files over when they change, for ever.
    pub async fn keep_fresh(&self, metrics: &ReloadMetrics) -> Infallible {
        let mut seen = self.fingerprint();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            looks.tick().await;
            let now = self.fingerprint();
            if now != seen {
                seen = now;
                self.reload(metrics);
            }
        }
    }

    fn reload(&self, metrics: &ReloadMetrics) {
        match server_config(&self.files) {
            Ok(config) => {
                self.current.store(config);
                tracing::info!(event = "tls_reloaded", "new connections see the new certificate");
                metrics.good.inc();
            }
            Err(error) => {
                tracing::warn!(event = "tls_reload_failed", %error, "the certificate in use stays");
                metrics.bad.inc();
            }
        }
    }

    /// Tells one content of the files from another. They are small, and in the page cache.
    fn fingerprint(&self) -> u64 {
        let ListenTls { certificate, key, client_ca, .. } = &self.files;
        let mut hasher = DefaultHasher::new();
        for file in [Some(certificate), Some(key), client_ca.as_ref()].into_iter().flatten() {
            let content = fs::read(file).unwrap_or_default();
            hasher.write_usize(content.len());
            hasher.write(&content);
        }
        hasher.finish()
    }

    /// The handshake; the caller bounds its time.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.current.load_full()).accept(stream).await
    }
}

// === impl ReloadMetrics ===

impl ReloadMetrics {
    /// The handles of both results, exported from now on.
    pub fn new(metrics: &Metrics) -> Self {
        let counter = |result| metrics.tls_reloads.get_or_create_owned(&ReloadLabels { result });
        Self { good: counter("good"), bad: counter("bad") }
    }
}

/// The subject of a certificate; `None` where it has none, or none that can be written.
pub(super) fn subject(certificate: &CertificateDer<'_>) -> Option<Arc<str>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject().to_string();
    (!subject.is_empty()).then(|| subject.into())
}

fn server_config(files: &ListenTls) -> Result<Arc<ServerConfig>, TlsError> {
    let ListenTls { certificate, key, .. } = files;
    let chain = certificates("certificate", certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(unusable("key", key))?;
    // The provider is named because a process-wide default could be set by anyone, or by nobody.
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Protocol)?;
    let builder = match client_verifier(files)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config =
        builder.with_single_cert(chain, private).map_err(|cause| TlsError::Pair { path: key.clone(), cause })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn client_verifier(files: &ListenTls) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let Some(path) = files.client_ca.as_ref().filter(|_| files.client_certificates != ClientCertificates::None) else {
        return Ok(None);
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates("client_ca", path)? {
        roots.add(authority).map_err(|error| TlsError::Authorities(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()));
    let builder = match files.client_certificates {
        ClientCertificates::Require => builder,
        ClientCertificates::None | ClientCertificates::Request => builder.allow_unauthenticated(),
    };
    builder.build().map(Some).map_err(|error| TlsError::Authorities(error.to_string()))
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match chain {
        Ok(chain) if chain.is_empty() => Err(unusable(key, path)(pem::Error::NoItemsFound)),
        chain => chain.map_err(unusable(key, path)),
    }
}

fn unusable(key: &'static str, path: &Path) -> impl FnOnce(pem::Error) -> TlsError {
    move |cause| TlsError::File { key, path: path.to_owned(), cause }
}

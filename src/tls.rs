//! Whom we believe when we connect with TLS.
//!
//! Promised: certificates are verified against the authorities that were asked for, and no others. Not promised: what is
//! spoken inside; protocol names (ALPN) are the caller's.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// The file of certificate authorities cannot be read, or is no PEM.
    #[error("cannot read certificate authorities from {path}: {cause}", path = path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: pem::Error,
    },
    /// The file holds no usable certificate, and a connection could never be trusted.
    #[error("no certificate authority in {path}", path = path.display())]
    NoAuthorities {
        /// The file.
        path: PathBuf,
    },
    /// A file of the client certificate cannot be read, or is no PEM of its kind.
    #[error("cannot read the client certificate or its key from {path}: {cause}", path = path.display())]
    ClientCertificate {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: pem::Error,
    },
    /// The client certificate and its key do not belong together, or cannot be used.
    #[error("the client certificate and its key cannot be used: {0}")]
    ClientPair(#[source] rustls::Error),
    /// Anything else, such as a certificate that is none.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

// === impl TlsSetupError ===

impl TlsSetupError {
    /// The key of a table that names the file at fault; `None` where it cannot be told.
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Authorities { .. } | Self::NoAuthorities { .. } => Some("ca"),
            Self::ClientCertificate { .. } | Self::ClientPair(_) => Some("client_certificate"),
            Self::Tls(_) => None,
        }
    }
}

/// A client that believes the authorities in the PEM file `ca`; without one, the system's, and where it has none, Mozilla's
/// as they were when this was built. With the PEM files of its `own` certificate and key, it shows that to who asks.
pub fn client_config(ca: Option<&Path>, own: Option<(&Path, &Path)>) -> Result<ClientConfig, TlsSetupError> {
    let roots = match ca {
        Some(path) => authorities(path)?,
        None => system_authorities(),
    };
    // The provider is named because a process-wide default could be set by anyone, or by nobody.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots);
    let Some((certificate, key)) = own else { return Ok(config.with_no_client_auth()) };
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        |cause| TlsSetupError::ClientCertificate { path, cause }
    };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(unreadable(certificate))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?;
    config.with_client_auth_cert(chain, key).map_err(TlsSetupError::ClientPair)
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsSetupError> {
    let unreadable = |cause| TlsSetupError::Authorities { path: path.to_owned(), cause };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        roots.add(certificate.map_err(unreadable)?)?;
    }
    if roots.is_empty() {
        return Err(TlsSetupError::NoAuthorities { path: path.to_owned() });
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

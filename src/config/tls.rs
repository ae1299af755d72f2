//! Whom cxgate believes, and what it proves itself by.

use std::path::PathBuf;

use serde::Serialize;

use super::value;

/// `[listen.tls]`: what the listener proves itself by, and what it asks of clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListenTls {
    /// PEM file of the certificate, followed by those that lead to an authority.
    pub certificate: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
    /// Whether clients show certificates; anything but `none` needs `client_ca`.
    pub client_certificates: ClientCertificates,
    /// PEM file of the certificate authorities that clients are believed by.
    #[serde(serialize_with = "value::optional")]
    pub client_ca: Option<PathBuf>,
}

/// Whether clients show certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// They are not asked.
    None,
    /// They are asked, and may have none.
    Request,
    /// They are asked, and turned away without one.
    Require,
}

/// How an upstream is spoken to, beside HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Http2 {
    /// By HTTP/2 where it offers that in the TLS handshake (ALPN).
    Auto,
    /// By HTTP/1.1 only.
    Off,
    /// By HTTP/2 without TLS and without asking (RFC 9113, section 3.3).
    PriorKnowledge,
}

/// `client_certificate` of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientCertificate {
    /// PEM file of the certificate, followed by those that lead to an authority.
    pub certificate: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
}

//! Upstreams that prove who they are, and those that cannot.

use std::{net::SocketAddr, sync::Arc};

use cxgate::{
    config,
    metrics::Metrics,
    tls::TlsSetupError,
    upstream::{ConnectError, Upstream, UpstreamError, UpstreamSetupError},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer};
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

use crate::support::forwarding::{Forwarding, to};

/// A certificate authority of our own.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: NamedTempFile,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        let file = NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), certificate.pem()).expect("a writable file");
        Self { issuer: Issuer::new(params, key), file }
    }

    /// A server for `name` that answers "secret" to one request a connection, and tells the name (SNI) and the protocol
    /// (ALPN) it was asked for.
    async fn serve(&self, name: &str) -> (SocketAddr, mpsc::UnboundedReceiver<(String, Vec<u8>)>) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("known versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .expect("a matching key");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let (tell, told) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let session = stream.get_ref().1;
                let name = session.server_name().unwrap_or_default().to_owned();
                let protocol = session.alpn_protocol().unwrap_or_default().to_vec();
                if tell.send((name, protocol)).is_err() || stream.read(&mut [0; 1024]).await.is_err() {
                    return;
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret";
                let _ = stream.write_all(answer).await;
            }
        });
        (address, told)
    }
}

fn tls_to(host: &str, address: SocketAddr, authority: &Authority) -> config::Upstream {
    let mut config = to(address);
    config.url.tls = true;
    config.http2 = config::Http2::Off;
    host.clone_into(&mut config.url.host);
    config.ca = Some(authority.file.path().to_owned());
    config
}

#[tokio::test]
async fn an_upstream_is_believed_by_the_configured_authority_and_asked_for_by_name() {
    let authority = Authority::new();
    let (address, mut told) = authority.serve("localhost").await;
    let forwarding = Forwarding::new(&tls_to("localhost", address, &authority));
    assert_eq!(forwarding.get("/").await.unwrap(), "secret");
    assert_eq!(told.recv().await.unwrap(), ("localhost".to_owned(), b"http/1.1".to_vec()));
}

#[tokio::test]
async fn an_upstream_may_be_an_address() {
    let authority = Authority::new();
    let (address, _told) = authority.serve("127.0.0.1").await;
    assert_eq!(Forwarding::new(&tls_to("127.0.0.1", address, &authority)).get("/").await.unwrap(), "secret");
}

#[tokio::test]
async fn an_upstream_is_not_believed_by_another_authority_or_under_another_name() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (address, _told) = authority.serve("localhost").await;
    let (elsewhere, _told) = authority.serve("elsewhere.example").await;
    for config in [tls_to("localhost", address, &other), tls_to("localhost", elsewhere, &authority)] {
        let error = Forwarding::new(&config).get("/").await.unwrap_err();
        assert!(matches!(&error, UpstreamError::Connect(ConnectError::Tls(_))), "{error:?}");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}

#[tokio::test]
async fn authorities_that_cannot_be_read_are_told_at_the_start() {
    let authority = Authority::new();
    let mut config = tls_to("localhost", "127.0.0.1:1".parse().unwrap(), &authority);
    let refused = |config: &config::Upstream| {
        let outcome = Upstream::new("test", config, config.connect_timeout, &Metrics::default());
        outcome.map(|_| ()).unwrap_err()
    };
    std::fs::write(authority.file.path(), "no certificate").unwrap();
    assert!(matches!(refused(&config), UpstreamSetupError::Tls(TlsSetupError::NoAuthorities { .. })));
    config.ca = Some("/does/not/exist.pem".into());
    let error = refused(&config);
    assert!(matches!(error, UpstreamSetupError::Tls(TlsSetupError::Authorities { .. })));
    assert!(error.to_string().contains("/does/not/exist.pem"), "{error}");
}

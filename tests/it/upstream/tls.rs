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

    /// A server for `name` that answers "secret", and tells the name (SNI) and the protocol (ALPN) it was asked for.
    async fn serve(&self, name: &str) -> (SocketAddr, mpsc::UnboundedReceiver<(String, Vec<u8>)>) {
        self.serve_with(name, "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret".into()).await
    }

    /// The same with another answer, to the first request of each connection. None is closed.
    async fn serve_with(&self, name: &str, answer: Vec<u8>) -> (SocketAddr, mpsc::UnboundedReceiver<(String, Vec<u8>)>) {
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
            let mut kept = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let session = stream.get_ref().1;
                let name = session.server_name().unwrap_or_default().to_owned();
                let protocol = session.alpn_protocol().unwrap_or_default().to_vec();
                if tell.send((name, protocol)).is_err() || stream.read(&mut [0; 1024]).await.is_err() {
                    return;
                }
                let _ = stream.write_all(&answer).await;
                kept.push(stream);
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
async fn what_was_decrypted_together_with_an_answer_is_no_answer() {
    let authority = Authority::new();
    // Whoever reads as much as it has room for may read one of these to its last byte, and leave the rest with TLS.
    for length in [1024, 2048, 4096, 8192] {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", length - 100);
        let body = "a".repeat(length - 100);
        let padded = head.replacen("\r\n", &format!("\r\nx: {}\r\n", "b".repeat(100 - 5 - head.len())), 1);
        let answer = padded + &body + "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
        let (address, _told) = authority.serve_with("localhost", answer.into()).await;
        let forwarding = Forwarding::new(&tls_to("localhost", address, &authority));
        for _ in 0..2 {
            assert_eq!(forwarding.get("/").await.unwrap(), body);
        }
    }
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

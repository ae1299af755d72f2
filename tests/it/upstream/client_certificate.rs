//! Upstreams that ask who we are.

use std::sync::Arc;

use cxgate::{
    config::{self, ClientCertificate, ClientCertificates, Origin},
    metrics::Metrics,
    peer::Peer,
    serve::{Listener, ListenerMetrics, Tls, serve},
    shutdown::Shutdown,
    tls::TlsSetupError,
    upstream::{Upstream, UpstreamError, UpstreamSetupError},
};

use crate::support::{
    certificates::Authority,
    forwarding::{Forwarding, to},
    listening::{text, wide},
};

#[tokio::test]
async fn an_upstream_that_asks_is_shown_our_certificate() {
    let authority = Authority::new();
    let tls = Tls::load(&authority.listener(&authority.sign("upstream"), ClientCertificates::Require)).unwrap();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), false).unwrap().speaking(Some(Arc::new(tls)), false);
    let address = listener.local_address().unwrap();
    let shutdown = Shutdown::default();
    let subject = |peer: Peer, _| async move { text(&*peer.certificate.unwrap()) };
    let counts = ListenerMetrics::new(&Metrics::default(), "proxy");
    shutdown.spawn(serve(listener, wide(), subject, counts, shutdown.clone()));

    let own = authority.sign("cxgate");
    let files = tempfile::tempdir().unwrap();
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| files.path().join(name));
    std::fs::write(&certificate, own.certificate).unwrap();
    std::fs::write(&key, own.key).unwrap();
    let url = Origin { tls: true, host: "localhost".to_owned(), port: address.port() };
    let without = config::Upstream { url, ca: Some(authority.file()), ..to(address) };
    assert!(matches!(Forwarding::new(&without).get("/").await, Err(UpstreamError::Protocol(_) | UpstreamError::Connect(_))));
    let mut with = without;
    with.client_certificate = Some(ClientCertificate { certificate, key: key.clone() });
    assert_eq!(Forwarding::new(&with).get("/").await.unwrap(), "CN=cxgate");

    std::fs::write(&key, authority.sign("another").key).unwrap();
    let refused = Upstream::new("test", &with, with.connect_timeout, &Metrics::default());
    assert!(matches!(refused.map(|_| ()), Err(UpstreamSetupError::Tls(TlsSetupError::ClientPair(_)))));
    shutdown.stop();
}

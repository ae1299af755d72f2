//! Redis behind TLS and an ACL: who proves whom, and who may do what.

use cxgate::{
    config,
    limiter::{Decision, Limiter, bucket::MICRO},
    metrics::Metrics,
    shutdown::Shutdown,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::support::{
    redis_server::RedisServer,
    rig::{Rig, steady, store, token},
};

/// A Redis that speaks TLS only and knows one user, who may write keys of ours in database 3 alone.
struct Secured {
    server: RedisServer,
    /// Holds the authority's own certificate.
    directory: TempDir,
}

impl Secured {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: String| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let authority_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = file("authority.pem", params.self_signed(&authority_key).unwrap().pem());
        let issuer = Issuer::new(params, authority_key);
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let (certificate, key) = (file("redis.pem", certificate.pem()), file("redis.key", key.serialize_pem()));
        let users = file(
            "users.acl",
            "user default off\n\
             user gate on >p@ss ~test:* +evalsha +script|load +select +time +mget +psetex +pexpire\n"
                .to_owned(),
        );
        let server = RedisServer::start_with(|port, _| {
            let port = port.to_string();
            let options = [
                ("--port", "0"),
                ("--tls-port", port.as_str()),
                ("--tls-cert-file", &certificate),
                ("--tls-key-file", &key),
                ("--tls-ca-cert-file", &authority),
                ("--tls-auth-clients", "no"),
                ("--aclfile", &users),
            ];
            options.iter().flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]).collect()
        });
        Self { server, directory }
    }

    fn store(&self, login: &str, host: &str) -> config::Store {
        let url = format!("rediss://{login}@{host}:{}/3", self.server.port());
        let ca = Some(self.directory.path().join("authority.pem"));
        config::Store { redis: config::Redis::parse(&url), ca, ..store() }
    }
}

#[tokio::test]
async fn redis_decides_behind_tls_for_a_user_who_may_do_no_more_than_that() {
    let secured = Secured::start();
    let rig = Rig::over(&secured.store("gate:p%40ss", "localhost"));
    rig.until(true).await;
    let limit = steady(MICRO, 1);
    let charge = [token(&limit, "client")];
    assert!(matches!(rig.limiter.decide(&charge).await, Decision::Admitted { .. }));
    assert!(matches!(rig.limiter.decide(&charge).await, Decision::Refused { .. }));
    rig.stop().await;
}

#[tokio::test]
async fn redis_is_not_used_where_one_does_not_believe_the_other() {
    let (secured, stranger) = (Secured::start(), Secured::start());
    let wrong_authority =
        config::Store { ca: stranger.store("gate:p", "a").ca, ..secured.store("gate:p%40ss", "localhost") };
    let wrong_name = secured.store("gate:p%40ss", "127.0.0.1");
    let wrong_password = secured.store("gate:wrong", "localhost");
    let disbelieved = [wrong_authority, wrong_name, wrong_password].map(|config| Rig::over(&config));
    // They had time to try as often as these had to succeed.
    for _ in 0..3 {
        let believed = Rig::over(&secured.store("gate:p%40ss", "localhost"));
        believed.until(true).await;
        believed.stop().await;
    }
    for rig in disbelieved {
        assert_eq!(rig.metrics.store_connects.get(), 0);
        rig.stop().await;
    }
}

#[tokio::test]
async fn authorities_that_cannot_be_read_are_told_at_the_start() {
    let config = config::Store {
        redis: config::Redis::parse("rediss://localhost"),
        ca: Some("/does/not/exist.pem".into()),
        ..store()
    };
    let outcome = Limiter::start(&config, &Metrics::default(), &Shutdown::default());
    let error = outcome.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("/does/not/exist.pem"), "{error}");
}

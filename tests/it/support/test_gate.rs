//! The whole daemon in this process, on free ports, taken down when dropped.

use std::{
    net::SocketAddr,
    num::NonZero,
    sync::{Arc, Mutex},
};

use cxgate::{
    app::{App, ReloadError, Reloaded, Reloads},
    config::{Config, LimitKind, Loaded, Origin, TokenBucket},
    shutdown::Shutdown,
    workers::Workers,
};

use super::redis_server::RedisServer;

/// Threads that serve, so that whatever is tested holds across them.
pub const WORKERS: usize = 3;

/// A running daemon.
pub struct TestGate {
    pub proxy: SocketAddr,
    pub admin: SocketAddr,
    pub shutdown: Shutdown,
    reloads: Reloads,
    /// What a reload reads.
    file: Arc<Mutex<Config>>,
}

impl TestGate {
    /// The built-in configuration in front of `upstream`, on the embedded store, changed by `change`.
    pub fn start(upstream: SocketAddr, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.listen.address = "127.0.0.1:0".parse().unwrap();
        config.admin.address = "127.0.0.1:0".parse().unwrap();
        config.upstreams.get_mut("cxone").unwrap().url = origin(upstream);
        change(&mut config);
        let file = Arc::new(Mutex::new(config.clone()));
        let read = Arc::clone(&file);
        let read = move || {
            let (warnings, origin) = (Vec::new(), "test".to_owned());
            Ok(Loaded { config: read.lock().unwrap().clone(), warnings, origin })
        };
        let workers = Workers::start(NonZero::new(WORKERS).unwrap()).unwrap();
        let app = App::bind(config).unwrap().rereading(read).served_by(workers);
        let (shutdown, reloads) = (Shutdown::default(), app.reloads());
        let (proxy, admin) = (app.proxy_address(), app.admin_address());
        tokio::spawn(app.run(shutdown.clone()));
        Self { proxy, admin, shutdown, reloads, file }
    }

    /// Changes what the configuration was, and reloads it.
    pub async fn reload(&self, change: impl FnOnce(&mut Config)) -> Result<Reloaded, ReloadError> {
        change(&mut self.file.lock().unwrap());
        super::soon(self.reloads.reload()).await
    }

    /// The same, with its buckets in `redis`, once it decides there.
    pub async fn on_redis(upstream: SocketAddr, redis: &RedisServer, change: impl FnOnce(&mut Config)) -> Self {
        let gate = Self::start(upstream, |config| {
            config.store.redis = Some(redis.config());
            // The figure under test is exactness; a busy machine must not turn a slow answer into a fall-back.
            config.store.deadline = std::time::Duration::from_secs(2);
            change(config);
        });
        gate.until_store_is("redis").await;
        gate
    }

    /// Waits until `/readyz` names `store`.
    pub async fn until_store_is(&self, store: &str) {
        super::until(async || {
            let answer = super::http::get(self.admin, "/readyz", &[]).await;
            answer.json()["store"] == store
        })
        .await;
    }

    /// The value of a metric with exactly these labels, as exported; empty where it is absent.
    pub async fn metric(&self, name_and_labels: &str) -> String {
        let exported = super::http::get(self.admin, "/metrics", &[]).await;
        let line = exported.text().lines().find_map(|line| line.strip_prefix(name_and_labels)?.strip_prefix(' '));
        line.unwrap_or_default().to_owned()
    }

    /// The count of a counter with exactly these labels; 0 where it is absent.
    pub async fn count(&self, name_and_labels: &str) -> u64 {
        self.metric(name_and_labels).await.parse().unwrap_or_default()
    }
}

impl Drop for TestGate {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

/// The origin of a plain HTTP server.
pub fn origin(address: SocketAddr) -> Origin {
    Origin { tls: false, host: address.ip().to_string(), port: address.port() }
}

/// The bucket of the first limit of the first route.
pub fn bucket_of(config: &mut Config) -> &mut TokenBucket {
    let LimitKind::TokenBucket(bucket) = &mut config.routes[0].limits[0].limit.kind else { panic!("a bucket") };
    bucket
}

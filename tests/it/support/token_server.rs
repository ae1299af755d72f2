//! A token endpoint that grants `token-1`, `token-2`, … and can be told to fail.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use cxgate::config::{ClientAuthentication, Config, Endpoint, Grant, OAuth, OAuthClient, Secret};
use hyper::Response;
use std::time::Duration;

use super::{stub_upstream::StubUpstream, test_gate::origin};

/// Listens until dropped.
pub struct TokenServer {
    pub stub: StubUpstream,
    down: Arc<AtomicBool>,
}

impl TokenServer {
    /// Grants tokens that live for so many seconds.
    pub async fn start(expires_in: u64) -> Self {
        let (down, granted) = (Arc::<AtomicBool>::default(), AtomicUsize::new(0));
        let is_down = Arc::clone(&down);
        let stub = StubUpstream::answering(move |_| {
            if is_down.load(Ordering::SeqCst) {
                return Response::builder().status(500).body("hunter2-error".into()).unwrap();
            }
            let number = granted.fetch_add(1, Ordering::SeqCst) + 1;
            let token = format!(r#"{{"access_token":"token-{number}","token_type":"Bearer","expires_in":{expires_in}}}"#);
            Response::new(token.into())
        })
        .await;
        Self { stub, down }
    }

    /// Fails, or serves again.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// Requests for a token so far.
    pub fn asked(&self) -> usize {
        self.stub.seen().len()
    }
}

/// Credentials that `server` grants.
pub fn oauth(server: SocketAddr) -> OAuth {
    let client = OAuthClient {
        client_id: "cxgate".into(),
        client_secret: Secret::new("hunter2"),
        client_authentication: ClientAuthentication::Body,
        scope: None,
    };
    OAuth {
        token_url: Endpoint { origin: origin(server), path_and_query: "/token".into() },
        grant: Grant::ClientCredentials(client),
        default_lifetime: Duration::from_mins(1),
        timeout: Duration::from_secs(5),
        token_timeout: Duration::from_secs(5),
        ca: None,
    }
}

/// Gives the one route of `config` credentials from `server`, and takes its limits.
pub fn with_credentials(config: &mut Config, server: SocketAddr) {
    config.oauth.insert("cxone".into(), oauth(server));
    config.routes[0].credentials = Some("cxone".into());
    config.routes[0].limits.clear();
}

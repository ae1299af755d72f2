//! From an address to a connection that is logged in: TCP, TLS where it is asked for, AUTH, SELECT.
//!
//! Promised: a peer that vanished is noticed, also by a connection that nobody uses. Not promised: a bound on the time it
//! takes, which is the caller's.

use std::{sync::Arc, time::Duration};

use redis::{AsyncConnectionConfig, RedisConnectionInfo, aio::MultiplexedConnection};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::end::End;
use crate::{
    config::{self, Address, Secret},
    tls::{TlsSetupError, client_config},
};

/// Calls that may be queued before they are written; it lets a burst share one write.
const QUEUE_LENGTH: usize = 1024;

/// Keep-alive probes, so that a peer that vanished is noticed even when nobody calls.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(3)).with_retries(3);

/// The longest that sent bytes stay unacknowledged before the kernel gives up the connection.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(2);

/// Connects to servers, and logs in to each in the same way.
#[derive(Clone)]
pub(super) struct Dialer {
    login: RedisConnectionInfo,
    tls: Option<TlsConnector>,
}

/// Does a connection's reading and writing. Dropping it closes the connection, and every call then fails.
pub(super) type Driver = AbortOnDropHandle<()>;

// === impl Dialer ===

impl Dialer {
    /// For servers as `config` says.
    pub(super) fn new(redis: &config::Redis, config: &config::Store) -> Result<Self, TlsSetupError> {
        let tls =
            if redis.tls { Some(TlsConnector::from(Arc::new(client_config(config.ca.as_deref(), None)?))) } else { None };
        let mut login = RedisConnectionInfo::default().set_db(redis.database.into());
        if let Some(user) = &redis.user {
            login = login.set_username(user);
        }
        if let Some(password) = &redis.password {
            login = login.set_password(password.expose());
        }
        Ok(Self { login, tls })
    }

    /// The same for Sentinels, which have no users and no databases.
    pub(super) fn for_sentinels(&self, password: Option<&Secret>) -> Self {
        let login = RedisConnectionInfo::default();
        let login = password.map_or(login.clone(), |password| login.set_password(password.expose()));
        Self { login, tls: self.tls.clone() }
    }

    /// Connects and logs in.
    pub(super) async fn dial(&self, address: &Address) -> Result<(MultiplexedConnection, Driver), End> {
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(End::connect)?;
        configure(&stream).map_err(End::connect)?;
        let Some(tls) = &self.tls else { return self.log_in(stream).await };
        let host = ServerName::try_from(address.host.clone()).map_err(End::connect)?;
        self.log_in(tls.connect(host, stream).await.map_err(End::connect)?).await
    }

    async fn log_in<S>(&self, stream: S) -> Result<(MultiplexedConnection, Driver), End>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(QUEUE_LENGTH);
        let connecting = MultiplexedConnection::new_with_config(&self.login, stream, config);
        let (connection, driver) = connecting.await.map_err(End::connect)?;
        Ok((connection, AbortOnDropHandle::new(tokio::spawn(driver))))
    }
}

/// Sends small writes at once, and notices a peer that vanished.
fn configure(stream: &TcpStream) -> std::io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}

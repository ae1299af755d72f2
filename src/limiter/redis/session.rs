//! One connection to Redis, from the moment it proved itself to the moment it failed.
//!
//! Promised: every call answers within the deadline; a call is sent again only when Redis said that it did not run the
//! script; the reply to a call whose caller went away reaches nobody else (the crate pairs replies with calls in the order
//! of sending and drops those nobody awaits). A session that ended says so at once and does not come back.
//! Not promised: that a call without an answer did not charge. It may have, so it is never repeated.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use prometheus_client::metrics::histogram::Histogram;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, RedisError, ServerError, ServerErrorKind, Value,
    aio::MultiplexedConnection,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    sync::Notify,
    time::{Instant, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{eviction, script::Script};
use crate::limiter::StoreError;

/// Calls in a row without a verdict that end a session. One may be bad luck; three are not worth a fourth's waiting.
const FAILURES_MAX: u32 = 3;

/// Calls that may be queued before they are written; it lets a burst share one write.
const QUEUE_LENGTH: usize = 1024;

/// Calls that may be unanswered. It bounds what a slow Redis can pile up here; callers beyond it wait, within the deadline.
const IN_FLIGHT_MAX: usize = 4096;

/// Keep-alive probes, so that a peer that vanished is noticed even when nobody calls.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(3)).with_retries(3);

/// The longest that sent bytes stay unacknowledged before the kernel gives up the connection.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(2);

/// One connection to Redis.
pub(super) struct Session {
    connection: MultiplexedConnection,
    digests: Digests,
    deadline: Duration,
    duration: Histogram,
    /// Calls without a verdict since the last with one.
    failures: AtomicU32,
    end: OnceLock<End>,
    ended: Notify,
}

/// Does the session's reading and writing. Dropping it closes the connection, and every call then fails.
pub(super) type Driver = AbortOnDropHandle<()>;

/// The names under which Redis knows the scripts.
struct Digests([String; Script::ALL.len()]);

/// Why there is no session. Shown to operators; holds nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum End {
    #[error("could not connect: {0}")]
    Connect(String),
    #[error("the connection was closed")]
    Closed,
    #[error("{FAILURES_MAX} calls in a row brought no verdict")]
    Failing,
    #[error("it cannot serve: {0}")]
    Unable(String),
}

// === impl Session ===

impl Session {
    /// Connects and loads the scripts. The caller bounds the time it takes.
    pub(super) async fn open(info: &ConnectionInfo, deadline: Duration, duration: Histogram) -> Result<(Self, Driver), End> {
        let ConnectionAddr::Tcp(host, port) = info.addr() else {
            return Err(End::Connect("only redis:// is supported".to_owned()));
        };
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(End::connect)?;
        configure(&stream).map_err(End::connect)?;
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_pipeline_buffer_size(QUEUE_LENGTH)
            .set_concurrency_limit(IN_FLIGHT_MAX);
        let (mut connection, driver) =
            MultiplexedConnection::new_with_config(info.redis_settings(), stream, config).await.map_err(End::connect)?;
        let driver = AbortOnDropHandle::new(tokio::spawn(driver));
        let digests = Digests::load(&mut connection).await?;
        eviction::warn_of(&mut connection).await;
        let session = Self {
            connection,
            digests,
            deadline,
            duration,
            failures: AtomicU32::new(0),
            end: OnceLock::new(),
            ended: Notify::new(),
        };
        Ok((session, driver))
    }

    /// Whether it still answers.
    pub(super) fn is_open(&self) -> bool {
        self.end.get().is_none()
    }

    /// Why it ended; `None` while it has not.
    pub(super) fn end(&self) -> Option<End> {
        self.end.get().cloned()
    }

    /// Resolves when it has ended.
    pub(super) async fn ended(&self) -> End {
        loop {
            if let Some(end) = self.end() {
                return end;
            }
            self.ended.notified().await;
        }
    }

    /// Calls `script` with the command that `make` makes of its digest, and reads the answer; `None` is no answer.
    pub(super) async fn call<T>(
        &self,
        script: Script,
        make: impl FnOnce(&str) -> Cmd,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, StoreError> {
        let begin = Instant::now();
        let command = make(self.digests.of(script));
        let answer = timeout(self.deadline, self.send(script, &command)).await;
        self.duration.observe(begin.elapsed().as_secs_f64());
        let failure = match answer {
            Ok(Ok(Value::ServerError(error))) => self.refused(&error),
            Ok(Ok(value)) => match read(&value) {
                Some(answer) => {
                    // Reading is cheaper than writing where threads share the counter.
                    if self.failures.load(Ordering::Relaxed) > 0 {
                        self.failures.store(0, Ordering::Relaxed);
                    }
                    return Ok(answer);
                }
                None => StoreError::Refused,
            },
            Ok(Err(_)) => {
                self.end_with(End::Closed);
                StoreError::Unreachable
            }
            Err(_) => StoreError::Deadline,
        };
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX {
            self.end_with(End::Failing);
        }
        Err(failure)
    }

    /// Sends a command; where Redis has forgotten the script, loads it and sends the command again. Only calls that were on
    /// their way when it forgot can load it, so there are never more such loads than calls in flight.
    async fn send(&self, script: Script, command: &Cmd) -> Result<Value, RedisError> {
        let mut connection = self.connection.clone();
        let answer = connection.send_packed_command(command).await?;
        match &answer {
            Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript) => {
                match load(&mut connection, script).await? {
                    Value::ServerError(error) => Ok(Value::ServerError(error)),
                    _ => connection.send_packed_command(command).await,
                }
            }
            _ => Ok(answer),
        }
    }

    fn refused(&self, error: &ServerError) -> StoreError {
        if cannot_serve(error.code()) {
            self.end_with(End::Unable(error.to_string()));
        }
        StoreError::Refused
    }

    fn end_with(&self, end: End) {
        if self.end.set(end).is_ok() {
            self.ended.notify_one();
        }
    }
}

// === impl Digests ===

impl Digests {
    async fn load(connection: &mut MultiplexedConnection) -> Result<Self, End> {
        let mut digests = [const { String::new() }; Script::ALL.len()];
        for (script, digest) in Script::ALL.into_iter().zip(&mut digests) {
            let reply = load(connection, script).await.map_err(End::connect)?;
            *digest = redis::from_redis_value(reply).map_err(End::connect)?;
        }
        Ok(Self(digests))
    }

    fn of(&self, script: Script) -> &str {
        &self.0[script as usize]
    }
}

// === impl End ===

impl End {
    pub(super) fn connect(error: impl std::fmt::Display) -> Self {
        Self::Connect(error.to_string())
    }
}

/// Has Redis keep a script; answers its digest.
async fn load(connection: &mut MultiplexedConnection, script: Script) -> Result<Value, RedisError> {
    let mut command = Cmd::new();
    command.arg("SCRIPT").arg("LOAD").arg(script.source());
    connection.send_packed_command(&command).await
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

/// Whether an error code says that no call can succeed here for now, rather than that this one did not.
fn cannot_serve(code: &str) -> bool {
    const CODES: [&str; 14] = [
        "READONLY",
        "LOADING",
        "MASTERDOWN",
        "CLUSTERDOWN",
        "MOVED",
        "ASK",
        "TRYAGAIN",
        "NOAUTH",
        "NOPERM",
        "WRONGPASS",
        "OOM",
        "BUSY",
        "MISCONF",
        "NOREPLICAS",
    ];
    CODES.contains(&code)
}

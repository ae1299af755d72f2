//! Connections that switched protocols: after a 101 both directions are relayed byte for byte.
//!
//! Promised: each direction has its own buffer of fixed size and ends on its own (half-close); a tunnel on which nothing
//! moves for the idle time is closed; tunnels end when the daemon stops. What is said in the tunnel is not looked at.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::Instant,
};
use tracing::debug;

use crate::{
    shutdown::Shutdown,
    stream::{Switching, Tunnel},
};

/// Bytes in flight in one direction of a tunnel.
const BUFFER_BYTES: usize = 8 * 1024;

/// Carries connections that switched protocols.
#[derive(Clone)]
pub struct Tunnels {
    /// Longest time in which nothing moves.
    pub idle_timeout: Duration,
    /// Ends tunnels.
    pub shutdown: Shutdown,
}

/// When a byte last moved, in milliseconds since the tunnel began.
pub(super) struct Activity {
    began: Instant,
    last: AtomicU64,
}

impl Tunnels {
    /// Relays between the two sides as soon as the client's has switched too, in a task of its own.
    pub fn join(&self, client_side: Switching, upstream: Tunnel) {
        let (idle_timeout, shutdown) = (self.idle_timeout, self.shutdown.clone());
        self.shutdown.spawn(async move {
            let relay = async { relay(client_side.tunnel().await?, upstream, idle_timeout).await };
            let outcome = tokio::select! {
                outcome = relay => outcome,
                () = shutdown.stopped() => Ok(()),
            };
            if let Err(error) = outcome {
                debug!(%error, "a tunnel ended");
            }
        });
    }
}

async fn relay(client: Tunnel, upstream: Tunnel, idle_timeout: Duration) -> io::Result<()> {
    let activity = Activity::begin();
    let (client_reader, client_writer) = tokio::io::split(client);
    let (upstream_reader, upstream_writer) = tokio::io::split(upstream);
    let both = async {
        tokio::try_join!(copy(client_reader, upstream_writer, &activity), copy(upstream_reader, client_writer, &activity))
    };
    tokio::select! {
        ended = both => ended.map(|_| ()),
        () = activity.ceases(idle_timeout) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, activity: &Activity) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = from.read(&mut buffer).await?;
        activity.mark();
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
        to.flush().await?;
        activity.mark();
    }
}

impl Activity {
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), last: AtomicU64::new(0) }
    }

    pub(super) fn mark(&self) {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(elapsed, Ordering::Relaxed);
    }

    /// Resolves once nothing has moved for `idle_timeout`.
    pub(super) async fn ceases(&self, idle_timeout: Duration) {
        loop {
            let deadline = self.began + Duration::from_millis(self.last.load(Ordering::Relaxed)) + idle_timeout;
            if deadline <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}

//! What a service manager hands to the process, and what it is told (sd_listen_fds(3), sd_notify(3)). Without one, nothing.

use std::{env, io, os::unix::net::UnixDatagram};

use listenfd::ListenFd;
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::app::Inherited;

/// What the manager is told.
#[derive(Debug, Clone, Copy)]
pub(super) enum State {
    /// Clients are served.
    Ready,
    /// The configuration is read anew; [`Ready`](Self::Ready) follows.
    Reloading,
    /// The process is on its way out.
    Stopping,
}

/// The sockets that were handed over: the first is the proxy's, the second, where there is one, the admin listener's. To
/// be called once, before there are threads; one that does not listen for TCP is an error.
pub(super) fn inherited() -> io::Result<Inherited> {
    let mut sockets = ListenFd::from_env();
    let mut take = |index| if index < sockets.len() { sockets.take_tcp_listener(index) } else { Ok(None) };
    Ok(Inherited { proxy: take(0)?, admin: take(1)? })
}

/// Tells the manager, where one wants to be told. If it does not hear, it waits for nobody else.
pub(super) fn notify(state: State) {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return };
    let message = match state {
        State::Ready => "READY=1".to_owned(),
        State::Reloading => {
            // Tells this reload from one that was announced before.
            let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Monotonic);
            format!("RELOADING=1\nMONOTONIC_USEC={}", tv_sec * 1_000_000 + tv_nsec / 1000)
        }
        State::Stopping => "STOPPING=1".to_owned(),
    };
    let told = UnixDatagram::unbound().and_then(|socket| socket.send_to(message.as_bytes(), path));
    if let Err(error) = told {
        tracing::debug!(%error, "the service manager does not hear");
    }
}

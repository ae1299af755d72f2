//! What to do when the kernel gives no connection (pure decisions about errors and pauses), and how to take the last ones.

use std::{
    io,
    net::{self, SocketAddr},
    time::Duration,
};

use tokio::net::TcpListener;

/// The first pause: long enough for a descriptor to be freed, too short to be noticed.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// The longest pause: an outage of descriptors ends at most so long before clients are accepted again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Pauses between failing accepts, doubling, so that a lack of descriptors or memory is not met with a busy loop.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

/// Whether the error belongs to the connection that would have been accepted, so that the next one may be tried at once.
/// Linux hands pending network errors of a new socket to `accept`.
pub(super) fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::HostUnreachable
            | Kind::Interrupted
            | Kind::NetworkDown
            | Kind::NetworkUnreachable
    )
}

/// The next connection, once there is one. It belongs to no runtime, so that any worker can take it.
pub(super) async fn accept(socket: &TcpListener) -> io::Result<(net::TcpStream, SocketAddr)> {
    let (stream, address) = socket.accept().await?;
    Ok((stream.into_std()?, address))
}

/// Closes a listening socket after taking who stands in its queue. Only who completes the TCP handshake between the last
/// look and the close is reset.
pub(super) fn backlog(socket: TcpListener) -> impl Iterator<Item = (net::TcpStream, SocketAddr)> {
    let socket = socket.into_std().ok();
    // Whatever the error (mostly that nobody is left), there is nothing more to be had.
    let accept = move || socket.as_ref()?.accept().ok();
    std::iter::from_fn(accept).filter(|(stream, _)| stream.set_nonblocking(true).is_ok())
}

// === impl Backoff ===

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST_PAUSE }
    }
}

impl Backoff {
    /// How long to wait now.
    pub(super) fn next_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_second() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..10).map(|_| backoff.next_pause().as_millis()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    }

    #[test]
    fn only_errors_of_the_listener_itself_cause_a_pause() {
        // ECONNABORTED, ECONNRESET, EHOSTUNREACH, EINTR; EMFILE, ENFILE, ENOMEM, ENOBUFS.
        for (code, about_one) in
            [(103, true), (104, true), (113, true), (4, true), (24, false), (23, false), (12, false), (105, false)]
        {
            let error = io::Error::from_raw_os_error(code);
            assert_eq!(is_about_one_connection(&error), about_one, "{error}");
        }
    }
}

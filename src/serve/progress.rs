//! Where a connection stands. Its socket and its exchange report here; the task that times the connection reads it.
//!
//! hyper alone knows when a head is complete and when a response is written, and says neither; but it calls the service at
//! the first, and drops the response body and then flushes at the second. That is all this needs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::wire::Fault;

/// What a connection is waiting for; a change of value is progress, and starts the wait anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The next request, after so many.
    Idle { requests: u64 },
    /// The rest of a head, after so many requests.
    Head { requests: u64 },
    /// The handler, or a body: others measure these.
    Busy,
    /// The client, who has taken so many bytes and not the next.
    Blocked { written: u64 },
    /// Nothing: what comes next is not to be read.
    Refused(Fault),
}

/// Whose bytes are arriving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arriving {
    /// A request's that is not yet in service.
    Next,
    /// Those of the request in service, or of one after it.
    Current,
    /// A tunnel's.
    Tunnel,
}

/// One connection's standing, shared by its socket, its exchange and its task.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<Mutex<State>>);

/// A request whose response is not yet handed over whole; dropping it says that it is.
#[derive(Debug)]
pub(super) struct Exchange(Progress);

#[derive(Debug)]
struct State {
    stage: Stage,
    requests: u64,
    written: u64,
    blocked: bool,
    upload: bool,
    quiet: bool,
    /// What is wrong with the bytes after so many requests.
    refused: Option<(u64, Fault)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    Head,
    /// The handler runs, or its body has more to give.
    Answering,
    /// All of the response is with hyper, and not yet all of it with the kernel.
    Flushing,
    Upgraded,
}

// === impl Progress ===

impl Progress {
    /// A new connection: its first head is due from now on.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            stage: Stage::Head,
            requests: 0,
            written: 0,
            blocked: false,
            upload: false,
            quiet: false,
            refused: None,
        })))
    }

    /// A head is complete and its request handed to the service.
    pub(super) fn begin(&self, has_body: bool) -> Exchange {
        let mut state = self.lock();
        state.stage = Stage::Answering;
        state.requests += 1;
        state.upload = has_body;
        drop(state);
        Exchange(self.clone())
    }

    /// Bytes have arrived.
    pub(super) fn received(&self) -> Arriving {
        let mut state = self.lock();
        state.quiet = false;
        match state.stage {
            Stage::Idle | Stage::Head => {
                state.stage = Stage::Head;
                Arriving::Next
            }
            Stage::Answering | Stage::Flushing => Arriving::Current,
            Stage::Upgraded => Arriving::Tunnel,
        }
    }

    /// hyper asked for more, having got nothing but whole requests: it holds no byte that it has not made use of.
    pub(super) fn drained(&self) {
        self.lock().quiet = true;
    }

    /// What arrived after the heads of so many requests is not to be read.
    pub(super) fn refuse(&self, heads: u64, fault: Fault) {
        self.lock().refused = Some((heads, fault));
    }

    /// The kernel took so many bytes.
    pub(super) fn wrote(&self, bytes: usize) {
        let mut state = self.lock();
        state.written += bytes as u64;
        state.blocked = false;
    }

    /// The kernel took none: the client has not read what it was sent before.
    pub(super) fn blocked(&self) {
        self.lock().blocked = true;
    }

    /// hyper has nothing more to write for now.
    pub(super) fn flushed(&self) {
        let mut state = self.lock();
        if state.stage == Stage::Flushing {
            state.stage = Stage::Idle;
        }
    }

    /// Whether no request is in service: what hyper writes now is its own answer to a head it could not read.
    pub(super) fn is_awaiting_head(&self) -> bool {
        matches!(self.lock().stage, Stage::Idle | Stage::Head)
    }

    /// Whether hyper holds nothing of this connection that would be missed: no byte to parse, none to write, no request in
    /// service.
    pub(super) fn is_quiet(&self) -> bool {
        let state = self.lock();
        state.quiet && !state.blocked && matches!(state.stage, Stage::Idle | Stage::Head)
    }

    /// Whether the connection is a tunnel.
    pub(super) fn is_upgraded(&self) -> bool {
        self.lock().stage == Stage::Upgraded
    }

    /// Whether there may be bytes that nobody has read: those of the last request's body, or what was refused.
    pub(super) fn has_unread(&self) -> bool {
        let state = self.lock();
        state.upload || state.refused.is_some()
    }

    /// What is awaited now.
    pub(super) fn phase(&self) -> Phase {
        let state = self.lock();
        match state.stage {
            _ if state.blocked => Phase::Blocked { written: state.written },
            Stage::Idle | Stage::Flushing | Stage::Head
                if let Some((heads, fault)) = state.refused
                    && heads == state.requests =>
            {
                Phase::Refused(fault)
            }
            // Not blocked, so that all there was to flush is gone, even if hyper did not say so.
            Stage::Idle | Stage::Flushing => Phase::Idle { requests: state.requests },
            Stage::Head => Phase::Head { requests: state.requests },
            Stage::Answering | Stage::Upgraded => Phase::Busy,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Exchange ===

impl Exchange {
    /// The response turns the connection into a tunnel.
    pub(super) fn upgrade(&self) {
        self.0.lock().stage = Stage::Upgraded;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if state.stage == Stage::Answering {
            state.stage = Stage::Flushing;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_goes_from_head_to_service_to_idle_and_back() {
        let progress = Progress::new();
        assert_eq!(progress.phase(), Phase::Head { requests: 0 }, "the first head is timed from the accept");
        let exchange = progress.begin(false);
        progress.flushed();
        assert_eq!(progress.phase(), Phase::Busy, "a flush in the middle of an exchange ends nothing");
        drop(exchange);
        assert!(!progress.is_awaiting_head(), "the end of the response is not yet written");
        progress.flushed();
        assert_eq!(progress.phase(), Phase::Idle { requests: 1 });
        progress.received();
        assert_eq!(progress.phase(), Phase::Head { requests: 1 });
    }

    #[test]
    fn a_connection_is_quiet_once_hyper_has_used_what_came_and_written_what_it_had() {
        let progress = Progress::new();
        progress.drained();
        assert!(progress.is_quiet(), "nothing has come yet");
        progress.received();
        assert!(!progress.is_quiet(), "a head has begun");
        let exchange = progress.begin(false);
        progress.drained();
        assert!(!progress.is_quiet(), "its request is in service");
        drop(exchange);
        assert!(!progress.is_quiet(), "the end of the response is not yet written");
        progress.flushed();
        assert!(progress.is_quiet());
    }

    #[test]
    fn what_the_client_does_not_take_is_what_is_awaited() {
        let progress = Progress::new();
        let _exchange = progress.begin(false);
        progress.wrote(10);
        progress.blocked();
        assert_eq!(progress.phase(), Phase::Blocked { written: 10 });
        progress.wrote(5);
        assert_eq!(progress.phase(), Phase::Busy);
    }

    #[test]
    fn a_tunnel_never_awaits_a_head() {
        let progress = Progress::new();
        progress.begin(false).upgrade();
        progress.flushed();
        progress.received();
        assert!(progress.is_upgraded() && !progress.is_awaiting_head());
    }
}

//! How long the upstream was waited for, for whoever wants to know.
//!
//! Promised: each attempt is told once, and only of the time in which the upstream alone was waited for, from the last piece
//! of the request that it took. A caller that goes away ends the attempt too. Not promised: attempts that never reached the
//! upstream, or that broke: they say nothing about its speed.

use std::time::Duration;

use hyper::StatusCode;
use tokio::time::Instant;

use super::upload::UploadWatch;

/// Learns how long attempts took.
pub trait Observer: Send + Sync {
    /// An attempt ended like this after the upstream was waited for that long.
    fn observe(&self, attempted: Attempted, took: Duration);
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempted {
    /// With the head of an answer.
    Answered(StatusCode),
    /// With none in time; the time is then the time-out.
    TimedOut,
    /// With none yet, because the caller went away.
    Abandoned,
}

/// Measures one attempt; dropped while it runs, the caller has gone away.
pub(super) struct Stopwatch<'a> {
    observer: Option<&'a dyn Observer>,
    started: Instant,
    watch: Option<UploadWatch>,
}

// === impl Stopwatch ===

impl<'a> Stopwatch<'a> {
    /// Starts it for a request whose body is watched so.
    pub(super) fn start(observer: Option<&'a dyn Observer>, watch: Option<UploadWatch>) -> Self {
        Self { observer, started: Instant::now(), watch }
    }

    /// How long the attempt has lasted.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn answered(mut self, status: StatusCode) {
        self.tell(Attempted::Answered(status));
    }

    pub(super) fn timed_out(mut self, limit: Duration) {
        if let Some(observer) = self.observer.take() {
            observer.observe(Attempted::TimedOut, limit);
        }
    }

    /// The attempt broke.
    pub(super) fn discard(mut self) {
        self.observer = None;
    }

    /// Since when the upstream is waited for; `None` while it is the client that is.
    pub(super) fn waited_since(&self) -> Option<Instant> {
        self.watch.as_ref().map_or(Some(self.started), UploadWatch::waited_since)
    }

    fn tell(&mut self, attempted: Attempted) {
        if let Some((observer, since)) = self.observer.take().zip(self.waited_since()) {
            observer.observe(attempted, since.elapsed());
        }
    }
}

impl Drop for Stopwatch<'_> {
    fn drop(&mut self) {
        self.tell(Attempted::Abandoned);
    }
}

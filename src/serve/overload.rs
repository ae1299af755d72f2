//! Places for connections, and who gives one up.
//!
//! Promised: never more connections than places; while somebody waits for one, the connection that has idled longest after a
//! request is closed for it. A connection that has not yet sent its first request is not idle: its head is due.

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::workers::Assignment;

/// The places for connections.
#[derive(Debug)]
pub(super) struct Room {
    places: Arc<Semaphore>,
    /// Waited on by connections that idle, which it wakes in the order in which they began to.
    wanted: Notify,
}

/// A place among the connections that may be open, one at the worker that serves them, and one on the gauge that counts them.
pub(super) struct Slot {
    open: Gauge,
    _places: (OwnedSemaphorePermit, Assignment),
}

// === impl Room ===

impl Room {
    pub(super) fn new(places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))), wanted: Notify::new() }
    }

    /// Waits for a place. Where there is none, the next connection that idles is asked to leave.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(place);
        }
        self.wanted.notify_one();
        // The semaphore is never closed, so that this is never `None`.
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Resolves when somebody wants the place of a connection that idles. If it has resolved when it is dropped unheard, the next
    /// one is asked.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }
}

// === impl Slot ===

impl Slot {
    pub(super) fn new(places: (OwnedSemaphorePermit, Assignment), open: Gauge) -> Self {
        open.inc();
        Self { open, _places: places }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.open.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        pin::{Pin, pin},
        task::Poll,
    };

    use super::*;

    async fn is_asked(idle: Pin<&mut impl Future<Output = ()>>) -> bool {
        let mut idle = Some(idle);
        poll_fn(|context| Poll::Ready(idle.take().is_some_and(|idle| idle.poll(context).is_ready()))).await
    }

    #[tokio::test]
    async fn who_idles_longest_leaves_first_and_who_is_in_use_passes_it_on() {
        let room = Room::new(1);
        let place = room.place().await;
        let mut first = Box::pin(room.wanted());
        let (mut second, mut third) = (pin!(room.wanted()), pin!(room.wanted()));
        assert!(!is_asked(first.as_mut()).await, "nobody waits");
        assert!(!is_asked(second.as_mut()).await && !is_asked(third.as_mut()).await);
        let mut waiting = pin!(room.place());
        assert!(poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending())).await);
        drop(first);
        assert!(is_asked(second.as_mut()).await);
        assert!(!is_asked(third.as_mut()).await, "one place was wanted");
        drop(place);
        assert!(waiting.await.is_some());
    }
}

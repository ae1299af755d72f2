//! Places for connections, and who gives one up.
//!
//! Promised: never more connections than places; while somebody waits for one, the connection that has idled longest after a
//! request is closed for it. A connection that has not yet sent its first request is not idle: its head is due.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, futures::Notified};

/// The places for connections.
#[derive(Debug)]
pub(super) struct Room {
    places: Arc<Semaphore>,
    /// Waited on by connections that idle, which it wakes in the order in which they began to.
    wanted: Notify,
}

/// One connection's willingness to leave while it idles.
pub(super) struct Leave<'r> {
    room: &'r Room,
    asked: Pin<Box<Option<Notified<'r>>>>,
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

    /// Resolves when somebody wants the place of a connection that idles.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }
}

// === impl Leave ===

impl<'r> Leave<'r> {
    pub(super) fn new(room: &'r Room) -> Self {
        Self { room, asked: Box::pin(None) }
    }

    /// The connection idles: ready when it should go.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.asked.is_none() {
            self.asked.set(Some(self.room.wanted.notified()));
        }
        self.asked.as_mut().as_pin_mut().map_or(Poll::Pending, |asked| asked.poll(context))
    }

    /// The connection is in use. If it was asked meanwhile, the next one is.
    pub(super) fn withdraw(&mut self) {
        if self.asked.is_some() {
            self.asked.set(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn who_idles_longest_leaves_first_and_who_is_in_use_passes_it_on() {
        let room = Room::new(1);
        let place = room.place().await;
        let [mut first, mut second, mut third] = [Leave::new(&room), Leave::new(&room), Leave::new(&room)];
        let asked = async |leave: &mut Leave<'_>| poll_fn(|context| Poll::Ready(leave.poll(context).is_ready())).await;
        for leave in [&mut first, &mut second, &mut third] {
            assert!(!asked(leave).await, "nobody waits");
        }
        let waiting = room.place();
        tokio::pin!(waiting);
        assert!(poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending())).await);
        first.withdraw();
        assert!(asked(&mut second).await);
        assert!(!asked(&mut third).await, "one place was wanted");
        drop(place);
        assert!(waiting.await.is_some());
    }
}

//! The one timer of a connection.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Fires when something is due. It may be set earlier than that: moving it at every request would cost more than the rare early
/// wake-up.
pub(super) struct Clock(Pin<Box<Sleep>>);

// === impl Clock ===

impl Clock {
    pub(super) fn new(due: Instant) -> Self {
        Self(Box::pin(sleep_until(due)))
    }

    /// Ready at `due`.
    pub(super) fn poll(&mut self, due: Instant, context: &mut Context<'_>) -> Poll<()> {
        if self.0.deadline() > due {
            self.0.as_mut().reset(due);
        }
        loop {
            ready!(self.0.as_mut().poll(context));
            if self.0.deadline() >= due {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(due);
        }
    }
}

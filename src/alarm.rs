//! A timer for deadlines that are hardly ever reached.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// One timer of the runtime, for one deadline after the other. It is moved only where it would fire too late; where it fires too
/// early, which costs less than to move it for each deadline, nobody is told.
#[derive(Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

// === impl Alarm ===

impl Alarm {
    /// Ready once `deadline` has passed.
    pub(crate) fn poll(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(context));
            if sleep.deadline() == deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_keeps_every_deadline_whatever_the_last_one_was() {
        let mut alarm = Alarm::default();
        for milliseconds in [50, 100, 20, 0, 300, 300] {
            let deadline = Instant::now() + Duration::from_millis(milliseconds);
            poll_fn(|context| alarm.poll(deadline, context)).await;
            assert_eq!(Instant::now(), deadline);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn deadlines_that_were_not_awaited_move_no_later_one() {
        let mut alarm = Alarm::default();
        let begun = Instant::now();
        let mut deadline = begun;
        for step in 1..=10 {
            deadline = begun + Duration::from_millis(100 * step);
            assert!(poll_fn(|context| Poll::Ready(alarm.poll(deadline, context))).await.is_pending());
            tokio::time::advance(Duration::from_millis(90)).await;
        }
        poll_fn(|context| alarm.poll(deadline, context)).await;
        assert_eq!(Instant::now(), deadline);
    }
}

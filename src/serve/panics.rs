//! A panic costs what panicked, and is counted.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use prometheus_client::metrics::counter::Counter;

pin_project! {
    /// Runs a future to its end, or to its panic: that is `None`, and counted. What panicked is never polled again, so
    /// nobody sees what it left half done. The future stays where it was put: a request's is several kilobytes, which an
    /// async function would hold, and move, twice.
    pub(super) struct CatchPanic<F> {
        #[pin]
        future: F,
        panics: Counter,
    }
}

/// Catches the panic of a future.
pub(super) fn catch_panic<F: Future>(future: F, panics: Counter) -> CatchPanic<F> {
    CatchPanic { future, panics }
}

impl<F: Future> Future for CatchPanic<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = catch_unwind(AssertUnwindSafe(|| this.future.poll(context)));
        if polled.is_err() {
            this.panics.inc();
        }
        polled.map_or(Poll::Ready(None), |poll| poll.map(Some))
    }
}

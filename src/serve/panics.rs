//! A panic costs what panicked, and is counted.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
};

use prometheus_client::metrics::counter::Counter;

/// Runs a future to its end, or to its panic: that is `None`, and counted. What panicked is never polled again, so nobody
/// sees what it left half done.
pub(super) async fn catch_panic<F: Future>(future: F, panics: Counter) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        if polled.is_err() {
            panics.inc();
        }
        polled.map_or(Poll::Ready(None), |poll| poll.map(Some))
    })
    .await
}

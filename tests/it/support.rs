//! What the tests share: servers of their own on free ports, and ways to ask them.

use std::time::Duration;

pub mod browser;
pub mod certificates;
pub mod cluster;
pub mod daemon;
pub mod forwarding;
pub mod http;
pub mod http2;
pub mod http2_upstream;
pub mod listening;
pub mod oracle;
pub mod raw_client;
pub mod raw_upstream;
pub mod redis_server;
pub mod relay;
pub mod rig;
pub mod sentinels;
pub mod stub_upstream;
pub mod test_gate;
pub mod token_server;
pub mod websocket;

/// The longest that any awaited state may take; generous, because machines are shared.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks again and again until `condition` holds; fails when it does not within [`PATIENCE`].
pub async fn until(mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the awaited state did not come");
}

/// Awaits something that must happen soon; a test that would hang fails instead.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it did not happen")
}

//! Synthetic guests, each with an id and a connection of its own: ordinary ones who chat well inside their limit, and one
//! who abuses. Their requests take the way anyone's take, through the proxy's port.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::StatusCode;

use super::client::Client;
use crate::shutdown::Shutdown;

/// The guests' counts, by kind.
#[derive(Debug, Clone, Default)]
pub(super) struct Crowd {
    /// Of the ordinary ones, together.
    pub(super) ordinary: Arc<Tally>,
    /// Of the one who abuses.
    pub(super) abuser: Arc<Tally>,
}

/// How requests ended.
#[derive(Debug, Default)]
pub(super) struct Tally {
    passed: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

/// How requests had ended at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count {
    /// Answered by the upstream.
    pub(super) passed: u64,
    /// Answered 429.
    pub(super) refused: u64,
    /// Answered otherwise, or not at all.
    pub(super) failed: u64,
}

// === impl Crowd ===

impl Crowd {
    /// Lets `ordinary` guests and the abuser in; they leave when draining begins, after the answer they wait for.
    pub(super) fn invite(ordinary: u16, proxy: SocketAddr, shutdown: &Shutdown) -> Self {
        let crowd = Self::default();
        for number in 1..=ordinary {
            let tally = Arc::clone(&crowd.ordinary);
            shutdown.spawn(visit(format!("guest-{number}"), proxy, chat_pause, tally, shutdown.clone()));
        }
        let tally = Arc::clone(&crowd.abuser);
        shutdown.spawn(visit("abuser".to_owned(), proxy, || Duration::from_millis(50), tally, shutdown.clone()));
        crowd
    }
}

/// From one message to the next: 3 s on average, below a third of a message a second even where load slows refilling most.
fn chat_pause() -> Duration {
    Duration::from_millis(fastrand::u64(1500..4500))
}

async fn visit(client_id: String, proxy: SocketAddr, pause: fn() -> Duration, tally: Arc<Tally>, shutdown: Shutdown) {
    let mut client = Client::new(proxy);
    let path = format!("/api/v2/conversations/webchat/{client_id}/messages");
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause()) => {}
            () = shutdown.draining() => return,
        }
        let ended = match client.get(&path, &client_id).await {
            Ok((StatusCode::OK, _)) => &tally.passed,
            Ok((StatusCode::TOO_MANY_REQUESTS, _)) => &tally.refused,
            Ok(_) | Err(_) => &tally.failed,
        };
        ended.fetch_add(1, Relaxed);
    }
}

// === impl Tally ===

impl Tally {
    /// The counts now.
    pub(super) fn count(&self) -> Count {
        let [passed, refused, failed] = [&self.passed, &self.refused, &self.failed].map(|counter| counter.load(Relaxed));
        Count { passed, refused, failed }
    }
}

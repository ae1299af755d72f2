//! The WebSocket gate: holds what a client may do over its sockets to limits, and relays its frames as they came.
//!
//! Promised: no byte passes before a valid 101; a client has at most so many sockets over all replicas, as far as
//! [`places`](crate::limiter::places) promises; its messages are charged, by message and not by frame, to one bucket in the
//! same store as requests, control frames are free; a message over the limit is held back, and with it, because reading
//! stops, its sender; only past `max_pause` is the socket closed, with 1008. Frames are never reordered, lost or changed, and
//! those of the upstream pass unlooked-at but for where they end. Every end of our own is said to both sides with a close
//! frame between two frames.
//! Not promised: that compressed or binary messages are looked into; that utf-8 or close codes are valid, which the upstream
//! judges.
//!
//! The way of a socket: [`sockets`](super::sockets) opens it where [`handshake`] tells that it is asked for, and then granted;
//! `relay` carries it, `frame` reads its headers, `cost` says what a message takes, and `allowance` takes it.

use std::{sync::Arc, time::Duration};

use hyper::HeaderMap;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

mod allowance;
mod cost;
pub mod frame;
pub mod handshake;
mod relay;

use allowance::Allowance;
pub use cost::Costs;
use relay::Session;

use super::{
    response::InFlight,
    violation::{Seen, ViolationLog},
};
use crate::{
    limiter::{
        Limit, Limiter,
        key::{Key, KeyHasher},
        places::Place,
    },
    shutdown::Shutdown,
    stream::{Switching, Tunnel},
    upstream::UpstreamError,
};

/// What sockets of one route may do.
pub struct Policy {
    /// Stands in store keys.
    pub id: String,
    /// Sockets of one client, over all replicas.
    pub sockets: u32,
    /// What messages are charged to.
    pub messages: Limit,
    /// What a busy socket reserves beyond the message at hand, in micro-tokens.
    pub ahead: u64,
    /// What a message takes.
    pub costs: Costs,
    /// Longest time one message is held back.
    pub max_pause: Duration,
    /// Longest time in which nothing moves; longer than `max_pause`.
    pub idle_timeout: Duration,
    /// Whether messages over the limit pass, and are only counted and told of.
    pub is_shadow: bool,
    /// What is counted.
    pub counters: Counters,
}

/// What a route counts of its sockets.
pub struct Counters {
    /// Sockets that are open.
    pub open: Gauge,
    /// Messages that passed at once.
    pub admitted: Counter,
    /// Messages that passed after they were held back; or would have been, in shadow.
    pub paced: Counter,
    /// Messages that closed their socket; the same.
    pub refused: Counter,
    /// Ends of our own, in the order of [`Close::ALL`].
    pub closes: [Counter; 4],
}

/// Why a socket is ended here (RFC 6455, section 7.4.1, and the registry it founds).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// The daemon stops, or nothing moved for too long: 1001.
    GoingAway,
    /// The client broke the protocol: 1002.
    ProtocolError,
    /// A message would have to be held back for too long: 1008.
    LimitExceeded,
    /// The store is in trouble, and stayed in it: 1013.
    TryAgainLater,
}

/// What all sockets share.
pub struct Shared {
    /// Decides about messages.
    pub limiter: Arc<Limiter>,
    /// Names clients.
    pub hasher: KeyHasher,
    /// Tells of refusals.
    pub violations: ViolationLog,
    /// Ends sockets.
    pub shutdown: Shutdown,
    /// From the drain's begin to the close of sockets that are still open.
    pub grace: Duration,
}

/// A socket that was asked for, with its place among the client's.
pub struct Opening {
    pub(super) shared: Arc<Shared>,
    pub(super) policy: Arc<Policy>,
    /// Its client's bucket for messages.
    pub(super) key: Key,
    pub(super) place: Option<Place>,
    /// What a 101 has to say (RFC 6455, section 4.2.2).
    pub(super) accept: Option<String>,
    pub(super) seen: Seen,
    pub(super) is_exempt: bool,
}

// === impl Close ===

impl Close {
    /// Every close, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::GoingAway, Self::ProtocolError, Self::LimitExceeded, Self::TryAgainLater];

    /// Its number on the wire.
    pub fn code(self) -> u16 {
        match self {
            Self::GoingAway => 1001,
            Self::ProtocolError => 1002,
            Self::LimitExceeded => 1008,
            Self::TryAgainLater => 1013,
        }
    }

    /// What it says to people.
    fn reason(self) -> &'static str {
        match self {
            Self::GoingAway => "going away",
            Self::ProtocolError => "protocol error",
            Self::LimitExceeded => "rate limit exceeded",
            Self::TryAgainLater => "try again later",
        }
    }
}

// === impl Opening ===

impl Opening {
    /// Whether a 101 with `headers` grants what was asked for.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), UpstreamError> {
        if self.accept.is_some() && handshake::is_granted(headers, self.accept.as_deref()) {
            return Ok(());
        }
        Err(UpstreamError::Protocol("it switched to something other than the WebSocket that was asked for".into()))
    }

    /// Carries the socket as soon as the client's side has switched too, in a task of its own.
    pub fn join(self, client_side: Switching, upstream: Tunnel) {
        let shutdown = self.shared.shutdown.clone();
        shutdown.clone().spawn(async move {
            let carried = async {
                match client_side.tunnel().await {
                    Ok(client) => self.carry(client, upstream).await,
                    Err(error) => tracing::debug!(%error, "a socket did not open"),
                }
            };
            tokio::select! {
                () = carried => {}
                () = shutdown.stopped() => {}
            }
        });
    }

    async fn carry(self, client: Tunnel, upstream: Tunnel) {
        let Self { shared, policy, key, place, seen, is_exempt, .. } = self;
        let allowance = (!is_exempt).then(|| Allowance::new(Arc::clone(&shared.limiter), Arc::clone(&policy), key));
        let _open = InFlight::new(&policy.counters.open);
        let session = Session { shared, policy, seen };
        session.run(client, upstream, allowance).await;
        drop(place);
    }
}

//! What is said to Redis and what it answers: the scripts of `lua/`, their arguments, their replies. No I/O.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use arrayvec::ArrayVec;
use redis::Cmd;

use crate::{
    config::Factor,
    limiter::{Charge, bucket::AHEAD_MAX, micros, scale::ScaleName},
};

mod answer;
pub mod control;
mod decision;
mod observe;

pub use answer::{admitted, verdict};
pub use decision::Decision;
use decision::SCALES_MAX;

/// Stands behind the prefix of every key: what is stored under another version is never read.
const SCHEMA_VERSION: u8 = 1;

/// How long a scale's record outlives its last publication, in milliseconds: 30 days. It protects against records that
/// stay for ever; while anyone publishes, none is lost.
const RECORD_LIFETIME: u64 = 30 * 24 * 3600 * 1000;

/// A script, by what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// [`Store::reserve`](crate::limiter::Store::reserve) and [`Store::refund`](crate::limiter::Store::refund).
    Charge,
    /// [`Store::publish`](crate::limiter::Store::publish)
    Publish,
    /// [`Limiter::lead`](crate::limiter::Limiter::lead)
    Lease,
    /// [`Limiter::pause`](crate::limiter::Limiter::pause)
    Pause,
    /// [`Redis::beat`](super::Redis::beat)
    Heartbeat,
    /// [`Limiter::place`](crate::limiter::Limiter::place)
    Places,
    /// [`Redis::reset`](super::Redis::reset)
    Reset,
    /// [`Redis::amend`](super::Redis::amend)
    Amend,
    /// [`Limiter::observe`](crate::limiter::Limiter::observe)
    Observe,
}

/// Which way tokens go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// A decision takes them.
    Take,
    /// The same, and those that are not there yet, but will be in that time.
    Reserve(Duration),
    /// A refund gives back what was taken at this time by the store's clock, in microseconds.
    Give(u64),
    /// The same for a place that is so far ahead, unless a bucket owes for longer.
    GiveBack {
        /// Its time, by the store's clock.
        at: u64,
        /// How far that is.
        ahead: Duration,
    },
    /// A debt takes them: of a bucket no more than there are, of a window all.
    Pay,
}

/// What a publication does to a record that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It switches the clock to another factor.
    Switch,
    /// Nothing: the record is only written where there is none.
    Restore,
}

/// The part of every key that comes before the bucket or the scale. Keys of one space are never apart: one call may name
/// any of them.
#[derive(Debug, Clone)]
pub struct KeySpace(Arc<[u8]>);

// === impl Script ===

impl Script {
    /// Every script.
    pub const ALL: [Self; 9] = [
        Self::Charge,
        Self::Publish,
        Self::Lease,
        Self::Pause,
        Self::Heartbeat,
        Self::Places,
        Self::Reset,
        Self::Amend,
        Self::Observe,
    ];

    /// Its source.
    pub fn source(self) -> &'static str {
        match self {
            Self::Charge => include_str!("../../../lua/charge.lua"),
            Self::Publish => include_str!("../../../lua/publish.lua"),
            Self::Lease => include_str!("../../../lua/lease.lua"),
            Self::Pause => include_str!("../../../lua/pause.lua"),
            Self::Heartbeat => include_str!("../../../lua/heartbeat.lua"),
            Self::Reset => include_str!("../../../lua/reset.lua"),
            Self::Amend => include_str!("../../../lua/amend.lua"),
            Self::Places => include_str!("../../../lua/places.lua"),
            Self::Observe => include_str!("../../../lua/observe.lua"),
        }
    }

    /// The name under which Redis knows it: SHA-1 of its source, in hexadecimal.
    pub fn digest(self) -> &'static str {
        static DIGESTS: LazyLock<[String; Script::ALL.len()]> =
            LazyLock::new(|| Script::ALL.map(|script| sha1_smol::Sha1::from(script.source()).digest().to_string()));
        &DIGESTS[self as usize]
    }
}

// === impl Flow ===

impl Flow {
    /// Takes what is there, and what will be `within` that time.
    pub fn take(within: Duration) -> Self {
        if within.is_zero() { Self::Take } else { Self::Reserve(within) }
    }

    /// The time that the script is told, in microseconds.
    fn ahead(self) -> Option<u64> {
        match self {
            Self::Reserve(ahead) | Self::GiveBack { ahead, .. } => Some(micros(ahead).min(AHEAD_MAX)),
            Self::Take | Self::Give(_) | Self::Pay => None,
        }
    }
}

// === impl KeySpace ===

impl KeySpace {
    /// The keys under a configured prefix.
    pub fn new(prefix: &str) -> Self {
        Self(format!("{prefix}:{SCHEMA_VERSION}:").into_bytes().into())
    }

    /// The keys of one of the groups that a Cluster may keep apart: behind the hash tag `{tag}`.
    pub fn tagged(prefix: &str, tag: &str) -> Self {
        Self(format!("{prefix}:{SCHEMA_VERSION}:{{{tag}}}").into_bytes().into())
    }

    /// Calls [`Script::Charge`], whose digest is `digest`, for one decision.
    pub fn charge(&self, digest: &str, flow: Flow, charges: &[Charge<'_>]) -> Cmd {
        self.decide(digest, [&Decision::new(flow, charges)])
    }

    /// The same for some decisions, one after the other; what they follow is at most 127 scales.
    pub fn decide<'a>(&self, digest: &str, decisions: impl IntoIterator<Item = &'a Decision> + Clone) -> Cmd {
        let charges = || decisions.clone().into_iter().flat_map(Decision::charges);
        let mut scales = ArrayVec::<&ScaleName, SCALES_MAX>::new();
        for scale in charges().filter_map(|charge| charge.scale.as_ref()) {
            if !scales.contains(&scale) {
                // Beyond what fits, a limit would follow none.
                let _ = scales.try_push(scale);
            }
        }
        let number = |wanted: &ScaleName| scales.iter().position(|scale| *scale == wanted).map_or(0, |place| place + 1);
        let keys = charges().count() + scales.len();
        let mut command = Cmd::with_capacity(4 + 2 * keys, 128 + 64 * keys);
        command.arg("EVALSHA").arg(digest).arg(keys);
        let mut text = Vec::with_capacity(64);
        for charge in charges() {
            self.write_key(&mut text, &charge.key.text());
            command.arg(&text[..]);
        }
        for scale in scales.iter().rev() {
            self.write_scale(&mut text, scale);
            command.arg(&text[..]);
        }
        let mut decisions = decisions.into_iter().peekable();
        while let Some(decision) = decisions.next() {
            let mut times = 1;
            while times < u8::MAX && decisions.next_if(|next| next.asks_like(decision)).is_some() {
                times += 1;
            }
            text.clear();
            decision.write(times, number, &mut text);
            command.arg(&text[..]);
        }
        command
    }

    /// Calls [`Script::Publish`], whose digest is `digest`.
    pub fn publish(&self, digest: &str, scale: &ScaleName, factor: Factor, change: Change) -> Cmd {
        let mut command = Cmd::new();
        let mut key = Vec::new();
        self.write_scale(&mut key, scale);
        command.arg("EVALSHA").arg(digest).arg(1).arg(&key[..]).arg(factor.millionths()).arg(RECORD_LIFETIME);
        command.arg(u8::from(change == Change::Restore));
        command
    }

    /// A scale's key holds a colon where a bucket's, being base64, has none: no scale can be named like a bucket.
    pub(super) fn write_scale(&self, key: &mut Vec<u8>, scale: &ScaleName) {
        self.write_key(key, b"scale:");
        key.extend_from_slice(scale.as_str().as_bytes());
    }

    pub(super) fn write_key(&self, key: &mut Vec<u8>, name: &[u8]) {
        key.clear();
        key.extend_from_slice(&self.0);
        key.extend_from_slice(name);
    }
}

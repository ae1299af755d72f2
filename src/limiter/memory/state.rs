//! What is kept in this process of one limit under one key, whatever the limit's kind.

use super::{Limit, Standing};
use crate::{
    config::Factor,
    limiter::{
        Kind,
        bucket::{Level, OWED_MAX},
        scale::{real_wait, scaled_span},
        window::{Log, Room},
    },
};

/// What is kept of a limit under a key.
pub(super) enum State {
    Bucket(Level),
    /// Apart, so that a bucket takes no more room than it needs.
    Window(Box<Log>),
}

/// What a write does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Movement {
    /// Takes as much as this, at a real time that may be ahead.
    Take { cost: u64, due: u64 },
    /// Gives back what was taken at a time.
    Give { cost: u64, at: u64 },
}

/// By what time and what factor a limit goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// The real time, in microseconds.
    pub(super) now: u64,
    /// What the limit's own clock shows, in microseconds.
    pub(super) clock: u64,
    pub(super) factor: Factor,
}

impl State {
    /// Whether it is of the limit's kind; a limit that has changed its kind has a new key.
    pub(super) fn is_of(&self, limit: &Limit) -> bool {
        matches!((self, limit.kind), (Self::Bucket(_), Kind::Bucket(_)) | (Self::Window(_), Kind::Window(_)))
    }

    /// What is kept of a limit from which nothing is taken.
    pub(super) fn new(limit: &Limit, pace: Pace) -> Self {
        match limit.kind {
            Kind::Bucket(bucket) => Self::Bucket(bucket.full(pace.clock)),
            Kind::Window(_) => Self::Window(Box::default()),
        }
    }

    /// How the limit stands that is asked for `cost`.
    pub(super) fn standing(state: Option<&Self>, limit: &Limit, pace: Pace, cost: u64) -> Standing {
        let Pace { now, clock, factor } = pace;
        let (tokens, owed, wait) = match (limit.kind, state) {
            (Kind::Bucket(bucket), Some(Self::Bucket(level))) => {
                let level = bucket.settle(*level, clock);
                (level.tokens, level.owed, 0)
            }
            (Kind::Bucket(bucket), _) => (bucket.capacity, 0, 0),
            (Kind::Window(window), state) => {
                let in_force = window.in_force(factor, limit.slowest, cost);
                let room = match state {
                    Some(Self::Window(log)) => window.room(log, now, in_force, cost),
                    _ => window.room(&Log::default(), now, in_force, cost),
                };
                (room.tokens, 0, room.wait)
            }
        };
        Standing { tokens, owed, factor, wait }
    }

    /// When `cost` may be taken of a limit that stands so: now, or within so many microseconds; `None` where it would be later.
    pub(super) fn due(
        state: Option<&Self>,
        limit: &Limit,
        pace: Pace,
        standing: &Standing,
        cost: u64,
        within: u64,
    ) -> Option<u64> {
        match (limit.kind, state) {
            (Kind::Bucket(bucket), _) => {
                let level = Level { tokens: standing.tokens, owed: standing.owed, at: 0 };
                bucket.reserve(level, cost, scaled_span(within, pace.factor)).map(|_| pace.now)
            }
            (Kind::Window(window), Some(Self::Window(log))) => {
                let in_force = window.in_force(pace.factor, limit.slowest, cost);
                let room = Room { tokens: standing.tokens, wait: standing.wait };
                window.place(log, pace.now, room, in_force, cost, within)
            }
            (Kind::Window(_), _) => (cost <= standing.tokens).then_some(pace.now),
        }
    }

    /// What is taken, in micro-tokens, whatever the factor; of a bucket, what it lacks and what it owes.
    pub(super) fn taken(&self, limit: &Limit, pace: Pace) -> u64 {
        match (limit.kind, self) {
            (Kind::Bucket(bucket), Self::Bucket(level)) => {
                let level = bucket.settle(*level, pace.clock);
                bucket.capacity.saturating_sub(level.tokens).saturating_add(level.owed)
            }
            (Kind::Window(window), Self::Window(log)) => window.taken(log, pace.now),
            _ => 0,
        }
    }

    /// Does `movement`; answers the real time at which nothing that is kept counts any more.
    pub(super) fn apply(&mut self, limit: &Limit, pace: Pace, movement: Movement) -> u64 {
        if !self.is_of(limit) {
            *self = Self::new(limit, pace);
        }
        match (limit.kind, self) {
            (Kind::Bucket(bucket), Self::Bucket(level)) => {
                *level = bucket.settle(*level, pace.clock);
                *level = match movement {
                    // What it is to owe was found to be little enough, or is taken over from a store that found so.
                    Movement::Take { cost, .. } => Level {
                        tokens: level.tokens.saturating_sub(cost),
                        owed: level.owed.saturating_add(cost.saturating_sub(level.tokens)).min(OWED_MAX),
                        ..*level
                    },
                    Movement::Give { cost, .. } => bucket.refund(*level, cost),
                };
                let fill =
                    real_wait(bucket.wait(level.tokens, bucket.capacity + level.owed), pace.factor.min(limit.slowest));
                pace.now.saturating_add(fill)
            }
            (Kind::Window(window), Self::Window(log)) => {
                window.settle(log, pace.now);
                match movement {
                    Movement::Take { cost, due } => window.charge(log, due, cost),
                    Movement::Give { cost, at } => window.refund(log, cost, at),
                }
                window.over_at(log)
            }
            _ => pace.now,
        }
    }
}

//! The sliding window, as integer arithmetic: the specification that every store follows to the unit.
//!
//! A window keeps a log of what was taken: marks of a time and an amount, equal times merged. What was taken at a moment
//! counts for the window's length from then on, that moment included, and no longer.
//!
//! Promised: in any stretch of time of the window's length, no more than the quota in force is taken, whatever the order,
//! the costs and the equality of times. Of a quota of up to [`MARKS_MAX`] requests, whatever was taken counts to the
//! microsecond as long as it should. Above that, when there would be more marks, their times are rounded up onto a grid of
//! a [`GRID`]th of the length: never more than the quota, at the price that some of it may come back up to that much later
//! (a minute's window: 0.94 s).
//!
//! A place may be [reserved](Window::place) before there is room: its mark then stands at the time at which there will be, and
//! whoever asks meanwhile finds it taken already. So places go in the order in which they were reserved, and the quota holds
//! for the times at which they go. No more is reserved where a log has [`RESERVED_MARKS_MAX`] marks.
//! Not promised: the same across a change of a limit's length in the configuration; marks made before it count for the new.
//!
//! Memory is bounded by [`MARKS_MAX`] marks a key, and by [`RESERVED_MARKS_MAX`] while places far ahead are reserved. Sub-window counters would hold half as much and be late for every quota;
//! a log without a grid is exact for every quota, but has no bound. With both, quotas as Data Actions have them (100 a
//! minute) are exact. Measured in Redis 7, in bytes of a key and microseconds of a decision (a bucket: 16 µs):
//!
//! | marks | bytes | admitted | refused |
//! |---|---|---|---|
//! | 1 | 104 | 16 | 9 |
//! | 16 | 296 | 15 | 11 |
//! | 64 | 968 | 23 | 13 |
//! | 128 | 1864 | 30 | 15 |
//! | above, on the grid | 1864 | 31 | 16 |

use super::bucket::{AHEAD_MAX, MICRO};
use crate::config::{Factor, SlidingWindow};

/// The most marks of one window.
pub const MARKS_MAX: usize = 128;

/// The most marks of a window in which places are reserved: how many times may lie ahead. It bounds what a decision reads.
pub const RESERVED_MARKS_MAX: usize = 1024;

/// Into how many parts a window is divided where its marks are too many: half of them, so that as many charges as that pass
/// before they are rounded again.
pub const GRID: u64 = 64;

/// Quota and length of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// What may be taken in one window, in micro-tokens (whole tokens, 1 to 10⁶ of them).
    pub quota: u64,
    /// In microseconds (1 to 10¹¹).
    pub length: u64,
}

/// What was taken out of a window, as long as it counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Log {
    /// In rising order of time, no two of one time.
    marks: Vec<Mark>,
}

/// What was taken at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    /// In microseconds.
    at: u64,
    /// In micro-tokens; never 0.
    amount: u64,
}

/// What there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// In micro-tokens.
    pub tokens: u64,
    /// Microseconds until the cost that was asked about has room; where it has already, until something comes back, and 0
    /// where nothing is taken.
    pub wait: u64,
}

// === impl Window ===

impl Window {
    /// The quota while the load factor is `factor`, and is heeded down to `lowest`: whole tokens, rounded down, at least one,
    /// and at least `cost` where the configured quota has room for that: a request that fits must be able to pass.
    pub fn in_force(self, factor: Factor, lowest: Factor, cost: u64) -> u64 {
        let scaled = self.quota / MICRO * u64::from(factor.max(lowest).millionths()) / MICRO;
        let quota = scaled.max(1) * MICRO;
        if cost <= self.quota { quota.max(cost) } else { quota }
    }

    /// Forgets what no longer counts at `now`.
    pub fn settle(self, log: &mut Log, now: u64) {
        let live = log.marks.partition_point(|mark| self.is_over(*mark, now));
        log.marks.drain(..live);
    }

    /// What there is room for at `now` under the quota `in_force`, and how long to wait for `cost`. A cost above the quota
    /// never has room; the wait for it is until nothing is taken any more.
    pub fn room(self, log: &Log, now: u64, in_force: u64, cost: u64) -> Room {
        let taken = self.taken(log, now);
        let missing = taken.saturating_add(cost).saturating_sub(in_force).max(1);
        let (mut regained, mut wait) = (0, 0);
        for mark in self.live(log, now) {
            wait = mark.at + self.length - now;
            regained += mark.amount;
            if regained >= missing {
                break;
            }
        }
        // Only a clock that stepped back knows later marks; stores forget those in a window's time and an hour.
        Room { tokens: in_force.saturating_sub(taken), wait: wait.min(self.length + self.grid() + AHEAD_MAX) }
    }

    /// When `cost` may be taken that is asked for at `now` and finds `room` under the quota `in_force`: now, or within so many
    /// microseconds; `None` where it would be later.
    pub fn place(self, log: &Log, now: u64, room: Room, in_force: u64, cost: u64, within: u64) -> Option<u64> {
        if cost <= room.tokens {
            return Some(now);
        }
        let fits = cost <= in_force && self.live(log, now).count() < RESERVED_MARKS_MAX;
        (within > 0 && fits && room.wait <= within).then_some(now + room.wait)
    }

    /// Notes in a settled log that `cost` is taken at `now`, or at its [place](Self::place). Time never goes back: not before
    /// the last mark.
    pub fn charge(self, log: &mut Log, now: u64, cost: u64) {
        if cost == 0 {
            return;
        }
        log.add(now, cost);
        if log.marks.len() > MARKS_MAX {
            let grid = self.grid();
            for Mark { at, amount } in std::mem::take(log).marks {
                log.add(at.next_multiple_of(grid), amount);
            }
        }
    }

    /// Gives back to a settled log what was taken at `at`: out of the youngest marks that are not younger. Any of those counts
    /// no longer than the charge itself, so nobody gains by it; where the charge no longer counts, none is left, and nothing
    /// is given back.
    pub fn refund(self, log: &mut Log, cost: u64, at: u64) {
        let mut left = cost;
        for mark in log.marks.iter_mut().rev().filter(|mark| mark.at <= at) {
            let given = left.min(mark.amount);
            mark.amount -= given;
            left -= given;
        }
        log.marks.retain(|mark| mark.amount > 0);
    }

    /// When nothing in a log counts any more.
    pub fn over_at(self, log: &Log) -> u64 {
        log.marks.last().map_or(0, |last| last.at + self.length)
    }

    /// What is taken at `now`, in micro-tokens.
    pub fn taken(self, log: &Log, now: u64) -> u64 {
        self.live(log, now).map(|mark| mark.amount).sum()
    }

    fn live(self, log: &Log, now: u64) -> impl Iterator<Item = &Mark> {
        log.marks[log.marks.partition_point(|mark| self.is_over(*mark, now))..].iter()
    }

    fn is_over(self, mark: Mark, now: u64) -> bool {
        mark.at + self.length <= now
    }

    fn grid(self) -> u64 {
        self.length.div_ceil(GRID)
    }
}

impl From<SlidingWindow> for Window {
    fn from(configured: SlidingWindow) -> Self {
        Self {
            quota: u64::from(configured.quota) * MICRO,
            length: u64::try_from(configured.window.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

// === impl Log ===

impl Log {
    fn add(&mut self, at: u64, amount: u64) {
        match self.marks.last_mut() {
            Some(last) if last.at >= at => last.amount += amount,
            _ => self.marks.push(Mark { at, amount }),
        }
    }
}

#[cfg(test)]
mod tests;

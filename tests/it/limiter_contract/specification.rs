//! The pure arithmetic, and nothing else.

use std::collections::HashMap;

use arrayvec::ArrayVec;
use cxgate::{
    config::Factor,
    limiter::{
        Charge, Kind, Standing, Terms, Verdict,
        bucket::Level,
        key::Key,
        scale::{ScaleName, Timeline, scaled_span},
        window::Log,
    },
};

use super::Subject;

/// Levels of buckets, logs of windows, and clocks.
#[derive(Default)]
pub(super) struct Specification {
    levels: HashMap<Key, Level>,
    logs: HashMap<Key, Log>,
    timelines: HashMap<ScaleName, Timeline>,
}

/// What a charge leaves.
enum Left {
    Level(Level),
    Log(Log),
}

// === impl Specification ===

impl Specification {
    fn timeline(&self, charge: &Charge<'_>) -> Timeline {
        let timeline = charge.limit.scale.as_ref().and_then(|scale| self.timelines.get(scale));
        timeline.copied().unwrap_or(Timeline::REAL)
    }

    fn is_known(&self, charge: &Charge<'_>) -> bool {
        match charge.limit.kind {
            Kind::Bucket(_) => self.levels.contains_key(&charge.key),
            Kind::Window(_) => self.logs.contains_key(&charge.key),
        }
    }

    /// The bucket's level now.
    fn level(&self, charge: &Charge<'_>, now: u64) -> Option<Level> {
        let Kind::Bucket(bucket) = charge.limit.kind else { return None };
        let now = self.timeline(charge).scaled(now);
        Some(self.levels.get(&charge.key).map_or(bucket.full(now), |&level| bucket.settle(level, now)))
    }

    fn standing(&self, charge: &Charge<'_>, now: u64) -> Standing {
        let factor = self.timeline(charge).factor;
        match charge.limit.kind {
            Kind::Bucket(_) => {
                let level = self.level(charge, now).unwrap();
                Standing { tokens: level.tokens, owed: level.owed, factor, wait: 0 }
            }
            Kind::Window(window) => {
                let log = self.logs.get(&charge.key).cloned().unwrap_or_default();
                let in_force = window.in_force(factor, charge.limit.slowest, charge.cost);
                let room = window.room(&log, now, in_force, charge.cost);
                Standing { tokens: room.tokens, owed: 0, factor, wait: room.wait }
            }
        }
    }

    /// What a charge within so many microseconds would leave; `None` where it would have to wait longer.
    fn charged(&self, charge: &Charge<'_>, within: u64, now: u64) -> Option<Left> {
        let factor = self.timeline(charge).factor;
        match charge.limit.kind {
            Kind::Bucket(bucket) => {
                let level = self.level(charge, now).unwrap();
                bucket.reserve(level, charge.cost, scaled_span(within, factor)).map(Left::Level)
            }
            Kind::Window(window) => {
                let mut log = self.logs.get(&charge.key).cloned().unwrap_or_default();
                let in_force = window.in_force(factor, charge.limit.slowest, charge.cost);
                let room = window.room(&log, now, in_force, charge.cost);
                let due = window.place(&log, now, room, in_force, charge.cost, within)?;
                window.settle(&mut log, now);
                window.charge(&mut log, due, charge.cost);
                Some(Left::Log(log))
            }
        }
    }
}

impl Subject for Specification {
    async fn reserve(&mut self, charges: &[Charge<'_>], within: u64, now: u64) -> Verdict {
        let asked = |charge: &Charge<'_>| match charge.terms {
            Terms::TakeIfNew(other) => !self.is_known(&charges[other]),
            Terms::Take | Terms::Need => true,
        };
        let asked: Vec<bool> = charges.iter().map(asked).collect();
        let mut verdict = Verdict { admitted: true, at: 0, standings: ArrayVec::new() };
        let mut left = Vec::new();
        for (charge, asked) in charges.iter().zip(&asked) {
            let standing = self.standing(charge, now);
            let charged = self.charged(charge, within, now);
            verdict.admitted &= !asked || charged.is_some();
            verdict.standings.push(if *asked { standing } else { charge.limit.untouched(standing.factor) });
            left.push(charged);
        }
        if verdict.admitted {
            verdict.at = now;
            for (place, (charge, left)) in charges.iter().zip(left).enumerate() {
                if asked[place] && charge.terms != Terms::Need {
                    match left.unwrap() {
                        Left::Level(level) => _ = self.levels.insert(charge.key, level),
                        Left::Log(log) => _ = self.logs.insert(charge.key, log),
                    }
                }
                if charge.terms == Terms::Take {
                    verdict.standings[place] = charge.limit.charged(verdict.standings[place], charge.cost);
                }
            }
        }
        verdict
    }

    async fn give_back(&mut self, charges: &[Charge<'_>], at: u64, ahead: u64, now: u64) -> bool {
        let is_last = |charge: &Charge<'_>| match charge.limit.kind {
            Kind::Bucket(bucket) => {
                let ahead = scaled_span(ahead, self.timeline(charge).factor);
                bucket.give_back(self.level(charge, now).unwrap(), charge.cost, ahead).is_some()
            }
            Kind::Window(_) => true,
        };
        let given = charges.iter().all(is_last);
        if given {
            self.refund(charges, at, now).await;
        }
        given
    }

    async fn refund(&mut self, charges: &[Charge<'_>], at: u64, now: u64) {
        for charge in charges {
            // What was never charged is full.
            if !self.is_known(charge) {
                continue;
            }
            match charge.limit.kind {
                Kind::Bucket(bucket) => {
                    let level = bucket.refund(self.level(charge, now).unwrap(), charge.cost);
                    self.levels.insert(charge.key, level);
                }
                Kind::Window(window) => {
                    let log = self.logs.entry(charge.key).or_default();
                    window.settle(log, now);
                    window.refund(log, charge.cost, at);
                }
            }
        }
    }

    async fn publish(&mut self, scale: &ScaleName, factor: Factor, now: u64) {
        let timeline = self.timelines.entry(scale.clone()).or_insert(Timeline::REAL);
        *timeline = timeline.switch(now, factor);
    }

    async fn pause(&mut self, charge: &Charge<'_>, now: u64) {
        let level = self.level(charge, now).unwrap();
        let most = charge.limit.kind.most().saturating_sub(charge.cost);
        if level.tokens > most {
            self.levels.insert(charge.key, Level { tokens: most, owed: 0, ..level });
        }
    }
}

//! A decision as `lua/charge.lua` reads it, made by who asks and kept until it is sent: its charges, apart from their limits.

use std::sync::Arc;

use super::{Flow, answer};
use crate::limiter::{Charge, Kind, Terms, bucket::MICRO, key::Key, scale::ScaleName};

/// Bytes of a charge among the script's arguments.
const ARGUMENT_LENGTH: usize = 32;

/// Bytes of the time to look ahead, behind the charges.
const AHEAD_LENGTH: usize = 7;

/// Which of a charge's bytes is the number of its scale.
const SCALE_PLACE: usize = 30;

/// Stands for [`Terms::Need`]: more than there are charges.
const NEED: u64 = 255;

/// The highest cost an argument can carry. It is above every capacity, so cutting a cost to it admits nobody.
const COST_MAX: u64 = (1 << 47) - 1;

/// What the number of a scale is raised by where the charge is a debt.
const DEBT: u64 = 128;

/// The most scales that the decisions of one call can follow: the numbers below [`DEBT`].
pub(super) const SCALES_MAX: usize = 127;

/// What one decision asks of the script.
#[derive(Debug, Clone)]
pub struct Decision {
    charges: Arc<[Asked]>,
    /// How far it looks ahead, in microseconds.
    ahead: Option<u64>,
    answer_length: usize,
}

/// What it asks of one limit.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) key: Key,
    pub(super) scale: Option<ScaleName>,
    /// With no scale, or the number of none of a debt.
    argument: [u8; ARGUMENT_LENGTH],
}

// === impl Decision ===

impl Decision {
    /// Moves what `charges` say, as `flow` says.
    pub fn new(flow: Flow, charges: &[Charge<'_>]) -> Self {
        Self {
            answer_length: answer::length(charges),
            charges: charges.iter().map(|charge| Asked::new(flow, charge)).collect(),
            ahead: flow.ahead(),
        }
    }

    /// Bytes that the script answers to it.
    pub fn answer_length(&self) -> usize {
        self.answer_length
    }

    /// How many limits it asks.
    pub fn charge_count(&self) -> usize {
        self.charges.len()
    }

    pub(super) fn charges(&self) -> &[Asked] {
        &self.charges
    }

    /// Whether another asks the same, of whichever keys.
    pub(super) fn asks_like(&self, other: &Self) -> bool {
        self.ahead == other.ahead && self.asked().eq(other.asked())
    }

    fn asked(&self) -> impl Iterator<Item = (Option<&ScaleName>, &[u8; ARGUMENT_LENGTH])> {
        self.charges.iter().map(|Asked { scale, argument, .. }| (scale.as_ref(), argument))
    }

    /// Writes the argument of so many that ask the same; `number` knows each scale by its number in the call.
    pub(super) fn write(&self, times: u8, number: impl Fn(&ScaleName) -> usize, text: &mut Vec<u8>) {
        text.push(times);
        for Asked { scale, argument, .. } in self.charges() {
            let mut argument = *argument;
            argument[SCALE_PLACE] |= scale.as_ref().map_or(0, &number).to_le_bytes()[0];
            text.extend_from_slice(&argument);
        }
        if let Some(ahead) = self.ahead {
            text.extend_from_slice(&ahead.to_le_bytes()[..AHEAD_LENGTH]);
        }
    }
}

// === impl Asked ===

impl Asked {
    fn new(flow: Flow, charge: &Charge<'_>) -> Self {
        let Charge { limit, key, .. } = *charge;
        let (cost, at) = match flow {
            Flow::Take | Flow::Reserve(_) | Flow::Pay => (charge.cost.min(COST_MAX), 0),
            Flow::Give(at) | Flow::GiveBack { at, .. } => (charge.cost.min(COST_MAX).wrapping_neg(), at),
        };
        let scale = if flow == Flow::Pay { DEBT } else { 0 };
        let terms = match charge.terms {
            Terms::Take => 0,
            Terms::TakeIfNew(place) => place as u64 + 1,
            Terms::Need => NEED,
        };
        let (kind, most, first, second) = match limit.kind {
            Kind::Bucket(bucket) => (0, bucket.capacity, bucket.rate / MICRO, bucket.rate % MICRO),
            Kind::Window(window) => (1, window.quota, window.length, at),
        };
        let slowest = u64::from(limit.slowest.millionths());
        let argument =
            packed([(kind, 1), (cost, 6), (most, 5), (first, 7), (second, 7), (slowest, 4), (scale, 1), (terms, 1)]);
        Self { key, scale: limit.scale.clone(), argument }
    }
}

/// Values one after the other, each little-endian in so many bytes, 32 together.
fn packed(fields: [(u64, usize); 8]) -> [u8; ARGUMENT_LENGTH] {
    let (mut argument, mut end) = ([0; ARGUMENT_LENGTH], 0);
    for (value, length) in fields {
        let begin = end;
        end += length;
        argument[begin..end].copy_from_slice(&value.to_le_bytes()[..length]);
    }
    argument
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Factor,
        limiter::{Limit, bucket::Bucket, key::KeyHasher},
    };

    #[test]
    fn a_cost_beyond_all_capacities_is_cut_and_not_turned_round() {
        let limit = Limit { kind: Kind::Bucket(Bucket { capacity: 10, rate: 1 }), scale: None, slowest: Factor::ONE };
        let key = KeyHasher::new(None, "test").start("limit").finish();
        let charge = Charge { limit: &limit, key, cost: u64::MAX, terms: Terms::Take };
        assert_eq!(Asked::new(Flow::Take, &charge).argument[1..7], [0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    }
}

//! Natural batching: decisions that have to wait anyway share the next call. No I/O.
//!
//! Promised: with no call in flight, a decision is sent at once, together with those who ask in the same moment, so nobody waits
//! for company. While one is in flight, those that come gather, and go together as soon as it is answered or given up, with
//! those who are ready to ask by then; each is still all or nothing for itself, and they are made in the order in which they
//! came. What nobody waits for any more is not sent. One call is no larger than [`CHARGES_MAX`] charges.
//! Not promised: a bound on how many gather: that is the session's. Nor more than one full call a round trip and group of keys:
//! at a millisecond from Redis, some 64,000 decisions a second.

use std::collections::VecDeque;

use redis::Value;
use tokio::time::Instant;

use super::script::Decision;
use crate::{
    limiter::MAX_CHARGES,
    workers::{self, Caller},
};

/// The most charges of one call. It bounds how long Redis is busy with it, and everybody else waits: about a quarter of a
/// millisecond.
const CHARGES_MAX: usize = 64;

/// What gathers while a call is in flight.
#[derive(Default)]
pub(super) struct Gathering {
    waiting: VecDeque<Waiting>,
    in_flight: bool,
}

/// A decision, and who waits for its answer.
pub(super) struct Waiting {
    pub(super) decision: Decision,
    pub(super) caller: Caller<Value>,
    /// Until when.
    pub(super) until: Instant,
}

/// Decisions that share a call; at least one.
pub(super) struct Batch(Vec<Waiting>);

// A decision of any size fits into a call, and the scales of a call into its arguments.
const _: () = assert!(MAX_CHARGES <= CHARGES_MAX && CHARGES_MAX < 128);

// === impl Gathering ===

impl Gathering {
    /// Whether a call may be made at once. It is then in flight, until [`next`](Self::next).
    pub(super) fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.in_flight, true)
    }

    /// Has a decision wait for the next call.
    pub(super) fn add(&mut self, waiting: Waiting) {
        self.waiting.push_back(waiting);
    }

    /// Has the one who may make a call wait in front of those who came behind it; false where nobody did.
    pub(super) fn lead(&mut self, first: impl FnOnce() -> Waiting) -> bool {
        let is_followed = !self.waiting.is_empty();
        if is_followed {
            self.waiting.push_front(first());
        }
        is_followed
    }

    /// The call in flight is over: what the next is to ask, which is then in flight; or nothing is.
    pub(super) fn next(&mut self) -> Option<Batch> {
        let (mut batch, mut charges) = (Vec::new(), 0);
        while let Some(waiting) = self.waiting.front() {
            if !waiting.caller.is_gone() {
                charges += waiting.decision.charge_count();
                if charges > CHARGES_MAX {
                    break;
                }
            }
            batch.extend(self.waiting.pop_front().filter(|waiting| !waiting.caller.is_gone()));
        }
        self.in_flight = !batch.is_empty();
        self.in_flight.then_some(Batch(batch))
    }
}

// === impl Batch ===

impl Batch {
    /// Its decisions, in the order in which they came.
    pub(super) fn decisions(&self) -> impl Iterator<Item = &Decision> + Clone {
        self.0.iter().map(|waiting| &waiting.decision)
    }

    /// When the last of the callers has gone.
    pub(super) fn until(&self) -> Option<Instant> {
        self.0.iter().map(|waiting| waiting.until).max()
    }

    /// Gives each caller its part of the answer; of what cannot be parted, the whole.
    pub(super) fn answer(self, answer: Value) {
        let length: usize = self.decisions().map(Decision::answer_length).sum();
        match answer {
            Value::BulkString(bytes) if bytes.len() == length => {
                let mut rest = &bytes[..];
                workers::answer(self.0.into_iter().map(|Waiting { decision, caller, .. }| {
                    let (part, behind) = rest.split_at(decision.answer_length());
                    rest = behind;
                    (caller, Value::BulkString(part.to_vec()))
                }));
            }
            whole => workers::answer(self.0.into_iter().map(|waiting| (waiting.caller, whole.clone()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        config::Factor,
        limiter::{Charge, Limit, Terms, bucket::Bucket, key::KeyHasher, redis::script::Flow},
    };

    type Answer = oneshot::Receiver<Value>;

    /// A decision of so many charges, and its caller.
    fn waiting(charges: usize) -> (Waiting, Answer) {
        let limit = Limit { kind: Bucket { capacity: 10, rate: 1 }.into(), scale: None, slowest: Factor::ONE };
        let key = KeyHasher::new(None, "tests").start("limit").finish();
        let charges = vec![Charge { limit: &limit, key, cost: 1, terms: Terms::Take }; charges];
        let (caller, answer) = Caller::here();
        (Waiting { decision: Decision::new(Flow::Take, &charges), caller, until: Instant::now() }, answer)
    }

    fn add(gathering: &mut Gathering, charges: usize) -> Answer {
        let (waiting, caller) = waiting(charges);
        gathering.add(waiting);
        caller
    }

    fn sizes(batch: Option<Batch>) -> Vec<usize> {
        batch.map(|batch| batch.decisions().map(Decision::charge_count).collect()).unwrap_or_default()
    }

    #[test]
    fn one_goes_at_once_and_those_behind_it_together() {
        let mut gathering = Gathering::default();
        assert!(gathering.begin() && !gathering.begin());
        let _callers = [1, 2, 3].map(|charges| add(&mut gathering, charges));
        assert_eq!(sizes(gathering.next()), [1, 2, 3]);
        assert!(!gathering.begin(), "the second call is in flight");
        assert!(gathering.next().is_none());
        assert!(gathering.begin(), "nothing is in flight, and nobody waits");
    }

    #[test]
    fn who_may_make_a_call_goes_first_among_those_who_came_behind() {
        let mut gathering = Gathering::default();
        assert!(gathering.begin() && !gathering.lead(|| unreachable!("nobody came")));
        let _callers = [2, 3].map(|charges| add(&mut gathering, charges));
        let (first, _caller) = waiting(1);
        assert!(gathering.lead(|| first));
        assert_eq!(sizes(gathering.next()), [1, 2, 3]);
    }

    #[test]
    fn a_call_has_a_bound_and_what_is_beyond_it_is_next() {
        let mut gathering = Gathering::default();
        assert!(gathering.begin());
        let _callers = [40, 24, 1, 63, 10].map(|charges| add(&mut gathering, charges));
        let batches = [vec![40, 24], vec![1, 63], vec![10], vec![]];
        assert_eq!([(); 4].map(|()| sizes(gathering.next())), batches);
    }

    #[test]
    fn what_nobody_waits_for_is_not_sent() {
        let mut gathering = Gathering::default();
        assert!(gathering.begin());
        let [first, second, third] = [60, 2, 60].map(|charges| add(&mut gathering, charges));
        drop(first);
        assert_eq!(sizes(gathering.next()), [2, 60]);
        drop((second, third));
        drop(add(&mut gathering, 1));
        assert!(gathering.next().is_none() && gathering.begin());
    }

    #[test]
    fn each_caller_gets_its_part_and_an_answer_that_has_none_whole() {
        let batch = || {
            let (waiting, callers): (Vec<_>, Vec<_>) = [1, 2].map(waiting).into_iter().unzip();
            (Batch(waiting), callers)
        };
        let bytes = |range: std::ops::Range<u8>| Value::BulkString(range.collect());
        let told =
            |callers: Vec<Answer>| callers.into_iter().map(|mut caller| caller.try_recv().unwrap()).collect::<Vec<_>>();
        let (parted, callers) = batch();
        parted.answer(bytes(0..44));
        assert_eq!(told(callers), [bytes(0..17), bytes(17..44)]);
        for whole in [bytes(0..43), bytes(0..45), Value::Nil] {
            let (parted, callers) = batch();
            parted.answer(whole.clone());
            assert_eq!(told(callers), [whole.clone(), whole]);
        }
    }
}

//! What was admitted in the store's place and is still to be charged there.
//!
//! Promised: what was drained here stays drained: each local charge is charged in the store too, once it is back, before
//! the same client's next decision there and in any case soon. At most [`room`](Debts::new) buckets.
//! Not promised: the debts of further buckets; nor that a bucket in the store holds as much as it owes: then it is empty,
//! and the rest is forgotten. A debt that may have been paid, because no answer came, is paid again.

use std::{
    collections::HashMap,
    hash::BuildHasherDefault,
    sync::{Mutex, MutexGuard, PoisonError},
};

use prometheus_client::metrics::gauge::Gauge;

use super::{
    Charge, Limit,
    key::{FirstWord, Key},
};

/// Charges to be repeated in the store.
pub(super) struct Debts {
    owed: Mutex<HashMap<Key, Debt, BuildHasherDefault<FirstWord>>>,
    room: usize,
    /// How many there are; read on every decision, which shall not wait for the lock.
    held: Gauge,
}

/// What one bucket owes.
#[derive(Debug, Clone)]
pub(super) struct Debt {
    pub(super) limit: Limit,
    /// In micro-tokens; never 0.
    pub(super) amount: u64,
    /// How many replicas shared the limit when it was charged; the fewest, where that changed.
    pub(super) replicas: u32,
}

// === impl Debts ===

impl Debts {
    /// No debts; never more than `room`. `held` shows how many there are.
    pub(super) fn new(room: usize, held: Gauge) -> Self {
        Self { owed: Mutex::default(), room, held }
    }

    /// Whether nothing is owed.
    pub(super) fn is_empty(&self) -> bool {
        self.held.get() == 0
    }

    /// How many buckets owe.
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.held.get()).unwrap_or_default()
    }

    /// Adds to what a bucket owes.
    pub(super) fn add(&self, key: Key, debt: Debt) {
        let mut owed = self.lock();
        if let Some(known) = owed.get_mut(&key) {
            known.amount = known.amount.saturating_add(debt.amount);
            known.replicas = known.replicas.min(debt.replicas);
        } else if owed.len() < self.room {
            owed.insert(key, debt);
            self.held.inc();
        }
    }

    /// Takes off what a charge cost; says no where less than that is owed, because it was paid.
    pub(super) fn forgive(&self, charge: &Charge<'_>) -> bool {
        let mut owed = self.lock();
        let Some(left) = owed.get(&charge.key).and_then(|debt| debt.amount.checked_sub(charge.cost)) else { return false };
        if left == 0 {
            owed.remove(&charge.key);
            self.held.dec();
        } else if let Some(debt) = owed.get_mut(&charge.key) {
            debt.amount = left;
        }
        true
    }

    /// Removes what a bucket owes, to be paid.
    pub(super) fn take(&self, key: Key) -> Option<Debt> {
        let debt = self.lock().remove(&key)?;
        self.held.dec();
        Some(debt)
    }

    /// The buckets that owe.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Debt, BuildHasherDefault<FirstWord>>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Factor,
        limiter::{
            Kind, Terms,
            bucket::{Bucket, MICRO},
        },
    };

    const LIMIT: Limit =
        Limit { kind: Kind::Bucket(Bucket { capacity: 10 * MICRO, rate: MICRO }), scale: None, slowest: Factor::ONE };

    fn key(number: u8) -> Key {
        Key([number; 12])
    }

    fn debt(amount: u64) -> Debt {
        Debt { limit: LIMIT, amount, replicas: 1 }
    }

    #[test]
    fn debts_add_up_are_forgiven_and_taken_once() {
        let (debts, limit) = (Debts::new(10, Gauge::default()), LIMIT);
        debts.add(key(1), debt(3));
        debts.add(key(1), debt(4));
        assert_eq!(debts.len(), 1);
        let charge = |cost| Charge { limit: &limit, key: key(1), cost, terms: Terms::Take };
        assert!(!debts.forgive(&charge(8)));
        assert!(debts.forgive(&charge(2)));
        assert_eq!(debts.take(key(1)).unwrap().amount, 5);
        assert!(debts.take(key(1)).is_none() && debts.is_empty());
        debts.add(key(1), debt(2));
        assert!(debts.forgive(&charge(2)));
        assert!(debts.is_empty() && debts.keys().is_empty());
    }

    #[test]
    fn there_is_room_for_so_many_and_all_are_found() {
        let debts = Debts::new(3, Gauge::default());
        for number in 0..5 {
            debts.add(key(number), debt(1));
        }
        debts.add(key(0), debt(1));
        let mut found: Vec<_> = debts.keys().into_iter().map(|key| (key.0[0], debts.take(key).unwrap().amount)).collect();
        found.sort_unstable();
        assert_eq!(found, [(0, 2), (1, 1), (2, 1)]);
        assert!(debts.is_empty());
    }
}

//! What this process decided in Redis' place is charged to Redis: before the next decision about the same bucket, and all of
//! it as soon as Redis is there.

use std::{sync::Arc, time::Duration};

use arrayvec::ArrayVec;
use tokio::{task::JoinSet, time::timeout};

use super::Fleet;
use crate::limiter::{
    Charge, MAX_CHARGES, Store, StoreError, Terms, Verdict,
    debts::{Debt, Debts},
    fallback::Local,
    key::Key,
};

/// Debts that are paid at the same time. It bounds what an end of an outage adds to the load of Redis.
const PAYERS: usize = 16;

/// Time from one payment of all debts to the next.
const PAY_INTERVAL: Duration = Duration::from_millis(500);

/// What some buckets owe.
type Owed = ArrayVec<(Key, Debt), MAX_CHARGES>;

/// Debts on their way to Redis. Where they do not arrive, be it that the caller went away, they are owed still.
struct Unpaid<'a> {
    owed: Owed,
    debts: &'a Debts,
}

// === impl Fleet ===

impl Fleet {
    /// Asks Redis; whatever the same buckets owe is charged there first, on the same connection, without waiting for it.
    pub(super) async fn ask(&self, charges: &[Charge<'_>], within: Duration) -> Result<Verdict, StoreError> {
        let Some(local) = self.fallback.local().filter(|local| !local.debts().is_empty()) else {
            return self.redis.reserve(charges, within).await;
        };
        // Rare, and large: others are not to make room for it.
        Box::pin(self.pay_and_ask(local, charges, within)).await
    }

    async fn pay_and_ask(&self, local: &Local, charges: &[Charge<'_>], within: Duration) -> Result<Verdict, StoreError> {
        if !charges.iter().all(|charge| self.redis.reaches(charge.key)) {
            return Err(StoreError::Unreachable);
        }
        let owed = charges.iter().filter_map(|charge| Some((charge.key, local.take_debt(charge.key)?))).collect();
        let paid = self.pay(Unpaid { owed, debts: local.debts() });
        let (_, verdict) = tokio::join!(biased; paid, self.redis.reserve(charges, within));
        verdict
    }

    /// Charges Redis what these buckets owe. Where that fails they owe it still.
    async fn pay(&self, mut unpaid: Unpaid<'_>) -> Result<(), StoreError> {
        if unpaid.owed.is_empty() {
            return Ok(());
        }
        {
            let charges: ArrayVec<_, MAX_CHARGES> = unpaid
                .owed
                .iter()
                .map(|(key, debt)| Charge { limit: &debt.limit, key: *key, cost: debt.amount, terms: Terms::Take })
                .collect();
            self.redis.pay(&charges).await?;
        }
        unpaid.owed.clear();
        Ok(())
    }

    /// Pays all debts whenever Redis is there, so that what was drained here is soon drained for all replicas.
    pub(super) async fn keep_paying(self: &Arc<Self>) {
        let mut up = self.up();
        while up.wait_for(|up| *up).await.is_ok() {
            if let Some(local) = self.fallback.local().filter(|local| !local.debts().is_empty()) {
                let keys = local.debts().keys();
                let mut payers = JoinSet::new();
                for part in keys.chunks(keys.len().div_ceil(PAYERS).max(1)) {
                    payers.spawn(Arc::clone(self).pay_each(part.to_vec()));
                }
                payers.join_all().await;
            }
            let _ = timeout(PAY_INTERVAL, up.changed()).await;
        }
    }

    /// Pays one debt after the other, up to the first failure.
    async fn pay_each(self: Arc<Self>, keys: Vec<Key>) {
        let Some(local) = self.fallback.local() else { return };
        for key in keys {
            let Some(debt) = local.take_debt(key) else { continue };
            let owed = Owed::from_iter([(key, debt)]);
            if self.pay(Unpaid { owed, debts: local.debts() }).await.is_err() {
                return;
            }
        }
    }
}

// === impl Unpaid ===

impl Drop for Unpaid<'_> {
    fn drop(&mut self) {
        for (key, debt) in self.owed.drain(..) {
            self.debts.add(key, debt);
        }
    }
}

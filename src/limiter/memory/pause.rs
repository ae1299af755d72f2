//! Pausing in this process.

use std::slice;

use super::Memory;
use crate::limiter::{Charge, StoreError, bucket::Level};

impl Memory {
    /// Leaves a bucket at least `charge.cost` short of full; one that lacks more already stays as it is.
    pub fn pause(&self, charge: &Charge<'_>) -> Result<(), StoreError> {
        self.pause_at(charge, self.now())
    }

    /// [`Memory::pause`] at a given time.
    pub fn pause_at(&self, charge: &Charge<'_>, now: u64) -> Result<(), StoreError> {
        let mut locked = self.lock_all(slice::from_ref(charge))?;
        let settled = self.settle(&locked, slice::from_ref(charge), now);
        let most = charge.limit.bucket.capacity.saturating_sub(charge.cost);
        if settled[0].level.tokens > most {
            self.make_room(&mut locked, &settled, now)?;
            let level = Level { tokens: most, at: settled[0].level.at };
            self.write(&mut locked[0].1, charge, level, settled[0].factor, now);
        }
        Ok(())
    }
}

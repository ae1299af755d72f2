//! Pausing in this process.

use std::slice;

use super::{Memory, Movement};
use crate::limiter::{Charge, StoreError};

impl Memory {
    /// Leaves a bucket at least `charge.cost` short of full; one that lacks more already stays as it is.
    pub fn pause(&self, charge: &Charge<'_>) -> Result<(), StoreError> {
        self.pause_at(charge, self.now())
    }

    /// [`Memory::pause`] at a given time.
    pub fn pause_at(&self, charge: &Charge<'_>, now: u64) -> Result<(), StoreError> {
        let mut locked = self.lock_all(slice::from_ref(charge))?;
        let settled = self.settle(&locked, slice::from_ref(charge), now);
        let surplus = charge.cost.saturating_sub(charge.limit.taken(&settled[0].standing, charge.cost));
        if surplus > 0 {
            self.make_room(&mut locked, &settled, now)?;
            self.write(&mut locked[0].1, charge, &settled[0], Movement::Take { cost: surplus, due: now });
        }
        Ok(())
    }
}

//! The clocks of scaled limits in this process, by scale.
//!
//! Promised: the clocks of polled signals stay; those of tenants, of which a client can make up any number, are at most
//! [`TENANTS_MAX`], each of a tenant whose factor was below 1.
//! Not promised: that a tenant's clock stays where there are more: one that was not used lately is then real time again, and
//! its buckets may be full too early.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use quick_cache::sync::Cache;

use super::scale::{ScaleName, Timeline};
use crate::config::Factor;

/// The most tenants with a clock of their own; each takes some 150 bytes.
const TENANTS_MAX: usize = 16_384;

/// Clocks by scale.
pub(super) struct Timelines {
    polled: ArcSwap<HashMap<ScaleName, Timeline>>,
    tenants: Cache<ScaleName, Timeline>,
    /// Held while a tenant's clock changes, so that no change is lost.
    changing: Mutex<()>,
}

impl Timelines {
    /// No clocks.
    pub(super) fn new() -> Self {
        Self { polled: ArcSwap::default(), tenants: Cache::new(TENANTS_MAX), changing: Mutex::default() }
    }

    /// The clock of a scale, if it is not the real one.
    pub(super) fn get(&self, scale: &ScaleName) -> Option<Timeline> {
        if scale.tenant().is_some() { self.tenants.get(scale) } else { self.polled.load().get(scale).copied() }
    }

    /// From `now` on, the clock of a scale runs at `factor`.
    pub(super) fn publish(&self, scale: &ScaleName, factor: Factor, now: u64) {
        if scale.tenant().is_none() {
            self.polled.rcu(|timelines| {
                let mut timelines = HashMap::clone(timelines);
                let timeline = timelines.entry(scale.clone()).or_insert(Timeline::REAL);
                *timeline = timeline.switch(now, factor);
                timelines
            });
            return;
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.tenants.get(scale).unwrap_or(Timeline::REAL);
        let after = before.switch(now, factor);
        if after != before {
            self.tenants.insert(scale.clone(), after);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limiter::key::Key;

    #[test]
    fn tenants_have_clocks_of_their_own_and_only_where_they_need_one() {
        let (timelines, half) = (Timelines::new(), Factor::new(0.5).unwrap());
        let tenant = |number| ScaleName::of_tenant("latency", Key([number; 12]));
        timelines.publish(&tenant(1), half, 100);
        timelines.publish(&tenant(2), Factor::ONE, 100);
        assert_eq!(timelines.get(&tenant(1)).unwrap().scaled(200), 150);
        assert_eq!(timelines.get(&tenant(2)), None);
        timelines.publish(&tenant(1), Factor::ONE, 200);
        assert_eq!(timelines.get(&tenant(1)).unwrap().scaled(300), 250, "its clock goes on");
    }
}

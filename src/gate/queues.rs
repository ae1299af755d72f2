//! Who waits and who is under way, of all routes: what a reload must not begin anew, lest twice as many be under way, or a
//! newcomer go before those who wait.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::metrics::gauge::Gauge;

use super::{in_flight::Places, pacing::Pacing};
use crate::{config::MaxInFlight, limiter::Limiter, shutdown::Shutdown};

/// The lines of all limits, and the places of all routes.
pub struct Queues {
    /// Lines are told apart by the buckets they wait for.
    pub(super) pacing: Arc<Pacing>,
    /// By route. Those of routes that are gone stay until nobody has one.
    places: Mutex<BTreeMap<String, Places>>,
}

impl Queues {
    /// Nobody waits yet.
    pub fn new(limiter: Arc<Limiter>, shutdown: Shutdown) -> Self {
        Self { pacing: Pacing::new(limiter, shutdown), places: Mutex::default() }
    }

    /// The places of a route, of which there are `most` from now on; `under_way` shows how many are taken.
    pub(super) fn places(&self, route: &str, most: MaxInFlight, under_way: Gauge) -> Places {
        let mut all = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, places| places.are_in_use());
        let places = all.entry(route.to_owned()).or_insert_with(|| Places::new(most, under_way)).clone();
        drop(all);
        places.allow(most);
        places
    }
}

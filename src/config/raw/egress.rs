//! `when_limited`, `max_in_flight` and `published`: what a route does instead of refusing, how much of it is under way at once,
//! and what its upstream has published.

use std::time::Duration;

use super::{
    Reader,
    kind::{MAX_CAPACITY, choice, duration, integer},
    upstreams::WAIT,
};
use crate::config::{MaxInFlight, Priority, Published, WhenLimited};

const PRIORITIES: [(&str, Priority); 3] = [("high", Priority::High), ("normal", Priority::Normal), ("low", Priority::Low)];

/// Upstreams publish quotas for at most a day.
const DAY: Duration = Duration::from_hours(24);

pub(super) fn when_limited(table: &mut Reader<'_, '_>) -> WhenLimited {
    WhenLimited {
        wait: table.or("wait", Duration::from_secs(30), duration(WAIT)),
        queue: table.or("queue", 1000, integer(1..=1_000_000)),
        priority: table.or("priority", Priority::Normal, choice(&PRIORITIES)),
    }
}

pub(super) fn max_in_flight(table: &mut Reader<'_, '_>) -> MaxInFlight {
    let mut number = |key| table.or(key, 1_000_000, integer(1..=1_000_000));
    MaxInFlight { route: number("route"), client: number("client") }
}

pub(super) fn published(table: &mut Reader<'_, '_>) -> Published {
    table.demand("quota", integer::<u32>(1..=MAX_CAPACITY.into()));
    let window = Duration::from_secs(1)..=DAY;
    table.demand("window", duration(window.clone()));
    Published {
        quota: table.or("quota", MAX_CAPACITY, integer(1..=MAX_CAPACITY.into())),
        window: table.or("window", DAY, duration(window)),
    }
}

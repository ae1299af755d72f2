//! Pauses that an upstream asked for: a whole route, or one of its clients, stays away until the upstream's `Retry-After` is
//! over, on all replicas at once.
//!
//! A pause is a bucket of its own, so that it is asked about in the same store operation as the limits: it gains a
//! micro-token a microsecond and is full when nothing is paused; a pause of so many microseconds leaves it so many
//! micro-tokens short. A request takes nothing from it, but [needs](Terms::Need) it to be full, less the request's own place
//! in the [`RAMP`].
//!
//! Promised: nothing passes before the pause is over; then clients come back one by one, spread evenly over the ramp by their
//! names, each exactly at the time it was told. A pause is never shortened, and lasts at most [`PAUSE_MAX`].
//! Not promised: that other replicas hear of a pause while the store is away. Then this replica alone holds it, and only
//! where `store.on_failure` is `local`.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use super::{
    Charge, Limit, Limiter, Place, Terms,
    bucket::{Bucket, MICRO},
    key::Key,
    micros,
};
use crate::config::Factor;

/// The longest pause: an upstream that errs by hours must not close a route for hours.
pub const PAUSE_MAX: Duration = Duration::from_mins(10);

/// The pause where the upstream does not say for how long.
pub const PAUSE_UNTOLD: Duration = Duration::from_secs(1);

/// The time over which clients come back after a pause.
pub const RAMP: Duration = Duration::from_secs(2);

/// The bucket of every pause.
static PAUSES: LazyLock<Limit> = LazyLock::new(|| {
    let capacity = micros(PAUSE_MAX + RAMP);
    Limit { kind: Bucket { capacity, rate: MICRO }.into(), scale: None, slowest: Factor::ONE }
});

/// What a request asks of the pause under `key`: to be over, and a part of the ramp with it that is the client's own.
pub fn passage(key: Key, client: Key) -> Charge<'static> {
    let place = u64::from(client.spread()) * micros(RAMP) / u64::from(u32::MAX);
    Charge { limit: &PAUSES, key, cost: PAUSES.kind.most() - micros(RAMP) + place, terms: Terms::Need }
}

/// How long an upstream wants to be left alone by its `Retry-After` (RFC 9110 section 10.2.3: seconds, here with fractions
/// too, or a date), at most [`PAUSE_MAX`]. A date counts from `date`, the upstream's own, where that is known, so that its
/// clock need not agree with ours. [`PAUSE_UNTOLD`] where it says nothing that can be understood.
pub fn pause(retry_after: Option<&str>, date: Option<&str>, now: SystemTime) -> Duration {
    let told = retry_after.map(str::trim).and_then(|text| match text.parse::<f64>() {
        Ok(seconds) if seconds >= 0.0 => Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)),
        Ok(_) => None,
        Err(_) => {
            let from = date.and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
            let until = httpdate::parse_http_date(text).ok()?;
            Some(until.duration_since(from).unwrap_or_default())
        }
    });
    told.unwrap_or(PAUSE_UNTOLD).min(PAUSE_MAX)
}

impl Limiter {
    /// Pauses what stands under `key`. A pause that would end later stays.
    pub async fn pause(&self, key: Key, pause: Duration) {
        if pause.is_zero() {
            return;
        }
        let cost = micros(pause.min(PAUSE_MAX) + RAMP);
        let charge = Charge { limit: &PAUSES, key, cost, terms: Terms::Take };
        match &self.place {
            Place::Process(memory) => self.failures.count_if(memory.pause(&charge)),
            Place::Redis(fleet) => self.failures.count_if(fleet.pause(&charge).await),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_says_how_long_in_seconds_fractions_or_by_a_date() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:30 GMT").unwrap();
        let table = [
            (Some("3"), None, 3000),
            (Some(" 1.25 "), None, 1250),
            (Some("0"), None, 0),
            (Some("Sun, 06 Nov 1994 08:49:40 GMT"), Some(date), 3000),
            (Some("Sun, 06 Nov 1994 08:49:40 GMT"), None, 10_000),
            (Some("Sun, 06 Nov 1994 08:49:40 GMT"), Some("yesterday"), 10_000),
            (Some("Sun, 06 Nov 1994 08:49:00 GMT"), Some(date), 0),
            (Some("86400"), None, 600_000),
            (Some("1e300"), None, 600_000),
            (Some("inf"), None, 600_000),
            (Some("-1"), None, 1000),
            (Some("NaN"), None, 1000),
            (Some("soon"), None, 1000),
            (None, None, 1000),
        ];
        for (retry_after, date, expected) in table {
            let expected = Duration::from_millis(expected);
            assert_eq!(pause(retry_after, date, now), expected, "{retry_after:?} {date:?}");
        }
    }

    #[test]
    fn clients_come_back_one_by_one_after_the_pause() {
        let key = Key([0; 12]);
        let needs = |client: u8| passage(key, Key([client; 12])).cost;
        let capacity = PAUSES.kind.most();
        assert_eq!((needs(0), needs(255)), (capacity - micros(RAMP), capacity));
        assert!((1..255).all(|client| needs(client - 1) < needs(client)), "spread by name");
    }
}

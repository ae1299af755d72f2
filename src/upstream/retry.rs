//! Whether a request is sent again, and after how long. Pure: time and chance are arguments.
//!
//! Promised: at most `attempts` tries, none of them later than `deadline` after the first, and no wait after the last. The
//! wait is the upstream's own Retry-After where it names one, else exponential with full jitter, capped. A retry budget for
//! the route keeps an outage from being multiplied: retries are at most a fifth of the requests of the last ten seconds, and
//! [`BUDGET_FLOOR`]. An answer that asks for more patience than the deadline has goes to the caller as it came.
//! Not promised: that a retry helps.

use std::time::{Duration, SystemTime};

use hyper::{
    HeaderMap, Method, StatusCode,
    header::{HeaderName, RETRY_AFTER},
};
use tokio::time::Instant;

use super::UpstreamError;
use crate::config;

/// Retries in ten seconds that a route may always have, so that few requests can be retried at all.
const BUDGET_FLOOR: u64 = 10;
/// Requests that pay for one retry.
const REQUESTS_PER_RETRY: u64 = 5;
/// Seconds over which the budget counts, the one that has begun included.
const BUDGET_SECONDS: usize = 10;

/// What one try led to, as far as it matters for another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ended {
    /// With this status, and the time that the upstream asked for.
    Answered(StatusCode, Option<Duration>),
    /// Before anything reached the upstream.
    Unsent,
    /// Without an answer, though the upstream may have acted; the status is what the caller would be told.
    Unknown(StatusCode),
    /// In a way that another try cannot mend.
    Final,
}

/// The tries of one request so far.
#[derive(Debug, Clone, Copy)]
pub struct Tries {
    /// When the first one began.
    pub begun: Instant,
    /// How many there were.
    pub made: u32,
}

/// Retries of one route in the last seconds, and the requests that pay for them.
#[derive(Debug)]
pub(super) struct Budget {
    origin: Instant,
    slots: [Slot; BUDGET_SECONDS],
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    second: u64,
    requests: u64,
    retries: u64,
}

/// How long to wait before the next try; `None` where there is none. `chance` is uniform from 0 to 1.
pub fn wait(
    config: &config::Retry,
    tries: Tries,
    method: &Method,
    ended: Ended,
    now: Instant,
    chance: f64,
) -> Option<Duration> {
    if tries.made >= config.attempts || !may_repeat(config, method, ended) {
        return None;
    }
    let wait = match ended {
        // Those who were told the same time must not come back in the same moment.
        Ended::Answered(_, Some(asked)) => asked.saturating_add(config.base.mul_f64(chance)),
        _ => ceiling(config.base, config.max, tries.made).mul_f64(chance),
    };
    let left = (tries.begun + config.deadline).saturating_duration_since(now);
    (wait <= left).then_some(wait)
}

/// The longest wait after `made` tries: `base`, doubled with each try after the first, at most `max`.
pub(super) fn ceiling(base: Duration, max: Duration, made: u32) -> Duration {
    let doublings = made.saturating_sub(1).min(31);
    base.saturating_mul(1 << doublings).min(max)
}

/// Whether a second try can do no harm (RFC 9110, section 9.2.2) and is wanted. 429 and 503 say that nothing was done.
fn may_repeat(config: &config::Retry, method: &Method, ended: Ended) -> bool {
    let idempotent =
        matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE);
    let undone = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
    match ended {
        Ended::Answered(status, _) => config.on.contains(&status.as_u16()) && (idempotent || undone.contains(&status)),
        Ended::Unknown(status) => config.on.contains(&status.as_u16()) && idempotent,
        Ended::Unsent => true,
        Ended::Final => false,
    }
}

/// The time an answer asks for: seconds, whole or with a fraction, or a date (RFC 9110, section 10.2.3). A date that is past
/// asks for none; what is neither, or stands twice, says nothing.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = only(headers, &RETRY_AFTER)?.trim();
    if let Ok(date) = httpdate::parse_http_date(text) {
        return Some(date.duration_since(now).unwrap_or_default());
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    // A number of seconds that is too large to be one is as good as for ever.
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Some(seconds.unwrap_or(Duration::MAX))
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

// === impl Ended ===

impl Ended {
    /// Why there is no answer.
    pub(super) fn failed(error: &UpstreamError) -> Self {
        match error {
            UpstreamError::Connect(_) | UpstreamError::ConnectTimeout | UpstreamError::Refused => Self::Unsent,
            UpstreamError::ResponseTimeout => Self::Unknown(StatusCode::GATEWAY_TIMEOUT),
            UpstreamError::Protocol(_) => Self::Unknown(StatusCode::BAD_GATEWAY),
            // More requests are the last thing that a full pool needs.
            UpstreamError::Busy | UpstreamError::Request(_) => Self::Final,
        }
    }
}

// === impl Budget ===

impl Budget {
    /// A budget that counts from `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { origin: now, slots: [Slot::default(); BUDGET_SECONDS] }
    }

    /// Counts a request.
    pub(super) fn request(&mut self, now: Instant) {
        self.slot(now).requests += 1;
    }

    /// Takes a retry, if there is one left.
    pub(super) fn retry(&mut self, now: Instant) -> bool {
        let second = self.slot(now).second;
        let recent = || self.slots.iter().filter(|slot| slot.second + BUDGET_SECONDS as u64 > second);
        let (requests, retries) =
            recent().fold((0, 0), |(requests, retries), slot| (requests + slot.requests, retries + slot.retries));
        let granted = retries < BUDGET_FLOOR + requests / REQUESTS_PER_RETRY;
        self.slot(now).retries += u64::from(granted);
        granted
    }

    fn slot(&mut self, now: Instant) -> &mut Slot {
        let second = now.saturating_duration_since(self.origin).as_secs();
        let slot = &mut self.slots[usize::try_from(second).unwrap_or_default() % BUDGET_SECONDS];
        if slot.second != second {
            *slot = Slot { second, ..Slot::default() };
        }
        slot
    }
}

#[cfg(test)]
mod tests;

//! The fields that tell a client how much of its quota is left: the customary `X-RateLimit-*` of the tightest limit, and
//! `RateLimit` with `RateLimit-Policy` of all limits (draft-ietf-httpapi-ratelimit-headers, structured fields).

use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};

use super::{headers, limit::RouteLimit, numbers, response::Response};
use crate::{
    limiter::{Charge, Kind, Limit, Standing, bucket::MICRO, retry_after_seconds},
    wire::fields::FieldLines,
};

const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What an integer of a structured field may hold (RFC 9651, section 3.3.1).
const LARGEST_INTEGER: u64 = 999_999_999_999_999;

/// What is left of a request's quotas, ready to be written.
#[derive(Debug)]
pub struct QuotaFields {
    /// Capacity, or quota in force, of the tightest limit, in tokens.
    pub limit: u64,
    /// Whole tokens left in it.
    pub remaining: u64,
    /// Seconds, rounded up, until it holds one more, or, after a refusal, until the request would pass.
    pub reset: u64,
    /// The `RateLimit` field.
    list: String,
    /// The `RateLimit-Policy` field.
    policy: Option<HeaderValue>,
}

/// What one limit has left.
struct Item<'a> {
    name: &'a str,
    most: u64,
    remaining: u64,
    reset: u64,
}

// === impl QuotaFields ===

impl QuotaFields {
    /// After all of `limits` admitted `charges`, one each. The tightest is the one that admits the fewest further requests
    /// like this.
    pub fn admitted(
        limits: &[RouteLimit],
        charges: &[Charge<'_>],
        policy: Option<HeaderValue>,
        standings: &[Standing],
    ) -> Option<Self> {
        let charged = limits.iter().zip(charges).zip(standings);
        let items = charged.map(|((limit, charge), standing)| Item::admitted(&limit.name, charge.limit, standing));
        let tightest = limits.iter().zip(standings).enumerate();
        let (tightest, _) = tightest.min_by_key(|(_, (limit, standing))| standing.tokens / limit.cost.max(1))?;
        Self::new(policy, items, tightest)
    }

    /// After at least one of `limits` refused, so that so long is to be waited for each: the tightest is the one to wait for
    /// longest. Returns which that is.
    pub fn refused(
        limits: &[RouteLimit],
        charges: &[Charge<'_>],
        waits: &[Duration],
        policy: Option<HeaderValue>,
        standings: &[Standing],
    ) -> Option<(usize, Self)> {
        let charged = limits.iter().zip(charges).zip(standings).zip(waits);
        let items = charged.map(|(((limit, charge), standing), wait)| Item::refused(&limit.name, charge, standing, *wait));
        let (tightest, _) = waits.iter().take(limits.len()).enumerate().max_by_key(|(_, wait)| **wait)?;
        Some((tightest, Self::new(policy, items, tightest)?))
    }

    fn new<'a>(policy: Option<HeaderValue>, items: impl Iterator<Item = Item<'a>>, tightest: usize) -> Option<Self> {
        let mut list = String::with_capacity(64);
        let mut most_telling = None;
        for (position, item) in items.enumerate() {
            let Item { name, remaining, reset, .. } = item;
            list.push_str(if position == 0 { "\"" } else { ", \"" });
            list.push_str(name);
            list.push_str("\";r=");
            numbers::push(&mut list, remaining.min(LARGEST_INTEGER));
            list.push_str(";t=");
            numbers::push(&mut list, reset.min(LARGEST_INTEGER));
            if position == tightest {
                most_telling = Some((item.most, remaining, reset));
            }
        }
        let (limit, remaining, reset) = most_telling?;
        Some(Self { limit, remaining, reset, list, policy })
    }

    /// Writes the fields.
    pub fn write(&self, fields: &mut FieldLines) {
        fields.push_number(&X_RATELIMIT_LIMIT, self.limit);
        fields.push_number(&X_RATELIMIT_REMAINING, self.remaining);
        fields.push_number(&X_RATELIMIT_RESET, self.reset);
        fields.push(&RATELIMIT, &self.list);
        if let Some(policy) = &self.policy {
            fields.push_value(&RATELIMIT_POLICY, policy);
        }
    }

    /// Adds the fields to the upstream's answer. An upstream's own `RateLimit` items stay, in front of ours.
    pub fn apply(&self, response: &mut Response) {
        let replaced = [X_RATELIMIT_LIMIT, X_RATELIMIT_REMAINING, X_RATELIMIT_RESET];
        headers::remove_all(response.headers_mut(), &replaced.each_ref().map(HeaderName::as_str));
        self.write(response.body_mut().fields());
    }
}

/// The `RateLimit-Policy` of limits, by name: quota `q` and the seconds `w` of its window, rounded up; of a bucket, its
/// capacity and the seconds in which it fills.
pub fn policy<'a>(limits: impl Iterator<Item = (&'a str, Kind)>) -> Option<HeaderValue> {
    let item = |(name, kind): (&str, Kind)| {
        let seconds = match kind {
            Kind::Bucket(bucket) => bucket.capacity.div_ceil(bucket.rate.max(1)),
            Kind::Window(window) => window.length.div_ceil(MICRO),
        };
        format!(r#""{name}";q={};w={}"#, kind.most() / MICRO, seconds.min(LARGEST_INTEGER))
    };
    let list = limits.map(item).collect::<Vec<_>>().join(", ");
    (!list.is_empty()).then(|| HeaderValue::try_from(list).ok())?
}

// === impl Item ===

impl<'a> Item<'a> {
    fn admitted(name: &'a str, limit: &Limit, standing: &Standing) -> Self {
        Self::new(name, limit, standing, limit.until_next_token(standing))
    }

    fn refused(name: &'a str, charge: &Charge<'_>, standing: &Standing, wait: Duration) -> Self {
        let until = if wait.is_zero() { charge.limit.until_next_token(standing) } else { wait };
        Self::new(name, charge.limit, standing, until)
    }

    fn new(name: &'a str, limit: &Limit, standing: &Standing, until: Duration) -> Self {
        let reset = if until.is_zero() { 0 } else { retry_after_seconds(until) };
        let most = limit.untouched(standing.factor).tokens / MICRO;
        Self { name, most, remaining: standing.tokens / MICRO, reset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LimitKind, Rate, SlidingWindow, TokenBucket};

    #[test]
    fn a_policy_names_each_limit_with_its_quota_and_the_seconds_it_fills_in() {
        let bucket = |capacity, rate| {
            let refill_per_second = Rate::per_second(rate).unwrap();
            Kind::from(LimitKind::TokenBucket(TokenBucket { capacity, refill_per_second }))
        };
        let window = |quota, window| Kind::from(LimitKind::SlidingWindow(SlidingWindow { quota, window }));
        assert_eq!(policy([].into_iter()), None);
        assert_eq!(policy([("per-client", bucket(10, 2.0))].into_iter()).unwrap(), r#""per-client";q=10;w=5"#);
        let both = policy([("a", bucket(10, 3.0)), ("b", bucket(1, 0.5))].into_iter()).unwrap();
        assert_eq!(both, r#""a";q=10;w=4, "b";q=1;w=2"#);
        let mixed = [("m", window(100, Duration::from_mins(1))), ("n", window(5, Duration::from_millis(1500)))];
        assert_eq!(policy(mixed.into_iter()).unwrap(), r#""m";q=100;w=60, "n";q=5;w=2"#);
        let slow = policy([("c", bucket(u32::MAX, 0.000_001))].into_iter()).unwrap();
        assert_eq!(slow, r#""c";q=4294967295;w=999999999999999"#);
    }
}

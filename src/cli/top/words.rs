//! Facts in words: the lines of the overview, and how numbers are written.

use std::collections::BTreeMap;

use super::facts::{Facts, Latency, Store};

/// What stands for a number that there is not.
const NONE: &str = "-";

// === impl Facts ===

impl Facts {
    /// Which proxy it is, and how it is.
    pub(super) fn heading(&self, address: &str) -> String {
        let Self { version, config_revision, status, .. } = self;
        format!("cxgate {version}  {address}  {status} for {}  configuration {config_revision}", age(self.uptime_seconds))
    }

    /// All answers, and those of each class of status that came.
    pub(super) fn requests(&self) -> String {
        let came = self.answers_per_second.iter().filter(|(_, per_second)| **per_second > 0.0);
        let classes = join(came.map(|(class, per_second)| format!("{class} {}", rate(*per_second))));
        format!("{}/s{}{classes}", rate(self.requests_per_second), if classes.is_empty() { "" } else { ": " })
    }

    pub(super) fn refusals(&self) -> String {
        let of = |origin: &str| rate(self.refusals_per_second.get(origin).copied().unwrap_or_default());
        format!("{}/s here, {}/s upstream", of("local"), of("upstream"))
    }

    pub(super) fn refused_per_second(&self) -> f64 {
        self.refusals_per_second.values().sum()
    }

    /// What there is beside requests: label and text.
    pub(super) fn state(&self) -> [(&'static str, String); 7] {
        [
            ("store", self.store.words()),
            ("factor", factors(&self.factors)),
            ("latency", self.latency_seconds.words()),
            ("upstream", self.upstream_latency_seconds.words()),
            ("open", format!("{} requests, {} connections", count(self.open.requests), count(self.open.connections))),
            ("sockets", count(self.open.sockets)),
            ("queue", count(self.open.waiting)),
        ]
    }
}

// === impl Store ===

impl Store {
    /// Whether the failure policy decides in the store's place.
    pub(super) fn is_away(&self) -> bool {
        !matches!(self.mode.as_str(), "embedded" | "redis")
    }

    fn words(&self) -> String {
        let Self { mode, since_seconds, replicas, last_failure } = self;
        let since = age(*since_seconds);
        match (mode.as_str(), last_failure) {
            ("embedded", _) => format!("embedded for {since}"),
            ("redis", _) => format!("redis for {since}, {replicas} replicas"),
            (policy, Some(failure)) => format!("{policy} for {since} ({failure})"),
            (policy, None) => format!("{policy} for {since}"),
        }
    }
}

// === impl Latency ===

impl Latency {
    fn words(self) -> String {
        let Self { p50, p95, p99 } = self;
        format!("p50 {}  p95 {}  p99 {}", seconds(p50), seconds(p95), seconds(p99))
    }
}

// === numbers ===

fn factors(factors: &BTreeMap<String, f64>) -> String {
    if factors.is_empty() {
        return "no signal".to_owned();
    }
    join(factors.iter().map(|(signal, factor)| format!("{signal} {factor:.2}")))
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// So many a second.
pub(super) fn rate(per_second: f64) -> String {
    if per_second >= 1000.0 { format!("{per_second:.0}") } else { format!("{per_second:.1}") }
}

pub(super) fn count(number: Option<f64>) -> String {
    number.map_or(NONE.to_owned(), |number| format!("{number:.0}"))
}

pub(super) fn share(share: Option<f64>) -> String {
    share.map_or(NONE.to_owned(), |share| format!("{:.0} %", share * 100.0))
}

/// A short time.
pub(super) fn seconds(seconds: Option<f64>) -> String {
    match seconds {
        None => NONE.to_owned(),
        Some(seconds) if seconds < 0.01 => format!("{:.1}ms", seconds * 1000.0),
        Some(seconds) if seconds < 1.0 => format!("{:.0}ms", seconds * 1000.0),
        Some(seconds) => format!("{seconds:.1}s"),
    }
}

/// A long time, in its two largest units.
pub(super) fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, ..) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_two_or_three_places() {
        assert_eq!([0, 59, 60, 3599, 3600, 90_000].map(age), ["0s", "59s", "1m00s", "59m59s", "1h00m", "1d01h"]);
        let times = [None, Some(0.000_25), Some(0.0099), Some(0.25), Some(2.04)];
        assert_eq!(times.map(seconds), ["-", "0.2ms", "9.9ms", "250ms", "2.0s"]);
        assert_eq!([0.0, 12.34, 1234.5].map(rate), ["0.0", "12.3", "1234"]);
        assert_eq!([None, Some(0.256)].map(share), ["-", "26 %"]);
    }
}

//! One look at what is counted, out of the page that `/metrics` exports.
//!
//! Promised: looking costs nothing to those who count. What the page does not have is nought: metrics of parts that are not
//! configured are absent.

use std::collections::BTreeMap;

use crate::metrics::{BOUNDS, SHORTEST};

/// How requests end: passed, refused here, refused by the upstream, wrong in another way, failed.
pub const OUTCOMES: usize = 5;

/// Bounds of a histogram, and what lies beyond them.
const BUCKETS: usize = BOUNDS as usize + 1;

/// What was counted up to one moment, and how much there was of what comes and goes.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Requests by how they ended.
    pub outcomes: [u64; OUTCOMES],
    /// By route and limit: admitted, refused.
    pub decisions: BTreeMap<(String, String), [u64; 2]>,
    /// From request head to response head.
    pub whole: Times,
    /// The upstream's part of it.
    pub upstream: Times,
    /// By signal.
    pub factors: BTreeMap<String, f64>,
    /// What is there now.
    pub levels: Levels,
    /// Answers of the class 4xx, for whatever reason.
    pub(super) wrong: u64,
}

/// How much there is of what comes and goes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Levels {
    /// Requests whose response is not complete.
    pub in_flight: f64,
    /// Requests that wait for a limit.
    pub waiting: f64,
    /// Connections of clients.
    pub connections: f64,
    /// Connections to upstreams.
    pub upstream_connections: f64,
    /// WebSockets of clients.
    pub websockets: f64,
}

/// A histogram: how many took no longer than each bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times([u64; BUCKETS]);

/// A line of the page.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
}

// === impl Reading ===

impl Reading {
    /// Reads a page in the OpenMetrics text format.
    pub fn of(page: &str) -> Self {
        let mut reading = Self::default();
        page.lines().filter_map(Sample::parse).for_each(|sample| reading.take(&sample));
        let [_, here, upstream, wrong, _] = &mut reading.outcomes;
        *wrong = reading.wrong.saturating_sub(*here + *upstream);
        reading
    }

    fn take(&mut self, sample: &Sample<'_>) {
        let (count, levels) = (sample.count(), &mut self.levels);
        match sample.name {
            "cxgate_http_requests_total" => match sample.label("status") {
                "4xx" => self.wrong += count,
                "5xx" => self.outcomes[4] += count,
                _ => self.outcomes[0] += count,
            },
            "cxgate_violations_total" => self.outcomes[if sample.label("origin") == "local" { 1 } else { 2 }] += count,
            "cxgate_decisions_total" => {
                let names = (sample.label("route").to_owned(), sample.label("limit").to_owned());
                self.decisions.entry(names).or_default()[usize::from(sample.label("decision") == "refused")] += count;
            }
            "cxgate_http_request_duration_seconds_bucket" => self.whole.add(sample.label("le"), count),
            "cxgate_upstream_response_seconds_bucket" => self.upstream.add(sample.label("le"), count),
            // 0 until the signal is known.
            "cxgate_load_factor" if sample.value > 0.0 => {
                _ = self.factors.insert(sample.label("signal").to_owned(), sample.value);
            }
            "cxgate_http_requests_in_flight" => levels.in_flight = sample.value,
            "cxgate_pacing_queue" => levels.waiting += sample.value,
            "cxgate_connections" if sample.label("listener") == "proxy" => levels.connections = sample.value,
            "cxgate_upstream_connections" => levels.upstream_connections += sample.value,
            "cxgate_websockets" => levels.websockets += sample.value,
            _ => {}
        }
    }
}

// === impl Times ===

impl Times {
    fn add(&mut self, bound: &str, count: u64) {
        let seconds = bound.parse::<f64>().ok().filter(|seconds| seconds.is_finite());
        let place = seconds.map_or(BUCKETS - 1, |seconds| place(seconds / SHORTEST));
        self.0[place.min(BUCKETS - 1)] += count;
    }

    /// What was added since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self(std::array::from_fn(|place| self.0[place].saturating_sub(earlier.0[place])))
    }

    /// Both together.
    pub(super) fn and(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|place| self.0[place] + other.0[place]))
    }

    /// The time in seconds that this share of all did not exceed, as exact as the bounds allow; `None` where there was none.
    #[expect(clippy::cast_precision_loss, reason = "shown, and not computed with")]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let all = *self.0.last()?;
        let rank = share * all as f64;
        let place = self.0.iter().position(|count| *count > 0 && *count as f64 >= rank)?;
        let below = if place == 0 { 0 } else { self.0[place - 1] };
        let within = (rank - below as f64) / (self.0[place] - below).max(1) as f64;
        // Bounds double, so half-way between two is √2 times the lower. Beyond the last, nothing more is known.
        let exponent = place as f64 - 1.0 + if place == BUCKETS - 1 { 0.0 } else { within.clamp(0.0, 1.0) };
        Some(SHORTEST * exponent.exp2())
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a logarithm of what is at least 1")]
fn place(ratio: f64) -> usize {
    ratio.max(1.0).log2().round() as usize
}

// === impl Sample ===

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let (series, value) = line.rsplit_once(' ')?;
        let (name, mut rest) = series.split_once('{').unwrap_or((series, ""));
        let mut labels = Vec::new();
        while let Some((label, after)) = rest.split_once("=\"") {
            let mut value = String::new();
            let mut characters = after.char_indices();
            while let Some((at, character)) = characters.next() {
                match character {
                    '"' => {
                        rest = after[at + 1..].trim_start_matches(',');
                        break;
                    }
                    '\\' => value.extend(characters.next().map(|(_, escaped)| if escaped == 'n' { '\n' } else { escaped })),
                    plain => value.push(plain),
                }
            }
            labels.push((label, value));
        }
        Some(Self { name, labels, value: value.parse().ok()? })
    }

    fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(there, _)| *there == name).map_or("", |(_, value)| value)
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are whole, and saturate")]
    fn count(&self) -> u64 {
        self.value as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{DecisionLabels, Metrics, OriginLabels, RequestLabels, RouteLabels};

    #[test]
    fn a_page_is_read_as_it_is_written() {
        let metrics = Metrics::default();
        let route = || "a \"b\\c\"".to_owned();
        let answered = |status, count| {
            metrics.http_requests.get_or_create(&RequestLabels { route: route(), status }).inc_by(count);
        };
        answered("2xx", 7);
        answered("4xx", 5);
        answered("5xx", 1);
        metrics.violations.get_or_create(&OriginLabels { origin: "local" }).inc_by(2);
        metrics.violations.get_or_create(&OriginLabels { origin: "upstream" }).inc();
        let decision = DecisionLabels { route: route(), limit: "l".to_owned(), decision: "refused" };
        metrics.decisions.get_or_create(&decision).inc_by(2);
        metrics.websockets.get_or_create(&RouteLabels { route: route() }).set(3);
        let reading = Reading::of(&metrics.counted());
        assert_eq!(reading.outcomes, [7, 2, 1, 2, 1]);
        assert_eq!(reading.decisions, BTreeMap::from([((route(), "l".to_owned()), [0, 2])]));
        assert_eq!(reading.levels, Levels { websockets: 3.0, ..Levels::default() });
    }

    #[test]
    fn quantiles_lie_between_the_bounds_around_them() {
        let metrics = Metrics::default();
        let times = metrics.http_request_duration.get_or_create(&RouteLabels { route: "a".to_owned() }).clone();
        assert_eq!(Reading::of(&metrics.counted()).whole.quantile(0.5), None);
        (0..98).for_each(|_| times.observe(0.001));
        (0..2).for_each(|_| times.observe(1.0));
        let whole = Reading::of(&metrics.counted()).whole;
        let [half, most] = [0.5, 0.99].map(|share| whole.quantile(share).unwrap());
        assert!((0.0008..=0.0016).contains(&half), "{half}");
        assert!((0.8192..=1.6384).contains(&most), "{most}");
        times.observe(1000.0);
        let later = Reading::of(&metrics.counted()).whole.since(&whole);
        assert!((later.quantile(0.5).unwrap() - 26.2144).abs() < 1e-9, "more is not known");
    }
}

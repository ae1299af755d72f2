//! `[load.NAME]`.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use config::{Value, ValueKind};

use super::{
    Reader,
    kind::{duration, endpoint, factor, integer, number, share, text},
};
use crate::config::{Curve, Factor, Latency, Load, environment::json_list, report::variable_at};

/// Time from poll to poll: often enough to be a signal, rarely enough to be no load.
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_hours(1);
/// Age of a sample.
const AGE: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_hours(24);

/// The time from request to response head.
const THRESHOLD: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(1);
/// How long samples count: a tenth of it is the time from look to look.
const WINDOW: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);

/// The keys of a measured signal, any of which makes a table one.
const MEASURED: [&str; 5] = ["threshold", "slope", "floor", "window", "min_samples"];
/// The keys of a polled signal.
const POLLED: [&str; 10] = [
    "endpoint",
    "interval",
    "timeout",
    "cpu_curve",
    "queue_curve",
    "stale_after",
    "stale_factor",
    "min_refill_share",
    "hysteresis",
    "max_rise_per_second",
];

/// One table, of either kind.
pub(super) enum Signal {
    Polled(Load),
    Measured(Latency),
}

pub(super) fn signal(table: &mut Reader<'_, '_>) -> Signal {
    if !MEASURED.iter().any(|key| table.has(key)) {
        return Signal::Polled(load(table));
    }
    for key in POLLED {
        table.refuse(key, "expected in a signal that is polled, not beside the keys of one that is measured");
    }
    Signal::Measured(latency(table))
}

/// The signals of each kind.
pub(super) fn split(signals: BTreeMap<String, Signal>) -> (BTreeMap<String, Load>, BTreeMap<String, Latency>) {
    let (mut polled, mut measured) = (BTreeMap::new(), BTreeMap::new());
    for (name, signal) in signals {
        match signal {
            Signal::Polled(load) => _ = polled.insert(name, load),
            Signal::Measured(latency) => _ = measured.insert(name, latency),
        }
    }
    (polled, measured)
}

fn latency(table: &mut Reader<'_, '_>) -> Latency {
    Latency {
        threshold: table.or("threshold", Duration::from_millis(800), duration(THRESHOLD)),
        slope: table.or("slope", Factor::from_millionths(500_000), factor(0.000_001..=100.0)),
        floor: table.or("floor", Factor::from_millionths(200_000), factor(0.000_001..=1.0)),
        window: table.or("window", Duration::from_mins(1), duration(WINDOW)),
        min_samples: table.or("min_samples", 5, integer(1..=1_000_000)),
    }
}

fn load(table: &mut Reader<'_, '_>) -> Load {
    Load {
        endpoint: table.optional("endpoint", endpoint),
        interval: table.or("interval", Duration::from_secs(10), duration(INTERVAL)),
        timeout: table.or("timeout", Duration::from_secs(5), duration(INTERVAL)),
        cpu_curve: table.optional("cpu_curve", curve).unwrap_or_else(default_cpu_curve),
        queue_curve: table.or("queue_curve", Curve::default(), curve),
        stale_after: table.or("stale_after", Duration::from_mins(1), duration(AGE)),
        stale_factor: table.or("stale_factor", Factor::ONE, factor(0.000_001..=100.0)),
        min_refill_share: table.or("min_refill_share", Factor::from_millionths(50_000), factor(0.000_001..=1.0)),
        hysteresis: table.or("hysteresis", 0.05, share),
        max_rise_per_second: table.or("max_rise_per_second", Factor::from_millionths(100_000), factor(0.000_001..=100.0)),
    }
}

fn default_cpu_curve() -> Curve {
    Curve::new(vec![(0.0, 1.5), (50.0, 1.0), (100.0, 0.2)]).unwrap_or_default()
}

/// A list of pairs.
fn curve(value: &Value) -> Result<Curve, String> {
    let expected = |what: &str| format!("a list of points such as [[0, 1.5], [100, 0.2]]: {what}");
    let points = match variable_at(value.origin()).zip(text(value)) {
        Some((name, text)) => json_list(name, text),
        None => elements(value).map(<[Value]>::to_vec),
    };
    let points: Option<Vec<_>> = points.and_then(|points| points.iter().map(point).collect());
    let points = points.ok_or_else(|| expected("each a load and a factor"))?;
    Curve::new(points).map_err(expected)
}

fn point(value: &Value) -> Option<(f64, f64)> {
    match elements(value)? {
        [load, factor] => Some((number(load)?, number(factor)?)),
        _ => None,
    }
}

fn elements(value: &Value) -> Option<&[Value]> {
    match &value.kind {
        ValueKind::Array(elements) => Some(elements),
        _ => None,
    }
}

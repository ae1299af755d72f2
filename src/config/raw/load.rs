//! `[load.NAME]`.

use std::{ops::RangeInclusive, time::Duration};

use config::{Value, ValueKind};

use super::{
    Reader,
    kind::{duration, endpoint, factor, number, share, text},
};
use crate::config::{Curve, Factor, Load, environment::json_list, report::variable_at};

/// Time from poll to poll: often enough to be a signal, rarely enough to be no load.
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_hours(1);
/// Age of a sample.
const AGE: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_hours(24);

pub(super) fn load(table: &mut Reader<'_, '_>) -> Load {
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

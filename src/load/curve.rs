//! From a sample to a factor: pure functions.

use crate::config::{self, Curve, Factor};

/// What an endpoint said, checked: finite and in range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Per cent, 0 to 100; `None` where the configuration does not look.
    pub cpu_utilization: Option<f64>,
    /// Entries, at least 0; `None` where the configuration does not look.
    pub queue_depth: Option<f64>,
}

/// The factor for a sample: the lowest of all curves, and never below the configured share.
pub fn factor(config: &config::Load, sample: Sample) -> Factor {
    let cpu = sample.cpu_utilization.and_then(|load| at(&config.cpu_curve, load));
    let queue = sample.queue_depth.and_then(|load| at(&config.queue_curve, load));
    let lowest = [cpu, queue].into_iter().flatten().min_by(f64::total_cmp);
    lowest
        .and_then(Factor::new)
        .unwrap_or(if lowest.is_some() { config.min_refill_share } else { Factor::ONE })
        .max(config.min_refill_share)
}

/// The curve's value at `load`: linear between its points, level outside them; `None` where it has none.
fn at(curve: &Curve, load: f64) -> Option<f64> {
    let points = curve.points();
    let above = points.iter().position(|(point, _)| *point >= load);
    Some(match above {
        None => points.last()?.1,
        Some(0) => points.first()?.1,
        Some(upper) => {
            let ((x0, y0), (x1, y1)) = (points[upper - 1], points[upper]);
            y0 + (y1 - y0) * (load - x0) / (x1 - x0)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn backend() -> config::Load {
        let mut config = Config::default().load["backend"].clone();
        config.queue_curve = Curve::new(vec![(0.0, 1.5), (100.0, 0.0)]).unwrap();
        config
    }

    #[test]
    fn the_lowest_curve_decides_and_never_below_the_share() {
        let cases = [
            (Some(0.0), None, 1.5),
            (Some(25.0), None, 1.25),
            (Some(50.0), None, 1.0),
            (Some(75.0), None, 0.6),
            (Some(100.0), None, 0.2),
            (Some(0.0), Some(50.0), 0.75),
            (Some(100.0), Some(0.0), 0.2),
            (None, Some(100.0), 0.05),
            (None, Some(1e300), 0.05),
            (None, None, 1.0),
        ];
        for (cpu_utilization, queue_depth, expected) in cases {
            let found = factor(&backend(), Sample { cpu_utilization, queue_depth });
            assert_eq!(found, Factor::new(expected).unwrap(), "{cpu_utilization:?} {queue_depth:?}");
        }
    }
}

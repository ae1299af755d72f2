//! How loaded the stand-in says it is: a slow wave between idle and busy, so that refill rates can be seen to follow.

use std::{f64::consts::TAU, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

/// Where the load is asked for, as in the built-in configuration's example.
pub(super) const PATH: &str = "/api/v2/system/load";

/// From idle to busy and back.
const PERIOD: Duration = Duration::from_secs(40);

/// A backend whose load swings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wave {
    began: Instant,
}

// === impl Wave ===

impl Wave {
    /// Starts idle.
    pub(super) fn begin() -> Self {
        Self { began: Instant::now() }
    }

    /// CPU utilisation now, 5 to 95 per cent.
    pub(super) fn cpu_utilization(self) -> f64 {
        cpu_utilization(self.began.elapsed())
    }

    /// What the load endpoint answers.
    pub(super) fn sample(self) -> Value {
        let cpu = self.cpu_utilization().round();
        json!({ "cpu_utilization": cpu, "queue_depth": (cpu / 4.0).floor() })
    }
}

fn cpu_utilization(elapsed: Duration) -> f64 {
    50.0 - 45.0 * (TAU * elapsed.as_secs_f64() / PERIOD.as_secs_f64()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_swings_from_5_to_95_and_back() {
        for (seconds, expected) in [(0, 5.0), (10, 50.0), (20, 95.0), (30, 50.0), (40, 5.0)] {
            let cpu = cpu_utilization(Duration::from_secs(seconds));
            assert!((cpu - expected).abs() < 1e-9, "{cpu} after {seconds} s, expected {expected}");
        }
    }
}

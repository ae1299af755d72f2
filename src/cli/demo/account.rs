//! The live account: what the guests counted, what the stand-in says of its load, and what the proxy reports it makes of it.

use std::{net::SocketAddr, time::Duration};

use tokio::time::Instant;

use super::{
    client::Client,
    guests::{Count, Crowd},
    load::Wave,
};
use crate::config::Rate;

/// The metric that tells how load scales refill rates.
const FACTOR_METRIC: &str = "cxgate_load_factor{";

/// What is read for the account.
pub(super) struct Account {
    began: Instant,
    crowd: Crowd,
    wave: Wave,
    admin: Client,
    /// Of each client, unscaled.
    rate: Rate,
}

/// How things stood at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// Since the start.
    pub(super) elapsed: Duration,
    /// Of the ordinary guests, together.
    pub(super) ordinary: Count,
    /// Of the one who abuses.
    pub(super) abuser: Count,
    /// CPU utilisation of the stand-in, in per cent.
    pub(super) cpu_utilization: f64,
    /// The factor on refill rates and the rate in force, in requests a second, once the proxy reports them.
    pub(super) factor_and_rate: Option<(f64, f64)>,
}

// === impl Account ===

impl Account {
    /// Begins now.
    pub(super) fn open(crowd: Crowd, wave: Wave, admin: SocketAddr, rate: Rate) -> Self {
        Self { began: Instant::now(), crowd, wave, admin: Client::new(admin), rate }
    }

    /// How things stand; asks the proxy's metrics for what it alone knows.
    pub(super) async fn now(&mut self) -> Moment {
        let metrics = self.admin.get("/metrics", "demo").await;
        let factor = metrics.ok().and_then(|(_, page)| lowest(FACTOR_METRIC, &String::from_utf8_lossy(&page)));
        Moment {
            elapsed: self.began.elapsed(),
            ordinary: self.crowd.ordinary.count(),
            abuser: self.crowd.abuser.count(),
            cpu_utilization: self.wave.cpu_utilization(),
            factor_and_rate: factor.map(|factor| (factor, factor * self.rate.as_f64())),
        }
    }
}

/// The lowest value of a metric on a page of them.
fn lowest(metric: &str, page: &str) -> Option<f64> {
    let samples = page.lines().filter(|line| line.starts_with(metric));
    samples.filter_map(|line| line.rsplit_once(' ')?.1.parse().ok()).min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_sample_of_a_metric_counts() {
        let page = "# HELP a_b x\na_b{s=\"1\"} 1.5\na_b{s=\"2\"} 0.25\na_bc 0.1\n";
        assert_eq!(lowest("a_b{", page), Some(0.25));
        assert_eq!(lowest("b_a{", page), None);
    }
}

//! How many connections to an upstream are open.

use prometheus_client::metrics::gauge::Gauge;

/// Counts a connection as open for as long as it lives.
pub(super) struct Open(Gauge);

// === impl Open ===

impl Open {
    pub(super) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

//! `Server-Timing` (W3C): how long the decision and the upstream took, in milliseconds, and the factor in force.

use std::time::Duration;

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use tokio::time::Instant;

use crate::config::Factor;

const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Measures one request from the moment at which it may go upstream.
#[derive(Debug, Clone, Copy)]
pub struct ServerTiming {
    decision: Duration,
    sent: Instant,
}

// === impl ServerTiming ===

impl ServerTiming {
    /// What was received at `received` goes upstream now.
    pub fn decided(received: Instant) -> Self {
        let sent = Instant::now();
        Self { decision: sent.saturating_duration_since(received), sent }
    }

    /// The answer's head is there: says so in it, behind what the upstream says of itself.
    pub fn answered(self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::try_from(text(self.sent.elapsed(), self.decision)) {
            headers.append(SERVER_TIMING, value);
        }
    }
}

/// Says by which factor signals scale the request's limits, and what quota that leaves.
pub fn in_force(headers: &mut HeaderMap, factor: Factor, quota: u64) {
    let text = format!(r#"factor;desc="{}", quota;desc="{quota}""#, factor.as_f64());
    headers.extend(HeaderValue::try_from(text).ok().map(|text| (SERVER_TIMING, text)));
}

/// Lets pages of `origin` read the timing (W3C Resource Timing).
pub fn permit(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.append(TIMING_ALLOW_ORIGIN, origin);
}

fn text(upstream: Duration, decision: Duration) -> String {
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
    format!("upstream;dur={:.1}, decision;dur={:.1}", milliseconds(upstream), milliseconds(decision))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_milliseconds() {
        let text = text(Duration::from_micros(12_345), Duration::from_micros(400));
        assert_eq!(text, "upstream;dur=12.3, decision;dur=0.4");
    }
}

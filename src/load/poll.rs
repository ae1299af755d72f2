//! Polling one signal.
//!
//! Promised: a sample counts only if it is whole, in time and in range; anything else is refused and counted by cause. An
//! answer is read up to [`MAX_ANSWER_BYTES`].

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{Request, StatusCode, header::ACCEPT};
use prometheus_client::metrics::counter::Counter;
use serde::Deserialize;
use tokio::time::timeout;
use tracing::warn;

use super::{
    Source,
    curve::{self, Sample},
};
use crate::{
    body::RequestBody,
    config::{self, Factor},
};

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// A polled signal.
pub(super) struct Signal {
    pub(super) source: Source,
    pub(super) samples: SampleCounters,
}

/// Samples by result.
pub(super) struct SampleCounters {
    good: Counter,
    refused: [Counter; 5],
}

/// Why a sample was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error("the endpoint cannot be reached")]
    Unreachable,
    #[error("the endpoint did not answer in time")]
    Timeout,
    #[error("the endpoint did not answer with status 200")]
    Status,
    #[error("the answer is larger than 64 KiB")]
    TooLarge,
    #[error("the answer is not JSON with a cpu_utilization from 0 to 100 and a queue_depth of 0 or more")]
    Invalid,
}

/// What the endpoint answers. A number that is a string, or no number, is none.
#[derive(Deserialize)]
struct Answer {
    cpu_utilization: Option<f64>,
    queue_depth: Option<f64>,
}

// === impl Signal ===

impl Signal {
    /// Takes one sample; `None` where it is refused, which is counted and logged.
    pub(super) async fn sample_in_time(&self) -> Option<Factor> {
        match timeout(self.source.config.timeout, self.sample()).await.unwrap_or(Err(Refused::Timeout)) {
            Ok(factor) => {
                self.samples.good.inc();
                Some(factor)
            }
            Err(refused) => {
                self.refuse(refused);
                None
            }
        }
    }

    async fn sample(&self) -> Result<Factor, Refused> {
        let target = self.source.path_and_query.as_str();
        let request = Request::get(target)
            .header(ACCEPT, "application/json")
            .body(RequestBody::default())
            .map_err(|_| Refused::Invalid)?;
        let response = self.source.endpoint.send(request).await.map_err(|_| Refused::Unreachable)?;
        if response.status() != StatusCode::OK {
            return Err(Refused::Status);
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body =
            body.map_err(|error| if error.is::<LengthLimitError>() { Refused::TooLarge } else { Refused::Unreachable })?;
        parse(&body.to_bytes(), &self.source.config).map(|sample| curve::factor(&self.source.config, sample))
    }

    fn refuse(&self, refused: Refused) {
        self.samples.refused[refused as usize].inc();
        warn!(event = "load_sample_refused", signal = self.source.name, error = %refused, "load sample refused");
    }
}

fn parse(body: &Bytes, config: &config::Load) -> Result<Sample, Refused> {
    let answer: Answer = serde_json::from_slice(body).map_err(|_| Refused::Invalid)?;
    let checked = |wanted: &config::Curve, value: Option<f64>, most: f64| match (wanted.points().is_empty(), value) {
        (true, _) => Ok(None),
        (false, Some(value)) if (0.0..=most).contains(&value) => Ok(Some(value)),
        (false, _) => Err(Refused::Invalid),
    };
    Ok(Sample {
        cpu_utilization: checked(&config.cpu_curve, answer.cpu_utilization, 100.0)?,
        queue_depth: checked(&config.queue_curve, answer.queue_depth, f64::MAX)?,
    })
}

// === impl SampleCounters ===

impl SampleCounters {
    /// Resolves a counter for each result.
    pub(super) fn new(counter: impl Fn(&'static str) -> Counter) -> Self {
        let refused = ["unreachable", "timeout", "status", "too_large", "invalid"].map(&counter);
        Self { good: counter("good"), refused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Curve};

    fn parsed(config: &config::Load, body: &'static str) -> Result<(Option<f64>, Option<f64>), Refused> {
        parse(&Bytes::from_static(body.as_bytes()), config).map(|sample| (sample.cpu_utilization, sample.queue_depth))
    }

    #[test]
    fn a_sample_counts_only_if_it_is_whole_and_in_range() {
        let cpu_only = Config::default().load["backend"].clone();
        assert_eq!(
            parsed(&cpu_only, r#"{"cpu_utilization": 37.5, "queue_depth": 3, "more": true}"#),
            Ok((Some(37.5), None))
        );
        assert_eq!(parsed(&cpu_only, r#"{"cpu_utilization": 0}"#), Ok((Some(0.0), None)));
        for bad in [
            "",
            "{",
            "[]",
            "null",
            "37",
            "{}",
            r#"{"cpu_utilization": null}"#,
            r#"{"cpu_utilization": "37"}"#,
            r#"{"cpu_utilization": -5}"#,
            r#"{"cpu_utilization": 100.1}"#,
            r#"{"cpu_utilization": 1e309}"#,
            r#"{"cpu_utilization": NaN}"#,
            r#"{"cpu_utilization": true}"#,
            r#"{"cpu_utilization": 1, "cpu_utilization": 2}"#,
            r#"{"queue_depth": 1}"#,
        ] {
            assert_eq!(parsed(&cpu_only, bad), Err(Refused::Invalid), "{bad}");
        }
        let both = config::Load { queue_curve: Curve::new(vec![(0.0, 1.0), (10.0, 0.5)]).unwrap(), ..cpu_only };
        assert_eq!(parsed(&both, r#"{"cpu_utilization": 1, "queue_depth": 7}"#), Ok((Some(1.0), Some(7.0))));
        assert_eq!(parsed(&both, r#"{"cpu_utilization": 1}"#), Err(Refused::Invalid));
        assert_eq!(parsed(&both, r#"{"cpu_utilization": 1, "queue_depth": -1}"#), Err(Refused::Invalid));
    }
}

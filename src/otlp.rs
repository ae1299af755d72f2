//! Spans on their way to a collector, by the OpenTelemetry Protocol: HTTP with protobuf.
//!
//! Promised: requests never wait for it, because it takes from a queue that is bounded; a batch that the collector cannot take
//! now is sent again, [`TRIES`] times at most; every span is counted as taken or as lost. When the daemon ends, what is there
//! is sent for at most [`FAREWELL`]. Not promised: that a batch in the midst of which the daemon ended is sent only once.

use std::{
    future::pending,
    mem,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{
    HeaderMap, Request, StatusCode, Uri,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT},
};
use prometheus_client::metrics::counter::Counter;
use prost::Message;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use crate::{
    body::RequestBody,
    config::{self, Endpoint, Telemetry},
    metrics::Metrics,
    shutdown::Shutdown,
    trace::Spans,
    upstream::{Upstream, UpstreamSetupError, retry_after},
};

mod encode;
pub mod message;

use message::{ExportTraceServiceResponse, Resource};

/// Requests whose spans are sent at once: some 600 KiB.
const MAX_BATCH: usize = 512;
/// How long the first span of a batch waits for others.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a batch is sent before it is lost.
const TRIES: u32 = 4;
/// The first wait before another try; each is twice the one before.
const BACK_OFF: Duration = Duration::from_secs(1);
/// The longest, whatever the collector asks for: others queue meanwhile.
const MAX_BACK_OFF: Duration = Duration::from_secs(30);
/// How long the end of the daemon waits for what is there.
const FAREWELL: Duration = Duration::from_secs(2);
/// What is read of an answer, which is short.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Sends spans to one collector.
pub struct Exporter {
    collector: Upstream,
    target: Uri,
    headers: HeaderMap,
    resource: Resource,
    timeout: Duration,
    spans: mpsc::Receiver<Spans>,
    /// Taken from the queue, and not yet sent.
    batch: Vec<Spans>,
    exported: Counter,
    dropped: Counter,
    /// Whether the last batch was taken, so that only changes are told.
    is_well: bool,
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("the collector cannot be reached")]
    Unreachable,
    #[error("the collector did not answer in time")]
    Timeout,
    #[error("the collector is busy (status {0})")]
    Busy(StatusCode, Option<Duration>),
    #[error("the collector refused (status {0})")]
    Refused(StatusCode),
}

// === impl Exporter ===

impl Exporter {
    /// Exports what comes from `spans` to `endpoint`. Reads the file of certificate authorities, if one is configured.
    pub fn new(
        config: &Telemetry,
        endpoint: &Endpoint,
        spans: mpsc::Receiver<Spans>,
        metrics: &Metrics,
    ) -> Result<Self, UpstreamSetupError> {
        let upstream = config::Upstream {
            url: endpoint.origin.clone(),
            connect_timeout: config.timeout,
            response_timeout: config.timeout,
            idle_timeout: MAX_BACK_OFF,
            max_connections: 1,
            http2: config::Http2::Off,
            ca: config.ca.clone(),
            client_certificate: None,
        };
        let collector = Upstream::new("telemetry", &upstream, config.timeout, metrics)?;
        Ok(Self {
            collector,
            target: endpoint.path_and_query.parse().unwrap_or_else(|_| Uri::from_static("/v1/traces")),
            headers: headers(config),
            resource: encode::resource(config),
            timeout: config.timeout,
            spans,
            batch: Vec::new(),
            exported: metrics.spans_exported.clone(),
            dropped: metrics.spans_dropped.clone(),
            is_well: true,
        })
    }

    /// Exports until `shutdown` stops, and then what is left.
    pub async fn run(mut self, shutdown: Shutdown) {
        tokio::select! {
            () = shutdown.stopped() => {}
            () = self.export_all() => {}
        }
        if timeout(FAREWELL, self.export_rest()).await.is_err() {
            while let Ok(spans) = self.spans.try_recv() {
                self.batch.push(spans);
            }
            self.dropped.inc_by(count(&self.batch));
        }
    }

    async fn export_all(&mut self) {
        loop {
            self.gather().await;
            let body = self.body();
            let mut outcome = self.post(body.clone()).await;
            for attempt in 1..TRIES {
                let Some(wait) = outcome.as_ref().err().and_then(|error| error.wait(attempt)) else { break };
                sleep(wait).await;
                outcome = self.post(body.clone()).await;
            }
            self.settle(outcome);
        }
    }

    /// Sends what is there, each batch once.
    async fn export_rest(&mut self) {
        loop {
            while self.batch.len() < MAX_BATCH
                && let Ok(spans) = self.spans.try_recv()
            {
                self.batch.push(spans);
            }
            if self.batch.is_empty() {
                return;
            }
            let outcome = self.post(self.body()).await;
            self.settle(outcome);
        }
    }

    /// Waits for a first request's spans, and a moment for those of others. What was taken is kept where the wait is cut short.
    async fn gather(&mut self) {
        if self.batch.is_empty() {
            self.take().await;
        }
        let full = async {
            while self.batch.len() < MAX_BATCH {
                self.take().await;
            }
        };
        let _ = timeout(PAUSE, full).await;
    }

    /// Takes what there is room for; waits until there is something.
    async fn take(&mut self) {
        let room = MAX_BATCH - self.batch.len();
        if self.spans.recv_many(&mut self.batch, room).await == 0 {
            // Nobody is left to hand anything over.
            pending::<()>().await;
        }
    }

    fn body(&self) -> Bytes {
        encode::request(&self.resource, &self.batch).encode_to_vec().into()
    }

    /// Posts a batch; how many spans of it were not wanted.
    async fn post(&self, body: Bytes) -> Result<u64, ExportError> {
        timeout(self.timeout, self.exchange(body)).await.unwrap_or(Err(ExportError::Timeout))
    }

    async fn exchange(&self, body: Bytes) -> Result<u64, ExportError> {
        let mut request = Request::new(RequestBody::whole(body.clone()));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(CONTENT_LENGTH, body.len().into());
        let response = self.collector.send(request).await.map_err(|_| ExportError::Unreachable)?;
        let (head, body) = response.into_parts();
        let answer = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map(http_body_util::Collected::to_bytes);
        match head.status {
            status if status.is_success() => {
                let answer = answer.ok().and_then(|answer| ExportTraceServiceResponse::decode(answer).ok());
                let rejected = answer.and_then(|answer| answer.partial_success).map(|partial| partial.rejected_spans);
                Ok(rejected.and_then(|rejected| u64::try_from(rejected).ok()).unwrap_or_default())
            }
            // OTLP 1, "Retryable Response Codes".
            status @ (StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT) => Err(ExportError::Busy(status, retry_after(&head.headers, SystemTime::now()))),
            status => Err(ExportError::Refused(status)),
        }
    }

    /// Counts what became of the batch, which is gone then, and tells where that is not what became of the last.
    fn settle(&mut self, outcome: Result<u64, ExportError>) {
        let count = count(&mem::take(&mut self.batch));
        match outcome {
            Ok(rejected) => {
                let rejected = rejected.min(count);
                self.exported.inc_by(count - rejected);
                self.dropped.inc_by(rejected);
                if !mem::replace(&mut self.is_well, true) {
                    info!(event = "spans_exported", "spans are exported again");
                }
            }
            Err(error) => {
                self.dropped.inc_by(count);
                if mem::replace(&mut self.is_well, false) {
                    warn!(event = "spans_lost", error = %error, "spans cannot be exported");
                }
            }
        }
    }
}

fn count(batch: &[Spans]) -> u64 {
    batch.iter().map(|spans| spans.len() as u64).sum()
}

/// Those that are configured, and what the body is.
fn headers(config: &Telemetry) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, secret) in &config.headers {
        let (Ok(name), Ok(mut value)) = (HeaderName::try_from(name), HeaderValue::from_str(secret.expose())) else {
            continue;
        };
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("cxgate/", env!("CARGO_PKG_VERSION"))));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    headers
}

// === impl ExportError ===

impl ExportError {
    /// How long to wait before the try after `attempt`; `None` where another would end the same.
    fn wait(&self, attempt: u32) -> Option<Duration> {
        let back_off = BACK_OFF * 2_u32.saturating_pow(attempt - 1);
        match self {
            Self::Unreachable | Self::Timeout => Some(back_off),
            Self::Busy(_, asked) => Some(asked.unwrap_or(back_off).min(MAX_BACK_OFF)),
            Self::Refused(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_end_otherwise_is_tried_again_with_growing_waits() {
        let seconds = Duration::from_secs;
        let busy = |asked: Option<u64>| ExportError::Busy(StatusCode::TOO_MANY_REQUESTS, asked.map(seconds));
        for (error, attempt, wait) in [
            (ExportError::Unreachable, 1, Some(1)),
            (ExportError::Timeout, 3, Some(4)),
            (busy(None), 2, Some(2)),
            (busy(Some(7)), 1, Some(7)),
            (busy(Some(7000)), 1, Some(30)),
            (ExportError::Refused(StatusCode::BAD_REQUEST), 1, None),
        ] {
            assert_eq!(error.wait(attempt), wait.map(seconds), "{error}");
        }
    }
}

//! The tracer, and whoever exports its spans; neither in a build without the feature `otel`.

use super::StartError;
use crate::{config::Telemetry, metrics::Metrics, shutdown::Shutdown, trace::Tracer};

/// Begins to export to what `[telemetry]` names; `None` where it names nothing.
#[cfg(feature = "otel")]
pub(super) fn start(config: &Telemetry, metrics: &Metrics, background: &Shutdown) -> Result<Option<Tracer>, StartError> {
    let Some(endpoint) = &config.endpoint else { return Ok(None) };
    let (tracer, spans) = Tracer::new(config.sample_ratio, metrics.spans_dropped.clone(), ());
    let exporter = crate::otlp::Exporter::new(config, endpoint, spans, metrics);
    let exporter = exporter.map_err(|cause| StartError::client("telemetry", cause))?;
    background.spawn(exporter.run(background.clone()));
    Ok(Some(tracer))
}

/// Nothing: what is not built in is refused when the configuration is checked.
#[cfg(not(feature = "otel"))]
#[expect(clippy::unnecessary_wraps, reason = "where it is built in, it can fail")]
pub(super) fn start(_: &Telemetry, _: &Metrics, _: &Shutdown) -> Result<Option<Tracer>, StartError> {
    Ok(None)
}

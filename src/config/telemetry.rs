//! `[telemetry]`: where spans of traces go.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Serialize;

use super::{Endpoint, Secret, value};

/// `[telemetry]`: traces for OpenTelemetry.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Telemetry {
    /// Where spans are posted by OTLP, path included; `None` exports none, and leaves trace context as it comes.
    #[serde(serialize_with = "value::optional")]
    pub endpoint: Option<Endpoint>,
    /// PEM file of the certificate authorities that it is believed by; `None` for the system's.
    #[serde(serialize_with = "value::optional")]
    pub ca: Option<PathBuf>,
    /// Longest wait for its answer.
    #[serde(serialize_with = "value::duration")]
    pub timeout: Duration,
    /// The share of new traces that are sampled (0 to 1); a caller's trace is sampled where the caller says so.
    pub sample_ratio: f64,
    /// What the process is called.
    pub service_name: String,
    /// Header fields of what is posted, by name.
    pub headers: BTreeMap<String, Secret>,
    /// What else is known of the process.
    pub resource: BTreeMap<String, String>,
}

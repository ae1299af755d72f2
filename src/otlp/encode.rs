//! From spans to the messages of the protocol.

use crate::{
    config::Telemetry,
    otlp::message::{
        AnyValue, ExportTraceServiceRequest, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans, Span,
        Status, any_value,
    },
    trace::{self, Kind, Spans, Value},
};

/// The trace is sampled, and it is known whether a parent is remote.
const FLAGS: u32 = 0x101;
/// It is.
const REMOTE: u32 = 0x200;
/// The code of a failure.
const FAILED: i32 = 2;

/// What is known of this process: `service.name` first, and what is configured last, so that it can replace nothing of that.
pub(super) fn resource(config: &Telemetry) -> Resource {
    let own = [
        ("service.name", config.service_name.as_str()),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("telemetry.sdk.name", "cxgate"),
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ];
    let configured = config.resource.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let configured = configured.filter(|(name, _)| own.iter().all(|(own, _)| own != name));
    let attributes = own.into_iter().chain(configured).map(|(name, value)| attribute(name, value.into()));
    Resource { attributes: attributes.collect() }
}

/// One message for the spans of a batch.
pub(super) fn request(resource: &Resource, batch: &[Spans]) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope { name: "cxgate".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let spans = batch.iter().flatten().map(span).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource: Some(resource.clone()), scope_spans }] }
}

fn span(span: &trace::Span) -> Span {
    let kind = match span.kind {
        Kind::Internal => 1,
        Kind::Server => 2,
        Kind::Client => 3,
    };
    Span {
        trace_id: span.trace.to_bytes().to_vec(),
        span_id: span.id.to_bytes().to_vec(),
        parent_span_id: span.parent.map(|parent| parent.to_bytes().to_vec()).unwrap_or_default(),
        name: span.name.clone().into_owned(),
        kind,
        start_time_unix_nano: span.begun,
        end_time_unix_nano: span.ended,
        attributes: span.attributes.as_slice().iter().map(|(name, value)| attribute(name, value.clone())).collect(),
        status: span.is_failed.then_some(Status { code: FAILED }),
        flags: FLAGS | if span.is_parent_remote { REMOTE } else { 0 },
    }
}

fn attribute(name: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text),
        Value::Whole(number) => any_value::Value::IntValue(number),
        Value::Decimal(number) => any_value::Value::DoubleValue(number),
    };
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

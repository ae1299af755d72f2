//! The variables that OpenTelemetry's specification gives every program, as far as there are keys for what they say.
//!
//! Promised: they stand in where `[telemetry]` says nothing; a build that exports no traces does not look at them, and an
//! endpoint that is spoken to in another protocol than ours is left alone.

use std::collections::BTreeMap;

use config::{Map, Value, ValueKind};
use percent_encoding::percent_decode_str;

use super::report::place_of_variable;

/// The protocol that we speak.
const PROTOCOL: &str = "http/protobuf";

/// What they say, as a tree.
pub(super) fn variables(environment: &BTreeMap<String, String>) -> Value {
    let given = |name: &str| environment.get(name).map(String::as_str).filter(|text| !text.is_empty());
    let is_off = given("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"))
        || given("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter != "otlp");
    if is_off || !cfg!(feature = "otel") {
        return Value::from(Map::<String, Value>::new());
    }
    // What is said of traces alone wins over what is said of all signals.
    let of_traces = |name: &str| {
        let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")];
        names.into_iter().find_map(|name| given(&name).map(|text| (name, text)))
    };
    let speaks_ours = of_traces("PROTOCOL").is_none_or(|(_, protocol)| protocol == PROTOCOL);
    let endpoint = of_traces("ENDPOINT").filter(|_| speaks_ours).map(|(name, text)| {
        // One for all signals is where each has a path of its own.
        let path = if name.contains("_TRACES_") { "" } else { "/v1/traces" };
        let text = if path.is_empty() { text } else { text.trim_end_matches('/') };
        (name, format!("{text}{path}"))
    });
    let ratio = given("OTEL_TRACES_SAMPLER_ARG")
        .filter(|_| given("OTEL_TRACES_SAMPLER").is_some_and(|sampler| sampler == "parentbased_traceidratio"));
    let own = |name: &str, text: Option<&str>| text.map(|text| (name.to_owned(), text.to_owned()));
    let texts = [
        ("endpoint", endpoint),
        ("ca", of_traces("CERTIFICATE").map(|(name, text)| (name, text.to_owned()))),
        ("timeout", of_traces("TIMEOUT").map(|(name, text)| (name, format!("{text}ms")))),
        ("sample_ratio", own("OTEL_TRACES_SAMPLER_ARG", ratio)),
        ("service_name", own("OTEL_SERVICE_NAME", given("OTEL_SERVICE_NAME"))),
    ];
    let texts = texts.into_iter().filter_map(|(key, given)| Some((key, given?)));
    let texts = texts.map(|(key, (name, text))| (key.to_owned(), Value::new(Some(&place_of_variable(&name)), text)));
    let lists = [
        ("headers", of_traces("HEADERS")),
        ("resource", given("OTEL_RESOURCE_ATTRIBUTES").map(|text| ("OTEL_RESOURCE_ATTRIBUTES".to_owned(), text))),
    ];
    let lists = lists.into_iter().filter_map(|(key, given)| given.map(|(name, text)| (key.to_owned(), pairs(&name, text))));
    Value::from(Map::from([("telemetry".to_owned(), Value::from(texts.chain(lists).collect::<Map<_, _>>()))]))
}

/// `name=value` by commas, the values percent-encoded (W3C Baggage). What is no pair is left out.
fn pairs(variable: &str, text: &str) -> Value {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        Some((name.trim().to_owned(), Value::new(Some(&place_of_variable(variable)), value.into_owned())))
    };
    Value::new(None, ValueKind::Table(text.split(',').filter_map(pair).collect()))
}

//! OpenTelemetry's own variables stand in for keys that are not set.

use cxgate::config::{Config, Sources, load};

fn loaded(file: &str, variables: &[(&str, &str)]) -> Config {
    let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load(&Sources { file: Some(file.into()), environment }).unwrap_or_else(|error| panic!("{variables:?}: {error}")).config
}

fn endpoint(config: &Config) -> String {
    config.telemetry.endpoint.clone().map(String::from).unwrap_or_default()
}

#[test]
fn they_say_what_the_keys_say() {
    let telemetry = loaded(
        "/dev/null",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic%20hunter2, x-tenant = chat"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/etc/ssl/collector.pem"),
            ("OTEL_SERVICE_NAME", "gate"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,team=a%2Cb"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ],
    );
    assert_eq!(endpoint(&telemetry), "http://collector:4318/v1/traces");
    let telemetry = telemetry.telemetry;
    assert_eq!(telemetry.headers["Authorization"].expose(), "Basic hunter2");
    assert_eq!(telemetry.headers["x-tenant"].expose(), "chat");
    assert_eq!((telemetry.timeout.as_millis(), telemetry.service_name.as_str()), (1500, "gate"));
    assert_eq!(telemetry.ca.unwrap().to_str(), Some("/etc/ssl/collector.pem"));
    assert_eq!(
        (telemetry.resource["deployment.environment.name"].as_str(), telemetry.resource["team"].as_str()),
        ("test", "a,b")
    );
    assert!((telemetry.sample_ratio - 0.25).abs() < 1e-9);
}

#[test]
fn what_is_said_of_traces_wins_over_what_is_said_of_all_and_the_file_over_both() {
    let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318");
    let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4318/other");
    assert_eq!(endpoint(&loaded("/dev/null", &[all, traces])), "http://traces:4318/other");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "[telemetry]\nendpoint = \"http://file/x\"\n").unwrap();
    assert_eq!(endpoint(&loaded(file.path().to_str().unwrap(), &[all, traces])), "http://file/x");
    let own = ("CXGATE__TELEMETRY__ENDPOINT", "http://own/x");
    assert_eq!(endpoint(&loaded(file.path().to_str().unwrap(), &[all, own])), "http://own/x");
}

#[test]
fn an_endpoint_of_another_protocol_or_that_is_turned_off_is_left_alone() {
    let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4317");
    for other in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ] {
        assert_eq!(loaded("/dev/null", &[all, other]), Config::default(), "{other:?}");
    }
    assert_eq!(
        endpoint(&loaded("/dev/null", &[all, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")])),
        "http://all:4317/v1/traces"
    );
}

//! What operators see: probes, metrics, and their protection.

use cxgate::config::{Endpoint, Secret};
use hyper::Method;

use crate::support::{
    http::{get, get_as, send},
    stub_upstream::StubUpstream,
    test_gate::{TestGate, origin},
};

#[tokio::test]
async fn metrics_are_well_formed_and_never_name_a_client() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |_| ());
    for _ in 0..12 {
        get_as(gate.proxy, "/api/v2/engage/webchat", "very-private-name").await;
    }
    get_as(gate.proxy, "/nowhere", "very-private-name").await;
    let exported = get(gate.admin, "/metrics", &[]).await;
    assert_eq!(exported.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = exported.text();
    assert!(text.ends_with("# EOF\n"));
    assert!(!text.contains("very-private-name"));
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("cxgate_") || name.starts_with("process_"), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    for line in [
        r#"cxgate_decisions_total{route="guest-webchat",limit="per-client",decision="admitted"} 10"#,
        r#"cxgate_decisions_total{route="guest-webchat",limit="per-client",decision="refused"} 2"#,
        r#"cxgate_rejections_total{code="no_route"} 1"#,
        r#"cxgate_rejections_total{code="rate_limit_exceeded"} 2"#,
        r#"cxgate_http_requests_total{route="guest-webchat",status="2xx"} 10"#,
        r#"cxgate_http_requests_total{route="none",status="4xx"} 1"#,
        "cxgate_http_requests_in_flight 0",
        r#"cxgate_build_info{version="0.1.0"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    for name in ["process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name}");
    }
}

#[tokio::test]
async fn a_load_factor_is_1_until_there_is_a_sample() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        // What answers there is no load.
        let endpoint = Endpoint { origin: origin(upstream.address), path_and_query: "/load".to_owned() };
        config.load.get_mut("backend").unwrap().endpoint = Some(endpoint);
    });
    assert_eq!(gate.metric(r#"cxgate_load_factor{signal="backend"}"#).await, "1.0");
}

#[tokio::test]
async fn readiness_tells_more_to_those_who_ask() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |_| ());
    get_as(gate.proxy, "/api/v2/engage/webchat", "a").await;
    let mut told = get(gate.admin, "/readyz?verbose", &[]).await.json();
    assert!(told["since_seconds"].take().is_u64());
    assert_eq!(told["config_revision"].take().as_str().unwrap().len(), 12);
    assert_eq!(
        told,
        serde_json::json!({
            "status": "ready", "store": "embedded", "since_seconds": null, "replicas": 1, "last_failure": null,
            "denied": 0, "debts": 0, "buckets": 1, "config_revision": null,
        })
    );
}

#[tokio::test]
async fn the_admin_listener_answers_what_it_knows_and_nothing_else() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |_| ());
    assert_eq!(get(gate.admin, "/livez", &[]).await.json()["status"], "alive");
    assert_eq!(get(gate.admin, "/readyz", &[]).await.json(), serde_json::json!({"status": "ready", "store": "embedded"}));
    assert_eq!(get(gate.admin, "/", &[]).await.status, 404);
    assert_eq!(send(gate.admin, Method::POST, "/readyz", &[], "").await.status, 405);
}

#[tokio::test]
async fn metrics_on_an_open_address_need_the_token_and_probes_do_not() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        config.admin.address = "0.0.0.0:0".parse().unwrap();
        config.admin.token = Some(Secret::new("t0ken"));
    });
    let admin = std::net::SocketAddr::new("127.0.0.1".parse().unwrap(), gate.admin.port());
    assert_eq!(get(admin, "/readyz", &[]).await.status, 200);
    let refused = get(admin, "/metrics", &[]).await;
    assert_eq!((refused.status.as_u16(), refused.header("www-authenticate")), (401, "Bearer"));
    assert_eq!(get(admin, "/metrics", &[("authorization", "Bearer t0keN")]).await.status, 401);
    assert_eq!(get(admin, "/metrics", &[("authorization", "Bearer t0ken")]).await.status, 200);
}

#[tokio::test]
async fn the_reference_names_every_metric_and_every_code() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |_| ());
    let reference = include_str!("../../docs/reference.md");
    let exported = get(gate.admin, "/metrics", &[]).await;
    for line in exported.text().lines() {
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|declared| declared.split_once(' ')) else {
            continue;
        };
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        assert!(reference.contains(&format!("| `{name}{suffix}` | {kind} |")), "{name} is not in docs/reference.md");
    }
    for code in cxgate::code::Code::ALL {
        let row = format!("| {} | `{}` |", code.status().as_u16(), code.as_str());
        assert!(reference.contains(&row), "{row} is not in docs/reference.md");
    }
}

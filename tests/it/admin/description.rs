//! The description of the API names every path, and every answer is as it says. So do the documents.

use std::collections::BTreeSet;

use cxgate::admin::{OPENAPI, answer::Code, api::operations};
use hyper::Method;
use serde_json::{Value, json};

use super::{CHAT, TOKEN, actions, trusted};
use crate::support::{
    http::{get, send},
    stub_upstream::StubUpstream,
    test_gate::TestGate,
};

fn described() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

#[test]
fn the_description_names_every_operation_and_no_other() {
    let described = described();
    let mut in_description = BTreeSet::new();
    for (path, methods) in described["paths"].as_object().unwrap() {
        in_description.extend(methods.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
    }
    let there: BTreeSet<_> = operations().map(|(method, path)| (method.to_owned(), path.to_owned())).collect();
    assert_eq!(there, in_description);
    let document = include_str!("../../../docs/admin.md");
    for (method, path) in operations() {
        assert!(document.contains(&format!("| {method} | `{path}` |")), "docs/admin.md lacks {method} {path}");
    }
    for code in Code::ALL {
        let row = format!("| {} | `{}` |", code.status().as_u16(), code.as_str());
        assert!(document.contains(&row), "docs/admin.md lacks {row}");
    }
}

/// Fails where an answer is not what the description says of it.
fn fits(described: &Value, method: &str, template: &str, status: u16, body: &Value) {
    let responses = &described["paths"][template][method.to_lowercase()]["responses"];
    let response = responses.get(status.to_string()).unwrap_or(&responses["default"]);
    let mut schema = response["content"]["application/json"]["schema"].clone();
    if schema.is_null() {
        assert_eq!(status, 200, "only what describes itself has no schema");
        return;
    }
    schema["components"] = described["components"].clone();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let problems: Vec<String> =
        validator.iter_errors(body).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert_eq!(problems, Vec::<String>::new(), "{method} {template}: {body}");
}

#[tokio::test]
async fn every_path_answers_as_described() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        actions(config);
        config.whitelist = vec![trusted("reports")];
    });
    for _ in 0..2 {
        get(gate.proxy, "/invoke/a", &[("x-tenant-id", "t")]).await;
    }
    let described = described();
    let asked = json!({ "path": "/invoke/a", "method": "POST", "headers": { "x-tenant-id": "t" } });
    let trust = json!({ "client": "a", "seconds": 60, "networks": ["10.0.0.0/8"] });
    let amend = json!({ "capacity": 50, "refill_per_second": 0.5, "seconds": 60 });
    // Template, path, body, status.
    let table = [
        ("GET", "/api/v1/status", "/api/v1/status", json!(null), 200),
        ("GET", "/api/v1/routes", "/api/v1/routes", json!(null), 200),
        ("GET", "/api/v1/keys", "/api/v1/keys?value=t&value=a", json!(null), 200),
        ("GET", "/api/v1/keys", "/api/v1/keys?value=t", json!(null), 400),
        ("POST", "/api/v1/explain", "/api/v1/explain", asked, 200),
        ("POST", "/api/v1/explain", "/api/v1/explain", json!({ "path": CHAT }), 200),
        ("POST", "/api/v1/explain", "/api/v1/explain", json!({ "path": "x" }), 400),
        ("GET", "/api/v1/usage", "/api/v1/usage?count=1", json!(null), 200),
        ("GET", "/api/v1/usage", "/api/v1/usage?route=none", json!(null), 404),
        ("GET", "/api/v1/clients", "/api/v1/clients?order=busiest", json!(null), 200),
        ("GET", "/api/v1/clients", "/api/v1/clients?order=loudest", json!(null), 400),
        ("POST", "/api/v1/limits", "/api/v1/limits", amend, 200),
        ("POST", "/api/v1/limits", "/api/v1/limits", json!({ "quota": 5, "seconds": 60 }), 400),
        ("GET", "/api/v1/limits", "/api/v1/limits", json!(null), 200),
        ("GET", "/api/v1/routes", "/api/v1/routes", json!(null), 200),
        ("GET", "/api/v1/keys", "/api/v1/keys?value=t&value=a", json!(null), 200),
        ("DELETE", "/api/v1/limits/{route}/{limit}", "/api/v1/limits/guest-webchat/per-client", json!(null), 200),
        ("DELETE", "/api/v1/limits/{route}/{limit}", "/api/v1/limits/guest-webchat/per-client", json!(null), 404),
        ("POST", "/api/v1/suspensions", "/api/v1/suspensions", json!({ "client": "Reports", "seconds": 60 }), 200),
        ("POST", "/api/v1/suspensions", "/api/v1/suspensions", json!({ "client": "none", "seconds": 60 }), 404),
        ("GET", "/api/v1/suspensions", "/api/v1/suspensions", json!(null), 200),
        ("DELETE", "/api/v1/suspensions/{client}", "/api/v1/suspensions/reports", json!(null), 200),
        ("DELETE", "/api/v1/suspensions/{client}", "/api/v1/suspensions/reports", json!(null), 404),
        ("POST", "/api/v1/whitelist", "/api/v1/whitelist", trust, 200),
        ("GET", "/api/v1/whitelist", "/api/v1/whitelist", json!(null), 200),
        ("DELETE", "/api/v1/whitelist/{client}", "/api/v1/whitelist/a", json!(null), 200),
        ("DELETE", "/api/v1/whitelist/{client}", "/api/v1/whitelist/a", json!(null), 404),
        ("POST", "/api/v1/keys/reset", "/api/v1/keys/reset", json!({ "values": ["t", "a"] }), 200),
        ("GET", "/metrics/{tenant}/{action}", "/metrics/t/a", json!(null), 200),
        ("POST", "/api/v1/reload", "/api/v1/reload", json!(null), 200),
        ("GET", "/api/v1/openapi.json", "/api/v1/openapi.json", json!(null), 200),
        ("POST", "/api/v1/drain", "/api/v1/drain", json!(null), 202),
    ];
    for (method, template, path, body, status) in &table {
        let sent = if body.is_null() { String::new() } else { body.to_string() };
        let answer = send(gate.admin, Method::try_from(*method).unwrap(), path, &[TOKEN], &sent).await;
        assert_eq!(answer.status, *status, "{method} {path}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "application/json");
        fits(&described, method, template, *status, &answer.json());
        if !body.is_null() && answer.status == 200 {
            let reference = &described["paths"][template][method.to_lowercase()]["requestBody"]["content"];
            let mut schema = reference["application/json"]["schema"].clone();
            schema["components"] = described["components"].clone();
            assert!(jsonschema::draft202012::new(&schema).unwrap().is_valid(body), "{body}");
        }
    }
    let asked: BTreeSet<_> = table.iter().map(|(method, template, ..)| (*method, *template)).collect();
    assert_eq!(asked, operations().collect(), "every operation is tried");
}

//! `cxgate top` where its output is no terminal: one look at a running proxy.

use std::{net::SocketAddr, process::Stdio};

use cxgate::config::{Secret, ShowClients};
use serde_json::Value;
use tokio::process::Command;

use crate::support::{http::get_as, stub_upstream::StubUpstream, test_gate::TestGate};

/// Exit code, standard output, standard error.
async fn top(address: SocketAddr, arguments: &[&str], token: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cxgate"));
    command.arg("top").arg("--address").arg(address.to_string()).args(arguments).stdin(Stdio::null()).env_clear();
    let output = command.env("CXGATE_ADMIN_TOKEN", token).kill_on_drop(true).output().await.unwrap();
    let [out, error] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code(), out, error)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_look_tells_rates_limits_and_clients() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| config.admin.show_clients = ShowClients::Plain);
    let guest = async {
        loop {
            get_as(gate.proxy, "/api/v2/engage/webchat", "mallory").await;
        }
    };
    let looks = async { (top(gate.admin, &["--json"], "").await, top(gate.admin, &[], "").await) };
    let ((code, json, error), (_, text, _)) = tokio::select! {
        looks = looks => looks,
        () = guest => unreachable!(),
    };
    assert_eq!((code, error.as_str()), (Some(0), ""));
    let facts: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&facts["status"], &facts["store"]["mode"]), (&"ready".into(), &"embedded".into()));
    let limit = &facts["limits"][0];
    assert_eq!((&limit["route"], &limit["limit"]), (&"guest-webchat".into(), &"per-client".into()));
    let above_0 = |value: &Value| assert!(value.as_f64().unwrap() > 0.0, "{json}");
    above_0(&facts["requests_per_second"]);
    above_0(&limit["refused_per_second"]);
    above_0(&facts["refusals_per_second"]["local"]);
    above_0(&facts["latency_seconds"]["p50"]);
    assert_eq!(facts["most_refused"][0]["name"], "mallory");
    for line in ["requests  ", "store     embedded", "Limits", "  guest-webchat  per-client", "  mallory"] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line:?} is not in\n{text}");
    }
}

#[tokio::test]
async fn who_cannot_be_asked_is_named_with_the_reason() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |config| {
        config.admin.address = "0.0.0.0:0".parse().unwrap();
        config.admin.token = Some(Secret::new("t0ken"));
    });
    let admin = SocketAddr::new("127.0.0.1".parse().unwrap(), gate.admin.port());
    let (code, output, error) = top(admin, &["--once"], "t0keN").await;
    assert_eq!((code, output.as_str()), (Some(1), ""));
    assert!(error.contains("/api/v1/status answered 401") && !error.contains("t0keN"), "{error}");
    assert_eq!(top(admin, &["--interval", "100ms"], "t0ken").await.0, Some(0));

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, output, error) = top(nobody, &["--once"], "").await;
    assert_eq!((code, output.as_str()), (Some(1), ""));
    assert!(error.starts_with(&format!("cxgate: {nobody}: cannot be reached")), "{error}");
}

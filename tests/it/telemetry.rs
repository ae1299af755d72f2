//! Trace context on its way through, and in what is written. Whatever a build exports, this holds where no endpoint is set.

use std::path::Path;

use cxgate::config::{AccessTarget, Config};
use hyper::HeaderMap;
use serde_json::Value;

use crate::support::{
    daemon::Daemon,
    http::{get, get_as},
    stub_upstream::StubUpstream,
    test_gate::TestGate,
    until,
};

#[cfg(feature = "otel")]
mod collector;
#[cfg(feature = "otel")]
mod exporting;
#[cfg(feature = "otel")]
mod failing;
#[cfg(feature = "otel")]
mod variables;

const CHAT: &str = "/api/v2/engage/webchat";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn logging_to(config: &mut Config, path: &Path) {
    config.log.access.to = Some(AccessTarget::File(path.to_owned()));
}

/// The lines of an access log, once there are so many.
async fn lines(path: &Path, count: usize) -> Vec<Value> {
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    until(async || read().lines().count() >= count).await;
    read().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What an upstream was told by one field, values joined by `|`.
fn told(headers: &HeaderMap, name: &str) -> String {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>().join("|")
}

#[tokio::test]
async fn trace_context_goes_on_untouched_where_nobody_traces() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, |_| ());
    get(gate.proxy, CHAT, &[("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")]).await;
    get(gate.proxy, CHAT, &[("traceparent", "junk"), ("tracestate", "a = 1")]).await;
    get(gate.proxy, CHAT, &[]).await;
    let seen =
        upstream.seen().into_iter().map(|seen| (told(&seen.headers, "traceparent"), told(&seen.headers, "tracestate")));
    let expected = [(PARENT, "a=1|b=2"), ("junk", "a = 1"), ("", "")].map(|(parent, state)| (parent.into(), state.into()));
    assert_eq!(seen.collect::<Vec<(String, String)>>(), expected);
}

#[tokio::test]
async fn a_line_names_the_trace_of_a_caller_that_names_a_valid_one() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), StubUpstream::start().await);
    let path = folder.path().join("access.log");
    let gate = TestGate::start(upstream.address, |config| logging_to(config, &path));
    get(gate.proxy, CHAT, &[("traceparent", PARENT)]).await;
    get(gate.proxy, CHAT, &[("traceparent", &PARENT.to_uppercase())]).await;
    get(gate.proxy, CHAT, &[]).await;
    // Refused before it reaches the gate.
    let large = [("traceparent", PARENT), ("content-length", "99999999999")];
    get(gate.proxy, CHAT, &large).await;
    let traces: Vec<Value> = lines(&path, 4).await.iter().map(|line| line["trace_id"].clone()).collect();
    assert_eq!(traces, [TRACE.into(), Value::Null, Value::Null, TRACE.into()]);
}

#[tokio::test]
async fn a_violation_names_the_trace_as_siems_call_it() {
    let upstream = StubUpstream::start().await;
    let configuration = format!("[log]\nfields = \"ecs\"\n[upstreams.cxone]\nurl = \"http://{}\"\n", upstream.address);
    let mut daemon = Daemon::start(&configuration).await;
    for _ in 0..11 {
        get(daemon.proxy, CHAT, &[("x-client-id", "traced"), ("traceparent", PARENT)]).await;
    }
    let violation = daemon.until_event("rate_limit_violation").await;
    assert_eq!((&violation["client.user.id"], &violation["trace.id"]), (&"traced".into(), &TRACE.into()), "{violation}");
    while get_as(daemon.proxy, CHAT, "untraced").await.status != 429 {}
    let violation = daemon.until_event("rate_limit_violation").await;
    assert_eq!((&violation["client.user.id"], &violation["trace.id"]), (&"untraced".into(), &Value::Null), "{violation}");
}

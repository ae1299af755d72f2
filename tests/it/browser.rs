//! What a page in a real browser can do with a refusal.

use std::{
    process::Stdio,
    sync::{Arc, OnceLock},
    time::Duration,
};

use cxgate::config::{Cors, Rate};
use hyper::Response;
use tokio::process::Command;

use crate::support::{
    browser::FLAGS,
    stub_upstream::StubUpstream,
    test_gate::{TestGate, bucket_of},
};

/// The page: asks twice with a field that makes the browser ask first, and writes down what it could read.
const PAGE: &str = r#"<!doctype html><title>guest</title><pre id="seen">nothing</pre><script>
(async () => {
    const ask = async () => {
        const answer = await fetch("GATE", { headers: { "X-Client-Id": "guest", "X-Trace-ID": "1" }, credentials: "include" });
        const fields = ["Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining"].map((name) => answer.headers.get(name));
        return [answer.status, ...fields, await answer.text()].join(" ");
    };
    const seen = document.getElementById("seen");
    try { seen.textContent = [await ask(), await ask()].join("\n") + "\ndone"; } catch (error) { seen.textContent = "failed: " + error; }
})();
</script>"#;

/// What the browser makes of the page at `url`, once its script has ended.
async fn rendered(url: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let mut browser = Command::new("chromium");
    browser.args(FLAGS).args(["--virtual-time-budget=10000", "--dump-dom"]);
    browser.arg(format!("--user-data-dir={}", profile.path().display())).arg(url);
    let output = browser.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_mins(2), output).await.expect("the browser ends");
    let output = output.expect("chromium starts; where it is missing: apt-get install chromium");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn fetch_from_a_foreign_origin_reads_the_refusal_and_its_preflight_costs_nothing() {
    let upstream = StubUpstream::answering(|seen| {
        let origin = seen.headers["origin"].clone();
        let response = Response::builder()
            .header("access-control-allow-origin", origin)
            .header("access-control-allow-credentials", "true")
            .header("vary", "Origin");
        response.body(hyper::body::Bytes::from_static(b"welcome").into()).unwrap()
    })
    .await;
    // The page names the gate, whose configuration names the page's site: one of them has to come first.
    let page = Arc::new(OnceLock::<String>::new());
    let body = Arc::clone(&page);
    let site = StubUpstream::answering(move |_| {
        let body = hyper::body::Bytes::from(body.get().cloned().unwrap_or_default());
        Response::builder().header("content-type", "text/html").body(body.into()).unwrap()
    })
    .await;
    let gate = TestGate::start(upstream.address, |config| {
        bucket_of(config).capacity = 1;
        bucket_of(config).refill_per_second = Rate::per_second(0.01).unwrap();
        let origins = vec![format!("http://{}", site.address)];
        config.routes[0].cors = Some(Cors { origins, credentials: true, max_age: Duration::from_secs(1) });
    });
    page.set(PAGE.replace("GATE", &format!("http://{}/api/v2/engage/webchat/hello", gate.proxy))).unwrap();

    let seen = rendered(&format!("http://{}/", site.address)).await;
    assert!(seen.contains("200  1 0 welcome\n"), "{seen}");
    assert!(
        seen.contains(r#"429 100 1 0 {"error":"rate_limit_exceeded","retry_after":100,"limit":"per-client"}"#),
        "{seen}"
    );
    assert!(seen.contains("\ndone"), "{seen}");
    let preflights = gate.count(r#"cxgate_preflights_total{route="guest-webchat"}"#).await;
    assert!(preflights >= 1, "the browser asked first");
    assert_eq!(upstream.seen().len(), 1, "only what was admitted went on");
}

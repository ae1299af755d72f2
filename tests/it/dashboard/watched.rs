//! The dashboard as a browser has it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{CHAT, one_each};
use crate::support::{browser::Browser, http::get_as, stub_upstream::StubUpstream, test_gate::TestGate, until};

/// Events arrive: the time in the footer moves.
const IS_LIVE: &str = r"(() => {
    const time = document.querySelector('#facts time')?.textContent;
    return Boolean(time) && document.getElementById('link').hidden && time !== (window.first ??= time);
})()";

/// Asks twice, and is refused once.
async fn refuse(gate: &TestGate, client: &str) {
    assert_eq!(get_as(gate.proxy, CHAT, client).await.status, 200);
    assert_eq!(get_as(gate.proxy, CHAT, client).await.status, 429);
}

fn shows(client: &str) -> String {
    format!("document.getElementById('refused-rows').textContent.includes('{client}')")
}

#[tokio::test]
async fn a_refusal_is_shown_within_two_seconds_and_the_console_stays_empty() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, one_each);
    let mut page = Browser::open(&format!("http://{}/dashboard", gate.admin)).await;
    page.until(IS_LIVE).await;
    // The best of several, because a busy machine may be slow and the page must not.
    let mut fastest = Duration::MAX;
    for client in ["alice", "bob", "carol"] {
        refuse(&gate, client).await;
        fastest = fastest.min(page.until(&shows(client)).await);
    }
    assert!(fastest < Duration::from_secs(2), "{fastest:?}");
    page.until("document.getElementById('refusals').textContent.includes('guest-webchat · per-client')").await;
    assert_eq!(page.complaints, [""; 0]);
}

#[tokio::test]
async fn it_finds_the_daemon_again_after_a_restart() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, one_each);
    let admin = gate.admin;
    let mut page = Browser::open(&format!("http://{admin}/dashboard")).await;
    page.until(IS_LIVE).await;
    drop(gate);
    until(async || TcpStream::connect(admin).await.is_err()).await;
    page.until("document.getElementById('link').textContent.startsWith('Connection lost')").await;
    let gate = TestGate::start(upstream.address, |config| {
        one_each(config);
        config.admin.address = admin;
    });
    page.until("document.getElementById('link').hidden").await;
    refuse(&gate, "alice").await;
    page.until(&shows("alice")).await;
}

#[tokio::test]
async fn everybody_can_use_it_in_both_themes_and_on_a_phone() {
    let upstream = StubUpstream::start().await;
    let gate = TestGate::start(upstream.address, one_each);
    let mut page = Browser::open(&format!("http://{}/dashboard", gate.admin)).await;
    page.until(IS_LIVE).await;
    refuse(&gate, "a client with a name that is longer than a phone is wide and nowhere to break it aaaaaaaaaaaaaaaaaaaaa")
        .await;
    page.until(&shows("a client")).await;
    page.evaluate("document.querySelectorAll('details').forEach((details) => details.open = true)").await;
    for (theme, width) in [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)] {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": theme}]});
        page.call("Emulation.setEmulatedMedia", features).await;
        let size = json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600});
        page.call("Emulation.setDeviceMetricsOverride", size).await;
        let findings = page.evaluate(include_str!("audit.js")).await;
        assert_eq!(findings, json!([]), "{theme}, {width} pixels wide");
    }
    page.call("Accessibility.enable", json!({})).await;
    let tree = page.call("Accessibility.getFullAXTree", json!({})).await;
    let nodes: Vec<&Value> = tree["nodes"].as_array().unwrap().iter().filter(|node| node["ignored"] == false).collect();
    let named = |role: &str| {
        let of_role = nodes.iter().filter(|node| node["role"]["value"] == role);
        of_role.map(|node| node["name"]["value"].as_str().unwrap_or_default()).collect::<Vec<_>>()
    };
    for (role, least) in [("link", 2), ("image", 4), ("table", 9), ("heading", 10), ("region", 10), ("meter", 1)] {
        let names = named(role);
        assert!(names.len() >= least && names.iter().all(|name| !name.is_empty()), "{role}: {names:?}");
    }
    for landmark in ["banner", "main", "contentinfo", "navigation", "status"] {
        assert_eq!(named(landmark).len(), 1, "{landmark}");
    }
    assert_eq!(page.complaints, [""; 0]);
}

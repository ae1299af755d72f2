//! The same by the signal, in a process of its own: its log, and what its service manager hears.

use tokio::net::UnixDatagram;

use super::*;
use crate::support::daemon::{Daemon, one_route};

fn configuration(upstream: std::net::SocketAddr, capacity: &str) -> String {
    let limit = format!(
        r#"
  [[routes.limits]]
  name = "per-client"
  per = ["client"]
  token_bucket = {{ capacity = {capacity}, refill_per_second = 0.001 }}
"#
    );
    one_route(upstream, CHAT, &limit)
}

async fn metric(daemon: &Daemon, name: &str) -> String {
    let exported = get(daemon.admin, "/metrics", &[]).await;
    let value = exported.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_default().to_owned()
}

async fn limit(daemon: &Daemon) -> String {
    get_as(daemon.proxy, CHAT, "a").await.header("x-ratelimit-limit").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_reloads_and_a_bad_file_keeps_what_was_until_it_is_mended() {
    let upstream = StubUpstream::start().await;
    let mut daemon = Daemon::start(&configuration(upstream.address, "10")).await;
    assert_eq!((limit(&daemon).await, metric(&daemon, SUCCESSFUL).await), ("10".to_owned(), "1".to_owned()));

    let bad = configuration(upstream.address, "0").replace("per = ", "par = ");
    daemon.rewrite(&bad);
    daemon.signal("HUP");
    let failed = daemon.until_event("config_reload_failed").await;
    let error = failed["error"].as_str().unwrap();
    for key in ["routes[0].limits[0].token_bucket.capacity", "routes[0].limits[0].par"] {
        assert!(error.contains(key), "{error} does not name {key}");
    }
    assert_eq!((limit(&daemon).await, metric(&daemon, SUCCESSFUL).await), ("10".to_owned(), "0".to_owned()));

    daemon.rewrite(&configuration(upstream.address, "20").replace("[upstreams", "max_connections = 9\n[upstreams"));
    daemon.signal("HUP");
    let needed = daemon.until_event("config_restart_needed").await;
    let fields = (needed["key"].as_str(), needed["running"].as_str(), needed["wanted"].as_str());
    assert_eq!(fields, (Some("listen.max_connections"), Some("10000"), Some("9")));
    let reloaded = daemon.until_event("config_reloaded").await;
    assert_eq!(reloaded["restart_needed"], 1);
    assert_eq!((limit(&daemon).await, metric(&daemon, SUCCESSFUL).await), ("20".to_owned(), "1".to_owned()));
    let told = get(daemon.admin, "/readyz?verbose", &[]).await.json();
    assert_eq!(told["config_revision"], reloaded["revision"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_hears_when_a_reload_begins_and_ends() {
    let upstream = StubUpstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let hear = async || {
        let mut buffer = [0; 256];
        let length = soon(manager.recv(&mut buffer)).await.unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let daemon = Daemon::start_with_environment(&configuration(upstream.address, "10"), &environment).await;
    assert_eq!(hear().await, "READY=1");
    let mut last = 0;
    for _ in 0..2 {
        daemon.signal("HUP");
        let reloading = hear().await;
        let at: u64 = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!(at > last, "{reloading}");
        last = at;
        assert_eq!(hear().await, "READY=1");
    }
}

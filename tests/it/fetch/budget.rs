//! What the upstream sees of a fetch stays inside the limits, whoever else shares them.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::command::{Setting, lines, pages, status};
use crate::support::{daemon::Daemon, http::get, redis_server::RedisServer};

fn limit(capacity: u32, refill_per_second: f64) -> String {
    format!(
        "[[routes.limits]]\nname = \"tenant-budget\"\nper = [\"route\"]\n\
         token_bucket = {{ capacity = {capacity}, refill_per_second = {refill_per_second} }}\n"
    )
}

#[tokio::test]
async fn twelve_pages_come_whole_and_in_order_and_never_above_the_budget_whatever_the_upstream_says() {
    let arrivals = Arc::<Mutex<Vec<Instant>>>::default();
    let record = Arc::clone(&arrivals);
    let upstream = pages(move |page, before| {
        record.lock().unwrap().push(Instant::now());
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(2));
        match (page, before) {
            (2, 0) => Some(status(429, Some("0.5"))),
            (5, 0) => Some(status(503, Some(&date))),
            (7, 0 | 1) => Some(status(500, None)),
            (9, 0) => Some(status(503, None)),
            _ => None,
        }
    })
    .await;
    let setting = Setting::new(upstream.address, &limit(2, 4.0));
    let ended = setting.fetch("items?page={1..12}", &["--concurrency", "12", "--json"]).await;
    assert_eq!((ended.code, ended.output), (Some(0), lines(1..=12)), "{}", ended.error);

    let arrivals = arrivals.lock().unwrap();
    assert_eq!(arrivals.len(), 17);
    for (first, begin) in arrivals.iter().enumerate() {
        let second = arrivals[first..].iter().take_while(|arrival| **arrival - *begin < Duration::from_secs(1)).count();
        // Two at once and four a second, and half a second in which a busy machine may hold some back.
        assert!(second <= 2 + 4 + 2, "{second} in one second");
    }
    let summary: serde_json::Value = serde_json::from_str(&ended.error).expect("nothing but the summary");
    let figures = ["pages", "entities", "failed", "retries"].map(|figure| summary[figure].as_u64().unwrap());
    assert_eq!(figures, [12, 36, 0, 5]);
    assert!(summary["refusals"].as_u64().unwrap() >= 10, "{summary}");
    let waited = |cause: &str| summary["waited_seconds"][cause].as_f64().unwrap();
    assert!(waited("limit") > 1.0 && waited("retry_after") > 1.0 && waited("back_off") < 2.0, "{summary}");
}

#[tokio::test]
async fn on_a_route_that_has_requests_wait_no_page_is_refused() {
    let upstream = pages(|_, _| None).await;
    let more = format!("when_limited = {{ wait = \"30s\", queue = 20 }}\n{}", limit(2, 4.0));
    let setting = Setting::new(upstream.address, &more);
    let began = Instant::now();
    let ended = setting.fetch("items?page={1..12}", &["--concurrency", "12", "--json"]).await;
    assert_eq!((ended.code, ended.output), (Some(0), lines(1..=12)), "{}", ended.error);
    // Two at once, and ten more at four a second.
    assert!(began.elapsed() >= Duration::from_millis(2500), "after {:?}", began.elapsed());
    let summary: serde_json::Value = serde_json::from_str(&ended.error).expect("nothing but the summary");
    assert_eq!(summary["refusals"], 0, "{summary}");
}

#[tokio::test]
async fn a_fetch_and_a_daemon_on_one_redis_share_the_budget() {
    let (upstream, redis) = (pages(|_, _| None).await, RedisServer::start());
    let store = format!("[store]\nredis = \"{}\"\ndeadline = \"2s\"\n", redis.url());
    // One token in some days: what is left is counted, not timed.
    let setting = Setting::new(upstream.address, &format!("{}{store}", limit(8, 0.00001)));
    let configuration = std::fs::read_to_string(setting.file("cxgate.toml")).unwrap();
    let daemon = Daemon::start(&configuration).await;
    crate::support::until(async || get(daemon.admin, "/readyz", &[]).await.json()["store"] == "redis").await;

    assert_eq!(get(daemon.proxy, "/api/items?page=1", &[]).await.status, 200);
    let ended = setting.fetch("items?page={2..5}", &[]).await;
    assert_eq!((ended.code, ended.output), (Some(0), lines(2..=5)), "{}", ended.error);
    for page in 6..=8 {
        assert_eq!(get(daemon.proxy, &format!("/api/items?page={page}"), &[]).await.status, 200);
    }
    assert_eq!(get(daemon.proxy, "/api/items?page=9", &[]).await.status, 429);
    let ended = setting.fetch("items?page=10", &["--max-wait", "1s"]).await;
    assert_eq!((ended.code, ended.output.as_str()), (Some(1), ""));
    assert!(ended.error.contains("page=10: its turn did not come within 1s (--max-wait)"), "{}", ended.error);
    assert_eq!(upstream.seen().len(), 8);
}

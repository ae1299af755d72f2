//! `docs/reference.md` names every event and every metric, and none that there is not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use cxgate::config::{
    ClientCertificates, Cooldown, Cors, Endpoint, Factor, Latency, LimitKind, MaxInFlight, Mode, Priority, Retry, Route,
    WebSocket, WhenLimited,
};

use crate::support::{
    certificates::Authority,
    http::get,
    stub_upstream::StubUpstream,
    test_gate::{TestGate, origin},
    token_server::oauth,
};

const REFERENCE: &str = include_str!("../../docs/reference.md");

/// The names in the first column of the table in a section; one row may hold several.
fn first_column(section: &str) -> BTreeSet<&'static str> {
    let sections = REFERENCE.split("\n## ").filter_map(|section| section.split_once('\n'));
    let (_, text) = sections.into_iter().find(|(title, _)| *title == section).expect("the section");
    let cells = text.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    cells.flat_map(|cell| cell.split(", ")).map(|name| name.trim_matches('`')).collect()
}

/// What follows each `event = "` in the sources below `folder`.
fn events(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            events(&path, found);
        } else {
            let text = fs::read_to_string(&path).unwrap();
            let names = text.split("event = \"").skip(1).filter_map(|rest| rest.split_once('"'));
            found.extend(names.map(|(name, _)| name.to_owned()));
        }
    }
}

#[test]
fn the_reference_names_every_event_and_no_other() {
    let mut found = BTreeSet::new();
    events(Path::new("src"), &mut found);
    assert_eq!(found.iter().map(String::as_str).collect::<BTreeSet<_>>(), first_column("Events"));
}

/// What an instance exports whose configuration has something of everything.
pub async fn exported() -> String {
    let upstream = StubUpstream::start().await;
    let authority = Authority::new();
    let tls = authority.listener(&authority.sign("gate"), ClientCertificates::None);
    let (threshold, window) = (Duration::from_secs(1), Duration::from_secs(1));
    let latency = Latency { threshold, slope: Factor::ONE, floor: Factor::ONE, window, min_samples: 1 };
    let gate = TestGate::start(upstream.address, |config| {
        config.listen.tls = Some(tls);
        let endpoint = Endpoint { origin: origin(upstream.address), path_and_query: "/load".to_owned() };
        config.oauth.insert("cxone".to_owned(), oauth(upstream.address));
        config.load.get_mut("backend").unwrap().endpoint = Some(endpoint);
        config.latency.insert("latency".to_owned(), latency);
        let route = &mut config.routes[0];
        route.limits[0].limit.scale_by = vec!["latency".to_owned()];
        let LimitKind::TokenBucket(messages) = route.limits[0].limit.kind else { panic!("a bucket") };
        let (max_pause, idle_timeout) = (Duration::from_secs(1), Duration::from_secs(2));
        route.credentials = Some("cxone".to_owned());
        route.retry = Some(Retry {
            attempts: 2,
            base: max_pause,
            max: max_pause,
            on: vec![503],
            deadline: idle_timeout,
            replay_bytes: 0,
        });
        route.when_limited = Some(WhenLimited { wait: max_pause, queue: 1, priority: Priority::Low });
        route.max_in_flight = Some(MaxInFlight { route: 2, client: 1 });
        route.cooldown = Cooldown::Route;
        route.cors = Some(Cors { origins: vec!["*".to_owned()], credentials: false, max_age: idle_timeout });
        route.websocket =
            Some(WebSocket { sockets: 1, messages, costs: BTreeMap::new(), max_pause, idle_timeout, exact: true });
        let tried =
            Route { name: "tried".to_owned(), paths: vec!["/tried".to_owned()], mode: Mode::Shadow, ..route.clone() };
        config.routes.push(tried);
    });
    get(gate.admin, "/metrics", &[]).await.text().to_owned()
}

#[tokio::test]
async fn the_reference_names_no_metric_that_is_not_exported() {
    let exported = exported().await;
    let samples: BTreeSet<&str> = exported.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    let named = first_column("Metrics");
    assert!(named.len() > 20, "the metrics are gone");
    for name in named {
        let is_exported = samples.contains(name) || samples.contains(format!("{name}_count").as_str());
        assert!(is_exported, "docs/reference.md names {name}, which is not exported");
    }
}

#[test]
fn the_table_of_names_for_siems_is_the_one_in_force() {
    let page = include_str!("../../docs/logs.md");
    let (_, section) = page.split_once("\n## Elastic Common Schema\n").expect("the section");
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    let expected: Vec<String> = cxgate::log::fields::ECS
        .iter()
        .map(|(ours, theirs, factor)| match factor {
            1 => format!("| `{ours}` | `{theirs}` | |"),
            factor => format!("| `{ours}` | `{theirs}` | × {factor}: nanoseconds |"),
        })
        .collect();
    assert_eq!(rows, expected);
}

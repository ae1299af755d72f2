//! `cxgate simulate`: what it says a configuration would have refused is what that configuration refuses.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs,
    path::Path,
    process::{Command, Output},
};

use cxgate::{
    limiter::{
        bucket::{Bucket, Level, MICRO},
        window::{Log, Window},
    },
    log::stamp,
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};

use crate::support::{daemon::Daemon, http::get, stub_upstream::StubUpstream};

mod live;

/// When the traffic begins, in microseconds of Unix time.
const BEGIN: u64 = 1_795_322_295_000_000;

/// Two routes, both kinds of limits, one of them shared, costs above 1, trusted clients.
const CONFIGURATION: &str = r#"
[[whitelist]]
client = "trusty"
networks = ["10.0.0.1"]

[upstreams.cxone]
url = "http://127.0.0.1:9"

[limits.shared]
per = ["address"]
token_bucket = { capacity = 12, refill_per_second = 2 }

[[routes]]
name = "chat"
paths = ["/chat"]
upstream = "cxone"
limits = [
    { name = "per-client", per = ["client"], token_bucket = { capacity = 3, refill_per_second = 0.25 } },
    { use = "shared" },
]

[[routes]]
name = "invoke"
paths = ["/invoke/{action}"]
upstream = "cxone"
limits = [
    { name = "window", per = ["client", "path:action"], sliding_window = { quota = 6, window = "20s" }, cost = 2 },
    { use = "shared", cost = 3 },
]
"#;

const CLIENTS: [&str; 5] = ["Alice", "bob", "trusty", "c \"d\"", ""];

/// A request: microseconds since the last, client, address, and which action is invoked, if any.
type Asked = (u64, usize, u8, Option<u8>);

/// The limits of [`CONFIGURATION`], by their arithmetic and by the names that people would give to buckets.
#[derive(Default)]
struct Oracle {
    buckets: HashMap<String, Level>,
    windows: HashMap<String, Log>,
}

// === impl Oracle ===

impl Oracle {
    const CLIENT: Bucket = Bucket { capacity: 3 * MICRO, rate: MICRO / 4 };
    const SHARED: Bucket = Bucket { capacity: 12 * MICRO, rate: 2 * MICRO };
    const WINDOW: Window = Window { quota: 6 * MICRO, length: 20 * MICRO };

    /// The limit that takes longest to admit a request, where one refuses it.
    fn refuses(&mut self, at: u64, client: &str, address: u8, action: Option<u8>) -> Option<&'static str> {
        if client == "trusty" && address == 1 {
            return None;
        }
        let client = if client.is_empty() { format!("address {address}") } else { client.to_lowercase() };
        let shared = self.buckets.entry(format!("address {address} shared")).or_insert(Self::SHARED.full(at));
        *shared = Self::SHARED.settle(*shared, at);
        let shared = *shared;
        let shared_cost = if action.is_some() { 3 * MICRO } else { MICRO };
        let shared_wait = Self::SHARED.wait(shared.tokens, shared_cost);
        let (name, own_wait) = if let Some(action) = action {
            let log = self.windows.entry(format!("{client} {action}")).or_default();
            Self::WINDOW.settle(log, at);
            let room = Self::WINDOW.room(log, at, Self::WINDOW.quota, 2 * MICRO);
            let wait = if room.tokens >= 2 * MICRO { 0 } else { room.wait };
            if wait == 0 && shared_wait == 0 {
                Self::WINDOW.charge(log, at, 2 * MICRO);
            }
            ("window", wait)
        } else {
            let level = self.buckets.entry(client).or_insert(Self::CLIENT.full(at));
            *level = Self::CLIENT.settle(*level, at);
            let wait = Self::CLIENT.wait(level.tokens, MICRO);
            if wait == 0 && shared_wait == 0 {
                level.tokens -= MICRO;
            }
            ("per-client", wait)
        };
        if own_wait == 0 && shared_wait == 0 {
            self.buckets
                .insert(format!("address {address} shared"), Level { tokens: shared.tokens - shared_cost, ..shared });
            return None;
        }
        Some(if shared_wait >= own_wait { "shared" } else { name })
    }
}

/// The line of a request that came at a time.
fn line(at: u64, (_, client, address, action): Asked) -> String {
    let (named, address) = (CLIENTS[client].to_lowercase(), format!("10.0.0.{address}"));
    let (client, kind) = if named.is_empty() { (address.clone(), "address") } else { (named, "name") };
    let path = action.map_or_else(|| "/chat/hello".to_owned(), |action| format!("/invoke/{action}"));
    let line = json!({
        "timestamp": stamp::rfc3339(at), "event": "access", "client_id": client, "client_kind": kind,
        "address": address, "method": "GET", "path": path, "status": 200, "decision": "admitted",
    });
    line.to_string()
}

fn simulate(folder: &Path, configuration: &str, log: &str, more: &[&str]) -> Output {
    let (file, recorded) = (folder.join("cxgate.toml"), folder.join("access.ndjson"));
    fs::write(&file, configuration).unwrap();
    fs::write(&recorded, log).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cxgate"));
    command.arg("simulate").arg("--config").arg(file).args(more).arg(recorded).current_dir(folder);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn report(folder: &Path, configuration: &str, log: &str, more: &[&str]) -> Value {
    let more: Vec<&str> = more.iter().copied().chain(["--json"]).collect();
    serde_json::from_slice(&simulate(folder, configuration, log, &more).stdout).unwrap()
}

/// Line and limit of each refusal that was written.
fn refusals(folder: &Path) -> Vec<(u64, String)> {
    let text = fs::read_to_string(folder.join("refusals.ndjson")).unwrap();
    let refusal = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        (line["line"].as_u64().unwrap(), line["limit"].as_str().unwrap().to_owned())
    };
    text.lines().map(refusal).collect()
}

fn traffic() -> Vec<Asked> {
    let pause = prop_oneof![Just(0), 0..10_000_u64, 0..400_000_u64, 0..3_000_000_u64];
    let asked = (pause, 0..CLIENTS.len(), 1..3_u8, prop::option::of(0..2_u8));
    prop::collection::vec(asked, 900..1000).new_tree(&mut TestRunner::deterministic()).unwrap().current()
}

#[test]
fn it_refuses_what_the_arithmetic_refuses_request_by_request_at_the_times_of_the_log() {
    let (mut oracle, mut at) = (Oracle::default(), BEGIN);
    // Lines stand in the order of answers: here, of every two, the later first.
    let mut lines: Vec<(u64, String, Option<&str>)> = Vec::new();
    for asked in traffic() {
        at += asked.0.max(1);
        lines.push((at, line(at, asked), oracle.refuses(at, CLIENTS[asked.1], asked.2, asked.3)));
    }
    lines.chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1));
    let log = lines.iter().map(|(_, line, _)| line.as_str()).collect::<Vec<_>>().join("\n");
    let mut expected: Vec<(u64, u64, String)> = Vec::new();
    for (number, (at, _, limit)) in (1..).zip(&lines) {
        expected.extend(limit.map(|limit| (*at, number, limit.to_owned())));
    }
    expected.sort();

    let folder = tempfile::tempdir().unwrap();
    let report = report(folder.path(), CONFIGURATION, &log, &["--refusals", "refusals.ndjson"]);
    let expected: Vec<(u64, String)> = expected.into_iter().map(|(_, line, limit)| (line, limit)).collect();
    assert_eq!(refusals(folder.path()), expected);
    for limit in ["per-client", "window", "shared"] {
        assert!(expected.iter().filter(|(_, refusing)| refusing == limit).count() > 10, "the traffic seldom meets {limit}");
    }
    assert_eq!(report["refused"], expected.len());
    assert!(report["not_asked"]["whitelisted"].as_u64() > Some(0), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_refuses_what_a_daemon_refused_that_wrote_the_log() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), StubUpstream::start().await);
    let log = folder.path().join("live.ndjson");
    // Nothing comes back while the test runs, so that it does not matter how fast that is; and no two limits refuse for
    // the same time, so that rounding does not decide which of them is named.
    let configuration = CONFIGURATION
        .replace("http://127.0.0.1:9", &format!("http://{}", upstream.address))
        .replace("window = \"20s\"", "window = \"1h\"")
        .replace("refill_per_second = 0.25", "refill_per_second = 0.0003")
        .replace("refill_per_second = 2", "refill_per_second = 0.0001")
        .replace("networks = [\"10.0.0.1\"]", "networks = [\"10.0.0.1\", \"127.0.0.1\"]");
    let identity = "[identity]\nnew_per_address = { capacity = 4, refill_per_second = 0.00002 }\n";
    let configuration = format!("{identity}{configuration}");
    let mut daemon = Daemon::start(&format!("[log.access]\nto = {log:?}\n{configuration}")).await;
    for number in 0..120_u32 {
        let client = format!("{}{}", CLIENTS[number as usize % 4], number / 40);
        let client = if number % 8 == 2 { "trusty" } else { &client };
        let path = if number % 3 == 0 { format!("/invoke/{}", number % 2) } else { "/chat/hello".to_owned() };
        get(daemon.proxy, &path, &[("x-client-id", client)]).await;
    }
    daemon.signal("TERM");
    daemon.until_event("stopped").await;
    let text = fs::read_to_string(&log).unwrap();
    let mut refused = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line: Value = serde_json::from_str(line).unwrap();
        refused.extend(line["limit"].as_str().map(|limit| (number, limit.to_owned())));
    }
    assert_eq!(text.lines().count(), 120);
    assert!(refused.iter().any(|(_, limit)| limit == "new-identities") && refused.len() > 20, "{refused:?}");
    report(folder.path(), &configuration, &text, &["--refusals", "refusals.ndjson"]);
    let mut simulated = refusals(folder.path());
    simulated.sort();
    assert_eq!(simulated, refused);
}

/// One client that asks four times a second for a minute.
fn steady() -> String {
    let mut log = String::new();
    for number in 0..240_u64 {
        let at = stamp::common(BEGIN + number * 250_000);
        writeln!(log, "192.0.2.7 - alice [{at}] \"GET /api/v2/engage/webchat/x?y HTTP/1.1\" 200 5 \"-\" \"-\"").unwrap();
    }
    log
}

#[test]
fn the_common_log_format_is_read_and_who_when_and_what_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let log = format!("{}nonsense\n{{\"timestamp\":1}}\n\n::1 - - [x] \"GET /nowhere HTTP/1.1\" 404 0\n", steady());
    let report = report(folder.path(), "", &log, &[]);
    // Seconds are all that the format has: four requests at once, a second apart. 10 tokens and 2 a second admit 10 + 118.
    assert_eq!((&report["decided"], &report["refused"]), (&240.into(), &112.into()), "{report:#}");
    assert_eq!(report["clients"], json!([{"client_id": "alice", "refused": 112}]));
    assert_eq!((&report["bad_lines"], &report["other_lines"]), (&3.into(), &1.into()));
    assert_eq!(report["first_bad_lines"][0], json!({"line": 241, "why": "neither JSON nor the Common Log Format"}));
    let minutes: Vec<&str> = report["minutes"].as_array().unwrap().iter().map(|at| at["minute"].as_str().unwrap()).collect();
    assert_eq!(minutes, ["2026-11-22T04:38Z", "2026-11-22T04:39Z"]);
    assert!(report["target"].is_null());
}

#[test]
fn the_changes_that_it_names_suffice_and_the_next_smaller_ones_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |capacity: f64, rate: f64| {
        let configuration = format!(
            "[[routes]]\nname = \"chat\"\npaths = [\"/api\"]\nupstream = \"cxone\"\nlimits = [{{ name = \"per-client\", per = \
             [\"client\"], token_bucket = {{ capacity = {capacity}, refill_per_second = {rate} }} }}]\n[upstreams.cxone]\nurl \
             = \"http://127.0.0.1:9\"\n"
        );
        let report = report(folder.path(), &configuration, &steady(), &["--target", "5%"]);
        (report["refused"].as_u64().unwrap(), report["target"]["changes"].clone())
    };
    let (before, changes) = refused(10.0, 2.0);
    assert_eq!(before, 112);
    let to = |place: usize, key: &str| {
        assert_eq!(changes[place]["key"], key);
        changes[place]["to"].as_f64().unwrap()
    };
    let (capacity, rate) = (to(0, "token_bucket.capacity"), to(1, "token_bucket.refill_per_second"));
    // 5 % of 240 is 12: fewer are 11.
    assert_eq!(refused(capacity, 2.0).0, 11);
    assert!(refused(capacity - 1.0, 2.0).0 >= 12);
    assert!(refused(10.0, rate).0 < 12 && refused(10.0, rate * 0.98).0 >= 12, "{rate}");
    assert_eq!(refused(capacity, 2.0).1, json!([]));
}

#[test]
fn the_changes_that_it_names_for_one_of_several_limits_suffice_when_they_are_made() {
    let (folder, mut log, mut at) = (tempfile::tempdir().unwrap(), String::new(), BEGIN);
    for asked in traffic() {
        at += asked.0.max(1);
        writeln!(log, "{}", line(at, asked)).unwrap();
    }
    let found = report(folder.path(), CONFIGURATION, &log, &["--target", "4%"]);
    let too_many = found["decided"].as_u64().unwrap().div_ceil(25);
    let changes = found["target"]["changes"].as_array().unwrap();
    let changes: Vec<_> = changes.iter().filter(|change| change["key"] != "token_bucket.refill_per_second").collect();
    assert_eq!(changes.len(), 3, "{changes:#?}");
    for change in changes {
        let (_, limit) = change["limit"].as_str().unwrap().split_once('/').unwrap();
        let (_, key) = change["key"].as_str().unwrap().split_once('.').unwrap();
        let (from, to) = (change["from"].as_f64().unwrap(), change["to"].as_f64().unwrap());
        let refused = |value: f64| -> u64 {
            let changed = CONFIGURATION.replace(&format!("{key} = {from},"), &format!("{key} = {value},"));
            let limits = report(folder.path(), &changed, &log, &[])["limits"].take();
            let limits = limits.as_array().unwrap().iter().filter(|entry| entry["limit"] == limit);
            limits.map(|entry| entry["refused"].as_u64().unwrap()).sum()
        };
        assert!(refused(to) < too_many && refused(to - 1.0) >= too_many, "{change}");
    }
}

#[test]
fn the_report_for_people_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let output = simulate(folder.path(), "", &steady(), &["--target", "5%"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "240 lines: 240 requests that limits were asked about, 0 others, 0 not understood",
        "refused: 112 (46.667 %)",
        "  by guest-webchat/per-client: 112 (46.667 %)",
        "  \"alice\": 112",
        "what would refuse fewer than 5%, each change by itself:",
        "  guest-webchat/per-client: token_bucket.capacity 10 -> 111",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

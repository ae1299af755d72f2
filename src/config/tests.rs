//! That the documented keys, the keys that are read and the keys that are printed are the same.

use std::collections::{BTreeMap, BTreeSet};

use config::{Value, ValueKind};
use proptest::prelude::*;

use super::{Config, Sources, check, load, raw, report::Report, source::toml};

const DOCUMENTED: &str = include_str!("../../config/cxgate.toml");

/// The documented file with its commented keys and tables taken in.
fn uncommented() -> String {
    let is_key = |line: &str| {
        let word = line.split(" = ").next().unwrap_or_default();
        line.starts_with('[') || (line.contains(" = ") && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
    };
    let lines = DOCUMENTED.lines().map(|line| line.strip_prefix("# ").filter(|rest| is_key(rest)).unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// A key without the names and numbers of single tables; `None` for elements of lists and for the ways to give a secret.
fn general(key: &str) -> Option<String> {
    let mut levels: Vec<&str> = key.split('.').collect();
    let of_secret = matches!(levels.last(), Some(&("file" | "env")));
    if key.ends_with(']') || of_secret {
        return None;
    }
    if let ["upstreams" | "load" | "limits" | "oauth", name, ..] = levels.as_mut_slice() {
        *name = "*";
    }
    let without_index = |level: &&str| level.split('[').next().unwrap_or_default().to_owned();
    Some(levels.iter().map(without_index).collect::<Vec<_>>().join("."))
}

/// The keys in a tree.
fn keys(value: &Value, prefix: &str) -> BTreeSet<String> {
    let children: Vec<(String, &Value)> = match &value.kind {
        ValueKind::Table(entries) => entries.iter().map(|(key, value)| (format!("{prefix}.{key}"), value)).collect(),
        ValueKind::Array(elements) => elements.iter().map(|element| (format!("{prefix}[0]"), element)).collect(),
        _ => Vec::new(),
    };
    let below = children.iter().flat_map(|(key, value)| keys(value, key));
    below.chain(children.iter().filter_map(|(key, _)| general(key.trim_start_matches('.')))).collect()
}

#[test]
fn the_documented_file_says_what_the_defaults_are() {
    let file = Some("config/cxgate.toml".into());
    let loaded = load(&Sources { file, environment: BTreeMap::new() }).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn every_key_is_documented_and_printed_and_no_other() {
    let environment = ["CXGATE_ADMIN_TOKEN", "ANALYTICS_SECRET", "CXONE_CLIENT_SECRET", "CXONE_ACCESS_KEY_SECRET"]
        .map(|name| (name.to_owned(), "hunter2".to_owned()))
        .into();
    let mut report = Report::new(&environment);
    let tree = toml("cxgate.toml", &uncommented(), &mut report);
    let documented = keys(&tree, "");
    let config = raw::read(tree, &mut report);
    let read: BTreeSet<String> = report.keys().filter_map(general).collect();
    assert_eq!(documented, read);
    // The documented file is right but for secrets that are not on this machine.
    let mistakes: Vec<String> = report.finish().into_iter().map(|mistake| mistake.key).collect();
    assert_eq!(mistakes, ["store.sentinel_password.file", "identity.hash_key.file"]);

    let printed = config.to_toml().unwrap();
    assert!(!printed.contains("hunter2"), "{printed}");
    // What is not set is printed in a comment.
    let printed: String =
        printed.lines().map(|line| line.strip_prefix("# ").map_or(line.into(), |key| format!("{key} 0")) + "\n").collect();
    let printed = keys(&toml("printed", &printed, &mut Report::new(&BTreeMap::new())), "");
    assert_eq!(documented, printed);
}

#[test]
fn the_defaults_hold_no_mistake() {
    let environment = BTreeMap::new();
    let loaded = load(&Sources { file: Some("/dev/null".into()), environment }).unwrap();
    assert_eq!(loaded.config, Config::default());
}

#[test]
fn an_endpoint_for_traces_is_a_mistake_where_the_build_exports_none() {
    let mistakes = |text: &str, exports| {
        let environment = BTreeMap::new();
        let mut report = Report::new(&environment);
        let tree = toml("cxgate.toml", text, &mut report);
        check::check_telemetry(&raw::read(tree, &mut report), exports, &mut report);
        report.finish().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let endpoint = "[telemetry]\nendpoint = \"http://localhost:4318/v1/traces\"\n";
    assert_eq!(mistakes(endpoint, true), [""; 0]);
    assert_eq!(mistakes("[telemetry]\nsample_ratio = 0.5\n", false), [""; 0]);
    let said = "cxgate.toml:2:1: telemetry.endpoint = \"http://localhost:4318/v1/traces\": this build exports no traces; one \
                with them is made by `cargo build --release --features otel`";
    assert_eq!(mistakes(endpoint, false), [said]);
}

proptest! {
    #[test]
    fn no_text_makes_reading_panic(
        start in 0..DOCUMENTED.len(),
        length in 0..40_usize,
        instead in r#"[\[\]{}=".,\n# a1é\u{0}-]{0,8}"#,
    ) {
        let mut bytes = uncommented().into_bytes();
        let start = start.min(bytes.len());
        let end = (start + length).min(bytes.len());
        bytes.splice(start..end, instead.bytes());
        let environment = BTreeMap::new();
        let mut report = Report::new(&environment);
        let tree = toml("cxgate.toml", &String::from_utf8_lossy(&bytes), &mut report);
        let config = raw::read(tree, &mut report);
        check::check(&config, &mut report);
        // Whatever was understood can be told.
        prop_assert!(config.to_toml().is_ok());
        prop_assert!(report.finish().iter().all(|mistake| mistake.place.starts_with("cxgate.toml:")));
    }
}

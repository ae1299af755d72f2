//! The JSON Schema knows the keys of `config/cxgate.toml`, their defaults and their bounds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::Value;

const SCHEMA: &str = include_str!("../../docs/cxgate.schema.json");
const DOCUMENTED: &str = include_str!("../../config/cxgate.toml");

/// By key, with `*` for the names of single tables.
type ByKey<'a> = BTreeMap<String, &'a Value>;

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

fn toml(text: &str) -> Value {
    toml::from_str(text).unwrap()
}

/// The documented file with what stands behind a single # taken in.
fn uncommented() -> String {
    let is_key = |line: &&str| {
        let word = line.split(" = ").next().unwrap_or_default();
        line.starts_with('[') || (line.contains(" = ") && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
    };
    let lines = DOCUMENTED.lines().map(|line| line.strip_prefix("# ").filter(is_key).unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// Every key of a file and its values; of several tables of one list, the first that has it.
fn typed<'a>(value: &'a Value, key: &str, found: &mut ByKey<'a>) {
    let secret = ["file", "env"].iter().any(|form| value.get(form).is_some());
    match value {
        Value::Object(entries) if !secret => {
            for (name, value) in entries {
                let name = if ["upstreams", "load", "limits", "oauth"].contains(&key) { "*" } else { name };
                let key = if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
                if name != "*" {
                    found.entry(key.clone()).or_insert(value);
                }
                typed(value, &key, found);
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| typed(element, key, found)),
        _ => {}
    }
}

/// Every key that a schema knows, and what it says about it.
fn known<'a>(root: &'a Value, at: &'a Value, key: &str, found: &mut ByKey<'a>) {
    let reference = at["$ref"].as_str().and_then(|reference| root.pointer(reference.trim_start_matches('#')));
    for at in [Some(at), reference].into_iter().flatten() {
        for (name, below) in at["properties"].as_object().into_iter().flatten() {
            let key = if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
            found.insert(key.clone(), below);
            known(root, below, &key, found);
        }
        if at["additionalProperties"].is_object() {
            known(root, &at["additionalProperties"], &format!("{key}.*"), found);
        }
        if at["items"].is_object() {
            known(root, &at["items"], key, found);
        }
    }
}

/// The same, whether it is written as a whole number or not.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        _ => one == other,
    }
}

#[test]
fn the_schema_knows_the_documented_keys_and_no_other() {
    let (schema, file) = (schema(), toml(&uncommented()));
    let (mut in_schema, mut in_file) = (ByKey::new(), ByKey::new());
    known(&schema, &schema, "", &mut in_schema);
    typed(&file, "", &mut in_file);
    let missing: BTreeSet<_> = in_file.keys().filter(|key| !in_schema.contains_key(*key)).collect();
    let surplus: BTreeSet<_> = in_schema.keys().filter(|key| !in_file.contains_key(*key)).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "docs/cxgate.schema.json lacks {missing:?}, and has {surplus:?}");
}

#[test]
fn every_key_of_the_schema_has_a_description_and_the_documented_default() {
    let (schema, file) = (schema(), toml(DOCUMENTED));
    let (mut in_schema, mut in_file) = (ByKey::new(), ByKey::new());
    known(&schema, &schema, "", &mut in_schema);
    typed(&file, "", &mut in_file);
    for (key, says) in &in_schema {
        let referred = says["$ref"].as_str().and_then(|reference| schema.pointer(reference.trim_start_matches('#')));
        let described = [Some(*says), referred].into_iter().flatten().any(|at| at["description"].is_string());
        assert!(described, "{key} has no description");
        // A route and its limit are an example, not defaults.
        let has_default = !key.starts_with("routes") && in_file.get(key).is_some_and(|value| !value.is_object());
        if has_default {
            let (default, documented) = (&says["default"], in_file[key]);
            assert!(same(default, documented), "{key}: the default is {documented}, the schema says {default}");
        }
    }
}

#[test]
fn good_files_fit_the_schema() {
    let validator = jsonschema::draft202012::new(&schema()).unwrap();
    for text in [DOCUMENTED.to_owned(), uncommented(), fs::read_to_string("tests/it/good/everything.toml").unwrap()] {
        let problems: Vec<String> =
            validator.iter_errors(&toml(&text)).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert_eq!(problems, Vec::<String>::new());
    }
}

#[test]
fn wrong_types_words_and_bounds_do_not_fit_the_schema() {
    let validator = jsonschema::draft202012::new(&schema()).unwrap();
    for name in [
        "address_without_port",
        "choice",
        "curve_shape",
        "decimal_for_integer",
        "duration_number",
        "duration_without_unit",
        "duration_zero",
        "identity_source",
        "integer_out_of_range",
        "key_prefix",
        "limit_capacity",
        "limit_per_empty",
        "limit_use_and_own",
        "limit_without_bucket",
        "limits_too_many",
        "oauth_grant",
        "oauth_grant_keys",
        "oauth_scope",
        "path_trailing_slash",
        "route_without_paths",
        "secret_both",
        "table_for_text",
        "text_for_integer",
        "tls_client_ca",
        "tls_without_key",
        "unknown_key",
    ] {
        let file = format!("tests/it/bad/{name}.toml");
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(!validator.is_valid(&toml(&text)), "{file} fits the schema");
    }
}

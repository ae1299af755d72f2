//! From environment variables to the same tree that a file gives.
//!
//! Promised: `CXGATE__SECTION__KEY` sets `section.key`; a text that is a JSON object is a table. What else a text means
//! depends on its key and is left to `raw`: a list is typed `a, b`, a list of tables is a JSON array. Variables that no key
//! takes are found by `report`. Not promised: keys with capitals or single elements of lists; those belong in the file.

use std::collections::BTreeMap;

use config::{Map, Value, ValueKind};

use super::{
    report::{Report, place_in_variable, place_of_variable},
    source::overlay,
};

/// What the variables that cxgate has in common with its predecessor say. Empty ones count as absent.
pub(super) fn predecessor(environment: &BTreeMap<String, String>, report: &mut Report<'_>) -> Value {
    let mut tree = empty();
    let variables = [
        ("PROXY_PORT", "listen.address"),
        ("CXONE_BASE_URL", "upstreams.cxone.url"),
        ("REDIS_ADDR", "store.redis"),
        ("METRICS_ENDPOINT", "load.backend.endpoint"),
    ];
    for (name, key) in variables {
        let Some(text) = environment.get(name).filter(|text| !text.is_empty()) else { continue };
        let text = match name {
            "PROXY_PORT" if text.parse::<u16>().is_err() => {
                let value = Some(format!("{text:?}"));
                report.wrong_at(&place_of_variable(name), key, value, "expected a port from 0 to 65535");
                continue;
            }
            "PROXY_PORT" => format!("0.0.0.0:{text}"),
            "REDIS_ADDR" if !text.contains("://") => format!("redis://{text}"),
            _ => text.clone(),
        };
        overlay(&mut tree, nested(key, ".", Value::new(Some(&place_of_variable(name)), text)));
    }
    tree
}

/// What the variables that start with `CXGATE__` say.
pub(super) fn own(environment: &BTreeMap<String, String>) -> Value {
    let mut tree = empty();
    for (name, text) in environment {
        let Some(key) = name.strip_prefix("CXGATE__").filter(|key| !key.bytes().any(|byte| byte.is_ascii_lowercase()))
        else {
            continue;
        };
        let key = key.to_ascii_lowercase();
        overlay(&mut tree, nested(&key, "__", value(name, text)));
    }
    tree
}

/// The list that JSON `text` in variable `name` holds, if it is one.
pub(super) fn json_list(name: &str, text: &str) -> Option<Vec<Value>> {
    let elements: Vec<serde_json::Value> = serde_json::from_str(text).ok()?;
    Some(elements.into_iter().map(|element| from_json(&place_in_variable(name), element)).collect())
}

/// The elements of the comma list `text` in variable `name`.
pub(super) fn comma_list(name: &str, text: &str) -> Vec<Value> {
    let elements = text.split(',').map(str::trim).filter(|_| !text.trim().is_empty());
    elements.map(|element| Value::new(Some(&place_of_variable(name)), element)).collect()
}

fn value(name: &str, text: &str) -> Value {
    let kind = match serde_json::from_str::<serde_json::Map<_, _>>(text) {
        Ok(object) => from_json(&place_in_variable(name), object.into()).kind,
        Err(_) => ValueKind::String(text.to_owned()),
    };
    Value::new(Some(&place_of_variable(name)), kind)
}

fn from_json(place: &String, json: serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => ValueKind::Nil,
        serde_json::Value::Bool(boolean) => ValueKind::Boolean(boolean),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(integer) => ValueKind::I64(integer),
            None => ValueKind::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => ValueKind::String(text),
        serde_json::Value::Array(elements) => {
            ValueKind::Array(elements.into_iter().map(|element| from_json(place, element)).collect())
        }
        serde_json::Value::Object(entries) => {
            ValueKind::Table(entries.into_iter().map(|(key, value)| (key, from_json(place, value))).collect())
        }
    };
    Value::new(Some(place), kind)
}

/// `value` under `key`, in the tables that it names. These have no place: no variable stands for them.
fn nested(key: &str, separator: &str, value: Value) -> Value {
    let levels: Vec<&str> = key.split(separator).collect();
    levels.into_iter().rev().fold(value, |value, level| Value::from(Map::from([(level.to_owned(), value)])))
}

fn empty() -> Value {
    Value::from(Map::<String, Value>::new())
}

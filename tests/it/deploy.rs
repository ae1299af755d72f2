//! What lies in `deploy/` fits the program: it names metrics that exist, and agrees with the configuration it brings.

use std::fs;

use serde_json::Value;

mod manifests;
mod observability;

/// A file of the project.
fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The elements of a list; none where there is no list.
fn elements(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

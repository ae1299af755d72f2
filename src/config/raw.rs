//! From what was typed to what is meant: a [`Reader`] takes the values out of one table, each under its key, with its
//! default and a [`kind`] that says what it may be.
//!
//! Promised: nothing is converted silently (3.7 is not 4, "7" is 7 only where it comes from the environment, which holds
//! nothing but text); every mistake is reported and reading goes on; a key that nobody asked for is one.

use std::collections::BTreeMap;

use config::{Map, Value, ValueKind};

use self::kind::shown;
use super::{
    Config, Secret,
    environment::{comma_list, json_list},
    report::{Report, nearest, variable_at},
    secret,
};

mod delivery;
mod egress;
mod guests;
mod identity;
mod kind;
mod listen;
mod load;
mod log;
mod routes;
mod store;
mod telemetry;
mod upstreams;

/// One table, as far as it has not been read.
struct Reader<'r, 'e> {
    /// The table's own key, empty for the outermost.
    key: String,
    entries: Map<String, Value>,
    /// Keys asked for so far.
    asked: Vec<&'static str>,
    report: &'r mut Report<'e>,
}

/// The whole configuration. What could not be read is replaced by its default, or by something harmless, and reported.
pub(super) fn read(tree: Value, report: &mut Report<'_>) -> Config {
    Reader::read(String::new(), tree, report, |root| {
        let signals = root.named("load", |signal, _| load::signal(signal));
        let oauth = root.named("oauth", |oauth, _| delivery::oauth(oauth));
        let limits = root.named("limits", |limit, name| routes::limit(limit, name.to_owned(), &signals));
        let upstreams = root.named("upstreams", |upstream, _| upstreams::upstream(upstream));
        let routes = root.tables("routes", |route| routes::route(route, &upstreams, &oauth, &signals, &limits));
        let (load, latency) = load::split(signals);
        Config {
            listen: root.table("listen", listen::listen),
            admin: root.table("admin", listen::admin),
            log: root.table("log", log::log),
            telemetry: root.table("telemetry", telemetry::telemetry),
            store: root.table("store", store::store),
            identity: root.table("identity", identity::identity),
            whitelist: root.tables("whitelist", identity::trusted),
            routes,
            upstreams,
            load,
            latency,
            oauth,
            limits,
        }
    })
}

// === impl Reader: single values ===

impl Reader<'_, '_> {
    /// The value of `key`, or `default`.
    fn or<T>(&mut self, key: &'static str, default: T, kind: impl Fn(&Value) -> Result<T, String>) -> T {
        self.optional(key, kind).unwrap_or(default)
    }

    /// The value of `key`, if there is one.
    fn optional<T>(&mut self, key: &'static str, kind: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
        let value = self.take_value(key)?;
        self.checked(&self.key_of(key), &value, kind)
    }

    /// The value of `key`, which must be there; `instead` stands in for it where it is not.
    fn required<T>(&mut self, key: &'static str, instead: T, kind: impl Fn(&Value) -> Result<T, String>) -> T {
        self.demand(key, &kind);
        self.or(key, instead, kind)
    }

    /// A text that must not be seen: typed as it is, or as the file or the variable that holds it.
    fn secret(&mut self, key: &'static str, expected: &str, accept: impl Fn(&str) -> bool) -> Option<Secret> {
        let value = self.take(key)?;
        self.secret_of(&self.key_of(key), value, expected, accept)
    }

    /// The secrets of a table whose keys are free to choose, by key; `accept` sees key and text. Those that cannot be read are
    /// left out.
    fn secrets(&mut self, expected: &str, accept: impl Fn(&str, &str) -> bool) -> BTreeMap<String, Secret> {
        let entries: BTreeMap<String, Value> = std::mem::take(&mut self.entries).into_iter().collect();
        let read_one = |(name, value): (String, Value)| {
            let key = self.key_of(&quoted(&name));
            self.report.asked(&key, value.origin());
            let secret = self.secret_of(&key, value, expected, |text| accept(&name, text))?;
            Some((name, secret))
        };
        entries.into_iter().filter_map(read_one).collect()
    }

    fn secret_of(&mut self, key: &str, value: Value, expected: &str, accept: impl Fn(&str) -> bool) -> Option<Secret> {
        let text = match value.kind {
            ValueKind::String(text) => Some(text),
            ValueKind::Table(_) => Some(Reader::read(key.to_owned(), value, self.report, referred)?),
            _ => None,
        };
        let text = text.filter(|text| accept(text));
        if text.is_none() {
            let forms = r#"typed as it is, as { file = "PATH" } or as { env = "NAME" }"#;
            self.report.wrong(key, None, format!("expected {expected}; {forms}"));
        }
        text.map(Secret::new)
    }

    /// Reports `key`, which has no meaning here although it has one elsewhere.
    fn refuse(&mut self, key: &'static str, problem: &str) {
        if self.take(key).is_some() {
            self.report.wrong(&self.key_of(key), None, problem);
        }
    }

    /// Reports `key`, whose value was taken but does not fit.
    fn wrong(&mut self, key: &str, problem: &str) {
        self.report.wrong(&self.key_of(key), None, problem);
    }

    /// Reports `key` if it is not there.
    fn demand<T>(&mut self, key: &'static str, kind: impl Fn(&Value) -> Result<T, String>) {
        if let (false, Err(expected)) = (self.entries.contains_key(key), kind(&Value::default())) {
            self.report.asked(&self.key_of(key), None);
            self.report.wrong(&self.key_of(key), None, format!("missing, expected {expected}"));
        }
    }

    fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    fn is_list(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|value| matches!(value.kind, ValueKind::Array(_)))
    }

    fn key_of(&self, key: &str) -> String {
        if self.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.key) }
    }

    /// What has no place is a table made for a variable that goes deeper than `key`; the variable will be reported.
    fn take_value(&mut self, key: &'static str) -> Option<Value> {
        self.take(key).filter(|value| value.origin().is_some())
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        let value = self.entries.remove(key);
        self.asked.push(key);
        self.report.asked(&self.key_of(key), value.as_ref().and_then(Value::origin));
        value
    }

    fn checked<T>(&mut self, key: &str, value: &Value, kind: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
        kind(value).map_err(|expected| self.report.wrong(key, shown(value), format!("expected {expected}"))).ok()
    }
}

// === impl Reader: lists and tables ===

impl<'e> Reader<'_, 'e> {
    /// The list under `key`, or `default`. Elements that cannot be read are left out.
    fn list<T: PartialEq>(
        &mut self,
        key: &'static str,
        default: Vec<T>,
        kind: impl Fn(&Value) -> Result<T, String>,
    ) -> Vec<T> {
        self.elements(key, kind).map_or(default, |elements| elements.into_iter().flatten().collect())
    }

    /// The list under `key`, which must be there and have an element; `instead` stands in for those that cannot be read.
    fn filled_list<T: PartialEq + Clone>(
        &mut self,
        key: &'static str,
        instead: &T,
        kind: impl Fn(&Value) -> Result<T, String>,
    ) -> Vec<T> {
        self.demand(key, &kind);
        let elements = self.elements(key, kind);
        if elements.as_ref().is_some_and(Vec::is_empty) {
            self.wrong(key, "expected at least one element");
        }
        elements.into_iter().flatten().map(|element| element.unwrap_or_else(|| instead.clone())).collect()
    }

    /// The elements under `key`, each of which must be there once; `None` for those that cannot be read.
    fn elements<T: PartialEq>(
        &mut self,
        key: &'static str,
        kind: impl Fn(&Value) -> Result<T, String>,
    ) -> Option<Vec<Option<T>>> {
        let value = self.take_value(key)?;
        let key = self.key_of(key);
        let elements = match (&value.kind, variable_at(value.origin())) {
            (ValueKind::String(text), Some(name)) => comma_list(name, text),
            (ValueKind::Array(elements), _) => elements.clone(),
            _ => {
                self.report.wrong(&key, shown(&value), "expected a list");
                return None;
            }
        };
        let mut read = Vec::with_capacity(elements.len());
        for (index, element) in elements.iter().enumerate() {
            let key = format!("{key}[{index}]");
            self.report.asked(&key, element.origin());
            let meant = self.checked(&key, element, &kind);
            if meant.is_some() && read.contains(&meant) {
                self.report.wrong(&key, shown(element), "expected each element only once");
            }
            read.push(meant);
        }
        Some(read)
    }

    /// The table `[key]`; one that is not there is empty.
    fn table<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Reader<'_, 'e>) -> T) -> T {
        let value = self.take(key).unwrap_or_else(empty);
        Reader::read(self.key_of(key), value, self.report, read)
    }

    /// The table `[key]`, if there is one.
    fn optional_table<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Reader<'_, 'e>) -> T) -> Option<T> {
        let value = self.take_value(key)?;
        Some(Reader::read(self.key_of(key), value, self.report, read))
    }

    /// Every entry of a table whose keys are free to choose; entries that cannot be read are left out.
    fn every<T>(&mut self, kind: impl Fn(&Value) -> Result<T, String>) -> BTreeMap<String, T> {
        let mut entries: Vec<_> = std::mem::take(&mut self.entries).into_iter().collect();
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        let read_one = |(name, value): (String, Value)| {
            let key = self.key_of(&quoted(&name));
            self.report.asked(&key, value.origin());
            Some((name, self.checked(&key, &value, &kind)?))
        };
        entries.into_iter().filter_map(read_one).collect()
    }

    /// The tables `[[key]]`.
    fn tables<T>(&mut self, key: &'static str, read: impl Fn(&mut Reader<'_, 'e>) -> T) -> Vec<T> {
        let Some(value) = self.take_value(key) else { return Vec::new() };
        let key = self.key_of(key);
        let elements = match (&value.kind, variable_at(value.origin())) {
            (ValueKind::String(text), Some(name)) => json_list(name, text),
            (ValueKind::Array(elements), _) => Some(elements.clone()),
            _ => None,
        };
        let Some(elements) = elements else {
            self.report.wrong(&key, None, "expected a list of tables (in JSON, where it is a variable)");
            return Vec::new();
        };
        let mut tables = Vec::with_capacity(elements.len());
        for (index, element) in elements.into_iter().enumerate() {
            let key = format!("{key}[{index}]");
            self.report.asked(&key, element.origin());
            tables.push(Reader::read(key, element, self.report, &read));
        }
        tables
    }

    /// The tables `[key.NAME]`, by name.
    fn named<T>(&mut self, key: &'static str, read: impl Fn(&mut Reader<'_, 'e>, &str) -> T) -> BTreeMap<String, T> {
        self.table(key, |tables| {
            let mut named: Vec<_> = std::mem::take(&mut tables.entries).into_iter().collect();
            named.sort_by(|(one, _), (other, _)| one.cmp(other));
            let read_one = |(name, value): (String, Value)| {
                let key = format!("{}.{}", tables.key, quoted(&name));
                tables.report.asked(&key, value.origin());
                let table = Reader::read(key.clone(), value, tables.report, |table| read(table, &name));
                // Afterwards, because nothing is reported below what is wrong.
                if let Err(expected) = kind::name(&Value::from(name.as_str())) {
                    tables.report.wrong(&key, None, format!("expected {expected}"));
                }
                (name, table)
            };
            named.into_iter().map(read_one).collect()
        })
    }

    /// Hands the entries of `value` to `read`, then reports those it did not ask for.
    fn read<T>(key: String, value: Value, report: &mut Report<'e>, read: impl FnOnce(&mut Reader<'_, 'e>) -> T) -> T {
        let ValueKind::Table(entries) = value.kind else {
            report.wrong(&key, None, "expected a table (in JSON, where it is a variable)");
            return Reader::read(key, empty(), report, read);
        };
        let mut reader = Reader { key, entries, asked: Vec::new(), report };
        let meant = read(&mut reader);
        for (name, value) in &reader.entries {
            let nearest = nearest(name, reader.asked.iter().copied());
            reader.report.unknown(value.origin(), &reader.key_of(&quoted(name)), nearest);
        }
        meant
    }
}

fn empty() -> Value {
    Value::from(Map::<String, Value>::new())
}

/// A key the way it is typed.
fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if bare { key.to_owned() } else { format!("{key:?}") }
}

/// The text that `{ file = … }` or `{ env = … }` refers to.
fn referred(table: &mut Reader<'_, '_>) -> Option<String> {
    let (key, reference, text) = match (table.optional("file", kind::any_text), table.optional("env", kind::any_text)) {
        (Some(path), None) => ("file", path.clone(), secret::from_file(&path)),
        (None, Some(name)) => {
            let text = table.report.variable(&name).filter(|text| !text.is_empty()).map(str::to_owned);
            ("env", name, text.ok_or_else(|| "expected the name of a variable that is set and not empty".to_owned()))
        }
        _ => {
            table.report.wrong(&table.key, None, "expected either file or env");
            return None;
        }
    };
    text.map_err(|problem| table.report.wrong(&table.key_of(key), Some(format!("{reference:?}")), problem)).ok()
}

//! The configuration as a file: every key, unset ones commented out, secrets hidden. Loading it gives the same
//! configuration again, secrets aside.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::{Config, Latency, Limit, Load, RouteLimit, value::NOT_SET};

impl Config {
    /// Tells one configuration from another, secrets aside: the first 12 digits of the SHA-1 of all of it.
    pub fn revision(&self) -> String {
        let mut revision = sha1_smol::Sha1::from(self.to_toml().unwrap_or_default()).digest().to_string();
        revision.truncate(12);
        revision
    }

    /// Everything, in TOML. Values that are not set stand as `# key =`.
    ///
    /// # Errors
    ///
    /// None that a configuration can cause; the serializer's are passed on.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let not_set = format!(" = \"{NOT_SET}\"");
        let commented = |line: &str| match line.strip_suffix(&not_set) {
            Some(key) => format!("# {key} =\n"),
            None => format!("{line}\n"),
        };
        let polled = self.load.iter().map(|(name, load)| (name, Signal::Polled(load)));
        let measured = self.latency.iter().map(|(name, latency)| (name, Signal::Measured(latency)));
        let signals = Signals { load: polled.chain(measured).collect() };
        let whole = toml::to_string(self)? + "\n" + &toml::to_string(&signals)?;
        Ok(whole.lines().map(commented).collect())
    }
}

/// Load signals of either kind, under the one name by which both are typed.
#[derive(Serialize)]
struct Signals<'a> {
    load: BTreeMap<&'a String, Signal<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Signal<'a> {
    Polled(&'a Load),
    Measured(&'a Latency),
}

/// A route's limit as it is typed.
#[derive(Serialize)]
#[serde(untagged)]
enum Typed<'a> {
    Shared {
        r#use: &'a str,
        cost: u32,
    },
    Own {
        name: &'a str,
        #[serde(flatten)]
        limit: &'a Limit,
        cost: u32,
    },
}

impl Serialize for RouteLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { shared, limit, cost } = self;
        let typed = if *shared {
            Typed::Shared { r#use: &limit.name, cost: *cost }
        } else {
            Typed::Own { name: &limit.name, limit, cost: *cost }
        };
        typed.serialize(serializer)
    }
}

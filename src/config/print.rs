//! The configuration as a file: every key, unset ones commented out, secrets hidden. Loading it gives the same
//! configuration again, secrets aside.

use serde::{Serialize, Serializer};

use super::{Config, Limit, RouteLimit, value::NOT_SET};

impl Config {
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
        Ok(toml::to_string(self)?.lines().map(commented).collect())
    }
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

//! `[log]`: what is written about events and about requests.

use std::path::PathBuf;

use serde::{Serialize, Serializer};

use super::value;

/// `[log]`: the form and the amount of what is written to standard error.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Log {
    /// How an event is written.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: LogLevel,
    /// What the fields of lines in JSON are called.
    pub fields: LogFields,
    /// One line a request.
    pub access: AccessLog,
}

/// How an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// One line of text.
    Text,
}

/// The least severe level that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names of tracing's levels")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// What fields are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFields {
    /// As in docs/reference.md.
    Cxgate,
    /// As the Elastic Common Schema calls them.
    Ecs,
}

/// `[log.access]`: one line a request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AccessLog {
    /// Where lines go; `None` writes none.
    #[serde(serialize_with = "value::optional")]
    pub to: Option<AccessTarget>,
    /// How a line is written.
    pub format: AccessFormat,
    /// How clients are called.
    pub clients: AccessClients,
    /// Of answers below 400, one in so many is written (1 to 1000000).
    pub sample: u32,
    /// Request header fields that lines in JSON hold, in lower case; none that carries credentials.
    pub headers: Vec<String>,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, added to.
    File(PathBuf),
}

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessFormat {
    /// One JSON object.
    Json,
    /// The combined format that web servers share.
    Combined,
}

/// How clients are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessClients {
    /// By their name.
    Plain,
    /// By a hash of it.
    Hashed,
}

// === impl AccessTarget ===

impl From<&str> for AccessTarget {
    fn from(text: &str) -> Self {
        match text {
            "stdout" => Self::Stdout,
            "stderr" => Self::Stderr,
            path => Self::File(PathBuf::from(path)),
        }
    }
}

impl Serialize for AccessTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Stdout => serializer.serialize_str("stdout"),
            Self::Stderr => serializer.serialize_str("stderr"),
            Self::File(path) => path.serialize(serializer),
        }
    }
}

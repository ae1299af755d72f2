//! Values that must never be seen: they print and serialize as `[redacted]`.

use std::{fmt, path::Path};

use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, Serializer};
use subtle::ConstantTimeEq;

use super::source::read_file;

/// A password, token or URL that holds one. Wiped from memory when dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

/// What stands where a secret would.
pub(super) const REDACTED: &str = "[redacted]";

// === impl Secret ===

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(SecretString::from(value.into()))
    }

    /// The value itself: for the one place that sends it, never for a log or an error.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether `claim` is the secret, in time that depends on the lengths alone.
    pub fn matches(&self, claim: &[u8]) -> bool {
        self.expose().as_bytes().ct_eq(claim).into()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.expose().as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

/// What the file at `path` holds, without the line end that editors leave; or what is wrong with it.
pub(super) fn from_file(path: &str) -> Result<String, String> {
    /// Far above any key or token; what is larger is not meant.
    const LIMIT: u64 = 65_536;
    let text = read_file(Path::new(path), LIMIT)?;
    let line = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() { Err("expected a file that is not empty".to_owned()) } else { Ok(line.to_owned()) }
}

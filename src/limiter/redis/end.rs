//! How a session ends, or why there is none.

use crate::config::Address;

/// Calls in a row without a verdict that end a session. One may be bad luck; three are not worth a fourth's waiting.
pub(super) const FAILURES_MAX: u32 = 3;

/// Why there is no session. Shown to operators; holds nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum End {
    #[error("could not connect: {0}")]
    Connect(String),
    #[error("the connection was closed")]
    Closed,
    #[error("{FAILURES_MAX} calls in a row brought no verdict")]
    Failing,
    #[error("it cannot serve: {0}")]
    Unable(String),
    #[error("the Sentinels name another master")]
    Deposed,
    #[error("it is a node of a Cluster, and the keys are at {0}")]
    Moved(Address),
}

// === impl End ===

impl End {
    pub(super) fn connect(error: impl std::fmt::Display) -> Self {
        Self::Connect(error.to_string())
    }
}

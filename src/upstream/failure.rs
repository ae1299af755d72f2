//! Why an exchange has no answer, and what may be done about it.

use super::UpstreamError;

/// What went wrong, for people to read.
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What an upstream did wrong with its body. The client must see its connection break, not a short body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResponseFault {
    /// It ended before its end, or in bad chunks.
    #[error("the response broke off")]
    Truncated,
    /// It made no progress for the idle time.
    #[error("the response made no progress")]
    Stalled,
}

/// Why an exchange has no response head, and what is known of its request.
pub(super) struct Failure {
    pub(super) fate: Fate,
    pub(super) cause: Cause,
}

/// What became of a request that has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// No byte of it was written.
    Unwritten,
    /// The upstream says that it has not looked at it (RFC 9113, section 8.7).
    Unprocessed,
    /// The connection ended, and there was no byte of an answer.
    Silent,
    /// Its answer did not come in time.
    Overdue,
    /// It may have been processed.
    Unknown,
}

// === impl UpstreamError ===

impl From<Failure> for UpstreamError {
    fn from(Failure { fate, cause }: Failure) -> Self {
        match fate {
            Fate::Overdue => Self::ResponseTimeout,
            Fate::Unprocessed => Self::Refused,
            Fate::Unwritten | Fate::Silent | Fate::Unknown => Self::Protocol(cause),
        }
    }
}

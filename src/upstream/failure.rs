//! Why an exchange has no response, and so whether its request may be sent again.

use h2::Reason;
use hyper::Request;

use super::upload::Upload;

/// Why an exchange has no response head, and what is known of its request.
pub(super) struct Failure {
    pub(super) fate: Fate,
    pub(super) cause: Box<dyn std::error::Error + Send + Sync>,
}

/// What became of a request that has no answer.
pub(super) enum Fate {
    /// No byte of it was written; here it is.
    Unwritten(Box<Request<Upload>>),
    /// The upstream says that it has not looked at it (RFC 9113, section 8.7).
    Unprocessed,
    /// The connection ended, and there was no byte of an answer.
    Silent,
    /// It may have been processed.
    Unknown,
}

// === impl Failure ===

impl Failure {
    /// Why a stream has no response. An upstream that goes away names the last stream it looked at, and h2 ends those behind
    /// it with that; others end with their connection.
    pub(super) fn of_stream(error: h2::Error) -> Self {
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        let fate = if error.is_remote() && (refused || error.is_go_away()) {
            Fate::Unprocessed
        } else if error.is_io() {
            Fate::Silent
        } else {
            Fate::Unknown
        };
        Self { fate, cause: Box::new(error) }
    }
}

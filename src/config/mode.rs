//! Deciding for real, or only to see what would come of it.

use serde::Serialize;

/// Whether what a route's limits decide also holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Who is over a limit is refused, or waits.
    Enforce,
    /// Everyone passes; who would not have is told of.
    Shadow,
}
